"""The rows of a CSV as Arrow batches. Arrow parses; rows whose blank cells at the end are missing or too many are put right."""

import csv
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from ml_pipeline.csv_bytes import open_utf8
from ml_pipeline.errors import RowsTooLong, UnevenRow, UnreadableFile
from ml_pipeline.file_shape import FileShape
from ml_pipeline.row_batches import cut_batches

BLOCK_BYTES = 8 << 20
HELD_CELLS = 4_000_000
"""Of rows that are put right in one go: Arrow hands over nothing until it meets a row that fits."""


def read_csv(path: Path, shape: FileShape, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    """The rows below the header: strings without nulls, in batches of exactly so many rows but for the last.

    Blank lines are no rows. Raises a CustomerFileError at the first row that cannot be read.
    """
    return cut_batches(_checked_blocks(path, shape), rows_per_chunk)


def _checked_blocks(path: Path, shape: FileShape) -> Iterator[pa.RecordBatch]:
    spans_lines = False
    for block in _repaired_blocks(path, shape):
        spans_lines = spans_lines or any(map(_has_line_break, block.columns))
        yield block
    if spans_lines:
        _check_quotes(path, shape)


def _repaired_blocks(path: Path, shape: FileShape) -> Iterator[pa.RecordBatch]:
    repairs = _Repairs(shape)
    with open_utf8(path, shape.compression, shape.encoding) as stream, _named_errors(repairs):
        for block in pa_csv.open_csv(stream, *_options(path, shape, repairs)):
            yield repairs.merged(block)
    if rest := repairs.left():
        yield rest


def _options(
    path: Path, shape: FileShape, repairs: "_Repairs"
) -> tuple[pa_csv.ReadOptions, pa_csv.ParseOptions, pa_csv.ConvertOptions]:
    names = repairs.names
    size = path.stat().st_size if shape.compression is None else BLOCK_BYTES
    return (
        pa_csv.ReadOptions(
            column_names=names,
            skip_rows_after_names=shape.header_records,
            block_size=min(BLOCK_BYTES, 3 * size + 1024),
            use_threads=False,
        ),
        pa_csv.ParseOptions(
            delimiter=shape.delimiter,
            quote_char=shape.quote,
            newlines_in_values=True,
            invalid_row_handler=repairs.take,
        ),
        pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
        ),
    )


class _Repairs:
    """Rows that Arrow leaves out for their number of cells, put right and back into their places."""

    def __init__(self, shape: FileShape) -> None:
        self.names = [str(index) for index in range(len(shape.header))]
        self.refused: UnevenRow | None = None
        self._shape = shape
        self._held: dict[int, tuple[str, ...]] = {}
        self._next = 0

    def take(self, row: pa_csv.InvalidRow) -> str:
        """Arrow's question what to do with a row. row.number counts the header's records and the rows from 1 on."""
        cells = self._cells(row.text)
        width = len(self.names)
        surplus = any(cell.strip() for cell in cells[width:]) if len(cells) > width else False
        if surplus or len(self._held) * width >= HELD_CELLS:
            self.refused = self._uneven(row.number - self._shape.header_records + 1, row.actual_columns)
            return "error"
        missing = width - len(cells)
        self._held[row.number - self._shape.header_records - 1] = (
            (*cells, *[""] * missing) if missing > 0 else tuple(cells[:width])
        )
        return "skip"

    def merged(self, block: pa.RecordBatch) -> pa.RecordBatch:
        """The next rows that Arrow could read, with those between them that it could not."""
        places = sorted(self._held)
        before = [place - self._next - earlier for earlier, place in enumerate(places)]
        places = places[: int(np.searchsorted(before, block.num_rows))]
        self._next += block.num_rows + len(places)
        if not places:
            return block
        order = np.insert(np.arange(block.num_rows), before[: len(places)], block.num_rows + np.arange(len(places)))
        together = pa.concat_batches([block, self._batch(places)])
        return together.take(pa.array(order))

    def left(self) -> pa.RecordBatch | None:
        """Rows that stand behind the last that Arrow could read."""
        return self._batch(sorted(self._held)) if self._held else None

    def _batch(self, places: list[int]) -> pa.RecordBatch:
        rows = [self._held.pop(place) for place in places]
        return pa.record_batch([pa.array(column, pa.string()) for column in zip(*rows, strict=True)], names=self.names)

    def _cells(self, text: str) -> list[str]:
        """The cells of one row; one too many where a quote of it is not closed."""
        if self._shape.quote not in text:
            return text.split(self._shape.delimiter)
        lines = io.StringIO(text, newline="")
        records = csv.reader(lines, delimiter=self._shape.delimiter, quotechar=self._shape.quote, strict=True)
        try:
            return next(records, [])
        except csv.Error:
            return ["?"] * (len(self.names) + 1)

    def _uneven(self, number: int, cells: int) -> UnevenRow:
        return UnevenRow(
            f"Row {number} (the header is row 1) has {cells} cells, the header has {len(self.names)}. Put cells that "
            f'contain "{self._shape.delimiter}" or a line break into quotes, and close every quote.'
        )


def _has_line_break(cells: pa.Array) -> bool:
    values = cells.buffers()[2]
    signs = np.frombuffer(values, np.uint8) if values is not None else np.empty(0, np.uint8)
    return bool((signs == ord("\n")).any() or (signs == ord("\r")).any())


def _check_quotes(path: Path, shape: FileShape) -> None:
    """Arrow lets a quote that nobody closed swallow the rows below it: a cell of several lines must end with its quote."""
    with (
        open_utf8(path, shape.compression, shape.encoding) as stream,
        io.TextIOWrapper(stream, encoding="utf-8", newline="") as lines,
    ):
        records = csv.reader(lines, delimiter=shape.delimiter, quotechar=shape.quote, strict=True)
        while True:
            line = records.line_num + 1
            try:
                if next(records, None) is None:
                    return
            except csv.Error:
                if records.line_num > line:
                    raise UnreadableFile(
                        f"The row that begins in line {line} has a quote that is not closed, or a cell of several lines "
                        f"that is longer than {csv.field_size_limit() >> 10} kB. Close the quote, and double those that "
                        f"belong to the text ({shape.quote * 2}), so that no row is taken for a part of another."
                    ) from None


@contextmanager
def _named_errors(repairs: _Repairs) -> Iterator[None]:
    """Arrow's messages quote the row, which may be personal: none of their words goes on."""
    try:
        yield
    except pa.ArrowInvalid as problem:
        if repairs.refused is not None:
            raise repairs.refused from None
        if re.search(r"straddl", str(problem)):
            raise RowsTooLong(
                f"A row is longer than {BLOCK_BYTES >> 20} MB; most often a quote is not closed. Close every quote, or "
                "leave columns of long text out."
            ) from None
        raise UnreadableFile(
            "The rows cannot be read as CSV; most often a quote is not closed. Save the file as CSV in UTF-8 and send it again."
        ) from None
