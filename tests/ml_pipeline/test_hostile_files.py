"""Odd and hostile files: each is read as it stands here, or refused by the name that stands here."""

import datetime as dt
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.old_workbook import compound_file, old_workbook
from ml_pipeline.cells import text_of
from ml_pipeline.csv_bytes import open_packed, open_utf8
from ml_pipeline.customer_files import cheap_to_count, describe_upload, ids_of, open_rows, read_rows
from ml_pipeline.errors import (
    CustomerFileError,
    DamagedFile,
    EmptyFile,
    MisnamedFile,
    NestedColumn,
    NoDataRows,
    NoWorksheet,
    PasswordProtected,
    ReaderLost,
    RowsTooLong,
    TooLargeToOpen,
    TooManyCells,
    TooManyColumns,
    TooManyRows,
    UnevenRow,
    UnknownSheet,
    UnpacksTooLarge,
    UnreadableFile,
    UnsupportedFileType,
)
from ml_pipeline.isolated_rows import IsolatedRows
from tests.ml_pipeline.odd_files import (
    MB,
    OFFICE,
    archive,
    archive_with_bomb,
    book,
    cell,
    gzip_of,
    parquet,
    sheet_xml,
    simple_sheet,
    workbook_parts,
)
from tests.ml_pipeline.upload_rows import count_rows

HEADER = "customer_id,note\n"
PLAIN = [("C1", "a"), ("C2", "b")]
TABLE = [["customer_id", "note"], ["C1", "a"], ["C2", "b"]]
MACRO_SHEET = "http://schemas.microsoft.com/office/2006/relationships/xlMacrosheet"
DATES = (
    '<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><cellXfs>'
    '<xf numFmtId="0"/><xf numFmtId="14" applyNumberFormat="1"/></cellXfs></styleSheet>'
)
SHARED = (
    '<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><si><t>customer_id</t></si>'
    "<si><r><t>C</t></r><r><rPr><b/></rPr><t>1</t></r></si></sst>"
)


def one_sheet(xml, **options):
    return archive(workbook_parts({"Kunden": xml}, **options))


def with_1904_dates():
    parts = workbook_parts(
        {"Kunden": sheet_xml(cell("A1", "customer_id") + cell("B1", "day"), cell("A2", "C1") + cell("B2", 1, style=1))},
        styles=DATES,
    )
    parts["xl/workbook.xml"] = parts["xl/workbook.xml"].replace("<sheets>", '<workbookPr date1904="1"/><sheets>')
    return archive(parts)


def hidden_first():
    return archive(
        workbook_parts(
            {"Lists": simple_sheet(["x"], ["1"]), "Kunden": simple_sheet(*TABLE)}, attributes='state="hidden"'
        )
    )


def two_sheets():
    return archive(workbook_parts({"2024": simple_sheet(["old"], ["C0"]), "Kunden": simple_sheet(*TABLE)}))


def only_macros():
    parts = workbook_parts({"Macro1": "<macrosheet/>"}, kind="macrosheet")
    relations = parts["xl/_rels/workbook.xml.rels"]
    parts["xl/_rels/workbook.xml.rels"] = relations.replace(f"{OFFICE}/macrosheet", MACRO_SHEET)
    return archive(parts)


