"""Which lines of sales were taken back whole: matched with their returns where that is beyond doubt.

Lines are equal when customer, product, category, quantity and amount are. Of a sale and its return only the day is
known, so equal lines are told apart by nothing else: a sale counts as cancelled on the first day on which every equal
line sold until then has been given back. That day rests on earlier rows alone, so nothing before it can know of it.
"""

import ibis
import ibis.expr.types as ir

from ml_pipeline.data_report import CleaningReport, RuleCount
from ml_pipeline.judging import one_row

CANCELLATION_COLUMNS = ("cancelled_on", "cancelled_units")
"""What `with_cancellations` adds to purchases."""

_EQUAL = ("customer_id", "product", "category", "quantity_milli", "units")


def find_cancellations(purchases: ir.Table) -> ir.Table:
    """One row per (equal lines of which one was ever returned, day with such lines), in no order.

    customer_id, product ('' = none), category, quantity_milli, units (of one line, in 1/10,000), day; sold and
    given_back (lines of that day); matched (of the lines given back, those for which an equal one was open); cancelled_on
    (date, null while one of the open lines is still with the customer); refund_units (what one such return adds to
    spend: 0 in gross mode, -units in net mode).

    The open lines follow W = X - min(0, min X), X the running count of sold minus given back (the reflected walk of
    Lindley 1952): a return without an open line gives back what was bought before the data begin.
    """
    lines = purchases.select(
        "customer_id", "category", "quantity_milli", "day", "amount_units",
        product=purchases.product_id.fill_null(""),
        units=purchases.spend_units + purchases.return_units,
        returned=purchases.return_units > 0,
    )  # fmt: skip
    ever_returned = lines.filter(lines.returned).select(*_EQUAL).distinct()
    equal = lines.semi_join(ever_returned, _EQUAL)
    daily = equal.group_by(*_EQUAL, "day").aggregate(
        sold=equal.count(where=~equal.returned),
        given_back=equal.count(where=equal.returned),
        refund=equal.amount_units.min(where=equal.returned),
    )
    whole = ibis.window(group_by=_EQUAL)
    past = ibis.cumulative_window(group_by=_EQUAL, order_by="day")
    ahead = ibis.window(group_by=_EQUAL, order_by="day", preceding=0, following=None)
    walked = daily.mutate(walk=(daily.sold - daily.given_back).sum().over(past).cast("!int64"))
    walked = walked.mutate(lowest=ibis.least(walked.walk.min().over(past), 0))
    walked = walked.mutate(still_open=walked.walk - walked.lowest)
    before = walked.still_open.lag(1).over(ibis.window(group_by=_EQUAL, order_by="day")).fill_null(0)
    found = walked.mutate(open_lines=before + walked.sold)
    found = found.mutate(
        matched=ibis.least(found.given_back, found.open_lines),
        cancelled_on=(found.still_open == 0).ifelse(found.day, ibis.null("date")).min().over(ahead),
        refund_units=found.refund.min().over(whole),
    )
    return found.select(*_EQUAL, "day", "sold", "given_back", "matched", "cancelled_on", "refund_units")


def with_cancellations(purchases: ir.Table, cancellations: ir.Table) -> ir.Table:
    """The purchases with two more columns; `cancellations` as `find_cancellations` found them in these rows.

    cancelled_on: date, on valid lines that were taken back, else null. cancelled_units: int64, by how much the line's
    amount_units shrink from the day after cancelled_on on: to 0 in gross mode; not at all in net mode, where the return
    subtracts the same money already. 0 where cancelled_on is null.
    """
    found = cancellations.filter(cancellations.sold > 0, cancellations.cancelled_on.notnull())
    found = found.select(
        "cancelled_on", "refund_units",
        **{f"of_{name}": found[name] for name in (*_EQUAL, "day")},
    )  # fmt: skip
    # In pairs, each side of its own table. `purchases.product_id.fill_null("") == found.of_product` would not do: where
    # `cancellations` is still an expression over `purchases`, Ibis takes both sides of it for found.of_product.
    same = [
        ("customer_id", "of_customer_id"),
        (purchases.product_id.fill_null(""), "of_product"),
        ("category", "of_category"),
        ("quantity_milli", "of_quantity_milli"),
        ("spend_units", "of_units"),
        ("day", "of_day"),
    ]
    joined = purchases.left_join(found, same)
    return joined.select(
        *purchases.columns,
        "cancelled_on",
        cancelled_units=(joined.spend_units + joined.refund_units).fill_null(0),
    )


def as_known_before(purchases: ir.Table, day: ir.Value) -> ir.Table:
    """The purchases as they stand when every cancellation before `day` (an expression over them) is known.

    Lines cancelled before it have spend_units 0, and amount_units less by cancelled_units. They stay as lines, and
    returns stay as they are.
    """
    gone = (purchases.cancelled_on < day).fill_null(False)
    return purchases.mutate(
        spend_units=gone.ifelse(0, purchases.spend_units),
        amount_units=gone.ifelse(purchases.amount_units - purchases.cancelled_units, purchases.amount_units),
    )


def count_cancellations(cancellations: ir.Table, report: CleaningReport) -> None:
    """Adds to the flags of the report what was matched and what was not; a flag that holds nowhere is not reported."""
    taken_back = cancellations.cancelled_on.notnull()
    counts = {
        "order_line_cancelled": taken_back.ifelse(cancellations.sold, 0),
        "cancellation_matched": taken_back.ifelse(cancellations.matched, 0),
        "cancellation_ambiguous": taken_back.ifelse(0, cancellations.matched),
    }
    measures = {}
    for name, rows in counts.items():
        measures[f"{name}:rows"] = rows.sum()
        measures[f"{name}:units"] = (rows * cancellations.units).sum()
    row = one_row(cancellations, **measures)
    for name in counts:
        if row[f"{name}:rows"]:
            report.flags[name] = RuleCount(int(row[f"{name}:rows"]), int(row[f"{name}:units"]), None)
