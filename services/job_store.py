"""Jobs as those who ask for them use them: record, find, list, cancel, retry, delete. What workers do is in step_store.py."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from services.database import Database
from services.errors import JobInProgress, JobOver, NothingToRetry, TooManyJobs
from services.job_table import (
    BULK,
    CANCELLED,
    COMPLETED,
    GIVEN_UP,
    LEASED,
    NOTIFY,
    OPEN,
    PROCESSING,
    PUBLISHING,
    QUEUED,
    SCORE,
    TRAINING_KINDS,
    WAITING,
    Job,
    NewJob,
    Step,
    add_notification,
    add_step,
    add_write,
    first_job,
    forget_write,
    jobs,
    one_job,
    steps,
    steps_of,
    take_leases_back,
    unknown_job,
)


class JobStore:
    """The caller's side of the job table. Every method raises JobStoreUnavailable when the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # ---- asking for jobs

    def add(self, new: NewJob, limit: int | None = None) -> Job:
        """Records a job as queued, with its first step; the row that exists, for a variant that its parent has already and
        for an idempotency key that its owner has used.

        Raises TooManyJobs when the owner has `limit` jobs of this kind (of all TRAINING_KINDS together) waiting or under way.
        """
        with self._database.writing() as connection:
            self._take_turn(connection, new.owner)
            existing = _recorded_before(connection, new)
            if existing is not None:
                return existing
            if limit is not None:
                _check_limit(connection, new, limit)
            now = self._database.now(connection)
            connection.execute(jobs.insert().values(_row(new, now)))
            add_step(connection, new.job_id, new.first_step, 0, now)
            return one_job(connection, new.job_id)

    def _take_turn(self, connection: sa.Connection, owner: str) -> None:
        """Postgres: one at a time per owner, so that limits and keys are looked at and used in one go. SQLite always is."""
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(hashtext(:owner))"), {"owner": owner})

    def open_jobs(self, owner: str, kind: str) -> int:
        """How many jobs of a kind, of all TRAINING_KINDS together, the owner has waiting or under way."""
        with self._database.reading() as connection:
            return _open_jobs(connection, owner, kind)

    # ---- looking at jobs

    def get(self, job_id: str) -> Job:
        """The job. Raises UnknownJob."""
        with self._database.reading() as connection:
            return one_job(connection, job_id)

    def find(self, job_id: str, owner: str, *kinds: str) -> Job:
        """The job if it is of one of these kinds and this caller's. Raises UnknownJob, as for one that never was."""
        if "\0" in job_id:  # Postgres takes no such text
            raise unknown_job(job_id)
        with self._database.reading() as connection:
            job = first_job(connection, jobs.c.job_id == job_id)
        if job is None or job.owner != owner or job.kind not in kinds:
            raise unknown_job(job_id)
        return job

    def with_key(self, owner: str, idempotency_key: str) -> Job | None:
        """The job that the owner asked for under this key."""
        with self._database.reading() as connection:
            return first_job(connection, jobs.c.owner == owner, jobs.c.idempotency_key == idempotency_key)

    def variant(self, parent_id: str, kind: str, variant: str) -> Job | None:
        """The job that makes this variant of its parent's result, if it was ever asked for."""
        with self._database.reading() as connection:
            return first_job(connection, jobs.c.parent_id == parent_id, jobs.c.kind == kind, jobs.c.variant == variant)

    def page(
        self,
        owner: str,
        kinds: Collection[str],
        status: str | None,
        limit: int,
        before: tuple[float, str] | None = None,
    ) -> list[Job]:
        """The caller's jobs of these kinds, the newest first; `before`: (created_at, job_id) of the last one of the page before."""
        wanted = sa.select(jobs).where(jobs.c.owner == owner, jobs.c.kind.in_(kinds))
        if status is not None:
            wanted = wanted.where(jobs.c.status == status)
        if before is not None:
            created_at, job_id = before
            same_moment = sa.and_(jobs.c.created_at == created_at, jobs.c.job_id > job_id)
            wanted = wanted.where(sa.or_(jobs.c.created_at < created_at, same_moment))
        with self._database.reading() as connection:
            rows = connection.execute(wanted.order_by(jobs.c.created_at.desc(), jobs.c.job_id).limit(limit))
            return [Job(**row) for row in rows.mappings()]

    def steps(self, job_id: str, kind: str | None = None) -> list[Step]:
        """The steps of a job, all or those of one kind, by kind and number."""
        of_kind = () if kind is None else (steps.c.kind == kind,)
        with self._database.reading() as connection:
            return steps_of(connection, steps.c.job_id == job_id, *of_kind)

    def steps_now(self, job_id: str) -> tuple[list[Step], float]:
        """All steps of a job, and what time it is by the clock that wrote theirs, which need not be this host's."""
        with self._database.reading() as connection:
            return steps_of(connection, steps.c.job_id == job_id), self._database.now(connection)

    def pinned_pairs(self) -> dict[tuple[str, str], int]:
        """Pairs of bundle and snapshot that jobs are tied to, with the number of jobs of each.

        A job needs its pair as long as it is there: to go on, to be tried again, to have its result in another format or its
        customers listed.
        """
        pinned = (jobs.c.bundle_id.is_not(None), jobs.c.snapshot_id.is_not(None))
        counted = sa.select(jobs.c.bundle_id, jobs.c.snapshot_id, sa.func.count()).where(*pinned)
        with self._database.reading() as connection:
            rows = connection.execute(counted.group_by(jobs.c.bundle_id, jobs.c.snapshot_id))
            return {(bundle_id, snapshot_id): int(count) for bundle_id, snapshot_id, count in rows}

    def ended_before(self, seconds_ago: float, limit: int = 1000) -> list[str]:
        """Jobs without a parent that have ended longer ago than this."""
        with self._database.reading() as connection:
            cutoff = self._database.now(connection) - seconds_ago
            ended = sa.select(jobs.c.job_id).where(
                jobs.c.parent_id.is_(None), jobs.c.status.not_in(OPEN), jobs.c.completed_at < cutoff
            )
            return list(connection.execute(ended.order_by(jobs.c.completed_at).limit(limit)).scalars())

    def done_with_all_rows(self, within_seconds: float) -> list[str]:
        """Bulk jobs that were completed so lately, without a chunk that could be tried again."""
        given_up = sa.select(steps.c.job_id).where(steps.c.job_id == jobs.c.job_id, steps.c.status == GIVEN_UP)
        with self._database.reading() as connection:
            since = self._database.now(connection) - within_seconds
            done = (jobs.c.kind == BULK, jobs.c.status == COMPLETED, jobs.c.completed_at > since)
            return list(connection.execute(sa.select(jobs.c.job_id).where(*done, ~given_up.exists())).scalars())

    def known(self, job_ids: Collection[str]) -> set[str]:
        """Those of the ids that are jobs."""
        with self._database.reading() as connection:
            found = sa.select(jobs.c.job_id).where(jobs.c.job_id.in_(list(job_ids)))
            return set(connection.execute(found).scalars())

    # ---- changing their course

    def cancel(self, job_id: str) -> Job:
        """Ends a job that waits or is under way; what was done so far stays. Raises UnknownJob; JobOver, also for a training
        whose model is just coming to serve."""
        with self._database.writing() as connection:
            job = one_job(connection, job_id, lock=True)
            if job.status not in OPEN:
                raise JobOver(
                    f"Job {job_id} is {job.status}; only a job that is queued or processing can be cancelled."
                )
            now = self._database.now(connection)
            if _is_being_published(connection, job, now):
                raise JobOver(
                    f"Job {job_id} is about to end: what it has made is just coming to serve. Look at its status in a moment; "
                    "POST /model/rollback goes back to the model before."
                )
            take_leases_back(connection, job_id, now)
            ended = {"status": CANCELLED, "completed_at": now, "updated_at": now}
            connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(ended))
            add_notification(connection, job, now)
            return one_job(connection, job_id)

    def retry(self, job_id: str) -> Job:
        """Queues a failed or cancelled job again, to go on where it stopped; of a completed one, the chunks that were given up.

        Raises UnknownJob, JobInProgress, NothingToRetry.
        """
        with self._database.writing() as connection:
            job = one_job(connection, job_id, lock=True)
            if job.status in OPEN:
                raise JobInProgress(f"Job {job_id} is {job.status}; it can be tried again when it has ended.")
            given_up = _rows_given_up(connection, job_id)
            if job.status == COMPLETED and not given_up:
                raise _nothing_to_retry(job)
            now = self._database.now(connection)
            _reopen_steps(connection, job_id, now)
            connection.execute(jobs.delete().where(jobs.c.parent_id == job_id))
            connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(_reopened(given_up, now)))
            return one_job(connection, job_id)

    def delete(self, job_id: str) -> None:
        """Removes the job and its variants. Raises UnknownJob, or JobInProgress while a worker is at one of them."""
        with self._database.writing() as connection:
            one_job(connection, job_id, lock=True)
            family = sa.or_(jobs.c.job_id == job_id, jobs.c.parent_id == job_id)
            if first_job(connection, family, jobs.c.status == PROCESSING) is not None:
                raise JobInProgress(
                    f"Job {job_id} is being processed. Cancel it first (POST /bulk/cancel/{job_id}), then delete it."
                )
            connection.execute(jobs.delete().where(family))

    def close(self) -> None:
        """Closes the connections that are open."""
        self._database.close()


