"""What any set of customers will spend together: money to the exact cent, and an interval of the sum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.intervals import COVERAGE
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, Snapshot, ends_in_cents, money_columns
from ml_pipeline.sums import SumIntervals

Cents = dict[str, int]


@dataclass(frozen=True)
class SpendSum:
    """The sum over distinct customers. spend, lower, upper: cents by name (total, each target, other).

    The parts of `spend` add up to its total; 0 ≤ lower ≤ spend ≤ upper. No part's end lies above the total's, and no
    customer's above that of the sum.
    expected_buyers: how many will buy at all.
    """

    customers: int
    spend: Mapping[str, int]
    lower: Mapping[str, int]
    upper: Mapping[str, int]
    expected_buyers: float

    @property
    def money(self) -> dict[str, float]:
        """The spend by name, in units of the currency."""
        return {name: cents / CENTS for name, cents in self.spend.items()}

    @property
    def intervals(self) -> dict[str, dict[str, float]]:
        """Lower and upper end by name, in units of the currency."""
        return {name: {"lower": self.lower[name] / CENTS, "upper": self.upper[name] / CENTS} for name in self.spend}

    def as_json(self) -> dict[str, Any]:
        """As answers and files have it."""
        return {
            "customers": self.customers,
            "predicted_30d_spend": self.money,
            "intervals": self.intervals,
            "coverage": COVERAGE,
            "expected_buyers": round(self.expected_buyers, 2),
        }


def sum_spend(snapshot: Snapshot, learned: Mapping[str, Any], positions: npt.ArrayLike) -> SpendSum:
    """The sum over the customers at these rows of a snapshot, each counted once, in whatever order they come.

    learned: the bundle's `sums`. One customer's interval is his own; nobody's is 0 to 0.
    """
    wanted = np.zeros(snapshot.n_customers, dtype=bool)
    wanted[np.asarray(positions, dtype=np.int64)] = True
    rows = np.flatnonzero(wanted)
    names = money_columns(snapshot.targets)
    money, variance = snapshot.money(rows)
    spend = dict(zip(names, np.rint(money * CENTS).astype(np.int64).sum(axis=0).tolist(), strict=True))
    # what many spend together is no less than what each of them spends
    lower, upper = (dict(zip(names, own.max(axis=0, initial=0).tolist(), strict=True)) for own in snapshot.ends(rows))
    if len(rows) > 1:
        for index, name in enumerate(names):
            _, least, most = SumIntervals.from_json(learned[name]).around(money[:, index], variance[:, index])
            ends = ends_in_cents(least, most)
            lower[name], upper[name] = max(lower[name], int(ends[0])), max(upper[name], int(ends[1]))
        lower, upper = _in_order(lower, upper, spend)
    return SpendSum(len(rows), spend, lower, upper, float(snapshot.probability(rows).sum()))


def _in_order(lower: Cents, upper: Cents, spend: Cents) -> tuple[Cents, Cents]:
    """Ends that can be true together: no part's above the total's, the sum between both."""
    return (
        {name: min(end, lower[TOTAL_TARGET], spend[name]) for name, end in lower.items()},
        {name: max(min(end, upper[TOTAL_TARGET]), spend[name]) for name, end in upper.items()},
    )