def with_macro_sheet():
    return archive({**workbook_parts({"Kunden": simple_sheet(*TABLE)}), "xl/macrosheets/sheet2.xml": "<macrosheet/>"})


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def one_long_value(size, rows):
    """A dictionary-encoded column whose only value stands in every row."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["x" * size]))
    return parquet({"customer_id": pa.array(range(rows)), "note": column})


def encrypted_zip():
    content = bytearray(book(*TABLE))
    place = 0
    while (place := content.find(b"PK\x01\x02", place + 1)) > 0:
        content[place + 8] |= 1
    return bytes(content)


def many_columns(count):
    return ",".join(f"c{number}" for number in range(count)).encode() + b"\n" + b"1," * (count - 1) + b"1\n"


SHARED_BOMB = workbook_parts({"Kunden": simple_sheet(*TABLE)}, shared="<x/>")
SHARED_BOMB.pop("xl/sharedStrings.xml")
SHEET_BOMB = workbook_parts({"Kunden": ""})
SHEET_BOMB.pop("xl/worksheets/sheet1.xml")
SHEET_HEAD = sheet_xml("").partition("<row")[0].encode()
ONE_STRING = f'<sst xmlns="x"><si><t>{"x" * 30_000}</t></si></sst>'
MANY_REFERENCES = "".join(f'<row r="{n}">{cell(f"A{n}", 0, kind="s")}</row>' for n in range(1, 100_001))

ODD_CSV = {
    "a plain table": ("a.csv", HEADER + "C1,a\nC2,b\n", PLAIN),
    "text in a .txt": ("a.txt", "customer_id\tnote\nC1\ta\nC2\tb\n", PLAIN),
    "text in a .tsv": ("A.TSV", "customer_id\tnote\nC1\ta\nC2\tb\n", PLAIN),
    "parted by |": ("a.csv", "customer_id|note\nC1|a\nC2|b\n", PLAIN),
    "a comma in a name of a ; table": ("a.csv", "customer_id;Name, Vorname\nC1;a\nC2;b\n", PLAIN),
    "a comma in all rows of a tab table": (
        "a.csv",
        "customer_id\tx,y\nC1\t2,5\nC2\tb,c\n",
        [("C1", "2,5"), ("C2", "b,c")],
    ),
    "a tab in front of a comma table": ("a.csv", "\t\n\ncustomer_id,note\nC1,a\nC2,b\n", PLAIN),
    "a header of two lines": ("a.csv", 'customer_id,"no\nte"\nC1,a\nC2,b\n', PLAIN),
    "single quotes": ("a.csv", "'customer_id','note'\n'C1','a,b'\n", [("C1", "a,b")]),
    "a hint for Excel": ("a.csv", "sep=;\r\ncustomer_id;note\r\nC1;a\r\nC2;b\r\n", PLAIN),
    "UTF-16 with a mark": ("a.csv", (HEADER + "C1,a\nC2,é\n").encode("utf-16"), [("C1", "a"), ("C2", "é")]),
    "UTF-16 without a mark": ("a.csv", (HEADER + "C1,a\nC2,é\n").encode("utf-16-le"), [("C1", "a"), ("C2", "é")]),
    "UTF-16, big end first": ("a.csv", (HEADER + "C1,a\nC2,é\n").encode("utf-16-be"), [("C1", "a"), ("C2", "é")]),
    "UTF-16, cut in a sign": ("a.csv", (HEADER + "C1,a\nC2,b\n").encode("utf-16-le")[:-1], UnreadableFile),
    "Windows-1252": ("a.csv", (HEADER + "C1,€\n").encode("cp1252"), [("C1", "€")]),
    "a byte order mark in quotes": ("a.csv", '\ufeff"customer_id","note"\n"C1","a"\n', [("C1", "a")]),
    "decimal commas": (
        "a.csv",
        "customer_id;spend\n12345,0;1,5\n00042;2,25\n",
        [("12345,0", "1,5"), ("00042", "2,25")],
    ),
    "ends of lines of all kinds": ("a.csv", HEADER + "C1,a\r\nC2,b\rC3,c\n", [*PLAIN, ("C3", "c")]),
    "a lone return in a cell": ("a.csv", HEADER + "C1,a\rb\nC2,b\n", [("C1", "a"), ("b", ""), ("C2", "b")]),
    "short rows": ("a.csv", HEADER + "C1\nC2,b\n\nC3\n", [("C1", ""), ("C2", "b"), ("C3", "")]),
    "a delimiter at the end of the header alone": ("a.csv", "customer_id,note,,\nC1,a\nC2,b\n", PLAIN),
    "a column without a name or a cell": (
        "a.csv",
        "customer_id,note,\nC1,a,\nC2,b\n",
        [("C1", "a", ""), ("C2", "b", "")],
    ),
    "empty cells too many": ("a.csv", HEADER + "C1,a,,\nC2,b\n", PLAIN),
    "only short rows": ("a.csv", HEADER + "C1\nC2\n", [("C1", ""), ("C2", "")]),
    "one cell too many": ("a.csv", HEADER + "C1,a\nC2,b,c\n", UnevenRow),
    "a quote that is not closed": ("a.csv", HEADER + 'C1,"a\nC2,b\n', UnreadableFile),
    "a quote that is not closed in a short row": ("a.csv", HEADER + 'C1,a\n"C2\nC3,b\n', CustomerFileError),
    "names that occur twice": ("a.csv", "note,note\nC1,a\nC2,b\n", PLAIN),
    "blank lines in front": ("a.csv", "\n,\n" + HEADER + "C1,a\nC2,b\n", PLAIN),
    "ids as they were written": (
        "a.csv",
        "customer_id\n00042\n12345.0\n1e16\n9007199254740993\n",
        [("00042",), ("12345.0",), ("1e16",), ("9007199254740993",)],
    ),
    "nothing": ("a.csv", "", EmptyFile),
    "only blanks": ("a.csv", "\n  \n\t\n", (EmptyFile, NoDataRows)),
    "only a header": ("a.csv", HEADER, NoDataRows),
    "800 kB of blank lines in front": ("a.csv", "\n" * 800_000 + HEADER + "C1,a\nC2,b\n", PLAIN),
    "only a header and 2 MB of blank lines": ("a.csv", HEADER + "\n" * 2 * MB, NoDataRows),
    "a NUL at the beginning": ("a.csv", HEADER + "C1,a\0\n", UnreadableFile),
    "a NUL far behind": ("a.csv", HEADER + "C1,a\n" * 300_000 + "C2,\0\n", UnreadableFile),
    "a header of 2 MB": ("a.csv", "a" * 2 * MB + "\nC1\n", UnreadableFile),
    "a million columns": ("a.csv", many_columns(1_000_000), TooManyColumns),
    "20,000 columns": ("a.csv", many_columns(20_000), TooManyColumns),
    "a row of 20 MB": ("a.csv", HEADER + "C1," + "x" * 20 * MB + "\n", RowsTooLong),
    "1,000 rows of 300 kB": (
        "a.csv.gz",
        gzip_of(HEADER.encode()) + gzip_of(b"C1," + b"x" * 300_000 + b"\n") * 1000,
        RowsTooLong,
    ),
    "a picture": ("a.csv", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", UnreadableFile),
}
ODD_PACKED = {
    "a packed table": ("a.csv.gz", gzip_of(b"customer_id,note\nC1,a\nC2,b\n"), PLAIN),
    "a packed table called .gz": ("a.gz", gzip_of(b"customer_id;note\r\nC1;a\r\nC2;b\r\n"), PLAIN),
    "two packed pieces": ("a.csv.gz", gzip_of(b"customer_id,note\nC1,a\n") + gzip_of(b"C2,b\n"), PLAIN),
    "a packed table in Windows-1252": ("a.csv.gz", gzip_of((HEADER + "C1,é\n").encode("cp1252")), [("C1", "é")]),
    "a packed table that is cut off": ("a.csv.gz", gzip_of(HEADER.encode() + b"C1,a\n" * 9)[:-9], DamagedFile),
    "a packed table that is damaged": ("a.csv.gz", flip(gzip_of(HEADER.encode() + b"C1,a\n" * 999), 45), DamagedFile),
    "a packed table with a wrong sum": ("a.csv.gz", flip(gzip_of(b"customer_id\nC1\n"), -6), DamagedFile),
    "a packed table and rubbish": ("a.csv.gz", gzip_of(b"customer_id\nC1\n") + b"rubbish", DamagedFile),
    "nothing, packed": ("a.csv.gz", gzip_of(b""), EmptyFile),
    "a packed cell of 1 GB": ("a.csv.gz", gzip_of(b"customer_id\nC1") + gzip_of(b"x" * 16 * MB) * 64, RowsTooLong),
    "a packed workbook": ("a.xlsx.gz", gzip_of(book(*TABLE)), UnreadableFile),
    "packed twice": ("a.csv.gz", gzip_of(gzip_of(b"customer_id\nC1\n" * 99)), UnreadableFile),
    "text called .gz": ("a.csv.gz", HEADER + "C1,a\n", MisnamedFile),
    "a packed table called .csv": ("a.csv", gzip_of(b"customer_id\nC1\n"), MisnamedFile),
}
ODD_WORKBOOKS = {
    "a plain workbook": ("a.xlsx", book(*TABLE), PLAIN),
    "a workbook called .xls": ("a.xls", book(*TABLE), PLAIN),
    "a workbook with macros": (
        "a.xlsm",
        archive({**workbook_parts({"K": simple_sheet(*TABLE)}), "xl/vbaProject.bin": b"x"}),
        PLAIN,
    ),
    "numbers as ids": (
        "a.xlsx",
        book(["customer_id"], [12345], [12345.5], [1e16]),
        [("12345",), ("12345.5",), ("10000000000000000",)],
    ),
    "shared and rich text": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("A1", 0, kind="s"), cell("A2", 1, kind="s")), shared=SHARED),
        [("C1",)],
    ),
    "formulas with their values": (
        "a.xlsx",
        one_sheet(
            sheet_xml(
                cell("A1", "customer_id"),
                cell("A2", kind="str", inner='<f>"C"&amp;1</f><v>C1</v>'),
                cell("A3", kind="n", inner="<f>6*7</f><v>42</v>"),
            )
        ),
        [("C1",), ("42",)],
    ),
    "errors and booleans": (
        "a.xlsx",
        one_sheet(
            sheet_xml(
                cell("A1", "customer_id") + cell("B1", "ok"),
                cell("A2", "#N/A", kind="e", inner="<v>#N/A</v>") + cell("B2", 1, kind="b"),
                cell("A3", "C1") + cell("B3", 0, kind="b"),
            )
        ),
        [("", "TRUE"), ("C1", "FALSE")],
    ),
    "dates": (
        "a.xlsx",
        one_sheet(
            sheet_xml(cell("A1", "customer_id") + cell("B1", "day"), cell("A2", "C1") + cell("B2", 45_688, style=1)),
            styles=DATES,
        ),
        [("C1", "2025-01-31")],
    ),
    "dates from 1904 on": ("a.xlsx", with_1904_dates(), [("C1", "1904-01-02")]),
    "merged cells": (
        "a.xlsx",
        one_sheet(
            sheet_xml(
                cell("A1", "customer_id") + cell("B1", "n"),
                cell("A2", "C1") + cell("B2", 1),
                cell("B3", 2),
                tail='<mergeCells count="1"><mergeCell ref="A2:A3"/></mergeCells>',
            )
        ),
        [("C1", "1"), ("", "2")],
    ),
    "empty rows and columns in front": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("C5", "customer_id"), cell("C6", "C1"), first=5)),
        [("C1",)],
    ),
    "formats far away from the table": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("A1", "customer_id"), cell("A2", "C1") + '<c r="XFD1048576" s="1"/>')),
        [("C1",)],
    ),
    "cells without references": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("A1", "customer_id"), cell("A2", "C1")).replace(' r="A1"', "").replace(' r="A2"', "")),
        [("C1",)],
    ),
    "a hidden sheet in front": ("a.xlsx", hidden_first(), PLAIN),
    "all sheets hidden": ("a.xlsx", one_sheet(simple_sheet(*TABLE), attributes='state="veryHidden"'), PLAIN),
    "the sheet of this name": ("a.xlsx", two_sheets(), PLAIN, "kunden"),
    "the sheet of this number": ("a.xlsx", two_sheets(), PLAIN, "2"),
    "the sheet whose name is a number": ("a.xlsx", two_sheets(), [("C0",)], "2024"),
    "a sheet that is not there": ("a.xlsx", two_sheets(), UnknownSheet, "Customers"),
    "a sheet of a CSV": ("a.csv", HEADER + "C1,a\n", UnknownSheet, "Kunden"),
    "a lone cell beyond the last row": ("a.xlsx", one_sheet(sheet_xml(cell("A999999999", "customer_id"))), DamagedFile),
    "a cell beyond the last column": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("A1", "customer_id") + cell("XFE1", "x"), cell("A2", "C1"))),
        DamagedFile,
    ),
    "a stray cell in the last corner": (
        "a.xlsx",
        one_sheet(sheet_xml(cell("A1", "customer_id"), cell("A2", "C1") + cell("XFD1048576", 1))),
        TooManyCells,
    ),
    "a sheet of a header": ("a.xlsx", book(["customer_id"]), NoDataRows),
    "an empty sheet": ("a.xlsx", book(), EmptyFile),
    "a sheet of blanks": ("a.xlsx", book(["", ""], [""]), EmptyFile),
    "only a chart": ("a.xlsx", one_sheet("<chartsheet/>", kind="chartsheet"), NoWorksheet),
    "only macros": ("a.xlsm", only_macros(), NoWorksheet),
    "a sheet of macros beside the table": ("a.xlsm", with_macro_sheet(), UnsupportedFileType),
    "a workbook whose sheet is missing": (
        "a.xlsx",
        archive({k: v for k, v in workbook_parts({"K": ""}).items() if "sheet1" not in k}),
        DamagedFile,
    ),
    "a workbook that is cut off": ("a.xlsx", book(*TABLE)[:-50], DamagedFile),
    "a workbook that is damaged": ("a.xlsx", flip(book(*TABLE), book(*TABLE).find(b"sheet1.xml") + 60), DamagedFile),
    "XML that is no XML": ("a.xlsx", one_sheet("<worksheet><sheetData><row><c></row>"), CustomerFileError),
    "a locked workbook": (
        "a.xlsx",
        compound_file({"EncryptionInfo": b"x", "EncryptedPackage": b"y"}),
        PasswordProtected,
    ),
    "a zip with encrypted parts": ("a.xlsx", encrypted_zip(), PasswordProtected),
    "a shared string of 1 GB": (
        "a.xlsx",
        archive_with_bomb(SHARED_BOMB, "xl/sharedStrings.xml", b"<sst><si><t>", b"x" * 16 * MB, 64, b"</t></si></sst>"),
        (TooLargeToOpen, DamagedFile),
    ),
    "a sheet that unpacks to 4 GB": (
        "a.xlsx",
        archive_with_bomb(
            SHEET_BOMB, "xl/worksheets/sheet1.xml", SHEET_HEAD, b" " * 16 * MB, 255, b"</sheetData></worksheet>"
        ),
        UnpacksTooLarge,
    ),
    "a text of 30 kB in 100,000 cells": (
        "a.xlsx",
        one_sheet(f'<worksheet xmlns="x"><sheetData>{MANY_REFERENCES}</sheetData></worksheet>', shared=ONE_STRING),
        TooLargeToOpen,
    ),
    "an archive of something else": ("a.xlsx", archive({"readme.txt": "x"}), UnsupportedFileType),
    "a binary workbook": ("a.xlsx", archive({"xl/workbook.bin": "x"}), UnsupportedFileType),
    "an OpenDocument file": ("a.xlsx", archive({"mimetype": "x", "content.xml": "x"}), UnsupportedFileType),
    "a workbook called .csv": ("a.csv", book(*TABLE), MisnamedFile),
    "text called .xlsx": ("a.xlsx", HEADER + "C1,a\n", MisnamedFile),
    "HTML called .xls": ("a.xls", "<html><table><tr><td>customer_id", UnsupportedFileType),
    "an old workbook": ("a.xls", old_workbook(TABLE), PLAIN),
    "an old workbook called .xlsx": (
        "a.xlsx",
        old_workbook([["customer_id", "n"], ["00042", 1.5], [7.0, True]]),
        [("00042", "1.5"), ("7", "TRUE")],
    ),
    "a locked old workbook": ("a.xls", old_workbook(TABLE, locked=True), PasswordProtected),
    "an old workbook that is cut off": ("a.xls", old_workbook(TABLE)[:3000], (DamagedFile, NoWorksheet)),
    "another Office document": ("a.xls", compound_file({"WordDocument": b"x"}), UnsupportedFileType),
}
ODD_PARQUET = {
    "a plain Parquet file": ("a.parquet", parquet({"customer_id": ["C1", "C2"], "note": ["a", "b"]}), PLAIN),
    "integers above 2^53": (
        "a.parquet",
        parquet({"customer_id": [9007199254740993, -1]}),
        [("9007199254740993",), ("-1",)],
    ),
    "floats": ("a.pq", parquet({"customer_id": [12345.0, 0.5, None]}), [("12345",), ("0.5",), ("",)]),
    "decimals": ("a.parquet", parquet({"customer_id": [Decimal("12345"), Decimal("42")]}), [("12345",), ("42",)]),
    "bytes that are text": (
        "a.parquet",
        parquet({"customer_id": pa.array([b"C1", None], pa.binary())}),
        [("C1",), ("",)],
    ),
    "a dictionary": (
        "a.parquet",
        parquet({"customer_id": pa.array(["C1", "C2", None, "C1"]).dictionary_encode()}),
        [("C1",), ("C2",), ("",), ("C1",)],
    ),
    "long strings and string views": (
        "a.parquet",
        parquet({"customer_id": pa.array(["C1"], pa.large_string()), "note": pa.array(["a"], pa.string_view())}),
        [("C1", "a")],
    ),
    "days, booleans and nothing": (
        "a.parquet",
        parquet({"customer_id": ["C1"], "day": [dt.date(2025, 1, 31)], "ok": [True], "no": pa.nulls(1)}),
        [("C1", "2025-01-31", "TRUE", "")],
    ),
    "names that occur twice in Parquet": (
        "a.parquet",
        parquet(pa.table([pa.array(["C1"]), pa.array(["a"])], names=["note", "note"])),
        [("C1", "a")],
    ),
    "many row groups": (
        "a.parquet",
        parquet({"customer_id": [f"C{n}" for n in range(2500)]}, row_group_size=7),
        [(f"C{n}",) for n in range(2500)],
    ),
    "a list in each row": ("a.parquet", parquet({"customer_id": ["C1"], "tags": [["a", "b"]]}), NestedColumn),
    "a record in each row": ("a.parquet", parquet({"customer_id": ["C1"], "who": [{"a": 1}]}), NestedColumn),
    "a tensor in each row": (
        "a.parquet",
        parquet({"customer_id": ["C1"], "shape": pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((1, 2)))}),
        NestedColumn,
    ),
    "bytes that are no text": ("a.parquet", parquet({"customer_id": [b"\xff\xfe"]}), NestedColumn),
    "no columns": ("a.parquet", parquet(pa.table({})), EmptyFile),
    "no rows": ("a.parquet", parquet({"customer_id": pa.array([], pa.string())}), NoDataRows),
    "a Parquet file that is cut off": ("a.parquet", parquet({"customer_id": ["C1"]})[:-20], DamagedFile),
    "a Parquet file without its end": ("a.parquet", b"PAR1", DamagedFile),
    "a Parquet file that is damaged": (
        "a.parquet",
        flip(parquet({"customer_id": ["C1"] * 99}, compression="none"), 12),
        CustomerFileError,
    ),
    "an encrypted Parquet file": ("a.parquet", b"PARE" + bytes(50) + b"PARE", PasswordProtected),
    "a text of 1 MB in 2,000 rows": ("a.parquet", one_long_value(MB, 2_000), RowsTooLong),
    "a text of 100 MB in 50 rows": ("a.parquet", one_long_value(100 * MB, 50), (RowsTooLong, TooLargeToOpen)),
    "20,000 columns in Parquet": (
        "a.parquet",
        parquet(pa.table([pa.nulls(1)] * 17_000, names=[f"c{n}" for n in range(17_000)])),
        TooManyColumns,
    ),
    "a CSV called .parquet": ("a.parquet", HEADER + "C1,a\n", MisnamedFile),
    "a Parquet file called .csv": ("a.csv", parquet({"customer_id": ["C1"]}), MisnamedFile),
    "a file of an unknown kind": ("a.pdf", "%PDF-1.4", UnsupportedFileType),
    "a file without an ending": ("customers", HEADER + "C1,a\n", UnsupportedFileType),
}
ODD = {**ODD_CSV, **ODD_PACKED, **ODD_WORKBOOKS, **ODD_PARQUET}


def texts_of(path, name, sheet=None):
    shape, batches = open_rows(path, name, 1000, sheet=sheet)
    rows = []
    for batch in batches:
        assert len(batch.columns) == len(shape.header)
        rows += zip(*(text_of(column).to_pylist() for column in batch.columns), strict=True)
    return rows


@pytest.fixture(scope="module")
def outcomes(request, tmp_path_factory):
    """The rows or the error of every odd file that is asked for, several read at a time."""
    folder = tmp_path_factory.mktemp("odd")
    ours = (item for item in request.session.items if item.path == request.path)
    calls = (getattr(item, "callspec", None) for item in ours)
    asked = [call.params["odd"] for call in calls if call is not None and "odd" in call.params]

    def outcome(odd):
        name, content, _expected, *sheet = ODD[odd]
        path = folder / str(asked.index(odd))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            return texts_of(path, name, *sheet)
        except CustomerFileError as problem:
            return problem

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(asked, pool.map(outcome, asked), strict=True))


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_file_is_read_or_refused_as_stated(outcomes, odd, tmp_path_factory):
    outcome, expected = outcomes[odd], ODD[odd][2]
    if isinstance(expected, list):
        assert outcome == expected
        return
    assert isinstance(outcome, expected), outcome
    assert len(str(outcome)) > 40
    assert str(tmp_path_factory.getbasetemp()) not in str(outcome)


def test_the_table_is_long_enough():
    assert len(ODD) >= 60


@pytest.fixture
def upload(tmp_path):
    def made(content, name="received"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return made


BIG = {
    "a.csv": "".join(["customer_id,note\n", *(f"C{n},a\n" for n in range(2500))]).encode(),
    "a.csv.gz": gzip_of("".join(["customer_id,note\n", *(f"C{n}\n" for n in range(2500))]).encode()),
    "a.xlsx": book(["customer_id", "note"], *([f"C{n}", float(n) if n % 3 else "x"] for n in range(2500))),
    "a.parquet": parquet({"customer_id": [f"C{n}" for n in range(2500)], "n": range(2500)}, row_group_size=300),
}


@pytest.mark.parametrize("name", BIG)
def test_batches_have_exactly_the_rows_asked_for_and_are_always_the_same(upload, name):
    path = upload(BIG[name])
    shape = describe_upload(path, name)
    seen = []
    batches = list(read_rows(path, shape, 1000, seen.append))
    assert [batch.num_rows for batch in batches] == [1000, 1000, 500]
    assert seen == sorted(set(seen))
    assert seen[-1] >= 2500
    opened, again = open_rows(path, name, 1000)
    assert opened == shape
    assert all(one.equals(other) for one, other in zip(batches, again, strict=True))
    ids = [customer for batch in batches for customer in ids_of(batch, shape).to_pylist()]
    assert ids == [f"C{n}" for n in range(2500)]
    counts = count_rows(path, shape)
    assert (counts.rows, counts.customers, counts.has_duplicates) == (2500, 2500, False)


@pytest.mark.parametrize("name", BIG)
def test_limits_of_rows_and_columns_are_named_with_their_number(upload, name):
    path = upload(BIG[name])
    with pytest.raises(TooManyColumns, match="2 columns; at most 1 are"):
        describe_upload(path, name, columns_limit=1)
    shape = describe_upload(path, name, columns_limit=2)
    with pytest.raises(TooManyRows, match="more than 2,499 rows"):
        count_rows(path, shape, rows_limit=2499)
    with pytest.raises(TooManyRows, match="more than 2,000 rows"):
        list(read_rows(path, shape, 1000, rows_limit=2000))
    assert count_rows(path, shape, rows_limit=2500).rows == 2500


def test_what_was_detected_is_in_the_shape(upload):
    shape = describe_upload(upload(gzip_of(b"'Customer ID';'spend'\r\n'1';'1,5'\r\n")), "a.csv.gz")
    assert (shape.format, shape.compression, shape.delimiter, shape.quote) == ("csv", "gzip", ";", "'")
    assert (shape.encoding, shape.decimal, shape.result_format) == ("utf-8", ",", "csv")
    shape = describe_upload(upload(two_sheets()), "a.xlsx", sheet="2")
    assert (shape.format, shape.sheet, shape.sheets) == ("xlsx", "Kunden", ("2024", "Kunden"))
    shape = describe_upload(upload(old_workbook(TABLE)), "a.xls")
    assert (shape.format, shape.sheet, shape.result_format) == ("xls", "Kunden", "xlsx")
    assert describe_upload(upload(parquet({"n": [1]})), "a.parquet").result_format == "parquet"


def test_an_unknown_sheet_is_refused_with_the_names_of_those_that_are_there(upload):
    with pytest.raises(UnknownSheet, match="no sheet 'Customers'; it has '2024', 'Kunden'"):
        describe_upload(upload(two_sheets()), "a.xlsx", sheet="Customers")


@pytest.mark.parametrize("cover", [simple_sheet(["Customers of June"]), simple_sheet([""])])
def test_who_sends_a_cover_sheet_is_told_of_the_sheet_behind_it(upload, cover):
    path = upload(archive(workbook_parts({"Cover": cover, "Kunden": simple_sheet(*TABLE)})))
    way_out = r"The sheet 'Cover' .* Or ask for another sheet by its name: 'Kunden'\."
    with pytest.raises(CustomerFileError, match=way_out):
        describe_upload(path, "a.xlsx")
    with pytest.raises(CustomerFileError, match=way_out):
        list(open_rows(path, "a.xlsx", 10)[1])


@pytest.mark.parametrize(
    ("content", "name", "ids"),
    [
        ("customer_id;n\n12345,0;1,5\n00042;2,25\n1e16;1\n", "a.csv", ["12345", "00042", "1e16"]),
        ('customer_id,n\n="00042",1\n"=""00043""",2\n=1+1,3\n', "a.csv", ["00042", "00043", "=1+1"]),
        ("customer_id;n\n12345.0;1.5\n12345,0;2.5\n", "a.csv", ["12345", "12345,0"]),
        (parquet({"customer_id": pa.array([12345.0, 2.0**53, None])}), "a.parquet", ["12345", "9007199254740992", ""]),
        (parquet({"customer_id": pa.array([9007199254740993], pa.uint64())}), "a.parquet", ["9007199254740993"]),
        (parquet({"customer_id": [Decimal("12345.00")]}), "a.parquet", ["12345"]),
        (parquet({"customer_id": pa.array([b" 00042 "])}), "a.parquet", ["00042"]),
        (
            book(["customer_id"], ["00042"], [12345], ["12345.0"], [1e16]),
            "a.xlsx",
            ["00042", "12345", "12345", f"{10**16}"],
        ),
    ],
)
def test_ids_are_looked_up_whole(upload, content, name, ids):
    shape, batches = open_rows(upload(content), name, 1000)
    assert [customer for batch in batches for customer in ids_of(batch, shape).to_pylist()] == ids


