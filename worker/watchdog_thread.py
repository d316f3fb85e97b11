"""The thread in a worker's main process that sweeps the job table and looks after the worker itself."""

import atexit
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence

from config import Settings
from services.dispatcher import Dispatcher
from services.errors import QueueUnavailable, ServiceError
from services.job_folders import JobFolders
from services.job_table import Worker
from services.model_pruning import ModelPruning
from services.retention import Retention
from services.stores import open_job_tables, open_object_store
from services.watchdog import Tidy, Watchdog
from worker.ending import EXIT_STATUS, Ending
from worker.hearing import Hearing
from worker.identity import pool_process_id, worker_id
from worker.queue import CeleryQueue

log = logging.getLogger(__name__)

SWEEPS_PER_TIDYING = 1000


class WatchdogThread:
    """Beats, sweeps, gives back what lost pool processes held, and ends a worker that hears nothing any more.

    SQLite forbids to fork with a connection open. The lock is taken before each fork and during each use of the database,
    and the connections are not pooled, so that the two never meet.
    """

    def __init__(self, settings: Settings, pool_pids: Callable[[], set[int]]) -> None:
        self._settings = settings
        self._pool_pids = pool_pids
        self._hearing = Hearing(settings.idle_worker_seconds, settings.watchdog_seconds)
        self._over = threading.Event()
        self._woken = threading.Event()
        self._closed = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)
        self._is_set_up = False
        self._is_deaf = False
        self.ending = Ending(pool_pids, self.release)

    def start(self, queues: Sequence[str]) -> None:
        """Begins to sweep, in the process that calls this, for a worker that consumes these queues."""
        if self._is_set_up:
            return
        self._me = Worker(worker_id(), socket.gethostname(), os.getpid(), tuple(queues), 0.0, 0.0)
        self._known_pids = self._pool_pids()
        self._queue = CeleryQueue(self._settings)
        store, self._steps = open_job_tables(self._settings, pooled=False)
        objects = open_object_store(self._settings)
        tidying: list[Tidy] = [
            Retention(store, objects, self._settings.retention_days),
            JobFolders(self._settings.var_dir, store),
            ModelPruning.by_settings(self._settings, store, objects),
        ]
        self._watchdog = Watchdog(self._steps, self._queue, Dispatcher(self._queue, self._steps), tidying)
        self._is_set_up = True
        os.register_at_fork(
            before=self._closed.acquire, after_in_parent=self._closed.release, after_in_child=self._closed.release
        )
        self._thread.start()
        atexit.register(self._stop, os.getpid())  # Celery's worker_shutdown is not sent when tasks are cut off

    def hear(self) -> None:
        """The worker has taken a message."""
        self._hearing.hear()

    def wake(self) -> None:
        """Sweeps at once: something was lost."""
        self._woken.set()

    def release(self) -> None:
        """What the worker holds is given back, its heartbeat row is removed."""
        if self._is_set_up:
            self._guarded(lambda: self._watchdog.release(self._me.worker_id))

    def _stop(self, main_pid: int) -> None:
        if os.getpid() != main_pid:
            return
        self.ending.begin()
        self._over.set()
        self._woken.set()
        self._thread.join()
        self.release()
        if self._is_deaf:
            os._exit(EXIT_STATUS)  # Celery would say 0, which some supervisors take for the end of the work

    def _run(self) -> None:
        sweeps = 0
        while not self._over.is_set():
            self._guarded(self._sweep)
            if sweeps % SWEEPS_PER_TIDYING == 0:
                self._guarded(self._watchdog.tidy)
            sweeps += 1
            self._listen(self._messages())
            self._woken.wait(self._settings.watchdog_seconds)
            self._woken.clear()

    def _sweep(self) -> None:
        if not self.ending.has_begun:  # from then on, processes go because the worker goes, which counts as no attempt
            self._release_lost_processes()
            self._watchdog.beat(self._me)
        self._watchdog.sweep()

    def _release_lost_processes(self) -> None:
        pids = self._pool_pids()
        for pid in self._known_pids - pids:
            self._watchdog.release_process(pool_process_id(self._me.worker_id, pid))
        self._known_pids = pids

    def _messages(self) -> int:
        """How many wait in the worker's queues; 0 where nobody can tell, which is no reason to end."""
        try:
            return sum(self._queue.depth(queue) for queue in self._me.queues)
        except QueueUnavailable:
            return 0

    def _listen(self, messages: int) -> None:
        if self._hearing.is_deaf(messages > 0, messages > 0 and self._works()) and not self.ending.has_begun:
            facts = {"messages": messages, "queues": list(self._me.queues)}
            log.error("worker hears nothing of messages that wait for it, and ends itself", extra=facts)
            self._is_deaf = True
            self.ending.begin()
            os.kill(os.getpid(), signal.SIGTERM)

    def _works(self) -> bool:
        """Whether it has anything to work on; true as well where nobody can tell, which is no reason to end."""
        return self._guarded(lambda: self._steps.is_holding(self._me.worker_id)) is not False

    def _guarded(self, step: Callable[[], bool | None]) -> bool | None:
        """One step of the watchdog, and its answer; whatever goes wrong with it, the next one is tried."""
        try:
            with self._closed:
                return step()
        except ServiceError as problem:
            log.warning("watchdog step failed", extra={"error": type(problem).__name__, "reason": str(problem)})
        except Exception:
            log.exception("watchdog step met an internal error")
        return None
