import datetime as dt
import io
import os
import zipfile
from pathlib import Path

import pytest
import xlsxwriter

from ml_pipeline.cells import cell_text, text_of
from ml_pipeline.customer_files import describe_upload, read_rows
from ml_pipeline.errors import (
    EmptyFile,
    MisnamedFile,
    NoDataRows,
    RowsTooLong,
    TooManyCells,
    TooManyColumns,
    UnevenRow,
    UnreadableFile,
    UnsupportedFileType,
)
from ml_pipeline.file_shape import FileShape
from ml_pipeline.sheet_extent import check_extent
from tests.ml_pipeline.upload_rows import count_rows, python_cells


@pytest.fixture
def upload(tmp_path):
    def make(content: bytes | str, name: str = "customers.csv") -> tuple[Path, str]:
        path = tmp_path / "received"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path, name

    return make


def workbook(*rows: list[object], sheets: int = 1, first_row: int = 0) -> bytes:
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer, {"in_memory": True, "default_date_format": "yyyy-mm-dd hh:mm:ss"})
    sheet = book.add_worksheet("Kunden")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            if cell is not None:
                sheet.write(first_row + number, column, cell)
    for number in range(1, sheets):
        book.add_worksheet(f"other {number}")
    book.close()
    return buffer.getvalue()


def rows_of(path: Path, shape: FileShape) -> list[tuple[object, ...]]:
    return [
        row
        for rows in read_rows(path, shape, 1000)
        for row in zip(*(python_cells(column) for column in rows.columns), strict=True)
    ]


def texts_of(path: Path, shape: FileShape) -> list[tuple[str, ...]]:
    return [
        row
        for rows in read_rows(path, shape, 1000)
        for row in zip(*(text_of(column).to_pylist() for column in rows.columns), strict=True)
    ]


@pytest.mark.parametrize(
    ("content", "delimiter", "encoding"),
    [
        ("customer_id,note\nC1,é\n", ",", "utf-8"),
        ("customer_id;note\nC1;é\n", ";", "utf-8"),
        ("customer_id\tnote\nC1\té\n", "\t", "utf-8"),
        ("\ufeffcustomer_id,note\nC1,é\n", ",", "utf-8-sig"),
        ("customer_id,note\r\nC1,é\r\n", ",", "utf-8"),
        ("customer_id,note\rC1,é\r", ",", "utf-8"),
        ("customer_id,note\nC1,é", ",", "utf-8"),
        ("customer_id,note\nC1,é\n".encode("cp1252"), ",", "cp1252"),
        ("customer_id,note\nC1,é".encode("cp1252"), ",", "cp1252"),
        ("customer_id,note\nC1,é\n".encode("utf-16"), ",", "utf-16"),
        ("\n\ncustomer_id,note\n\nC1,é\n\n", ",", "utf-8"),
        ('"customer_id","note"\n"C1","é"\n', ",", "utf-8"),
    ],
)
def test_a_csv_is_read_however_it_is_delimited_and_encoded(upload, content, delimiter, encoding):
    path, name = upload(content)
    shape = describe_upload(path, name)
    assert (shape.delimiter, shape.encoding, shape.header) == (delimiter, encoding, ("customer_id", "note"))
    assert rows_of(path, shape) == [("C1", "é")]


def test_a_delimiter_inside_quotes_does_not_decide(upload):
    path, name = upload('"name; first, last, born";customer_id\nx;C1\n')
    shape = describe_upload(path, name)
    assert (shape.delimiter, shape.id_column, shape.id_column_by_name) == (";", 1, True)


def test_the_delimiter_is_the_sign_that_parts_the_rows_as_it_parts_the_header(upload):
    path, name = upload("customer_id;a, b, c\nC1;x\nC2;y\n")
    assert describe_upload(path, name).header == ("customer_id", "a, b, c")


def test_an_encoding_is_told_from_the_whole_file(upload, monkeypatch):
    monkeypatch.setattr("ml_pipeline.csv_detection.SAMPLE_BYTES", 100)
    path, name = upload(("customer_id,note\n" + "C1,e\n" * 100 + "C1,é\n").encode("cp1252"))
    shape = describe_upload(path, name)
    assert shape.encoding == "cp1252"
    assert rows_of(path, shape)[-1] == ("C1", "é")


def test_cells_come_as_they_were_written(upload):
    path, name = upload('customer_id,a,b\n 00042 ,"x ""y"", z","two\nlines"\n12345.0,NA,null\n1e5,,-\n')
    shape = describe_upload(path, name)
    assert rows_of(path, shape) == [(" 00042 ", 'x "y", z', "two\nlines"), ("12345.0", "NA", "null"), ("1e5", "", "-")]


def test_columns_of_the_same_name_and_without_a_name_are_kept(upload):
    path, name = upload("note,note,,customer_id\n1,2,3,C1\n")
    shape = describe_upload(path, name)
    assert shape.header == ("note", "note", "", "customer_id")
    assert rows_of(path, shape) == [("1", "2", "3", "C1")]


