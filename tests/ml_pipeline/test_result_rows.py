import csv
import io
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.result_rows import (
    answer_rows,
    find_id_column,
    lookup_ids,
    neutral_text,
    result_header,
    without_formulas,
    write_csv_header,
    write_csv_rows,
)
from ml_pipeline.schema import canonical_id
from ml_pipeline.snapshot import Snapshot, load_snapshot, result_columns
from tests.conftest import CUSTOMERS

BLANKS = " \t\r\n\u00a0\u2003\ufeff\u200b"


@pytest.fixture(scope="module")
def snapshot(toy_models: Path) -> Snapshot:
    from ml_pipeline.bundle import read_pointer

    return load_snapshot(toy_models, read_pointer(toy_models).snapshot_id)


def csv_text(*columns: list[str | None]) -> str:
    stream = io.BytesIO()
    write_csv_rows(stream, [pa.array(column, pa.string()) for column in columns])
    return stream.getvalue().decode()


@pytest.mark.parametrize(
    ("header", "index", "by_name"),
    [
        (["name", "customer_id"], 1, True),
        (["name", "CustomerID"], 1, True),
        (["name", "Customer ID"], 1, True),
        (["name", " customer-id "], 1, True),
        (["name", "CUSTOMER_ID", "customer_id"], 1, True),
        (["id", "name"], 0, False),
        (["former_customer_id_2", "name"], 0, False),
    ],
)
def test_the_id_column_is_the_one_called_so_in_any_spelling_else_the_first(header, index, by_name):
    found = find_id_column(header)
    assert (found.index, found.name, found.by_name) == (index, header[index], by_name)


@given(st.lists(st.text(st.sampled_from("0123456789.C-+naNulNONE/<>é" + BLANKS), max_size=12)))
def test_looking_up_many_ids_is_canonical_id_of_each(cells):
    assert lookup_ids(pa.array(cells, pa.string())).to_pylist() == [canonical_id(cell) for cell in cells]


@pytest.mark.parametrize("odd", ["", " x", "nan", "None", "12345.0", "12345\u00a0", "N/A", "x y"])
def test_one_odd_id_among_plain_ones_is_looked_up_as_alone(odd):
    plain = ["C10001", "000042", "a-b_c9"]
    for cells in ([*plain, odd], [odd, *plain], [odd], plain):
        sliced = pa.array(["before", *cells, "after it"], pa.string()).slice(1, len(cells))
        assert lookup_ids(sliced).to_pylist() == [canonical_id(cell) for cell in cells]


def test_zeros_in_front_stay_and_a_spreadsheet_integer_loses_its_fraction():
    assert lookup_ids(pa.array(["00042", "12345.0", " C1 ", "1.5", "NULL"])).to_pylist() == [
        "00042",
        "12345",
        "C1",
        "1.5",
        "",
    ]


def test_rows_are_answered_in_their_order_and_failed_ones_say_why(snapshot):
    answered = answer_rows(snapshot, "model-1", pa.array([CUSTOMERS[3], "nobody", "", CUSTOMERS[3], "x" * 500]))
    rows = answered.columns.to_pylist()
    assert answered.columns.schema.names == list(result_columns(snapshot.targets))
    assert [row["status"] for row in rows] == ["success", "failed", "failed", "success", "failed"]
    assert answered.successful == 2
    assert rows[0] == rows[3]
    assert rows[0]["error"] is None
    assert (rows[0]["currency"], rows[0]["model_version"]) == ("INR", "model-1")
    assert rows[1]["error"].startswith("UnknownCustomer")
    assert rows[2]["error"].startswith("EmptyCustomerId")
    assert "at most 128" in rows[4]["error"]
    assert all(rows[1][name] is None for name in rows[1] if name not in ("status", "error"))


def test_the_answers_are_those_of_the_snapshot(snapshot):
    row = answer_rows(snapshot, "model-1", pa.array([CUSTOMERS[7]])).columns.to_pylist()[0]
    columns = snapshot.columns(snapshot.positions([CUSTOMERS[7]]))
    for name in ("predicted_total_spend", "predicted_grocery_spend", "purchase_probability_30d", "segment"):
        assert row[name] == columns[name][0]


def test_an_uploaded_column_that_clashes_is_renamed_and_its_new_name_is_free():
    header = result_header(["customer_id", "status", "uploaded_status", "error"], ["status", "error"])
    assert header == ["customer_id", "uploaded_uploaded_status", "uploaded_status", "uploaded_error", "status", "error"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "=", "-", "+1-", "-5\n"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(text):
    assert neutral_text(text) == f"'{text}"
    assert without_formulas(pa.array([text])).to_pylist() == [f"'{text}"]


@pytest.mark.parametrize(
    "text", ["-5", "+49170123456", "-1.5", "-1,234.50", "1e-5", "-2E+3", "", "plain", "a=b", "'=1"]
)
def test_plain_numbers_and_plain_text_stay_as_they_are(text):
    assert neutral_text(text) == text
    assert without_formulas(pa.array([text])).to_pylist() == [text]


def test_what_is_written_as_csv_is_read_back_the_same():
    cells = ["plain", 'with "quotes"', "with, comma", "two\nlines", "", "é ü 名", " blanks "]
    text = csv_text(cells, list(reversed(cells)))
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        list(row) for row in zip(cells, reversed(cells), strict=True)
    ]


def test_a_null_is_an_empty_cell_and_a_row_of_one_empty_cell_is_no_blank_line():
    assert csv_text(["a", None], [None, "b"]) == "a,\n,b\n"
    assert csv_text(["a", "", None]) == 'a\n""\n""\n'


def test_a_slice_of_columns_writes_only_its_rows():
    stream = io.BytesIO()
    column = pa.array(["a", "b", "c", "d"])
    write_csv_rows(stream, [column.slice(1, 2), column.slice(2, 2)])
    assert stream.getvalue() == b"b,c\nc,d\n"


def test_numbers_are_written_without_losing_a_digit():
    stream = io.BytesIO()
    write_csv_rows(stream, [pa.array([0.1, 1206.4, 123456789.01, 0.0]), pa.array([-1, 2, 3, 4])])
    assert [float(line.split(",")[0]) for line in stream.getvalue().decode().splitlines()] == [
        0.1,
        1206.4,
        123456789.01,
        0,
    ]


def test_a_formula_in_a_header_is_neutralised_too():
    stream = io.BytesIO()
    write_csv_header(stream, ["customer_id", "=1+1"])
    assert stream.getvalue() == b"customer_id,'=1+1\n"
