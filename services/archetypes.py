"""What kind of customer six numbers describe, beside the shop's own customers: rules that anyone can check.

Every customer is of one kind, the first of these that fits:

- no_purchase_yet.
- low_value_inactive, at_risk: away for longer than customers with about as many purchases usually stay away, twice over
  (at least 30, at most 180 days). At risk is whom it would be a pity to lose: who spent more than half of the shop's
  customers, or bought more often than 60 % of them.
- new: one or two purchases, the last within 30 days.
- high_value_active: spent more than 80 % of the shop's customers.
- habitual: bought more often than 60 % of them, at no more than the median of their average purchases.
- steady: everyone else.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_pipeline.schema import HORIZON_DAYS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ml_pipeline.snapshot import Snapshot

HIGH_VALUE_ACTIVE = "high_value_active"
AT_RISK = "at_risk"
NEW = "new"
HABITUAL = "habitual"
LOW_VALUE_INACTIVE = "low_value_inactive"
NO_PURCHASE_YET = "no_purchase_yet"
STEADY = "steady"
ARCHETYPES = (HIGH_VALUE_ACTIVE, AT_RISK, NEW, HABITUAL, LOW_VALUE_INACTIVE, NO_PURCHASE_YET, STEADY)

HALF, OFTEN, HIGH = 50, 60, 80
"""Percent of the shop's customers who have bought."""
UNUSUAL = 1
"""Percent of them on either side of what is not unusual."""
FEW_PURCHASES = 2
OVERDUE_GAPS = 2
SHORTEST_AWAY, LONGEST_AWAY = HORIZON_DAYS, 180
"""Days: nobody is away before, everybody is afterwards."""

BANDS = (2, 4, 8, 16, 32, 64)
"""Customers with up to so many purchases are alike in how often they buy; those with more are alike too."""
FEWEST_ALIKE = 20
"""Fewer are no measure of what is usual: then it is the median of all."""
MOST_LOOKED_AT = 50_000
"""Of a larger shop every k-th customer in the order of their ids."""


@dataclass(frozen=True)
class Described:
    """A customer as the request describes one; money in the shop's currency.

    Of one without a purchase all is 0 and the days since the last one are infinite.
    """

    total_spend: float
    average_spend: float
    transactions: float
    units: float
    products: float
    days_since_last: float

    @classmethod
    def from_inputs(cls, inputs: Mapping[str, float | str]) -> "Described":
        """Of the inputs of the summary model, by their names there; absent where there is no purchase."""

        def known(name: str, otherwise: float = 0.0) -> float:
            return float(inputs.get(name, otherwise))

        return cls(
            total_spend=known("total_spend"),
            average_spend=known("avg_transaction_value"),
            transactions=known("transactions"),
            units=known("total_items"),
            products=known("distinct_products"),
            days_since_last=known("days_since_last", math.inf),
        )


@dataclass(frozen=True)
class Population:
    """What is usual among the shop's customers who have bought; NaN, and no gaps, where nobody has.

    half_spend, high_spend: what HALF and HIGH percent of them spent at most. often: how many purchases OFTEN percent made at
    most. usual_value: the median of their average purchases; least_value, most_value: less and more than that is UNUSUAL.
    gaps: whole days between purchases per band, one more than BANDS; None where nobody has bought twice.
    """

    half_spend: float
    high_spend: float
    often: float
    usual_value: float
    least_value: float
    most_value: float
    gaps: tuple[int, ...] | None

    def usual_gap(self, transactions: float) -> int | None:
        """Days between purchases, the median of customers with about as many; of at least two."""
        if self.gaps is None:
            return None
        return self.gaps[sum(transactions > most for most in BANDS)]

    def away_after(self, transactions: float) -> int:
        """Days without a purchase after which a customer counts as away."""
        gap = self.usual_gap(transactions) or 0
        return min(max(OVERDUE_GAPS * gap, SHORTEST_AWAY), LONGEST_AWAY)

    def archetype(self, customer: Described) -> str:
        """One of ARCHETYPES."""
        if not customer.transactions:
            return NO_PURCHASE_YET
        bought_often = customer.transactions > self.often
        if customer.days_since_last > self.away_after(customer.transactions):
            return AT_RISK if customer.total_spend > self.half_spend or bought_often else LOW_VALUE_INACTIVE
        if customer.transactions <= FEW_PURCHASES and customer.days_since_last <= HORIZON_DAYS:
            return NEW
        if customer.total_spend > self.high_spend:
            return HIGH_VALUE_ACTIVE
        if bought_often and customer.average_spend <= self.usual_value:
            return HABITUAL
        return STEADY


NOBODY = Population(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, None)


def population_of(snapshot: "Snapshot", features: tuple[str, ...]) -> Population:
    """What is usual among the customers of a snapshot whose columns are `features`; the same bits for the same snapshot."""
    import numpy as np

    from ml_pipeline.summary_columns import COLUMN_OF_INPUT

    names = ("total_spend", "avg_transaction_value", "transactions", "avg_days_between")
    columns = [features.index(COLUMN_OF_INPUT[name]) for name in names]
    rows = np.arange(0, snapshot.n_customers, max(1, math.ceil(snapshot.n_customers / MOST_LOOKED_AT)))
    known = snapshot.features(rows)[:, columns].astype(np.float64)
    bought = known[~np.isnan(known[:, 0])]
    if not len(bought):
        return NOBODY
    spend, value, transactions, gap = bought.T
    half_spend, high_spend = np.percentile(spend, (HALF, HIGH))
    least_value, usual_value, most_value = np.percentile(value, (UNUSUAL, HALF, 100 - UNUSUAL))
    return Population(
        half_spend=float(half_spend),
        high_spend=float(high_spend),
        often=float(np.percentile(transactions, OFTEN)),
        usual_value=float(usual_value),
        least_value=float(least_value),
        most_value=float(most_value),
        gaps=_usual_gaps(transactions, gap),
    )


def _usual_gaps(transactions: "npt.NDArray[np.float64]", gap: "npt.NDArray[np.float64]") -> tuple[int, ...] | None:
    """Whole days, at least one, per band."""
    import numpy as np

    several = ~np.isnan(gap)
    if not several.any():
        return None
    of_all = float(np.median(gap[several]))
    ends = (0, *BANDS, math.inf)
    usual = []
    for over, most in itertools.pairwise(ends):
        alike = gap[several & (transactions > over) & (transactions <= most)]
        usual.append(float(np.median(alike)) if len(alike) >= FEWEST_ALIKE else of_all)
    return tuple(max(1, round(days)) for days in usual)
