"""Cleans the lines of sales: finds their header and product, fills in what can be computed, judges what is left."""

import ibis
import ibis.expr.types as ir

from ml_pipeline.amounts import with_amount, with_quantity
from ml_pipeline.data_report import Imputation
from ml_pipeline.errors import RowsLost
from ml_pipeline.judging import (
    OUTLIER_FACTOR,
    OUTLIER_MIN_ROWS,
    OUTLIER_QUANTILE,
    Judge,
    amount_rules,
    count_by,
    first_rule,
    one_row,
)
from ml_pipeline.schema import LINES, MAX_ID_LENGTH, QUANTITY_SCALE, UNKNOWN_CATEGORY
from ml_pipeline.tables import drop_tables, id_of, materialise

RESTARTING_IDS_SHARE = 0.1
"""When more than this share of the line ids repeat, but not within their transactions, they number a transaction's lines."""
_EXACT_FLOAT = 9e15  # integers below it are exact in a double, so that the division by 1,000 rounds rightly


def clean_lines(
    judge: Judge, headers: ir.Table, products: ir.Table | None, promotions: ir.Table | None
) -> ir.Table | None:
    """The kept lines; None without the table. headers: all of them, judged.

    row_number, header_row (row_number of the header), transaction_id, product_id ('' = none), category, quantity_milli
    and amount_units (signed), has_promotion (null without such a column), outlier. Raises RowsLost.
    """
    if LINES.name not in judge.raw:
        return None
    read = materialise(judge.engine, _read_lines(judge), LINES.name)
    judged = _impute(_with_references(_with_headers(read, headers), products, promotions))
    judged = materialise(judge.engine, judged.mutate(rule=_line_rule(judged)), LINES.name)
    check_money(read, judged)
    drop_tables(judge.engine, read)
    if judge.raw.has(LINES.name, "line_item_id"):
        judged = _set_repeats_aside(judge, judged)
    judge.note_rounded(judged, f"{LINES.name}.line_item_amount", "amount_rounded", 4)
    judge.note_rounded(judged, f"{LINES.name}.quantity", "quantity_rounded", 3)
    kept = _with_outliers(judge, judge.settle(judged, LINES.name, "amount_units"))
    lost = judged.filter(judged.rule == "header_quarantined")
    judge.report.header_rules_of_lines = count_by(lost, "header_rule", "amount_units")
    _note_imputed(judge, kept)
    _flag_lines(judge, kept, products is not None)
    lines = kept.select(
        "row_number", "header_row", "transaction_id", "product_id", "category", "quantity_milli", "amount_units",
        "has_promotion", "outlier",
    )  # fmt: skip
    lines = materialise(judge.engine, lines, f"clean_{LINES.name}")
    drop_tables(judge.engine, judged)
    return lines


def _read_lines(judge: Judge) -> ir.Table:
    rows = judge.raw[LINES.name]
    selected = rows.select(
        "row_number",
        "quantity",
        "line_item_amount",
        line_item_id=id_of(rows.line_item_id) if "line_item_id" in rows.columns else ibis.literal(""),
        transaction_id=id_of(rows.transaction_id),
        product_id=id_of(rows.product_id),
        promotion_id=id_of(rows.promotion_id) if "promotion_id" in rows.columns else ibis.null("string"),
    )
    parsed = judge.read_number(with_amount, selected, LINES.name, "line_item_amount", "amount")
    return judge.read_number(with_quantity, parsed, LINES.name, "quantity", "quantity")


def _with_headers(lines: ir.Table, headers: ir.Table) -> ir.Table:
    """Adds header_row (null without a kept header) and header_rule (of a quarantined one)."""
    kept = headers.filter(headers.rule.isnull()).select(header_id="transaction_id", header_row="row_number")
    lost = headers.filter(headers.rule.notnull())
    lost = lost.group_by(lost_id=lost.transaction_id).agg(header_rule=lost.rule.argmin(lost.row_number))
    joined = lines.left_join(kept, lines.transaction_id == kept.header_id).drop("header_id")
    return joined.left_join(lost, joined.transaction_id == lost.lost_id).drop("lost_id")


def _with_references(lines: ir.Table, products: ir.Table | None, promotions: ir.Table | None) -> ir.Table:
    """Adds known_product, category, price_units (null without the product) and known_promotion, if there are any."""
    if products is not None:
        known = products.rename(known_product="product_id")
        lines = lines.left_join(known, lines.product_id == known.known_product)
    else:
        lines = lines.mutate(
            known_product=ibis.null("string"), category=ibis.null("string"), price_units=ibis.null("int64")
        )
    if promotions is not None:
        listed = promotions.rename(known_promotion="promotion_id")
        lines = lines.left_join(listed, lines.promotion_id == listed.known_promotion)
    return lines