def _row(new: NewJob, now: float) -> dict[str, Any]:
    return {
        "job_id": new.job_id,
        "kind": new.kind,
        "owner": new.owner,
        "request_id": new.request_id,
        "idempotency_key": new.idempotency_key,
        "parent_id": new.parent_id,
        "variant": new.variant,
        "status": QUEUED,
        "parameters": dict(new.parameters),
        "metadata": dict(new.metadata),
        "bundle_id": new.bundle_id,
        "snapshot_id": new.snapshot_id,
        "rows_total": new.rows_total,
        "created_at": now,
        "updated_at": now,
    }


def _recorded_before(connection: sa.Connection, new: NewJob) -> Job | None:
    if new.idempotency_key is not None:
        return first_job(connection, jobs.c.owner == new.owner, jobs.c.idempotency_key == new.idempotency_key)
    if new.parent_id is None:
        return None
    one_job(connection, new.parent_id, lock=True)
    same = (jobs.c.parent_id == new.parent_id, jobs.c.kind == new.kind, jobs.c.variant == new.variant)
    return first_job(connection, *same)


def _open_jobs(connection: sa.Connection, owner: str, kind: str) -> int:
    counted = sa.select(sa.func.count()).select_from(jobs)
    kinds = TRAINING_KINDS if kind in TRAINING_KINDS else (kind,)
    counted = counted.where(jobs.c.owner == owner, jobs.c.kind.in_(kinds), jobs.c.status.in_(OPEN))
    return int(connection.execute(counted).scalar_one())


