"""Runs the steps of a job: claims one, keeps its lease alive while it is worked on, and ends it well or with a named error."""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from ml_pipeline.errors import PipelineError
from services.dispatcher import Dispatcher
from services.errors import (
    ChunkGivenUp,
    JobCrashed,
    JobStoreUnavailable,
    LeaseLost,
    ObjectStoreUnavailable,
    ServiceError,
    StorageFull,
)
from services.job_table import KINDS_OF_STEPS, QUEUE_OF, SCORE, TRAINING_QUEUE, Job, Lease, Step
from services.logs import request_id_bound
from services.step_store import StepStore

log = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE = 4
SECONDS_PER_MESSAGE = 2.0
"""So long a worker stays with one job; then the queue has its say, so that a small job need not wait for a large one."""
AWAY_WAITS_SECONDS = (2.0, 10.0)
"""Before the second and the third attempt where the object store did not answer; after that the job fails for this reason."""
CRASHED = (
    "The job met an internal error. The log has it under the job's request id; if it stays, "
    "report it with the file that it happens with."
)

KINDS_OF_QUEUE = {
    queue: tuple(kind for kind in KINDS_OF_STEPS if QUEUE_OF[kind] == queue) for queue in QUEUE_OF.values()
}

Work = Callable[[Job, Step, Lease], None]


class JobRunner:
    """The kinds of steps that there are, each with what is done for it."""

    def __init__(
        self,
        steps: StepStore,
        dispatcher: Dispatcher,
        worker_id: str,
        lease_seconds: float,
        work: Mapping[str, Work],
        seconds_per_message: float = SECONDS_PER_MESSAGE,
    ) -> None:
        self._steps = steps
        self._dispatcher = dispatcher
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._work = work
        self._seconds_per_message = seconds_per_message

    def run(self, job_id: str, queue: str | None = None) -> None:
        """Works on what can be claimed of the job, for a while; a job that is taken, over or gone is left alone.

        It stays with steps of one queue, the one that the message came from (None: that of the first step): whoever scores
        does not wait for a receiver of webhooks, not even for a message that was left over when the job ended.
        """
        begun = time.monotonic()
        kinds: Collection[str] = KINDS_OF_STEPS if queue is None else KINDS_OF_QUEUE.get(queue, ())
        while claimed := self._steps.claim(job_id, self._worker_id, kinds):
            job, step, lease = claimed
            with request_id_bound(job.request_id), self._heartbeat(lease):
                self._run_claimed(job, step, lease)
            kinds = KINDS_OF_QUEUE[QUEUE_OF[step.kind]]
            if time.monotonic() - begun > self._seconds_per_message:
                break
        self._dispatcher.send_unsent(job_id)
        if queue in (None, TRAINING_QUEUE):
            self._dispatcher.send_next_in_turn()

    def _run_claimed(self, job: Job, step: Step, lease: Lease) -> None:
        facts = {"job_id": job.job_id, "step": step.kind, "number": step.number, "attempt": step.attempts}
        begun = time.monotonic()
        log.info("step begun", extra=facts)
        try:
            self._work[step.kind](job, step, lease)
            log.info("step done", extra={**facts, "seconds": round(time.monotonic() - begun, 3)})
        except LeaseLost:
            log.warning("lease lost, the step is another worker's", extra=facts)
        except JobStoreUnavailable:
            log.exception("job table away, the lease will run out", extra=facts)
        except (ServiceError, PipelineError) as problem:
            name, message, wait = type(problem).__name__, str(problem), _wait_for(problem, step)
            said = "job failed" if wait is None else "step put off"
            log.warning(said, extra={**facts, "error": name, "reason": message})
            how = self._steps.fail if wait is None else partial(self._steps.postpone, seconds=wait)
            self._end(lease, partial(how, lease, name=name, message=message))
        except Exception:
            log.exception("step met an internal error", extra=facts)
            self._end(lease, partial(self._steps.give_back, lease, *_crashed(step)))

    def _end(self, lease: Lease, how: Callable[[], object]) -> None:
        """Whoever lost his lease, or the job table, while his step went wrong has nothing left to say."""
        try:
            how()
        except (LeaseLost, JobStoreUnavailable) as problem:
            log.warning("the step's end could not be recorded", extra={"job_id": lease.job_id, "reason": str(problem)})

    @contextmanager
    def _heartbeat(self, lease: Lease) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._lease_seconds / HEARTBEATS_PER_LEASE):
                try:
                    self._steps.renew(lease)
                except LeaseLost:
                    return
                except JobStoreUnavailable:
                    log.warning("job table away, heartbeat missed", extra={"job_id": lease.job_id})

        thread = threading.Thread(target=beat, name=f"heartbeat-{lease.job_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _wait_for(problem: Exception, step: Step) -> float | None:
    """Seconds until another attempt may go better, None where it would not or was made: a network disk that is away comes back
    by itself, one that is full does not."""
    is_away = isinstance(problem, ObjectStoreUnavailable) and not isinstance(problem, StorageFull)
    if not is_away or step.attempts > len(AWAY_WAITS_SECONDS):
        return None
    return AWAY_WAITS_SECONDS[max(step.attempts, 1) - 1]


def _crashed(step: Step) -> tuple[str, str]:
    """Name and message for when the last attempt met an internal error too."""
    if step.kind != SCORE:
        return JobCrashed.__name__, CRASHED
    rows = f"Rows {step.first_row + 1:,} to {step.first_row + step.rows:,} below the header"
    return (
        ChunkGivenUp.__name__,
        f"{rows}: the work on them met an internal error {step.attempts} times; the log has it under the job's request id. "
        f"Retry the job (POST /bulk/retry/{step.job_id}).",
    )
