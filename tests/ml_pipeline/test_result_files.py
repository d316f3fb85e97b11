import csv
import datetime as dt
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_pipeline.cells import worksheet_column
from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_files import FORMATS, PartFolder, assemble_result
from ml_pipeline.result_parts import XLSX_ROWS, write_part
from ml_pipeline.result_rows import answer_types, failed_rows

HEADER = ["customer_id", "note", "predicted_total_spend", "status"]
ANSWERS = pa.record_batch([pa.array([12.5, None]), pa.array(["success", "failed"])], names=HEADER[2:])
MAKES_PARTS = """
import sys
from pathlib import Path
from tests.ml_pipeline.test_result_files import ANSWERS, FORMATS, text_rows, write_part
for result_format in FORMATS:
    write_part(Path(sys.argv[1], result_format), result_format, text_rows(["c", "3"], ["d", "=4"]), ANSWERS, 2)
"""


def text_rows(*rows: list[str]) -> pa.RecordBatch:
    return batch(*(pa.array(column, pa.string()) for column in zip(*rows, strict=True)))


def batch(*columns: pa.Array) -> pa.RecordBatch:
    return pa.record_batch(list(columns), names=[str(number) for number in range(len(columns))])


def write(path, result_format: str, *slices, header=HEADER, summary=None):
    """A result of (uploaded, answers) slices."""
    folder = path.parent / f"{path.name}-parts"
    folder.mkdir()
    parts = PartFolder(folder, result_format)
    for rows, answers in slices:
        parts.add(rows, answers)
    parts.assemble(path, header, summary)
    return path


def csv_rows(path):
    with path.open(newline="") as stream:
        return list(csv.reader(stream))


def test_a_csv_has_the_uploaded_cells_then_the_answers(tmp_path):
    path = write(tmp_path / "r.csv", "csv", (text_rows(["00042", "a,b"], ["x", "=1+1"]), ANSWERS))
    assert csv_rows(path) == [HEADER, ["00042", "a,b", "12.5", "success"], ["x", "'=1+1", "", "failed"]]


def test_parts_are_one_file_in_their_order(tmp_path):
    slices = [(text_rows(["a", "1"], ["b", "2"]), ANSWERS), (text_rows(["c", "3"], ["d", "4"]), ANSWERS)]
    lines = csv_rows(write(tmp_path / "r.csv", "csv", *slices))
    assert lines[3] == ["c", "3", "12.5", "success"]
    table = pq.read_table(write(tmp_path / "r.parquet", "parquet", *slices))
    assert table.column("customer_id").to_pylist() == ["a", "b", "c", "d"]


def test_a_csv_reads_the_cells_of_a_worksheet_as_a_person_does(tmp_path):
    cells = worksheet_column([12345.0, True, dt.date(2025, 1, 31), "", dt.datetime(2025, 1, 31, 15, 30), "007"])
    nothing = pa.record_batch([pa.nulls(6, pa.string())], names=["x"])
    lines = csv_rows(write(tmp_path / "r.csv", "csv", (batch(cells), nothing), header=["a", "x"]))
    assert [line[0] for line in lines[1:]] == ["12345", "TRUE", "2025-01-31", "", "2025-01-31 15:30:00", "007"]


def test_parquet_has_typed_answers_and_distinct_names(tmp_path):
    header = ["note", "note", *HEADER[2:]]
    path = write(tmp_path / "r.parquet", "parquet", (text_rows(["1", "2"], ["3", "=4"]), ANSWERS), header=header)
    table = pq.read_table(path)
    assert table.column_names == ["note", "note_2", *HEADER[2:]]
    assert table.column("note_2").to_pylist() == ["2", "=4"]
    assert table.column("predicted_total_spend").to_pylist() == [12.5, None]


def test_parquet_keeps_the_types_of_an_upload_and_worksheets_become_text(tmp_path):
    uploaded = batch(
        pa.array([1, None], pa.int16()),
        pa.array([dt.date(2025, 1, 1), None]),
        pa.array(["a", "b"]).dictionary_encode(),
        worksheet_column([1.5, "x"]),
    )
    header = ["n", "day", "word", "cells", *HEADER[2:]]
    table = pq.read_table(write(tmp_path / "r.parquet", "parquet", (uploaded, ANSWERS), header=header))
    assert table.schema.field("n").type == pa.int16()
    assert table.column("day").to_pylist() == [dt.date(2025, 1, 1), None]
    assert table.column("word").to_pylist() == ["a", "b"]
    assert table.column("cells").to_pylist() == ["1.5", "x"]


