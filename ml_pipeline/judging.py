"""What the cleaning of every table shares: reading its columns, naming rules, counting, setting rows aside."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, cast

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.amounts import NumberReading
from ml_pipeline.data_report import CleaningReport, Imputation, RuleCount, TableCount
from ml_pipeline.dates import decide_reading, with_date_parts, with_day
from ml_pipeline.errors import RowsLost
from ml_pipeline.schema import DatasetConfig, TableSchema
from ml_pipeline.tables import RawTables, drop_tables, materialise

log = logging.getLogger(__name__)

OUTLIER_FACTOR = 10
OUTLIER_QUANTILE = 0.99
OUTLIER_MIN_ROWS = 100
"""Where fewer amounts are known, none is called an outlier."""

NumberReader = Callable[[Backend, ir.Table, str, str, str], tuple[ir.Table, NumberReading]]


@dataclass
class Judge:
    """One cleaning under way: its tables, its report, and per table what was set aside."""

    engine: Backend
    raw: RawTables
    config: DatasetConfig
    as_of: date | None
    report: CleaningReport
    quarantine: dict[str, ir.Table] = field(default_factory=dict)

    def read_days(self, rows: ir.Table, table: str, column: str) -> ir.Table:
        """`column` as `<column>_day` and `<column>_fault` (see dates.py); the decision goes into the report."""
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

    def read_number(self, read: NumberReader, rows: ir.Table, table: str, column: str, name: str) -> ir.Table:
        """`column` by one of the readers of amounts.py; the decision goes into the report."""
        numbered, reading = read(self.engine, rows, column, name, f"{table}.{column}")
        self.report.numbers.append(reading)
        return numbered

    def set_repeats_aside(self, judged: ir.Table, keys: tuple[str, ...], rule: str) -> ir.Table:
        """Of the rows without a rule that share a key, all but the first get this rule; empty keys are none.

        The rows stay where they are; only the numbers of the repeated ones are kept beside them.
        """
        open_rows = judged.filter(judged.rule.isnull(), *(judged[key] != "" for key in keys))
        firsts = open_rows.group_by(**{f"repeated_{key}": open_rows[key] for key in keys}).agg(
            repeats=open_rows.count(), first_row=open_rows.row_number.min()
        )
        firsts = materialise(self.engine, firsts.filter(firsts.repeats > 1).drop("repeats"), "firsts")
        if not firsts.count().execute():
            drop_tables(self.engine, firsts)
            return judged
        same = open_rows.inner_join(firsts, [open_rows[key] == firsts[f"repeated_{key}"] for key in keys])
        later = same.filter(same.row_number > same.first_row).select(repeated_row="row_number")
        later = materialise(self.engine, later, "repeats")
        drop_tables(self.engine, firsts)
        joined = judged.left_join(later, judged.row_number == later.repeated_row)
        repeated = (rule, joined.repeated_row.notnull())
        ruled = joined.mutate(rule=first_rule((joined.rule, joined.rule.notnull()), repeated))
        return ruled.drop("repeated_row")

    def settle(self, judged: ir.Table, table: str, money: str | None) -> ir.Table:
        """Counts the rules of a table into the report, fills its quarantine, returns the kept rows without `rule`.

        Raises RowsLost when the rows judged are not those that were read.
        """
        raw = self.raw[table]
        counts = count_by(judged.mutate(rule=judged.rule.fill_null("")), "rule", money)
        kept = counts.pop("", RuleCount(0, 0 if money else None, None))
        rows_in = int(raw.count().execute())
        if rows_in != kept.rows + sum(count.rows for count in counts.values()):
            raise RowsLost(
                f"{table}: {rows_in} rows came in, {kept.rows} kept, {counts} set aside: a fault of cleaning."
            )
        ruled = judged.filter(judged.rule.notnull())
        ruled = ruled.select("row_number", "rule", **given(ruled, "header_rule"))
        if counts:
            self.quarantine[table] = materialise(self.engine, ruled.inner_join(raw, "row_number"), "quarantine")
        if table in self.raw.malformed:
            broken = one_row(self.raw.malformed[table], rows=ibis._.count(), first=ibis._.row_number.min())
            counts["malformed_row"] = RuleCount(broken["rows"], None, broken["first"])
            rows_in += broken["rows"]
        self.report.tables[table] = TableCount(rows_in, kept.rows, kept.money_units, counts)
        log.info(
            "table cleaned",
            extra={"table": table, "rows_in": rows_in, "rows_kept": kept.rows, "rows_set_aside": rows_in - kept.rows},
        )
        return judged.filter(judged.rule.isnull()).drop("rule")

    def flag(self, rows: ir.Table, conditions: dict[str, ir.Value], money: ir.Value | None) -> None:
        """Counts the rows on which each condition holds; null is no. A flag that holds nowhere is not reported."""
        measures = {}
        for name, condition in conditions.items():
            held = cast(ir.BooleanValue, condition).fill_null(False)
            measures[f"{name}:rows"] = held.sum()
            measures[f"{name}:first"] = cast(ir.IntegerColumn, rows.row_number).min(where=held)
            if money is not None:
                measures[f"{name}:units"] = cast(ir.IntegerColumn, money).sum(where=held)
        row = one_row(rows, **measures)
        for name in conditions:
            if row[f"{name}:rows"]:
                units = None if money is None else int(row[f"{name}:units"] or 0)
                self.report.flags[name] = RuleCount(int(row[f"{name}:rows"]), units, row[f"{name}:first"])

    def note_rounded(self, rows: ir.Table, label: str, flag: str, digits: int) -> None:
        """Reports how many numbers had more digits than are kept."""
        rounded = int(rows.filter(rows[flag].fill_null(False)).count().execute())
        if rounded:
            how = f"further digits rounded half away from zero to {digits} decimals"
            self.report.imputed.append(Imputation(label, rounded, how))

    def note_empty(self, rows: ir.Table, read: str, table: TableSchema, column: str) -> None:
        """Reports a column that is there and holds nothing (`read` is null throughout) like one that is missing."""
        feeds = table.column(column).feeds
        if self.raw.has(table.name, column) and feeds and not int(rows[read].count().execute()):
            self.report.missing.append({"what": f"column {table.name}.{column}, which is empty", "unknown": feeds})


def first_rule(*rules: tuple[str | ir.Value, ir.Value]) -> ir.Value:
    """The first rule whose condition holds; null when none does."""
    return ibis.cases(
        *((cast(ir.BooleanValue, condition).fill_null(False), rule) for rule, condition in rules),
        else_=ibis.null("string"),
    )


def amount_rules(fault: ir.Value) -> list[tuple[str, ir.Value]]:
    """The rules of an amount by the fault with which it was read."""
    return [
        ("missing_amount", fault == "missing"),
        ("unreadable_amount", fault == "unreadable"),
        ("amount_out_of_range", fault == "out of range"),
    ]


def given(rows: ir.Table, column: str) -> dict[str, ir.Value]:
    """The column, if the table has it, as keyword for select."""
    return {column: rows[column]} if column in rows.columns else {}


def one_row(rows: ir.Table, /, **measures: Any) -> dict[str, Any]:
    """The aggregates of a table as Python values."""
    return rows.agg(**measures).to_pyarrow().to_pylist()[0]


def count_by(rows: ir.Table, column: str, money: str | None) -> dict[str, RuleCount]:
    """Rows, money and lowest row_number by the values of a column."""
    units = rows[money].sum() if money else ibis.null("int64")
    counts = rows.group_by(column).agg(rows=rows.count(), units=units, first_row=rows.row_number.min())
    return {
        row[column]: RuleCount(int(row["rows"]), int(row["units"] or 0) if money else None, row["first_row"])
        for row in counts.order_by(column).to_pyarrow().to_pylist()
    }
