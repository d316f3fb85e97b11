"""Conformal intervals by level of prediction: how far past predictions of this size were from what came.

For each tenth of prediction the 10 % and 90 % quantiles of (actual − predicted) on rows that the model had not seen are
added to the prediction (split-conformal, conditioned on the level: Vovk 2012, Mondrian conformal prediction).
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COVERAGE = 0.8
LEVELS = 10


@dataclass(frozen=True)
class Intervals:
    """edges: where all levels but the first begin, (levels − 1,); below, above: what is added to the prediction, (levels,)."""

    edges: tuple[float, ...]
    below: tuple[float, ...]
    above: tuple[float, ...]

    def around(self, predicted: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lower and upper end (n,), (n,) of the 80 % interval: 0 ≤ lower ≤ predicted ≤ upper."""
        level = np.searchsorted(np.array(self.edges), predicted, side="right")
        lower = np.clip(predicted + np.array(self.below)[level], 0.0, predicted)
        upper = np.maximum(predicted + np.array(self.above)[level], predicted)
        return lower, upper

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return {
            "coverage": COVERAGE,
            "edges": list(self.edges),
            "below": list(self.below),
            "above": list(self.above),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Intervals":
        """What `as_json` made."""
        return cls(tuple(content["edges"]), tuple(content["below"]), tuple(content["above"]))


def fit_intervals(actual: FloatArray, predicted: FloatArray) -> Intervals:
    """Learns the ends from rows (n,) that the model did not see. Raises ValueError when there are none."""
    if not len(actual):
        raise ValueError("No rows to learn intervals from.")
    edges = level_edges(predicted)
    level = np.searchsorted(np.array(edges), predicted, side="right")
    tail = (1 - COVERAGE) / 2
    groups = [(actual[level == each], predicted[level == each]) for each in range(len(edges) + 1)]
    errors = [came - own for came, own in groups]
    return Intervals(
        edges=edges,
        below=tuple(_below(came, own, tail) for came, own in groups),
        above=tuple(_quantile(error, 1 - tail, lower=False) for error in errors),
    )


def _below(actual: FloatArray, predicted: FloatArray, tail: float) -> float:
    """What is added for the lower end; down to 0 where one number stands for many who spend nothing.

    A constant moves a little from window to window, and the many must not fall out of the interval for that.
    """
    if np.ptp(predicted) == 0 and _quantile(actual, tail, lower=True) <= 0:
        return -sys.float_info.max
    return _quantile(actual - predicted, tail, lower=True)


def level_edges(predicted: FloatArray) -> tuple[float, ...]:
    """Where the levels begin, all but the first: tenths of prediction, fewer where many predictions are the same."""
    starts = np.sort(predicted)[(len(predicted) * np.arange(1, LEVELS)) // LEVELS]
    return tuple(float(start) for start in np.unique(starts) if start > predicted.min())


def _quantile(errors: FloatArray, level: float, *, lower: bool) -> float:
    """The conformal quantile: the rank is taken over n + 1, on the safe side."""
    n = len(errors)
    shifted = (level * (n + 1) - 1) / max(n - 1, 1)
    return float(np.quantile(errors, min(max(shifted, 0.0), 1.0), method="lower" if lower else "higher"))
