"""Tells workers that there is something to claim: one message per step, each no more than a job's id."""

import logging

from services.errors import QueueUnavailable
from services.job_table import QUEUE_OF
from services.queue import JobQueue
from services.step_store import StepStore, WaitingSteps

log = logging.getLogger(__name__)


class Dispatcher:
    """Sends messages and remembers in the job table that they were sent; what cannot be sent, the watchdog sends later."""

    def __init__(self, queue: JobQueue, steps: StepStore) -> None:
        self._queue = queue
        self._steps = steps

    def send(self, job_id: str, kind: str, messages: int = 1, number: int | None = None) -> bool:
        """Messages for all steps of this kind that wait, so many, or for the one of this number; False where the queue is away."""
        try:
            for _ in range(messages):
                self._queue.send(QUEUE_OF[kind], job_id)
        except QueueUnavailable:
            log.warning("queue unavailable, the job waits in the table", extra={"job_id": job_id})
            return False
        self._steps.mark_enqueued(job_id, kind, number)
        return True

    def send_waiting(self, waiting: WaitingSteps) -> bool:
        """As many messages as steps wait."""
        return self.send(waiting.job_id, waiting.kind, waiting.count)

    def send_next_in_turn(self) -> None:
        """A message for the training whose turn it is: a worker that met one before its turn has used its message up."""
        waiting = self._steps.next_in_turn()
        if waiting is not None:
            self.send_waiting(waiting)

    def send_unsent(self, job_id: str) -> None:
        """Messages for the steps of a job that have none."""
        for waiting in self._steps.unsent(job_id):
            if not self.send_waiting(waiting):
                return
