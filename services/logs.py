"""Logs: one JSON object per line on standard output, with the id of the request that caused it."""

import logging
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def accept_request_id(offered: str | None) -> str:
    """The offered id if it is 1 to 64 letters, digits, dots, dashes and underscores; else a new one."""
    return offered if offered and REQUEST_ID.fullmatch(offered) else uuid.uuid4().hex


@contextmanager
def request_id_bound(request_id: str) -> Iterator[None]:
    """Every log line inside carries this id."""
    token = _request_id.set(request_id)
    try:
        yield
    finally:
        _request_id.reset(token)


def bind_request_id(request_id: str | None) -> None:
    """Every later log line of this context carries this id; None ends it."""
    _request_id.set(request_id)


def current_request_id() -> str | None:
    """The id that is bound here."""
    return _request_id.get()


class _AddRequestId(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        request_id = _request_id.get()
        if request_id is not None and not hasattr(record, "request_id"):
            record.request_id = request_id
        return True


def json_handler() -> logging.Handler:
    """A handler that writes JSON lines: time, level, logger, message and the facts given as `extra`."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(
            ["asctime", "levelname", "name", "message"],
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
        )
    )
    handler.addFilter(_AddRequestId())
    return handler


def configure_logging(level: str) -> None:
    """Sends all logs of this process to standard output as JSON lines."""
    root = logging.getLogger()
    root.handlers[:] = [json_handler()]
    root.setLevel(level)
    logging.captureWarnings(True)
    chatty = ("openai", "httpx2", "httpcore2")  # at DEBUG they write what is asked and answered
    for noisy in ("alembic", "werkzeug", "kombu", "amqp", "celery.worker.strategy", "celery.app.trace", *chatty):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level)))
