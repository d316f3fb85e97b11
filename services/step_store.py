"""Steps as workers and the watchdog use them: claim, renew, commit once, give back, take from those who fell silent."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from services.database import Database
from services.errors import ChunkGivenUp, WorkersLost
from services.job_table import (
    CANCELLED,
    COMPLETED,
    DONE,
    FAILED,
    GIVEN_UP,
    IN_TURN,
    KINDS_IN_TURN,
    KINDS_OF_STEPS,
    LEASED,
    NOTIFY,
    OPEN,
    PROCESSING,
    QUEUE_OF,
    QUEUED,
    READ,
    SCORE,
    TRAINING_QUEUE,
    WAITING,
    Job,
    Lease,
    Step,
    Worker,
    add_notification,
    add_step,
    add_write,
    jobs,
    lost_lease,
    one_job,
    released,
    steps,
    steps_of,
    take_leases_back,
    workers,
)

OWN_SENDING_SECONDS = 2.0
NOTIFY_WAITS_SECONDS = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Before the second attempt to tell a webhook, the third, ...; after one attempt more than these it is given up."""
NOTIFY_ATTEMPTS = len(NOTIFY_WAITS_SECONDS) + 1
TURN_LOCK = 7_305_912
"""Any number, the same everywhere: the advisory lock under which Postgres gives the turn to one step of many (IN_TURN)."""
_ORDER = sa.case({kind: place for place, kind in enumerate(KINDS_OF_STEPS)}, value=steps.c.kind)


@dataclass(frozen=True)
class WaitingSteps:
    """So many steps of a kind that could be claimed in one job, and that too few messages may stand for."""

    job_id: str
    kind: str
    count: int


