"""Progress from constructed steps: what a job of a million rows looks like at every moment of a given course."""

import heapq
import itertools
from dataclasses import dataclass, replace

import pytest

from services.job_progress import SCORE_SECONDS, SLOWEST, SUM_SECONDS, WRITE_SECONDS, progress_of
from services.job_table import DONE, LEASED, READ, SCORE, WAITING, WRITE, Job, Step

ROWS = 50_000
MILLION = 1_000_000
EPOCH = 1_790_000_000.0


def job_of(file_format: str = "csv", **facts) -> Job:
    known = {
        "job_id": "j", "kind": "bulk_predict", "owner": "local", "request_id": "r", "idempotency_key": None, "parent_id": None,
        "variant": None, "status": "processing", "parameters": {"result_format": file_format}, "metadata": {},
        "statistics": None, "error_name": None, "error_message": None, "bundle_id": None, "snapshot_id": None,
        "result_key": None, "rows_total": None, "rows_read": 0, "rows_processed": 0, "rows_successful": 0, "rows_failed": 0,
        "created_at": EPOCH, "updated_at": EPOCH, "enqueued_at": EPOCH, "started_at": EPOCH, "completed_at": None,
    }  # fmt: skip
    return Job(**known | facts)


def step_of(kind: str, status: str, number: int = 0, rows: int = 0, started_at=None, finished_at=None) -> Step:
    return Step(
        job_id="j", kind=kind, number=number, status=status, first_row=0, rows=rows, successful=rows, key=None, fence=1, attempts=1,
        worker_id="w", lease_expires_at=None, not_before=None, error_name=None, error_message=None, updated_at=EPOCH,
        enqueued_at=EPOCH, started_at=started_at, finished_at=finished_at,
    )  # fmt: skip


@dataclass(frozen=True)
class Course:
    """A job as it went: when each chunk was staged, begun and scored, and when all ended. Times in seconds from EPOCH."""

    file_format: str
    rows: int
    opened: float
    staged: tuple[float, ...]
    scored: tuple[tuple[float, float], ...]
    ended: float

    @property
    def written_from(self) -> float:
        return max(end for _begin, end in self.scored)

    def size_of(self, chunk: int) -> int:
        return min(ROWS, self.rows - chunk * ROWS)

    def rows_done(self, at: float) -> int:
        return sum(self.size_of(chunk) for chunk, (_begin, end) in enumerate(self.scored) if end <= at)

    def read_rows(self, at: float) -> int:
        if at < self.opened:
            return int(self.rows * at / self.opened)
        return (
            self.rows if self.opened else sum(self.size_of(n) for n, moment in enumerate(self.staged) if moment <= at)
        )

    def look(self, at: float, total_known: bool = False) -> dict:
        is_read = at >= self.staged[-1]
        done = self.rows_done(at)
        steps = [step_of(READ, DONE if is_read else LEASED, 0, 0, EPOCH, EPOCH + self.staged[-1] if is_read else None)]
        for chunk, moment in enumerate(self.staged):
            begin, end = self.scored[chunk]
            status = WAITING if at < begin else LEASED if at < end else DONE
            if moment <= at:
                started, finished = EPOCH + begin if at >= begin else None, EPOCH + end if at >= end else None
                steps.append(step_of(SCORE, status, chunk + 1, self.size_of(chunk), started, finished))
        if at >= self.written_from:
            steps.append(step_of(WRITE, LEASED, 0, 0, EPOCH + self.written_from))
        job = job_of(
            self.file_format,
            rows_total=self.rows if is_read or total_known else None,
            rows_read=self.read_rows(at),
            rows_processed=done,
            rows_successful=done,
        )
        return progress_of(job, steps, EPOCH + at)

    def moment_of(self, share: float) -> float:
        """When so much of the rows was done first, as the job table can show it."""
        return min(end for _begin, end in self.scored if self.rows_done(end) >= share * self.rows)


