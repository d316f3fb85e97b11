import csv
import datetime as dt

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.cells import worksheet_column
from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_files import open_result
from ml_pipeline.xlsx_text import XLSX_CELL

HEADER = ["customer_id", "note", "predicted_total_spend", "status"]
ANSWERS = pa.record_batch([pa.array([12.5, None]), pa.array(["success", "failed"])], names=HEADER[2:])


def text_rows(*rows: list[str]) -> pa.RecordBatch:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    return pa.record_batch(columns, names=[str(number) for number in range(len(columns))])


def sheet_rows(rows: list[list[object]]) -> pa.RecordBatch:
    columns = [worksheet_column(column) for column in zip(*rows, strict=True)]
    return pa.record_batch(columns, names=[str(number) for number in range(len(columns))])


def write(path, result_format: str, rows, header=HEADER, answers=ANSWERS):
    with open_result(path, result_format, header) as writer:
        writer.write(rows, answers)
    return path


def cells_of(path) -> list[tuple[object, ...]]:
    return list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))


def test_a_csv_has_the_uploaded_cells_then_the_answers(tmp_path):
    path = write(tmp_path / "r.csv", "csv", text_rows(["00042", "a,b"], ["x", "=1+1"]))
    with path.open(newline="") as stream:
        assert list(csv.reader(stream)) == [HEADER, ["00042", "a,b", "12.5", "success"], ["x", "'=1+1", "", "failed"]]


def test_several_slices_are_one_file(tmp_path):
    for result_format in ("csv", "xlsx", "parquet"):
        with open_result(tmp_path / "r", result_format, HEADER) as writer:
            writer.write(text_rows(["a", "1"], ["b", "2"]), ANSWERS)
            writer.write(text_rows(["c", "3"], ["d", "4"]), ANSWERS)
        if result_format == "csv":
            assert (tmp_path / "r").read_text().splitlines()[3] == "c,3,12.5,success"
        elif result_format == "parquet":
            assert pq.read_table(tmp_path / "r").column("customer_id").to_pylist() == ["a", "b", "c", "d"]
        else:
            (tmp_path / "r").rename(tmp_path / "r.xlsx")
            assert [row[0] for row in cells_of(tmp_path / "r.xlsx")] == ["customer_id", "a", "b", "c", "d"]


def test_a_workbook_keeps_text_as_text_and_numbers_as_numbers(tmp_path):
    day, moment = dt.date(2025, 1, 31), dt.datetime(2025, 1, 31, 15, 30)
    rows = sheet_rows(
        [["00042", 12345.0], [day, moment], ["=1+1", True], ["", dt.time(3, 4, 5)], ["", dt.timedelta(hours=30)]]
    )
    answers = pa.record_batch(
        [pa.array([1.5, None, 0.0, 2.0, 3.0]), pa.array(["a", "b", "-3", "+x", "c"])], names=HEADER[2:]
    )
    cells = cells_of(write(tmp_path / "r.xlsx", "xlsx", rows, answers=answers))
    assert cells[0] == tuple(HEADER)
    assert cells[1] == ("00042", 12345, 1.5, "a")
    assert cells[2] == (dt.datetime(2025, 1, 31), moment, None, "b")
    assert cells[3] == ("'=1+1", True, 0, "-3")
    assert cells[4] == (None, dt.time(3, 4, 5), 2, "'+x")
    assert cells[5] == (None, dt.timedelta(hours=30), 3, "c")
    assert isinstance(cells[1][0], str)


def test_no_cell_of_a_workbook_is_a_formula(tmp_path):
    path = write(
        tmp_path / "r.xlsx", "xlsx", text_rows(["=1+1", "@x"], ["http://example.com", "{=1}"]), ["=a", *HEADER[1:]]
    )
    for row in openpyxl.load_workbook(path).active.iter_rows():
        assert all(cell.data_type != "f" and cell.hyperlink is None for cell in row)


def test_parquet_has_typed_answers_and_distinct_names(tmp_path):
    header = ["note", "note", *HEADER[2:]]
    path = write(tmp_path / "r.parquet", "parquet", text_rows(["1", "2"], ["3", "=4"]), header)
    table = pq.read_table(path)
    assert table.column_names == ["note", "note_2", *HEADER[2:]]
    assert table.column("note_2").to_pylist() == ["2", "=4"]
    assert table.column("predicted_total_spend").to_pylist() == [12.5, None]


def test_what_does_not_fit_a_sheet_is_refused_instead_of_cut(tmp_path):
    with pytest.raises(DoesNotFitXlsx, match="row 3"):
        write(tmp_path / "r.xlsx", "xlsx", text_rows(["a", "b"], ["c", "x" * (XLSX_CELL + 1)]))
    with pytest.raises(DoesNotFitXlsx, match="columns"):
        write(tmp_path / "r.xlsx", "xlsx", text_rows(["a"] * 19_998, ["b"] * 19_998), ["c"] * 20_000)


def test_two_writings_of_the_same_rows_give_the_same_bytes(tmp_path):
    for result_format in ("csv", "xlsx", "parquet"):
        first, second = (
            write(tmp_path / f"{name}.{result_format}", result_format, text_rows(["a", "1"], ["b", "2"]))
            for name in "ab"
        )
        assert first.read_bytes() == second.read_bytes()
