"""Every feature of all purchases together: its name, meaning, unit, when it is missing, and its formula over the totals.

A feature is a small frozen object. Its name is that of its class, or follows from its parameters; nothing else in the
repository spells one. Its formula sees one row of `totals.build_totals`; floats begin here, and only here.
"""

import calendar
import inspect
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import ibis
import ibis.expr.types as ir

from ml_pipeline.schema import AMOUNT_SCALE, HORIZON_DAYS, QUANTITY_SCALE
from ml_pipeline.totals import WEEKDAYS, DecayedTotal, Total, WindowTotal, on_weekday, wide
from ml_pipeline.windows import Decay, Window
from ml_pipeline.wording import (
    Occasion,
    counted,
    days,
    days_ago,
    in_window,
    is_nothing,
    money,
    multiple,
    number,
    pace,
    share,
    times,
)

SHORTEST_TENURE_DAYS = 30
"""Rates of younger customers are taken over this many days: one purchase yesterday is not one purchase a day."""

YEAR_DAYS = 365

ONE_TRANSACTION = "there is only one transaction"
ONE_DAY = "all transactions are of one day"
NO_KNOWN_PROMOTION = "of no transaction is it known whether it had a promotion"

NO_PURCHASE_YET = "no purchase so far"
ONLY_ONE_PURCHASE = "only one purchase so far"
ALL_ON_ONE_DAY = "all purchases so far on one day"
PROMOTIONS_UNKNOWN = "not known whether a purchase had a promotion"

RECENT_BUYING = "recent buying"
USUAL_RATE = "usual rate of buying"
SPEND_LEVEL = "level of spend"
SINCE_LAST = "time since the last purchase"
AS_CUSTOMER = "time as a customer"
VARIETY = "variety"
BASKET = "items per purchase"
PROMOTIONS = "promotions"
RETURNS = "returns"
WEEKDAYS_OF_BUYING = "days of the week"
TIME_OF_YEAR = "time of the year"

RECENT_DAYS = 120
"""What lies wholly within so many days before as_of is told as recent buying, longer windows as the usual rate or level."""


@dataclass(frozen=True)
class Feature:
    """One column. The class's name in small letters is the column's, its docstring the meaning, unless overridden.

    For reasons: `theme`, under which it is told together with related features; `said`, the value in words that a
    marketer reads, the customer being the subject; `missing_words`, said where the value is missing.
    """

    unit: ClassVar[str]
    theme: ClassVar[str]
    missing: ClassVar[str] = "never"
    missing_words: ClassVar[str] = NO_PURCHASE_YET

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

    def words(self, value: float, occasion: Occasion) -> str:
        """The value of one customer in words, NaN included: "bought twice in the last 30 days"."""
        return self.missing_words if math.isnan(value) else self.said(value, occasion)

    def said(self, value: float, occasion: Occasion) -> str:
        """`words` of a number."""
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


def spoken_amount(value: float, occasion: Occasion) -> str:
    """`3,410.00 INR`, or `nothing`."""
    return "nothing" if is_nothing(value) else money(value, occasion.currency)


def spends_lately(value: float, occasion: Occasion, thing: str = "") -> str:
    """A rate: `spends 3,410.00 INR per 30 days`, or `spends next to nothing`; on a thing where one is named."""
    on = f" on {thing}" if thing else ""
    return (
        f"spends next to nothing{on}"
        if is_nothing(value)
        else f"spends {money(value, occasion.currency)}{on} per 30 days"
    )


# Recency


class DaysSinceLastTransaction(Feature):
    """Days from the last transaction to as_of; 1 when it was on the day before."""

    unit = "days"
    theme = SINCE_LAST

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row.last_day

    def said(self, value: float, occasion: Occasion) -> str:
        return f"last purchase {days_ago(value)}"


class DaysSinceFirstTransaction(Feature):
    """Days from the first transaction to as_of."""

    unit = "days"
    theme = AS_CUSTOMER

    def value(self, row: ir.Table) -> ir.Value:
        return row.as_of_day - row.first_day

    def said(self, value: float, occasion: Occasion) -> str:
        return f"first purchase {days_ago(value)}"


class TotalTransactions(Feature):
    """Transactions with at least one valid line."""

    unit = "count"
    theme = USUAL_RATE

    def value(self, row: ir.Table) -> ir.Value:
        return row.transactions

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought {times(value)} so far" if value else NO_PURCHASE_YET


