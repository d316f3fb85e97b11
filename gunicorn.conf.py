"""gunicorn reads this by itself from the working directory; what stands on its command line wins."""

import socket
import struct
import threading
from typing import Any

from gunicorn.glogging import Logger

from config import load_settings
from services.logs import json_handler

STALLED_SECONDS = 30
"""A client that neither sends nor takes a byte for so long has gone: else each would hold one thread for ever."""

_settings = load_settings()


class JsonLogger(Logger):
    """gunicorn's own lines as JSON too; the app writes one line per request itself."""

    def setup(self, cfg: Any) -> None:
        """Replaces the handlers that gunicorn made."""
        super().setup(cfg)
        self.error_log.handlers[:] = [json_handler()]


bind = f"0.0.0.0:{_settings.port}"
worker_class = "routes.web_worker.JsonErrorWorker"
threads = 8
limit_request_line = 8190
preload_app = False  # models and databases are opened after the fork
timeout = 120
graceful_timeout = 30
keepalive = 15
accesslog = None
loglevel = _settings.log_level.lower()
logger_class = JsonLogger
control_socket_disable = True


def post_worker_init(worker: Any) -> None:
    """Streams of events hold at most half of the threads that there really are, and end when the process is to stop; the
    models, and what describes raw histories, are opened beside the start, in the process that answers."""
    from routes.context import EXTENSION  # not before the fork

    worker.wsgi.config["EVENT_STREAMS"] = worker.cfg.threads // 2
    worker.wsgi.config["IS_STOPPING"] = lambda: not worker.alive
    services = worker.wsgi.extensions[EXTENSION]
    services.registry.start()
    threading.Thread(target=services.predictions.warm, name="warm", daemon=True).start()


def when_ready(server: Any) -> None:
    """Bounds the wait for the head of a request: accepted connections inherit it."""
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", STALLED_SECONDS, 0))


def pre_request(_worker: Any, request: Any) -> None:
    """Bounds each wait for a part of the body, and for the client to take a part of the answer."""
    request.unreader.sock.settimeout(STALLED_SECONDS)
