"""From a folder of tables to purchases, customers, a data report and what was set aside, as files.

`python -m ml_pipeline.prepare --data DIR --out DIR [--as-of DATE]`
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import cast

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.cleaning import CleanTables, clean_tables
from ml_pipeline.command import run_command, thread_count
from ml_pipeline.data_report import report_markdown
from ml_pipeline.engine import open_engine
from ml_pipeline.progress import Progress
from ml_pipeline.purchases import build_customers, build_purchases, describe_purchases
from ml_pipeline.schema import DatasetConfig, load_dataset_config
from ml_pipeline.tables import ROW_NUMBER, RawTables, drop_tables, materialise, read_tables
from ml_pipeline.turns import taking_turns

log = logging.getLogger(__name__)

PURCHASES_FILE = "purchases.parquet"
CUSTOMERS_FILE = "customers.parquet"
REPORT_FILE = "data_report.json"
REPORT_PAGE = "data_report.md"
QUARANTINE_FOLDER = "quarantine"

_FORMULA = r"^[=+\-@\t\r]"
_NUMBER = r"^[+-]?[0-9][0-9.,]*$"


@dataclass(frozen=True)
class Prepared:
    """What training and serving start from; the tables live in the engine that made them.

    purchases, customers: see `purchases.py`. last_day: of the data. as_of: the given one, or the day after last_day.
    report: as in data_report.json. out_dir: where the files are. stores: store_id, region ('' = unknown); None without.
    """

    purchases: ir.Table
    customers: ir.Table
    config: DatasetConfig
    last_day: date
    as_of: date
    report: dict[str, object]
    out_dir: Path
    stores: ir.Table | None = None


def prepare_dataset(
    engine: Backend, data_dir: Path, out_dir: Path, as_of: date | None = None, progress: Progress | None = None
) -> Prepared:
    """Reads, cleans and writes one data set.

    as_of: nothing on or after that day is read. Writes purchases.parquet, customers.parquet, data_report.json,
    data_report.md and quarantine/<table>.<rule>.csv into out_dir, replacing those of an earlier run. Raises a DataError.
    """
    progress = progress or Progress()
    config = load_dataset_config(data_dir)
    with progress.stage("read tables", steps=1) as stage:
        raw = read_tables(engine, data_dir, config)
        stage.note(rows=sum(file.rows for file in raw.files.values()))
        stage.advance()
    with progress.stage("clean", steps=2) as stage:
        clean = clean_tables(engine, raw, config, as_of)
        stage.advance("purchases")
        purchases = build_purchases(clean, config)
        customers = build_customers(clean)
        describe_purchases(purchases, clean, config)
        stage.note(**{name: clean.report.purchases[name] for name in ("rows", "customers")})
        stage.advance()
    for warning in clean.report.warnings:
        log.warning(warning)
    with progress.stage("write", steps=1) as stage:
        report = _write(engine, out_dir, raw, clean, purchases, customers)
        drop_tables(engine, *raw.tables.values(), *raw.malformed.values(), *clean.quarantine.values())
        drop_tables(engine, *(rows for rows in (clean.headers, clean.lines) if rows is not None))
        stage.advance()
    prepared_as_of = clean.report.as_of
    assert prepared_as_of is not None
    return Prepared(purchases, customers, config, clean.last_day, prepared_as_of, report, out_dir, clean.stores)


def _write(
    engine: Backend, out_dir: Path, raw: RawTables, clean: CleanTables, purchases: ir.Table, customers: ir.Table
) -> dict[str, object]:
    """Two preparations into one folder take turns: all files there are of the later one."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with taking_turns(out_dir):
        return _write_files(engine, out_dir, raw, clean, purchases, customers)


def _write_files(
    engine: Backend, out_dir: Path, raw: RawTables, clean: CleanTables, purchases: ir.Table, customers: ir.Table
) -> dict[str, object]:
    for rows, name in ((purchases, PURCHASES_FILE), (customers, CUSTOMERS_FILE)):
        partial = out_dir / f"{name}.partial"
        engine.to_parquet(rows, partial)
        partial.replace(out_dir / name)
    write_quarantine(engine, out_dir / QUARANTINE_FOLDER, raw, clean)
    report = clean.report.as_dict()
    (out_dir / REPORT_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (out_dir / REPORT_PAGE).write_text(report_markdown(clean.report), encoding="utf-8")
    return report


def write_quarantine(engine: Backend, folder: Path, raw: RawTables, clean: CleanTables) -> None:
    """One CSV per table and rule: row_number, rule, and the row as it came (personal columns redacted)."""
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.csv"):
        stale.unlink()
    for table, count in clean.report.tables.items():
        if table in raw.malformed:
            broken = raw.malformed[table].mutate(rule=ibis.literal("malformed_row"))
            _write_rule(engine, _without_formulas(broken), folder, table, "malformed_row")
        if table in clean.quarantine:
            safe = materialise(engine, _without_formulas(clean.quarantine[table]), "safe")
            for rule in sorted(set(count.rules) - {"malformed_row"}):
                _write_rule(engine, safe.filter(safe["rule"] == rule), folder, table, rule)
            drop_tables(engine, safe)


def _write_rule(engine: Backend, rows: ir.Table, folder: Path, table: str, rule: str) -> None:
    if rule != "header_quarantined" and "header_rule" in rows.columns:
        rows = rows.drop("header_rule")
    ordered = rows.relocate(ROW_NUMBER, "rule").order_by(ROW_NUMBER)
    engine.to_csv(ordered, folder / f"{table}.{rule}.csv", header=True)


def _without_formulas(rows: ir.Table) -> ir.Table:
    """Texts that a spreadsheet would run as formulas get an apostrophe in front; numbers stay."""
    columns = {}
    for name, kind in rows.schema().items():
        if kind.is_string():
            text = cast(ir.StringColumn, rows[name])
            risky = text.re_search(_FORMULA) & ~text.re_search(_NUMBER)
            columns[name] = risky.fill_null(False).ifelse(ibis.literal("'") + text, text)
    return rows.mutate(**columns)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.prepare", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--out", type=Path, required=True, help="folder for what comes out")
    parser.add_argument("--as-of", type=date.fromisoformat, help="read nothing on or after this day (YYYY-MM-DD)")
    parser.add_argument("--threads", type=thread_count, help="processor threads (default: all)")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out, prefix="work-") as work_dir:
        engine = open_engine(Path(work_dir), threads=options.threads)
        prepared = prepare_dataset(engine, options.data, options.out, options.as_of)
        engine.disconnect()
    log.info(
        "prepared",
        extra={
            "last_day": prepared.last_day,
            "as_of": prepared.as_of,
            "purchases": cast(dict[str, object], prepared.report["purchases"])["rows"],
            "report": options.out / REPORT_PAGE,
        },
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
