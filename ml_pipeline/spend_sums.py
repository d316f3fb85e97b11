"""What any set of customers will spend together: money to the exact cent, and an interval of the sum."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.intervals import COVERAGE
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, Snapshot, money_columns
from ml_pipeline.sums import SumIntervals


@dataclass(frozen=True)
class SpendSum:
    """The sum over distinct customers. spend, lower, upper: cents by name (total, each target, other).

    The parts of `spend` add up to its total; 0 ≤ lower ≤ spend ≤ upper, and no part's end lies above the total's.
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
    if len(rows) == 1:
        lower, upper = _own_ends(snapshot, rows, names)
    else:
        ends = [_ends(learned[name], money[:, index], variance[:, index]) for index, name in enumerate(names)]
        lower, upper = ({name: both[side] for name, both in zip(names, ends, strict=True)} for side in (0, 1))
        lower = {name: min(end, lower[TOTAL_TARGET], spend[name]) for name, end in lower.items()}
        upper = {name: max(min(end, upper[TOTAL_TARGET]), spend[name]) for name, end in upper.items()}
    return SpendSum(len(rows), spend, lower, upper, float(snapshot.probability(rows).sum()))


def _own_ends(snapshot: Snapshot, row: npt.NDArray[np.int64], names: tuple[str, ...]) -> list[dict[str, int]]:
    """The ends of one customer's own intervals, as his answer has them, in cents."""
    columns = snapshot.columns(row)
    return [
        {name: int(np.rint(columns[f"predicted_{name}_spend_{end}"][0] * CENTS)) for name in names}
        for end in ("lower", "upper")
    ]


def _ends(
    learned: Mapping[str, Any], money: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]
) -> tuple[int, int]:
    """Both ends of one column's sum in cents, rounded outwards."""
    if not len(money):
        return 0, 0
    _point, lower, upper = SumIntervals.from_json(learned).around(money, variance)
    return int(np.floor(lower * CENTS + 1e-6)), int(np.ceil(upper * CENTS - 1e-6))
