"""Whether parts and whole agree, and what making them agree has cost: each metric before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.goals import LOWER_IS_BETTER
from benchmarks.public_data import FloatArray
from benchmarks.scores import mean_scores
from ml_pipeline import metrics
from ml_pipeline.snapshot import CENTS

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


def scores_of(windows: Sequence[tuple[FloatArray, FloatArray]], column: int) -> Scores:
    """The compared metrics of one column, means over windows of (actual, predicted), (n, columns) each."""
    return mean_scores([_compared(actual[:, column], predicted[:, column]) for actual, predicted in windows])


def _compared(actual: FloatArray, predicted: FloatArray) -> Scores:
    scores = metrics.score_spend(actual, predicted)
    return {metric: scores[metric] for metric in COMPARED}


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
