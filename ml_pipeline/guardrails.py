"""How far predictions may go: what was trained on, who lies outside of it, and the most that is ever answered.

Serving happens later than the last day that was trained on, so what counts days is a little further for the oldest
customers than it ever was in training, and the largest customer can be a little larger. A feature therefore counts as
outside only when it is beyond the trained range by more than a tenth of the range's width; one that counts days by more
than a tenth or a month, whichever is larger. Downwards money has no such leave: where a few spend a hundred times what most
do, a tenth of the width is more than what most spend, and nobody would ever lie below. So money that was never 0 in training
counts as outside below the least of it. A value that is missing where none was in training counts too; a feature
that was always missing, or that models must not learn from, never does. The calendar of the target window needs no rule
of its own: a training that uses it has looked at a whole year.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.features import feature_set

Matrix = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SLACK = 0.1  # of the width of the trained range
SLACK_DAYS = 31.0  # what counts days goes on between the last day that was trained on and the day that is served
MOST_NAMED = 3


def trained_ranges(features: Matrix, names: Sequence[str]) -> dict[str, Any]:
    """For a bundle's metadata: of each feature (n, F) the lowest and highest value, and whether any was missing.

    features: as models learn from them, those that they must not learn from blanked. None where all were missing.
    """
    return {
        name: None if np.isnan(column).all() else _range_of(column)
        for name, column in zip(names, features.T, strict=True)
    }


def _range_of(column: Matrix) -> dict[str, Any]:
    missing = bool(np.isnan(column).any())
    return {"low": float(np.nanmin(column)), "high": float(np.nanmax(column)), "missing": missing}


@dataclass(frozen=True)
class TrainedRanges:
    """What was trained on, per feature, in the order of `names`: low and high (F,), NaN where there is no range;
    slack (F,), how far beyond the high end still counts as inside; least (F,), the lowest value that does; missing (F,),
    whether any value was missing."""

    names: tuple[str, ...]
    low: FloatArray
    high: FloatArray
    slack: FloatArray
    least: FloatArray
    missing: BoolArray

    @classmethod
    def from_json(cls, content: Mapping[str, Any], names: Sequence[str], targets: Sequence[str]) -> "TrainedRanges":
        """What `trained_ranges` made, of the features of a shop with these targets."""
        never = {"low": np.nan, "high": np.nan, "missing": True}
        ranges = [content[name] or never for name in names]
        low, high = (np.array([one[end] for one in ranges], dtype=np.float64) for end in ("low", "high"))
        units = _units(tuple(targets))
        in_days, is_money = (np.array([units.get(name) == unit for name in names]) for unit in ("days", "money"))
        slack = np.maximum(SLACK * (high - low), np.where(in_days, SLACK_DAYS, 0.0))
        least = np.where(is_money & (low > 0), low, low - slack)
        missing = np.array([one["missing"] for one in ranges], dtype=bool)
        return cls(tuple(names), low, high, slack, least, missing)

    def outside(self, features: Matrix) -> BoolArray:
        """Whether any feature of a customer (n, F) lies outside of what was trained on, (n,)."""
        found = np.zeros(len(features), dtype=bool)
        for index in range(len(self.names)):  # column by column: a million customers need no second matrix
            found |= self._outside(features[:, index], index)
        return found

    def farthest(self, customer: Matrix, most: int = MOST_NAMED) -> list[dict[str, Any]]:
        """Which features of one customer (F,) lie outside, the farthest first, at most `most`.

        `feature`, `value` (None: missing), `trained` (lowest and highest value); how far is measured in slacks.
        """
        found = [index for index in range(len(self.names)) if self._outside(customer[index : index + 1], index)[0]]
        far = sorted(found, key=lambda index: -self._distance(float(customer[index]), index))
        return [
            {
                "feature": self.names[index],
                "value": None if np.isnan(customer[index]) else _short(float(customer[index])),
                "trained": [_short(self.low[index]), _short(self.high[index])],
            }
            for index in far[:most]
        ]

    def _outside(self, values: Matrix, index: int) -> BoolArray:
        """(n,); comparisons with NaN are False, be it a missing value or a range that there is not."""
        beyond = (values < self.least[index]) | (values > self.high[index] + self.slack[index])
        return beyond if self.missing[index] else beyond | np.isnan(values)

    def _distance(self, value: float, index: int) -> float:
        """How far beyond the nearer end; without end where nothing else was ever seen, and where the value is missing."""
        beyond = max(self.low[index] - value, value - self.high[index])
        return beyond / self.slack[index] if self.slack[index] > 0 and not np.isnan(value) else np.inf


@cache
def _units(targets: tuple[str, ...]) -> Mapping[str, str]:
    return {feature.name: feature.unit for feature in feature_set(targets)}


def _short(number: float) -> float:
    """Six digits: features are float32, whose further ones mean nothing."""
    return float(f"{number:.6g}")


def reached_cap(predicted: FloatArray, caps: FloatArray) -> BoolArray:
    """Whether any of a customer's predictions (n, k) was cut at its cap (k,), (n,).

    A cap of 0 cuts nobody's: it belongs to a target that nobody has ever bought.
    """
    return np.any((predicted >= caps) & (caps > 0), axis=1)


def within_cap(agreed: FloatArray, cap: float) -> FloatArray:
    """Total and its parts (n, 1 + k) with no total above the cap, nor a part above its total; parts keep their shares.

    Parts that are each below their own caps can add up to more than the total's.
    """
    total = agreed[:, :1]
    return agreed * np.where(total > cap, cap / np.where(total > cap, total, 1.0), 1.0)
