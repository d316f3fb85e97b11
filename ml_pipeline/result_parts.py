"""Parts of a result: some of its rows in the result's own form, made apart, ready to be put together in their order."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.cells import CELLS, text_of
from ml_pipeline.deflate_joining import Checked, deflate_piece
from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.result_rows import write_csv_rows
from ml_pipeline.workbook_frame import cell_styles
from ml_pipeline.xlsx_rows import rows_xml

XLSX_ROWS = 1_048_576
XLSX_COLUMNS = 16_384
MONEY = re.compile(r"predicted_.*_spend(_lower|_upper)?|amount|baseline|prediction")
PERCENT = re.compile(r"purchase_probability_.*")
ROWS_FOR_WIDTH = 200


def write_part(
    path: Path, result_format: str, uploaded: pa.RecordBatch, answers: pa.RecordBatch, first_row: int
) -> None:
    """Writes the uploaded columns of some consecutive rows and the answers beside them.

    result_format: csv, xlsx or parquet. uploaded: string, cells.CELLS, or types of Arrow. answers: named columns of as many
    rows; may have no column. first_row: the place of the first among all rows of the result, from 0.
    The same rows give the same bytes. Raises DoesNotFitXlsx, OSError.
    """
    writers: dict[str, Callable[[Path, pa.RecordBatch, pa.RecordBatch, int], None]] = {
        "csv": _write_lines,
        "xlsx": _write_sheet_rows,
        "parquet": _write_columns,
    }
    writers[result_format](path, uploaded, answers, first_row)


def _write_lines(path: Path, uploaded: pa.RecordBatch, answers: pa.RecordBatch, _first_row: int) -> None:
    with path.open("wb") as stream:
        write_csv_rows(stream, [*map(text_of, uploaded.columns), *answers.columns])


def _write_columns(path: Path, uploaded: pa.RecordBatch, answers: pa.RecordBatch, _first_row: int) -> None:
    columns = [text_of(column) if column.type == CELLS else column for column in uploaded.columns]
    columns += answers.columns
    rows = pa.record_batch(columns, names=[str(index) for index in range(len(columns))])
    with path.open("wb") as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        writer.write_batch(rows)


# ---- rows of a worksheet


@dataclass(frozen=True)
class SheetPart:
    """What stands before the packed XML of some rows: which they are, the XML's CRC-32 and length, the columns' widths."""

    first_row: int
    rows: int
    crc32: int
    length: int
    widths: Sequence[int]

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.first_row + self.rows

    @property
    def checked(self) -> Checked:
        """The sum and the length of the XML."""
        return Checked(self.crc32, self.length)


def _write_sheet_rows(path: Path, uploaded: pa.RecordBatch, answers: pa.RecordBatch, first_row: int) -> None:
    columns = [*uploaded.columns, *answers.columns]
    check_extent(first_row + uploaded.num_rows, len(columns))
    number_styles = [*(None for _ in uploaded.columns), *map(_number_style, answers.schema.names)]
    piece, packed = deflate_piece(rows_xml(columns, number_styles, cell_styles(), first_row + 2))
    widths = [_width(column) for column in columns]
    part = SheetPart(first_row, uploaded.num_rows, packed.crc32, packed.length, widths)
    with path.open("wb") as stream:
        stream.write(json.dumps(asdict(part)).encode() + b"\n")
        stream.write(piece)


def read_sheet_part(stream: BinaryIO) -> SheetPart:
    """The beginning of a part of a worksheet; the stream then stands before the packed rows."""
    return SheetPart(**json.loads(stream.readline()))


def check_extent(rows: int, columns: int) -> None:
    """Raises DoesNotFitXlsx if a sheet cannot hold so many rows below its header, or so many columns."""
    if columns > XLSX_COLUMNS:
        raise DoesNotFitXlsx(
            f"The result has {columns:,} columns, an Excel sheet holds {XLSX_COLUMNS:,}. Download the CSV instead."
        )
    if rows > XLSX_ROWS - 1:
        raise DoesNotFitXlsx(
            f"The result has {rows:,} rows or more, an Excel sheet holds {XLSX_ROWS - 1:,} below its header. "
            "Download the CSV instead."
        )


def _number_style(name: str) -> str | None:
    return "money" if MONEY.fullmatch(name) else "percent" if PERCENT.fullmatch(name) else None


def _width(column: pa.Array) -> int:
    """The characters of the longest of the first texts or numbers."""
    shown = text_of(column.slice(0, ROWS_FOR_WIDTH))
    return pc.max(pc.utf8_length(shown)).as_py() or 0
