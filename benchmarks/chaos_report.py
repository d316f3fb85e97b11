"""What a chaos run found: the table, and everything that is wrong in words."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.chaos_jobs import Outcome
from benchmarks.chaos_monkey import BLACK_HOLE, CHUNK_TWICE, CUT, EMPTY_QUEUE, KILLS, OTHER_TWICE, Deeds

INTRODUCTION = """# Bulk jobs while everything is killed

Made by `make chaos` (`python -m benchmarks.chaos --write`) on {today}; it can be run again by anyone, with `--seed` for
another course of events.

The service (web with two processes, two workers with one process each, Redis behind a link that can be cut) runs files
of {rows_from:,} to {rows_to:,} rows, in CSV, XLSX and Parquet, with repeated, unknown and awkward rows, several at a time:
each once with nothing in the way, then again and again while its processes are killed with -9 at moments of chance, Redis comes back
empty, the link to it is cut or swallows everything, and workers are stopped for longer than their lease, so that another gets
what they are at. What dies is started again, as `run.py` does. Callers send an `Idempotency-Key` and ask again when a
connection breaks. Every result and what its status says is compared with the undisturbed run's; afterwards the job table is
looked through for jobs without a caller and open steps, and the object store for chunks and parts that nobody needs.

Leases are of {lease:g} s and `MAX_ATTEMPTS` is 100: with so many kills a chunk would else be taken for one that kills its worker.

"""


@dataclass(frozen=True)
class Least:
    """How much must have happened for a run to say anything."""

    jobs: int
    kills: int
    empty: int
    cuts: int
    chunks_twice: int
    others_twice: int


@dataclass
class ChaosReport:
    """One run. leavings: what is wrong with the job table and the object store afterwards, in words."""

    seed: int
    database: str
    least: Least
    seconds: float
    outcomes: Sequence[Outcome]
    deeds: Deeds
    lease_lost: int
    orphan_uploads: int
    leavings: list[str] = field(default_factory=list)

    @property
    def cuts(self) -> int:
        """Times that the link was cut or swallowed everything."""
        return self.deeds.done[CUT] + self.deeds.done[BLACK_HOLE]

    @property
    def failures(self) -> list[str]:
        """Everything that is wrong; empty: the run was passed."""
        wrong = [
            f"{outcome.key} ({outcome.upload.path.name}, job {outcome.job_id or 'without id'}): {outcome.verdict or 'no verdict'}"
            for outcome in self.outcomes
            if not outcome.is_right
        ]
        return [*wrong, *self.leavings, *self._too_little()]

    def _too_little(self) -> list[str]:
        done = self.deeds.done
        counts = (
            ("jobs", len(self.outcomes), self.least.jobs),
            ("kills", self.deeds.kills, self.least.kills),
            ("times an empty Redis", done[EMPTY_QUEUE], self.least.empty),
            ("disturbed links", self.cuts, self.least.cuts),
            ("chunks handed to two workers", done[CHUNK_TWICE], self.least.chunks_twice),
            ("other steps handed to two workers", done[OTHER_TWICE], self.least.others_twice),
        )
        missed = "; ".join(self.deeds.missed)
        return [f"only {n} {what} of {least}: {missed}" for what, n, least in counts if n < least]


def render(report: ChaosReport) -> str:
    """The table as Markdown, then the failures."""
    rows = [
        ("jobs, all compared with the undisturbed run's", f"{len(report.outcomes)}"),
        *((f"of them {file_format}", words) for file_format, words in _verdicts(report.outcomes).items()),
        ("rows", f"{sum(outcome.upload.rows for outcome in report.outcomes):,}"),
        ("seconds of a job, median and longest", _seconds(report.outcomes)),
        ("kills with -9", f"{report.deeds.kills}"),
        *((f"of them {name}", str(report.deeds.done[name])) for name in KILLS),
        ("link to Redis cut, black-holed", f"{report.deeds.done[CUT]}, {report.deeds.done[BLACK_HOLE]}"),
        ("chunks handed to two workers (one stopped past its lease)", str(report.deeds.done[CHUNK_TWICE])),
        ("other steps handed to two workers", str(report.deeds.done[OTHER_TWICE])),
        ("leases lost, by the workers' own words", f"{report.lease_lost}"),
        ("connections of callers broken, answers 503", _troubles(report.outcomes)),
        ("uploads stored and never recorded (removed an hour later)", f"{report.orphan_uploads}"),
        ("seconds", f"{report.seconds:.0f}"),
        ("seed", f"{report.seed}"),
        ("job table", report.database),
        ("verdict", "passed" if not report.failures else f"**failed** ({len(report.failures)})"),
    ]
    table = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*table, *(f"\n- {failure}" for failure in report.failures)]) + "\n"


def _verdicts(outcomes: Sequence[Outcome]) -> dict[str, str]:
    found: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        verdict = outcome.verdict if outcome.is_right else "WRONG"
        found.setdefault(outcome.upload.format.upper(), Counter())[verdict] += 1
    return {name: _counted(verdicts) for name, verdicts in sorted(found.items())}


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "0"


def _seconds(outcomes: Sequence[Outcome]) -> str:
    seconds = [outcome.seconds for outcome in outcomes] or [0.0]
    return f"{statistics.median(seconds):.1f}, {max(seconds):.1f}"


def _troubles(outcomes: Sequence[Outcome]) -> str:
    return f"{sum(outcome.broken for outcome in outcomes)}, {sum(outcome.away for outcome in outcomes)}"
