"""What the readers of uploads give, as tests look at it: cells as Python objects, and counts."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from ml_pipeline.cells import BLANK, BOOLEAN, CELLS, CLOCK, DATE, HOURS, MOMENT, NUMBER, TEXT
from ml_pipeline.customer_files import RowCounts, ids_of, read_rows
from ml_pipeline.file_shape import FileShape

_FROM_TEXT: dict[int, Callable[[str], object]] = {
    BLANK: str,
    TEXT: str,
    NUMBER: float,
    BOOLEAN: lambda text: text == "TRUE",
    DATE: dt.date.fromisoformat,
    MOMENT: dt.datetime.fromisoformat,
    CLOCK: dt.time.fromisoformat,
    HOURS: lambda text: dt.timedelta(seconds=float(text)),
}


def python_cells(column: pa.Array) -> list[object]:
    """A column of an upload as Python objects, typed as the file has them; '' or None for a cell that is empty."""
    if column.type != CELLS:
        return list(column.to_pylist())
    pairs = zip(column.field(0).to_pylist(), column.field(1).to_pylist(), strict=True)
    return [_FROM_TEXT[kind](text) for text, kind in pairs]


def count_rows(path: Path, shape: FileShape, rows_limit: int | None = None) -> RowCounts:
    """Rows, distinct ids, and whether one of them occurs twice."""
    ids = [
        one for rows in read_rows(path, shape, 1000, rows_limit=rows_limit) for one in ids_of(rows, shape).to_pylist()
    ]
    named = [one for one in ids if one]
    return RowCounts(len(ids), len(set(named)), len(set(named)) < len(named))
