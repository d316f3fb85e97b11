"""The job table: what every job is, whose it is, how far it is and who works on it. It is the truth; the queue is a hint.

A worker holds a job by a lease: a worker id, an expiry that heartbeats push on, and a fence that grows with every claim.
Every write of a worker names its fence, so that a worker that lost its lease can no longer change anything.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from services.database import Database
from services.errors import JobInProgress, LeaseLost, UnknownJob, WorkersLost

QUEUED = "queued"
PROCESSING = "processing"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
OWN_SENDING_SECONDS = 2.0

schema = sa.MetaData()
jobs = sa.Table(
    "jobs",
    schema,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("jobs.job_id", ondelete="CASCADE")),
    sa.Column("variant", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("statistics", sa.JSON(none_as_null=True)),
    sa.Column("error_name", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("bundle_id", sa.Text),
    sa.Column("snapshot_id", sa.Text),
    sa.Column("result_key", sa.Text),
    sa.Column("rows_total", sa.BigInteger),
    sa.Column("rows_processed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_successful", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("worker_id", sa.Text),
    sa.Column("lease_expires_at", sa.Double),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("enqueued_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.UniqueConstraint("parent_id", "kind", "variant", name="one_job_per_variant"),
)
sa.Index("jobs_of_an_owner", jobs.c.owner, jobs.c.kind, jobs.c.created_at)
sa.Index("jobs_by_status", jobs.c.status, jobs.c.lease_expires_at)

workers = sa.Table(
    "workers",
    schema,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("queues", sa.JSON, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("seen_at", sa.Double, nullable=False),
)


@dataclass(frozen=True)
class NewJob:
    """What is known of a job when it is asked for."""

    kind: str
    queue: str
    owner: str
    request_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rows_total: int | None = None
    parent_id: str | None = None
    variant: str | None = None
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are seconds since 1970 (UTC); rows_total is None until it is known."""

    job_id: str
    kind: str
    queue: str
    owner: str
    request_id: str
    parent_id: str | None
    variant: str | None
    status: str
    parameters: Mapping[str, Any]
    metadata: Mapping[str, Any]
    statistics: Mapping[str, Any] | None
    error_name: str | None
    error_message: str | None
    bundle_id: str | None
    snapshot_id: str | None
    result_key: str | None
    rows_total: int | None
    rows_processed: int
    rows_successful: int
    rows_failed: int
    fence: int
    attempts: int
    worker_id: str | None
    lease_expires_at: float | None
    created_at: float
    updated_at: float
    enqueued_at: float | None
    started_at: float | None
    completed_at: float | None


@dataclass(frozen=True)
class Lease:
    """The right to work on a job, as long as nobody else has claimed it since."""

    job_id: str
    worker_id: str
    fence: int


@dataclass(frozen=True)
class Progress:
    """Rows of a file, counted row by row."""

    total: int | None
    processed: int
    successful: int
    failed: int


@dataclass(frozen=True)
class Worker:
    """A worker as its last heartbeat told."""

    worker_id: str
    host: str
    pid: int
    queues: Sequence[str]
    started_at: float
    seen_at: float


