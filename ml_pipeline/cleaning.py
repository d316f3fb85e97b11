"""From text tables to clean ones: every row is kept, or set aside under a named rule with its money.

Order of the rules within a row: what stands first names it. Repeated keys are judged last, among the rows that no other
rule has set aside, and the row with the lowest row_number stays.
"""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import cast

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.amounts import NumberReading, with_amount, with_quantity
from ml_pipeline.data_report import CleaningReport, Imputation, RuleCount, TableCount
from ml_pipeline.dates import PLACEHOLDER_DAY, decide_reading, with_date_parts, with_day
from ml_pipeline.errors import NotEnoughHistory, RowsLost
from ml_pipeline.schema import (
    AMOUNT_SCALE,
    CUSTOMERS,
    HEADERS,
    LINES,
    LOYALTY_RULES,
    MAX_ID_LENGTH,
    PRODUCTS,
    PROMOTIONS,
    QUANTITY_SCALE,
    STORES,
    TABLES,
    UNKNOWN_CATEGORY,
    DatasetConfig,
)
from ml_pipeline.tables import RawTables, id_of, materialise, text_of

log = logging.getLogger(__name__)

FUTURE_GAP_DAYS = 30
"""Behind a gap of more days than this ..."""
FUTURE_SHARE = 0.001
"""... no more than this share of the header rows may follow for them to count as the future."""
SMALL_TABLE = 1_000
"""Below so many rows a single row is already more than the share; it counts as the future ..."""
STRAY_GAP_DAYS = 365
"""... behind a gap of more days than this."""
OUTLIER_FACTOR = 10
OUTLIER_QUANTILE = 0.99
OUTLIER_MIN_LINES = 100
"""Categories with fewer valid lines are measured against all lines."""
TOTAL_TOLERANCE = AMOUNT_SCALE // 100
"""A header's total may differ from its lines by so much before it contradicts them: 0.01."""
RESTARTING_IDS_SHARE = 0.1
"""When more than this share of the line ids repeat, but not within their transactions, they number a transaction's lines."""

_EXACT_FLOAT = 9e15  # integers below it are exact in a double, so that the division by 1,000 rounds rightly


@dataclass
class CleanTables:
    """The kept rows of each table (None = the shop has no such table), and what was set aside.

    customers: customer_id, customer_since (date, null). products: product_id, category, price_units. stores: store_id.
    promotions: promotion_id. headers: row_number, transaction_id, customer_id, store_id ('' = none), day, total_units,
    line_count, lines_units. lines: row_number, header_row, transaction_id, product_id ('' = none), category,
    quantity_milli and amount_units (signed), has_promotion, outlier. quarantine, per table: row_number, rule and the raw
    text columns, personal ones redacted.
    """

    headers: ir.Table
    last_day: date
    report: CleaningReport
    lines: ir.Table | None = None
    customers: ir.Table | None = None
    products: ir.Table | None = None
    stores: ir.Table | None = None
    promotions: ir.Table | None = None
    quarantine: dict[str, ir.Table] = field(default_factory=dict)


def clean_tables(engine: Backend, raw: RawTables, config: DatasetConfig, as_of: date | None) -> CleanTables:
    """Judges every row of every table.

    as_of: nothing on or after it is read; None takes all. Raises NotEnoughHistory when no header can be kept, RowsLost
    when rows in are not rows kept plus rows set aside (which would be a fault of this code).
    """
    cleaner = _Cleaner(engine, raw, config, as_of)
    return cleaner.clean()


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


_NumberReader = Callable[[Backend, ir.Table, str, str, str], tuple[ir.Table, NumberReading]]


