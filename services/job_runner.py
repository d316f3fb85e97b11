"""Runs one job: claims it, keeps the lease alive while it is worked on, and ends it well or with a named error."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from ml_pipeline.errors import PipelineError
from services.errors import JobCrashed, JobStoreUnavailable, LeaseLost, ServiceError
from services.job_store import Job, JobStore, Lease
from services.logs import request_id_bound

log = logging.getLogger(__name__)

HEARTBEATS_PER_LEASE = 4
CRASHED = (
    "The job met an internal error. The log has it under the job's request id; if it stays, "
    "report it with the file that it happens with."
)

Work = Callable[[Job, Lease], None]


class JobRunner:
    """The kinds of jobs that there are, each with what is done for it."""

    def __init__(self, store: JobStore, worker_id: str, lease_seconds: float, work: Mapping[str, Work]) -> None:
        self._store = store
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._work = work

    def run(self, job_id: str) -> None:
        """Runs the job if it can be claimed; a job that is taken, over or gone is left alone."""
        claimed = self._store.claim(job_id, self._worker_id)
        if claimed is None:
            log.info("job not there to be claimed", extra={"job_id": job_id})
            return
        job, lease = claimed
        with request_id_bound(job.request_id), self._heartbeat(lease):
            self._run_claimed(job, lease)

    def _run_claimed(self, job: Job, lease: Lease) -> None:
        facts = {"job_id": job.job_id, "kind": job.kind, "attempt": job.attempts}
        log.info("job begun", extra=facts)
        try:
            self._work[job.kind](job, lease)
            log.info("job completed", extra=facts)
        except LeaseLost:
            log.warning("lease lost, the job is another worker's", extra=facts)
        except JobStoreUnavailable:
            log.exception("job table away, the lease will run out", extra=facts)
        except (ServiceError, PipelineError) as problem:
            log.warning("job failed", extra={**facts, "error": type(problem).__name__, "reason": str(problem)})
            self._store.fail(lease, type(problem).__name__, str(problem))
        except Exception:
            log.exception("job met an internal error", extra=facts)
            self._store.give_back(lease, JobCrashed.__name__, CRASHED)

    @contextmanager
    def _heartbeat(self, lease: Lease) -> Iterator[None]:
        over = threading.Event()

        def beat() -> None:
            while not over.wait(self._lease_seconds / HEARTBEATS_PER_LEASE):
                try:
                    self._store.renew(lease)
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
