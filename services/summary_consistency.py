"""What a customer's numbers can be together: what cannot be is refused, what does not fit is settled and said.

Days are counted with a day's leave: whoever counts today among the last 30 days and whoever does not are both believed. A
purchase so many days ago is surely among the orders of the last 30 days if it was 1 to 29 days ago, surely not from 31 on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from services.errors import InvalidRequest
from services.summary_fields import MOST_DAYS, shown_number

WINDOWS = (30, 60, 90)
MONEY_FITS_WITHIN = 0.005
"""Of the total: averages come rounded, or cut off."""
GAP_FITS_WITHIN = 0.5
"""Days: gaps come as whole ones."""


@dataclass(frozen=True)
class Given:
    """A number as it was read, and the field that it came in."""

    field: str
    value: float

    def __str__(self) -> str:
        return f"{self.field} ({shown_number(self.value)})"

    @property
    def said(self) -> str:
        """`recency is 30`."""
        return f"{self.field} is {shown_number(self.value)}"


CORRECT_ONE = "Correct one of them, or leave it out."
Known = Mapping[str, Given]
"""By the names of `summary_columns.SUMMARY_INPUTS`; absent = not known."""


# ---- what cannot be


def refuse_impossible(known: Known) -> None:
    """Raises InvalidRequest for numbers of which one must be wrong, naming both."""
    _refuse_last_before_first(known)
    _refuse_more_in_shorter_time(known)
    _refuse_something_from_nothing(known)
    if not _is_nobodys(known):
        _refuse_last_purchase_outside_its_window(known)
        _refuse_orders_before_the_first(known)


def _refuse_last_before_first(known: Known) -> None:
    last, first = known.get("days_since_last"), known.get("days_since_first")
    if last and first and last.value > first.value:
        raise InvalidRequest(
            f"{last.said} and {first.said}: the last purchase cannot be longer ago than the first. Send the days since the "
            f"last purchase as {last.field} and those since the first as {first.field}."
        )


def _refuse_more_in_shorter_time(known: Known) -> None:
    names = (*(f"transactions_{days}d" for days in WINDOWS), "transactions")
    for shorter, longer in pairwise(known[name] for name in names if name in known):
        if shorter.value > longer.value:
            raise InvalidRequest(
                f"{shorter.said} and {longer.said}: the orders of a shorter time are among those of a longer one. "
                f"{CORRECT_ONE}"
            )


def _refuse_something_from_nothing(known: Known) -> None:
    for orders, bought in _orders_and_bought(known):
        if not orders.value and bought.value:
            raise InvalidRequest(
                f"{orders.said} and {bought.said}: without an order nothing is bought. Correct one of them, or leave out what "
                "is not known (it is not 0)."
            )


def _orders_and_bought(known: Known) -> Iterator[tuple[Given, Given]]:
    """Numbers of orders, and what was bought in all of them or in some."""
    everything = ("total_spend", "avg_transaction_value", "distinct_products", "distinct_categories", "total_items")
    pairs = [("transactions", name) for name in (*everything, *(f"spend_{days}d" for days in WINDOWS))]
    pairs += [(f"transactions_{days}d", f"spend_{part}d") for days in WINDOWS for part in WINDOWS if part <= days]
    for orders, bought in pairs:
        if orders in known and bought in known:
            yield known[orders], known[bought]


def _refuse_last_purchase_outside_its_window(known: Known) -> None:
    last = known.get("days_since_last")
    if last is None:
        return
    for days in WINDOWS:
        orders, spend = known.get(f"transactions_{days}d"), known.get(f"spend_{days}d")
        if orders and not orders.value and 1 <= last.value <= days - 1:
            raise InvalidRequest(
                f"{last.said} and {orders.said}: the last purchase is one of the last {days} days. {CORRECT_ONE}"
            )
        for bought in (orders, spend):
            if bought and bought.value and last.value >= days + 1:
                raise InvalidRequest(
                    f"{last.said} and {bought.said}: the last purchase is older than {days} days, and none came after it. "
                    f"{CORRECT_ONE}"
                )


def _refuse_orders_before_the_first(known: Known) -> None:
    first, everything = known.get("days_since_first"), known.get("transactions")
    if first is None or everything is None:
        return
    for days in WINDOWS:
        orders = known.get(f"transactions_{days}d")
        if orders and orders.value != everything.value and 1 <= first.value <= days - 1:
            raise InvalidRequest(
                f"{first.said}, {orders.said} and {everything.said}: all orders since the first purchase are of the last "
                f"{days} days. {CORRECT_ONE}"
            )


# ---- what does not fit


@dataclass
class Settled:
    """The numbers that are used, by input; warnings about those that did not fit; fields that say nothing, and why."""

    inputs: dict[str, float]
    warnings: list[str] = field(default_factory=list)
    ignored: dict[str, str] = field(default_factory=dict)


def settle(known: Known) -> Settled:
    """What is used of numbers that can be, and what follows from them: an average, a total, a gap, an age."""
    settled = Settled({name: given.value for name, given in known.items()})
    if _is_nobodys(known):
        _settle_nobody(known, settled)
        return settled
    _settle_days(known, settled)
    _settle_money(known, settled)
    _doubt_parts(known, settled)
    _doubt_age(known, settled)
    _doubt_nothing(known, settled)
    return settled


def _is_nobodys(known: Known) -> bool:
    return "transactions" in known and not known["transactions"].value


def _settle_nobody(known: Known, settled: Settled) -> None:
    """Of one who never bought only the time since he is known says anything."""
    used = ("transactions", "days_since_first")
    settled.inputs = {name: settled.inputs[name] for name in used if name in known}
    registered = known.get("days_since_first")
    such = (
        f"such customers {shown_number(registered.value)} days after they registered"
        if registered
        else "such customers"
    )
    settled.warnings.append(
        f"{known['transactions'].said}: nothing was bought yet. The answer is what {such} spent in the past."
    )
    for name in ("days_since_last", "avg_days_between"):
        if name in known and known[name].value:
            settled.ignored[known[name].field] = "Nothing was bought yet, so there is no last purchase and no gap."


def _settle_days(known: Known, settled: Settled) -> None:
    orders = known.get("transactions")
    if orders is None:
        _check_gap(known, settled)
    elif orders.value == 1:
        _settle_single_order(orders, known, settled)
    elif {"days_since_last", "days_since_first"} <= known.keys():
        _settle_gap(orders, known, settled)
    elif "avg_days_between" in known:
        _settle_age_by_gap(orders, known, settled)


def _settle_single_order(orders: Given, known: Known, settled: Settled) -> None:
    """The first order is the last."""
    last, first, gap = (known.get(name) for name in ("days_since_last", "days_since_first", "avg_days_between"))
    if last and first and last.value != first.value:
        settled.warnings.append(
            f"{last.said} and {first.said}, but {orders.said}: a single order is the first and the last. The first purchase "
            f"was taken to be {shown_number(last.value)} days ago, too. Leave out {first.field} where it counts from the "
            "registration."
        )
    if day := last or first:
        settled.inputs |= {"days_since_last": day.value, "days_since_first": day.value}
    if gap:
        _drop_gap(gap, "a single order has no next one", settled, warn=gap.value > 0)


def _settle_gap(orders: Given, known: Known, settled: Settled) -> None:
    last, first = known["days_since_last"], known["days_since_first"]
    gap, used = known.get("avg_days_between"), (first.value - last.value) / (orders.value - 1)
    settled.inputs["avg_days_between"] = used
    if gap and abs(gap.value - used) > GAP_FITS_WITHIN:
        settled.warnings.append(
            f"{gap.said}, but ({first.field} − {last.field}) / ({orders.field} − 1) = ({shown_number(first.value)} − "
            f"{shown_number(last.value)}) / {shown_number(orders.value - 1)} = {shown_number(used)}; {shown_number(used)} was used."
        )


def _settle_age_by_gap(orders: Given, known: Known, settled: Settled) -> None:
    """The gap and the days since the first purchase or the last give those since the other."""
    gap = known["avg_days_between"]
    last, first = known.get("days_since_last"), known.get("days_since_first")
    span, slack = gap.value * (orders.value - 1), GAP_FITS_WITHIN * (orders.value - 1)
    longest = first.value if first else MOST_DAYS - (last.value if last else 0)
    if span > longest + slack:
        _drop_gap(gap, f"{shown_number(orders.value)} orders so far apart take {shown_number(span)} days", settled)
    elif last:
        settled.inputs["days_since_first"] = min(last.value + span, MOST_DAYS)
    elif first:
        settled.inputs["days_since_last"] = max(first.value - span, 0.0)


def _check_gap(known: Known, settled: Settled) -> None:
    gap, last, first = (known.get(name) for name in ("avg_days_between", "days_since_last", "days_since_first"))
    if gap and first:
        between = first.value - (last.value if last else 0.0)
        if gap.value > between + GAP_FITS_WITHIN:
            days = shown_number(between)
            _drop_gap(gap, f"there are only {days} days from the first purchase to the last", settled)


def _drop_gap(gap: Given, why: str, settled: Settled, warn: bool = True) -> None:
    del settled.inputs["avg_days_between"]
    if warn:
        settled.warnings.append(f"{gap} was not used: {why}.")


def _settle_money(known: Known, settled: Settled) -> None:
    total, average, orders = (known.get(name) for name in ("total_spend", "avg_transaction_value", "transactions"))
    if total and average and not orders:
        if average.value > total.value and not _is_about(average.value, total.value, 1):
            del settled.inputs["avg_transaction_value"]
            settled.warnings.append(f"{average} is more than {total}, which was used alone: a part exceeds no whole.")
    elif total and orders:
        settled.inputs["total_spend"] = spent = _whole_spend(total, average, orders, settled)
        settled.inputs["avg_transaction_value"] = spent / orders.value
    elif average and orders:
        settled.inputs["total_spend"] = average.value * orders.value


def _whole_spend(total: Given, average: Given | None, orders: Given, settled: Settled) -> float:
    """The money of all orders; says how it was told where it does not fit the average."""
    if average is None or _is_about(average.value * orders.value, total.value, orders.value):
        return total.value
    product = shown_number(average.value * orders.value)
    misfit = f"{total.said}, but {average.field} × {orders.field} = {shown_number(average.value)} × {shown_number(orders.value)} = {product}"
    if total.field == "monetary_value" and _is_about(average.value, total.value, 1):
        settled.warnings.append(
            f"{misfit}. It is the average once more, so {product} was used as the money spent so far; send total_spend where "
            f"{shown_number(total.value)} is all of it."
        )
        return average.value * orders.value
    settled.warnings.append(
        f"{misfit}; {shown_number(total.value)} was used, and {shown_number(total.value / orders.value)} per order."
    )
    return total.value


def _is_about(product: float, total: float, orders: float) -> bool:
    """Whether they differ by no more than rounding: a half percent, or a cent per order."""
    return abs(product - total) <= max(MONEY_FITS_WITHIN * total, 0.01 * orders)


def _doubt_parts(known: Known, settled: Settled) -> None:
    """Money of a shorter time above that of a longer can be, where something was returned in between."""
    names = (*(f"spend_{days}d" for days in WINDOWS), "total_spend")
    for shorter, longer in pairwise(known[name] for name in names if name in known):
        if shorter.value > longer.value and not _is_about(shorter.value, longer.value, 1):
            settled.warnings.append(
                f"{shorter} is more than {longer}, which should hold it; both were used as they were sent."
            )
    kinds, products = known.get("distinct_categories"), known.get("distinct_products")
    if kinds and products and kinds.value > products.value:
        settled.warnings.append(
            f"{kinds} is more than {products}, though a product is of one category; both were used as they were sent."
        )


def _doubt_age(known: Known, settled: Settled) -> None:
    """An age that is older than any order most often counts from the registration; a single order is settled already."""
    first, everything = known.get("days_since_first"), known.get("transactions")
    if first is None or everything is None or everything.value <= 1:
        return
    for days in reversed(WINDOWS):
        orders = known.get(f"transactions_{days}d")
        if orders and orders.value == everything.value and first.value >= days + 1:
            settled.warnings.append(
                f"{first.said}, but {orders.said} and {everything.said}: all orders are of the last {days} days. All were used "
                f"as they were sent. Leave out {first.field} where it counts from the registration."
            )
            return


def _doubt_nothing(known: Known, settled: Settled) -> None:
    """0 is often sent for what is not known."""
    inputs = ("total_spend", "distinct_products", "distinct_categories", "total_items")
    pairs = [
        *(("transactions", name) for name in inputs),
        *((f"transactions_{days}d", f"spend_{days}d") for days in WINDOWS),
    ]
    for orders, bought in ((known.get(orders), known.get(bought)) for orders, bought in pairs):
        if orders and bought and orders.value and not bought.value:
            settled.warnings.append(
                f"{bought.said}, but {orders.said}; both were used as they were sent. Leave out what is not known: it is not 0."
            )
