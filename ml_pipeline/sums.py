"""Intervals for the sum over any set of customers, whose errors move together.

The error of a sum has two parts. Each customer's own error: these variances add up, so that their share of the sum shrinks
with the number of customers. And what all share (a good month, a price that rose): its size is a share of the sum and does
not go away when more customers are added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaincinv, ndtri, stdtrit

from ml_pipeline.intervals import FEWEST, NEAREST, TAIL, neighbourhoods, ratio_floor

FloatArray = npt.NDArray[np.float64]

USUAL_COMMON, USUAL_WEIGHT = 0.05, 2
"""What all share, as a share of the sum, before any window is seen; it counts as much as so many windows."""
LEAST_COMMON = 0.02
MANY_DEGREES = 1e6
WIDEST_SHAPE = 0.2
"""Of the gamma: the 90 % quantile is highest there, 3 times the mean. With more variance it falls towards 0, but who knows
less must not promise more."""


@dataclass(frozen=True)
class SumIntervals:
    """For one target. floor: money; middles: logarithms of prediction + floor; relative: variance over its square, there.

    common: standard deviation of what all customers share, as a share of the sum; it is known from so many windows, the
    usual one counted with them.
    """

    floor: float
    middles: FloatArray
    relative: FloatArray
    common: float
    windows: int

    def variance(self, predicted: FloatArray) -> FloatArray:
        """Of each customer's own error, money squared (n,)."""
        return np.interp(np.log(predicted + self.floor), self.middles, self.relative) * np.square(
            predicted + self.floor
        )

    def around(self, predicted: FloatArray, variance: FloatArray) -> tuple[float, float, float]:
        """Point, lower and upper end of the sum over customers of whom (n,) is predicted; money; 0 ≤ lower ≤ point ≤ upper.

        variance (n,): of each one's own error, as `variance` gives it. The sum is taken as normal downwards, where it ends
        at 0, and as a gamma of the same mean and variance upwards: a few large purchases make sums of few customers skewed.
        """
        point = float(predicted.sum())
        spread = self._spread(float(variance.sum()), (self.common * point) ** 2)
        if point <= 0 or spread <= 0:
            return point, point, point + float(ndtri(1 - TAIL)) * float(np.sqrt(spread))
        lower = point + float(ndtri(TAIL)) * float(np.sqrt(spread))
        shape = max(point**2 / spread, WIDEST_SHAPE)
        upper = float(gammaincinv(shape, 1 - TAIL) * (point / shape))
        return point, max(lower, 0.0), max(upper, point)

    def _spread(self, own: float, common: float) -> float:
        """The variance of a sum, and more where it is known from few windows: by as much as Student's t is wider there.

        The degrees of freedom are those of Satterthwaite (1946); the customers' own part is known well.
        """
        if common <= 0:
            return own
        degrees = min(self.windows * ((own + common) / common) ** 2, MANY_DEGREES)
        wider = float(stdtrit(degrees, 1 - TAIL) / ndtri(1 - TAIL))
        return (own + common) * wider**2

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return {
            "floor": self.floor,
            "middles": self.middles.tolist(),
            "relative": self.relative.tolist(),
            "common": self.common,
            "windows": self.windows,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SumIntervals":
        """What `as_json` made."""
        return cls(
            content["floor"],
            np.array(content["middles"], dtype=np.float64),
            np.array(content["relative"], dtype=np.float64),
            content["common"],
            content["windows"],
        )


def fit_sums(windows: Sequence[tuple[FloatArray, FloatArray]]) -> SumIntervals:
    """Learns from (actual, predicted) of windows that the models did not see, (n,) each. Raises ValueError without rows.

    common: the mean square of the windows' errors of the sum over all customers, less what the customers' own errors make
    of it, pulled to the usual one as much as the windows are few.
    """
    actual, predicted = (np.concatenate([window[side] for window in windows]) for side in (0, 1))
    if not len(actual):
        raise ValueError("No rows to learn intervals from.")
    floor = ratio_floor(actual)
    middles, relative = [], []
    for rows in neighbourhoods(predicted, max(NEAREST, FEWEST / len(actual))):
        middles.append(float(np.log(predicted[rows].mean() + floor)))
        # a ratio of sums: a mean of ratios is ruled by whoever was expected to spend next to nothing
        squares = np.square(actual[rows] - predicted[rows]).sum() / np.square(predicted[rows] + floor).sum()
        relative.append(float(squares))
    own = SumIntervals(floor, np.array(middles), np.array(relative), 0.0, 0)
    shared = [_shared(came, told, own) for came, told in windows if told.sum() > 0]
    counted = USUAL_WEIGHT + len(shared)
    common = (USUAL_WEIGHT * USUAL_COMMON**2 + sum(shared)) / counted
    return SumIntervals(floor, own.middles, own.relative, max(float(np.sqrt(common)), LEAST_COMMON), counted)


def _shared(actual: FloatArray, predicted: FloatArray, own: SumIntervals) -> float:
    """The square of a window's relative error, less what the customers' own errors explain; at least 0."""
    total = float(predicted.sum())
    return max((float(actual.sum()) / total - 1) ** 2 - float(own.variance(predicted).sum()) / total**2, 0.0)
