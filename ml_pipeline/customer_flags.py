"""Flags of customers that somebody acts on: what each means in one sentence, with its numbers, and who has it.

All numbers of a sentence are the very ones that decide: money in whole cents, shares in whole parts of a thousand,
probabilities in four decimals, as answers show them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import ImpossibleThreshold
from ml_pipeline.features import DAYS_FIRST_TO_LAST, DAYS_SINCE_LAST, TOTAL_PURCHASE_DAYS
from ml_pipeline.schema import AMOUNT_LIMIT, HORIZON_DAYS
from ml_pipeline.snapshot import CENTS, SEGMENTS, Snapshot

HIGH_VALUE = "high_value"
MULTI_CATEGORY_VIP = "multi_category_vip"
CATEGORY_LOYAL = "category_loyal"
CROSS_SELL = "cross_sell"
AT_RISK = "at_risk"
FLAGS = (HIGH_VALUE, MULTI_CATEGORY_VIP, CATEGORY_LOYAL, CROSS_SELL, AT_RISK)

LIKELY = 0.5
"""Of buying at all in the horizon: from here on likely, below it unlikely."""
LOYAL_PERCENT = 70
MOST_PERCENT = 20
"""So much of the total makes a category count for `multi_category_vip`; an equal share where that is less."""
LITTLE = 5
"""Less than 1/5 of a category's usual share is little."""
LEAST_USUAL_PERCENT = 5
"""Categories with a lower usual share are not offered."""
FEWEST_PURCHASE_DAYS = 3
"""Two gaps between purchases are the fewest that make a habit."""
OVERDUE_GAPS = 2

