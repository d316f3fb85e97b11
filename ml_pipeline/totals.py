"""From purchases to exact whole-number totals per customer and as_of: what the features are fractions of.

The lines are read once into transactions; the transactions are summed once into pieces of time between the edges
of all windows of all as_of days; a window of an as_of day is the sum of its pieces, found in a small table
piece x as_of. What is counted since the beginning is a running total over the periods between as_of days.
Everything here is an integer, so that no order of adding (threads, engines, other customers) can change a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from ml_pipeline.retractions import versions_of_customers, with_retractions, without_versions
from ml_pipeline.schema import UNKNOWN_CATEGORY
from ml_pipeline.windows import Decay, TimeTables, Window

WEEKDAYS = range(7)


class Total:
    """A whole number summed over days before as_of: measure `transactions` or `amount`, of one target or of everything."""

    measure: str
    target: str | None

    @property
    def source(self) -> str:
        """The column of the pieces that is summed."""
        return self.measure if self.target is None else of_target(self.measure, self.target)

    @property
    def column(self) -> str:
        """The column of the totals that holds it."""
        raise NotImplementedError

    def over(self, seen: ir.Table) -> ir.Column:
        """The sum; `seen` holds pieces beside the as_of days that see them."""
        raise NotImplementedError


@dataclass(frozen=True)
class WindowTotal(Total):
    """The sum over a window."""

    measure: str
    window: Window
    target: str | None = None

    @property
    def column(self) -> str:
        return f"{self.source}~{self.window.label}"

    def over(self, seen: ir.Table) -> ir.Column:
        return _sum(seen[self.source], where=seen[self.window.flag])


@dataclass(frozen=True)
class DecayedTotal(Total):
    """The sum over the buckets of a decay, every day times its weight; in 128 bits."""

    measure: str
    decay: Decay
    target: str | None = None

    @property
    def column(self) -> str:
        return f"{self.source}~half_life_{self.decay.label}"

    def over(self, seen: ir.Table) -> ir.Column:
        return (seen[_in_128_bits(self.source)] * seen[self.decay.weight]).sum()


def of_target(measure: str, target: str) -> str:
    """The column that holds a measure of one target alone; no target's name can hold an @."""
    return f"{measure}@{target}"


def wide(whole: ir.Value) -> ir.Value:
    """A whole number that may grow beyond 64 bits."""
    return whole.cast("decimal(38, 0)")


def _in_128_bits(source: str) -> str:
    return f"{source}~wide"


def on_weekday(weekday: int) -> str:
    """The column that counts transactions on one day of the week, Monday 0."""
    return f"transactions_on_{weekday}"


def build_totals(
    purchases: ir.Table, time: TimeTables, targets: Sequence[str], recent_totals: Sequence[Total]
) -> ir.Table:
    """One row per (as_of, customer with a transaction before as_of); only days < as_of count.

    customer_id, the columns of `time.as_ofs`, then whole numbers: money in 1/10,000 of the currency unit, quantities
    in thousandths, days since 1970-01-01. Windows without anything are 0.
    A line that was cancelled is seen by the as_of days up to the day of the cancellation; where purchases lack
    cancelled_on, nothing was cancelled.
    """
    if "cancelled_on" not in purchases.columns:
        return _totals_of(purchases.filter(purchases.day < time.end), time, targets, recent_totals)
    versions = versions_of_customers(purchases, time)
    totals = _totals_of(with_retractions(purchases, versions, time), time, targets, recent_totals)
    return without_versions(totals, versions)


def _totals_of(lines: ir.Table, time: TimeTables, targets: Sequence[str], recent_totals: Sequence[Total]) -> ir.Table:
    """`build_totals` of lines that are all seen by whoever sees their day."""
    transactions = _placed(_build_transactions(lines, targets), time)
    periods = _with_purchase_days(_period_totals(transactions, targets), transactions)
    periods = _with_distinct(periods, lines, time)
    lifetime = _running_totals(periods, time, targets)
    recent = _recent_totals(transactions, time, recent_totals)
    joined = lifetime.left_join(recent, ["customer_id", "as_of_number"])
    return joined.select(
        *[lifetime[name] for name in lifetime.columns],
        **{total.column: recent[total.column].fill_null(0) for total in recent_totals},
    )


