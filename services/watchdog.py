"""The one and only redelivery: what workers or the queue lost is sent again from the job table."""

import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from services.dispatcher import Dispatcher
from services.errors import QueueUnavailable
from services.job_table import QUEUE_OF, Step, Worker
from services.queue import JobQueue
from services.step_store import StepStore, WaitingSteps

log = logging.getLogger(__name__)

SETTLED_SECONDS = 5.0
"""A message that was sent so long ago is either in the queue or lost."""
STALE_SECONDS = 300.0
"""A step that waits for so long is sent again in any case: a message too many does no harm."""
SILENT_WORKER_SECONDS = 3600.0


class Tidy(Protocol):
    """Something that has to be done now and then."""

    def tidy(self) -> None:
        """Does it."""


class Watchdog:
    """Sweeps the job table. Any number of processes may sweep at once."""

    def __init__(self, steps: StepStore, queue: JobQueue, dispatcher: Dispatcher, tidying: Sequence[Tidy] = ()) -> None:
        self._steps = steps
        self._queue = queue
        self._dispatcher = dispatcher
        self._tidying = tidying

    def sweep(self) -> None:
        """Takes back leases that ran out, then sends what waits without a message. Raises JobStoreUnavailable."""
        self._resend(self._steps.end_expired_leases(), "worker silent")
        for waiting in self._lost_by_the_queue():
            if not self._dispatcher.send_waiting(waiting):
                return
            facts = {"job_id": waiting.job_id, "step": waiting.kind, "messages": waiting.count}
            log.info("job sent again", extra=facts)

    def beat(self, worker: Worker) -> None:
        """Says that a worker is alive. Raises JobStoreUnavailable."""
        self._steps.heartbeat(worker)

    def release(self, worker_id: str) -> None:
        """A worker goes away in good order: what it held is taken up by another at once."""
        released = self._steps.release_worker(worker_id)
        self._steps.forget_worker(worker_id)
        self._resend(released, "worker ended")

    def release_process(self, worker_id: str) -> None:
        """A process of a worker was lost: what it held is taken up by another at once, and counts as an attempt."""
        self._resend(self._steps.release_process(worker_id), "process lost")

    def tidy(self) -> None:
        """Removes what nobody needs any more."""
        self._steps.forget_silent_workers(SILENT_WORKER_SECONDS)
        for one in self._tidying:
            one.tidy()

    def _lost_by_the_queue(self) -> Iterable[WaitingSteps]:
        """A queue with fewer messages than steps wait has lost some; nobody knows whose, so that all are sent again."""
        stale = self._steps.waiting(STALE_SECONDS)
        settled = self._steps.waiting(SETTLED_SECONDS)
        depths = {queue: self._depth(queue) for queue in {QUEUE_OF[waiting.kind] for waiting in settled}}
        for queue, depth in depths.items():
            in_queue = [waiting for waiting in settled if QUEUE_OF[waiting.kind] == queue]
            if depth is not None and depth < sum(waiting.count for waiting in in_queue):
                yield from in_queue
            else:
                yield from (waiting for waiting in stale if QUEUE_OF[waiting.kind] == queue)

    def _depth(self, queue: str) -> int | None:
        try:
            return self._queue.depth(queue)
        except QueueUnavailable:
            return None

    def _resend(self, taken_back: Iterable[Step], why: str) -> None:
        for job_id in sorted({step.job_id for step in taken_back}):
            log.warning(why, extra={"job_id": job_id})
            self._dispatcher.send_unsent(job_id)
