"""How far a job is and how long it will still take, worked out from what its steps have taken so far.

Two things are known while a job runs: what a chunk costs one worker (seconds per row of the last chunks that were scored) and
how many workers are at the job (how many steps were being worked on at a time, on average, in the last seconds). The worker
that reads the file counts among them, since it scores once the file is read. Time left = what is left to read and to score ÷
workers + what writing takes, which only begins when all is scored and is estimated from the numbers of rows and customers and
from how fast this machine scores.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from services.job_table import COMPLETED, DONE, GIVEN_UP, LEASED, OPEN, QUEUED, READ, SCORE, WRITE, Job, Step

RECENT_SECONDS = 20.0
RECENT_CHUNKS = 8
SCORE_SECONDS = {"csv": 2.5, "xlsx": 6.0, "parquet": 1.6}
"""What a million rows of few columns cost one of two workers, by the format of the result; measured on two idle cores."""
WRITE_SECONDS = {"csv": 0.2, "xlsx": 0.15, "parquet": 0.75}
"""To put the parts of a million rows together, measured likewise."""
SUM_SECONDS = 0.5
"""For the statistics over a million distinct customers, measured likewise."""
SLOWEST = 4.0
"""A machine on which scoring takes longer than SCORE_SECONDS takes longer to write too, in proportion, up to so many times."""
WRITE_SECONDS_AT_LEAST = 0.1
NEARLY_ALL = 99.9
MILLION = 1_000_000


@dataclass(frozen=True)
class Pace:
    """How fast a job goes: one worker's seconds per row, how many workers are at it, and rows per second of the clock."""

    seconds_per_row: float
    workers: float
    rows_per_second: float


def progress_of(job: Job, steps: Sequence[Step], now: float) -> dict[str, Any]:
    """total, processed, successful, failed (rows), percentage, phase, rows_read, rows_per_second and eta_seconds.

    percentage: processed of total; 0 while the total is unknown, at most 99.9 before the job is completed. phase: queued,
    reading, scoring, writing or done; of a failed or cancelled job the one it had come to. rows_per_second: of late while rows
    are scored, over the whole job afterwards; None before the first are done. eta_seconds: 0 when the job has ended; None
    while nothing is known, that is until the rows are counted and the first chunk is scored, or while nobody works on it.
    `now` and the times of job and steps are seconds since 1970.
    """
    phase = _phase(job, steps)
    pace = _pace(steps, now)
    eta = _seconds_left(job, steps, phase, pace, now)
    return {
        "total": job.rows_total,
        "processed": job.rows_processed,
        "successful": job.rows_successful,
        "failed": job.rows_failed,
        "percentage": percentage_of(job),
        "phase": phase,
        "rows_read": job.rows_read,
        "rows_per_second": _rows_per_second(job, pace),
        "eta_seconds": None if eta is None else round(eta, 1),
    }


