"""Cleans the headers of sales, and finds the last day of the data."""

import itertools
from collections.abc import Sequence
from datetime import date

import ibis
import ibis.expr.types as ir

from ml_pipeline.amounts import with_amount
from ml_pipeline.dates import PLACEHOLDER_DAY
from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.judging import (
    OUTLIER_FACTOR,
    OUTLIER_MIN_ROWS,
    OUTLIER_QUANTILE,
    Judge,
    amount_rules,
    first_rule,
    given,
    one_row,
)
from ml_pipeline.schema import AMOUNT_SCALE, HEADERS, LINES, MAX_ID_LENGTH
from ml_pipeline.tables import drop_tables, id_of, materialise

FUTURE_GAP_DAYS = 30
"""Behind a gap of more days than this ..."""
FUTURE_SHARE = 0.001
"""... no more than this share of the header rows may follow for them to count as the future."""
DOUBTFUL_SHARE = 0.01
"""More than FUTURE_SHARE and no more than this behind such a gap count as data, with a warning."""
FARTHEST_AS_OF_DAYS = 3_653
"""A given as_of may lie so far behind the last day of the data."""
SMALL_TABLE = 1_000
"""Below so many rows a single row is already more than the share; it counts as the future ..."""
STRAY_GAP_DAYS = 365
"""... behind a gap of more days than this."""
TOTAL_TOLERANCE = AMOUNT_SCALE // 100
"""A header's total may differ from its lines by so much before it contradicts them: 0.01."""


def find_last_day(rows_by_day: Sequence[tuple[date, int]]) -> date:
    """The last day of the data: the earliest day after which almost nothing follows, behind a gap.

    Almost nothing: no more than 0.1 % of the rows behind more than 30 days, or below 1,000 rows one single row behind
    more than 365 days. rows_by_day: sorted by day, not empty.
    """
    total = sum(rows for _, rows in rows_by_day)
    after = total
    for (day, rows), (following, _) in itertools.pairwise(rows_by_day):
        after -= rows
        gap = (following - day).days
        few = gap > FUTURE_GAP_DAYS and after <= FUTURE_SHARE * total
        stray = total < SMALL_TABLE and gap > STRAY_GAP_DAYS and after == 1
        if few or stray:
            return day
    return rows_by_day[-1][0]


def judge_headers(judge: Judge) -> tuple[ir.Table, date]:
    """Every header with its `rule` (null = kept), and the last day of the data.

    Raises NotEnoughHistory when none can be kept.
    """
    dated = _read_headers(judge)
    judged = materialise(judge.engine, dated.mutate(rule=_header_rule(judge, dated)), HEADERS.name)
    drop_tables(judge.engine, dated)
    judge.note_rounded(judged, f"{HEADERS.name}.total_amount", "total_rounded", 4)
    last_day = _last_day(judge, judged)
    future = ("future_date", judged.transaction_date_day > last_day)
    ruled = judged.mutate(rule=first_rule((judged.rule, judged.rule.notnull()), future))
    return judge.set_repeats_aside(ruled, ("transaction_id",), "duplicate_transaction_id"), last_day


def finish_headers(
    judge: Judge, judged: ir.Table, lines: ir.Table | None, customers: ir.Table | None, stores: ir.Table | None
) -> ir.Table:
    """The kept headers, with what their kept lines sum to; flags them. `judged` goes.

    row_number, transaction_id, customer_id, store_id ('' = none), day, total_units (null = unknown), line_count,
    lines_units.
    """
    kept = judge.settle(judged, HEADERS.name, "total_units").rename(day="transaction_date_day")
    if lines is None:
        kept = kept.mutate(line_count=ibis.literal(0, "int64"), lines_units=ibis.literal(0, "int64"))
    else:
        sums = lines.group_by("header_row").agg(line_count=lines.count(), lines_units=lines.amount_units.sum())
        kept = kept.left_join(sums, kept.row_number == sums.header_row)
        kept = kept.mutate(line_count=kept.line_count.fill_null(0), lines_units=kept.lines_units.fill_null(0))
    if customers is not None:
        known = customers.select(known_customer="customer_id", since="customer_since")
        kept = kept.left_join(known, kept.customer_id == known.known_customer)
    if stores is not None:
        known = stores.select(known_store="store_id")
        kept = kept.left_join(known, kept.store_id == known.known_store)
    _flag_headers(judge, kept, lines is not None)
    headers = kept.select(
        "row_number", "transaction_id", "customer_id", "store_id", "day", "total_units", "line_count", "lines_units"
    )
    headers = materialise(judge.engine, headers, f"clean_{HEADERS.name}")
    drop_tables(judge.engine, judged)
    return headers


def _read_headers(judge: Judge) -> ir.Table:
    rows = judge.raw[HEADERS.name]
    selected = rows.select(
        "row_number",
        "transaction_date",
        transaction_id=id_of(rows.transaction_id),
        customer_id=id_of(rows.customer_id),
        store_id=id_of(rows.store_id) if "store_id" in rows.columns else ibis.literal(""),
        **given(rows, "total_amount"),
    )
    if "total_amount" in rows.columns:
        selected = judge.read_number(with_amount, selected, HEADERS.name, "total_amount", "total")
    else:
        selected = selected.mutate(
            total_units=ibis.null("int64"), total_fault=ibis.literal("missing"), total_rounded=ibis.literal(False)
        )
    return judge.read_days(selected, HEADERS.name, "transaction_date")