class TotalPurchaseDays(Feature):
    """Days with at least one transaction; less 1, the x of BG/NBD, whose purchases are days."""

    unit = "days"
    theme = USUAL_RATE

    def value(self, row: ir.Table) -> ir.Value:
        return row.purchase_days

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought on {days(value)} so far" if value else NO_PURCHASE_YET


class DaysFirstToLast(Feature):
    """Days from the first to the last transaction: the age at the last purchase, the t_x of BG/NBD."""

    unit = "days"
    theme = AS_CUSTOMER

    def value(self, row: ir.Table) -> ir.Value:
        return row.last_day - row.first_day

    def said(self, value: float, occasion: Occasion) -> str:
        return f"{days(value)} from the first to the last purchase" if value else ALL_ON_ONE_DAY


class AvgDaysBetweenTransactions(Feature):
    """The usual gap: days from the first to the last transaction, divided by transactions - 1."""

    unit = "days"
    missing = ONE_TRANSACTION
    theme = USUAL_RATE
    missing_words = ONLY_ONE_PURCHASE

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.last_day - row.first_day, row.transactions - 1)

    def said(self, value: float, occasion: Occasion) -> str:
        if not value:
            return ALL_ON_ONE_DAY
        if value < 0.95:
            return "usually buys more than once a day"
        return f"usually buys every {days(value)}" if number(value) != "1" else "usually buys every day"


class StdDaysBetweenTransactions(Feature):
    """Population standard deviation of the days between one day with a transaction and the next."""

    unit = "days"
    missing = ONE_DAY
    theme = USUAL_RATE
    missing_words = ALL_ON_ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        # Exact until the root, as in StdTransactionValue.
        gaps, days = row.purchase_days - 1, row.last_day - row.first_day
        return ratio((gaps * row.squared_gaps - days * days.cast("!int64")).cast("float64").sqrt(), gaps)

    def said(self, value: float, occasion: Occasion) -> str:
        if number(value) == "0":  # so it is after two days of buying, between which lies a single gap
            return "bought on only two days so far, or at even intervals"
        return f"time between purchases varies by {days(value)}"


class MaxDaysBetweenTransactions(Feature):
    """The longest time between one day with a transaction and the next."""

    unit = "days"
    missing = ONE_DAY
    theme = USUAL_RATE
    missing_words = ALL_ON_ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        return row.longest_gap.nullif(0)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"longest time between two purchases {days(value)}"


class DaysUntilDue(Feature):
    """Mean days between one day with a transaction and the next, less the days since the last; below 0 when overdue."""

    unit = "days"
    missing = ONE_DAY
    theme = SINCE_LAST
    missing_words = ALL_ON_ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        gaps = row.purchase_days - 1
        return ratio(row.last_day - row.first_day - (row.as_of_day - row.last_day) * gaps, gaps)

    def said(self, value: float, occasion: Occasion) -> str:
        if number(value) == "0":
            return "next purchase due today by the usual rhythm"
        when = f"due in {days(value)}" if value > 0 else f"{days(-value)} overdue"
        return f"next purchase {when} by the usual rhythm"


class CustomerTenureDays(Feature):
    """Days to as_of since the first transaction, or since customer_since where that is earlier."""

    unit = "days"
    theme = AS_CUSTOMER

    def value(self, row: ir.Table) -> ir.Value:
        # A customer_since on or after as_of is later than the first transaction, and so has no say.
        return row.as_of_day - ibis.least(row.first_day, row.customer_since_day.fill_null(row.first_day))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"customer for {days(value)}"


class RecencyRatio(Feature):
    """Days since the last transaction, divided by the usual gap; above 1 the customer is overdue."""

    unit = "ratio"
    missing = "there is only one transaction, or all are of one day"
    theme = SINCE_LAST
    missing_words = ONLY_ONE_PURCHASE

    def value(self, row: ir.Table) -> ir.Value:
        return ratio((row.as_of_day - row.last_day) * (row.transactions - 1), row.last_day - row.first_day)

    def said(self, value: float, occasion: Occasion) -> str:
        usual = "the usual time between purchases has passed since the last one"
        if number(value) == "1":
            return f"about {usual}"
        return f"{multiple(value)} {usual}" if value > 1 else f"{multiple(value)} of {usual}"


# Frequency and money