ROWS_PER_SLICE = 50_000
"""Customers are gone through in slices: no copy of all their features is ever made."""
PER_MILLE = 1000
NOWHERE = -1

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FlagRules:
    """The numbers that decide, of one bundle and snapshot.

    high_value_over: cents. usual_shares: thousandths of all spend per category, in the order of `targets`.
    habit: where the three features of `AT_RISK` are: days since the last purchase, days with one, first to last.
    """

    targets: tuple[str, ...]
    currency: str
    as_of: str
    high_value_over: int
    learned_quantile: float | None
    usual_shares: tuple[int, ...]
    habit: tuple[int, int, int]

    @property
    def vip_categories(self) -> int:
        """A third of the categories, at least two."""
        return max(2, math.ceil(len(self.targets) / 3))

    @property
    def vip_percent(self) -> int:
        """So much of the total, each; other counts as one more among equals."""
        return max(1, min(MOST_PERCENT, 100 // (len(self.targets) + 1)))

    @cached_property
    def offered(self) -> IntArray:
        """The categories that are offered at all, as places in `targets`."""
        least = LEAST_USUAL_PERCENT * PER_MILLE // 100
        return np.array([i for i, share in enumerate(self.usual_shares) if share >= least], dtype=np.int64)

    @property
    def definitions(self) -> dict[str, str]:
        """What each of FLAGS means."""
        return {
            HIGH_VALUE: self._high_value,
            MULTI_CATEGORY_VIP: self._multi_category_vip,
            CATEGORY_LOYAL: self._category_loyal,
            CROSS_SELL: self._cross_sell,
            AT_RISK: (
                f"Bought on {FEWEST_PURCHASE_DAYS} days or more, has been away for more than {OVERDUE_GAPS} times the "
                f"usual time between two of these days, and is unlikely to buy in the {HORIZON_DAYS} days from "
                f"{self.as_of} on (probability under {100 * LIKELY:g} %)."
            ),
        }

    @property
    def _threshold(self) -> str:
        return f"above {self.high_value_over / CENTS:,.2f} {self.currency}"

    @property
    def _high_value(self) -> str:
        origin = "the threshold that was asked for"
        if self.learned_quantile is not None:
            origin = (
                f"the threshold of the segment {SEGMENTS[-1]}, which {100 * self.learned_quantile:g} % of the "
                "predictions that it was learned from do not exceed"
            )
        return (
            f"Predicted to spend {self._threshold} in total in the {HORIZON_DAYS} days from {self.as_of} on: {origin}."
        )

    @property
    def _multi_category_vip(self) -> str:
        if len(self.targets) < self.vip_categories:
            return f"Nobody: it takes {self.vip_categories} named categories, and this shop has {len(self.targets)}."
        return (
            f"Predicted to spend {self._threshold} in total, and {self.vip_percent} % of it or more in each of at least "
            f"{self.vip_categories} of the {len(self.targets)} named categories."
        )

    @property
    def _category_loyal(self) -> str:
        if not self.targets:
            return "Nobody: it takes a named category, and this shop has 0."
        return (
            f"More than {LOYAL_PERCENT} % of the predicted total is in one named category; what is in no named category "
            "(other) does not count as one."
        )

    @property
    def _cross_sell(self) -> str:
        if not len(self.offered):
            return (
                f"Nobody: it takes a named category with {LEAST_USUAL_PERCENT} % or more of all spend, "
                "and this shop has 0."
            )
        little = ", ".join(f"{self.usual_shares[i] / 10 / LITTLE:g} % in {self.targets[i]}" for i in self.offered)
        return (
            f"Likely to buy in the {HORIZON_DAYS} days from {self.as_of} on (probability of {100 * LIKELY:g} % or more), "
            "but in at least one named category less is predicted than a fifth of its usual share: of the predicted "
            f"total under {little}. Usual is the share of all spend that was learned from; categories with less than "
            f"{LEAST_USUAL_PERCENT} % are not offered. The category to offer is the one that lacks most money."
        )


def flag_rules(snapshot: Snapshot, content: Mapping[str, Any], high_value_over: float | None = None) -> FlagRules:
    """What flags mean for the customers of a snapshot; content: the metadata of its bundle.

    high_value_over: money; the upper threshold of the bundle's segments where it is None. Raises ImpossibleThreshold.
    """
    learned = high_value_over is None
    names = list(content["features"])
    return FlagRules(
        targets=snapshot.targets,
        currency=snapshot.currency,
        as_of=snapshot.as_of.isoformat(),
        high_value_over=whole_cents(content["segments"]["thresholds"][-1])
        if high_value_over is None
        else whole_cents(checked_threshold(high_value_over)),
        learned_quantile=float(content["segments"]["quantiles"][-1]) if learned else None,
        usual_shares=tuple(round(share * PER_MILLE) for share in content["usual_shares"][: len(snapshot.targets)]),
        habit=(names.index(DAYS_SINCE_LAST), names.index(TOTAL_PURCHASE_DAYS), names.index(DAYS_FIRST_TO_LAST)),
    )


def checked_threshold(high_value_over: float) -> float:
    """The threshold as it is. Raises ImpossibleThreshold unless it is an amount of money, at most AMOUNT_LIMIT."""
    if not 0 <= high_value_over <= AMOUNT_LIMIT:  # so that NaN is none
        raise ImpossibleThreshold(
            f"high_value_over is {high_value_over}; it must be an amount of money from 0 to {AMOUNT_LIMIT:,}. Leave it "
            f"out for the threshold of the segment {SEGMENTS[-1]}."
        )
    return float(high_value_over)


def whole_cents(money: float) -> int:
    """The most cents that are not above the amount: who has more of them has more than the amount, and nobody else."""
    cents = math.floor(money * CENTS)
    while (cents + 1) / CENTS <= money:
        cents += 1
    while cents / CENTS > money:
        cents -= 1
    return cents


@dataclass(frozen=True)
class Flagged:
    """n customers. total: int64 (n,) cents. flags: bool (n, len(FLAGS)).

    loyal_to, offer: int64 (n,), places in the targets, NOWHERE without the flag `CATEGORY_LOYAL` or `CROSS_SELL`.
    """

    total: IntArray
    flags: BoolArray
    loyal_to: IntArray
    offer: IntArray

    def having(self, flag: str) -> BoolArray:
        """Who has one of FLAGS, (n,)."""
        return self.flags[:, FLAGS.index(flag)]


def flag_customers(snapshot: Snapshot, rules: FlagRules, rows: IntArray) -> Flagged:
    """The flags of the customers at these rows (n,) of a snapshot, in their order."""
    n = len(rows)
    flagged = Flagged(
        total=np.zeros(n, dtype=np.int64),
        flags=np.zeros((n, len(FLAGS)), dtype=bool),
        loyal_to=np.full(n, NOWHERE, dtype=np.int64),
        offer=np.full(n, NOWHERE, dtype=np.int64),
    )
    for part in slices(n):
        cents = cents_of(snapshot, rows[part])
        probability = np.round(snapshot.probability(rows[part]), 4)
        total, parts = cents[:, 0], cents[:, 1 : 1 + len(rules.targets)]
        high = total > rules.high_value_over
        flagged.total[part] = total
        flagged.loyal_to[part] = _loyal_to(total, parts)
        flagged.offer[part] = np.where(probability >= LIKELY, _most_lacking(rules, total, parts), NOWHERE)
        flagged.flags[part] = np.column_stack(
            [
                high,
                high & _in_many_categories(rules, total, parts),
                flagged.loyal_to[part] != NOWHERE,
                flagged.offer[part] != NOWHERE,
                _at_risk(snapshot, rules, rows[part], probability),
            ]
        )
    return flagged


def slices(n: int) -> Iterator[slice]:
    """Of n customers."""
    return (slice(start, min(start + ROWS_PER_SLICE, n)) for start in range(0, n, ROWS_PER_SLICE))


def cents_of(snapshot: Snapshot, rows: IntArray) -> IntArray:
    """Predicted money in whole cents, int64 (n, 2 + targets)."""
    money, _variance = snapshot.money(rows)
    return np.rint(money * CENTS).astype(np.int64)


def _in_many_categories(rules: FlagRules, total: IntArray, parts: IntArray) -> BoolArray:
    enough = parts * 100 >= rules.vip_percent * total[:, None]
    found: BoolArray = enough.sum(axis=1) >= rules.vip_categories
    return found


def _loyal_to(total: IntArray, parts: IntArray) -> IntArray:
    """The category with more than LOYAL_PERCENT of the total, (n,); there can be no two."""
    if not parts.shape[1]:
        return np.full(len(total), NOWHERE, dtype=np.int64)
    largest = np.argmax(parts, axis=1)
    most = np.take_along_axis(parts, largest[:, None], axis=1)[:, 0]
    return np.where(most * 100 > LOYAL_PERCENT * total, largest, NOWHERE)


def _most_lacking(rules: FlagRules, total: IntArray, parts: IntArray) -> IntArray:
    """Of the categories with little in them the one that lacks most, the first of equals, (n,)."""
    offered = rules.offered
    if not len(offered):
        return np.full(len(total), NOWHERE, dtype=np.int64)
    usual = np.array(rules.usual_shares)[offered] * total[:, None]
    own = parts[:, offered] * PER_MILLE
    lacking = np.where(own * LITTLE < usual, usual - own, 0)
    return np.where(lacking.any(axis=1), offered[np.argmax(lacking, axis=1)], NOWHERE)


def _at_risk(snapshot: Snapshot, rules: FlagRules, rows: IntArray, probability: npt.NDArray[np.float64]) -> BoolArray:
    """Whoever has never bought has no features: NaN is no more than anything."""
    found = np.zeros(len(rows), dtype=bool)
    unlikely = np.flatnonzero(probability < LIKELY)
    away, purchase_days, first_to_last = snapshot.features(rows[unlikely])[:, rules.habit].astype(np.float64).T
    overdue = away * (purchase_days - 1) > OVERDUE_GAPS * first_to_last
    found[unlikely] = (purchase_days >= FEWEST_PURCHASE_DAYS) & overdue
    return found
