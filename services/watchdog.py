"""The one and only redelivery: what workers or the queue lost is queued again from the job table."""

import logging
from collections.abc import Iterable

from services.errors import QueueUnavailable
from services.job_store import QUEUED, Job, JobStore, Worker
from services.object_store import ObjectStore
from services.queue import JobQueue

log = logging.getLogger(__name__)

EMPTY_QUEUE_SECONDS = 5.0
"""A job that was sent so long ago to a queue that is empty now was lost."""
FULL_QUEUE_SECONDS = 300.0
"""In a queue that is not empty it may just wait; sending it twice does no harm, so it is done now and then."""
SILENT_WORKER_SECONDS = 3600.0
UNFINISHED_FILE_SECONDS = 86_400.0


class Watchdog:
    """Sweeps the job table. Any number of processes may sweep at once."""

    def __init__(self, store: JobStore, queue: JobQueue, objects: ObjectStore) -> None:
        self._store = store
        self._queue = queue
        self._objects = objects

    def sweep(self) -> None:
        """Ends leases that ran out, then sends what waits without a message. Raises JobStoreUnavailable."""
        expired = self._store.end_expired_leases()
        for job in expired:
            log.warning("worker lost", extra={"job_id": job.job_id, "attempts": job.attempts, "status": job.status})
        self._send(expired)
        self._send(self._lost_by_the_queue())

    def beat(self, worker: Worker) -> None:
        """Says that a worker is alive. Raises JobStoreUnavailable."""
        self._store.heartbeat(worker)

    def release(self, worker_id: str) -> None:
        """A worker goes away in good order: what it held is taken up by another at once."""
        released = self._store.release_worker(worker_id)
        self._store.forget_worker(worker_id)
        self._send(released)

    def tidy(self) -> None:
        """Removes what processes that died long ago have left behind."""
        self._store.forget_silent_workers(SILENT_WORKER_SECONDS)
        self._objects.forget_unfinished(UNFINISHED_FILE_SECONDS)

    def _lost_by_the_queue(self) -> Iterable[Job]:
        depths: dict[str, int] = {}
        overdue = self._store.waiting(FULL_QUEUE_SECONDS)
        surely = {job.job_id for job in overdue}
        for job in self._store.waiting(EMPTY_QUEUE_SECONDS):
            if job.job_id in surely or self._depth(job.queue, depths) == 0:
                yield job

    def _depth(self, queue: str, known: dict[str, int]) -> int:
        if queue not in known:
            try:
                known[queue] = self._queue.depth(queue)
            except QueueUnavailable:
                known[queue] = -1
        return known[queue]

    def _send(self, waiting: Iterable[Job]) -> None:
        for job in waiting:
            if job.status != QUEUED:
                continue
            try:
                self._queue.send(job.queue, job.job_id)
            except QueueUnavailable:
                log.warning("queue unavailable, jobs wait in the table", extra={"job_id": job.job_id})
                return
            self._store.mark_enqueued(job.job_id)
            log.info("job sent again", extra={"job_id": job.job_id, "queue": job.queue})
