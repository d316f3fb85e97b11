"""From rows and their answers to a result file: CSV, XLSX or Parquet."""

import datetime as dt
import errno
from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter
from xlsxwriter.exceptions import XlsxWriterException

from ml_pipeline.cells import python_cells, text_of
from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_rows import neutral_text, write_csv_header, write_csv_rows

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
FORMATS = tuple(MEDIA_TYPES)
XLSX_ROWS = 1_048_576
XLSX_COLUMNS = 16_384
XLSX_CELL = 32_767


class ResultWriter(Protocol):
    """Writes one result file, slice by slice, in a `with` block; the file is finished when the block ends."""

    def __enter__(self) -> Self:
        """Opens the file and writes the header."""

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the file."""

    def write(self, rows: pa.RecordBatch, answers: pa.RecordBatch) -> None:
        """The next rows and the columns that are added to them."""


def open_result(path: Path, result_format: str, header: Sequence[str]) -> ResultWriter:
    """A writer of one of FORMATS. header: all columns, the uploaded ones first, then those of the answers."""
    writers: dict[str, Callable[[Path, Sequence[str]], ResultWriter]] = {
        "csv": _CsvResult,
        "xlsx": _XlsxResult,
        "parquet": _ParquetResult,
    }
    return writers[result_format](path, header)


class _CsvResult:
    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path, self._header = path, header

    def __enter__(self) -> Self:
        self._stream = self._path.open("wb")
        write_csv_header(self._stream, self._header)
        return self

    def __exit__(self, *_problem: object) -> None:
        self._stream.close()

    def write(self, rows: pa.RecordBatch, answers: pa.RecordBatch) -> None:
        write_csv_rows(self._stream, [*map(text_of, rows.columns), *answers.columns])


class _ParquetResult:
    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path, self._header = path, _distinct(header)
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, rows: pa.RecordBatch, answers: pa.RecordBatch) -> None:
        table = pa.table([*map(text_of, rows.columns), *answers.columns], names=self._header)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)


def _distinct(header: Sequence[str]) -> list[str]:
    """Column names made distinct, as Parquet readers need them: the second `note` becomes `note_2`."""
    names: list[str] = []
    for name in header:
        kept, number = name, 1
        while kept in names:
            number += 1
            kept = f"{name}_{number}"
        names.append(kept)
    return names


class _XlsxResult:
    """A worksheet written row by row in constant memory; text stays text, also where it looks like a formula."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        if len(header) > XLSX_COLUMNS:
            raise DoesNotFitXlsx(
                f"The result has {len(header):,} columns, an Excel sheet holds {XLSX_COLUMNS:,}. Download the CSV instead."
            )
        self._path, self._header = path, header
        self._next_row = 0

    def __enter__(self) -> Self:
        self._book = xlsxwriter.Workbook(str(self._path), {"constant_memory": True, "tmpdir": str(self._path.parent)})
        self._book.set_properties({"created": dt.datetime(2000, 1, 1)})
        self._sheet = self._book.add_worksheet("predictions")
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._moment = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._clock = self._book.add_format({"num_format": "hh:mm:ss"})
        self._hours = self._book.add_format({"num_format": "[h]:mm:ss"})
        for column, name in enumerate(self._header):
            self._put_text(0, column, neutral_text(name))
        self._next_row = 1
        return self

    def __exit__(self, *_problem: object) -> None:
        try:
            self._book.close()
        except XlsxWriterException as problem:
            raise OSError(errno.ENOSPC, "the workbook could not be written, most likely for want of space") from problem

    def write(self, rows: pa.RecordBatch, answers: pa.RecordBatch) -> None:
        if self._next_row + rows.num_rows > XLSX_ROWS:
            raise DoesNotFitXlsx(
                f"An Excel sheet holds {XLSX_ROWS - 1:,} rows below its header. Download the CSV instead."
            )
        added = zip(*(column.to_pylist() for column in answers.columns), strict=True) if answers.columns else repeat(())
        cells = zip(*map(python_cells, rows.columns), strict=True)
        for uploaded, answer in zip(cells, added, strict=False):
            for column, cell in enumerate((*uploaded, *answer)):
                if cell is not None and cell != "":
                    self._put(self._next_row, column, cell)
            self._next_row += 1

    def _put(self, row: int, column: int, cell: Any) -> None:
        if isinstance(cell, str):
            self._put_text(row, column, neutral_text(cell))
        elif isinstance(cell, bool):
            self._sheet.write_boolean(row, column, cell)
        elif isinstance(cell, (int, float)):
            self._sheet.write_number(row, column, cell)
        elif isinstance(cell, dt.datetime):
            self._sheet.write_datetime(row, column, cell, self._moment)
        elif isinstance(cell, dt.date):
            self._sheet.write_datetime(row, column, cell, self._day)
        elif isinstance(cell, dt.time):
            self._sheet.write_datetime(row, column, cell, self._clock)
        elif isinstance(cell, dt.timedelta):
            self._sheet.write_datetime(row, column, cell, self._hours)
        else:
            self._put_text(row, column, str(cell))

    def _put_text(self, row: int, column: int, text: str) -> None:
        if len(text) > XLSX_CELL:
            raise DoesNotFitXlsx(
                f"A cell of row {row + 1} has {len(text):,} characters, an Excel cell holds {XLSX_CELL:,}. "
                "Download the CSV instead."
            )
        self._sheet.write_string(row, column, text)