def percentage_of(job: Job) -> float:
    """Rows processed of all; 0 while the total is unknown, at most 99.9 before the job is completed."""
    if job.status == COMPLETED:
        return 100.0
    if not job.rows_total:
        return 0.0
    return min(NEARLY_ALL, job.rows_processed * 1000 // job.rows_total / 10)


def moment_text(seconds: float) -> str:
    """A time of the job table as the answers have it: ISO 8601, UTC, to the millisecond."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")


def _phase(job: Job, steps: Sequence[Step]) -> str:
    if job.status == COMPLETED:
        return "done"
    if job.status == QUEUED:
        return "queued"
    if any(step.kind == WRITE for step in steps):
        return "writing"
    if any(step.kind == READ and step.status == DONE for step in steps):
        return "scoring"
    return "reading"


def _rows_per_second(job: Job, pace: Pace | None) -> float | None:
    if job.status in OPEN:
        return round(pace.rows_per_second, 1) if pace else None
    if (
        job.completed_at is None
        or job.started_at is None
        or job.completed_at <= job.started_at
        or not job.rows_processed
    ):
        return None
    return round(job.rows_processed / (job.completed_at - job.started_at), 1)


def _pace(steps: Sequence[Step], now: float) -> Pace | None:
    """None before the first chunk is scored, and while nobody has worked on the job for a while."""
    scored = sorted(
        (step for step in steps if step.kind == SCORE and step.status == DONE and step.rows and step.finished_at),
        key=lambda step: step.finished_at or 0.0,
    )
    if not scored:
        return None
    if all(step.status in (DONE, GIVEN_UP) for step in steps if step.kind == SCORE) and _step(steps, READ, DONE):
        now = scored[-1].finished_at or now  # all are scored: the pace is that of the last seconds of scoring
    began = _recently_from(steps, now)
    if began is None:
        return None
    worked = sum(_seconds_within(step, began, now) for step in steps if step.kind in (READ, SCORE))
    rows = sum(step.rows for step in scored if step.finished_at and began < step.finished_at <= now)
    costs = [((step.finished_at or 0.0) - (step.started_at or 0.0)) / step.rows for step in scored[-RECENT_CHUNKS:]]
    return Pace(median_low(costs), worked / (now - began), rows / (now - began))


def _recently_from(steps: Sequence[Step], now: float) -> float | None:
    """Since when the pace counts: RECENT_SECONDS ago, or the first chunk since then. None if no chunk was worked on since."""
    starts = [
        step.started_at for step in steps if step.kind == SCORE and _seconds_within(step, now - RECENT_SECONDS, now) > 0
    ]
    known = [start for start in starts if start is not None]
    return max(now - RECENT_SECONDS, min(known)) if known else None


def _seconds_within(step: Step, begin: float, end: float) -> float:
    """How long the step was being worked on between begin and end."""
    if step.started_at is None or step.status not in (LEASED, DONE):
        return 0.0
    until = end if step.status == LEASED or step.finished_at is None else step.finished_at
    return max(0.0, min(until, end) - max(step.started_at, begin))


def _seconds_left(job: Job, steps: Sequence[Step], phase: str, pace: Pace | None, now: float) -> float | None:
    if job.status not in OPEN:
        return 0.0
    if phase == "writing":
        return _seconds_to_write(job, steps, pace, now)
    if job.rows_total is None or pace is None or pace.workers <= 0:
        return None
    reading = _seconds_to_read(job, steps, now)
    scoring = _seconds_to_score(job, steps, pace.seconds_per_row, now)
    return max(reading, (reading + scoring) / pace.workers) + _seconds_to_write(job, steps, pace, now)


def _seconds_to_read(job: Job, steps: Sequence[Step], now: float) -> float:
    """At the speed of the reading so far."""
    reading = _step(steps, READ, LEASED)
    if reading is None or reading.started_at is None or not job.rows_read or job.rows_total is None:
        return 0.0
    return max(0, job.rows_total - job.rows_read) * (now - reading.started_at) / job.rows_read


def _seconds_to_score(job: Job, steps: Sequence[Step], seconds_per_row: float, now: float) -> float:
    """One worker's time for all rows that are not scored, less what was spent already on the chunks under way."""
    spent = sum(
        min(now - step.started_at, step.rows * seconds_per_row)
        for step in steps
        if step.kind == SCORE and step.status == LEASED and step.started_at is not None
    )
    return max(0.0, ((job.rows_total or 0) - job.rows_processed) * seconds_per_row - spent)


def _seconds_to_write(job: Job, steps: Sequence[Step], pace: Pace | None, now: float) -> float:
    rows, result_format = job.rows_total or 0, job.parameters["result_format"]
    customers = job.metadata.get("total_customers") or rows
    slowness = 1.0 if pace is None else pace.seconds_per_row * MILLION / SCORE_SECONDS[result_format]
    estimate = (WRITE_SECONDS[result_format] * rows + SUM_SECONDS * customers) / MILLION
    estimate *= min(max(slowness, 1.0), SLOWEST)
    writing = _step(steps, WRITE, LEASED)
    spent = now - writing.started_at if writing is not None and writing.started_at is not None else 0.0
    return max(WRITE_SECONDS_AT_LEAST, estimate - spent)


def _step(steps: Sequence[Step], kind: str, status: str) -> Step | None:
    return next((step for step in steps if step.kind == kind and step.status == status), None)
