"""The tables behind all jobs: a job is what a caller asked for, a step is what one worker does of it at a time.

The tables are the truth and the queue only a hint. A worker holds a step by a lease: a worker id, an expiry that heartbeats
push on, and a fence that grows with every claim. Every write of a worker names its fence, so that a worker that lost its
lease can no longer change anything.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from services.errors import LeaseLost, UnknownJob

BULK = "bulk_predict"
CONVERSION = "convert_result"
TRAINING = "train"
SAMPLE_DATA = "generate_sample_data"
DATA_REFRESH = "refresh_data"
"""Kinds of jobs: a file's predictions, and the result of such a job in another format; a training, sample tables, and a
snapshot of the tables as they are now."""
TRAINING_KINDS = (TRAINING, SAMPLE_DATA, DATA_REFRESH)
"""Whose work is a command of the pipeline."""
WATCHED_KINDS = (BULK, *TRAINING_KINDS)
"""Of which callers are told; a conversion is a part of the job whose result it turns."""

QUEUED = "queued"
PROCESSING = "processing"
COMPLETED = "completed"
FAILED = "failed"
CANCELLED = "cancelled"
OPEN = (QUEUED, PROCESSING)

READ = "read"
SCORE = "score"
WRITE = "write"
CONVERT = "convert"
NOTIFY = "notify"
TRAIN = "train"
SAMPLE = "sample"
REFRESH = "refresh"
KINDS_OF_STEPS = (READ, SCORE, WRITE, CONVERT, NOTIFY, TRAIN, SAMPLE, REFRESH)
"""In the order in which a job's steps are claimed."""

IN_TURN = (TRAIN, REFRESH)
"""Of all steps of these kinds one at a time is under way, however many workers there are, in the order of their jobs."""
KINDS_IN_TURN = (TRAINING, DATA_REFRESH)
"""The kinds of jobs that have such a step."""
PUBLISHING = "publish"
"""The phase of such a job's progress in which what it has made comes to serve: from here on it cannot be cancelled."""

WAITING = "waiting"
LEASED = "leased"
DONE = "done"
GIVEN_UP = "given_up"

BULK_QUEUE = "bulk"
FINISHING_QUEUE = "finishing"
TRAINING_QUEUE = "training"
QUEUE_OF = {
    READ: BULK_QUEUE,
    SCORE: BULK_QUEUE,
    WRITE: BULK_QUEUE,
    CONVERT: FINISHING_QUEUE,
    NOTIFY: FINISHING_QUEUE,
    TRAIN: TRAINING_QUEUE,
    SAMPLE: TRAINING_QUEUE,
    REFRESH: TRAINING_QUEUE,
}