def test_a_blank_line_is_no_row_but_an_empty_cell_is_one(upload):
    path, name = upload('customer_id\nC1\n\n""\nC2\n\n')
    assert rows_of(path, describe_upload(path, name)) == [("C1",), ("",), ("C2",)]


def test_slices_follow_each_other_and_none_is_larger_than_asked_for(upload):
    path, name = upload("customer_id\n" + "".join(f"C{number}\n" for number in range(25)))
    slices = [len(rows) for rows in read_rows(path, describe_upload(path, name), 10)]
    assert slices == [10, 10, 5]


def test_rows_are_counted_with_their_customers(upload):
    path, name = upload("customer_id\nC1\nC2\n C1\n''\n12345.0\n12345\nNULL\n")
    counts = count_rows(path, describe_upload(path, name))
    assert (counts.rows, counts.customers, counts.has_duplicates) == (7, 4, True)


def test_empty_ids_are_no_duplicates(upload):
    path, name = upload("customer_id,n\nC1,1\n,2\n,3\n")
    counts = count_rows(path, describe_upload(path, name))
    assert (counts.rows, counts.customers, counts.has_duplicates) == (3, 1, False)


def test_a_shape_survives_the_job_table(upload):
    path, name = upload("note;Customer ID\nx;C1\n")
    shape = describe_upload(path, name)
    assert FileShape.from_parameters({**shape.as_parameters(), "header": list(shape.header)}) == shape