def _check_limit(connection: sa.Connection, new: NewJob, limit: int) -> None:
    if _open_jobs(connection, new.owner, new.kind) >= limit:
        raise too_many_jobs(limit)


def too_many_jobs(limit: int) -> TooManyJobs:
    """The error for one job more than a caller may have open."""
    return TooManyJobs(
        f"{limit:,} of your jobs are waiting or under way, as many as are allowed at once. Ask again when one "
        "has ended, or cancel one (the operator can raise MAX_JOBS_PER_CALLER)."
    )


def _is_being_published(connection: sa.Connection, job: Job, now: float) -> bool:
    """By a worker that is still there: another attempt begins anew."""
    if (job.progress or {}).get("phase") != PUBLISHING:
        return False
    held = (steps.c.status == LEASED, steps.c.lease_expires_at >= now)
    return bool(steps_of(connection, steps.c.job_id == job.job_id, *held))


def _nothing_to_retry(job: Job) -> NothingToRetry:
    if job.kind in TRAINING_KINDS:
        return NothingToRetry(
            f"Job {job.job_id} is completed: there is nothing to try again. Ask for a new one instead."
        )
    return NothingToRetry(
        f"Job {job.job_id} is completed, and its {job.rows_failed:,} rows without a prediction have no known "
        "customer id: the column `error` of the result says so of each. Correct them, or wait for newer "
        "data, and upload these rows again."
    )


def _rows_given_up(connection: sa.Connection, job_id: str) -> int:
    rows = sa.select(sa.func.coalesce(sa.func.sum(steps.c.rows), 0))
    given_up = (steps.c.job_id == job_id, steps.c.kind == SCORE, steps.c.status == GIVEN_UP)
    return int(connection.execute(rows.where(*given_up)).scalar_one())


def _reopen_steps(connection: sa.Connection, job_id: str, now: float) -> None:
    """What is not done waits anew with all its attempts; result and notifications of the first end are undone."""
    ours = steps.c.job_id == job_id
    connection.execute(steps.delete().where(ours, steps.c.kind == NOTIFY))
    forget_write(connection, job_id)
    connection.execute(
        steps.update()
        .where(ours, steps.c.status.in_((WAITING, GIVEN_UP)))
        .values(
            status=WAITING,
            attempts=0,
            error_name=None,
            error_message=None,
            enqueued_at=None,
            not_before=None,
            finished_at=None,
            updated_at=now,
        )
    )
    open_steps = sa.select(sa.func.count()).select_from(steps).where(ours, steps.c.status == WAITING)
    if not connection.execute(open_steps).scalar_one():
        add_write(connection, job_id, now)


def _reopened(rows_given_up: int, now: float) -> dict[str, Any]:
    return {
        "status": QUEUED,
        "statistics": None,
        "error_name": None,
        "error_message": None,
        "result_key": None,
        "progress": None,
        "rows_processed": jobs.c.rows_processed - rows_given_up,
        "rows_failed": jobs.c.rows_failed - rows_given_up,
        "updated_at": now,
        "enqueued_at": None,
        "completed_at": None,
    }