def _impute(lines: ir.Table) -> ir.Table:
    """Fills a missing quantity with 1, a missing amount with quantity x unit_price; sets category and has_promotion."""
    product = lines.quantity_milli.cast("float64").abs() * lines.price_units.cast("float64")
    exact = product < _EXACT_FLOAT
    magnitude = ((exact.ifelse(product, 0.0) + QUANTITY_SCALE // 2) / QUANTITY_SCALE).floor().cast("int64")
    computed = (lines.quantity_milli < 0).ifelse(-magnitude, magnitude)
    computable = (lines.amount_fault == "missing") & exact & (lines.price_units >= 0)
    imputed = computable.fill_null(False)
    no_quantity = (lines.quantity_fault == "missing").fill_null(False)
    category = ibis.cases((lines.category == "", UNKNOWN_CATEGORY), else_=lines.category).fill_null(UNKNOWN_CATEGORY)
    return lines.mutate(
        amount_imputed=imputed,
        amount_units=imputed.ifelse(computed, lines.amount_units),
        amount_fault=imputed.ifelse(ibis.null("string"), lines.amount_fault),
        quantity_imputed=no_quantity,
        quantity_milli=no_quantity.ifelse(QUANTITY_SCALE, lines.quantity_milli),
        category=category,
        has_promotion=lines.promotion_id != "",
    )


def _line_rule(lines: ir.Table) -> ir.Value:
    longest = ibis.greatest(lines.transaction_id.length(), lines.product_id.length(), lines.line_item_id.length())
    return first_rule(
        ("empty_transaction_id", lines.transaction_id == ""),
        ("overlong_id", longest > MAX_ID_LENGTH),
        ("header_quarantined", lines.header_row.isnull() & lines.header_rule.notnull()),
        ("no_header", lines.header_row.isnull()),
        *amount_rules(lines.amount_fault),
        ("unreadable_quantity", lines.quantity_fault == "unreadable"),
        ("quantity_out_of_range", lines.quantity_fault == "out of range"),
    )


def check_money(read: ir.Table, judged: ir.Table) -> None:
    """Raises RowsLost when the joins between lost or repeated a line or its money."""
    given_amounts = judged.filter(~judged.amount_imputed)
    came, went = (
        one_row(lines, lines=lines.amount_units.count(), units=lines.amount_units.sum())
        for lines in (read, given_amounts)
    )
    if came != went:
        raise RowsLost(f"{LINES.name}: {came} came in and {went} were judged: a fault of cleaning.")


def _set_repeats_aside(judge: Judge, judged: ir.Table) -> ir.Table:
    """By line_item_id; by (transaction_id, line_item_id) where the ids plainly start anew in every transaction."""
    named = judged.filter(judged.rule.isnull() & (judged.line_item_id != ""))
    counted = one_row(named, lines=named.count(), ids=named.line_item_id.nunique())
    repeated = counted["lines"] - counted["ids"]
    keys: tuple[str, ...] = ("line_item_id",)
    if repeated > RESTARTING_IDS_SHARE * counted["lines"]:
        pairs = int(named.select("transaction_id", "line_item_id").distinct().count().execute())
        if counted["lines"] - pairs < repeated / 10:
            keys = ("transaction_id", "line_item_id")
            judge.report.warnings.append(
                f"{LINES.name}: {repeated} line_item_ids repeat, but not within their transactions: they number the"
                " lines of a transaction, and the pair (transaction_id, line_item_id) is taken as the key"
            )
    return judge.set_repeats_aside(judged, keys, "duplicate_line_item_id") if repeated else judged


def _with_outliers(judge: Judge, lines: ir.Table) -> ir.Table:
    """Adds `outlier`: a valid line above 10 times the 99th percentile of its category (of all, where it is small)."""
    valid = lines.filter((lines.amount_units > 0) & (lines.quantity_milli > 0))
    percentile = valid.amount_units.quantile(OUTLIER_QUANTILE)
    limits = valid.group_by(limit_of=valid.category).agg(amounts=valid.count(), most=percentile)
    limits = materialise(judge.engine, limits.filter(limits.amounts >= OUTLIER_MIN_ROWS).drop("amounts"), "limits")
    overall = one_row(valid, amounts=valid.count(), most=percentile)
    fallback = overall["most"] if overall["amounts"] >= OUTLIER_MIN_ROWS else None
    joined = lines.left_join(limits, lines.category == limits.limit_of)
    most = ibis.coalesce(joined.most, ibis.literal(fallback, "float64"))
    outlier = (joined.quantity_milli > 0) & (joined.amount_units > OUTLIER_FACTOR * most)
    return joined.mutate(outlier=outlier.fill_null(False)).drop("limit_of", "most")


def _flag_lines(judge: Judge, lines: ir.Table, has_products: bool) -> None:
    zero = (lines.amount_units == 0) | (lines.quantity_milli == 0)
    conditions = {
        "zero_line": zero,
        "return_line": ~zero & ((lines.amount_units < 0) | (lines.quantity_milli < 0)),
        "outlier_line": lines.outlier,
    }
    if has_products:
        known = lines.known_product.notnull()
        conditions["unknown_product"] = ~known
        conditions["product_without_category"] = known & (lines.category == UNKNOWN_CATEGORY)
    if judge.raw.has(LINES.name, "line_item_id"):
        conditions["missing_line_item_id"] = lines.line_item_id == ""
    if "known_promotion" in lines.columns:
        conditions["unknown_promotion"] = lines.has_promotion & lines.known_promotion.isnull()
    judge.flag(lines, conditions, lines.amount_units)


def _note_imputed(judge: Judge, lines: ir.Table) -> None:
    for flag, column, how in (
        ("quantity_imputed", "quantity", "a missing quantity is taken as 1"),
        ("amount_imputed", "line_item_amount", "a missing amount is quantity x unit_price of the product"),
    ):
        filled = lines.filter(lines[flag])
        row = one_row(filled, lines=filled.count(), units=filled.amount_units.sum())
        if row["lines"]:
            judge.report.imputed.append(Imputation(f"{LINES.name}.{column}", row["lines"], how, int(row["units"])))
