"""From purchases to exact whole-number totals per customer and as_of: what the features are fractions of.

The lines are read once into transactions; the transactions are summed once into pieces of time between the edges
of all windows of all as_of days; a window of an as_of day is the sum of its pieces, found in a small table
piece x as_of. What is counted since the beginning is a running total over the periods between as_of days.
Everything here is an integer, so that no order of adding (threads, engines, other customers) can change a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir

from ml_pipeline.schema import UNKNOWN_CATEGORY

WEEKDAYS = range(7)
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, order=True)
class Window:
    """Days before as_of, both inclusive: Window(1, 7) is as_of-7 .. as_of-1, Window(31, 60) is as_of-60 .. as_of-31."""

    newest: int
    oldest: int

    def __post_init__(self) -> None:
        if not 1 <= self.newest <= self.oldest:
            raise ValueError(
                f"window {self.newest}..{self.oldest}: the newest day is at least 1 day before as_of and not "
                "older than the oldest; give Window(newest, oldest) with 1 <= newest <= oldest"
            )

    @property
    def days(self) -> int:
        """How many days it spans."""
        return self.oldest - self.newest + 1

    @property
    def label(self) -> str:
        """`30d` when it reaches to the day before as_of, else `31_60d`."""
        return f"{self.oldest}d" if self.newest == 1 else f"{self.newest}_{self.oldest}d"


@dataclass(frozen=True)
class WindowTotal:
    """A whole number summed over a window: measure `transactions` or `amount`, of one target or of everything."""

    measure: str
    window: Window
    target: str | None = None

    @property
    def source(self) -> str:
        """The column of the pieces that is summed."""
        return self.measure if self.target is None else of_target(self.measure, self.target)

    @property
    def column(self) -> str:
        """The column of the totals that holds it."""
        return f"{self.source}~{self.window.label}"


def of_target(measure: str, target: str) -> str:
    """The column that holds a measure of one target alone; no target's name can hold an @."""
    return f"{measure}@{target}"


def on_weekday(weekday: int) -> str:
    """The column that counts transactions on one day of the week, Monday 0."""
    return f"transactions_on_{weekday}"


def build_totals(
    purchases: ir.Table, as_of_days: Sequence[date], targets: Sequence[str], window_totals: Sequence[WindowTotal]
) -> ir.Table:
    """One row per (as_of, customer with a transaction before as_of); only days < as_of count.

    customer_id, as_of, as_of_day (days since 1970-01-01), then whole numbers: money in 1/10,000 of the currency unit,
    quantities in thousandths, days since 1970-01-01. Windows without anything are 0.
    """
    windows = sorted({total.window for total in window_totals})
    calendar = Calendar(sorted(set(as_of_days)), windows)
    lines = purchases.filter(purchases.day < ibis.literal(calendar.as_of_days[-1]))
    transactions = _placed(_build_transactions(lines, targets), calendar)
    lifetime = _running_totals(_period_totals(transactions, lines, calendar, targets), calendar, targets)
    recent = _window_totals(transactions, calendar, window_totals)
    joined = lifetime.left_join(recent, ["customer_id", "as_of_number"])
    return joined.select(
        "customer_id",
        "as_of",
        "as_of_day",
        *[
            lifetime[name]
            for name in lifetime.columns
            if name not in ("customer_id", "as_of", "as_of_day", "as_of_number")
        ],
        **{total.column: joined[total.column].fill_null(0) for total in window_totals},
    )


class Calendar:
    """The days that any window of any as_of sees, cut into pieces at all edges of all windows.

    A piece is the longest run of days that every window of every as_of sees whole or not at all. A period is what
    lies between two as_of days: period k is seen since the beginning by as_of number k and all later ones.
    """

    def __init__(self, as_of_days: Sequence[date], windows: Sequence[Window]) -> None:
        self.as_of_days = tuple(as_of_days)
        self._numbers = [(as_of - _EPOCH).days for as_of in as_of_days]
        self._windows = windows
        edges = set(self._numbers)
        for window in windows:
            edges |= {as_of - window.oldest for as_of in self._numbers}
            edges |= {as_of - window.newest + 1 for as_of in self._numbers}
        self._edges = sorted(edges)

    @property
    def eve(self) -> date:
        """The day before all pieces: it stands for itself and all earlier days."""
        return _EPOCH + timedelta(days=self._edges[0] - 1)

    def days(self) -> ir.Table:
        """One row per day from the eve to the last as_of - 1: calendar_day, piece (-1 on the eve), period."""
        first, last = self._edges[0], self._numbers[-1]
        rows: dict[str, list[object]] = {"calendar_day": [self.eve], "piece": [-1], "period": [0]}
        piece, period = 0, 0
        for day in range(first, last):
            while piece + 1 < len(self._edges) and self._edges[piece + 1] <= day:
                piece += 1
            while self._numbers[period] <= day:
                period += 1
            rows["calendar_day"].append(_EPOCH + timedelta(days=day))
            rows["piece"].append(piece)
            rows["period"].append(period)
        return ibis.memtable(rows, schema={"calendar_day": "date", "piece": "int32", "period": "int32"})

    def sights(self) -> ir.Table:
        """One row per (piece, as_of that sees it in some window): piece, as_of_number, one flag per window."""
        flags: dict[str, list[object]] = {_flag(window): [] for window in self._windows}
        rows: dict[str, list[object]] = {"piece": [], "as_of_number": [], **flags}
        for piece, start in enumerate(self._edges[:-1]):
            for number, as_of in enumerate(self._numbers):
                seen = [window.newest <= as_of - start <= window.oldest for window in self._windows]
                if any(seen):
                    rows["piece"].append(piece)
                    rows["as_of_number"].append(number)
                    for window, flag in zip(self._windows, seen, strict=True):
                        rows[_flag(window)].append(flag)
        schema = {"piece": "int32", "as_of_number": "int32", **dict.fromkeys(flags, "boolean")}
        return ibis.memtable(rows, schema=schema)

    def as_ofs(self) -> ir.Table:
        """One row per as_of day: as_of_number (0, 1, ... in time), as_of, as_of_day."""
        rows = {
            "as_of_number": list(range(len(self._numbers))),
            "as_of": list(self.as_of_days),
            "as_of_day": self._numbers,
        }
        return ibis.memtable(rows, schema={"as_of_number": "int32", "as_of": "date", "as_of_day": "int32"})


