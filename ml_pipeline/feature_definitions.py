"""Every feature of all purchases together: its name, meaning, unit, when it is missing, and its formula over the totals.

A feature is a small frozen object. Its name is that of its class, or follows from its parameters; nothing else in the
repository spells one. Its formula sees one row of `totals.build_totals`; floats begin here, and only here.
"""

import inspect
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from ml_pipeline.schema import AMOUNT_SCALE, HORIZON_DAYS, QUANTITY_SCALE
from ml_pipeline.totals import WEEKDAYS, DecayedTotal, Total, WindowTotal, on_weekday, wide
from ml_pipeline.windows import Decay, Window

SHORTEST_TENURE_DAYS = 30
"""Rates of younger customers are taken over this many days: one purchase yesterday is not one purchase a day."""

YEAR_DAYS = 365

ONE_TRANSACTION = "there is only one transaction"
ONE_DAY = "all transactions are of one day"
NO_KNOWN_PROMOTION = "of no transaction is it known whether it had a promotion"


@dataclass(frozen=True)
class Feature:
    """One column. The class's name in small letters is the column's, its docstring the meaning, unless overridden."""

    unit: ClassVar[str]
    missing: ClassVar[str] = "never"

    @property
    def name(self) -> str:
        """The column's name."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def meaning(self) -> str:
        """One sentence for the docs."""
        return inspect.cleandoc(type(self).__doc__ or "").format(**vars(self))

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        """The sums over days before as_of that the formula reads, beside those over all days."""
        return ()

    def value(self, row: ir.Table) -> ir.Value:
        """The formula: a number, NULL where `missing` says so."""
        raise NotImplementedError


def ratio(numerator: ir.Value, denominator: ir.Value) -> ir.Value:
    """The quotient as a float64, NULL where the denominator is 0."""
    # nullif: a division by zero is an infinity in one engine and NULL or an error in others.
    return numerator.cast("float64") / denominator.cast("float64").nullif(0.0)


def floored(units: ir.Value) -> ir.Value:
    """Net spend can be negative; it counts as 0."""
    return ibis.greatest(units, 0)


def rate_days(row: ir.Table) -> ir.Value:
    """Days since the first transaction, at least SHORTEST_TENURE_DAYS."""
    return ibis.greatest(row.as_of_day - row.first_day, SHORTEST_TENURE_DAYS)


def with_weighted_days(row: ir.Table, decays: Iterable[Decay]) -> ir.Table:
    """Adds what all rates of a decay are taken over, per decay: see `decayed_rate`."""
    # Days are 32 bits wide to the engine, 64 to Ibis, which would leave out a cast to its plain int64.
    tenure = rate_days(row).cast("!int64")
    columns = {}
    for decay in decays:
        columns[_stretch(decay)] = ibis.greatest(tenure - decay.span.days, decay.span.days)
        columns[_weighted_days(decay)] = ibis.least(*(start + slope * tenure for start, slope in decay.lines))
    return row.select(*row.columns, **columns)


def _stretch(decay: Decay) -> str:
    return f"stretch~{decay.label}"


def _weighted_days(decay: Decay) -> str:
    return f"weighted_days~{decay.label}"


def decayed_rate(
    row: ir.Table, decayed: DecayedTotal, within: WindowTotal, lifetime: ir.Value, scale: int = 1
) -> ir.Value:
    """Per 30 days: the weighted total over the weighted days since the first transaction, at least SHORTEST_TENURE_DAYS.

    decayed: over the decay's buckets; within: the plain total over the same days; lifetime: over all days, so that
    the days before the buckets count too: with their mean per day, as one more bucket (`Decay.rest`). Totals come in
    1/scale. A total below 0 counts as 0.
    """
    decay = decayed.decay
    stretch, weighted_days = row[_stretch(decay)], row[_weighted_days(decay)]
    # Both sides times stretch, the days of the rest, at least as many as it counts: whole numbers until the division.
    rest = wide(lifetime - row[within.column]) * (decay.weight_of(decay.rest) * decay.span.days)
    total = wide(row[decayed.column]) * wide(stretch) + rest
    return ratio(floored(total).cast("float64") * 30, (weighted_days * stretch).cast("float64") * scale)


# Recency


class DaysSinceLastTransaction(Feature):
    """Days from the last transaction to as_of; 1 when it was on the day before."""

    unit = "days"

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row.last_day


class DaysSinceFirstTransaction(Feature):
    """Days from the first transaction to as_of."""

    unit = "days"

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row.first_day


class TotalTransactions(Feature):
    """Transactions with at least one valid line."""

    unit = "count"

    def value(self, row: ir.Table) -> ir.Value:
        return row.transactions


class TotalPurchaseDays(Feature):
    """Days with at least one transaction; less 1, the x of BG/NBD, whose purchases are days."""

    unit = "days"

    def value(self, row: ir.Table) -> ir.Value:
        return row.purchase_days


class DaysFirstToLast(Feature):
    """Days from the first to the last transaction: the age at the last purchase, the t_x of BG/NBD."""

    unit = "days"

    def value(self, row: ir.Table) -> ir.Value:
        return row.last_day - row.first_day


class AvgDaysBetweenTransactions(Feature):
    """The usual gap: days from the first to the last transaction, divided by transactions - 1."""

    unit = "days"
    missing = ONE_TRANSACTION

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.last_day - row.first_day, row.transactions - 1)


class StdDaysBetweenTransactions(Feature):
    """Population standard deviation of the days between one day with a transaction and the next."""

    unit = "days"
    missing = ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        # Exact until the root, as in StdTransactionValue.
        gaps, days = row.purchase_days - 1, row.last_day - row.first_day
        return ratio((gaps * row.squared_gaps - days * days.cast("!int64")).cast("float64").sqrt(), gaps)


class MaxDaysBetweenTransactions(Feature):
    """The longest time between one day with a transaction and the next."""

    unit = "days"
    missing = ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        return row.longest_gap.nullif(0)


class DaysUntilDue(Feature):
    """Mean days between one day with a transaction and the next, less the days since the last; below 0 when overdue."""

    unit = "days"
    missing = ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        gaps = row.purchase_days - 1
        return ratio(row.last_day - row.first_day - (row.as_of_day - row.last_day) * gaps, gaps)


class CustomerTenureDays(Feature):
    """Days to as_of since the first transaction, or since customer_since where that is earlier."""

    unit = "days"

    def value(self, row: ir.Table) -> ir.Value:
        # A customer_since on or after as_of is later than the first transaction, and so has no say.
        return row.as_of_day - ibis.least(row.first_day, row.customer_since_day.fill_null(row.first_day))


class RecencyRatio(Feature):
    """Days since the last transaction, divided by the usual gap; above 1 the customer is overdue."""

    unit = "ratio"
    missing = "there is only one transaction, or all are of one day"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio((row.as_of_day - row.last_day) * (row.transactions - 1), row.last_day - row.first_day)


# Frequency and money


@dataclass(frozen=True)
class WindowCount(Feature):
    """Transactions on days as_of-{window.oldest} .. as_of-{window.newest}."""

    window: Window
    unit = "count"

    @property
    def name(self) -> str:
        return f"transaction_count_{self.window.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return (WindowTotal("transactions", self.window),)

    def value(self, row: ir.Table) -> ir.Value:
        return row[self.recent_totals[0].column]


@dataclass(frozen=True)
class WindowSpend(Feature):
    """Spend on days as_of-{window.oldest} .. as_of-{window.newest}; net spend below 0 counts as 0."""

    window: Window
    unit = "money"

    @property
    def name(self) -> str:
        return f"total_spend_{self.window.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return (WindowTotal("amount", self.window),)

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row[self.recent_totals[0].column]), ibis.literal(AMOUNT_SCALE))


class SpendSameWindowLastYear(Feature):
    """Spend on days as_of-365 .. as_of-336, the target window 365 days earlier; net spend below 0 counts as 0."""

    unit = "money"
    missing = f"the first transaction is less than {YEAR_DAYS} days old"

    @property
    def recent_totals(self) -> tuple[WindowTotal]:
        return (WindowTotal("amount", Window(YEAR_DAYS - HORIZON_DAYS + 1, YEAR_DAYS)),)

    def value(self, row: ir.Table) -> ir.Value:
        spend = ratio(floored(row[self.recent_totals[0].column]), ibis.literal(AMOUNT_SCALE))
        return (row.as_of_day - row.first_day >= YEAR_DAYS).ifelse(spend, ibis.null("float64"))


@dataclass(frozen=True)
class EwTransactionRate(Feature):
    """Transactions per 30 days, a day counting half as much {decay.half_life_days} days earlier; over at least 30 days."""

    decay: Decay
    unit = "count per 30 days"

    @property
    def name(self) -> str:
        return f"ew_transaction_rate_{self.decay.label}"

    @property
    def recent_totals(self) -> tuple[DecayedTotal, WindowTotal]:
        return DecayedTotal("transactions", self.decay), WindowTotal("transactions", self.decay.span)

    def value(self, row: ir.Table) -> ir.Value:
        return decayed_rate(row, *self.recent_totals, row.transactions)


@dataclass(frozen=True)
class EwSpendRate(Feature):
    """Spend per 30 days, a day counting half as much {decay.half_life_days} days earlier; over at least 30 days."""

    decay: Decay
    unit = "money per 30 days"

    @property
    def name(self) -> str:
        return f"ew_spend_rate_{self.decay.label}"

    @property
    def recent_totals(self) -> tuple[DecayedTotal, WindowTotal]:
        return DecayedTotal("amount", self.decay), WindowTotal("amount", self.decay.span)

    def value(self, row: ir.Table) -> ir.Value:
        return decayed_rate(row, *self.recent_totals, row.amount, AMOUNT_SCALE)


class LifetimeSpend(Feature):
    """Spend on all days before as_of; net spend below 0 counts as 0."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row.amount), ibis.literal(AMOUNT_SCALE))


