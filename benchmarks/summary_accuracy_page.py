"""The tables of `benchmarks.summary_accuracy` as Markdown: read in a terminal, and written into docs/summary_accuracy.md."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from ml_pipeline.card_text import render_table

TITLES = {
    "capped_r2": "capped R²",
    "d2": "D²",
    "normalised_gini": "nGini",
    "decile_mape": "decile MAPE",
    "bias": "bias",
    "auc": "AUC",
    "brier": "Brier",
}
Scores = Mapping[str, float | None]

INTRODUCTION = """# What summary numbers tell, measured

Made by `make summary` (`python -m benchmarks.summary_accuracy --write`) on {today}; every figure can be made again by it.

- The product is trained with its own command as of each day (`python -m ml_pipeline.run_pipeline --as-of DAY`): nothing on or
  after it is read. What is measured is the bundle that would serve on that day, not its backtest.
- Everybody who bought before the day is asked for in each way: by the whole history, and by a complete request of each form of
  summary. `best` is what is served; the models by name are what `?model_type=` gives.
- eighteen fields: with the spend and the transactions of the last 30, 60 and 90 days; seven fields: recency, tenure, number of
  transactions, total, mean value, mean gap; six features: total, mean value, transactions, items, products, recency.
- What a form's line lacks to the first line is what the missing history costs. The rules see the whole history.
"""


@dataclass(frozen=True)
class Row:
    """One way to answer: its title, and its scores as means over the windows."""

    title: str
    mean: Scores


@dataclass(frozen=True)
class Window:
    """One evaluation day: customers, the share that bought, and the scores of each way to answer."""

    day: date
    customers: int
    bought: float
    scores: Mapping[str, Scores]

    def as_json(self) -> dict[str, Any]:
        """To be kept."""
        return {**asdict(self), "day": self.day.isoformat()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Window":
        """What `as_json` made."""
        return cls(**{**content, "day": date.fromisoformat(content["day"])})


@dataclass(frozen=True)
class DataSetReport:
    """Everything that is printed of a data set."""

    title: str
    profile: str
    windows: Sequence[Window]
    rows: Sequence[Row]
    pipeline: str


def page(reports: Sequence[DataSetReport], today: date) -> str:
    """The page docs/summary_accuracy.md."""
    return "\n".join([INTRODUCTION.format(today=today.isoformat()), *map(render, reports)])


def render(report: DataSetReport) -> str:
    """The tables of one data set: means over the windows, then what is served window by window."""
    said = "; ".join(f"{each.day} ({each.customers:,} customers, {each.bought:.1%} bought)" for each in report.windows)
    by_window = [
        [f"{title}, {window.day}", *_cells(window.scores[title])]
        for title in _served(report)
        for window in report.windows
    ]
    header = ["", *TITLES.values()]
    return (
        "\n\n".join(
            [
                f"## {report.title}",
                f"Windows of 30 days from {said}. Profile `{report.profile}`. Figures are means over the windows.",
                render_table(header, [[row.title, *_cells(row.mean)] for row in report.rows]),
                "Window by window:",
                render_table(header, by_window),
            ]
        )
        + "\n"
    )


def _served(report: DataSetReport) -> list[str]:
    """What a caller is served."""
    titles = [row.title for row in report.rows]
    return [title for title in titles if title.startswith("whole history") or title.endswith(": best")]


def _cells(scores: Scores) -> list[str]:
    return ["–" if scores[name] is None else f"{scores[name]:.3f}" for name in TITLES]
