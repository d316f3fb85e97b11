"""Flat invoice lines become tables, row for row and to the penny."""

import subprocess
import sys
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadDatasetConfig, MissingColumns, TablesExist, UnreadableTable
from ml_pipeline.import_flat import Imported, import_flat
from ml_pipeline.schema import load_dataset_config
from tests.ml_pipeline.small_shop import prepare_shop, purchase_rows

UCI_1 = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
UCI_2 = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country")
ROWS = """536365,85123A,HOLDER,6,12/1/2010 8:26,2.55,17850.0,United Kingdom
536365,00071,LANTERN,3,12/1/2010 8:26,3.333,17850.0,United Kingdom
536366,85123A,HOLDER WHITE,1,12/13/2010 8:28,2.55,17850,United Kingdom
536367,84879,BIRD,32,12/1/2010 8:34,1.69,,France
536368,84879,BIRD,2,12/1/2010 8:34,1.69,00013,France
536368,POST,POSTAGE,1,12/1/2010 8:34,18,,France
C536379,85123A,HOLDER,-1,12/14/2010 9:41,2.55,17850,United Kingdom
536380,22720,,0,12/1/2010 9:41,0,12999,Germany
536381,22720,TIN,two,12/1/2010 9:41,4.95,12999,Germany
536381,22720,TIN,2,12/1/2010 9:41,,12999,Germany
"""


def _import(file: Path, into: Path, **options: Any) -> Imported:
    return import_flat(open_engine(threads=2), file, into, **options)


def _table(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{name}.parquet").to_pylist()


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Imported]:
    """A file with the names of Online Retail I."""
    folder = tmp_path_factory.mktemp("flat")
    (folder / "online.csv").write_text(f"{UCI_1}\n{ROWS}", encoding="utf-8")
    return folder / "tables", _import(folder / "online.csv", folder / "tables")


def test_every_row_becomes_a_line_with_quantity_times_price(imported: tuple[Path, Imported]) -> None:
    folder, result = imported
    lines = sorted(_table(folder, "store_sales_line_items"), key=lambda line: int(line["line_item_id"]))
    assert (result.rows_in, result.lines, len(lines)) == (10, 10, 10)
    assert [line["line_item_amount"] for line in lines] == [
        "15.3", "9.999", "2.55", "54.08", "3.38", "18", "-2.55", "0", "two x 4.95", "",
    ]  # fmt: skip
    assert [line["product_id"] for line in lines[:2]] == ["85123A", "00071"]
    assert [line["quantity"] for line in lines[7:9]] == ["0", "two"]


def test_an_invoice_is_a_header_and_one_of_two_customers_is_two(imported: tuple[Path, Imported]) -> None:
    folder, result = imported
    headers = {row["transaction_id"]: row for row in _table(folder, "store_sales_header")}
    assert set(headers) == {"536365", "536366", "536367", "536368/00013", "536368/none", "C536379", "536380", "536381"}
    assert headers["536365"] == {
        "transaction_id": "536365", "customer_id": "17850", "store_id": "United Kingdom",
        "transaction_date": "12/1/2010 8:26", "total_amount": "25.299",
    }  # fmt: skip
    assert headers["536367"]["customer_id"] == ""
    assert headers["536381"]["total_amount"] == ""
    assert any("1 invoices of several customers" in note for note in result.notes)


def test_products_customers_and_stores_are_distinct(imported: tuple[Path, Imported]) -> None:
    folder, _ = imported
    products = {row["product_id"]: row for row in _table(folder, "products")}
    assert (products["85123A"]["product_name"], products["85123A"]["unit_price"]) == ("HOLDER", "2.55")
    assert (products["22720"]["product_name"], products["22720"]["unit_price"]) == ("TIN", "4.95")
    customers = _table(folder, "customer_details")
    assert {row["customer_id"] for row in customers} == {"17850", "00013", "12999"}
    assert {row["customer_since"] for row in customers} == {""}
    assert {row["store_id"] for row in _table(folder, "stores")} == {"United Kingdom", "France", "Germany"}


def test_dataset_toml_says_pounds_and_no_targets(imported: tuple[Path, Imported]) -> None:
    config = load_dataset_config(imported[0])
    assert (config.currency, config.target_names) == ("GBP", ())


def test_the_imported_tables_go_through_cleaning_with_their_money(
    imported: tuple[Path, Imported], tmp_path: Path
) -> None:
    prepared = prepare_shop(imported[0], tmp_path)
    tables: Any = prepared.report["tables"]
    lines = tables["store_sales_line_items"]
    assert {name: (rule["rows"], rule["money"]) for name, rule in lines["rules"].items()} == {
        "header_quarantined": (2, "72.08"),
        "unreadable_amount": (1, "0.00"),
    }
    assert tables["store_sales_header"]["rules"]["empty_customer_id"]["rows"] == 2
    # a missing price is the product's usual one
    assert [(entry["rows"], entry["money"]) for entry in prepared.report["imputed"]] == [(1, "9.90")]  # type: ignore[attr-defined]
    rows = purchase_rows(tmp_path)
    assert sum(row["spend_units"] for row in rows) == 411_290  # type: ignore[misc] # 15.30 + 9.999 + 2.55 + 3.38 + 9.90
    assert [row["return_units"] for row in rows if row["return_units"]] == [25_500]
    assert prepared.last_day == date(2010, 12, 14)