class AvgTransactionValue(Feature):
    """Mean gross value of a transaction (the sum of its valid lines)."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross, row.transactions * AMOUNT_SCALE)


class MaxTransactionValue(Feature):
    """Largest gross value of a transaction."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.largest_gross, ibis.literal(AMOUNT_SCALE))


class MinTransactionValue(Feature):
    """Smallest gross value of a transaction."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.smallest_gross, ibis.literal(AMOUNT_SCALE))


class StdTransactionValue(Feature):
    """Population standard deviation of the transactions' gross values."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        # n * sum(v^2) - sum(v)^2 is exact in whole numbers; the textbook formula in floats is not, and can be negative.
        n, total = row.transactions.cast("decimal(38, 0)"), row.gross.cast("decimal(38, 0)")
        return ratio((n * row.squared_gross - total * total).cast("float64").sqrt(), row.transactions * AMOUNT_SCALE)


class LastTransactionValue(Feature):
    """Gross value of the last day with a transaction."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross_rise, ibis.literal(AMOUNT_SCALE))


class MeanPurchaseDayValue(Feature):
    """Mean gross value of a day with at least one transaction."""

    unit = "money"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross, row.purchase_days * AMOUNT_SCALE)


class MeanRepeatValue(Feature):
    """Mean gross value of the purchase days after the first one: the m of Gamma-Gamma."""

    unit = "money"
    missing = ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross - row.first_day_gross, (row.purchase_days - 1) * AMOUNT_SCALE)


class SpendVelocity(Feature):
    """Lifetime spend per day since the first transaction, over at least 30 days."""

    unit = "money per day"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row.amount), rate_days(row) * AMOUNT_SCALE)


# Diversity


@dataclass(frozen=True)
class NumDistinct(Feature):
    """Different {things} among the valid lines so far."""

    things: str
    unit = "count"

    @property
    def name(self) -> str:
        return f"num_distinct_{self.things}"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"no line so far names one of the {self.things}"

    def value(self, row: ir.Table) -> ir.Value:
        return row[self.things].nullif(0)


# Behaviour


class PromotionUsageRate(Feature):
    """Share of the transactions with a promoted line, among those where that is known."""

    unit = "share"
    missing = NO_KNOWN_PROMOTION

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.promoted, row.promotion_known)


class PromotionUsageCount(Feature):
    """Transactions with at least one promoted line."""

    unit = "count"
    missing = NO_KNOWN_PROMOTION

    def value(self, row: ir.Table) -> ir.Value:
        return (row.promotion_known > 0).ifelse(row.promoted, ibis.null("int64"))


@dataclass(frozen=True)
class PurchaseMomentum(Feature):
    """Transactions of the last 30 days, divided by a third of those of the last 90."""

    recent: Window
    longer: Window
    unit = "ratio"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"there is no transaction in the last {self.longer.days} days"

    @property
    def name(self) -> str:
        return "purchase_momentum"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return WindowTotal("transactions", self.recent), WindowTotal("transactions", self.longer)

    def value(self, row: ir.Table) -> ir.Value:
        recent, longer = (row[total.column] for total in self.recent_totals)
        return ratio(recent * self.longer.days, longer * self.recent.days)


@dataclass(frozen=True)
class SpendMomentum(Feature):
    """Spend per day on as_of-{recent.oldest} .. -{recent.newest}, over that on as_of-{before.oldest} .. -{before.newest}."""

    recent: Window
    before: Window
    unit = "ratio"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"nothing was spent on days {self.before.newest} to {self.before.oldest} before as_of"

    @property
    def name(self) -> str:
        return f"spend_momentum_{self.recent.label}_over_{self.before.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return WindowTotal("amount", self.recent), WindowTotal("amount", self.before)

    def value(self, row: ir.Table) -> ir.Value:
        recent, before = (floored(row[total.column]) for total in self.recent_totals)
        return ratio(recent.cast("float64") * self.before.days, before.cast("float64") * self.recent.days)


class WeekendTransactionRate(Feature):
    """Share of the transactions on a Saturday or Sunday."""

    unit = "share"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row[on_weekday(5)] + row[on_weekday(6)], row.transactions)


class MostCommonDayOfWeek(Feature):
    """The day of the week with most transactions, Monday 0 to Sunday 6; of equals the earliest."""

    unit = "0 to 6"

    def value(self, row: ir.Table) -> ir.Value:
        most = ibis.greatest(*(row[on_weekday(weekday)] for weekday in WEEKDAYS))
        return ibis.cases(*[(row[on_weekday(weekday)] == most, weekday) for weekday in WEEKDAYS])


class AvgItemsPerTransaction(Feature):
    """Mean quantity of a transaction's valid lines."""

    unit = "quantity"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row["items"], row.transactions * QUANTITY_SCALE)


class MaxItemsPerTransaction(Feature):
    """Largest quantity of a transaction's valid lines."""

    unit = "quantity"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.most_items, ibis.literal(QUANTITY_SCALE))


class TotalItemsPurchased(Feature):
    """Quantity of all valid lines."""

    unit = "quantity"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row["items"], ibis.literal(QUANTITY_SCALE))


class TransactionDensity(Feature):
    """Transactions per 30 days since the first, over at least 30 days."""

    unit = "count per 30 days"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.transactions * 30, rate_days(row))


class ReturnRate(Feature):
    """Share of the lines that are returns or cancellations."""

    unit = "share"

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.returned_lines, row.lines)


class IsColdStart(Feature):
    """1 where there is only one transaction, else 0."""

    unit = "0 or 1"

    def value(self, row: ir.Table) -> ir.Value:
        return (row.transactions < 2).cast("int32")