class _Cleaner:
    """One cleaning: the tables in their order, each needing those before it."""

    def __init__(self, engine: Backend, raw: RawTables, config: DatasetConfig, as_of: date | None) -> None:
        self.engine = engine
        self.raw = raw
        self.config = config
        self.as_of = as_of
        self.report = CleaningReport(config.currency, config.spend, config.timezone, as_of, as_of is not None)
        self.quarantine: dict[str, ir.Table] = {}

    def clean(self) -> CleanTables:
        self.report.files = list(self.raw.files.values())
        for file in self.report.files:
            self.report.warnings += [f"{file.file}: {warning}" for warning in file.warnings]
        self._note_missing()
        customers = self._clean_customers() if CUSTOMERS.name in self.raw else None
        products = self._clean_products() if PRODUCTS.name in self.raw else None
        stores = self._clean_keys(STORES.name)
        promotions = self._clean_keys(PROMOTIONS.name)
        self._clean_keys(LOYALTY_RULES.name)
        judged, last_day = self._judge_headers()
        lines = self._clean_lines(judged, products, promotions) if LINES.name in self.raw else None
        headers = self._finish_headers(judged, lines, customers, stores)
        self.report.last_day = last_day
        self.report.as_of = self.as_of or last_day + timedelta(days=1)
        return CleanTables(
            headers, last_day, self.report, lines, customers, products, stores, promotions, self.quarantine
        )

    # ---- tables that are looked up

    def _clean_customers(self) -> ir.Table:
        rows = self.raw[CUSTOMERS.name]
        has_since = "customer_since" in rows.columns
        selected = rows.select("row_number", customer_id=id_of(rows.customer_id), **_given(rows, "customer_since"))
        if has_since:
            selected = self._read_days(selected, CUSTOMERS.name, "customer_since")
        else:
            selected = selected.mutate(customer_since_day=ibis.null("date"), customer_since_fault=ibis.null("string"))
        kept = self._keep_keys(selected, CUSTOMERS.name)
        fault = kept.customer_since_fault
        self._flag_rows(kept, {"customer_since_unreadable": fault.notnull() & (fault != "empty")}, None)
        return kept.select("customer_id", customer_since=kept.customer_since_day)

    def _clean_products(self) -> ir.Table:
        rows = self.raw[PRODUCTS.name]
        category = text_of(rows.product_category).lower() if "product_category" in rows.columns else ibis.literal("")
        selected = rows.select(
            "row_number", product_id=id_of(rows.product_id), category=category, **_given(rows, "unit_price")
        )
        if "unit_price" in rows.columns:
            selected = self._read_number(with_amount, selected, PRODUCTS.name, "unit_price", "price")
            selected = selected.drop("price_fault", "price_rounded")
        else:
            selected = selected.mutate(price_units=ibis.null("int64"))
        return self._keep_keys(selected, PRODUCTS.name).select("product_id", "category", "price_units")

    def _clean_keys(self, table: str) -> ir.Table | None:
        """A table of which only the keys matter."""
        if table not in self.raw:
            return None
        rows, key = self.raw[table], TABLES[table].key
        return self._keep_keys(rows.select("row_number", **{key: id_of(rows[key])}), table).select(key)

    def _keep_keys(self, rows: ir.Table, table: str) -> ir.Table:
        key = TABLES[table].key
        judged = rows.mutate(
            rule=_first_rule((f"empty_{key}", rows[key] == ""), ("overlong_id", rows[key].length() > MAX_ID_LENGTH))
        )
        judged = materialise(self.engine, judged, table)
        judged = self._set_repeats_aside(judged, (key,), f"duplicate_{key}")
        return self._settle(judged, table, None)

    # ---- headers

    def _judge_headers(self) -> tuple[ir.Table, date]:
        rows = self.raw[HEADERS.name]
        selected = rows.select(
            "row_number",
            "transaction_date",
            transaction_id=id_of(rows.transaction_id),
            customer_id=id_of(rows.customer_id),
            store_id=id_of(rows.store_id) if "store_id" in rows.columns else ibis.literal(""),
            **_given(rows, "total_amount"),
        )
        if "total_amount" in rows.columns:
            selected = self._read_number(with_amount, selected, HEADERS.name, "total_amount", "total")
        else:
            selected = selected.mutate(
                total_units=ibis.null("int64"), total_fault=ibis.literal("missing"), total_rounded=ibis.literal(False)
            )
        dated = self._read_days(selected, HEADERS.name, "transaction_date")
        judged = materialise(self.engine, dated.mutate(rule=self._header_rule(dated)), HEADERS.name)
        self._note_rounded(judged, HEADERS.name, "total_amount", "total_rounded")
        last_day = self._last_day(judged)
        day = judged.transaction_date_day
        judged = judged.mutate(rule=_first_rule((judged.rule, judged.rule.notnull()), ("future_date", day > last_day)))
        return self._set_repeats_aside(judged, ("transaction_id",), "duplicate_transaction_id"), last_day

    def _header_rule(self, rows: ir.Table) -> ir.Value:
        day, fault = rows.transaction_date_day, rows.transaction_date_fault
        longest = ibis.greatest(rows.transaction_id.length(), rows.customer_id.length(), rows.store_id.length())
        rules = [
            ("empty_transaction_id", rows.transaction_id == ""),
            ("empty_customer_id", rows.customer_id == ""),
            ("overlong_id", longest > MAX_ID_LENGTH),
            ("empty_date", fault == "empty"),
            ("unreadable_date", fault == "unreadable"),
            ("contradicting_date", fault == "contradicts"),
            ("implausible_date", day <= PLACEHOLDER_DAY),
        ]
        if LINES.name not in self.raw:
            rules += _amount_rules(rows.total_fault)
        if self.as_of is not None:
            rules.append(("on_or_after_as_of", day >= self.as_of))
        return _first_rule(*rules)

    def _last_day(self, judged: ir.Table) -> date:
        days = judged.filter(judged.rule.isnull()).group_by(day=judged.transaction_date_day).agg(rows=ibis._.count())
        counts = [(row["day"], row["rows"]) for row in days.order_by("day").to_pyarrow().to_pylist()]
        if not counts:
            self._settle(judged, HEADERS.name, "total_units")
            rules = self.report.tables[HEADERS.name].rules
            why = ", ".join(f"{count.rows} {rule}" for rule, count in rules.items()) or "the table has no rows"
            raise NotEnoughHistory(
                f"{HEADERS.name} has no row that can be kept ({why}); at least one dated row with a customer is needed."
            )
        last_day = find_last_day(counts)
        self.report.first_day = counts[0][0]
        return last_day

    def _finish_headers(
        self, judged: ir.Table, lines: ir.Table | None, customers: ir.Table | None, stores: ir.Table | None
    ) -> ir.Table:
        kept = self._settle(judged, HEADERS.name, "total_units").rename(day="transaction_date_day")
        kept = kept.drop("transaction_date_fault", "total_rounded")
        if lines is None:
            kept = kept.mutate(line_count=ibis.literal(0, "int64"), lines_units=ibis.literal(0, "int64"))
        else:
            sums = lines.group_by("header_row").agg(line_count=lines.count(), lines_units=lines.amount_units.sum())
            kept = kept.left_join(sums, kept.row_number == sums.header_row).drop("header_row")
            kept = kept.mutate(line_count=kept.line_count.fill_null(0), lines_units=kept.lines_units.fill_null(0))
        if customers is not None:
            known = customers.select(known_customer="customer_id", since="customer_since")
            kept = kept.left_join(known, kept.customer_id == known.known_customer)
        if stores is not None:
            known = stores.select(known_store="store_id")
            kept = kept.left_join(known, kept.store_id == known.known_store)
        headers = materialise(self.engine, kept, "headers_kept")
        self._flag_headers(headers, lines is not None)
        return headers.select(
            "row_number", "transaction_id", "customer_id", "store_id", "day", "total_units", "line_count", "lines_units"
        )

    def _flag_headers(self, headers: ir.Table, has_lines: bool) -> None:
        bare = headers.line_count == 0
        total = headers.total_units.fill_null(0)
        counted = bare.ifelse(total, headers.lines_units)
        conditions: dict[str, ir.Value] = {
            "header_without_amount": bare & (total == 0),
            "return_header": bare & (total < 0),
        }
        if has_lines:
            conditions["header_without_lines"] = bare & (total > 0)
            conditions["unreadable_total"] = headers.total_fault.isin(["unreadable", "out of range"])
            off = (headers.total_units - headers.lines_units).abs()
            self._flag_rows(headers, {"total_contradicts_lines": ~bare & (off > TOTAL_TOLERANCE)}, off)
        if "store_id" in self.raw[HEADERS.name].columns:
            conditions["missing_store_id"] = headers.store_id == ""
        if "known_store" in headers.columns:
            conditions["unknown_store"] = (headers.store_id != "") & headers.known_store.isnull()
        if "known_customer" in headers.columns:
            conditions["customer_not_in_details"] = headers.known_customer.isnull()
            conditions["date_before_customer_since"] = headers.day < headers.since
        alone = headers.filter(bare & (total > 0))
        limit = alone.agg(n=alone.count(), p=alone.total_units.quantile(OUTLIER_QUANTILE)).to_pyarrow().to_pylist()[0]
        if limit["n"] >= OUTLIER_MIN_LINES:
            conditions["outlier_header"] = bare & (total > OUTLIER_FACTOR * limit["p"])
        self._flag_rows(headers, conditions, counted)

    # ---- lines

    def _clean_lines(self, headers: ir.Table, products: ir.Table | None, promotions: ir.Table | None) -> ir.Table:
        read = materialise(self.engine, self._parse_lines(), LINES.name)
        parsed = self._with_headers(read, headers)
        if products is not None:
            known = products.rename(known_product="product_id")
            parsed = parsed.left_join(known, parsed.product_id == known.known_product)
        else:
            parsed = parsed.mutate(
                known_product=ibis.null("string"), category=ibis.null("string"), price_units=ibis.null("int64")
            )
        if promotions is not None:
            listed = promotions.rename(known_promotion="promotion_id")
            parsed = parsed.left_join(listed, parsed.promotion_id == listed.known_promotion)
        judged = _impute(parsed)
        judged = materialise(self.engine, judged.mutate(rule=_line_rule(judged)), LINES.name)
        if "line_item_id" in self.raw[LINES.name].columns:
            judged = self._set_repeated_lines_aside(judged)
        self._note_rounded(judged, LINES.name, "line_item_amount", "amount_rounded")
        self._note_rounded(judged, LINES.name, "quantity", "quantity_rounded")
        self._check_money(judged, read)
        kept = self._settle(judged, LINES.name, "amount_units")
        self._break_down_header_rules(judged)
        kept = materialise(self.engine, self._with_outliers(kept), "lines_kept")
        self._note_imputed(kept)
        self._flag_lines(kept, products is not None)
        return kept.select(
            "row_number", "header_row", "transaction_id", "product_id", "category", "quantity_milli", "amount_units",
            "has_promotion", "outlier",
        )  # fmt: skip

    def _parse_lines(self) -> ir.Table:
        rows = self.raw[LINES.name]
        promotion = id_of(rows.promotion_id) if "promotion_id" in rows.columns else ibis.null("string")
        selected = rows.select(
            "row_number",
            "quantity",
            "line_item_amount",
            line_item_id=id_of(rows.line_item_id) if "line_item_id" in rows.columns else ibis.literal(""),
            transaction_id=id_of(rows.transaction_id),
            product_id=id_of(rows.product_id),
            promotion_id=promotion,
        )
        parsed = self._read_number(with_amount, selected, LINES.name, "line_item_amount", "amount")
        return self._read_number(with_quantity, parsed, LINES.name, "quantity", "quantity")

    def _with_headers(self, lines: ir.Table, headers: ir.Table) -> ir.Table:
        """Adds header_row (null without a kept header) and header_rule (of a quarantined one)."""
        kept = headers.filter(headers.rule.isnull()).select(header_id="transaction_id", header_row="row_number")
        lost = headers.filter(headers.rule.notnull())
        lost = lost.group_by(lost_id=lost.transaction_id).agg(header_rule=lost.rule.argmin(lost.row_number))
        joined = lines.left_join(kept, lines.transaction_id == kept.header_id).drop("header_id")
        return joined.left_join(lost, joined.transaction_id == lost.lost_id).drop("lost_id")

    def _set_repeated_lines_aside(self, judged: ir.Table) -> ir.Table:
        named = judged.filter(judged.rule.isnull() & (judged.line_item_id != ""))
        counted = named.agg(
            rows=named.count(),
            ids=named.line_item_id.nunique(),
        )
        row = counted.to_pyarrow().to_pylist()[0]
        repeated = row["rows"] - row["ids"]
        keys: tuple[str, ...] = ("line_item_id",)
        if repeated > RESTARTING_IDS_SHARE * row["rows"]:
            pairs = int(named.select("transaction_id", "line_item_id").distinct().count().execute())
            if row["rows"] - pairs < repeated / 10:
                keys = ("transaction_id", "line_item_id")
                self.report.warnings.append(
                    f"{LINES.name}: {repeated} line_item_ids repeat, but not within their transactions: they number the"
                    " lines of a transaction, and the pair (transaction_id, line_item_id) is taken as the key"
                )
        return self._set_repeats_aside(judged, keys, "duplicate_line_item_id") if repeated else judged

    def _check_money(self, judged: ir.Table, parsed: ir.Table) -> None:
        """The joins between must neither lose nor repeat a line."""
        read = judged.filter(~judged.amount_imputed)
        came, went = (
            rows.agg(rows=rows.amount_units.count(), units=rows.amount_units.sum()).to_pyarrow().to_pylist()[0]
            for rows in (parsed, read)
        )
        if came != went:
            raise RowsLost(f"{LINES.name}: {came} came in and {went} were judged; this is a fault of cleaning.")

    def _break_down_header_rules(self, judged: ir.Table) -> None:
        lines = judged.filter(judged.rule == "header_quarantined")
        self.report.header_rules_of_lines = _count_by(lines, "header_rule", "amount_units")

    def _with_outliers(self, lines: ir.Table) -> ir.Table:
        """Adds `outlier`: a valid line above 10 times the 99th percentile of its category (all, where it is small)."""
        valid = lines.filter((lines.amount_units > 0) & (lines.quantity_milli > 0))
        percentile = valid.amount_units.quantile(OUTLIER_QUANTILE)
        by_category = valid.group_by(limit_of=valid.category).agg(n=valid.count(), most=percentile)
        by_category = materialise(
            self.engine, by_category.filter(by_category.n >= OUTLIER_MIN_LINES).drop("n"), "limits"
        )
        overall = valid.agg(n=valid.count(), most=percentile).to_pyarrow().to_pylist()[0]
        fallback = overall["most"] if overall["n"] >= OUTLIER_MIN_LINES else None
        joined = lines.left_join(by_category, lines.category == by_category.limit_of)
        limit = ibis.coalesce(joined.most, ibis.literal(fallback, "float64"))
        outlier = (joined.quantity_milli > 0) & (joined.amount_units > OUTLIER_FACTOR * limit)
        return joined.mutate(outlier=outlier.fill_null(False)).drop("limit_of", "most")

    def _flag_lines(self, lines: ir.Table, has_products: bool) -> None:
        zero = (lines.amount_units == 0) | (lines.quantity_milli == 0)
        conditions = {
            "zero_line": zero,
            "return_line": ~zero & ((lines.amount_units < 0) | (lines.quantity_milli < 0)),
            "outlier_line": lines.outlier,
        }
        if has_products:
            conditions["unknown_product"] = lines.known_product.isnull()
            conditions["product_without_category"] = lines.known_product.notnull() & (
                lines.category == UNKNOWN_CATEGORY
            )
        if "line_item_id" in self.raw[LINES.name].columns:
            conditions["missing_line_item_id"] = lines.line_item_id == ""
        if "known_promotion" in lines.columns:
            conditions["unknown_promotion"] = lines.has_promotion & lines.known_promotion.isnull()
        self._flag_rows(lines, conditions, lines.amount_units)

    def _note_imputed(self, lines: ir.Table) -> None:
        for flag, column, how in (
            ("quantity_imputed", "quantity", "a missing quantity is taken as 1"),
            ("amount_imputed", "line_item_amount", "a missing amount is quantity x unit_price of the product"),
        ):
            chosen = lines.filter(lines[flag])
            row = chosen.agg(rows=chosen.count(), units=chosen.amount_units.sum()).to_pyarrow().to_pylist()[0]
            if row["rows"]:
                self.report.imputed.append(Imputation(f"{LINES.name}.{column}", row["rows"], how, int(row["units"])))

    # ---- for all tables

    def _read_days(self, rows: ir.Table, table: str, column: str) -> ir.Table:
        label = f"{table}.{column}"
        parts = materialise(self.engine, with_date_parts(rows, column), table)
        reading, days = decide_reading(self.engine, parts, column, label, self.config.dayfirst)
        dated, with_offset = with_day(self.engine, parts, column, days, self.config.timezone)
        self.report.dates.append(reading)
        self.report.warnings += reading.warnings
        if with_offset:
            self.report.rows_with_offset[label] = with_offset
            if self.config.timezone is None:
                self.report.warnings.append(
                    f"{label}: {with_offset} timestamps carry an offset from UTC and count as written;"
                    " timezone in dataset.toml brings them to the shop's clocks"
                )
        return dated

    def _read_number(self, read: _NumberReader, rows: ir.Table, table: str, column: str, name: str) -> ir.Table:
        numbered, reading = read(self.engine, rows, column, name, f"{table}.{column}")
        self.report.numbers.append(reading)
        return numbered

    def _set_repeats_aside(self, judged: ir.Table, keys: tuple[str, ...], rule: str) -> ir.Table:
        """Of the rows without a rule that share a key, all but the first get this rule; empty keys are none."""
        open_rows = judged.filter(judged.rule.isnull(), *(judged[key] != "" for key in keys))
        firsts = open_rows.group_by(**{f"repeated_{key}": open_rows[key] for key in keys}).agg(
            repeats=open_rows.count(), first_row=open_rows.row_number.min()
        )
        firsts = materialise(self.engine, firsts.filter(firsts.repeats > 1).drop("repeats"), "repeats")
        same = [judged[key] == firsts[f"repeated_{key}"] for key in keys]
        joined = judged.left_join(firsts, same)
        repeated = joined.first_row.notnull() & (joined.row_number > joined.first_row)
        ruled = joined.mutate(rule=_first_rule((joined.rule, joined.rule.notnull()), (rule, repeated)))
        return materialise(self.engine, ruled.drop("first_row", *(f"repeated_{key}" for key in keys)), "judged")

    def _settle(self, judged: ir.Table, table: str, money: str | None) -> ir.Table:
        """Counts the rules of a table into the report, keeps its quarantine, returns the kept rows without `rule`."""
        raw = self.raw[table]
        counts = _count_by(judged.mutate(rule=judged.rule.fill_null("")), "rule", money)
        kept = counts.pop("", RuleCount(0, 0 if money else None, None))
        rows_in = int(raw.count().execute())
        if rows_in != kept.rows + sum(count.rows for count in counts.values()):
            raise RowsLost(
                f"{table}: {rows_in} rows came in, {kept.rows} were kept and {counts} set aside; a fault of cleaning."
            )
        if table in self.raw.malformed:
            broken = self.raw.malformed[table]
            counts["malformed_row"] = RuleCount(
                int(broken.count().execute()), None, cast(int | None, broken.row_number.min().execute())
            )
            rows_in += counts["malformed_row"].rows
        self.report.tables[table] = TableCount(rows_in, kept.rows, kept.money_units, counts)
        ruled = judged.filter(judged.rule.notnull())
        ruled = ruled.select("row_number", "rule", **_given(ruled, "header_rule"))
        self.quarantine[table] = ruled.inner_join(raw, "row_number")
        log.info(
            "table cleaned",
            extra={"table": table, "rows_in": rows_in, "rows_kept": kept.rows, "rows_set_aside": rows_in - kept.rows},
        )
        return judged.filter(judged.rule.isnull()).drop("rule")

    def _flag_rows(self, rows: ir.Table, conditions: dict[str, ir.Value], money: ir.Value | None) -> None:
        measures = {}
        for name, condition in conditions.items():
            held = cast(ir.BooleanValue, condition).fill_null(False)
            measures[f"{name}:rows"] = held.sum()
            measures[f"{name}:first"] = cast(ir.IntegerColumn, rows.row_number).min(where=held)
            if money is not None:
                measures[f"{name}:units"] = cast(ir.IntegerColumn, money).sum(where=held)
        row = rows.agg(**measures).to_pyarrow().to_pylist()[0]
        for name in conditions:
            if row[f"{name}:rows"]:
                units = None if money is None else int(row[f"{name}:units"] or 0)
                self.report.flags[name] = RuleCount(int(row[f"{name}:rows"]), units, row[f"{name}:first"])

    def _note_rounded(self, rows: ir.Table, table: str, column: str, flag: str) -> None:
        rounded = int(rows.filter(rows[flag].fill_null(False)).count().execute())
        if rounded:
            digits = 3 if column == "quantity" else 4
            how = f"further digits rounded half away from zero to {digits} decimals"
            self.report.imputed.append(Imputation(f"{table}.{column}", rounded, how))

    def _note_missing(self) -> None:
        for name, table in TABLES.items():
            if name not in self.raw and table.feeds:
                self.report.missing.append({"what": f"table {name}", "unknown": table.feeds})
            if name in self.raw:
                self.report.missing += [
                    {"what": f"column {name}.{column.name}", "unknown": column.feeds}
                    for column in table.columns
                    if column.feeds and column.name not in self.raw[name].columns
                ]


