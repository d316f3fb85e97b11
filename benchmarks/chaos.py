"""Bulk jobs while everything is killed: does any of them get lost, doubled, stuck or changed?

`python -m benchmarks.chaos [--jobs N] [--kills N] [--minutes M] [--seed S] [--rows FROM TO] [--write]`

Starts the service (web, two workers, Redis behind a link) in a temporary folder, runs every upload once undisturbed, then
runs jobs while workers, their pool processes, the web and Redis are killed with -9, Redis comes back empty, the link is cut
or swallows everything, and workers are stopped for longer than their lease. What dies is started again, as run.py does.
Every result is compared with the undisturbed one, byte by byte; afterwards job table and object store are looked through.
MAX_ATTEMPTS is raised: with so many kills a chunk would else be taken for one that kills its worker. Exit status 1: anything
was wrong. --write puts the table into docs/bulk_chaos.md.
"""

import argparse
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import cycle
from pathlib import Path
from types import MappingProxyType

import sqlalchemy as sa

from benchmarks.bulk_client import BulkClient
from benchmarks.chaos_jobs import Callers
from benchmarks.chaos_monkey import (
    BLACK_HOLE,
    CHUNK_TWICE,
    CUT,
    EMPTY_QUEUE,
    OTHER_TWICE,
    POOL_PROCESS,
    QUEUE,
    WEB_MASTER,
    WEB_PROCESS,
    WORKER,
    Monkey,
)
from benchmarks.chaos_report import INTRODUCTION, ChaosReport, Least, render
from benchmarks.chaos_uploads import CUSTOMERS, Upload, write_uploads
from benchmarks.service_under_test import DATABASES, PROJECT, ServiceUnderTest, job_database
from tests.ml_pipeline.toy_models import write_toy_pair

PAGE = PROJECT / "docs" / "bulk_chaos.md"
FEWEST_JOBS, FEWEST_KILLS = 30, 40
LEASE_SECONDS = 2.0
SETTINGS = {
    "LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "WATCHDOG_SECONDS": "0.5",
    "MAX_ATTEMPTS": "100",
    "MAX_JOBS_PER_CALLER": "10000",
}
KILLED = (WORKER, POOL_PROCESS, WORKER, POOL_PROCESS, WEB_MASTER, POOL_PROCESS, QUEUE, WORKER, WEB_PROCESS)
"""Whom kills fall on, in turns, besides those that come with an empty Redis."""
SETTLE_SECONDS = 10.0
LEAVINGS_SHOWN = 5
OPEN_STEPS = "SELECT job_id, kind, number, status FROM steps WHERE status NOT IN ('done', 'given_up')"
JOBS = "SELECT job_id, status FROM jobs"
JOB_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Deadline:
    """Says whether a moment of the monotonic clock has passed."""

    moment: float

    def __call__(self) -> bool:
        return time.monotonic() > self.moment


@dataclass(frozen=True)
class Plan:
    """A run. uploads: different files; least: what must happen; quiet_seconds: after which a job that still runs is stuck."""

    uploads: int
    rows: tuple[int, int]
    rows_per_chunk: int
    least: Least
    gap_seconds: float
    quiet_seconds: float
    at_a_time: int
    minutes: float
    seed: int
    database: str = "sqlite"

    def deck(self) -> Counter[str]:
        """How often what is done at least."""
        victims = cycle(KILLED)
        kills = [next(victims) for _ in range(self.least.kills - self.least.empty)]
        others = {
            EMPTY_QUEUE: self.least.empty,
            CUT: self.least.cuts - self.least.cuts // 2,
            BLACK_HOLE: self.least.cuts // 2,
            CHUNK_TWICE: self.least.chunks_twice,
            OTHER_TWICE: self.least.others_twice,
        }
        return Counter(kills) + Counter(others)


