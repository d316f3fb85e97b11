"""The tables of `benchmarks.bulk` as Markdown: read in a terminal, and written into docs/bulk_speed.md."""

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from benchmarks.bulk_model import MillionModel
from benchmarks.bulk_runs import Run, cores
from benchmarks.peers import version_of

RATIO_GOALS = {"csv": 0.5, "xlsx": 1.0}
GROWTH_GOAL = 11.0
MEMORY_GOAL = 1.5 * 1024**3
FIRST_PROGRESS_GOAL = 2.0
ETA_GOAL = 0.3
JUDGED_FORMAT = "csv"
"""First progress and ETA have their goal with a CSV; a workbook has to be unpacked before its first row is known."""
LIBRARIES = ("pandas", "xgboost-cpu", "xgboost", "pyarrow", "python-calamine", "xlsxwriter", "celery", "redis")
MIB = 1024**2

INTRODUCTION = """# How fast a file of customers is

Made by `make bulk` (`python -m benchmarks.bulk --write`) on {today}; every figure can be made again by it.

- Ours: the service as it is started by hand (web with two processes, two workers with one process each, Redis, {database}), on
  one machine of {cores} cores. Seconds are the caller's: from the first byte of the upload to the last of the download.
- The reference: the script that a data scientist would write with the feature matrix already in memory: read the file with
  pandas, four times `Booster.inplace_predict` (300 trees of 8 leaves, all cores, every customer), merge by id, write the same
  columns (`to_csv`; xlsxwriter in constant memory; `to_parquet`). Its clock starts after its imports, its boosters and its
  matrix are loaded. Both take turns in the same run.
- What is not alike: the reference predicts when the file comes; ours looks up what was predicted for every customer when the
  snapshot was built. That took {predicting:.0f} s for the same {customers:,} customers, once per snapshot and not per file
  ({members} members on {features} features, two threads; {writing:.0f} s more to write it). Ours reads the upload from HTTP and keeps it,
  keeps every step so that a killed worker loses nothing, counts statistics, and gives the result back over HTTP.
- The upload: {rows:,} known customers in no order, with two columns of the caller's own. The first result of each
  format is compared with the snapshot, row by row.
- Memory is the kernel's high-water mark of each process (shared pages of memory-mapped files count in full in each), and
  for all processes together the largest sum of proportional shares (PSS).

Versions: {versions}.
"""


@dataclass
class FormatReport:
    """The runs of one format, ours and the reference's, in the order in which they took turns."""

    name: str
    ours: list[Run] = field(default_factory=list)
    small: list[Run] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median of ours."""
        return statistics.median(run.seconds for run in self.ours)

    @property
    def ratio(self) -> float | None:
        """The median of ours over the median of the reference's; None where it did not run."""
        return self.seconds / statistics.median(self.reference) if self.reference else None

    @property
    def growth(self) -> float | None:
        """How many times the seconds of the small file the large one takes, where it has ten times the rows."""
        if not self.small or self.ours[0].rows != 10 * self.small[0].rows:
            return None
        return self.seconds / statistics.median(run.seconds for run in self.small)

    @property
    def peaks(self) -> dict[str, int]:
        """The largest resident memory of each process in any run, in bytes."""
        names = sorted({name for run in self.ours for name in run.memory.resident})
        return {name: max(run.memory.resident.get(name, 0) for run in self.ours) for name in names}


@dataclass(frozen=True)
class Claim:
    """One line of the table; met is None where no goal was set."""

    what: str
    measured: str
    goal: str = ""
    met: bool | None = None


def claims_of(report: FormatReport) -> list[Claim]:
    """Everything that is measured of a format, beside its goal."""
    run = report.ours[0]
    found = [_seconds("ours, s", [each.seconds for each in report.ours])]
    if report.ratio is not None:
        found.append(_seconds("reference, s", report.reference))
        found.append(_at_most("ours ÷ reference", report.ratio, RATIO_GOALS.get(report.name), "{:.2f}"))
    found.append(Claim("rows per second", f"{run.rows / report.seconds:,.0f}"))
    if report.small:
        found.append(_seconds(f"ours with {report.small[0].rows:,} rows, s", [each.seconds for each in report.small]))
    if report.growth is not None:
        found.append(_at_most("growth for ten times the rows", report.growth, GROWTH_GOAL, "{:.1f} ×"))
    return [*found, *_progress(report), *_memory(report)]


def _progress(report: FormatReport) -> list[Claim]:
    judged = report.name == JUDGED_FORMAT
    found = [_seconds("of it sending the file, s", [run.sent for run in report.ours])]
    for what, moments in (
        ("first rows read, s after the upload", [run.first_read for run in report.ours]),
        ("first rows done, s after the upload", [run.first_scored for run in report.ours]),
    ):
        known = [moment for moment in moments if moment is not None]
        limit = FIRST_PROGRESS_GOAL if judged and "done" in what else None
        if known:
            found.append(_at_most(what, max(known), limit, "{:.2f}"))
    ratios = [run.eta_ratio for run in report.ours if run.eta_ratio is not None]
    if ratios:
        worst = max(ratios, key=lambda ratio: abs(ratio - 1))
        goal = f"within ± {ETA_GOAL:.0%}" if judged else ""
        met = abs(worst - 1) <= ETA_GOAL if judged else None
        found.append(Claim("remaining time told at 20 % of the rows ÷ the true one", f"{worst:.2f}", goal, met))
    return found


def _memory(report: FormatReport) -> list[Claim]:
    name, peak = max(report.peaks.items(), key=lambda item: item[1])
    text = f"{peak / MIB:,.0f} MiB ({name})"
    together = max(run.memory.proportional for run in report.ours)
    return [
        Claim("largest process", text, f"≤ {MEMORY_GOAL / MIB:,.0f} MiB", peak <= MEMORY_GOAL),
        Claim("all processes together (PSS)", f"{together / MIB:,.0f} MiB"),
    ]


def _seconds(what: str, values: Sequence[float]) -> Claim:
    alone = f"{statistics.median(values):.1f}"
    return Claim(
        what, alone if len(values) == 1 else f"{alone} (of {', '.join(f'{value:.1f}' for value in sorted(values))})"
    )


def _at_most(what: str, value: float, goal: float | None, form: str) -> Claim:
    if goal is None:
        return Claim(what, form.format(value))
    return Claim(what, form.format(value), f"≤ {form.format(goal)}", value <= goal)


def render(report: FormatReport) -> str:
    """The table of one format."""
    words = {None: "", True: "yes", False: "**no**"}
    lines = [
        f"## {report.name.upper()}, {report.ours[0].rows:,} rows in and out",
        "",
        "| | measured | goal | met |",
        "|---|---|---|---|",
        *(f"| {claim.what} | {claim.measured} | {claim.goal} | {words[claim.met]} |" for claim in claims_of(report)),
        "",
        f"Result: {report.ours[0].result_bytes / MIB:,.1f} MiB. Memory of each process, MiB: "
        + ", ".join(f"{name} {peak / MIB:,.0f}" for name, peak in report.peaks.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"


def introduction(model: MillionModel, rows: int, database: str, today: date) -> str:
    """What was measured and what is not alike."""
    known = [(library, version_of(library)) for library in LIBRARIES]
    versions = [f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in known if version)]
    return INTRODUCTION.format(
        today=today.isoformat(),
        database=database,
        cores=cores(),
        predicting=model.predicting_seconds,
        writing=model.writing_seconds,
        customers=model.customers,
        members=model.members,
        features=model.n_features,
        rows=rows,
        versions=", ".join(versions),
    )
