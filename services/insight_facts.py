"""The facts that an insight may state: no number is in a text that is not here, and nobody's name ever is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_pipeline.customer_flags import CATEGORY_LOYAL, CROSS_SELL, FLAGS
from ml_pipeline.schema import HORIZON_DAYS
from ml_pipeline.snapshot import SEGMENTS
from ml_pipeline.wording import plain
from services.archetypes import HIGH, NO_PURCHASE_YET, OFTEN, Described

WHOLE_FROM = 100
"""Units of the currency from which on a text has no hundredths: predictions are not that precise."""
MOST_CATEGORIES = 10
"""Of a shop with many, those with the most predicted money."""


def amount(value: float, currency: str) -> str:
    """`345 INR`, `49.30 INR`: whole units from WHOLE_FROM on."""
    if abs(value) < 0.005:
        return f"0 {currency}"
    return f"{value:,.0f} {currency}" if abs(value) >= WHOLE_FROM else f"{value:,.2f} {currency}"


@dataclass(frozen=True)
class CustomerFacts:
    """What is known and predicted of one customer. predicted, lower, upper: money in the currency.

    usual_gap: whole days between purchases of customers with about as many, None where nobody has two; away_after: whole
    days without a purchase after which one counts as away. spent_more, bought_more: than HIGH and OFTEN percent of the
    shop's customers.
    """

    archetype: str
    segment: str
    customer: Described
    predicted: float
    lower: float
    upper: float
    probability: float
    usual_gap: int | None
    away_after: int
    spent_more: bool
    bought_more: bool
    extrapolated: bool
    currency: str

    def money(self, value: float) -> str:
        """An amount as texts have it."""
        return amount(value, self.currency)

    def as_json(self) -> dict[str, Any]:
        """By the names that a language model may be told (insight_question.py); None where there is no such fact."""
        bought = self.archetype != NO_PURCHASE_YET
        return {
            "archetype": plain(self.archetype),
            "customer_segment": self.segment,
            "currency": self.currency,
            "horizon_days": HORIZON_DAYS,
            "total_spend": round(self.customer.total_spend, 2),
            "avg_spend": round(self.customer.average_spend, 2) if bought else None,
            "num_transactions": self.customer.transactions,
            "total_units": self.customer.units,
            "unique_products": self.customer.products,
            "recency_days": self.customer.days_since_last if bought else None,
            "usual_days_between_purchases": self.usual_gap,
            "days_until_away": self.away_after,
            "spent_more_than_share_of_customers": HIGH / 100 if self.spent_more else None,
            "bought_more_often_than_share_of_customers": OFTEN / 100 if self.bought_more else None,
            "predicted_future_spend_30d": self.predicted,
            "predicted_spend_lower": self.lower,
            "predicted_spend_upper": self.upper,
            "purchase_probability_30d": self.probability,
        }


@dataclass(frozen=True)
class Part:
    """Some of a group: how many, and their predicted money."""

    customers: int
    spend: float


@dataclass(frozen=True)
class GroupFacts:
    """What is predicted of a group of customers together. predicted, lower, upper, average: money in the currency.

    buyers: how many are expected to buy at all. targets: name -> predicted money, other included. offer: the category that
    most customers with the flag `cross_sell` could be offered, and loyal_to likewise; None without any.
    """

    customers: int
    currency: str
    as_of: str
    predicted: float
    lower: float
    upper: float
    average: float
    buyers: float
    targets: Mapping[str, float]
    segments: Mapping[str, Part]
    flags: Mapping[str, Part]
    offer: str | None
    loyal_to: str | None

    @classmethod
    def from_statistics(cls, found: Mapping[str, Any]) -> "GroupFacts":
        """Of what `file_statistics.statistics_of` says; at least one customer."""
        segments, flags = found["per_segment"], found["flags"]
        return cls(
            customers=int(found["distinct_customers"]),
            currency=found["currency"],
            as_of=found["as_of"],
            predicted=float(found["total_predicted_spend"]),
            lower=float(found["total_predicted_spend_lower"]),
            upper=float(found["total_predicted_spend_upper"]),
            average=float(found["average_predicted_spend"]),
            buyers=float(found["expected_buyers"]),
            targets={name: float(one["predicted_spend"]) for name, one in found["per_target"].items()},
            segments={name: _part(segments[name]) for name in SEGMENTS},
            flags={name: _part(flags[name]) for name in FLAGS},
            offer=_most(flags[CROSS_SELL]["customers_per_target"]),
            loyal_to=_most(flags[CATEGORY_LOYAL]["customers_per_target"]),
        )

    @property
    def mean_probability(self) -> float:
        """Of buying at all in the horizon, four decimals."""
        return round(min(1.0, self.buyers / self.customers), 4)

    def money(self, value: float) -> str:
        """An amount as texts have it."""
        return amount(value, self.currency)

    def as_json(self) -> dict[str, Any]:
        """By the names that a language model may be told (insight_question.py); None where there is no such fact."""
        largest = sorted(self.targets, key=lambda name: -self.targets[name])[:MOST_CATEGORIES]
        return {
            "currency": self.currency,
            "as_of": self.as_of,
            "horizon_days": HORIZON_DAYS,
            "customers": self.customers,
            "predicted_total_spend_30d": self.predicted,
            "predicted_spend_lower": self.lower,
            "predicted_spend_upper": self.upper,
            "average_predicted_spend_30d": self.average,
            "expected_buyers_30d": self.buyers,
            "average_purchase_probability_30d": self.mean_probability,
            "predicted_spend_by_category": {plain(name): self.targets[name] for name in largest},
            "customers_by_segment": {name: one.customers for name, one in self.segments.items()},
            "predicted_spend_by_segment": {name: one.spend for name, one in self.segments.items()},
            "customers_by_flag": {plain(name): one.customers for name, one in self.flags.items()},
            "category_to_offer": None if self.offer is None else plain(self.offer),
            "category_of_most_loyal": None if self.loyal_to is None else plain(self.loyal_to),
        }


def _part(one: Mapping[str, Any]) -> Part:
    return Part(int(one["customers"]), float(one["predicted_spend"]))


def _most(counts: Mapping[str, int]) -> str | None:
    """The name with the highest count above 0, the first of equals."""
    name = max(counts, key=lambda each: counts[each], default=None)
    return name if name is not None and counts[name] > 0 else None
