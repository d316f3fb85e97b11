"""Conformal intervals by level of prediction: how far past predictions of this size were from what came.

Split-conformal with a normalised score, conditioned on the level (Mondrian conformal prediction, Vovk 2012): on rows that
the model had not seen, 10 % of what came lies below and 10 % above the ends at every level of prediction. An end is a first
guess times a factor. The factor is the conformal quantile of (actual / first guess) among the rows whose predictions lie
nearest, in between a straight line over the logarithm of prediction.

The first guess is the prediction itself; where a probability of buying is known it is the quantile of a customer who spends
nothing with 1 − p and else an amount around prediction / p, spread as buyers' amounts of that size were spread. So of two
customers with the same prediction the one who hardly ever buys, but then a lot, gets the wider interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

COVERAGE = 0.8
TAIL = (1 - COVERAGE) / 2
ANCHORS = 20
"""At how many levels of prediction the ends are learned."""
NEAREST, FEWEST = 0.1, 150
"""The rows that a level learns from: a tenth of all, but not fewer than this where there are that many."""
FEWEST_BUYERS = 400
FLOOR = 0.01
"""Of the mean of what came: added to every prediction before a ratio is taken, so that a prediction of 0 has an interval."""
LARGEST_LOWER = 1.3
"""A lower end rises to this multiple of its first guess at most; most guesses are 0, and say nothing about a factor."""
BEYOND = 2.0
"""Times the highest ratio that was seen: the upper end where too few were seen to say what one in ten exceeds."""
LEAST_PROBABILITY = 1e-3
SHARES = np.array([0.005, *np.arange(0.01, 0.1, 0.01), *np.arange(0.1, 0.96, 0.05), 0.975, 0.99, 0.995])
"""The quantiles by which the spread of buyers' amounts is described."""


@dataclass(frozen=True)
class Amounts:
    """What buyers spent over what was expected of a buyer: quantiles (anchors, shares) at logarithms of the expectation."""

    middles: FloatArray
    quantiles: FloatArray

    def quantile(self, expected: FloatArray, share: FloatArray) -> FloatArray:
        """Money (n,) that this share of buyers stays below, who are expected to spend so much; bilinear in between."""
        level = np.interp(np.log(np.maximum(expected, 1e-300)), self.middles, np.arange(len(self.middles)))
        at = np.interp(share, SHARES, np.arange(len(SHARES)))
        row, column = np.floor(level).astype(int), np.floor(at).astype(int)
        above, right = np.minimum(row + 1, len(self.middles) - 1), np.minimum(column + 1, len(SHARES) - 1)
        down, across = level - row, at - column
        left = self.quantiles[row, column] * (1 - down) + self.quantiles[above, column] * down
        ratio = (
            left * (1 - across)
            + (self.quantiles[row, right] * (1 - down) + self.quantiles[above, right] * down) * across
        )
        return ratio * expected

    def mixture_quantile(self, predicted: FloatArray, probability: FloatArray, share: float) -> FloatArray:
        """The same of everyone, buyers and others (n,): 0 where 1 − probability is the share or more."""
        p = np.maximum(probability, LEAST_PROBABILITY)
        of_buyers = (share - (1 - p)) / p
        return np.where(of_buyers > 0, self.quantile(predicted / p, np.maximum(of_buyers, 0.0)), 0.0)