def _exact(total: ir.Column) -> ir.Column:
    # DuckDB sums int64 into 128 bits; back to 64, the tables in between take half the room and time. Ibis takes the
    # sum for an int64 already and leaves a cast to int64 out, but not one to its non-null kind, which is the same SQL.
    return total.cast("!int64")


def _sum(column: ir.Column, where: ir.BooleanValue | None = None) -> ir.Column:
    return _exact(column.sum(where=where).fill_null(0))


def _build_transactions(lines: ir.Table, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, transaction_id, day); `transactions` is 1 if a line of it is valid, else 0."""
    valid = lines.spend_units > 0
    measures = {
        "transactions": valid.cast("int32").max(),
        "gross": _sum(lines.spend_units),
        "amount": _sum(lines.amount_units),
        "items": _sum(lines.quantity_milli, where=valid),
        "lines": lines.count(),
        "returned_lines": _sum((lines.return_units > 0).cast("int32")),
        "promoted": lines.has_promotion.cast("int32").max(where=valid),
    }
    for target in targets:
        of = lines.target == target
        measures[of_target("transactions", target)] = (of & valid).cast("int32").max()
        measures[of_target("amount", target)] = _sum(lines.amount_units, where=of)
    return lines.group_by("customer_id", "transaction_id", "day").aggregate(**measures)


def _placed(dated: ir.Table, time: TimeTables) -> ir.Table:
    """The same rows with their day's piece and period; days before the first piece fall on its eve."""
    placed = dated.join(time.days, ibis.greatest(dated.day, time.eve) == time.days.calendar_day)
    # An explicit select: Ibis shares it between its readers as one WITH, which it does not for `drop`.
    return placed.select(*dated.columns, "piece", "period")


