"""What each as_of still sees of lines that were cancelled: before the cancellation the whole line, after it none of it.

A customer whose cancellation falls between two as_of days is described as several customers, one for each stretch of
as_of days that know of the same cancellations; whoever sums the lines need not know. Other customers stay one.
"""

import ibis
import ibis.expr.types as ir

from ml_pipeline.cancellations import as_known_before
from ml_pipeline.windows import TimeTables


def versions_of_customers(purchases: ir.Table, time: TimeTables) -> ir.Table:
    """One row per stretch of as_of days that know of the same cancellations, for customers who have several stretches.

    of_customer, version_id (in place of the customer_id), since and upto (as_of_number, upto exclusive), knows_before
    (date: the last as_of of the stretch). A cancellation before that day is known in the whole stretch, or it is one of a
    line that no earlier as_of of the stretch sees.
    """
    cancelled = purchases.filter(purchases.cancelled_on < time.end)
    cancelled = cancelled.select("customer_id", "day", "cancelled_on").distinct()
    sold = _with_period(cancelled, "day", "sold_period", time)
    both = _with_period(sold, "cancelled_on", "cancelled_period", time)
    late = both.filter(both.sold_period < both.cancelled_period)
    starts = ibis.union(
        late.select("customer_id", since=late.cancelled_period),
        late.select("customer_id", since=ibis.literal(0, "int32")),
        distinct=True,
    )
    following = starts.since.lead(1).over(ibis.window(group_by="customer_id", order_by="since"))
    stretches = starts.mutate(upto=following.fill_null(time.n_as_ofs))
    as_ofs = time.as_ofs.view()
    dated = stretches.join(as_ofs, stretches.upto - 1 == as_ofs.as_of_number)
    # No customer_id begins with a blank: outer blanks are not part of an id.
    version_id = ibis.literal(" ") + dated.since.cast("string") + " " + dated.customer_id
    return dated.select(
        "since", "upto", of_customer=dated.customer_id, version_id=version_id, knows_before=dated.as_of
    )  # fmt: skip


def with_retractions(purchases: ir.Table, versions: ir.Table, time: TimeTables) -> ir.Table:
    """The lines before the last as_of; those of customers with versions once per version, under its version_id.

    Lines whose cancellation the version (or, without versions, the last as_of) knows of are no spend any more.
    """
    lines = purchases.filter(purchases.day < time.end)
    joined = lines.left_join(versions, lines.customer_id == versions.of_customer)
    known = as_known_before(joined, joined.knows_before.fill_null(time.end))
    changed = {"customer_id": known.version_id.fill_null(known.customer_id)}
    return known.select(**{name: changed.get(name, known[name]) for name in purchases.columns})


def without_versions(totals: ir.Table, versions: ir.Table) -> ir.Table:
    """Rows per (customer or version, as_of_number) as rows per (customer, as_of_number): each version where it holds."""
    joined = totals.left_join(versions, totals.customer_id == versions.version_id)
    within = (joined.as_of_number >= joined.since) & (joined.as_of_number < joined.upto)
    held = joined.filter(joined.version_id.isnull() | within)
    changed = {"customer_id": held.of_customer.fill_null(held.customer_id)}
    return held.select(**{name: changed.get(name, held[name]) for name in totals.columns})


def _with_period(dated: ir.Table, column: str, period: str, time: TimeTables) -> ir.Table:
    """Adds the period of a day: the number of the first as_of that sees it."""
    days = time.days.view()
    placed = dated.join(days, ibis.greatest(dated[column], time.eve) == days.calendar_day)
    return placed.select(*dated.columns, **{period: placed.period})