def _workbook(path: Path, sheets: dict[str, list[tuple[Any, ...]]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)  # type: ignore[arg-type]
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


NOON = datetime(2010, 12, 1, 12, 5)
FIRST = ("489434", 85048, "LIGHTS", 12, NOON, 6.95, 13085, "United Kingdom")
SECOND = ("489435", "22350", "BOWL", 1, NOON, 2.1, None, "France")


def test_all_sheets_are_read_and_what_two_of_them_hold_alike_is_one_line_id(tmp_path: Path) -> None:
    sheets = {
        "Year 2009-2010": [UCI_2, FIRST, FIRST, SECOND],
        "Notes": [("about",), ("nothing",)],
        "Year 2010-2011": [UCI_2, FIRST, ("489436", "22350", "BOWL", 2, NOON, 2.1, 13085, "France")],
    }
    result = _import(_workbook(tmp_path / "online_retail_II.xlsx", sheets), tmp_path / "tables")
    lines = _table(tmp_path / "tables", "store_sales_line_items")
    assert (result.rows_in, result.lines) == (5, 5)
    assert sorted(line["line_item_id"] for line in lines) == ["1", "1", "2", "3", "5"]
    assert any("1 rows that an earlier sheet holds alike" in note for note in result.notes)
    assert any("not read: sheet 'Notes'" in note for note in result.notes)
    headers = {row["transaction_id"]: row for row in _table(tmp_path / "tables", "store_sales_header")}
    assert headers["489434"]["total_amount"] == "166.8"
    assert headers["489434"]["transaction_date"] == "2010-12-01 12:05:00"
    report: Any = prepare_shop(tmp_path / "tables", tmp_path / "out").report
    assert report["tables"]["store_sales_line_items"]["rules"]["duplicate_line_item_id"]["money"] == "83.40"
    assert "total_contradicts_lines" not in report["flags"]


def test_one_sheet_can_be_named_and_a_missing_one_is_refused(tmp_path: Path) -> None:
    book = _workbook(tmp_path / "b.xlsx", {"a": [UCI_2, FIRST], "b": [UCI_2, SECOND]})
    assert _import(book, tmp_path / "tables", sheet="b").rows_in == 1
    with pytest.raises(UnreadableTable, match="no sheet 'c'; it has 'a', 'b'"):
        _import(book, tmp_path / "other", sheet="c")


def test_a_parquet_file_keeps_native_ids(tmp_path: Path) -> None:
    columns = list(zip(FIRST, SECOND, strict=True))
    columns[1] = ("85048", "22350")
    pq.write_table(pa.table(dict(zip(UCI_2, columns, strict=True))), tmp_path / "r.parquet")
    _import(tmp_path / "r.parquet", tmp_path / "tables")
    headers = {row["transaction_id"]: row["customer_id"] for row in _table(tmp_path / "tables", "store_sales_header")}
    assert headers == {"489434": "13085", "489435": ""}


def test_other_names_can_be_mapped(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("Bill;SKU;Qty;When;Each;Client\n1;a;2;2025-01-31;1,50;7\n", encoding="utf-8")
    names = {
        "invoice": "Bill",
        "product": "SKU",
        "quantity": "Qty",
        "date": "When",
        "unit_price": "Each",
        "customer": "client",
    }
    result = _import(tmp_path / "f.csv", tmp_path / "tables", mapped=names)
    (line,) = _table(tmp_path / "tables", "store_sales_line_items")
    assert line["line_item_amount"] == "3"
    assert any("currency" in note for note in result.notes)
    assert load_dataset_config(tmp_path / "tables").currency == "INR"
    with pytest.raises(BadDatasetConfig, match="colour"):
        _import(tmp_path / "f.csv", tmp_path / "t2", mapped={"colour": "x"})


def test_missing_columns_are_named_with_the_ones_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("Invoice,Qty\n1,2\n", encoding="utf-8")
    with pytest.raises(MissingColumns) as refused:
        _import(tmp_path / "f.csv", tmp_path / "tables")
    assert all(part in str(refused.value) for part in ("'StockCode'", "'customer'", "'Qty'"))
    assert not (tmp_path / "tables").exists()


def test_tables_that_exist_are_never_written_over(tmp_path: Path, imported: tuple[Path, Imported]) -> None:
    (tmp_path / "f.csv").write_text(f"{UCI_1}\n{ROWS}", encoding="utf-8")
    with pytest.raises(TablesExist, match=r"dataset\.toml, products\.parquet"):
        _import(tmp_path / "f.csv", imported[0])


def test_a_broken_row_is_written_beside_the_tables_and_counted(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(f"{UCI_1}\n{ROWS}536390,1,two fields\n", encoding="utf-8")
    result = _import(tmp_path / "f.csv", tmp_path / "tables")
    assert (result.rows_in, result.lines, result.malformed_rows) == (11, 10, 1)
    assert "536390,1,two fields" in (tmp_path / "tables" / "f.csv.malformed_rows.csv").read_text()


def test_the_command_says_rows_in_and_lines_out(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text(f"{UCI_1}\n{ROWS}", encoding="utf-8")
    command = [sys.executable, "-m", "ml_pipeline.import_flat", str(tmp_path / "f.csv"), "--into", str(tmp_path / "t")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 rows in, 10 lines out" in done.stderr.splitlines()[-1]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
