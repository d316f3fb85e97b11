"""Cleans the tables that sales refer to: customers, products, and those of which only the keys matter."""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from ml_pipeline.amounts import with_amount
from ml_pipeline.judging import Judge, first_rule, given
from ml_pipeline.schema import CUSTOMERS, MAX_ID_LENGTH, PRODUCTS, STORES, TABLES
from ml_pipeline.tables import drop_tables, id_of, materialise, text_of


def clean_customers(judge: Judge) -> ir.Table | None:
    """customer_id, customer_since (date, null); None without the table."""
    if CUSTOMERS.name not in judge.raw:
        return None
    rows = judge.raw[CUSTOMERS.name]
    selected = rows.select("row_number", customer_id=id_of(rows.customer_id), **given(rows, "customer_since"))
    if "customer_since" in rows.columns:
        selected = judge.read_days(selected, CUSTOMERS.name, "customer_since")
    else:
        selected = selected.mutate(customer_since_day=ibis.null("date"), customer_since_fault=ibis.literal("empty"))
    not_yet = []
    if judge.as_of is not None:
        not_yet.append(("on_or_after_as_of", selected.customer_since_day >= judge.as_of))
    kept, judged = _keep_keys(judge, selected, CUSTOMERS.name, not_yet)
    unreadable = kept.customer_since_fault.notnull() & (kept.customer_since_fault != "empty")
    judge.flag(kept, {"customer_since_unreadable": unreadable}, None)
    judge.note_empty(kept, "customer_since_day", CUSTOMERS, "customer_since")
    return _keep(judge, kept.select("customer_id", customer_since=kept.customer_since_day), judged, CUSTOMERS.name)


def clean_products(judge: Judge) -> ir.Table | None:
    """product_id, category ('' = none), price_units (null = unknown); None without the table."""
    if PRODUCTS.name not in judge.raw:
        return None
    rows = judge.raw[PRODUCTS.name]
    category = text_of(rows.product_category).lower() if "product_category" in rows.columns else ibis.literal("")
    selected = rows.select(
        "row_number", product_id=id_of(rows.product_id), category=category, **given(rows, "unit_price")
    )
    if "unit_price" in rows.columns:
        selected = judge.read_number(with_amount, selected, PRODUCTS.name, "unit_price", "price")
    else:
        selected = selected.mutate(price_units=ibis.null("int64"), price_fault=ibis.literal("missing"))
    kept, judged = _keep_keys(judge, selected, PRODUCTS.name)
    unreadable = kept.price_fault.isin(["unreadable", "out of range"])
    judge.flag(kept, {"unit_price_unreadable": unreadable}, None)
    judge.note_empty(kept.mutate(category=kept.category.nullif("")), "category", PRODUCTS, "product_category")
    judge.note_empty(kept, "price_units", PRODUCTS, "unit_price")
    return _keep(judge, kept.select("product_id", "category", "price_units"), judged, PRODUCTS.name)


def clean_stores(judge: Judge) -> ir.Table | None:
    """store_id, region ('' = unknown); None without the table.

    Spellings that differ in case only are one region, written as in the first row that names it.
    """
    if STORES.name not in judge.raw:
        return None
    rows = judge.raw[STORES.name]
    region = text_of(rows.store_region) if "store_region" in rows.columns else ibis.literal("")
    selected = rows.select("row_number", store_id=id_of(rows.store_id), region=region)
    kept, judged = _keep_keys(judge, selected, STORES.name)
    same = ibis.window(group_by=kept.region.lower())
    spelled = kept.region.argmin(kept.row_number).over(same)
    return _keep(judge, kept.select("store_id", region=spelled), judged, STORES.name)


def clean_keys(judge: Judge, table: str) -> ir.Table | None:
    """The distinct keys of a table; None without it."""
    if table not in judge.raw:
        return None
    rows, key = judge.raw[table], TABLES[table].key
    kept, judged = _keep_keys(judge, rows.select("row_number", **{key: id_of(rows[key])}), table)
    return _keep(judge, kept.select(key), judged, table)


def _keep_keys(
    judge: Judge, rows: ir.Table, table: str, more_rules: Sequence[tuple[str, ir.Value]] = ()
) -> tuple[ir.Table, ir.Table]:
    """The kept rows, and the table of the engine that they are a part of."""
    key = TABLES[table].key
    overlong = ("overlong_id", rows[key].length() > MAX_ID_LENGTH)
    rule = first_rule((f"empty_{key}", rows[key] == ""), overlong, *more_rules)
    judged = materialise(judge.engine, rows.mutate(rule=rule), table)
    judged = judge.set_repeats_aside(judged, (key,), f"duplicate_{key}")
    return judge.settle(judged, table, None), judged


def _keep(judge: Judge, kept: ir.Table, judged: ir.Table, table: str) -> ir.Table:
    clean = materialise(judge.engine, kept, f"clean_{table}")
    drop_tables(judge.engine, judged)
    return clean
