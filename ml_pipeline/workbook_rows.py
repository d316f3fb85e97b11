"""The rows of a worksheet, .xlsx or .xls. Run it where memory is limited: what a workbook asks for is known only once it is open."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import python_calamine as calamine

from ml_pipeline.cells import cell_text, worksheet_column
from ml_pipeline.errors import EmptyFile, NoDataRows, NoWorksheet, PasswordProtected, UnknownSheet, UnsupportedFileType
from ml_pipeline.file_shape import ACCEPTED, SHOWN_SHEETS, XLSX, check_width, other_sheets, shown_names
from ml_pipeline.row_batches import check_bytes
from ml_pipeline.sheet_extent import check_extent, check_last_cell, check_unpacked

Row = Sequence[object]


@dataclass(frozen=True)
class OpenedSheet:
    """A worksheet that is being read: its name, those of all worksheets, its header, and the rows below that."""

    sheet: str
    sheets: tuple[str, ...]
    header: tuple[str, ...]
    rows: Iterator[Row]


def open_sheet(
    path: Path, file_format: str, wanted: str | None, columns_limit: int, saw: Callable[[int], None]
) -> OpenedSheet:
    """Opens a workbook at the sheet of this name or number (from 1), or at the first that is not hidden.

    The rows go from below the first that is not blank to the last that is not. Raises a CustomerFileError, and what zipfile,
    ElementTree and calamine raise for a damaged file.
    """
    try:
        book = calamine.CalamineWorkbook.from_path(path)
    except calamine.PasswordError:
        raise PasswordProtected(
            "The workbook is locked by a password. Save it in Excel without one and send it again."
        ) from None
    sheets = [sheet for sheet in book.sheets_metadata if sheet.typ == calamine.SheetTypeEnum.WorkSheet]
    sheet = _chosen([sheet.name for sheet in sheets], wanted) if wanted else _first(sheets)
    if file_format == XLSX:
        with zipfile.ZipFile(path) as archive:
            check_extent(archive, sheet, saw)
    content = book.get_sheet_by_name(sheet)
    check_last_cell(sheet, content.end)
    rows = _from_first_row(iter(content.iter_rows()))
    header = tuple(cell_text(cell) for cell in next(rows, []))
    names = tuple(each.name for each in sheets)
    if not any(header):
        raise EmptyFile(f"The sheet {sheet!r} is empty. {ACCEPTED}" + other_sheets(sheet, names))
    check_width(len(header), columns_limit)
    return OpenedSheet(sheet, names, header, rows)


def check_archive(path: Path) -> None:
    """Raises a CustomerFileError for an .xlsx that must not or cannot be opened; what zipfile raises for a damaged one."""
    with zipfile.ZipFile(path) as archive:
        check_unpacked(archive)
        if any(part.flag_bits & 1 for part in archive.infolist()):
            raise PasswordProtected("The workbook's parts are encrypted. Save it in Excel without a password.")
        folders = {name.lower().rpartition("/")[0] for name in archive.namelist()}
    if "xl/macrosheets" in folders and "xl/worksheets" in folders:
        raise UnsupportedFileType(
            "The workbook has a sheet of Excel 4 macros, with which it is not read. Save the customers' sheet as a workbook "
            "of its own."
        )
    if "xl/macrosheets" in folders:
        raise _no_worksheet()


def sheet_batches(opened: OpenedSheet, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    """The rows in batches of exactly so many but for the last."""
    width = len(opened.header)
    for chunk in _chunks(opened.rows, rows_per_chunk, width):
        columns = [worksheet_column([row[index] for row in chunk]) for index in range(width)]
        batch = pa.record_batch(columns, names=[str(index) for index in range(width)])
        check_bytes(batch.nbytes, batch.num_rows)
        yield batch


def check_has_rows(opened: OpenedSheet) -> None:
    """Raises NoDataRows where all rows below the header are blank."""
    if all(_is_blank(row) for row in opened.rows):
        raise NoDataRows(
            f"The sheet {opened.sheet!r} has a header ({shown_names(opened.header)}) and no row below it. Add one row "
            "per customer." + other_sheets(opened.sheet, opened.sheets)
        )


def _first(sheets: Sequence[calamine.SheetMetadata]) -> str:
    if not sheets:
        raise _no_worksheet()
    visible = [sheet for sheet in sheets if sheet.visible == calamine.SheetVisibleEnum.Visible]
    return (visible or list(sheets))[0].name


def _no_worksheet() -> NoWorksheet:
    return NoWorksheet(
        f"The workbook has no sheet of cells, only charts or macros. Put the customers into a worksheet. {ACCEPTED}"
    )


def _chosen(names: Sequence[str], wanted: str) -> str:
    """The sheet of this name, in any case, or else of this number."""
    alike = [name for name in names if name == wanted] or [name for name in names if name.lower() == wanted.lower()]
    if alike:
        return alike[0]
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted[:6]) <= len(names):
        return names[int(wanted[:6]) - 1]
    shown = ", ".join(repr(name) for name in names[:SHOWN_SHEETS]) + (", …" if len(names) > SHOWN_SHEETS else "")
    raise UnknownSheet(
        f"The workbook has no sheet {wanted[:100]!r}; it has {shown or 'no sheet of cells'}. Give one of these names, or a "
        "number from 1."
    )


def _is_blank(row: Row) -> bool:
    return row.count("") == len(row)


def _from_first_row(rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        if not _is_blank(row):
            yield row
            yield from rows


def _chunks(rows: Iterator[Row], rows_per_chunk: int, width: int) -> Iterator[list[Row]]:
    """Rows in lists of exactly so many but for the last, without the blank ones at the end."""
    blank: Row = [""] * width
    waiting: list[Row] = []
    held_back = 0
    while fresh := list(islice(rows, rows_per_chunk)):
        ending = next((n for n, row in enumerate(reversed(fresh)) if not _is_blank(row)), len(fresh))
        if ending == len(fresh):
            held_back += ending
            continue
        waiting += [*[blank] * held_back, *fresh[: len(fresh) - ending]]
        held_back = ending
        while len(waiting) >= rows_per_chunk:
            yield waiting[:rows_per_chunk]
            waiting = waiting[rows_per_chunk:]
    if waiting:
        yield waiting