@dataclass(frozen=True)
class WindowCount(Feature):
    """Transactions on days as_of-{window.oldest} .. as_of-{window.newest}."""

    window: Window
    unit = "count"

    @property
    def theme(self) -> str:  # type: ignore[override]
        return RECENT_BUYING if self.window.oldest <= RECENT_DAYS else USUAL_RATE

    @property
    def name(self) -> str:
        return f"transaction_count_{self.window.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return (WindowTotal("transactions", self.window),)

    def value(self, row: ir.Table) -> ir.Value:
        return row[self.recent_totals[0].column]

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought {times(value) if value else 'nothing'} {in_window(self.window)}"


@dataclass(frozen=True)
class WindowSpend(Feature):
    """Spend on days as_of-{window.oldest} .. as_of-{window.newest}; net spend below 0 counts as 0."""

    window: Window
    unit = "money"

    @property
    def theme(self) -> str:  # type: ignore[override]
        return RECENT_BUYING if self.window.oldest <= RECENT_DAYS else SPEND_LEVEL

    @property
    def name(self) -> str:
        return f"total_spend_{self.window.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return (WindowTotal("amount", self.window),)

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row[self.recent_totals[0].column]), ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {spoken_amount(value, occasion)} {in_window(self.window)}"


class SpendSameWindowLastYear(Feature):
    """Spend on days as_of-365 .. as_of-336, the target window 365 days earlier; net spend below 0 counts as 0."""

    unit = "money"
    missing = f"the first transaction is less than {YEAR_DAYS} days old"
    theme = TIME_OF_YEAR
    missing_words = "no customer yet a year ago"

    @property
    def recent_totals(self) -> tuple[WindowTotal]:
        return (WindowTotal("amount", Window(YEAR_DAYS - HORIZON_DAYS + 1, YEAR_DAYS)),)

    def value(self, row: ir.Table) -> ir.Value:
        spend = ratio(floored(row[self.recent_totals[0].column]), ibis.literal(AMOUNT_SCALE))
        return (row.as_of_day - row.first_day >= YEAR_DAYS).ifelse(spend, ibis.null("float64"))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {spoken_amount(value, occasion)} in the same 30 days a year ago"


@dataclass(frozen=True)
class EwTransactionRate(Feature):
    """Transactions per 30 days, a day counting half as much {decay.half_life_days} days earlier; over at least 30 days."""

    decay: Decay
    unit = "count per 30 days"
    theme = USUAL_RATE

    @property
    def name(self) -> str:
        return f"ew_transaction_rate_{self.decay.label}"

    @property
    def recent_totals(self) -> tuple[DecayedTotal, WindowTotal]:
        return DecayedTotal("transactions", self.decay), WindowTotal("transactions", self.decay.span)

    def value(self, row: ir.Table) -> ir.Value:
        return decayed_rate(row, *self.recent_totals, row.transactions)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"buys {pace(value)}, judged mostly by the last {days(self.decay.half_life_days)}"


