"""The columns of an upload: text, a file's own types, or the mixed cells of a worksheet; and each cell as a person reads it."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BLANK, TEXT, NUMBER, BOOLEAN, DATE, MOMENT, CLOCK, HOURS = range(8)
"""Kinds of worksheet cells. Their text: a number as Python writes it (12345, 0.5), TRUE or FALSE, a date and a moment in ISO
form with a space between both, the time of a day as 13:45:00, and a duration in seconds."""
SURELY_WHOLE = 2.0**63
CELLS = pa.struct([pa.field("text", pa.string()), pa.field("kind", pa.uint8())])
"""A worksheet's column that has more than text: what each cell says, and of what kind it is; never null."""


def worksheet_column(cells: Sequence[object]) -> pa.Array:
    """Cells as a reader of workbooks gives them (str, float, bool, dates, '' or None) -> string, or CELLS where not all is text."""
    kinds = set(map(type, cells))
    if kinds <= {str}:
        return pa.array(cells, pa.string())
    if kinds == {float}:
        texts = _number_texts(np.array(cells, np.float64))
        return pa.StructArray.from_arrays(
            [texts, pa.repeat(pa.scalar(NUMBER, pa.uint8()), len(cells))], fields=list(CELLS)
        )
    texts = pa.array([cell if type(cell) is str else cell_text(cell) for cell in cells], pa.string())
    return pa.StructArray.from_arrays([texts, pa.array(map(_kind, cells), pa.uint8())], fields=list(CELLS))


def _number_texts(numbers: npt.NDArray[np.float64]) -> pa.Array:
    """`cell_text` of many numbers at once."""
    whole = (np.abs(numbers) < SURELY_WHOLE) & (numbers == np.trunc(numbers))
    texts = pa.array(np.where(whole, numbers, 0).astype(np.int64)).cast(pa.string())
    if whole.all():
        return texts
    rest = numbers[~whole]
    told = map(float.__repr__ if (np.abs(rest) < SURELY_WHOLE).all() else cell_text, rest.tolist())
    return pc.replace_with_mask(texts, pa.array(~whole), pa.array(told, pa.string()))


def cell_text(cell: object) -> str:
    """A worksheet cell as a person reads it: 12345.0 as 12345, dates in ISO form, a duration in seconds."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "TRUE" if cell else "FALSE"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, dt.datetime):
        return cell.isoformat(sep=" ")
    if isinstance(cell, (dt.date, dt.time)):
        return cell.isoformat()
    if isinstance(cell, dt.timedelta):
        return cell_text(cell.total_seconds())
    return "" if cell is None else str(cell)


def text_of(column: pa.Array) -> pa.Array:
    """A column of an upload as text, string without nulls: '' for a cell that is empty."""
    if column.type == CELLS:
        return column.field(0)
    if pa.types.is_string(column.type):
        return pc.fill_null(column, "")
    if pa.types.is_float64(column.type) and not column.null_count:
        return _number_texts(column.to_numpy())
    if not _casts_as_it_reads(column.type):
        return pa.array([cell_text(cell) for cell in column.to_pylist()], pa.string())
    return pc.fill_null(column.cast(pa.string()), "")


def _casts_as_it_reads(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _kind(cell: object) -> int:
    if isinstance(cell, str):
        return TEXT if cell else BLANK
    if isinstance(cell, bool):
        return BOOLEAN
    if isinstance(cell, (int, float)):
        return NUMBER
    if isinstance(cell, dt.datetime):
        return MOMENT
    if isinstance(cell, dt.date):
        return DATE
    if isinstance(cell, dt.time):
        return CLOCK
    if isinstance(cell, dt.timedelta):
        return HOURS
    return BLANK if cell is None else TEXT