class StepStore:
    """The worker's side of the job table. Every method raises JobStoreUnavailable when the database is away.

    A transaction that changes a job through one of its steps locks the job's row first: two workers that commit the last
    two chunks at once see each other.
    """

    def __init__(self, database: Database, lease_seconds: float, max_attempts: int) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._max_attempts = max_attempts

    # ---- the worker's side

    def claim(
        self, job_id: str, worker_id: str, kinds: Collection[str] = KINDS_OF_STEPS
    ) -> tuple[Job, Step, Lease] | None:
        """Takes the next step of the job that waits; None if there is none of these kinds (taken, done, cancelled, deleted),
        or if it is one of IN_TURN and it is not its turn."""
        with self._database.writing() as connection:
            _lock(connection, job_id)
            _take_turns(connection, job_id)
            now = self._database.now(connection)
            wanted = (steps.c.job_id == job_id, steps.c.kind.in_(kinds))
            turn = (
                [_may_go(now)] if set(kinds) & set(IN_TURN) else []
            )  # asked of each of a file's chunks, it would cost
            waiting = _claimable(now).where(*wanted, *turn).order_by(_ORDER, steps.c.number).limit(1)
            row = connection.execute(waiting).mappings().first()
            if row is None:
                return None
            step = Step(**row)
            lease = Lease(job_id, step.kind, step.number, worker_id, step.fence + 1)
            connection.execute(
                steps.update()
                .where(*_is(lease))
                .values(
                    status=LEASED,
                    fence=lease.fence,
                    attempts=steps.c.attempts + 1,
                    worker_id=worker_id,
                    lease_expires_at=now + self._lease_seconds,
                    started_at=now,
                    updated_at=now,
                )
            )
            if step.kind != NOTIFY:
                begun = {
                    "status": PROCESSING,
                    "started_at": sa.func.coalesce(jobs.c.started_at, now),
                    "updated_at": now,
                }
                waits = (jobs.c.job_id == job_id, jobs.c.status == QUEUED)
                connection.execute(jobs.update().where(*waits).values(begun))
            return one_job(connection, job_id), steps_of(connection, *_is(lease))[0], lease

    def renew(self, lease: Lease) -> None:
        """A heartbeat: pushes the expiry on. Raises LeaseLost."""
        with self._database.writing() as connection:
            self._hold(connection, lease, self._database.now(connection))

    def pin(self, lease: Lease, bundle_id: str, snapshot_id: str) -> Job:
        """Ties the job to the pair that it began with; a pair that is pinned already stays. Raises LeaseLost."""
        return self._change_job(
            lease,
            bundle_id=sa.func.coalesce(jobs.c.bundle_id, bundle_id),
            snapshot_id=sa.func.coalesce(jobs.c.snapshot_id, snapshot_id),
        )

    def note_rows_read(self, lease: Lease, rows: int) -> None:
        """How many rows of the upload were seen so far; a later reading that begins anew does not set it back. Raises LeaseLost."""
        self._change_job(lease, rows_read=_at_least(rows))

    def note_progress(self, lease: Lease, progress: Mapping[str, Any]) -> None:
        """How far the command is that works on the step, in JSON. Raises LeaseLost."""
        self._change_job(lease, progress=dict(progress))

    def stage(self, lease: Lease, number: int, first_row: int, rows: int, key: str) -> None:
        """A chunk is in the object store and can be scored; one that was staged before stays as it is. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._hold(connection, lease, now)
            if not steps_of(connection, steps.c.job_id == lease.job_id, *_chunk(number)):
                values = {"first_row": first_row, "rows": rows, "key": key}
                add_step(connection, lease.job_id, SCORE, number, now, **values)
            seen = {"rows_read": _at_least(first_row + rows)}
            connection.execute(jobs.update().where(jobs.c.job_id == lease.job_id).values(seen))

    def finish_reading(self, lease: Lease, metadata: Mapping[str, Any], rows_total: int) -> Job:
        """All chunks are staged; what the full reading has found is recorded. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._finish(connection, lease, now)
            found = {"metadata": dict(metadata), "rows_total": rows_total, "rows_read": rows_total, "updated_at": now}
            connection.execute(jobs.update().where(jobs.c.job_id == lease.job_id).values(found))
            _add_write_when_all_is_scored(connection, lease.job_id, now)
            return one_job(connection, lease.job_id)

    def commit(self, lease: Lease, key: str, successful: int) -> None:
        """The one commit of a chunk: its part counts from here on. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._finish(connection, lease, now, key=key, successful=successful)
            chunk = steps_of(connection, *_is(lease))[0]
            _count_chunk(connection, chunk, successful, now)
            _add_write_when_all_is_scored(connection, lease.job_id, now)

    def complete(self, lease: Lease, result_key: str | None, statistics: Mapping[str, Any] | None = None) -> None:
        """The job ends well: its result counts from here on, if it has one. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._finish(connection, lease, now, key=result_key)
            ended = {"result_key": result_key, "statistics": None if statistics is None else dict(statistics)}
            _end_job(connection, lease.job_id, COMPLETED, now, **ended)

    def finish(self, lease: Lease, name: str | None = None, message: str | None = None) -> None:
        """The step is over and the job is not changed by it; `name` and `message`: why it was given up. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            self._finish(connection, lease, now, error_name=name, error_message=message)

    def postpone(self, lease: Lease, seconds: float, name: str, message: str) -> None:
        """The step is to be claimed again, in so many seconds at the earliest, for this reason. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            why = {"not_before": now + seconds, "error_name": name, "error_message": message}
            self._hold(connection, lease, now, **released(now) | why)

    def fail(self, lease: Lease, name: str, message: str) -> None:
        """The job ends without a result, for a reason that another attempt would not change. Raises LeaseLost."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._hold(connection, lease, now)
            _end_job(connection, lease.job_id, FAILED, now, error_name=name, error_message=message)

    def give_back(self, lease: Lease, name: str, message: str) -> str:
        """The worker could not do it: it waits again, or, after the last attempt, is given up for this reason.

        A chunk is given up alone; any other step ends its job. Returns the status that the step now has. Raises LeaseLost.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._hold(connection, lease, now)
            step = steps_of(connection, *_is(lease))[0]
            return self._after_a_failed_attempt(connection, step, now, name, message)

    def _hold(self, connection: sa.Connection, lease: Lease, now: float, **values: Any) -> None:
        kept = {"lease_expires_at": now + self._lease_seconds, "updated_at": now, **values}
        if connection.execute(steps.update().where(*_held(lease)).values(kept)).rowcount == 0:
            raise lost_lease(lease)

    def _finish(self, connection: sa.Connection, lease: Lease, now: float, **values: Any) -> None:
        self._hold(connection, lease, now, **values | {"status": DONE, "lease_expires_at": None, "finished_at": now})

    def _change_job(self, lease: Lease, **values: Any) -> Job:
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, lease.job_id)
            self._hold(connection, lease, now)
            connection.execute(jobs.update().where(jobs.c.job_id == lease.job_id).values(updated_at=now, **values))
            return one_job(connection, lease.job_id)

    def _after_a_failed_attempt(
        self, connection: sa.Connection, step: Step, now: float, name: str, message: str
    ) -> str:
        this = _is(step)
        if step.attempts < self._max_attempts or (step.kind == NOTIFY and step.attempts < NOTIFY_ATTEMPTS):
            connection.execute(steps.update().where(*this).values(released(now)))
            return WAITING
        is_alone = step.kind in (SCORE, NOTIFY)  # any other waits, for a retry of the job that it ends
        why = {"status": GIVEN_UP if is_alone else WAITING, "error_name": name, "error_message": message}
        connection.execute(steps.update().where(*this).values(released(now) | why | {"finished_at": now}))
        if step.kind == SCORE:
            _count_chunk(connection, step, 0, now)
            _add_write_when_all_is_scored(connection, step.job_id, now)
        elif not is_alone:
            _end_job(connection, step.job_id, FAILED, now, error_name=name, error_message=message)
        return GIVEN_UP

    # ---- the watchdog's side

    def end_expired_leases(self) -> list[Step]:
        """Takes back what silent workers held. Returns these steps as they were."""
        return self._take_back(_expired, self._count_lost)

    def release_process(self, worker_id: str) -> list[Step]:
        """Takes back at once what a process held that was lost; its attempts count. Returns these steps as they were."""
        return self._take_back(
            lambda _now: (steps.c.worker_id == worker_id, steps.c.status == LEASED), self._count_lost
        )

    def _count_lost(self, connection: sa.Connection, step: Step, now: float) -> None:
        self._after_a_failed_attempt(connection, step, now, *_worker_lost(step))

    def _take_back(
        self,
        conditions: Callable[[float], tuple[sa.ColumnElement[bool], ...]],
        take: Callable[[sa.Connection, Step, float], None],
    ) -> list[Step]:
        """Job by job: whoever held the locks of several would meet others that hold them in another order."""
        with self._database.reading() as connection:
            held = steps_of(connection, *conditions(self._database.now(connection)))
        taken = []
        for job_id in sorted({step.job_id for step in held}):
            with self._database.writing() as connection:
                now = self._database.now(connection)
                _lock(connection, job_id)
                for step in steps_of(connection, steps.c.job_id == job_id, *conditions(now)):
                    take(connection, step, now)
                    taken.append(step)
        return taken

    def release_worker(self, worker_id: str) -> list[Step]:
        """Takes back, at once and without counting the attempt, what a worker and its processes held that go away in good order.

        Returns these steps as they were.
        """
        its_own = _held_by_worker(worker_id)
        return self._take_back(lambda _now: its_own, self._return_uncounted)

    def _return_uncounted(self, connection: sa.Connection, step: Step, now: float) -> None:
        given_back = released(now) | {"attempts": steps.c.attempts - 1}
        connection.execute(steps.update().where(*_is(step)).values(given_back))

    def is_holding(self, worker_id: str) -> bool:
        """Whether a worker or one of its processes has a step to work on."""
        with self._database.reading() as connection:
            return bool(steps_of(connection, *_held_by_worker(worker_id)))

    def waiting(self, sent_before_seconds: float) -> list[WaitingSteps]:
        """Steps that could be claimed but that no message stands for, or only messages that were sent longer ago than this.

        What was written just now is left to the process that wrote it: it is about to send the message itself.
        """
        with self._database.reading() as connection:
            now = self._database.now(connection)
            never_sent = sa.and_(steps.c.enqueued_at.is_(None), steps.c.updated_at < now - OWN_SENDING_SECONDS)
            overdue = sa.or_(never_sent, steps.c.enqueued_at < now - sent_before_seconds)
            return _grouped(connection, now, overdue)

    def unsent(self, job_id: str) -> list[WaitingSteps]:
        """The steps of a job that could be claimed and that no message stands for."""
        with self._database.reading() as connection:
            return _grouped(
                connection, self._database.now(connection), steps.c.job_id == job_id, steps.c.enqueued_at.is_(None)
            )

    def next_in_turn(self) -> WaitingSteps | None:
        """The step of IN_TURN whose turn it is; None while one is under way, or if none waits."""
        with self._database.reading() as connection:
            found = _grouped(connection, self._database.now(connection), steps.c.kind.in_(IN_TURN))
            return found[0] if found else None

    def mark_enqueued(self, job_id: str, kind: str, number: int | None = None) -> None:
        """The queue has messages for the steps of this kind that wait in the job, or (number) for this one."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            _lock(connection, job_id)
            sent = [steps.c.job_id == job_id, steps.c.kind == kind, steps.c.status == WAITING]
            if number is not None:
                sent.append(steps.c.number == number)
            connection.execute(steps.update().where(*sent).values(enqueued_at=now))
            connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(enqueued_at=now))

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


def _lock(connection: sa.Connection, job_id: str) -> None:
    connection.execute(sa.select(jobs.c.job_id).where(jobs.c.job_id == job_id).with_for_update())


def _take_turns(connection: sa.Connection, job_id: str) -> None:
    """Postgres: who is about to claim a step of IN_TURN sees all that was claimed before. SQLite has one writer at a time."""
    if connection.dialect.name != "postgresql":
        return
    kind = connection.execute(sa.select(jobs.c.kind).where(jobs.c.job_id == job_id)).scalar()
    if kind in KINDS_IN_TURN:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TURN_LOCK})


def _at_least(rows: int) -> sa.ColumnElement[int]:
    """rows_read once so many rows were seen."""
    return sa.case((jobs.c.rows_read > rows, jobs.c.rows_read), else_=rows)


def _is(lease: Lease | Step) -> tuple[sa.ColumnElement[bool], ...]:
    return steps.c.job_id == lease.job_id, steps.c.kind == lease.kind, steps.c.number == lease.number


def _held(lease: Lease) -> tuple[sa.ColumnElement[bool], ...]:
    """By this worker, in this claim: a notification begins anew with each end of the job, and its fences with it."""
    by_it = (steps.c.worker_id == lease.worker_id, steps.c.fence == lease.fence, steps.c.status == LEASED)
    return (*_is(lease), *by_it)


def _held_by_worker(worker_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """By its main process, or by a process of its pool."""
    its_own = sa.or_(steps.c.worker_id == worker_id, steps.c.worker_id.startswith(f"{worker_id}/", autoescape=True))
    return its_own, steps.c.status == LEASED


def _chunk(number: int) -> tuple[sa.ColumnElement[bool], ...]:
    return steps.c.kind == SCORE, steps.c.number == number


def _expired(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    return steps.c.status == LEASED, steps.c.lease_expires_at < now


def _can_be_claimed(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    """In steps joined with jobs. Notifications tell of the end of a job; everything else happens before it."""
    of_its_time = sa.or_(
        sa.and_(steps.c.kind != NOTIFY, jobs.c.status.in_(OPEN)),
        sa.and_(steps.c.kind == NOTIFY, jobs.c.status.in_((COMPLETED, FAILED, CANCELLED))),
    )
    return steps.c.status == WAITING, of_its_time, _due(steps, now)


def _due(of: sa.FromClause, now: float) -> sa.ColumnElement[bool]:
    return sa.or_(of.c.not_before.is_(None), of.c.not_before <= now)


def _may_go(now: float) -> sa.ColumnElement[bool]:
    """In steps joined with jobs: nothing is to be waited for, or the turn has come."""
    return sa.or_(steps.c.kind.not_in(IN_TURN), _is_its_turn(now))


def _is_its_turn(now: float) -> sa.ColumnElement[bool]:
    """Of a step in steps joined with jobs: no step of IN_TURN is under way, and of those that wait its job is the oldest."""
    others, its_job = steps.alias("others"), jobs.alias("job_of_other")
    under_way = sa.select(others.c.job_id).where(others.c.kind.in_(IN_TURN), others.c.status == LEASED)
    before = sa.or_(
        its_job.c.created_at < jobs.c.created_at,
        sa.and_(its_job.c.created_at == jobs.c.created_at, its_job.c.job_id < jobs.c.job_id),
    )
    waits = (others.c.kind.in_(IN_TURN), others.c.status == WAITING, its_job.c.status.in_(OPEN), _due(others, now))
    joined = others.join(its_job, others.c.job_id == its_job.c.job_id)
    earlier = sa.select(others.c.job_id).select_from(joined).where(*waits, before).correlate(steps, jobs)
    return sa.and_(~under_way.exists(), ~earlier.exists())


def _claimable(now: float) -> sa.Select[Any]:
    return sa.select(steps).select_from(steps.join(jobs)).where(*_can_be_claimed(now))


def _grouped(connection: sa.Connection, now: float, *conditions: sa.ColumnElement[bool]) -> list[WaitingSteps]:
    counted = (
        sa.select(steps.c.job_id, steps.c.kind, sa.func.count())
        .select_from(steps.join(jobs))
        .where(*_can_be_claimed(now), _may_go(now), *conditions)
        .group_by(steps.c.job_id, steps.c.kind, jobs.c.created_at)
        .order_by(jobs.c.created_at, steps.c.job_id)
        .limit(1000)
    )
    return [WaitingSteps(*row) for row in connection.execute(counted)]


def _count_chunk(connection: sa.Connection, chunk: Step, successful: int, now: float) -> None:
    connection.execute(
        jobs.update()
        .where(jobs.c.job_id == chunk.job_id)
        .values(
            rows_processed=jobs.c.rows_processed + chunk.rows,
            rows_successful=jobs.c.rows_successful + successful,
            rows_failed=jobs.c.rows_failed + chunk.rows - successful,
            updated_at=now,
        )
    )


def _add_write_when_all_is_scored(connection: sa.Connection, job_id: str, now: float) -> None:
    """The job's row must be locked: of two workers that end the last two chunks, the second sees the first."""
    open_steps = (steps.c.kind.in_((READ, SCORE)), steps.c.status.in_((WAITING, LEASED)))
    counted = sa.select(sa.func.count()).select_from(steps).where(steps.c.job_id == job_id, *open_steps)
    if connection.execute(counted).scalar_one() == 0:
        add_write(connection, job_id, now)


def _end_job(connection: sa.Connection, job_id: str, status: str, now: float, **values: Any) -> None:
    take_leases_back(connection, job_id, now)
    ended = {"status": status, "completed_at": now, "updated_at": now, **values}
    connection.execute(jobs.update().where(jobs.c.job_id == job_id).values(ended))
    add_notification(connection, one_job(connection, job_id), now)


def _worker_lost(step: Step) -> tuple[str, str]:
    begun = f"was begun {step.attempts} times and its worker was lost each time, most likely for want of memory"
    if step.kind == SCORE:
        rows = f"Rows {step.first_row + 1:,} to {step.first_row + step.rows:,} below the header"
        return (
            ChunkGivenUp.__name__,
            f"{rows}: the work on them {begun}. Retry the job (POST /bulk/retry/{step.job_id}).",
        )
    way_out = "Split the file, or give the workers more memory, and upload it again."
    if QUEUE_OF[step.kind] == TRAINING_QUEUE:
        way_out = "Give the machine more memory, or ask for less (n_samples, n_customers), then try it again."
    return WorkersLost.__name__, f"The job {begun}. {way_out}"
