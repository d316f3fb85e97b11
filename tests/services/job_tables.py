"""A job table whose clock a test can push on, on SQLite and on Postgres."""

import sqlalchemy as sa

from services.database import Database
from services.job_store import JobStore
from services.job_table import CONVERT, READ, SCORE, WRITE, Job, Lease, NewJob, Step
from services.step_store import StepStore

LEASE_SECONDS = 15
MAX_ATTEMPTS = 2
TABLES = ("steps", "jobs", "workers", "alembic_version")


class Clock(Database):
    """A database whose clock a test can push on."""

    ahead = 0.0

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970, and some."""
        return super().now(connection) + self.ahead


def new_job(**facts: object) -> NewJob:
    """A bulk job of the local caller that begins with its reading."""
    return NewJob(**{"kind": "bulk_predict", "owner": "local", "request_id": "r", "first_step": READ, **facts})


def new_conversion(parent_id: str, variant: str = "xlsx") -> NewJob:
    """A conversion of a job's result."""
    return NewJob("convert_result", "local", "r", CONVERT, parent_id=parent_id, variant=variant)


class Bench:
    """Both sides of one job table, and the walk of a job through them."""

    def __init__(self, clock: Clock, max_attempts: int = MAX_ATTEMPTS) -> None:
        self.clock = clock
        self.store = JobStore(clock)
        self.steps = StepStore(clock, LEASE_SECONDS, max_attempts)

    def begun(self, worker: str = "w1", **facts: object) -> Lease:
        """The lease of the reading of a new job."""
        return self.claim(self.store.add(new_job(**facts)).job_id, worker)[2]

    def claim(self, job_id: str, worker: str = "w1") -> tuple[Job, Step, Lease]:
        """The next step, which must be there."""
        claimed = self.steps.claim(job_id, worker)
        assert claimed is not None
        return claimed

    def staged(self, *rows: int, **facts: object) -> str:
        """The id of a job that is read: one chunk of so many rows for each number."""
        reading = self.begun(**facts)
        first = 0
        for number, count in enumerate(rows, start=1):
            self.steps.stage(reading, number, first, count, f"{reading.job_id}/chunks/{number:06}.arrow")
            first += count
        self.steps.finish_reading(reading, {"filename": "a.csv"}, sum(rows))
        return reading.job_id

    def scored(self, *rows: int, **facts: object) -> str:
        """The id of a job whose chunks are all committed, every row successful."""
        job_id = self.staged(*rows, **facts)
        for count in rows:
            lease = self.claim(job_id)[2]
            assert lease.kind == SCORE
            self.steps.commit(lease, f"part-{lease.number}", count)
        return job_id

    def completed(self, *rows: int, **facts: object) -> str:
        """The id of a job that is done."""
        job_id = self.scored(*rows, **facts)
        lease = self.claim(job_id)[2]
        assert lease.kind == WRITE
        self.steps.complete(lease, "result", {"rows": sum(rows)})
        return job_id

    def lose_worker(self) -> None:
        """So much time goes by without a heartbeat that every lease has run out."""
        self.clock.ahead += LEASE_SECONDS + 1
        self.steps.end_expired_leases()

    def statuses(self, job_id: str) -> dict[tuple[str, int], str]:
        """(kind, number) of each step -> its status."""
        return {(step.kind, step.number): step.status for step in self.store.steps(job_id)}
