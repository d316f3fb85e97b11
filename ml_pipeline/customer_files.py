"""From a file of customers to its rows. What is wrong with the file as a whole is a CustomerFileError; rows are judged elsewhere."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.cells import text_of
from ml_pipeline.csv_detection import describe_csv
from ml_pipeline.csv_rows import read_csv
from ml_pipeline.errors import MissingHeader, NoDataRows, UnknownSheet
from ml_pipeline.file_kind import FileKind, kind_of
from ml_pipeline.file_shape import COLUMNS_LIMIT, CSV, PARQUET, FileShape, check_height, other_sheets, shown_names
from ml_pipeline.isolated_rows import IsolatedRows
from ml_pipeline.reading_cost import is_cheap
from ml_pipeline.result_rows import find_id_column, lookup_ids
from ml_pipeline.schema import MAX_ID_LENGTH, canonical_id
from ml_pipeline.snapshot import Snapshot

DECIMAL_COMMA_INTEGER = r"^([+-]?[0-9]+),0+$"
"""12345,0 is how a spreadsheet of many countries writes the id 12345."""
KEPT_AS_TEXT = r'^="([^"]*)"$'
"""="00042" in a CSV is how programs keep a spreadsheet from taking the zeros away."""


@dataclass(frozen=True)
class RowCounts:
    """rows below the header; distinct ids that are not empty; whether one of them occurs twice."""

    rows: int
    customers: int
    has_duplicates: bool


def no_display(_rows: int) -> None:
    """For callers who need not know how many rows have been seen so far."""


# ---- what kind of file it is


def describe_upload(
    path: Path,
    filename: str,
    sheet: str | None = None,
    open_workbooks: bool = True,
    columns_limit: int = COLUMNS_LIMIT,
) -> FileShape:
    """Looks at a file and says how it is to be read. Cheap, but for a workbook, of which all is read.

    sheet: the name or the number, from 1, of a workbook's sheet; None: the first that is not hidden.
    open_workbooks=False leaves a workbook closed: its header is not known then, and its sheet not checked.
    Raises a CustomerFileError for a file that cannot be read as what its name says.
    """
    kind = kind_of(path, filename)
    if kind.format == CSV:
        return _described_csv(path, kind, sheet, columns_limit)
    if kind.format == PARQUET:
        _refuse_sheet(sheet, "Parquet file")
    elif not open_workbooks:
        return FileShape(kind.format, sheet=sheet)
    with IsolatedRows(path, kind.format, no_display, columns_limit=columns_limit, sheet=sheet) as file:
        return _described(kind, file)


def open_rows(
    path: Path,
    filename: str,
    rows_per_chunk: int,
    saw: Callable[[int], None] = no_display,
    *,
    sheet: str | None = None,
    columns_limit: int = COLUMNS_LIMIT,
    rows_limit: int | None = None,
) -> tuple[FileShape, Iterator[pa.RecordBatch]]:
    """`describe_upload` and `read_rows` at the price of one: a workbook is opened only once."""
    kind = kind_of(path, filename)
    if kind.format == CSV:
        shape = _described_csv(path, kind, sheet, columns_limit)
        return shape, read_rows(path, shape, rows_per_chunk, saw, rows_limit)
    if kind.format == PARQUET:
        _refuse_sheet(sheet, "Parquet file")
    saw = _never_less(saw)
    opening = _opened(path, kind, rows_per_chunk, saw, sheet, columns_limit)
    shape = next(opening)
    assert isinstance(shape, FileShape)
    batches = (batch for batch in opening if isinstance(batch, pa.RecordBatch))
    return shape, _counted(batches, shape, saw, rows_limit)


def cheap_to_count(path: Path) -> bool:
    """Whether describing and counting a file is a matter of a second or two, judged by its size and its declared sizes."""
    return is_cheap(path)


def check_header(shape: FileShape, snapshot: Snapshot) -> None:
    """A first row that names a known customer is data; taken for a header, that customer would be lost unsaid.

    Raises MissingHeader. A header that is not read yet, or that has a column of the right name, passes.
    """
    if shape.id_column_by_name or not shape.header or shape.format == PARQUET:
        return
    first = canonical_id(shape.header[shape.id_column])
    if len(first) <= MAX_ID_LENGTH and snapshot.positions([first])[0] >= 0:
        raise MissingHeader(
            f"The first row has the known customer {first!r} where a column name should be: the file has no "
            "header. Add a first row such as customer_id and send it again."
        )


def _described_csv(path: Path, kind: FileKind, sheet: str | None, columns_limit: int) -> FileShape:
    _refuse_sheet(sheet, "CSV")
    return _with_id_column(describe_csv(path, kind.compression, columns_limit))


def _described(kind: FileKind, file: IsolatedRows) -> FileShape:
    told = file.opened()
    shape = FileShape(kind.format, tuple(told["header"]), sheet=told.get("sheet"), sheets=tuple(told.get("sheets", ())))
    return _with_id_column(shape)


def _with_id_column(shape: FileShape) -> FileShape:
    chosen = find_id_column(shape.header)
    return replace(shape, id_column=chosen.index, id_column_by_name=chosen.by_name)


def _refuse_sheet(sheet: str | None, what: str) -> None:
    if sheet:
        raise UnknownSheet(f"The sheet {sheet[:100]!r} was asked for, but a {what} has no sheets. Leave sheet out.")


# ---- its rows


def read_rows(
    path: Path,
    shape: FileShape,
    rows_per_chunk: int,
    saw: Callable[[int], None] = no_display,
    rows_limit: int | None = None,
) -> Iterator[pa.RecordBatch]:
    """The rows below the header in their order, in batches of exactly so many rows, the last one of those that are left.

    Columns are named "0", "1", ... by position; string for a CSV, string or cells.CELLS for a worksheet, their own types for
    Parquet. The same file always gives the same batches. Blank lines of a CSV are no rows.
    saw: told how many rows have been seen so far, never less than before; for a display of progress.
    Raises a CustomerFileError at the first row that cannot be read, TooManyRows beyond the limit.
    """
    saw = _never_less(saw)
    if shape.format == CSV:
        return _counted(read_csv(path, shape, rows_per_chunk), shape, saw, rows_limit)
    return _counted(_isolated_batches(path, shape, rows_per_chunk, saw), shape, saw, rows_limit)


def ids_of(batch: pa.RecordBatch, shape: FileShape) -> pa.Array:
    """The ids of some rows as they are looked up, '' where there is none: string without nulls."""
    cells = text_of(batch.column(str(shape.id_column)))
    if shape.format == CSV and pc.any(pc.starts_with(cells, '="')).as_py():
        cells = pc.replace_substring_regex(cells, KEPT_AS_TEXT, r"\1")
    ids = lookup_ids(cells)
    return pc.replace_substring_regex(ids, DECIMAL_COMMA_INTEGER, r"\1") if shape.decimal == "," else ids


def _isolated_batches(
    path: Path, shape: FileShape, rows_per_chunk: int, saw: Callable[[int], None]
) -> Iterator[pa.RecordBatch]:
    with IsolatedRows(
        path,
        shape.format,
        saw,
        columns_limit=max(COLUMNS_LIMIT, len(shape.header)),
        sheet=shape.sheet,
        rows_per_chunk=rows_per_chunk,
    ) as file:
        file.opened()
        yield from file.batches()


def _opened(
    path: Path,
    kind: FileKind,
    rows_per_chunk: int,
    saw: Callable[[int], None],
    sheet: str | None,
    columns_limit: int,
) -> Iterator[FileShape | pa.RecordBatch]:
    """First the shape, then the batches."""
    with IsolatedRows(
        path, kind.format, saw, columns_limit=columns_limit, sheet=sheet, rows_per_chunk=rows_per_chunk
    ) as file:
        yield _described(kind, file)
        yield from file.batches()


def _counted(
    batches: Iterator[pa.RecordBatch], shape: FileShape, saw: Callable[[int], None], rows_limit: int | None
) -> Iterator[pa.RecordBatch]:
    rows = 0
    for batch in batches:
        rows += batch.num_rows
        check_height(rows, rows_limit)
        saw(rows)
        yield batch
    if not rows:
        where = "The file" if shape.sheet is None else f"The sheet {shape.sheet!r}"
        raise NoDataRows(
            f"{where} has a header ({shown_names(shape.header)}) and no row below it. Add one row per customer."
            + other_sheets(shape.sheet, shape.sheets)
        )


def _never_less(saw: Callable[[int], None]) -> Callable[[int], None]:
    """Rows are seen while a workbook is looked through, and once more as they are read."""
    most = 0

    def told(rows: int) -> None:
        nonlocal most
        if rows > most:
            most = rows
            saw(rows)

    return told
