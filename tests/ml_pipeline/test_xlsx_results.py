import datetime as dt
import re
import zipfile
from decimal import Decimal

import numpy as np
import openpyxl
import pyarrow as pa
import pytest
import python_calamine
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape

from ml_pipeline.cells import worksheet_column
from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_files import assemble_result
from ml_pipeline.result_parts import write_part
from ml_pipeline.result_rows import neutral_text
from ml_pipeline.xlsx_rows import column_letters
from ml_pipeline.xlsx_text import XLSX_CELL
from tests.ml_pipeline.test_result_files import batch, text_rows, write

ODD = [
    *('a<b>&"c"\'', "  before", "after  ", "\n", "two\nlines", "tab\tin", "return\rin", "crlf\r\nin", "]]>", "&amp;"),
    *("_x0041_", "_x0041_x0042_", "_x005F_", "max_x", "_x004_", "C:\\_x", "zero\0byte", "\x01\x1f", "\x7f\x85"),
    *("\U0001f600 é 名", "\u00a0nb\u00a0", "=1+1", "+cmd", "-2+3", "@x", "\t=1", "-5", "007", "1e5", "TRUE", "#N/A"),
    *("http://example.com", "{=1}", "x" * XLSX_CELL, "é" * 20_000),
]


def nothing_added(rows: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(pa.array([{}] * rows, pa.struct([])))


def one_column(folder, column: pa.Array):
    path = folder / "r.xlsx"
    write_part(folder / "part", "xlsx", batch(column), nothing_added(len(column)), 0)
    assemble_result(path, "xlsx", ["a"], [folder / "part"], None)
    return path


def by_openpyxl(path) -> list[object]:
    return [row[0] for row in openpyxl.load_workbook(path)["predictions"].iter_rows(min_row=2, values_only=True)]


def by_calamine(path) -> list[object]:
    rows = python_calamine.load_workbook(str(path)).get_sheet_by_name("predictions").to_python(skip_empty_area=False)
    return [row[0] for row in rows[1:]]


def assert_come_back(folder, texts: pa.Array) -> None:
    """The last text is not empty: a reader may leave out blank rows at the end."""
    path = one_column(folder, texts)
    shown = [neutral_text(text) for text in texts.to_pylist()]
    assert [unescape(cell) if cell else "" for cell in by_openpyxl(path)] == shown
    assert by_calamine(path) == shown


def test_every_odd_text_comes_back_as_it_went_in_and_is_no_formula(tmp_path):
    assert_come_back(tmp_path, pa.array(ODD))
    for row in openpyxl.load_workbook(tmp_path / "r.xlsx")["predictions"].iter_rows():
        assert all(cell.data_type != "f" and cell.hyperlink is None for cell in row)
    for odd in ODD:
        assert_come_back(tmp_path, pa.array([odd, "end"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.sampled_from("aZ0_x4é名\U0001f600<>&\"' \t\n\r\x00\x0b\x1f=+-@'é"), max_size=12)))
def test_texts_of_any_signs_come_back(tmp_path_factory, texts):
    sliced = pa.array(["first", *texts, "end", "last"]).slice(1, len(texts) + 1)
    assert_come_back(tmp_path_factory.mktemp("texts"), sliced)


def test_a_sign_that_xml_does_not_have_is_escaped_like_excel_does(tmp_path):
    assert by_openpyxl(one_column(tmp_path, pa.array(["\ufffe\uffff\x02"]))) == ["_xFFFE__xFFFF__x0002_"]


def test_the_mixed_cells_of_a_worksheet_keep_their_kinds(tmp_path):
    cells = [
        *("00042", 12345.0, 0.1, 1e300, -2.5, True, False, "", None, "=1+1", " b "),
        *(dt.date(2025, 1, 31), dt.datetime(2025, 1, 31, 15, 30, 1), dt.time(3, 4, 5), dt.timedelta(hours=30)),
        *(dt.datetime(1900, 1, 1), dt.date(1900, 3, 1), dt.date(9999, 12, 31), dt.date(1899, 12, 30), "end"),
    ]
    path = one_column(tmp_path, worksheet_column(cells))
    found = by_openpyxl(path)
    assert found[:11] == ["00042", 12345, 0.1, 1e300, -2.5, True, False, None, None, "'=1+1", " b "]
    assert isinstance(found[0], str)
    assert found[11:15] == [dt.datetime(2025, 1, 31), cells[12], cells[13], cells[14]]
    assert found[15:18] == [dt.datetime(1900, 1, 1), dt.datetime(1900, 3, 1), dt.datetime(9999, 12, 31)]
    assert found[18:] == ["1899-12-30", "end"]
    formats = [cell.number_format for (cell,) in openpyxl.load_workbook(path)["predictions"].iter_rows(min_row=2)]
    assert formats[11:15] == ["yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss", "hh:mm:ss", "[h]:mm:ss"]
    assert by_calamine(path)[11:15] == [cells[11], cells[12], cells[13], cells[14]]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, -7]), [1, None, -7]),
        (pa.array([10**15 - 1, 10**15, 2**63 - 1]), [10**15 - 1, "1000000000000000", "9223372036854775807"]),
        (pa.array([2**64 - 1, 5, None], pa.uint64()), ["18446744073709551615", 5, None]),
        (pa.array([0.1, None, 1e-7]), [0.1, None, 1e-7]),
        (pa.array([0.1, None, 2.5], pa.float32()), [0.1, None, 2.5]),
        (pa.array([1.5, float("nan"), float("-inf")]), [1.5, "nan", "'-inf"]),
        (pa.array([True, None, False]), [True, None, False]),
        (pa.array([Decimal("1.50"), None, Decimal("-2.25")]), [1.5, None, -2.25]),
        (pa.array([dt.date(2024, 2, 29), None, dt.date(1600, 1, 1)]), [dt.datetime(2024, 2, 29), None, "1600-01-01"]),
        (pa.array([0, None, 86_400_000], pa.date64()), [dt.datetime(1970, 1, 1), None, dt.datetime(1970, 1, 2)]),
        (pa.array([dt.time(23, 59, 59), None, dt.time(12)]), [dt.time(23, 59, 59), None, dt.time(12)]),
        (pa.array([dt.timedelta(hours=30), None]), [dt.timedelta(hours=30), None]),
        (pa.array(["a", None, ""], pa.large_string()), ["a", None, None]),
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", None, "b"]),
        (pa.nulls(3), [None, None, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_columns_of_a_parquet_file_keep_what_they_are(tmp_path, column, expected):
    end = pa.record_batch([pa.array(["x"] * len(column))], names=["status"])
    path = write(tmp_path / "r.xlsx", "xlsx", (batch(column), end), header=["a", "status"])
    assert by_openpyxl(path) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_moments_of_every_unit_are_the_same_moment(tmp_path, unit):
    moment = dt.datetime(2025, 1, 31, 15, 30, 1)
    assert by_openpyxl(one_column(tmp_path, pa.array([moment], pa.timestamp(unit)))) == [moment]


def test_a_moment_with_a_zone_is_text_since_a_worksheet_knows_no_zones(tmp_path):
    zoned = pa.array([dt.datetime(2025, 1, 31, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    assert by_openpyxl(one_column(tmp_path, zoned)) == ["2025-01-31 00:00:00+00:00"]


def test_money_and_probabilities_have_their_formats_and_the_header_stays_in_sight(tmp_path):
    names = ["predicted_total_spend", "predicted_food_spend_lower", "purchase_probability_30d", "status"]
    answers = pa.record_batch(
        [pa.array([1234.5]), pa.array([0.07]), pa.array([0.1234]), pa.array(["success"])], names=names
    )
    header = ["customer_id", "=note", *names]
    rows = text_rows(["c", "n" * 200])
    sheet = openpyxl.load_workbook(write(tmp_path / "r.xlsx", "xlsx", (rows, answers), header=header))["predictions"]
    assert [cell.value for cell in sheet[1]] == ["customer_id", "'=note", *names]
    assert [cell.number_format for cell in sheet[2]][2:] == ["#,##0.00", "#,##0.00", "0.0%", "General"]
    assert [cell.value for cell in sheet[2]][2:5] == [1234.5, 0.07, 0.1234]
    assert all(cell.font.bold and cell.fill.fgColor.rgb == "FFD9E2EC" for cell in sheet[1])
    assert not sheet["A2"].font.bold
    assert sheet.freeze_panes == "A2"
    assert sheet.auto_filter.ref == sheet.dimensions == "A1:F2"
    assert sheet.column_dimensions["B"].width > 50 > sheet.column_dimensions["C"].width > len(names[0])


def test_the_xml_names_every_cell_and_leaves_no_probe(tmp_path):
    answers = pa.record_batch([pa.array([1.5, None])], names=["amount"])
    path = write(tmp_path / "r.xlsx", "xlsx", (text_rows(["a", ""], ["b", "x"]), answers), header=["a", "b", "amount"])
    with zipfile.ZipFile(path) as workbook:
        assert workbook.testzip() is None
        assert {entry.date_time for entry in workbook.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        xml = workbook.read("xl/worksheets/sheet1.xml").decode()
    assert '<dimension ref="A1:C3"/>' in xml
    assert re.findall(r'<row r="(\d+)"', xml) == ["1", "2", "3"]
    assert re.findall(r'<c r="([A-Z]+\d+)"', xml) == ["A1", "B1", "C1", "A2", "C2", "A3", "B3"]


def test_a_workbook_is_of_a_fixed_day(tmp_path):
    made = openpyxl.load_workbook(one_column(tmp_path, pa.array(["a"]))).properties
    assert (made.created, made.modified) == (dt.datetime(2000, 1, 1), dt.datetime(2000, 1, 1))


def test_rows_of_parts_that_are_left_out_stay_blank(tmp_path):
    for first_row in (0, 2):
        write_part(tmp_path / str(first_row), "xlsx", text_rows(["a"], ["b"]), nothing_added(2), first_row)
    assemble_result(tmp_path / "r.xlsx", "xlsx", ["h"], [tmp_path / "2"], None)
    assert by_openpyxl(tmp_path / "r.xlsx") == [None, None, "a", "b"]
    assert openpyxl.load_workbook(tmp_path / "r.xlsx")["predictions"].auto_filter.ref == "A1:A5"


def test_many_cells_are_made_in_blocks_and_are_the_same_as_at_once(tmp_path, monkeypatch):
    numbers = np.arange(1_000)
    column = pa.array([f"n{number}" for number in numbers])
    whole = one_column(tmp_path, column).read_bytes()
    monkeypatch.setattr("ml_pipeline.xlsx_rows.CELLS_PER_BLOCK", 7)
    path = one_column(tmp_path, column)
    assert by_openpyxl(path) == column.to_pylist()
    with zipfile.ZipFile(path) as workbook:
        in_blocks = workbook.read("xl/worksheets/sheet1.xml")
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as workbook:
        assert workbook.read("xl/worksheets/sheet1.xml") == in_blocks


def test_a_text_too_long_for_a_cell_names_its_row(tmp_path):
    texts = ["a"] * 40 + ["x" * (XLSX_CELL + 1)]
    with pytest.raises(DoesNotFitXlsx, match=r"row 142 has 32,768 characters"):
        write_part(tmp_path / "p", "xlsx", batch(pa.array(texts)), nothing_added(41), 100)
    with pytest.raises(DoesNotFitXlsx, match=r"row 2 has 32,768 characters"):
        one_column(tmp_path, pa.array(["\U0001f600" * (XLSX_CELL // 2) + "xx"]))
    with pytest.raises(DoesNotFitXlsx, match=r"name of column 1"):
        assemble_result(tmp_path / "r.xlsx", "xlsx", ["x" * (XLSX_CELL + 1)], [], None)


@pytest.mark.parametrize(
    ("index", "letters"), [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA"), (16_383, "XFD")]
)
def test_columns_are_named_like_in_a_spreadsheet(index, letters):
    assert column_letters(index) == letters