def test_a_part_in_which_every_row_failed_has_the_types_of_the_others(tmp_path):
    targets = ("food", "sports")
    good = pa.record_batch(
        [pa.array([1.0 if field.type == pa.float64() else "x"], field.type) for field in answer_types(targets)],
        schema=answer_types(targets),
    )
    bad = failed_rows(targets, 1, "ChunkGivenUp: why")
    header = ["customer_id", *good.schema.names]
    for order in ([good, bad], [bad, good]):
        path = tmp_path / f"{order[0] is good}.parquet"
        table = pq.read_table(
            write(path, "parquet", *((batch(pa.array(["c"])), each) for each in order), header=header)
        )
        assert sorted(table.column("status").to_pylist()) == ["failed", "x"]
        assert table.schema.field("predicted_food_spend").type == pa.float64()
    assert bad.to_pylist()[0]["error"] == "ChunkGivenUp: why"


def test_the_same_rows_give_the_same_bytes_also_from_another_process(tmp_path):
    summary = {"rows": 4, "per_target": {"food": {"predicted_spend": 3.0, "lower": 1.0, "upper": 9.0}}}
    subprocess.run([sys.executable, "-c", MAKES_PARTS, str(tmp_path)], check=True, cwd=Path(__file__).parents[2])
    for result_format in FORMATS:
        one, two, elsewhere = tmp_path / "one", tmp_path / "two", tmp_path / result_format
        write_part(one, result_format, text_rows(["a", "1"], ["b", "2"]), ANSWERS, 0)
        write_part(two, result_format, text_rows(["c", "3"], ["d", "=4"]), ANSWERS, 2)
        assert two.read_bytes() == elsewhere.read_bytes()
        results = []
        for last in (two, elsewhere):
            assemble_result(tmp_path / "r", result_format, HEADER, [one, last], summary)
            results.append((tmp_path / "r").read_bytes())
        assert results[0] == results[1]


def test_what_does_not_fit_a_sheet_is_refused_instead_of_cut(tmp_path):
    with pytest.raises(DoesNotFitXlsx, match=r"1,048,576 rows or more, an Excel sheet holds 1,048,575"):
        write_part(tmp_path / "p", "xlsx", text_rows(["a", "b"], ["c", "d"]), ANSWERS, XLSX_ROWS - 2)
    with pytest.raises(DoesNotFitXlsx, match="16,386 columns"):
        write_part(tmp_path / "p", "xlsx", text_rows(["a"] * 16_384, ["b"] * 16_384), ANSWERS, 0)
    write_part(tmp_path / "p", "xlsx", text_rows(["a", "b"], ["c", "d"]), ANSWERS, XLSX_ROWS - 3)


@pytest.mark.parametrize("result_format", FORMATS)
def test_a_file_without_rows_has_its_header(tmp_path, result_format):
    path = write(tmp_path / f"r.{result_format}", result_format, header=["a", "b"])
    if result_format == "csv":
        assert path.read_text() == "a,b\n"
    elif result_format == "parquet":
        assert pq.read_table(path).column_names == ["a", "b"]
    else:
        import openpyxl

        assert list(openpyxl.load_workbook(path).active.iter_rows(values_only=True)) == [("a", "b")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the kernel has no disk that is always full")
@pytest.mark.parametrize("result_format", FORMATS)
def test_a_full_disk_is_an_os_error(tmp_path, result_format):
    part, full = tmp_path / "part", Path("/dev/full")
    rows = text_rows(["a", "1"], ["b", "2"])
    with pytest.raises(OSError, match="No space left"):
        write_part(full, result_format, rows, ANSWERS, 0)
    write_part(part, result_format, rows, ANSWERS, 0)
    with pytest.raises(OSError, match="No space left"):
        assemble_result(full, result_format, HEADER, [part], None)
