"""What customers really spent in the window of an as_of: the labels. Serving never imports this file."""

from collections.abc import Sequence
from datetime import date

import ibis
import ibis.expr.types as ir

from ml_pipeline.schema import AMOUNT_SCALE, HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET


def build_targets(
    purchases: ir.Table, as_of_days: Sequence[date], targets: Sequence[str], horizon_days: int = HORIZON_DAYS
) -> ir.Table:
    """One row per (as_of, customer with any line on as_of .. as_of + horizon_days - 1), in no order.

    customer_id, as_of, total, <each target>, other (float64 money; net spend below 0 counts as 0, each on its own),
    transactions (int64, those with a valid line). In gross mode targets + other = total, to the last unit.
    All valid lines of the window count, also those that were cancelled within it or later: what is predicted is what the
    shop's own sum of valid lines will show. In net mode a return subtracts on its own day, and nothing else does.
    Equal days count once. Raises ValueError when there is no day or no horizon.
    """
    sums = _window_sums(purchases, as_of_days, targets, horizon_days)
    money = {
        name: ibis.greatest(sums[name], 0).cast("float64") / AMOUNT_SCALE
        for name in (TOTAL_TARGET, *targets, OTHER_TARGET)
    }
    return sums.select("customer_id", "as_of", **money, transactions=sums.transactions)


def net_floor_report(
    purchases: ir.Table, as_of_days: Sequence[date], targets: Sequence[str], horizon_days: int = HORIZON_DAYS
) -> ir.Table:
    """How often and how much the floor at 0 took away: one row per target, total and other included.

    target, rows (customer and as_of with any line in the window), floored_rows, floored_money (>= 0, in money).
    All zeros in gross mode.
    """
    sums = _window_sums(purchases, as_of_days, targets, horizon_days)
    floored = [
        sums.aggregate(
            target=ibis.literal(name),
            rows=sums.count(),
            floored_rows=sums.count(where=sums[name] < 0),
            floored_money=(-sums[name]).sum(where=sums[name] < 0).fill_null(0).cast("float64") / AMOUNT_SCALE,
        )
        for name in (TOTAL_TARGET, *targets, OTHER_TARGET)
    ]
    return ibis.union(*floored) if len(floored) > 1 else floored[0]


def _window_sums(
    purchases: ir.Table, as_of_days: Sequence[date], targets: Sequence[str], horizon_days: int
) -> ir.Table:
    """Whole units per (customer, as_of): total, each target, other; and transactions."""
    if not as_of_days:
        raise ValueError("as_of_days is empty: a target is the spend on the days from an as_of on; name at least one")
    if horizon_days < 1:
        raise ValueError(f"horizon_days={horizon_days}: a window has at least 1 day; the usual one has {HORIZON_DAYS}")
    days = sorted(set(as_of_days))
    windows = ibis.memtable({"as_of": days}, schema={"as_of": "date"})
    transactions = _build_transactions(purchases.filter(purchases.day >= ibis.literal(days[0])), targets)
    after = windows.as_of + ibis.interval(days=horizon_days)
    seen = transactions.join(windows, [transactions.day >= windows.as_of, transactions.day < after])
    names = (TOTAL_TARGET, *targets, OTHER_TARGET, "transactions")
    return seen.group_by("customer_id", "as_of").aggregate(
        **{name: seen[name].sum().cast("decimal(38, 0)").cast("int64") for name in names}
    )


def _build_transactions(lines: ir.Table, targets: Sequence[str]) -> ir.Table:
    """One row per (customer, transaction_id, day); `transactions` is 1 if a line of it is valid, else 0."""
    named = lines.target.isin(list(targets)) if targets else ibis.literal(False)
    return lines.group_by("customer_id", "transaction_id", "day").aggregate(
        **{TOTAL_TARGET: lines.amount_units.sum()},
        **{target: lines.amount_units.sum(where=lines.target == target).fill_null(0) for target in targets},
        **{OTHER_TARGET: lines.amount_units.sum(where=~named).fill_null(0)},
        transactions=(lines.spend_units > 0).cast("int64").max(),
    )