def _header_rule(judge: Judge, rows: ir.Table) -> ir.Value:
    day, fault = rows.transaction_date_day, rows.transaction_date_fault
    longest = ibis.greatest(rows.transaction_id.length(), rows.customer_id.length(), rows.store_id.length())
    rules: list[tuple[str | ir.Value, ir.Value]] = [
        ("empty_transaction_id", rows.transaction_id == ""),
        ("empty_customer_id", rows.customer_id == ""),
        ("overlong_id", longest > MAX_ID_LENGTH),
        ("empty_date", fault == "empty"),
        ("unreadable_date", fault == "unreadable"),
        ("contradicting_date", fault == "contradicts"),
        ("implausible_date", day <= PLACEHOLDER_DAY),
    ]
    if LINES.name not in judge.raw:
        rules += amount_rules(rows.total_fault)
    if judge.as_of is not None:
        rules.append(("on_or_after_as_of", day >= judge.as_of))
    return first_rule(*rules)


def _last_day(judge: Judge, judged: ir.Table) -> date:
    days = judged.filter(judged.rule.isnull()).group_by(day=judged.transaction_date_day).agg(rows=ibis._.count())
    counts = [(row["day"], row["rows"]) for row in days.order_by("day").to_pyarrow().to_pylist()]
    if not counts:
        judge.settle(judged, HEADERS.name, "total_units")
        rules = judge.report.tables[HEADERS.name].rules
        why = ", ".join(f"{count.rows} {rule}" for rule, count in rules.items()) or "the table has no rows"
        raise NotEnoughHistory(
            f"{HEADERS.name} has no row that can be kept ({why}); at least one dated row with a customer is needed."
        )
    judge.report.first_day = counts[0][0]
    last_day = find_last_day(counts)
    judge.report.warnings += [*doubtful_end(counts, last_day), *_distant_as_of(judge.as_of, last_day)]
    return last_day


def doubtful_end(rows_by_day: Sequence[tuple[date, int]], last_day: date) -> list[str]:
    """A warning where a few rows behind a long gap are too many to be set aside, and so decide the last day."""
    kept = [(day, rows) for day, rows in rows_by_day if day <= last_day]
    after = total = sum(rows for _, rows in rows_by_day)
    for (day, rows), (following, _) in itertools.pairwise(kept):
        after -= rows
        if (following - day).days > FUTURE_GAP_DAYS and after <= DOUBTFUL_SHARE * total:
            return [
                f"{HEADERS.name}: {after} rows follow {day} behind a gap of {(following - day).days} days; they are more "
                f"than {FUTURE_SHARE:.1%} of {total} and count as data, so the last day is {last_day}. If their dates are "
                "wrong, correct them or give an as_of"
            ]
    return []


def _distant_as_of(as_of: date | None, last_day: date) -> list[str]:
    """A warning where a given as_of lies far behind the data. Raises NotEnoughHistory where it lies years behind."""
    days = 0 if as_of is None else (as_of - last_day).days
    if days > FARTHEST_AS_OF_DAYS:
        raise NotEnoughHistory(
            f"as_of {as_of} is {days} days after the last day of the data, {last_day}; more than {FARTHEST_AS_OF_DAYS} "
            "days of nothing are no history to learn from. Give an earlier as_of, or leave it out."
        )
    if days > FUTURE_GAP_DAYS:
        return [
            f"as_of {as_of} is {days} days after the last day of the data, {last_day}: in between nobody buys anything, "
            "and what is learned and predicted says so"
        ]
    return []


def _flag_headers(judge: Judge, headers: ir.Table, has_lines: bool) -> None:
    bare = headers.line_count == 0
    total = headers.total_units.fill_null(0)
    conditions: dict[str, ir.Value] = {
        "header_without_amount": bare & (total == 0),
        "return_header": bare & (total < 0),
    }
    if has_lines:
        conditions["header_without_lines"] = bare & (total > 0)
        conditions["unreadable_total"] = headers.total_fault.isin(["unreadable", "out of range"])
        off = (headers.total_units - headers.lines_units).abs()
        judge.flag(headers, {"total_contradicts_lines": ~bare & (off > TOTAL_TOLERANCE)}, off)
    if judge.raw.has(HEADERS.name, "store_id"):
        conditions["missing_store_id"] = headers.store_id == ""
    if "known_store" in headers.columns:
        conditions["unknown_store"] = (headers.store_id != "") & headers.known_store.isnull()
    if "known_customer" in headers.columns:
        conditions["customer_not_in_details"] = headers.known_customer.isnull()
        conditions["date_before_customer_since"] = headers.day < headers.since
    alone = headers.filter(bare & (total > 0))
    limit = one_row(alone, rows=alone.count(), most=alone.total_units.quantile(OUTLIER_QUANTILE))
    if limit["rows"] >= OUTLIER_MIN_ROWS:
        conditions["outlier_header"] = bare & (total > OUTLIER_FACTOR * limit["most"])
    judge.flag(headers, conditions, bare.ifelse(total, headers.lines_units))