def _period_totals(transactions: ir.Table, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, period with any line): the lifetime measures of that period alone."""
    sold = transactions.transactions == 1
    day = transactions.day.epoch_days().cast("int32")
    weekday = transactions.day.day_of_week.index()
    measures = {
        "transactions": _sum(transactions.transactions),
        "first_day": day.min(where=sold),
        "last_day": day.max(where=sold),
        "gross": _sum(transactions.gross),
        "squared_gross": (wide(transactions.gross) * wide(transactions.gross)).sum(),
        "largest_gross": transactions.gross.max(where=sold),
        "smallest_gross": transactions.gross.min(where=sold),
        "amount": _sum(transactions.amount),
        "items": _sum(transactions["items"]),
        "most_items": transactions["items"].max(where=sold),
        "lines": _sum(transactions.lines),
        "returned_lines": _sum(transactions.returned_lines),
        "promoted": _sum(transactions.promoted),
        "promotion_known": transactions.promoted.count(),
    }
    for number in WEEKDAYS:
        measures[on_weekday(number)] = _sum(transactions.transactions, where=weekday == number)
    for target in targets:
        bought = transactions[of_target("transactions", target)]
        measures[of_target("transactions", target)] = _sum(bought)
        measures[of_target("amount", target)] = _sum(transactions[of_target("amount", target)])
        measures[of_target("last_day", target)] = day.max(where=bought == 1)
    return transactions.group_by("customer_id", "period").aggregate(**measures)


def _with_purchase_days(periods: ir.Table, transactions: ir.Table) -> ir.Table:
    """Adds what counts by days with a valid transaction, however many there are in a day, and the gaps between them.

    purchase_days: how many. first_day_gross: gross value of the customer's very first one, where it is in the period.
    gross_rise: each one's gross value less that of the one before, so that the running total is the last one's.
    squared_gaps, longest_gap: of the days since the one before, which may be in an earlier period.
    """
    sold = transactions.filter(transactions.transactions == 1)
    days = sold.group_by("customer_id", "period", "day").aggregate(gross=_sum(sold.gross))
    in_time = ibis.window(group_by=days.customer_id, order_by=days.day)
    gap = days.day.epoch_days().cast("!int64") - days.day.lag(1).over(in_time).epoch_days()
    before = days.gross.lag(1).over(in_time)
    days = days.select("customer_id", "period", "gross", gap=gap, before=before)
    measures = {
        "purchase_days": days.count(),
        "first_day_gross": _sum(days.gross, where=days.before.isnull()),
        "gross_rise": _sum(days.gross - days.before.fill_null(0)),
        "squared_gaps": _sum(days.gap * days.gap),
        "longest_gap": days.gap.max().fill_null(0),
    }
    sums = days.group_by("customer_id", "period").aggregate(**measures)
    joined = periods.left_join(sums, ["customer_id", "period"])
    return joined.select(
        *[periods[column] for column in periods.columns], **{name: sums[name].fill_null(0) for name in measures}
    )


def _with_distinct(periods: ir.Table, lines: ir.Table, time: TimeTables) -> ir.Table:
    """Adds how many products, categories and stores the customer bought (at) for the first time in the period.

    The running total of first times is the number of distinct ones.
    """
    bought = lines.filter(lines.spend_units > 0)
    things = {
        "products": bought.product_id,
        "categories": bought.category.nullif(UNKNOWN_CATEGORY),
        "stores": bought.store_id,
    }
    firsts = []
    for name, thing in things.items():
        known = bought.select("customer_id", "day", thing=thing).filter(ibis._.thing.notnull())
        first = known.group_by("customer_id", "thing").aggregate(day=known.day.min())
        firsts.append(first.select("customer_id", "day", kind=ibis.literal(name)))
    placed = _placed(ibis.union(*firsts), time)
    counts = placed.group_by("customer_id", "period").aggregate(
        **{name: placed.count(where=placed.kind == name) for name in things}
    )
    joined = periods.left_join(counts, ["customer_id", "period"])
    return joined.select(
        *[periods[column] for column in periods.columns], **{name: counts[name].fill_null(0) for name in things}
    )


def _running_totals(periods: ir.Table, time: TimeTables, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, as_of) since the first transaction: the measures of all periods that as_of sees.

    Totals change only with a period that has lines, so they run over those, and each row then stands for all
    as_of days until the next one.
    """
    past = ibis.cumulative_window(group_by=periods.customer_id, order_by=periods.period)
    lowest = {"first_day", "smallest_gross"}
    highest = {
        "last_day",
        "largest_gross",
        "most_items",
        "longest_gap",
        *(of_target("last_day", target) for target in targets),
    }
    running = {}
    for name in periods.columns:
        if name in ("customer_id", "period"):
            continue
        column = periods[name]
        if name in lowest:
            running[name] = column.min().over(past)
        elif name in highest:
            running[name] = column.max().over(past)
        elif name == "squared_gross":
            running[name] = column.sum().over(past)
        else:
            running[name] = _exact(column.sum().over(past))
    upto = periods.period.lead(1).over(ibis.window(group_by=periods.customer_id, order_by=periods.period))
    spans = periods.select("customer_id", "period", upto=upto.fill_null(time.n_as_ofs), **running)
    spans = spans.filter(spans.transactions > 0)
    seen = [time.as_ofs.as_of_number >= spans.period, time.as_ofs.as_of_number < spans.upto]
    return spans.join(time.as_ofs, seen).drop("period", "upto")


def _recent_totals(transactions: ir.Table, time: TimeTables, recent_totals: Sequence[Total]) -> ir.Table:
    """One row per (customer, as_of that sees a transaction of the customer in some window or bucket)."""
    measures = {}
    for total in recent_totals:
        column = transactions[total.source]
        if isinstance(total, DecayedTotal):
            # Widened here and not in `over`: there are several times as many sights of pieces as pieces.
            measures[_in_128_bits(total.source)] = wide(column.sum())
        else:
            measures[total.source] = _sum(column)
    pieces = transactions.group_by("customer_id", "piece").aggregate(**measures)
    seen = pieces.join(time.sights, "piece")
    sums = {total.column: total.over(seen) for total in recent_totals}
    return seen.group_by("customer_id", "as_of_number").aggregate(**sums)
