"""Intervals for the sum over any set of customers, whose errors move together.

The error of a sum has two parts: each customer's own, whose variances add up, and what all share (a good month, a price
that rose), whose size is a share of the sum and does not go away when more customers are added.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SumIntervals:
    """For one target. own: factor on the sum of the customers' variances; common: standard deviation of what all share, as
    a share of the sum; below, above: how many standard deviations each end of the 80 % interval is away."""

    own: float
    common: float
    below: float
    above: float

    def around(self, predicted: FloatArray, variance: FloatArray) -> tuple[float, float, float]:
        """Point, lower and upper end of the sum over customers of whom (n,) is predicted; money; 0 ≤ lower ≤ point ≤ upper.

        variance (n,): of each customer's own error, as a snapshot has it.
        """
        point = float(predicted.sum())
        deviation = float(np.sqrt(self.own * float(variance.sum()) + (self.common * point) ** 2))
        return point, max(point - self.below * deviation, 0.0), point + self.above * deviation

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SumIntervals":
        """What `as_json` made."""
        return cls(**{name: float(content[name]) for name in cls.__annotations__})