SHORT = Plan(
    uploads=6,
    rows=(8_000, 15_000),
    rows_per_chunk=4_000,
    least=Least(jobs=6, kills=8, empty=1, cuts=1, chunks_twice=1, others_twice=0),
    gap_seconds=0.4,
    quiet_seconds=25.0,
    at_a_time=3,
    minutes=1.5,
    seed=1,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    plan, write = _plan(arguments)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, job_database(plan.database) as settings:
        report = run_chaos(plan, Path(folder), settings)
    print(render(report))
    if write:
        told = {"today": date.today(), "rows_from": plan.rows[0], "rows_to": plan.rows[1], "lease": LEASE_SECONDS}
        PAGE.write_text(INTRODUCTION.format(**told) + render(report), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(PROJECT)}")
    return 1 if report.failures else 0


def _plan(arguments: Sequence[str] | None) -> tuple[Plan, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=36, help="at least so many (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=48, help="at least so many (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15.0, help="then what is not done has failed (default: 15)")
    parser.add_argument(
        "--rows", type=int, nargs=2, default=(50_000, 200_000), metavar=("FROM", "TO"), help="of a file"
    )
    parser.add_argument("--at-a-time", type=int, default=4, help="jobs at once (default: %(default)s)")
    parser.add_argument("--gap", type=float, default=1.5, help="seconds between two disturbances, on average")
    parser.add_argument("--database", choices=DATABASES, default="sqlite", help="of the job table")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    options = parser.parse_args(arguments)
    plan = Plan(
        uploads=min(options.jobs, 12),
        rows=tuple(options.rows),
        rows_per_chunk=10_000,
        least=Least(jobs=options.jobs, kills=options.kills, empty=6, cuts=6, chunks_twice=4, others_twice=2),
        gap_seconds=options.gap,
        quiet_seconds=90.0,
        at_a_time=options.at_a_time,
        minutes=options.minutes,
        seed=options.seed,
        database=options.database,
    )
    if options.write and (plan.least.jobs < FEWEST_JOBS or plan.least.kills < FEWEST_KILLS):
        parser.error(f"--write reports at least {FEWEST_JOBS} jobs and {FEWEST_KILLS} kills")
    return plan, options.write


def run_chaos(plan: Plan, folder: Path, database: Mapping[str, str] = MappingProxyType({})) -> ChaosReport:
    """Undisturbed, then disturbed, then a look at what is left. database: its settings. Raises DidNotStart."""
    started = time.monotonic()

    def say(words: str) -> None:
        sys.stderr.write(f"{time.monotonic() - started:6.1f} s  {words}\n")

    write_toy_pair(folder / "models", CUSTOMERS)
    uploads = write_uploads(folder / "uploads", plan.uploads, plan.rows, plan.seed)
    (folder / "results").mkdir()
    settings = {**SETTINGS, **database, "ROWS_PER_CHUNK": str(plan.rows_per_chunk)}
    with ServiceUnderTest(folder / "service", folder / "models", settings).running() as service:
        say("the service is ready")
        callers = Callers(service.url, folder / "results", uploads)
        callers.over = Deadline(started + 60 * plan.minutes)
        callers.run_undisturbed(plan.at_a_time)
        say(f"{callers.finished} jobs ended undisturbed")
        monkey = Monkey(service, plan.seed, plan.gap_seconds, LEASE_SECONDS, say)
        if all(outcome.is_right for outcome in callers.outcomes):
            _disturb(plan, callers, monkey)
        monkey.close()
        ids = {outcome.job_id for outcome in callers.outcomes if outcome.job_id}
        wrong_before = [outcome for outcome in callers.outcomes[: plan.uploads] if not outcome.is_right]
        return ChaosReport(
            seed=plan.seed,
            database=DATABASES[plan.database],
            least=plan.least,
            seconds=time.monotonic() - started,
            outcomes=[*wrong_before, *callers.outcomes[plan.uploads :]],
            deeds=monkey.deeds,
            lease_lost=service.lines("lease lost"),
            orphan_uploads=len({folder.name for folder in _job_folders(service.objects)} - ids),
            leavings=_leavings(service, ids),
        )


def _disturb(plan: Plan, callers: Callers, monkey: Monkey) -> None:
    """Jobs as long as the monkey works, and at least as many as planned; the monkey as long as jobs are wanted."""
    limit, before = callers.over, callers.finished
    done = threading.Event()

    def uploads() -> Iterator[Upload]:
        for number, upload in enumerate(cycle(callers.uploads)):
            if limit() or (number >= plan.least.jobs and done.is_set()):
                return
            yield upload

    def disturb() -> None:
        try:
            monkey.work_through(plan.deck(), limit)
            while callers.finished - before < plan.least.jobs - plan.at_a_time and not limit():
                monkey.work_through(Counter(KILLED), lambda: limit() or callers.finished - before >= plan.least.jobs)
        finally:
            done.set()
            quiet = Deadline(time.monotonic() + plan.quiet_seconds)
            callers.over = lambda: limit() or quiet()

    thread = threading.Thread(target=disturb, name="monkey")
    thread.start()
    callers.run_disturbed(uploads(), plan.at_a_time)
    thread.join()


def _leavings(service: ServiceUnderTest, ids: set[str]) -> list[str]:
    """What is wrong once all is quiet; workers that were stopped in the middle have some seconds to end what they do."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := _look_through(service, ids)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def _look_through(service: ServiceUnderTest, ids: set[str]) -> list[str]:
    engine = sa.create_engine(service.database_url)
    with engine.connect() as connection:
        jobs = {row.job_id: row.status for row in connection.execute(sa.text(JOBS))}
        steps = [tuple(row) for row in connection.execute(sa.text(OPEN_STEPS))]
    engine.dispose()
    wrong = [f"{len(jobs)} jobs in the table for {len(ids)} uploads"] if set(jobs) != ids else []
    if set(listed := BulkClient(service.url).jobs()) != ids or len(listed) != len(ids):
        wrong.append(f"{len(listed)} jobs are listed for {len(ids)} uploads")
    wrong += [f"job {job} is {status}" for job, status in jobs.items() if status != "completed"]
    wrong += [f"step left open: {step}" for step in steps]
    litter = [
        str(path.relative_to(service.objects))
        for folder in _job_folders(service.objects)
        if jobs.get(folder.name) == "completed"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.parent != folder
    ]
    if litter:
        shown = ", ".join(litter[:LEAVINGS_SHOWN])
        wrong.append(f"{len(litter)} chunks or parts of completed jobs are left behind: {shown}")
    return wrong


def _job_folders(objects: Path) -> list[Path]:
    """One for each job that has files."""
    return [folder for folder in objects.iterdir() if JOB_ID.fullmatch(folder.name)]


if __name__ == "__main__":
    raise SystemExit(main())