schema = sa.MetaData()
jobs = sa.Table(
    "jobs",
    schema,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("parent_id", sa.Text, sa.ForeignKey("jobs.job_id", ondelete="CASCADE")),
    sa.Column("variant", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("metadata", sa.JSON, nullable=False),
    sa.Column("statistics", sa.JSON(none_as_null=True)),
    sa.Column("progress", sa.JSON(none_as_null=True)),
    sa.Column("error_name", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("bundle_id", sa.Text),
    sa.Column("snapshot_id", sa.Text),
    sa.Column("result_key", sa.Text),
    sa.Column("rows_total", sa.BigInteger),
    sa.Column("rows_read", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_processed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_successful", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows_failed", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("enqueued_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("completed_at", sa.Double),
    sa.UniqueConstraint("parent_id", "kind", "variant", name="one_job_per_variant"),
)
sa.Index("jobs_of_an_owner", jobs.c.owner, jobs.c.kind, jobs.c.created_at)
sa.Index("jobs_by_status", jobs.c.status, jobs.c.completed_at)
sa.Index("one_job_per_idempotency_key", jobs.c.owner, jobs.c.idempotency_key, unique=True)

steps = sa.Table(
    "steps",
    schema,
    sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("first_row", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("successful", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("key", sa.Text),
    sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("worker_id", sa.Text),
    sa.Column("lease_expires_at", sa.Double),
    sa.Column("not_before", sa.Double),
    sa.Column("error_name", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("updated_at", sa.Double, nullable=False),
    sa.Column("enqueued_at", sa.Double),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
)
sa.Index("steps_by_status", steps.c.status, steps.c.lease_expires_at)

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
    """What is known of a job when it is asked for; first_step: the kind of the one step that it begins with."""

    kind: str
    owner: str
    request_id: str
    first_step: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rows_total: int | None = None
    parent_id: str | None = None
    variant: str | None = None
    idempotency_key: str | None = None
    bundle_id: str | None = None
    snapshot_id: str | None = None
    job_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are seconds since 1970 (UTC); rows_total is None until it is known.

    rows_read: rows of the upload that were seen so far. enqueued_at: None until the queue had a message for the job. progress:
    how far the command of a training is, of a job of TRAINING_KINDS (training_progress.py).
    """

    job_id: str
    kind: str
    owner: str
    request_id: str
    idempotency_key: str | None
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
    rows_read: int
    rows_processed: int
    rows_successful: int
    rows_failed: int
    created_at: float
    updated_at: float
    enqueued_at: float | None
    started_at: float | None
    completed_at: float | None
    progress: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Step:
    """One row of the steps. A chunk (kind SCORE, numbers from 1) has `rows` rows of the file from `first_row` (from 0) on.

    key: what the step has made, in the object store; of a chunk that waits, its staged rows are at `chunk_key`.
    not_before: seconds since 1970 before which it is not to be claimed.
    """

    job_id: str
    kind: str
    number: int
    status: str
    first_row: int
    rows: int
    successful: int
    key: str | None
    fence: int
    attempts: int
    worker_id: str | None
    lease_expires_at: float | None
    not_before: float | None
    error_name: str | None
    error_message: str | None
    updated_at: float
    enqueued_at: float | None
    started_at: float | None
    finished_at: float | None


@dataclass(frozen=True)
class Lease:
    """The right to work on a step, as long as nobody else has claimed it since."""

    job_id: str
    kind: str
    number: int
    worker_id: str
    fence: int


@dataclass(frozen=True)
class Worker:
    """A worker as its last heartbeat told."""

    worker_id: str
    host: str
    pid: int
    queues: Sequence[str]
    started_at: float
    seen_at: float


def one_job(connection: sa.Connection, job_id: str, lock: bool = False) -> Job:
    """The job; with `lock`, no other transaction changes its family of rows before this one ends. Raises UnknownJob."""
    wanted = sa.select(jobs).where(jobs.c.job_id == job_id)
    row = connection.execute(wanted.with_for_update() if lock else wanted).mappings().first()
    if row is None:
        raise unknown_job(job_id)
    return Job(**row)


def first_job(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> Job | None:
    """Some job for which all of this holds."""
    row = connection.execute(sa.select(jobs).where(*conditions).limit(1)).mappings().first()
    return None if row is None else Job(**row)


def steps_of(connection: sa.Connection, *conditions: sa.ColumnElement[bool]) -> list[Step]:
    """The steps for which all of this holds, by kind and number."""
    rows = connection.execute(sa.select(steps).where(*conditions).order_by(steps.c.kind, steps.c.number))
    return [Step(**row) for row in rows.mappings()]


def add_step(connection: sa.Connection, job_id: str, kind: str, number: int, now: float, **values: Any) -> None:
    """A step that waits to be claimed."""
    row = {"job_id": job_id, "kind": kind, "number": number, "status": WAITING, "updated_at": now, **values}
    connection.execute(steps.insert().values(row))


def add_write(connection: sa.Connection, job_id: str, now: float) -> None:
    """The step that puts the parts together. Its fences go on from the reading's, which grows by those of each earlier end:
    whoever wrote the result before a retry holds a lease that no later one is like."""
    begun = sa.select(steps.c.fence).where(steps.c.job_id == job_id, steps.c.kind == READ)
    add_step(connection, job_id, WRITE, 0, now, fence=connection.execute(begun).scalar() or 0)


def forget_write(connection: sa.Connection, job_id: str) -> None:
    """The step is undone for a retry of the job; its fences are kept in mind by the reading."""
    ours = steps.c.job_id == job_id
    used = connection.execute(sa.select(steps.c.fence).where(ours, steps.c.kind == WRITE)).scalar() or 0
    connection.execute(steps.update().where(ours, steps.c.kind == READ).values(fence=steps.c.fence + used))
    connection.execute(steps.delete().where(ours, steps.c.kind == WRITE))


def add_notification(connection: sa.Connection, job: Job, now: float) -> None:
    """The step that tells the caller's webhook of the end, where the job has one."""
    if job.parameters.get("webhook_url"):
        add_step(connection, job.job_id, NOTIFY, 0, now)  # a retry has deleted that of an earlier end


def released(now: float) -> dict[str, Any]:
    """What a step has that waits and is nobody's, without a message of its own."""
    return {"status": WAITING, "worker_id": None, "lease_expires_at": None, "enqueued_at": None, "updated_at": now}


def take_leases_back(connection: sa.Connection, job_id: str, now: float) -> None:
    """Nobody holds a step of this job any more; whoever works on one finds its lease lost at the next write."""
    connection.execute(steps.update().where(steps.c.job_id == job_id, steps.c.status == LEASED).values(released(now)))


def unknown_job(job_id: str) -> UnknownJob:
    """The error for an id that is nobody's, or not the caller's."""
    return UnknownJob(
        f"There is no job {job_id[:64]!r} among yours. GET /bulk/jobs lists them; a deleted job is gone for good."
    )


def lost_lease(lease: Lease) -> LeaseLost:
    """The error for a write of somebody who no longer holds the step."""
    return LeaseLost(
        f"Step {lease.kind} {lease.number} of job {lease.job_id} is no longer held by {lease.worker_id} (fence {lease.fence})."
    )
