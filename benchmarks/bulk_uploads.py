"""The uploads of the benchmark: known customers in no order, with two columns of the caller's own beside them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import xlsxwriter

from benchmarks.bulk_model import SEED, customer_ids

FORMATS = ("csv", "xlsx", "parquet")
NOTES = ("", "newsletter", "called in spring", "prefers mail, no calls", 'says "later"')


def upload_file(folder: Path, file_format: str, rows: int, customers: int) -> Path:
    """`rows` different customers of `customers`, in an order of chance; made once, then taken from the folder."""
    path = folder / f"customers-{rows}-of-{customers}.{file_format}"
    if not path.is_file():
        unfinished = path.with_name(f"unfinished-{path.name}")
        WRITERS[file_format](_table(rows, customers), unfinished)
        unfinished.rename(path)
    return path


def _table(rows: int, customers: int) -> pa.Table:
    draw = np.random.default_rng([SEED, rows])
    chosen = draw.permutation(customers)[:rows]
    names = pa.array([f"Customer {number}" for number in chosen.tolist()])
    notes = pa.array(NOTES).take(pa.array(draw.integers(0, len(NOTES), rows)))
    ids = pa.array(customer_ids(customers)).take(pa.array(chosen))
    return pa.table({"customer_id": ids, "customer_name": names, "notes": notes})


def _write_csv(table: pa.Table, path: Path) -> None:
    pa.csv.write_csv(table, path, pa.csv.WriteOptions(quoting_style="needed"))


def _write_xlsx(table: pa.Table, path: Path) -> None:
    with xlsxwriter.Workbook(str(path), {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, table.column_names)
        for number, cells in enumerate(zip(*(column.to_pylist() for column in table.columns), strict=True), 1):
            sheet.write_row(number, 0, cells)


WRITERS = {"csv": _write_csv, "xlsx": _write_xlsx, "parquet": pa.parquet.write_table}