@dataclass(frozen=True)
class Intervals:
    """For one target. floor: money; middles: logarithms of prediction + floor; below, above: factors of the ends there.

    amounts: None where the first guess is the prediction itself.
    """

    floor: float
    middles: FloatArray
    below: FloatArray
    above: FloatArray
    amounts: Amounts | None = None

    def around(self, predicted: FloatArray, probability: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Lower and upper end (n,), (n,) of the 80 % interval: 0 ≤ lower ≤ predicted ≤ upper. Raises ValueError.

        probability (n,) of buying must be given where it was given to learn from.
        """
        at = np.log(predicted + self.floor)
        guess = _first_guess(self.amounts, self.floor, predicted, probability)
        lower, upper = (
            end * np.interp(at, self.middles, factor)
            for end, factor in zip(guess, (self.below, self.above), strict=True)
        )
        return np.clip(lower, 0.0, predicted), np.maximum(upper, predicted)

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        amounts = self.amounts
        return {
            "coverage": COVERAGE,
            "floor": self.floor,
            "middles": self.middles.tolist(),
            "below": self.below.tolist(),
            "above": self.above.tolist(),
            "amounts": {"middles": amounts.middles.tolist(), "quantiles": amounts.quantiles.tolist()}
            if amounts
            else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Intervals":
        """What `as_json` made."""
        amounts = content["amounts"]
        return cls(
            content["floor"],
            np.array(content["middles"], dtype=np.float64),
            np.array(content["below"], dtype=np.float64),
            np.array(content["above"], dtype=np.float64),
            Amounts(np.array(amounts["middles"]), np.array(amounts["quantiles"])) if amounts else None,
        )


def fit_intervals(actual: FloatArray, predicted: FloatArray, probability: FloatArray | None = None) -> Intervals:
    """Learns the ends from rows (n,) that the models did not see. Raises ValueError when there are none."""
    if not len(actual):
        raise ValueError("No rows to learn intervals from.")
    floor = ratio_floor(actual)
    amounts = None if probability is None else _fit_amounts(actual, predicted, probability)
    lower, upper = _first_guess(amounts, floor, predicted, probability)
    middles, below, above = [], [], []
    for rows in neighbourhoods(predicted, max(NEAREST, FEWEST / len(actual))):
        middles.append(float(np.log(predicted[rows].mean() + floor)))
        under = np.divide(actual[rows], lower[rows], out=np.full(len(rows), np.inf), where=lower[rows] > 0)
        below.append(min(conformal_quantile(under, TAIL, safe="lower"), LARGEST_LOWER))
        above.append(conformal_quantile(actual[rows] / upper[rows], 1 - TAIL, safe="higher"))
    return Intervals(floor, np.array(middles), np.array(below), np.array(above), amounts)


def ratio_floor(actual: FloatArray) -> float:
    """What is added to predictions before a ratio is taken; money, above 0."""
    return FLOOR * float(actual.mean()) or 1e-9


def interval_ends(
    intervals: Mapping[str, Intervals], predicted: FloatArray, probability: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends (n, 1 + k) of total and parts, in order with predicted (n, 1 + k) and with each other.

    probability (n,) is looked at by those intervals alone that learned with one.
    """
    ends = [
        each.around(predicted[:, index], probability if each.amounts else None)
        for index, each in enumerate(intervals.values())
    ]
    lower, upper = (np.column_stack([end[side] for end in ends]) for side in (0, 1))
    return within_total(lower, upper, predicted)


def within_total(lower: FloatArray, upper: FloatArray, predicted: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Ends (n, 1 + k) that can be true together: no part lies above the total's upper end, or rises above its lower end.

    Columns are total and parts, as in `predicted` (n, 1 + k), whose parts add up to the total. A part is at most the total,
    so that its quantiles are at most the total's.
    """
    return (
        np.minimum(np.minimum(lower, lower[:, :1]), predicted),
        np.maximum(np.minimum(upper, upper[:, :1]), predicted),
    )


def neighbourhoods(predicted: FloatArray, share: float) -> list[npt.NDArray[np.int64]]:
    """The rows (positions) around each of the anchors in the order of prediction; no two are the same.

    share: of all rows that one holds. Equal predictions stay together: those that so many rows share are a level of their
    own (a rule says 0 of half the customers), and what lies between two such levels does not reach into them.
    """
    n = len(predicted)
    size = min(max(round(share * n), 1), n)
    order = np.argsort(predicted, kind="stable")
    _, starts, counts = np.unique(predicted[order], return_index=True, return_counts=True)
    shared = np.flatnonzero(counts >= size)
    edges = np.unique([0, *starts[shared], *(starts[shared] + counts[shared]), n])
    found = []
    for begin, end in pairwise(edges.tolist()):
        found += [order[begin + first : begin + last] for first, last in _windows(predicted[order[begin:end]], size, n)]
    return found


def _windows(ranked: FloatArray, size: int, n: int) -> list[tuple[int, int]]:
    """First and last position (exclusive) around each anchor of ascending predictions, a part of n."""
    here, size = len(ranked), min(size, len(ranked))
    anchors = max(round(ANCHORS * here / n), 1)
    begins = np.clip((here * (np.arange(anchors) + 0.5) / anchors - size / 2).astype(int), 0, here - size)
    first = np.searchsorted(ranked, ranked[begins], "left")
    last = np.searchsorted(ranked, ranked[begins + size - 1], "right")
    return list(dict.fromkeys(zip(first.tolist(), last.tolist(), strict=True)))


def level_edges(predicted: FloatArray) -> tuple[float, ...]:
    """Where the tenths of prediction begin, all but the first; fewer where many predictions are the same."""
    starts = np.sort(predicted)[(len(predicted) * np.arange(1, 10)) // 10]
    return tuple(float(start) for start in np.unique(starts) if start > predicted.min())


def conformal_quantile(scores: FloatArray, level: float, *, safe: str) -> float:
    """The quantile of scores (n,), all ≥ 0, whose rank is taken over n + 1 and rounded to the safe side: lower or higher.

    Fewer than nine scores have no tenth of them beyond an end: then it is 0, or BEYOND times the highest.
    """
    rank, ordered = level * (len(scores) + 1), np.sort(scores)
    if safe == "lower":
        return float(ordered[int(np.floor(rank + 1e-9)) - 1]) if rank + 1e-9 >= 1 else 0.0
    place = int(np.ceil(rank - 1e-9))
    return float(ordered[place - 1]) if place <= len(scores) else BEYOND * float(ordered[-1])


def _first_guess(
    amounts: Amounts | None, floor: float, predicted: FloatArray, probability: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Both ends (n,), (n,) before any factor, the lower at most and the upper at least the prediction and the floor."""
    itself = predicted + floor
    if amounts is None:
        return itself, itself
    if probability is None:
        raise ValueError("These intervals were learned with the probability of buying; give it.")
    lower, upper = (amounts.mixture_quantile(predicted, probability, share) for share in (TAIL, 1 - TAIL))
    return np.minimum(lower, itself), np.maximum(upper, itself)


def _fit_amounts(actual: FloatArray, predicted: FloatArray, probability: FloatArray) -> Amounts | None:
    """None where hardly anybody bought, or where nothing was expected of those who did."""
    bought = (actual > 0) & (predicted > 0)
    if bought.sum() < FEWEST:
        return None
    expected = predicted[bought] / np.maximum(probability[bought], LEAST_PROBABILITY)
    ratio = actual[bought] / expected
    groups = neighbourhoods(expected, max(NEAREST, FEWEST_BUYERS / len(expected)))
    return Amounts(
        np.array([np.log(expected[rows].mean()) for rows in groups]),
        np.array([np.quantile(ratio[rows], SHARES) for rows in groups]),
    )
