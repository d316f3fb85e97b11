"""The features of one target: what a customer bought of it so far."""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from ml_pipeline.feature_definitions import Feature, decayed_rate, floored, ratio
from ml_pipeline.schema import AMOUNT_SCALE
from ml_pipeline.totals import DecayedTotal, Total, WindowTotal, of_target
from ml_pipeline.windows import Decay, Window


@dataclass(frozen=True)
class TargetWindowSpend(Feature):
    """Spend in {target} on days as_of-{window.oldest} .. as_of-{window.newest}; net spend below 0 counts as 0."""

    target: str
    window: Window
    unit = "money"

    @property
    def name(self) -> str:
        return f"spend_{self.window.label}_{self.target}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return (WindowTotal("amount", self.window, self.target),)

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row[self.recent_totals[0].column]), ibis.literal(AMOUNT_SCALE))


@dataclass(frozen=True)
class TargetEwSpendRate(Feature):
    """Spend in {target} per 30 days, weighted and over the same days as that of everything."""

    target: str
    decay: Decay
    unit = "money per 30 days"

    @property
    def name(self) -> str:
        return f"ew_spend_rate_{self.decay.label}_{self.target}"

    @property
    def recent_totals(self) -> tuple[DecayedTotal, WindowTotal]:
        return DecayedTotal("amount", self.decay, self.target), WindowTotal("amount", self.decay.span, self.target)

    def value(self, row: ir.Table) -> ir.Value:
        return decayed_rate(row, *self.recent_totals, row[of_target("amount", self.target)], AMOUNT_SCALE)


@dataclass(frozen=True)
class TargetLifetimeSpend(Feature):
    """Spend in {target} on all days before as_of; net spend below 0 counts as 0."""

    target: str
    unit = "money"

    @property
    def name(self) -> str:
        return f"lifetime_spend_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row[of_target("amount", self.target)]), ibis.literal(AMOUNT_SCALE))


@dataclass(frozen=True)
class TargetTransactions(Feature):
    """Transactions with at least one valid line in {target}."""

    target: str
    unit = "count"

    @property
    def name(self) -> str:
        return f"txn_count_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return row[of_target("transactions", self.target)]


@dataclass(frozen=True)
class TargetDaysSince(Feature):
    """Days from the last transaction with {target} to as_of."""

    target: str
    unit = "days"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"nothing of {self.target} was bought so far"

    @property
    def name(self) -> str:
        return f"days_since_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row[of_target("last_day", self.target)]


@dataclass(frozen=True)
class TargetFavorite(Feature):
    """1 where lifetime spend in {target} is above 0 and no other named target's is higher (ties share), else 0."""

    target: str
    targets: tuple[str, ...]
    unit = "0 or 1"

    @property
    def name(self) -> str:
        return f"favorite_category_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        own = row[of_target("amount", self.target)]
        highest = ibis.greatest(0, *(row[of_target("amount", target)] for target in self.targets))
        return ((own > 0) & (own == highest)).cast("int32")
