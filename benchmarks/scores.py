"""One row's scores over the windows of a data set: per window, their mean, and their noise over customers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_pipeline import metrics

FloatArray = npt.NDArray[np.float64]
MONEY = ("capped_r2", "d2", "normalised_gini", "decile_mape", "bias", "mae", "rmse", "r2")
BUYING = ("auc", "brier")
NOISE = ("capped_r2", "d2", "normalised_gini")
BOOTSTRAPS = 100
SEED = 20_240_229


@dataclass(frozen=True)
class Answer:
    """Spend that was predicted for the customers of a window, (n,), and the probability of buying where there is one."""

    predicted: FloatArray
    probability: FloatArray | None = None


@dataclass(frozen=True)
class Outcome:
    """What the customers of a window spent, (n,), and who they are."""

    customer_ids: npt.NDArray[np.str_]
    actual: FloatArray


def score(actual: FloatArray, answer: Answer) -> dict[str, float | None]:
    """All metrics of one window; AUC and Brier are None without a probability."""
    scores = metrics.score_spend(actual, answer.predicted)
    buying = dict.fromkeys(BUYING)
    if answer.probability is not None:
        outcome = (actual > 0).astype(np.float64)
        buying = {"auc": metrics.auc(outcome, answer.probability), "brier": metrics.brier(outcome, answer.probability)}
    return {metric: scores[metric] for metric in MONEY} | buying


def mean_scores(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of every metric over windows (or targets); None when it is not defined in all of them."""
    means: dict[str, float | None] = {}
    for metric in rows[0]:
        values = [row[metric] for row in rows]
        known = [value for value in values if value is not None]
        means[metric] = float(np.mean(known)) if len(known) == len(values) else None
    return means


def bootstrap_sd(outcomes: Sequence[Outcome], answers: Sequence[Answer], seed: int = SEED) -> dict[str, float]:
    """SD of the mean over the windows of each metric in NOISE when customers are drawn anew, with replacement.

    A customer that is drawn twice counts twice in every window that he or she is in.
    """
    customers = np.unique(np.concatenate([outcome.customer_ids for outcome in outcomes]))
    positions = [np.searchsorted(customers, outcome.customer_ids) for outcome in outcomes]
    random = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {metric: [] for metric in NOISE}
    for _ in range(BOOTSTRAPS):
        times = np.bincount(random.integers(0, len(customers), len(customers)), minlength=len(customers))
        drawn = [
            _score_noise(outcome.actual, answer.predicted, times[where])
            for outcome, answer, where in zip(outcomes, answers, positions, strict=True)
        ]
        for metric, value in mean_scores(drawn).items():
            if value is not None:
                draws[metric].append(value)
    return {metric: float(np.std(values, ddof=1)) for metric, values in draws.items() if len(values) > 1}


def _score_noise(actual: FloatArray, predicted: FloatArray, times: npt.NDArray[np.int64]) -> dict[str, float | None]:
    rows = np.repeat(np.arange(len(actual)), times)
    drawn, told = actual[rows], predicted[rows]
    measures = {"capped_r2": metrics.capped_r2, "d2": metrics.d2, "normalised_gini": metrics.normalised_gini}
    return {metric: measures[metric](drawn, told) for metric in NOISE}
