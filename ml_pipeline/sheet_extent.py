"""How large a rectangle the cells of a worksheet span, found out before a reader makes room for all of it.

A reader of workbooks allocates the whole rectangle at once: one stray cell in the last corner of a sheet asks for hundreds
of gigabytes. Cells without content (only formatted) take no room and do not count.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import DamagedFile, TooManyCells, UnpacksTooLarge

CELLS_LIMIT = 16_000_000
"""So that a sheet full of texts stays within the memory that the process that reads it may have."""
SHEET_ROWS, SHEET_COLUMNS = 1 << 20, 1 << 14
"""Of the largest worksheet that Excel and LibreOffice write."""
UNPACKED_LIMIT = 3 << 30
"""Bytes of all parts of a workbook together once they are unpacked."""
CHUNK_BYTES = 4 << 20
KEPT_BYTES = 256
"""Of a block of text without any tag, so much is looked at again together with the next block."""
LETTERS, DIGITS = 3, 7

IntArray = npt.NDArray[np.int64]


@dataclass
class Extent:
    """First and last row and column, from 1, of the cells seen so far; columns is empty when none was."""

    rows: tuple[int, int] = (1 << 60, 0)
    columns: tuple[int, int] = (1 << 60, 0)

    @property
    def height(self) -> int:
        """Rows from the first to the last."""
        return max(0, self.rows[1] - self.rows[0] + 1)

    @property
    def width(self) -> int:
        """Columns from the first to the last."""
        return max(0, self.columns[1] - self.columns[0] + 1)

    def add(self, columns: IntArray, rows: IntArray) -> None:
        """More cells."""
        if len(columns):
            self.rows = (min(self.rows[0], int(rows.min())), max(self.rows[1], int(rows.max())))
            self.columns = (min(self.columns[0], int(columns.min())), max(self.columns[1], int(columns.max())))


def check_extent(
    archive: zipfile.ZipFile, sheet: str, saw: Callable[[int], None], cells_limit: int = CELLS_LIMIT
) -> None:
    """Raises TooManyCells if the sheet spans more cells than the limit. saw: told how many rows have begun so far.

    A sheet whose part is not found passes. Raises what zipfile and ElementTree raise for a damaged archive.
    """
    part = _part_of(archive, sheet)
    if part is None:
        return
    with archive.open(part) as stream:
        extent = _extent_of(stream, saw)
    if extent.width * extent.height > cells_limit:
        raise TooManyCells(
            f"The sheet {sheet!r} spans {extent.width:,} columns and {extent.height:,} rows, from its first cell to its "
            f"last; at most {cells_limit:,} cells are read. Delete what stands far away from the table, or send the "
            "table as CSV."
        )


def check_last_cell(sheet: str, last: tuple[int, int] | None) -> None:
    """Raises DamagedFile for a last cell (row, column, from 0) where no worksheet has one: all rows above it would be read."""
    row, column = last or (0, 0)
    if row >= SHEET_ROWS or column >= SHEET_COLUMNS:
        raise DamagedFile(
            f"The sheet {sheet!r} names a cell in row {row + 1:,} and column {column + 1:,}; a worksheet has at most "
            f"{SHEET_ROWS:,} rows and {SHEET_COLUMNS:,} columns. Open the workbook in the program that made it and save it "
            "again, or send the table as CSV."
        )


def check_unpacked(archive: zipfile.ZipFile, limit: int = UNPACKED_LIMIT) -> None:
    """Raises UnpacksTooLarge for a workbook whose parts together are larger than the limit."""
    size = sum(part.file_size for part in archive.infolist())
    if size > limit:
        raise UnpacksTooLarge(
            f"The workbook unpacks to {size >> 20:,} MB; at most {limit >> 20:,} MB are taken. Send the table as CSV."
        )


def _part_of(archive: zipfile.ZipFile, sheet: str) -> str | None:
    """The part of the archive that holds a sheet: xl/workbook.xml has its relation, and xl/_rels the part of that."""
    parts = set(archive.namelist())
    if "xl/_rels/workbook.xml.rels" not in parts:
        return None
    relation = next(
        (
            value
            for element in _elements(archive, "xl/workbook.xml", "sheet")
            if element.get("name") == sheet
            for name, value in element.items()
            if name.endswith("}id")
        ),
        None,
    )
    targets = {
        element.get("Id"): element.get("Target", "")
        for element in _elements(archive, "xl/_rels/workbook.xml.rels", "Relationship")
    }
    target = targets.get(relation, "")
    part = target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
    return part if part in parts else None


def _elements(archive: zipfile.ZipFile, part: str, tag: str) -> list[ElementTree.Element]:
    with archive.open(part) as stream:
        return [element for _event, element in ElementTree.iterparse(stream) if element.tag.rpartition("}")[2] == tag]


def _extent_of(stream: IO[bytes], saw: Callable[[int], None]) -> Extent:
    extent = Extent()
    rows = 0
    left = b""
    while block := stream.read(CHUNK_BYTES):
        block = left + block
        end = block.rfind(b"<")
        end = end if end > 0 else max(0, len(block) - KEPT_BYTES)
        _add_cells(extent, block[:end])
        rows += block.count(b"<row", 0, end)
        left = block[end:]
        saw(rows)
    _add_cells(extent, left)
    return extent


def _add_cells(extent: Extent, xml: bytes) -> None:
    """Adds the cells with content in a piece of XML: the attribute r="AB12" of a tag that does not close at once."""
    signs = np.frombuffer(xml + bytes(LETTERS + DIGITS + 4), np.uint8)
    starts = np.flatnonzero(signs == ord("r"))
    starts = starts[(starts > 0) & (signs[starts + 1] == ord("=")) & (signs[starts - 1] <= ord(" "))] + 3
    starts = starts[(signs[starts] | 32) >= ord("a")]
    ends = np.flatnonzero(signs == ord(">"))
    if not len(starts) or not len(ends):
        return
    starts = starts[starts < ends[-1]]
    closing = ends[np.searchsorted(ends, starts)]
    starts = starts[signs[closing - 1] != ord("/")]
    extent.add(*_references(signs, starts))


def _references(signs: npt.NDArray[np.uint8], starts: IntArray) -> tuple[IntArray, IntArray]:
    """Column and row numbers, from 1, of the references that begin at these places."""
    columns, rows = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.int64)
    at = starts.copy()
    for _ in range(LETTERS):
        letter = (signs[at] | 32).astype(np.int64) - ord("a") + 1
        is_letter = (letter >= 1) & (letter <= 26)
        columns = np.where(is_letter, columns * 26 + letter, columns)
        at += is_letter
    for _ in range(DIGITS):
        digit = signs[at].astype(np.int64) - ord("0")
        is_digit = (digit >= 0) & (digit <= 9)
        rows = np.where(is_digit, rows * 10 + digit, rows)
        at += is_digit
    valid = (columns > 0) & (rows > 0)
    return columns[valid], rows[valid]