def test_short_rows_stand_in_their_places_wherever_blocks_end(upload, monkeypatch):
    rows = [f"C{n}" if n % 3 == 0 else f"C{n},{n},," if n % 7 == 0 else f"C{n},{n}" for n in range(3000)]
    path = upload(HEADER + "\n".join(rows))
    monkeypatch.setattr("ml_pipeline.csv_rows.BLOCK_BYTES", 97)
    found = texts_of(path, "a.csv")
    assert found == [(f"C{n}", "" if n % 3 == 0 else str(n)) for n in range(3000)]


def test_rows_that_do_not_fit_are_put_right_only_as_far_as_memory_goes(upload, monkeypatch):
    monkeypatch.setattr("ml_pipeline.csv_rows.HELD_CELLS", 200)
    assert len(texts_of(upload(HEADER + "C1\n" * 100), "a.csv")) == 100
    with pytest.raises(UnevenRow, match="Row 102 "):
        texts_of(upload(HEADER + "C1\n" * 101), "a.csv")


def test_a_row_with_too_many_cells_is_named_by_its_number(upload):
    with pytest.raises(UnevenRow, match=r"Row 4 \(the header is row 1\) has 3 cells, the header has 2"):
        texts_of(upload(HEADER + "C1\n\nC2,b\nC3,c,d\n"), "a.csv")


