"""Whether parts and whole agree, and what making them agree has cost: each metric before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.goals import LOWER_IS_BETTER
from benchmarks.public_data import FloatArray
from benchmarks.scores import mean_scores
from ml_pipeline import metrics
from ml_pipeline.snapshot import CENTS

BOOTSTRAPS = 50
SEED = 20_240_229
COMPARED = ("r2", "capped_r2", "d2", "normalised_gini", "decile_mape", "bias")

Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Agreement:
    """How many customers there are, how many of them have named parts above the total, and parts that do not add up."""

    customers: int
    over_total: int
    not_adding_up: int


def agreement_of(money: FloatArray) -> Agreement:
    """Of predictions (n, 2 + targets) in money: total, named parts, other; to the cent."""
    cents = np.rint(money * CENTS).astype(np.int64)
    over = cents[:, 1:-1].sum(axis=1) > cents[:, 0]
    return Agreement(len(cents), int(over.sum()), int((cents[:, 1:].sum(axis=1) != cents[:, 0]).sum()))


@dataclass(frozen=True)
class Compared:
    """A window's customers (n,), what they spent, and what was predicted before and after agreeing, (n, 2 + targets)."""

    customer_ids: npt.NDArray[np.str_]
    actual: FloatArray
    before: FloatArray
    after: FloatArray

    def drawn(self, rows: npt.NDArray[np.int64]) -> "Compared":
        """The customers at these rows, who may occur more than once."""
        return Compared(self.customer_ids[rows], self.actual[rows], self.before[rows], self.after[rows])


def compare_columns(windows: Sequence[Compared], columns: Sequence[int]) -> dict[int, tuple[Scores, Scores]]:
    """Of each column the compared metrics before and after, means over the windows."""
    return {
        column: (
            mean_scores([_scores(window.actual[:, column], window.before[:, column]) for window in windows]),
            mean_scores([_scores(window.actual[:, column], window.after[:, column]) for window in windows]),
        )
        for column in columns
    }


def _scores(actual: FloatArray, predicted: FloatArray) -> Scores:
    scores = metrics.score_spend(actual, predicted)
    return {metric: scores[metric] for metric in COMPARED}


def drawn_gains(
    windows: Sequence[Compared],
    columns: Mapping[str, int],
    groups: Mapping[str, Sequence[str]],
    draws: int = BOOTSTRAPS,
    seed: int = SEED,
) -> dict[str, dict[str, float]]:
    """SD of each group's gain by metric when customers are drawn anew, each with all of his windows.

    columns: name -> position; groups: name -> the columns whose metrics are averaged.
    """
    customers = np.unique(np.concatenate([window.customer_ids for window in windows]))
    positions = [np.searchsorted(customers, window.customer_ids) for window in windows]
    random = np.random.default_rng(seed)
    found: dict[str, dict[str, list[float]]] = {group: {metric: [] for metric in COMPARED} for group in groups}
    for _ in range(draws):
        times = np.bincount(random.integers(0, len(customers), len(customers)), minlength=len(customers))
        drawn = [
            window.drawn(np.repeat(np.arange(len(where)), times[where]))
            for window, where in zip(windows, positions, strict=True)
        ]
        told = compare_columns(drawn, list(columns.values()))
        for group, names in groups.items():
            before, after = (mean_scores([told[columns[name]][when] for name in names]) for when in (0, 1))
            for metric, value in gains_of(before, after).items():
                found[group][metric].append(value)
    return {
        group: {metric: float(np.std(values, ddof=1)) for metric, values in of.items() if len(values) > 1}
        for group, of in found.items()
    }


def gains_of(before: Scores, after: Scores) -> dict[str, float]:
    """The gain of every metric that is defined on both sides."""
    found = {metric: gain(metric, before[metric], after[metric]) for metric in before}
    return {metric: value for metric, value in found.items() if value is not None}


def gain(metric: str, before: float | None, after: float | None) -> float | None:
    """How much better `after` is, as a share of `before`; negative: worse. None where one of them is not defined.

    Of bias: how far it moved, as a gain when it came nearer to 1.
    """
    if before is None or after is None or before == 0:
        return None
    change = (after - before) / abs(before)
    if metric == "bias":
        return abs(change) if abs(after - 1) <= abs(before - 1) else -abs(change)
    return -change if metric in LOWER_IS_BETTER else change