class JobStore:
    """All reading and writing of the job table. Every method raises JobStoreUnavailable when the database is away."""

    def __init__(self, database: Database, lease_seconds: float, max_attempts: int) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts

    # ---- asking for jobs and looking at them

    def add(self, new: NewJob) -> Job:
        """Records a job as queued; for a variant that its parent has already, the row that exists."""
        with self._database.writing() as connection:
            existing = _first(connection, _same_variant(new)) if new.parent_id is not None else None
            if existing is not None:
                return existing
            now = self._database.now(connection)
            row = {
                "job_id": new.job_id,
                "kind": new.kind,
                "queue": new.queue,
                "owner": new.owner,
                "request_id": new.request_id,
                "parent_id": new.parent_id,
                "variant": new.variant,
                "status": QUEUED,
                "parameters": dict(new.parameters),
                "metadata": dict(new.metadata),
                "rows_total": new.rows_total,
                "created_at": now,
                "updated_at": now,
            }
            connection.execute(jobs.insert().values(row))
            return _one(connection, new.job_id)

    def get(self, job_id: str) -> Job:
        """The job. Raises UnknownJob."""
        with self._database.reading() as connection:
            return _one(connection, job_id)

    def find(self, job_id: str, owner: str, kind: str) -> Job:
        """The job if it is of this kind and this caller's. Raises UnknownJob, as for one that never was."""
        if "\0" in job_id:  # Postgres takes no such text
            raise _unknown(job_id)
        with self._database.reading() as connection:
            job = _first(connection, jobs.c.job_id == job_id)
        if job is None or job.owner != owner or job.kind != kind:
            raise _unknown(job_id)
        return job

    def variant(self, parent_id: str, kind: str, variant: str) -> Job | None:
        """The job that makes this variant of its parent's result, if it was ever asked for."""
        with self._database.reading() as connection:
            return _first(connection, jobs.c.parent_id == parent_id, jobs.c.kind == kind, jobs.c.variant == variant)

    def of_owner(self, owner: str, kind: str, status: str | None, limit: int) -> list[Job]:
        """The caller's jobs of a kind, the newest first."""
        wanted = sa.select(jobs).where(jobs.c.owner == owner, jobs.c.kind == kind)
        if status is not None:
            wanted = wanted.where(jobs.c.status == status)
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(jobs.c.created_at.desc(), jobs.c.job_id).limit(limit))
            return [Job(**row) for row in rows.mappings()]

    def delete(self, job_id: str) -> None:
        """Removes the job and its variants. Raises UnknownJob, or JobInProgress while a worker is at one of them."""
        with self._database.writing() as connection:
            family = sa.or_(jobs.c.job_id == job_id, jobs.c.parent_id == job_id)
            _one(connection, job_id)
            if _first(connection, family, jobs.c.status == PROCESSING) is not None:
                raise JobInProgress(
                    f"Job {job_id} is being processed; delete it when its status is completed or failed."
                )
            connection.execute(jobs.delete().where(family))

    # ---- the worker's side

    def claim(self, job_id: str, worker_id: str) -> tuple[Job, Lease] | None:
        """Takes a queued job; None if it is not there to be taken (done, taken by another, deleted)."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            taken = connection.execute(
                jobs.update()
                .where(jobs.c.job_id == job_id, jobs.c.status == QUEUED)
                .values(
                    status=PROCESSING,
                    fence=jobs.c.fence + 1,
                    attempts=jobs.c.attempts + 1,
                    worker_id=worker_id,
                    lease_expires_at=now + self._lease_seconds,
                    started_at=sa.func.coalesce(jobs.c.started_at, now),
                    updated_at=now,
                    rows_processed=0,
                    rows_successful=0,
                    rows_failed=0,
                )
            )
            if taken.rowcount == 0:
                return None
            job = _one(connection, job_id)
            return job, Lease(job_id, worker_id, job.fence)

    def renew(self, lease: Lease) -> None:
        """A heartbeat: pushes the expiry on. Raises LeaseLost."""
        self._write_as_holder(lease)

    def pin(self, lease: Lease, bundle_id: str, snapshot_id: str) -> Job:
        """Ties the job to the pair that it began with; a pair that is pinned already stays. Raises LeaseLost."""
        return self._write_as_holder(
            lease,
            bundle_id=sa.func.coalesce(jobs.c.bundle_id, bundle_id),
            snapshot_id=sa.func.coalesce(jobs.c.snapshot_id, snapshot_id),
        )

    def record_metadata(self, lease: Lease, metadata: Mapping[str, Any], rows_total: int) -> Job:
        """What a full reading has found. Raises LeaseLost."""
        return self._write_as_holder(lease, metadata=dict(metadata), rows_total=rows_total)

    def record_progress(self, lease: Lease, progress: Progress) -> None:
        """How far the job is. Raises LeaseLost."""
        self._write_as_holder(lease, **_progress_values(progress))

    def complete(
        self, lease: Lease, result_key: str, progress: Progress, statistics: Mapping[str, Any] | None = None
    ) -> None:
        """The one commit of a job: its result counts from here on. Raises LeaseLost."""
        ended = {"result_key": result_key, "statistics": None if statistics is None else dict(statistics)}
        self._write_as_holder(lease, ends_as=COMPLETED, **_progress_values(progress), **ended)

    def fail(self, lease: Lease, name: str, message: str) -> None:
        """The job ends without a result, for a reason that another try would not change. Raises LeaseLost."""
        self._write_as_holder(lease, ends_as=FAILED, error_name=name, error_message=message)

    def give_back(self, lease: Lease, name: str, message: str) -> str:
        """The worker could not do it: queued again, or failed with this error after the last attempt.

        Returns the status that the job now has. Raises LeaseLost.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            held = _first(connection, *_held(lease))
            if held is None:
                raise _lost(lease)
            values = self._after_a_failed_attempt(held, now, name, message)
            connection.execute(jobs.update().where(jobs.c.job_id == lease.job_id).values(values))
            return str(values["status"])

    def _write_as_holder(self, lease: Lease, ends_as: str | None = None, **values: Any) -> Job:
        with self._database.writing() as connection:
            now = self._database.now(connection)
            if ends_as is None:
                values["lease_expires_at"] = now + self._lease_seconds
            else:
                values |= {"status": ends_as, "lease_expires_at": None, "completed_at": now}
            written = connection.execute(jobs.update().where(*_held(lease)).values(updated_at=now, **values))
            if written.rowcount == 0:
                raise _lost(lease)
            return _one(connection, lease.job_id)

    def _after_a_failed_attempt(self, job: Job, now: float, name: str, message: str) -> dict[str, Any]:
        released = {"worker_id": None, "lease_expires_at": None, "updated_at": now}
        if job.attempts < self._max_attempts:
            return {**released, "status": QUEUED, "enqueued_at": None}
        return {**released, "status": FAILED, "error_name": name, "error_message": message, "completed_at": now}

    # ---- the watchdog's side

    def mark_enqueued(self, job_id: str) -> None:
        """The queue has a message for this job."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            connection.execute(
                jobs.update().where(jobs.c.job_id == job_id, jobs.c.status == QUEUED).values(enqueued_at=now)
            )

    def end_expired_leases(self) -> list[Job]:
        """Queues again what silent workers held, or fails it after the last attempt. Returns these jobs as they are now."""
        with self._database.reading() as connection:
            if _first(connection, *_expired(self._database.now(connection))) is None:
                return []
        with self._database.writing() as connection:
            now = self._database.now(connection)
            expired = connection.execute(sa.select(jobs).where(*_expired(now))).mappings().all()
            for row in expired:
                self._end_lease(connection, Job(**row), now)
            return [_one(connection, row["job_id"]) for row in expired]

    def release_worker(self, worker_id: str) -> list[Job]:
        """Queues again, at once and without counting the attempt, what a worker held that goes away in good order."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            held = (jobs.c.worker_id == worker_id, jobs.c.status == PROCESSING)
            released = connection.execute(sa.select(jobs.c.job_id).where(*held)).scalars().all()
            connection.execute(
                jobs.update()
                .where(*held)
                .values(
                    status=QUEUED,
                    attempts=jobs.c.attempts - 1,
                    worker_id=None,
                    lease_expires_at=None,
                    enqueued_at=None,
                    updated_at=now,
                )
            )
            return [_one(connection, job_id) for job_id in released]

    def _end_lease(self, connection: sa.Connection, job: Job, now: float) -> None:
        message = (
            f"The job was begun {job.attempts} times and its worker was lost each time, most likely for want of memory. "
            "Split the file, or give the workers more memory, and upload it again."
        )
        values = self._after_a_failed_attempt(job, now, WorkersLost.__name__, message)
        connection.execute(jobs.update().where(jobs.c.job_id == job.job_id).values(values))

    def waiting(self, sent_before_seconds: float) -> list[Job]:
        """Queued jobs that no message stands for, or whose message was sent longer ago than this.

        A job that was written just now is left to the process that wrote it: it is about to send the message itself.
        """
        with self._database.reading() as connection:
            now = self._database.now(connection)
            never_sent = sa.and_(jobs.c.enqueued_at.is_(None), jobs.c.updated_at < now - OWN_SENDING_SECONDS)
            overdue = sa.or_(never_sent, jobs.c.enqueued_at < now - sent_before_seconds)
            rows = connection.execute(
                sa.select(jobs).where(jobs.c.status == QUEUED, overdue).order_by(jobs.c.created_at).limit(1000)
            )
            return [Job(**row) for row in rows.mappings()]

    # ---- workers

    def heartbeat(self, worker: Worker) -> None:
        """The worker is alive; its own times are set by the database's clock."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            seen = connection.execute(
                workers.update().where(workers.c.worker_id == worker.worker_id).values(seen_at=now)
            )
            if seen.rowcount == 0:
                row = {"worker_id": worker.worker_id, "host": worker.host, "pid": worker.pid}
                row |= {"queues": list(worker.queues), "started_at": now, "seen_at": now}
                connection.execute(workers.insert().values(row))

    def forget_worker(self, worker_id: str) -> None:
        """The worker has gone in good order."""
        with self._database.writing() as connection:
            connection.execute(workers.delete().where(workers.c.worker_id == worker_id))

    def forget_silent_workers(self, seconds: float) -> None:
        """Removes the rows of workers that have not been heard of for so long."""
        with self._database.writing() as connection:
            cutoff = self._database.now(connection) - seconds
            connection.execute(workers.delete().where(workers.c.seen_at < cutoff))

    def live_workers(self, seconds: float) -> list[Worker]:
        """Workers heard of within so many seconds."""
        with self._database.reading() as connection:
            cutoff = self._database.now(connection) - seconds
            rows = connection.execute(sa.select(workers).where(workers.c.seen_at >= cutoff))
            return [Worker(**row) for row in rows.mappings()]

    def close(self) -> None:
        """Closes the connections that are open."""
        self._database.close()


def _one(connection: sa.Connection, job_id: str) -> Job:
    job = _first(connection, jobs.c.job_id == job_id)
    if job is None:
        raise _unknown(job_id)
    return job


def _first(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Job | None:
    row = connection.execute(sa.select(jobs).where(*conditions).limit(1)).mappings().first()
    return None if row is None else Job(**row)


def _same_variant(new: NewJob) -> sa.ColumnElement[bool]:
    return sa.and_(jobs.c.parent_id == new.parent_id, jobs.c.kind == new.kind, jobs.c.variant == new.variant)


def _held(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.job_id == lease.job_id, jobs.c.fence == lease.fence, jobs.c.status == PROCESSING


def _expired(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return jobs.c.status == PROCESSING, jobs.c.lease_expires_at < now


def _progress_values(progress: Progress) -> dict[str, Any]:
    return {
        "rows_total": progress.total,
        "rows_processed": progress.processed,
        "rows_successful": progress.successful,
        "rows_failed": progress.failed,
    }


def _unknown(job_id: str) -> UnknownJob:
    return UnknownJob(
        f"There is no job {job_id[:64]!r} among yours. GET /bulk/jobs lists them; a deleted job is gone for good."
    )


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"Job {lease.job_id} is no longer held by {lease.worker_id} (fence {lease.fence}).")
