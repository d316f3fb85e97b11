"""From clean tables to purchases, one row per line of a sale or return, and to customers."""

from typing import cast

import ibis
import ibis.expr.types as ir

from ml_pipeline.cancellations import (
    CANCELLATION_COLUMNS,
    count_cancellations,
    find_cancellations,
    with_cancellations,
)
from ml_pipeline.cleaning import CleanTables
from ml_pipeline.data_report import money_text
from ml_pipeline.schema import OTHER_TARGET, QUANTITY_SCALE, UNKNOWN_CATEGORY, DatasetConfig
from ml_pipeline.tables import drop_tables, materialise

_LINE_COLUMNS = (
    "customer_id",
    "transaction_id",
    "day",
    "category",
    "target",
    "product_id",
    "store_id",
    "quantity_milli",
    "spend_units",
    "return_units",
    "amount_units",
    "has_promotion",
)
PURCHASE_COLUMNS = (*_LINE_COLUMNS, *CANCELLATION_COLUMNS)


def build_purchases(clean: CleanTables, config: DatasetConfig) -> ir.Table:
    """The purchases, computed once and kept in the engine; one row per line, and one per header without a kept line.

    customer_id, transaction_id str | day date | category str (lower case, "unknown") | target str (a target's name or
    "other") | product_id, store_id str null | quantity_milli int64 >= 0 | spend_units int64, > 0 on valid lines, else 0 |
    return_units int64, > 0 on returns, else 0 | amount_units int64: spend_units in gross mode, spend_units - return_units
    in net mode | has_promotion bool null (throughout, where the shop has no promotion ids) | cancelled_on date null,
    cancelled_units int64 (see `cancellations.with_cancellations`). Lines with quantity or amount 0 are absent.
    Cancellations are counted into the report.
    """
    engine = _engine_of(clean.headers)
    lines = _lines_of_sales(clean, config)
    cancellations = materialise(engine, find_cancellations(lines), "cancellations")
    count_cancellations(cancellations, clean.report)
    purchases = with_cancellations(lines, cancellations).select(*PURCHASE_COLUMNS)
    purchases = materialise(engine, purchases, "purchases", stays=True)
    drop_tables(engine, cancellations)
    return purchases


def _lines_of_sales(clean: CleanTables, config: DatasetConfig) -> ir.Table:
    """The purchases before anything is known of cancellations."""
    bare = clean.headers.filter(clean.headers.line_count == 0, clean.headers.total_units != 0)
    rows = _of_headers(bare)
    if clean.lines is not None:
        rows = _of_lines(clean.lines, clean.headers).union(rows, distinct=False)
    valid = (rows.signed_milli > 0) & (rows.signed_units > 0)
    spend = valid.ifelse(rows.signed_units, 0)
    returned = valid.ifelse(0, rows.signed_units.abs())
    return rows.mutate(
        target=_target_of(rows["category"], config),
        product_id=rows.product_id.nullif(""),
        store_id=rows.store_id.nullif(""),
        quantity_milli=rows.signed_milli.abs(),
        spend_units=spend,
        return_units=returned,
        amount_units=spend if config.spend == "gross" else spend - returned,
    ).select(*_LINE_COLUMNS)


def build_customers(clean: CleanTables) -> ir.Table:
    """customer_id str, unique | customer_since date null: those of customer_details and of the kept headers."""
    buyers = clean.headers.select("customer_id").distinct()
    if clean.customers is None:
        rows = buyers.mutate(customer_since=ibis.null("date"))
    else:
        new = buyers.anti_join(clean.customers, "customer_id").mutate(customer_since=ibis.null("date"))
        rows = clean.customers.union(new, distinct=False)
    return materialise(_engine_of(clean.headers), rows, "customers", stays=True)


def describe_purchases(purchases: ir.Table, clean: CleanTables, config: DatasetConfig) -> None:
    """Adds to the report what the purchases hold, per target and in all, and targets that no product feeds."""
    total = purchases.agg(
        rows=purchases.count(),
        customers=purchases.customer_id.nunique(),
        spend=purchases.spend_units.sum(),
        returned=purchases.return_units.sum(),
        cancelled=purchases.spend_units.sum(where=purchases.cancelled_on.notnull()).fill_null(0),
    )
    row = total.to_pyarrow().to_pylist()[0]
    clean.report.purchases = {
        "rows": row["rows"],
        "customers": row["customers"],
        "spend": money_text(row["spend"]),
        "returned": money_text(row["returned"]),
        "cancelled": money_text(row["cancelled"]),
    }
    by_target = purchases.group_by("target").agg(lines=purchases.count(), spend=purchases.spend_units.sum())
    counted = {row["target"]: row for row in by_target.to_pyarrow().to_pylist()}
    for name in (*config.target_names, OTHER_TARGET):
        found = counted.get(name, {"lines": 0, "spend": 0})
        categories = list(config.targets.get(name, ("everything else",)))
        clean.report.targets[name] = {
            "categories": categories,
            "lines": found["lines"],
            "spend": money_text(found["spend"]),
        }
    if clean.products is not None:
        known = set(clean.products.select("category").distinct().to_pyarrow()["category"].to_pylist()) - {""}
        clean.report.warnings += [
            f"target {target}: no product has the category {category!r}; products have {', '.join(sorted(known)[:20])}"
            for category, target in config.target_of_category.items()
            if category not in known
        ]


def _of_lines(lines: ir.Table, headers: ir.Table) -> ir.Table:
    sold = headers.select("customer_id", "store_id", "day", sold_row="row_number")
    counted = lines.filter((lines.amount_units != 0) & (lines.quantity_milli != 0))
    joined = counted.inner_join(sold, counted.header_row == sold.sold_row)
    return joined.select(
        "customer_id",
        "transaction_id",
        "day",
        "category",
        "product_id",
        "store_id",
        "has_promotion",
        signed_milli=joined.quantity_milli,
        signed_units=joined.amount_units,
    )


def _of_headers(headers: ir.Table) -> ir.Table:
    return headers.select(
        "customer_id",
        "transaction_id",
        "day",
        category=ibis.literal(UNKNOWN_CATEGORY),
        product_id=ibis.literal(""),
        store_id=headers.store_id,
        has_promotion=ibis.null("boolean"),
        signed_milli=ibis.literal(QUANTITY_SCALE, "int64"),
        signed_units=headers.total_units,
    )


def _target_of(category: ir.Value, config: DatasetConfig) -> ir.Value:
    if not config.targets:
        return ibis.literal(OTHER_TARGET)
    return cast(ir.StringValue, category).cases(*config.target_of_category.items(), else_=OTHER_TARGET)


def _engine_of(rows: ir.Table):  # type: ignore[no-untyped-def]
    return rows.get_backend()
