"""Files of customers to upload, and results read back."""

import csv
import gzip
import io
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter

from tests.conftest import CUSTOMERS

ADDED = [
    "predicted_total_spend",
    "predicted_electronics_spend",
    "predicted_grocery_spend",
    "predicted_sports_spend",
    "predicted_other_spend",
    "predicted_total_spend_lower",
    "predicted_total_spend_upper",
    "purchase_probability_30d",
    "segment",
    "currency",
    "model_version",
    "status",
    "error",
]
ROWS = [[CUSTOMERS[(7 * number) % 20] if number % 5 else "nobody", f"note {number}"] for number in range(1, 31)]
"""Thirty rows: six name nobody, the others sixteen customers, eight of them twice."""


def csv_of(rows: list[list[Any]], header: tuple[str, ...] = ("customer_id", "note")) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue().encode()


def workbook(rows: list[list[Any]], sheets: tuple[str, ...] = ("Sheet1",)) -> bytes:
    """The rows are in the last of the sheets; the others have one row of their name."""
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False})
    for name in sheets[:-1]:
        book.add_worksheet(name).write_row(0, 0, [name])
    sheet = book.add_worksheet(sheets[-1])
    for number, row in enumerate(rows):
        sheet.write_row(number, 0, row)
    book.close()
    return buffer.getvalue()


def parquet_of(rows: list[list[Any]], header: tuple[str, ...] = ("customer_id", "note")) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table([list(column) for column in zip(*rows, strict=True)], names=list(header)), buffer)
    return buffer.getvalue()


def upload_of(kind: str, rows: list[list[Any]]) -> tuple[bytes, str]:
    """Content and file name of a file with customer_id and note."""
    if kind == "xlsx":
        return workbook([["customer_id", "note"], *rows]), "customers.xlsx"
    if kind == "parquet":
        return parquet_of(rows), "customers.parquet"
    if kind == "csv.gz":
        return gzip.compress(csv_of(rows), mtime=0), "customers.csv.gz"
    return csv_of(rows), "customers.csv"


def rows_of(path: Path, result_format: str) -> list[dict[str, Any]]:
    """The rows of a result file by column name; nothing is None."""
    if result_format == "parquet":
        return list(pq.read_table(path).to_pylist())
    if result_format == "xlsx":
        header, *body = openpyxl.load_workbook(io.BytesIO(path.read_bytes())).worksheets[0].iter_rows(values_only=True)
        return [dict(zip(header, row, strict=True)) for row in body]
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8"), newline=""))
    return [{name: value or None for name, value in row.items()} for row in rows]