def test_a_gzip_file_is_unpacked_no_further_than_the_limit(upload):
    path = upload(gzip_of(b"x" * MB) * 100)
    with open_packed(path, "gzip", limit=10 * MB) as stream:
        assert len(stream.read(9 * MB)) == 9 * MB
        with pytest.raises(UnpacksTooLarge, match="more than 10 MB"):
            stream.read(2 * MB)


def test_text_is_recoded_across_the_ends_of_blocks(upload, monkeypatch):
    monkeypatch.setattr("ml_pipeline.csv_bytes.BLOCK_BYTES", 7)
    text = "é€😀" * 50
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        with open_utf8(upload(text.encode(encoding)), None, encoding) as stream:
            assert stream.read() == text.encode()


def test_what_is_large_once_unpacked_is_not_cheap_to_count(upload):
    assert cheap_to_count(upload(book(*TABLE)))
    assert cheap_to_count(upload(gzip_of(b"customer_id\nC1\n")))
    assert not cheap_to_count(upload(gzip_of(b"x" * 70 * MB)))
    assert not cheap_to_count(upload(archive({"xl/workbook.xml": b"x" * 70 * MB})))


def test_a_reader_that_is_killed_is_no_fault_of_the_file(upload):
    with IsolatedRows(upload(book(*TABLE)), "xlsx", print, columns_limit=9, rows_per_chunk=9) as file:
        os.kill(file.process_id, signal.SIGKILL)
        with pytest.raises(ReaderLost, match="ended before it was done"):
            file.opened()


def test_a_reader_goes_when_its_file_is_left(upload):
    with IsolatedRows(upload(book(*TABLE)), "xlsx", print, columns_limit=9, rows_per_chunk=1) as file:
        assert file.opened()["sheet"] == "Kunden"
    with pytest.raises(ProcessLookupError):
        os.kill(file.process_id, 0)


@pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="no /proc to read an environment from (Linux has it)"
)
def test_a_reader_finds_no_secret_in_its_environment(upload, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://user:secret@host/jobs")
    with IsolatedRows(upload(book(*TABLE)), "xlsx", print, columns_limit=9, rows_per_chunk=1) as file:
        file.opened()
        assert b"secret" not in Path(f"/proc/{file.process_id}/environ").read_bytes()