@dataclass(frozen=True)
class EwSpendRate(Feature):
    """Spend per 30 days, a day counting half as much {decay.half_life_days} days earlier; over at least 30 days."""

    decay: Decay
    unit = "money per 30 days"
    theme = SPEND_LEVEL

    @property
    def name(self) -> str:
        return f"ew_spend_rate_{self.decay.label}"

    @property
    def recent_totals(self) -> tuple[DecayedTotal, WindowTotal]:
        return DecayedTotal("amount", self.decay), WindowTotal("amount", self.decay.span)

    def value(self, row: ir.Table) -> ir.Value:
        return decayed_rate(row, *self.recent_totals, row.amount, AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"{spends_lately(value, occasion)}, judged mostly by the last {days(self.decay.half_life_days)}"


class LifetimeSpend(Feature):
    """Spend on all days before as_of; net spend below 0 counts as 0."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row.amount), ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {spoken_amount(value, occasion)} so far"


class AvgTransactionValue(Feature):
    """Mean gross value of a transaction (the sum of its valid lines)."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross, row.transactions * AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spends {spoken_amount(value, occasion)} per purchase on average"


class MaxTransactionValue(Feature):
    """Largest gross value of a transaction."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.largest_gross, ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"largest purchase {money(value, occasion.currency)}"


class MinTransactionValue(Feature):
    """Smallest gross value of a transaction."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.smallest_gross, ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"smallest purchase {money(value, occasion.currency)}"


class StdTransactionValue(Feature):
    """Population standard deviation of the transactions' gross values."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        # n * sum(v^2) - sum(v)^2 is exact in whole numbers; the textbook formula in floats is not, and can be negative.
        n, total = row.transactions.cast("decimal(38, 0)"), row.gross.cast("decimal(38, 0)")
        return ratio((n * row.squared_gross - total * total).cast("float64").sqrt(), row.transactions * AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        if is_nothing(value):
            return "all purchases so far of the same value"
        return f"the value of a purchase varies by {money(value, occasion.currency)}"


class LastTransactionValue(Feature):
    """Gross value of the last day with a transaction."""

    unit = "money"
    theme = RECENT_BUYING

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross_rise, ibis.literal(AMOUNT_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spent {spoken_amount(value, occasion)} on the last day of buying"


class MeanPurchaseDayValue(Feature):
    """Mean gross value of a day with at least one transaction."""

    unit = "money"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross, row.purchase_days * AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spends {spoken_amount(value, occasion)} on a day of buying"


class MeanRepeatValue(Feature):
    """Mean gross value of the purchase days after the first one: the m of Gamma-Gamma."""

    unit = "money"
    missing = ONE_DAY
    theme = SPEND_LEVEL
    missing_words = ALL_ON_ONE_DAY

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.gross - row.first_day_gross, (row.purchase_days - 1) * AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spends {spoken_amount(value, occasion)} on a day of buying after the first one"


class SpendVelocity(Feature):
    """Lifetime spend per day since the first transaction, over at least 30 days."""

    unit = "money per day"
    theme = SPEND_LEVEL

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(floored(row.amount), rate_days(row) * AMOUNT_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"spends {spoken_amount(value, occasion)} a day on average since the first purchase"


# Diversity


DISTINCT = {
    "products": ("bought", "product"),
    "categories": ("bought from", "category"),
    "stores": ("bought at", "store"),
}
"""What can be counted, with its verb and its singular."""


@dataclass(frozen=True)
class NumDistinct(Feature):
    """Different {things} among the valid lines so far."""

    things: str
    unit = "count"
    theme = VARIETY

    @property
    def name(self) -> str:
        return f"num_distinct_{self.things}"

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"no line so far names one of the {self.things}"

    @property
    def missing_words(self) -> str:  # type: ignore[override]
        return f"the {self.things} of the purchases are not known"

    def value(self, row: ir.Table) -> ir.Value:
        return row[self.things].nullif(0)

    def said(self, value: float, occasion: Occasion) -> str:
        bought, one = DISTINCT[self.things]
        return (
            f"{bought} only one {one}" if number(value) == "1" else f"{bought} {number(value)} different {self.things}"
        )


# Behaviour


class PromotionUsageRate(Feature):
    """Share of the transactions with a promoted line, among those where that is known."""

    unit = "share"
    missing = NO_KNOWN_PROMOTION
    theme = PROMOTIONS
    missing_words = PROMOTIONS_UNKNOWN

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.promoted, row.promotion_known)

    def said(self, value: float, occasion: Occasion) -> str:
        if value in (0, 1):
            return f"{'every' if value else 'no'} purchase had a promotion"
        return f"{share(value)} of the purchases had a promotion"


class PromotionUsageCount(Feature):
    """Transactions with at least one promoted line."""

    unit = "count"
    missing = NO_KNOWN_PROMOTION
    theme = PROMOTIONS
    missing_words = PROMOTIONS_UNKNOWN

    def value(self, row: ir.Table) -> ir.Value:
        return (row.promotion_known > 0).ifelse(row.promoted, ibis.null("int64"))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought {times(value)} with a promotion" if value else "never bought with a promotion"


@dataclass(frozen=True)
class PurchaseMomentum(Feature):
    """Transactions of the last 30 days, divided by a third of those of the last 90."""

    recent: Window
    longer: Window
    unit = "ratio"
    theme = RECENT_BUYING

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"there is no transaction in the last {self.longer.days} days"

    @property
    def missing_words(self) -> str:  # type: ignore[override]
        return f"bought nothing {in_window(self.longer)}"

    @property
    def name(self) -> str:
        return "purchase_momentum"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return WindowTotal("transactions", self.recent), WindowTotal("transactions", self.longer)

    def value(self, row: ir.Table) -> ir.Value:
        recent, longer = (row[total.column] for total in self.recent_totals)
        return ratio(recent * self.longer.days, longer * self.recent.days)

    def said(self, value: float, occasion: Occasion) -> str:
        if not value:
            return f"bought {in_window(self.longer)}, but nothing {in_window(self.recent)}"
        how = "as often" if number(value) == "1" else f"{multiple(value)} as often"
        return f"bought {how} {in_window(self.recent)} as over the {self.longer.days} days up to now"


@dataclass(frozen=True)
class SpendMomentum(Feature):
    """Spend per day on as_of-{recent.oldest} .. -{recent.newest}, over that on as_of-{before.oldest} .. -{before.newest}."""

    recent: Window
    before: Window
    unit = "ratio"
    theme = RECENT_BUYING

    @property
    def missing(self) -> str:  # type: ignore[override]
        return f"nothing was spent on days {self.before.newest} to {self.before.oldest} before as_of"

    @property
    def missing_words(self) -> str:  # type: ignore[override]
        return f"spent nothing {in_window(self.before)}"

    @property
    def name(self) -> str:
        return f"spend_momentum_{self.recent.label}_over_{self.before.label}"

    @property
    def recent_totals(self) -> tuple[Total, ...]:
        return WindowTotal("amount", self.recent), WindowTotal("amount", self.before)

    def value(self, row: ir.Table) -> ir.Value:
        recent, before = (floored(row[total.column]) for total in self.recent_totals)
        return ratio(recent.cast("float64") * self.before.days, before.cast("float64") * self.recent.days)

    def said(self, value: float, occasion: Occasion) -> str:
        if not value:
            return f"spent something {in_window(self.before)}, but nothing {in_window(self.recent)}"
        how = "as much" if number(value) == "1" else f"{multiple(value)} as much"
        return f"spent {how} per day {in_window(self.recent)} as {in_window(self.before)}"


class WeekendTransactionRate(Feature):
    """Share of the transactions on a Saturday or Sunday."""

    unit = "share"
    theme = WEEKDAYS_OF_BUYING

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row[on_weekday(5)] + row[on_weekday(6)], row.transactions)

    def said(self, value: float, occasion: Occasion) -> str:
        if value in (0, 1):
            return "buys only on weekends" if value else "never buys on weekends"
        return f"{share(value)} of the purchases on weekends"


class MostCommonDayOfWeek(Feature):
    """The day of the week with most transactions, Monday 0 to Sunday 6; of equals the earliest."""

    unit = "0 to 6"
    theme = WEEKDAYS_OF_BUYING

    def value(self, row: ir.Table) -> ir.Value:
        most = ibis.greatest(*(row[on_weekday(weekday)] for weekday in WEEKDAYS))
        return ibis.cases(*[(row[on_weekday(weekday)] == most, weekday) for weekday in WEEKDAYS])

    def said(self, value: float, occasion: Occasion) -> str:
        return f"buys most often on {calendar.day_name[round(value)]}s"


class AvgItemsPerTransaction(Feature):
    """Mean quantity of a transaction's valid lines."""

    unit = "quantity"
    theme = BASKET

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row["items"], row.transactions * QUANTITY_SCALE)

    def said(self, value: float, occasion: Occasion) -> str:
        return f"buys {counted(value, 'item')} per purchase on average"


