"""The workbook around the rows of a result: all that is not a row, made with xlsxwriter, and the place where the rows go."""

import datetime as dt
import functools
import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import xlsxwriter

from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_rows import neutral_text
from ml_pipeline.summary_sheet import draw_summary
from ml_pipeline.xlsx_cells import Styles
from ml_pipeline.xlsx_rows import column_letters
from ml_pipeline.xlsx_text import XLSX_CELL

SHEET = "xl/worksheets/sheet1.xml"
NUMBER_FORMATS = {
    "money": "#,##0.00",
    "percent": "0.0%",
    "day": "yyyy-mm-dd",
    "moment": "yyyy-mm-dd hh:mm:ss",
    "clock": "hh:mm:ss",
    "hours": "[h]:mm:ss",
}
CREATED = dt.datetime(2000, 1, 1)
"""Every workbook is of this day, so that the same rows give the same bytes."""
NARROWEST, WIDEST = 10, 60


@dataclass(frozen=True)
class WorkbookFrame:
    """A workbook without its rows.

    files: the other files of the zip by name. head, tail: the sheet's XML before its first row and after its last.
    styles: the style of each of NUMBER_FORMATS.
    """

    files: Mapping[str, bytes]
    head: bytes
    tail: bytes
    styles: Styles


def workbook_frame(
    header: Sequence[str], widths: Sequence[int], rows: int, summary: Mapping[str, Any] | None
) -> WorkbookFrame:
    """The frame of a sheet "predictions" of so many rows below its header, and of a sheet "summary" if there is one.

    widths: characters that each column shows. Raises DoesNotFitXlsx for a column name that is too long.
    """
    made = io.BytesIO()
    book = xlsxwriter.Workbook(made, {"in_memory": True})
    book.set_properties({"created": CREATED})
    _draw_header(book, header, widths, rows)
    if summary is not None:
        draw_summary(book, summary)
    book.close()
    with zipfile.ZipFile(made) as packed:
        files = {name: packed.read(name) for name in packed.namelist()}
    return _cut_out(files, f"A1:{column_letters(len(header) - 1)}{rows + 1}")


@functools.cache
def cell_styles() -> Styles:
    """The style of each number format; the same in every frame, since the header and the probe come first in all."""
    return workbook_frame(["probe"], [NARROWEST], 1, None).styles


def _draw_header(book: xlsxwriter.Workbook, header: Sequence[str], widths: Sequence[int], rows: int) -> None:
    """The first row, and below it a probe: a number in each format, to learn how the styles are numbered."""
    sheet = book.add_worksheet("predictions")
    bold = book.add_format({"bold": True, "bg_color": "#D9E2EC", "bottom": 1})
    for column, (name, width) in enumerate(zip(header, widths, strict=True)):
        text = neutral_text(name)
        if len(text.encode("utf-16-le")) // 2 > XLSX_CELL:
            raise DoesNotFitXlsx(
                f"The name of column {column + 1} has {len(text):,} characters, an Excel cell holds {XLSX_CELL:,}. "
                "Download the CSV instead."
            )
        sheet.write_string(0, column, text, bold)
        # the arrow of the filter takes the room of three characters
        sheet.set_column(column, column, min(max(NARROWEST, width, len(name) + 3), WIDEST))
    for column, number_format in enumerate(NUMBER_FORMATS.values()):
        sheet.write_number(1, column, 0, book.add_format({"num_format": number_format}))
    sheet.freeze_panes(1, 0)
    sheet.autofilter(0, 0, rows, len(header) - 1)


def _cut_out(files: dict[str, bytes], extent: str) -> WorkbookFrame:
    """The frame without the probe."""
    sheet = files.pop(SHEET)
    probe, end = sheet.index(b'<row r="2"'), sheet.index(b"</sheetData>")
    styles = [int(style) for style in re.findall(rb'<c r="[A-Z]2" s="([0-9]+)"', sheet[probe:end])]
    head = re.sub(rb'<dimension ref="[^"]*"/>', f'<dimension ref="{extent}"/>'.encode(), sheet[:probe])
    return WorkbookFrame(files, head, sheet[end:], dict(zip(NUMBER_FORMATS, styles, strict=True)))