def _given(rows: ir.Table, column: str) -> dict[str, ir.Value]:
    """The column, if the table has it, as keyword for select."""
    return {column: rows[column]} if column in rows.columns else {}


def _first_rule(*rules: "tuple[str | ir.Value, ir.Value]") -> ir.Value:
    """The first rule whose condition holds; null when none does."""
    return ibis.cases(
        *((cast(ir.BooleanValue, condition).fill_null(False), rule) for rule, condition in rules),
        else_=ibis.null("string"),
    )


def _amount_rules(fault: ir.Value) -> list[tuple[str, ir.Value]]:
    return [
        ("missing_amount", fault == "missing"),
        ("unreadable_amount", fault == "unreadable"),
        ("amount_out_of_range", fault == "out of range"),
    ]


def _line_rule(lines: ir.Table) -> ir.Value:
    longest = ibis.greatest(lines.transaction_id.length(), lines.product_id.length(), lines.line_item_id.length())
    return _first_rule(
        ("empty_transaction_id", lines.transaction_id == ""),
        ("overlong_id", longest > MAX_ID_LENGTH),
        ("header_quarantined", lines.header_row.isnull() & lines.header_rule.notnull()),
        ("no_header", lines.header_row.isnull()),
        *_amount_rules(lines.amount_fault),
        ("unreadable_quantity", lines.quantity_fault == "unreadable"),
        ("quantity_out_of_range", lines.quantity_fault == "out of range"),
    )


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


def _count_by(rows: ir.Table, column: str, money: str | None) -> dict[str, RuleCount]:
    units = rows[money].sum() if money else ibis.null("int64")
    counts = rows.group_by(column).agg(rows=rows.count(), units=units, first_row=rows.row_number.min())
    return {
        row[column]: RuleCount(int(row["rows"]), int(row["units"] or 0) if money else None, row["first_row"])
        for row in counts.order_by(column).to_pyarrow().to_pylist()
    }
