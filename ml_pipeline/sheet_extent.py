"""How large a rectangle the cells of a workbook's sheets span, found out before a reader makes room for all of it.

A reader of workbooks allocates the whole rectangle at once: one stray cell in the last corner of a sheet asks for hundreds
of gigabytes, and that ends the process.
"""

import re
import zipfile
import zlib
from pathlib import Path
from typing import IO

from ml_pipeline.errors import TooManyCells

CELLS_LIMIT = 50_000_000
CHUNK_BYTES = 1 << 20
LONGEST_REFERENCE = 64
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError)
"""What the zip module raises for archives that are broken, encrypted or packed in an unknown way."""
_COLUMN = re.compile(rb"""\sr=["']([A-Za-z]+)[0-9]""")
_ROW = re.compile(rb"""\sr=["'][A-Za-z]*([0-9]{1,40})["']""")


def check_extent(path: Path, cells_limit: int = CELLS_LIMIT) -> None:
    """Raises TooManyCells if a sheet spans more cells than the limit, one of DAMAGED for what is no whole archive."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.lower().endswith(".xml"):
                with archive.open(name) as part:
                    _check_part(part, cells_limit)


def _check_part(part: IO[bytes], cells_limit: int) -> None:
    chunk = part.read(CHUNK_BYTES)
    if b"worksheet" not in chunk[:4096]:
        return
    columns: set[bytes] = set()
    rows: set[bytes] = set()
    while chunk:
        columns.update(_COLUMN.findall(chunk))
        rows.update(_ROW.findall(chunk))
        following = part.read(CHUNK_BYTES)
        chunk = chunk[-LONGEST_REFERENCE:] + following if following else b""
    width, height = _span([_column_number(column) for column in columns]), _span([int(row) for row in rows])
    if width * height > cells_limit:
        raise TooManyCells(
            f"A sheet spans {width:,} columns and {height:,} rows, from its first cell to its last; at most "
            f"{cells_limit:,} cells are read. Delete what stands far away from the table, or send the table as CSV."
        )


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = number * 26 + letter - 64
    return number


def _span(numbers: list[int]) -> int:
    return max(numbers) - min(numbers) + 1 if numbers else 0