@pytest.mark.parametrize(
    ("content", "name", "error", "said"),
    [
        (b"", "a.csv", EmptyFile, "0 bytes"),
        (b"", "a.xlsx", EmptyFile, "0 bytes"),
        (b"\n \n\n", "a.csv", (EmptyFile, NoDataRows), ""),
        (b"customer_id,note\n", "a.csv", NoDataRows, "customer_id, note"),
        (b"customer_id,note", "a.csv", NoDataRows, "customer_id, note"),
        (b"customer_id,note\n\n\n", "a.csv", NoDataRows, "no row below"),
        (os.urandom(5000), "a.csv", UnreadableFile, "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "a.csv", UnreadableFile, "binary"),
        (b"%PDF-1.4\n" + bytes(range(256)) * 4, "a.csv", UnreadableFile, "binary"),
        (b"customer_id,n\nC1,\x81\x8d\xff\n", "a.csv", UnreadableFile, "UTF-8"),
        (workbook(["customer_id"], ["C1"]), "a.csv", UnreadableFile, "Name it .xlsx"),
        (b"customer_id\nC1\n", "a.xlsx", UnreadableFile, "not an Excel workbook"),
        (workbook(["customer_id"], ["C1"])[:-200], "a.xlsx", UnreadableFile, "damaged"),
        (workbook(), "a.xlsx", EmptyFile, "Kunden"),
        (workbook(["customer_id", "n"]), "a.xlsx", NoDataRows, "customer_id, n"),
        (b"customer_id\nC1\n", "a.pdf", UnsupportedFileType, ".csv"),
        (b"customer_id\nC1\n", "customers", UnsupportedFileType, "no ending"),
        (b"x", "a.xls", MisnamedFile, "Name it .csv"),
        (b'customer_id,n\n"C1,1\nC2,2\n', "a.csv", UnevenRow, "Row 2"),
        (b"customer_id,n\nC1,1\nC2,2,3\n", "a.csv", UnevenRow, "Row 3 (the header is row 1) has 3 cells"),
        (b"a" * 2_000_000 + b"\nC1\n", "a.csv", UnreadableFile, "header is longer"),
        (",".join(f"c{n}" for n in range(20_000)).encode() + b"\n1\n", "a.csv", TooManyColumns, "16,384"),
        (b"customer_id\nC1\n" + b"x" * 20_000_000 + b"\nC2\n", "a.csv", RowsTooLong, "longer than 8 MB"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_reason(upload, content, name, error, said):
    path, name = upload(content, name)
    with pytest.raises(error) as caught:
        count_rows(path, describe_upload(path, name))
    assert said in str(caught.value)


def test_no_message_repeats_what_stands_in_a_row(upload):
    path, name = upload("customer_id,mail\nC1,a@example.com,secret\n")
    with pytest.raises(UnevenRow) as caught:
        count_rows(path, describe_upload(path, name))
    assert "secret" not in str(caught.value)
    assert "example.com" not in str(caught.value)


def test_a_worksheet_keeps_its_types_and_ids_lose_only_the_fraction(upload):
    moment = dt.datetime(2025, 1, 31, 15, 30)
    path, name = upload(
        workbook(
            ["Customer ID", "n", "day", "yes"], ["00042", 1.5, moment, True], [12345, -7, dt.date(2025, 1, 31), False]
        ),
        "a.xlsx",
    )
    shape = describe_upload(path, name)
    assert (shape.header, shape.sheet, shape.id_column_by_name) == (("Customer ID", "n", "day", "yes"), "Kunden", True)
    assert rows_of(path, shape) == [("00042", 1.5, moment, True), (12345, -7, dt.date(2025, 1, 31), False)]
    assert texts_of(path, shape) == [
        ("00042", "1.5", "2025-01-31 15:30:00", "TRUE"),
        ("12345", "-7", "2025-01-31", "FALSE"),
    ]


def test_blank_rows_around_a_table_are_not_part_of_it_but_one_inside_is_a_row(upload):
    path, name = upload(workbook(["customer_id"], ["C1"], [None], ["C2"], [" "], first_row=2), "a.xlsx")
    shape = describe_upload(path, name)
    assert texts_of(path, shape)[:3] == [("C1",), ("",), ("C2",)]
    path, name = upload(workbook(["customer_id", "n"], ["C1", 1], ["C2", 2], ["", ""]), "a.xlsx")
    assert len(rows_of(path, describe_upload(path, name))) == 2


def test_the_first_sheet_is_taken_and_named(upload):
    path, name = upload(workbook(["customer_id"], ["C1"], sheets=3), "A.XLSX")
    assert describe_upload(path, name).sheet == "Kunden"


def test_a_large_workbook_stays_closed_at_the_upload_but_must_be_one(upload):
    path, name = upload(workbook(["customer_id"], ["C1"]), "a.xlsx")
    assert describe_upload(path, name, open_workbooks=False).header == ()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "no workbook")
    path, name = upload(buffer.getvalue(), "a.xlsx")
    with pytest.raises(UnsupportedFileType, match="archive"):
        describe_upload(path, name, open_workbooks=False)


@pytest.mark.parametrize(
    ("cell", "text"),
    [(12345.0, "12345"), (1.5, "1.5"), (1e22, "10000000000000000000000"), (True, "TRUE"), (None, ""), (" x ", " x ")],
)
def test_a_cell_is_written_as_a_person_reads_it(cell, text):
    assert cell_text(cell) == text


def test_a_stray_cell_in_the_last_corner_of_a_sheet_is_refused_before_it_is_given_room(upload):
    rows = [["customer_id"], ["C1"]]
    buffer = io.BytesIO()
    book = xlsxwriter.Workbook(buffer, {"in_memory": True})
    sheet = book.add_worksheet()
    for number, row in enumerate(rows):
        sheet.write_row(number, 0, row)
    sheet.write(1_048_575, 16_383, "stray")
    book.close()
    with pytest.raises(TooManyCells, match="16,384 columns and 1,048,576 rows"):
        describe_upload(*upload(buffer.getvalue(), "customers.xlsx"))


def test_the_extent_of_a_sheet_counts_from_its_first_cell(tmp_path):
    book = tmp_path / "far.xlsx"
    with xlsxwriter.Workbook(book) as made:
        sheet = made.add_worksheet()
        for row in range(1_000_000, 1_000_010):
            sheet.write(row, 16_000, "C1")
            sheet.write(row, 16_001, row)
    with zipfile.ZipFile(book) as archive:
        check_extent(archive, "Sheet1", print, cells_limit=20)
        with pytest.raises(TooManyCells, match="2 columns and 10 rows"):
            check_extent(archive, "Sheet1", print, cells_limit=19)


def test_a_reference_that_is_cut_between_two_blocks_counts(tmp_path, monkeypatch):
    book = tmp_path / "a.xlsx"
    book.write_bytes(workbook(["customer_id"], [*[None] * 9, "far"]))
    for block in range(100, 140):
        monkeypatch.setattr("ml_pipeline.sheet_extent.CHUNK_BYTES", block)
        with zipfile.ZipFile(book) as archive, pytest.raises(TooManyCells, match="10 columns and 2 rows"):
            check_extent(archive, "Kunden", print, cells_limit=5)


def test_blank_rows_between_two_rows_of_a_sheet_are_rows(upload):
    path, name = upload(workbook(["customer_id", "n"], ["C1", 1], [], [], ["C2", 2], []), "customers.xlsx")
    assert rows_of(path, describe_upload(path, name)) == [("C1", 1.0), ("", ""), ("", ""), ("C2", 2.0)]


@pytest.mark.parametrize(
    "rows",
    [
        'C1,"a\nC2,b\nC3,c\n',
        'C1,"a\nC2,"b"\nC3,c\n',
        'C0,x\nC1,"a\nC2,"b\nC3,c',
    ],
)
def test_a_quote_that_is_never_closed_swallows_no_row_unsaid(upload, rows):
    path, name = upload("customer_id,note\n" + rows)
    shape = describe_upload(path, name)
    with pytest.raises(UnreadableFile, match=r"begins in line [23] has a quote that is not closed") as caught:
        count_rows(path, shape)
    assert "C2" not in str(caught.value)


def test_a_quote_that_is_never_closed_in_the_header_is_named(upload):
    with pytest.raises(UnreadableFile, match="quote in the header is not closed"):
        describe_upload(*upload('"customer_id,note\nC1,a\nC2,b\n'))


def test_cells_of_several_lines_and_quotes_within_a_cell_are_read(upload):
    path, name = upload('customer_id,note\r\nC1,"a\r\n""b""\r\n"\r\nC2,5" pipe\r\nC3,"c" \r\n')
    shape = describe_upload(path, name)
    assert texts_of(path, shape) == [("C1", 'a\r\n"b"\r\n'), ("C2", '5" pipe'), ("C3", "c ")]
