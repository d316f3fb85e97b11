"""What a worker does beside its tasks: logs, heartbeat rows, the watchdog, a prompt end."""

import atexit
import logging
import os
import socket
import threading
from typing import Any

from celery import platforms, signals
from celery.apps.worker import install_worker_term_hard_handler

from config import Settings
from services.errors import ServiceError
from services.job_store import Worker
from services.logs import configure_logging
from services.stores import open_job_store, open_object_store
from services.watchdog import Watchdog
from worker.celery_app import QUEUES
from worker.identity import worker_id
from worker.queue import CeleryQueue

log = logging.getLogger(__name__)

SWEEPS_PER_TIDYING = 1000
_connected: list[Any] = []  # Celery keeps weak references to handlers; these must live as long as the process


def attach(settings: Settings) -> None:
    """Connects a worker's beginning and end to what is to happen then."""
    thread = WatchdogThread(settings)

    def on_logging(**_facts: Any) -> None:
        configure_logging(settings.log_level)

    def on_ready(sender: Any, **_facts: Any) -> None:
        _stop_softly_on_sigterm(sender.controller)
        thread.start()

    def on_pool_process(**_facts: Any) -> None:
        from worker.process import services

        services()

    signals.setup_logging.connect(on_logging)
    signals.worker_ready.connect(on_ready)
    signals.worker_process_init.connect(on_pool_process)
    _connected.extend((on_logging, on_ready, on_pool_process))


def _stop_softly_on_sigterm(controller: Any) -> None:
    """SIGTERM, as SIGQUIT: two seconds for tasks to end, then they are cut off and their jobs given back."""
    install_worker_term_hard_handler(controller)
    platforms.signals["SIGTERM"] = platforms.signals["SIGQUIT"]


class WatchdogThread:
    """Sweeps and beats in the worker's main process, with the database closed whenever the process forks.

    SQLite forbids to fork with a connection open. The lock is taken before each fork and during each sweep, and the
    connections are not pooled, so that the two never meet.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._over = threading.Event()
        self._closed = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins to sweep, in the process that calls this."""
        if self._thread.is_alive():
            return
        self._me = Worker(worker_id(), socket.gethostname(), os.getpid(), QUEUES, 0.0, 0.0)
        store = open_job_store(self._settings, pooled=False)
        self._watchdog = Watchdog(store, CeleryQueue(self._settings), open_object_store(self._settings))
        os.register_at_fork(
            before=self._closed.acquire, after_in_parent=self._closed.release, after_in_child=self._closed.release
        )
        self._thread.start()
        atexit.register(self._stop, os.getpid())  # Celery's worker_shutdown is not sent when tasks are cut off

    def _stop(self, main_pid: int) -> None:
        """The worker goes: what it holds is given back, its heartbeat row is removed."""
        if os.getpid() != main_pid:
            return
        self._over.set()
        self._thread.join()
        self._guarded(lambda: self._watchdog.release(self._me.worker_id))

    def _run(self) -> None:
        sweeps = 0
        while True:
            self._guarded(self._sweep)
            if sweeps % SWEEPS_PER_TIDYING == 0:
                self._guarded(self._watchdog.tidy)
            sweeps += 1
            if self._over.wait(self._settings.watchdog_seconds):
                return

    def _sweep(self) -> None:
        self._watchdog.beat(self._me)
        self._watchdog.sweep()

    def _guarded(self, step: Any) -> None:
        """One step of the watchdog; whatever goes wrong with it, the next one is tried."""
        try:
            with self._closed:
                step()
        except ServiceError as problem:
            log.warning("watchdog step failed", extra={"error": type(problem).__name__, "reason": str(problem)})
        except Exception:
            log.exception("watchdog step met an internal error")
