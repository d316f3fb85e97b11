"""Rows as the XML of a worksheet, made by the column in blocks of bounded memory."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.text_bytes import bytes_of
from ml_pipeline.xlsx_cells import KIND, SheetCells, Styles, sheet_cells

CELLS_PER_BLOCK = 1_000_000
BYTES_PER_BLOCK = 32 << 20


def rows_xml(
    columns: Sequence[pa.Array], number_styles: Sequence[str | None], styles: Styles, first_row: int
) -> Iterator[memoryview]:
    """The <row> elements of rows given as their columns, block by block. first_row: the number of the first, from 1.

    number_styles: the name of the number format of each column. Raises DoesNotFitXlsx for a cell that is too long.
    """
    rows = len(columns[0])
    step = _rows_per_block(columns)
    for start in range(0, rows, step):
        size = min(step, rows - start)
        cells = [
            sheet_cells(column.slice(start, size), styles, style, first_row + start)
            for column, style in zip(columns, number_styles, strict=True)
        ]
        yield bytes_of(_joined(cells, first_row + start, size)).data


def _rows_per_block(columns: Sequence[pa.Array]) -> int:
    rows = len(columns[0])
    cells, size = rows * len(columns), sum(column.nbytes for column in columns)
    blocks = max(-(-cells // CELLS_PER_BLOCK), -(-size // BYTES_PER_BLOCK), 1)
    return max(1, -(-rows // blocks))


def _joined(columns: Sequence[SheetCells], first_row: int, rows: int) -> pa.Array:
    """One text per row."""
    number = pa.array(np.arange(first_row, first_row + rows)).cast(KIND)
    parts: list[pa.Array | str] = ['<row r="', number, '">']
    for index, cells in enumerate(columns):
        cell = (f'<c r="{column_letters(index)}', number, cells.before, cells.value, cells.after)
        if cells.value.null_count:
            parts.append(pc.fill_null(_join(cell), ""))
        else:
            parts.extend(cell)
    return _join([*parts, "</row>"])


def _join(parts: Sequence[pa.Array | str]) -> pa.Array:
    """The parts of each row one after the other, null where one is null."""
    merged: list[pa.Array | pa.Scalar] = []
    constant = ""
    for part in parts:
        if isinstance(part, str):
            constant += part
            continue
        if constant:
            merged.append(pa.scalar(constant, KIND))
        merged.append(part)
        constant = ""
    return pc.binary_join_element_wise(*merged, pa.scalar(constant, KIND), pa.scalar("", KIND))


def column_letters(index: int) -> str:
    """The name of a column by its position from 0: A, B, ..., Z, AA."""
    letters = ""
    index += 1
    while index:
        index, letter = divmod(index - 1, 26)
        letters = chr(ord("A") + letter) + letters
    return letters