def _flag(window: Window) -> str:
    return f"in_{window.label}"


def _exact(total: ir.Column) -> ir.Column:
    # DuckDB sums int64 into 128 bits; back to 64, the tables in between take half the room and time.
    return total.cast("decimal(38, 0)").cast("int64")


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


def _placed(dated: ir.Table, calendar: Calendar) -> ir.Table:
    """The same rows with their day's piece and period; days before the first piece fall on the eve."""
    days = calendar.days()
    return dated.join(days, ibis.greatest(dated.day, ibis.literal(calendar.eve)) == days.calendar_day).drop(
        "calendar_day"
    )


def _period_totals(transactions: ir.Table, lines: ir.Table, calendar: Calendar, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, period with any line): the lifetime measures of that period alone."""
    sold = transactions.transactions == 1
    day = transactions.day.epoch_days().cast("int32")
    weekday = transactions.day.day_of_week.index()
    wide = transactions.gross.cast("decimal(38, 0)")
    measures = {
        "transactions": _sum(transactions.transactions),
        "first_day": day.min(where=sold),
        "last_day": day.max(where=sold),
        "gross": _sum(transactions.gross),
        "squared_gross": (wide * wide).sum(),
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
    totals = transactions.group_by("customer_id", "period").aggregate(**measures)
    valid_lines = lines.filter(lines.spend_units > 0)
    known = valid_lines.filter(valid_lines.category != UNKNOWN_CATEGORY)
    for name, things in (("products", valid_lines.product_id), ("stores", valid_lines.store_id)):
        totals = _with_first_sights(totals, name, valid_lines.filter(things.notnull()), things.get_name(), calendar)
    return _with_first_sights(totals, "categories", known, "category", calendar)


def _with_first_sights(totals: ir.Table, name: str, lines: ir.Table, thing: str, calendar: Calendar) -> ir.Table:
    """Adds how many things the customer bought for the first time in the period: their running total is distinct."""
    firsts = _placed(lines.group_by("customer_id", thing).aggregate(day=lines.day.min()), calendar)
    counts = firsts.group_by("customer_id", "period").aggregate(**{name: firsts.count()})
    joined = totals.left_join(counts, ["customer_id", "period"])
    return joined.select(*[totals[column] for column in totals.columns], **{name: counts[name].fill_null(0)})


def _running_totals(periods: ir.Table, calendar: Calendar, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, as_of) since the first transaction: the measures of all periods that as_of sees.

    Totals change only with a period that has lines, so they run over those, and each row then stands for all
    as_of days until the next one.
    """
    past = ibis.cumulative_window(group_by=periods.customer_id, order_by=periods.period)
    lowest = {"first_day", "smallest_gross"}
    highest = {"last_day", "largest_gross", "most_items", *(of_target("last_day", target) for target in targets)}
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
    spans = periods.select("customer_id", "period", upto=upto.fill_null(len(calendar.as_of_days)), **running)
    spans = spans.filter(spans.transactions > 0)
    as_ofs = calendar.as_ofs()
    seen = [as_ofs.as_of_number >= spans.period, as_ofs.as_of_number < spans.upto]
    return spans.join(as_ofs, seen).drop("period", "upto")


def _window_totals(transactions: ir.Table, calendar: Calendar, window_totals: Sequence[WindowTotal]) -> ir.Table:
    """One row per (customer, as_of that sees a transaction of the customer in some window)."""
    sources = sorted({total.source for total in window_totals})
    recent = transactions.filter(transactions.piece >= 0)
    pieces = recent.group_by("customer_id", "piece").aggregate(**{name: _sum(recent[name]) for name in sources})
    sights = calendar.sights()
    seen = pieces.join(sights, "piece")
    sums = {total.column: _sum(seen[total.source], where=seen[_flag(total.window)]) for total in window_totals}
    return seen.group_by("customer_id", "as_of_number").aggregate(**sums)