def course(
    file_format="csv", rows=MILLION, workers=2, opened=0.0, reading=1.5, chunk=0.4, first=0.5, gap=0.02, writing=None
) -> Course:
    """The reader is one of the workers; chunks go to whoever is free; the first chunk of each worker takes `first` longer."""
    chunks = -(-rows // ROWS)
    staged = tuple(opened + reading * (number + 1) / chunks for number in range(chunks))
    free = [(staged[-1] + gap, 0), *((0.1, worker) for worker in range(1, workers))]
    heapq.heapify(free)
    scored, fresh = [], set(range(1, workers))
    for number in range(chunks):
        moment, worker = heapq.heappop(free)
        begin = max(moment, staged[number] + gap)
        size = min(ROWS, rows - number * ROWS)
        end = begin + chunk * size / ROWS + (first if worker in fresh else 0.0)
        fresh.discard(worker)
        scored.append((begin, end))
        heapq.heappush(free, (end + gap, worker))
    last = max(end for _begin, end in scored)
    if writing is None:
        slowness = min(max(chunk / ROWS * MILLION / SCORE_SECONDS[file_format], 1.0), SLOWEST)
        writing = (WRITE_SECONDS[file_format] + SUM_SECONDS) * rows / MILLION * slowness
    return Course(file_format, rows, opened, staged, tuple(scored), last + writing)


COURSES = {
    "csv": course(),
    "csv read slowly": course(reading=4.0),
    "csv by one worker": course(workers=1),
    "csv by four workers": course(workers=4, chunk=0.6, first=0.15),
    "csv on a slow machine": course(chunk=1.6, reading=5.0, first=2.0, writing=4.0),
    "csv written slowly": course(writing=3.0),
    "xlsx": course("xlsx", opened=6.0, reading=0.8, chunk=0.9),
    "xlsx whose rows fly": course("xlsx", opened=6.0, reading=0.6, chunk=0.3),
    "xlsx by four workers": course("xlsx", opened=6.0, reading=0.8, chunk=0.9, workers=4, first=0.2),
    "parquet": course("parquet", reading=0.5, chunk=0.25),
    "three million rows": course(rows=3_000_000, reading=5.0),
}


@pytest.mark.parametrize("went", COURSES.values(), ids=COURSES.keys())
@pytest.mark.parametrize("share", [0.2, 0.3, 0.5, 0.75])
def test_the_time_left_is_within_30_percent_of_the_truth_from_20_percent_on(went, share):
    at = went.moment_of(share)
    for later in (0.0, 0.1, 0.2):
        shown = went.look(at + later)
        if shown["total"] is None:  # not counted yet: nothing is claimed
            assert shown["eta_seconds"] is None
            continue
        truth = went.ended - at - later
        assert shown["percentage"] >= 100 * share
        assert 0.7 * truth <= shown["eta_seconds"] <= 1.3 * truth, (shown, truth)


@pytest.mark.parametrize("went", COURSES.values(), ids=COURSES.keys())
def test_progress_never_goes_back_and_never_says_all_before_the_end(went):
    looks = [went.look(went.ended * moment / 200) for moment in range(200)]
    phases = ["reading", "scoring", "writing"]
    for one, other in itertools.pairwise(looks):
        assert one["percentage"] <= other["percentage"] < 100
        assert one["rows_read"] <= other["rows_read"]
        assert phases.index(one["phase"]) <= phases.index(other["phase"])
    assert {look["phase"] for look in looks} == set(phases)
    assert looks[-1]["percentage"] == 99.9
    assert looks[-1]["eta_seconds"] > 0


def test_a_file_that_was_counted_at_the_upload_has_an_eta_while_it_is_read():
    went = course(reading=6.0, chunk=0.1, first=0.0)
    at = went.moment_of(0.2)
    shown = went.look(at, total_known=True)
    assert shown["phase"] == "reading"
    assert shown["eta_seconds"] == pytest.approx(went.ended - at, rel=0.3)


def test_rows_per_second_are_those_of_the_last_seconds():
    went = course(rows=20 * MILLION, reading=2.0)
    shown = went.look(60.0)
    truth = (went.rows_done(60.0) - went.rows_done(40.0)) / 20
    assert shown["rows_per_second"] == pytest.approx(truth, rel=0.02)


def test_nothing_is_said_of_a_time_that_is_not_known():
    waiting = progress_of(job_of(status="queued", started_at=None), [step_of(READ, WAITING)], EPOCH + 5)
    assert (waiting["phase"], waiting["eta_seconds"], waiting["rows_per_second"]) == ("queued", None, None)
    opening = progress_of(job_of(rows_read=300_000), [step_of(READ, LEASED, started_at=EPOCH)], EPOCH + 2)
    assert (opening["phase"], opening["rows_read"], opening["eta_seconds"]) == ("reading", 300_000, None)
    assert (opening["total"], opening["percentage"]) == (None, 0.0)


def half_done(**facts) -> tuple[Job, list[Step]]:
    steps = [step_of(READ, DONE, started_at=EPOCH, finished_at=EPOCH + 1)]
    steps += [step_of(SCORE, DONE, n, ROWS, EPOCH + n, EPOCH + n + 1) for n in range(1, 11)]
    steps += [step_of(SCORE, WAITING, n, ROWS) for n in range(11, 21)]
    return job_of(rows_total=MILLION, rows_read=MILLION, rows_processed=MILLION // 2, **facts), steps


def test_without_a_worker_there_is_no_eta_and_with_a_new_one_there_is_at_once():
    job, steps = half_done()
    later = EPOCH + 86_400
    assert progress_of(job, steps, later)["eta_seconds"] is None
    steps[11] = replace(steps[11], status=LEASED, started_at=later)
    assert progress_of(job, steps, later + 0.5)["eta_seconds"] == pytest.approx(
        10 - 0.5 + SLOWEST * (WRITE_SECONDS["csv"] + SUM_SECONDS), abs=0.2
    )


@pytest.mark.parametrize(
    ("status", "phase", "percentage", "processed"),
    [
        ("completed", "done", 100.0, MILLION),
        ("failed", "scoring", 50.0, MILLION // 2),
        ("cancelled", "scoring", 50.0, MILLION // 2),
    ],
)
def test_a_job_that_has_ended_takes_no_more_time(status, phase, percentage, processed):
    job, steps = half_done(status=status, completed_at=EPOCH + 10)
    shown = progress_of(replace(job, rows_processed=processed), steps, EPOCH + 99)
    assert (shown["phase"], shown["percentage"], shown["eta_seconds"]) == (phase, percentage, 0.0)
    assert shown["rows_per_second"] == processed / 10


def test_writing_takes_less_for_fewer_customers():
    job, steps = half_done()
    steps = [*steps[:11], step_of(WRITE, LEASED, started_at=EPOCH + 20)]
    each_once = progress_of(job, steps, EPOCH + 20)["eta_seconds"]
    few = progress_of(replace(job, metadata={"total_customers": 1000}), steps, EPOCH + 20)["eta_seconds"]
    assert each_once - few == pytest.approx(SLOWEST * SUM_SECONDS * 0.999, abs=0.1)


def test_a_machine_that_scores_slowly_is_taken_to_write_slowly_too_and_a_quick_one_no_quicker():
    quick, slow, slowest = (
        [step_of(READ, DONE), step_of(SCORE, DONE, 1, MILLION, EPOCH, EPOCH + SCORE_SECONDS["csv"] * times)]
        for times in (0.2, 2, 99)
    )
    job = job_of(rows_total=MILLION, rows_read=MILLION, rows_processed=MILLION)
    written = [
        progress_of(job, [*steps, step_of(WRITE, LEASED, started_at=EPOCH + 999)], EPOCH + 999)["eta_seconds"]
        for steps in (quick, slow, slowest)
    ]
    idle = WRITE_SECONDS["csv"] + SUM_SECONDS
    assert written == pytest.approx([idle, 2 * idle, SLOWEST * idle], abs=0.06)
