"""A profile of a folder of tables, to read before training on them.

`python -m ml_pipeline.explore --data DIR [--out DIR]` prints it as Markdown; with --out it is written as profile.md and
profile.json too. Columns as they came (rows, empty cells, distinct values, smallest and largest), then the purchases
that cleaning makes of them: money by category and month, customers by recency and by number of transactions.
Money sums all valid lines, as targets do; customers are counted by what the history of `as_of` holds, as features are:
lines that were cancelled are no part of it.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.cancellations import as_known_before
from ml_pipeline.cleaning import clean_tables
from ml_pipeline.command import run_command
from ml_pipeline.data_report import markdown_table, money_text
from ml_pipeline.engine import open_engine
from ml_pipeline.judging import one_row
from ml_pipeline.purchases import build_customers, build_purchases
from ml_pipeline.schema import TABLES, is_personal, load_dataset_config
from ml_pipeline.tables import ROW_NUMBER, read_tables, text_of

RECENCY_DAYS = (7, 30, 60, 90, 180, 365)
TRANSACTION_COUNTS = (1, 2, 5, 10, 20, 50)
_SHOWN_LENGTH = 40
_MOST_CATEGORIES = 50


def explore_dataset(engine: Backend, data_dir: Path, as_of: date | None = None) -> dict[str, object]:
    """The profile as a dictionary ready for JSON: tables, purchases, categories, months, recency, transactions.

    as_of: transactions on or after it are left out of everything but the raw columns.
    Personal columns only say how many cells are filled. Money is decimal text in currency units. Raises a DataError.
    """
    config = load_dataset_config(data_dir)
    raw = read_tables(engine, data_dir, config)
    tables = {
        name: {
            "file": raw.files[name].file,
            "rows": raw.files[name].rows,
            "columns": [
                _profile_column(raw[name], name, column) for column in raw[name].columns if column != ROW_NUMBER
            ],
        }
        for name in TABLES
        if name in raw
    }
    clean = clean_tables(engine, raw, config, as_of)
    purchases = build_purchases(clean, config)
    customers = build_customers(clean)
    as_of = as_of or clean.last_day + timedelta(days=1)
    history = as_known_before(purchases, ibis.date(str(as_of)))
    return {
        "currency": config.currency,
        "first_day": str(clean.report.first_day),
        "last_day": str(clean.last_day),
        "as_of": str(as_of),
        "tables": tables,
        "set_aside": {name: count.quarantined for name, count in clean.report.tables.items() if count.quarantined},
        "purchases": _profile_purchases(purchases, customers),
        "categories": _spend_by(purchases, "category")[:_MOST_CATEGORIES],
        "targets": _spend_by(purchases, "target"),
        "months": _spend_per_month(purchases),
        "recency": _customers_by(_days_since(history, as_of), RECENCY_DAYS, "days since the last transaction"),
        "transactions": _customers_by(_transactions(history), TRANSACTION_COUNTS, "transactions"),
        "warnings": clean.report.warnings,
    }


def _profile_column(rows: ir.Table, table: str, name: str) -> dict[str, object]:
    text = text_of(rows[name])
    filled = text.nullif("")
    if is_personal(table, name):
        empty = one_row(rows, cells=filled.isnull().sum())["cells"]
        return {"column": name, "empty": int(empty or 0), "distinct": None, "smallest": None, "largest": None}
    number = filled.try_cast("float64")
    row = one_row(
        rows,
        empty=filled.isnull().sum(),
        filled=filled.count(),
        distinct=filled.nunique(),
        numbers=number.count(),
        least=number.min(),
        most=number.max(),
        first=filled.min(),
        last=filled.max(),
    )
    numeric = row["filled"] and row["numbers"] == row["filled"]
    smallest, largest = (row["least"], row["most"]) if numeric else (row["first"], row["last"])
    return {
        "column": name,
        "empty": int(row["empty"] or 0),
        "distinct": int(row["distinct"]),
        "smallest": _shown(smallest),
        "largest": _shown(largest),
    }


def _shown(value: object) -> str | None:
    if value is None:
        return None
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN_LENGTH else text[:_SHOWN_LENGTH] + "..."


def _profile_purchases(purchases: ir.Table, customers: ir.Table) -> dict[str, object]:
    row = one_row(
        purchases,
        rows=purchases.count(),
        transactions=purchases.transaction_id.nunique(),
        customers=purchases.customer_id.nunique(),
        products=purchases.product_id.nunique(),
        stores=purchases.store_id.nunique(),
        spend=purchases.spend_units.sum(),
        returned=purchases.return_units.sum(),
        cancelled=purchases.spend_units.sum(where=purchases.cancelled_on.notnull()).fill_null(0),
    )
    money = {name: money_text(row.pop(name)) for name in ("spend", "returned", "cancelled")}
    return row | {"customers_listed": int(customers.count().execute())} | money


def _spend_by(purchases: ir.Table, column: str) -> list[dict[str, object]]:
    """Lines, customers, spend and its share by the values of a column, most spend first."""
    grouped = purchases.group_by(column).agg(
        lines=purchases.count(), customers=purchases.customer_id.nunique(), spend=purchases.spend_units.sum()
    )
    rows = grouped.order_by(ibis.desc("spend"), column).to_pyarrow().to_pylist()
    total = sum(row["spend"] for row in rows) or 1
    return [row | {"spend": money_text(row["spend"]), "share": round(row["spend"] / total, 4)} for row in rows]


def _spend_per_month(purchases: ir.Table) -> list[dict[str, object]]:
    month = purchases.day.strftime("%Y-%m")
    grouped = purchases.group_by(month=month).agg(
        transactions=purchases.transaction_id.nunique(),
        customers=purchases.customer_id.nunique(),
        spend=purchases.spend_units.sum(),
        returned=purchases.return_units.sum(),
    )
    return [
        row | {"spend": money_text(row["spend"]), "returned": money_text(row["returned"])}
        for row in grouped.order_by("month").to_pyarrow().to_pylist()
    ]


def _days_since(history: ir.Table, as_of: object) -> ir.Table:
    """customer_id, measure: days from the last purchase to as_of."""
    last = history.filter(history.spend_units > 0).group_by("customer_id").agg(day=history.day.max())
    return last.select("customer_id", measure=ibis.date(str(as_of)).delta(last.day, unit="day"))


def _transactions(history: ir.Table) -> ir.Table:
    """customer_id, measure: transactions with spend."""
    spent = history.filter(history.spend_units > 0)
    return spent.group_by("customer_id").agg(measure=spent.transaction_id.nunique())


def _customers_by(measured: ir.Table, edges: Sequence[int], what: str) -> list[dict[str, object]]:
    """Customers whose measure is at most each edge and above the one before; the last row is above all edges."""
    counts = {
        f"up_to_{edge}": (measured.measure.between(low + 1, edge)).sum()
        for low, edge in zip((0, *edges), edges, strict=False)
    }
    row = one_row(measured, **counts, above=(measured.measure > edges[-1]).sum())
    names = [
        f"{low + 1} to {edge}" if low + 1 < edge else str(edge) for low, edge in zip((0, *edges), edges, strict=False)
    ]
    return [
        {what: name, "customers": int(count or 0)}
        for name, count in zip([*names, f"over {edges[-1]}"], row.values(), strict=True)
    ]


def profile_markdown(profile: dict[str, object]) -> str:
    """The profile for people."""
    lines = [
        "# Profile",
        "",
        f"Days {profile['first_day']} to {profile['last_day']}; as_of {profile['as_of']}. Money in {profile['currency']}.",
        "",
    ]
    for name, table in profile["tables"].items():  # type: ignore[attr-defined]
        lines += [
            f"## {name}",
            "",
            f"{table['rows']:,} rows in {table['file']}",
            "",
            *_rows_table(table["columns"]),
            "",
        ]
    lines += ["## Set aside by cleaning", ""]
    lines += [f"- {table}: {rows:,} rows" for table, rows in profile["set_aside"].items()] or ["none"]  # type: ignore[attr-defined]
    lines += ["", "## Purchases", "", *_rows_table([profile["purchases"]]), ""]  # type: ignore[list-item]
    for title, key in (
        ("Categories", "categories"),
        ("Targets", "targets"),
        ("Months", "months"),
        ("Customers by recency", "recency"),
        ("Customers by number of transactions", "transactions"),
    ):
        lines += [f"## {title}", "", *_rows_table(profile[key]), ""]  # type: ignore[arg-type]
    warnings = [f"- {warning}" for warning in profile["warnings"]]  # type: ignore[attr-defined]
    return "\n".join([*lines, "## Warnings", "", *(warnings or ["none"]), ""])


def _rows_table(rows: Iterable[dict[str, object]]) -> list[str]:
    listed = list(rows)
    return markdown_table(listed[0], (row.values() for row in listed)) if listed else ["none"]


def explore_tables(data_dir: Path, out_dir: Path | None = None, as_of: date | None = None) -> str:
    """Profiles a folder of tables in an engine of its own; returns the page, and writes profile.md and .json if asked."""
    with tempfile.TemporaryDirectory(prefix="explore-") as work_dir:
        engine = open_engine(Path(work_dir))
        profile = explore_dataset(engine, data_dir, as_of)
        engine.disconnect()
    page = profile_markdown(profile)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
        text = json.dumps(profile, indent=2, ensure_ascii=False, default=str)
        (out_dir / "profile.json").write_text(text + "\n", encoding="utf-8")
        (out_dir / "profile.md").write_text(page, encoding="utf-8")
    return page


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.explore", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--out", type=Path, help="folder for profile.md and profile.json")
    parser.add_argument("--as-of", type=date.fromisoformat, help="leave out what is on or after this day (YYYY-MM-DD)")
    options = parser.parse_args(arguments)
    sys.stdout.write(explore_tables(options.data, options.out, options.as_of))


if __name__ == "__main__":
    sys.exit(run_command(main))