class MaxItemsPerTransaction(Feature):
    """Largest quantity of a transaction's valid lines."""

    unit = "quantity"
    theme = BASKET

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.most_items, ibis.literal(QUANTITY_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"at most {counted(value, 'item')} in one purchase"


class TotalItemsPurchased(Feature):
    """Quantity of all valid lines."""

    unit = "quantity"
    theme = BASKET

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row["items"], ibis.literal(QUANTITY_SCALE))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"bought {counted(value, 'item')} so far"


class TransactionDensity(Feature):
    """Transactions per 30 days since the first, over at least 30 days."""

    unit = "count per 30 days"
    theme = USUAL_RATE

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.transactions * 30, rate_days(row))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"buys {pace(value)} since the first purchase"


class ReturnRate(Feature):
    """Share of the lines that are returns or cancellations."""

    unit = "share"
    theme = RETURNS

    def value(self, row: ir.Table) -> ir.Value:
        return ratio(row.returned_lines, row.lines)

    def said(self, value: float, occasion: Occasion) -> str:
        if value in (0, 1):
            return f"{'everything was' if value else 'nothing was ever'} returned or cancelled"
        return f"{share(value)} of the items returned or cancelled"


class IsColdStart(Feature):
    """1 where there is only one transaction, else 0."""

    unit = "0 or 1"
    theme = AS_CUSTOMER

    def value(self, row: ir.Table) -> ir.Value:
        return (row.transactions < 2).cast("int32")

    def said(self, value: float, occasion: Occasion) -> str:
        return ONLY_ONE_PURCHASE if value else "bought more than once"
