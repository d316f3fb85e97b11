"""The features of one target: what a customer bought of it so far."""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from ml_pipeline.feature_definitions import Feature, decayed_rate, floored, ratio, spends_lately, spoken_amount
from ml_pipeline.schema import AMOUNT_SCALE
from ml_pipeline.totals import DecayedTotal, Total, WindowTotal, of_target
from ml_pipeline.windows import Decay, Window
from ml_pipeline.wording import Occasion, days, days_ago, in_window, plain, times


@dataclass(frozen=True)
class TargetFeature(Feature):
    """A fact of one target; all that is known of it is told as one theme."""

    target: str

    @property
    def theme(self) -> str:  # type: ignore[override]
        return f"buying {plain(self.target)}"

    @property
    def missing_words(self) -> str:  # type: ignore[override]
        return f"never bought {plain(self.target)}"

    def _spent(self, amount: float, occasion: Occasion) -> str:
        return f"{spoken_amount(amount, occasion)} on {plain(self.target)}"


@dataclass(frozen=True)
class TargetWindowSpend(TargetFeature):
    """Spend in {target} on days as_of-{window.oldest} .. as_of-{window.newest}; net spend below 0 counts as 0."""

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

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {self._spent(value, occasion)} {in_window(self.window)}"


@dataclass(frozen=True)
class TargetEwSpendRate(TargetFeature):
    """Spend in {target} per 30 days, weighted and over the same days as that of everything."""

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

    def said(self, value: float, occasion: Occasion) -> str:
        rate = spends_lately(value, occasion, plain(self.target))
        return f"{rate}, judged mostly by the last {days(self.decay.half_life_days)}"


@dataclass(frozen=True)
class TargetLifetimeSpend(TargetFeature):
    """Spend in {target} on all days before as_of; net spend below 0 counts as 0."""

    unit = "money"

    @property
    def name(self) -> str:
        return f"lifetime_spend_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row[of_target("amount", self.target)]), ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {self._spent(value, occasion)} so far"


@dataclass(frozen=True)
class TargetTransactions(TargetFeature):
    """Transactions with at least one valid line in {target}."""

    unit = "count"

    @property
    def name(self) -> str:
        return f"txn_count_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return row[of_target("transactions", self.target)]

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought {plain(self.target)} {times(value)} so far" if value else self.missing_words


@dataclass(frozen=True)
class TargetDaysSince(TargetFeature):
    """Days from the last transaction with {target} to as_of."""

    unit = "days"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"nothing of {self.target} was bought so far"

    @property
    def name(self) -> str:
        return f"days_since_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row[of_target("last_day", self.target)]

    def said(self, value: float, occasion: Occasion) -> str:
        return f"last bought {plain(self.target)} {days_ago(value)}"


@dataclass(frozen=True)
class TargetFavorite(TargetFeature):
    """1 where lifetime spend in {target} is above 0 and no other named target's is higher (ties share), else 0."""

    targets: tuple[str, ...]
    unit = "0 or 1"

    @property
    def name(self) -> str:
        return f"favorite_category_{self.target}"

    def value(self, row: ir.Table) -> ir.Value:
        own = row[of_target("amount", self.target)]
        highest = ibis.greatest(0, *(row[of_target("amount", target)] for target in self.targets))
        return ((own > 0) & (own == highest)).cast("int32")

    def said(self, value: float, occasion: Occasion) -> str:
        return f"{plain(self.target)} is {'' if value else 'not '}the category with most spend"
