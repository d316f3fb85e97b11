"""Result files, CSV, XLSX or Parquet: the parts of a result put together."""

import functools
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml_pipeline.deflate_joining import Checked, deflate_piece, packed_entry
from ml_pipeline.result_parts import XLSX_ROWS, SheetPart, check_extent, read_sheet_part, write_part
from ml_pipeline.result_rows import write_csv_header
from ml_pipeline.workbook_frame import SHEET, workbook_frame

__all__ = ["FORMATS", "MEDIA_TYPES", "XLSX_ROWS", "PartFolder", "assemble_result"]

MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}
FORMATS = tuple(MEDIA_TYPES)
COPY_BYTES = 1 << 20
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Of all files of a workbook, as of xlsxwriter's: the first day that a zip can say."""


def assemble_result(
    path: Path, result_format: str, header: Sequence[str], parts: Sequence[Path], summary: Mapping[str, Any] | None
) -> None:
    """Writes one file of FORMATS from parts of this format in their order, each as `write_part` made it.

    header: the names of all columns, the uploaded ones first. summary: the statistics that the sheet "summary" of a workbook
    shows, with `filename`; None for a workbook without it. The same parts give the same bytes. Where parts are left out, the
    rows of a workbook keep their places: the others are blank.
    Raises DoesNotFitXlsx, OSError. A file that is half written then is left to the caller.
    """
    writers: dict[str, Callable[[Path, Sequence[str], Sequence[Path], Mapping[str, Any] | None], None]] = {
        "csv": _assemble_csv,
        "xlsx": _assemble_xlsx,
        "parquet": _assemble_parquet,
    }
    writers[result_format](path, header, parts, summary)


class PartFolder:
    """The parts of one result in a folder of its own, for those that make them all by themselves."""

    def __init__(self, folder: Path, result_format: str) -> None:
        self._folder, self._format = folder, result_format
        self._parts: list[Path] = []
        self.rows = 0

    def add(self, uploaded: pa.RecordBatch, answers: pa.RecordBatch) -> None:
        """The next rows."""
        part = self._folder / f"{len(self._parts) + 1:06}.{self._format}.part"
        write_part(part, self._format, uploaded, answers, self.rows)
        self._parts.append(part)
        self.rows += uploaded.num_rows

    def assemble(self, path: Path, header: Sequence[str], summary: Mapping[str, Any] | None = None) -> None:
        """All of them as one file."""
        assemble_result(path, self._format, header, self._parts, summary)


def _assemble_csv(path: Path, header: Sequence[str], parts: Sequence[Path], _summary: object) -> None:
    with path.open("wb") as stream:
        write_csv_header(stream, header)
        for part in parts:
            _copy(part, 0, stream)


def _copy(part: Path, start: int, stream: IO[bytes]) -> None:
    with part.open("rb") as content:
        content.seek(start)
        shutil.copyfileobj(content, stream, COPY_BYTES)


# ---- Parquet


def _assemble_parquet(path: Path, header: Sequence[str], parts: Sequence[Path], _summary: object) -> None:
    """One row group per part."""
    names = _distinct(header)
    with ExitStack() as open_files:
        writer: pq.ParquetWriter | None = None
        for part in parts:
            rows = _rows_of(part).rename_columns(names)
            if writer is None:
                stream = open_files.enter_context(path.open("wb"))
                writer = open_files.enter_context(pq.ParquetWriter(stream, rows.schema))
            writer.write_table(rows, row_group_size=max(1, rows.num_rows))
    if not parts:
        pq.write_table(pa.table({name: pa.array([], pa.string()) for name in names}), path)


def _rows_of(part: Path) -> pa.Table:
    with pa.memory_map(str(part)) as mapped:
        return pa.ipc.open_file(mapped).read_all()


def _distinct(header: Sequence[str]) -> list[str]:
    """Column names made distinct, as Parquet readers need them: the second `note` becomes `note_2`."""
    names: dict[str, None] = {}
    for name in header:
        kept, number = name, 1
        while kept in names:
            number += 1
            kept = f"{name}_{number}"
        names[kept] = None
    return list(names)


# ---- workbooks


@dataclass(frozen=True)
class _PackedRows:
    """A part of a worksheet: what it says of itself, and where in its file the packed rows begin."""

    path: Path
    part: SheetPart
    start: int

    @property
    def size(self) -> int:
        return self.path.stat().st_size - self.start


def _assemble_xlsx(path: Path, header: Sequence[str], parts: Sequence[Path], summary: Mapping[str, Any] | None) -> None:
    """The rows stay as they were packed: only what stands around them is made here."""
    packed = [_packed_rows(part) for part in parts]
    rows = max((of_part.part.end for of_part in packed), default=0)
    check_extent(rows, len(header))
    widths = [max(column) for column in zip(*(of_part.part.widths for of_part in packed), strict=True)]
    frame = workbook_frame(header, widths or [0] * len(header), rows, summary)
    head, head_sum = deflate_piece([frame.head])
    tail, tail_sum = deflate_piece([frame.tail], last=True)
    whole = functools.reduce(Checked.then, [head_sum, *(of_part.part.checked for of_part in packed), tail_sum])
    with zipfile.ZipFile(path, "w") as workbook:
        for name, content in frame.files.items():
            workbook.writestr(_entry(name), content)
        sheet = _entry(SHEET, whole, len(head) + sum(of_part.size for of_part in packed) + len(tail))
        with packed_entry(workbook, sheet) as stream:
            stream.write(head)
            for of_part in packed:
                _copy(of_part.path, of_part.start, stream)
            stream.write(tail)


def _packed_rows(path: Path) -> _PackedRows:
    with path.open("rb") as stream:
        part = read_sheet_part(stream)
        return _PackedRows(path, part, stream.tell())


def _entry(name: str, whole: Checked | None = None, packed_size: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    if whole is not None:
        entry.CRC, entry.file_size, entry.compress_size = whole.crc32, whole.length, packed_size
    return entry
