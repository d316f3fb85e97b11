"""From a file of customers to its rows. What is wrong with the file as a whole is a CustomerFileError; rows are judged elsewhere."""

import codecs
import csv
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, repeat
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import python_calamine

from ml_pipeline.cells import cell_text, text_of, worksheet_column
from ml_pipeline.errors import (
    EmptyFile,
    MissingHeader,
    NoDataRows,
    TooManyColumns,
    UnevenRow,
    UnreadableFile,
    UnsupportedFileType,
)
from ml_pipeline.file_shape import ACCEPTED, CSV, XLSX, FileShape
from ml_pipeline.result_rows import find_id_column, lookup_ids
from ml_pipeline.schema import MAX_ID_LENGTH, canonical_id
from ml_pipeline.sheet_extent import DAMAGED, check_extent
from ml_pipeline.snapshot import Snapshot

SAMPLE_BYTES = 1 << 20
BLOCK_BYTES = 8 << 20
ROWS_PER_COUNT = 100_000
COLUMNS_LIMIT = 16_384
DELIMITERS = ",;\t"
ZIP_MAGIC = b"PK\x03\x04"
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
UNPRINTABLE = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1a\x1b")) + b"\x7f"


@dataclass(frozen=True)
class RowCounts:
    """rows below the header; distinct ids that are not empty; whether one of them occurs twice."""

    rows: int
    customers: int
    has_duplicates: bool


# ---- what kind of file it is


def describe_upload(path: Path, filename: str, open_workbooks: bool = True) -> FileShape:
    """Looks at the beginning of a file and says how it is to be read. Cheap, whatever its size.

    open_workbooks=False leaves a workbook closed, since its header costs reading all of it.
    Raises a CustomerFileError for a file that cannot be read as what its name says.
    """
    suffix = PurePosixPath(filename.lower()).suffix
    if suffix not in (".csv", ".xlsx"):
        kind = f"ends in {suffix!r}" if suffix else "has no ending that says what it is"
        raise UnsupportedFileType(f"The file name {kind}; that is not read. {ACCEPTED}")
    if path.stat().st_size == 0:
        raise EmptyFile(f"The file is empty (0 bytes). {ACCEPTED}")
    if suffix == ".csv":
        return _describe_csv(path)
    return _describe_workbook(path) if open_workbooks else _closed_workbook(path)


def check_header(shape: FileShape, snapshot: Snapshot) -> None:
    """A first row that names a known customer is data; taken for a header, that customer would be lost unsaid.

    Raises MissingHeader. A header that is not read yet, or that has a column of the right name, passes.
    """
    if shape.id_column_by_name or not shape.header:
        return
    first = canonical_id(shape.header[shape.id_column])
    if len(first) <= MAX_ID_LENGTH and snapshot.positions([first])[0] >= 0:
        raise MissingHeader(
            f"The first row has the known customer {first!r} where a column name should be: the file has no "
            "header. Add a first row such as customer_id and send it again."
        )


def _describe_csv(path: Path) -> FileShape:
    with path.open("rb") as stream:
        sample = stream.read(SAMPLE_BYTES)
        is_whole = not stream.read(1)
    if sample.startswith(ZIP_MAGIC):
        raise UnreadableFile("The file is a workbook or an archive although its name ends in .csv. Name it .xlsx.")
    encoding = _encoding(path, sample)
    text = sample.decode(encoding, errors="ignore").lstrip("\ufeff")
    header_end = next((match.start() for match in re.finditer(r"[\r\n]", text) if text[: match.start()].strip()), None)
    if header_end is None and not is_whole:
        raise UnreadableFile(f"The header is longer than {SAMPLE_BYTES // 1024} kB. {ACCEPTED}")
    delimiter = _delimiter(text[:header_end])
    header, blank_lines, has_rows = _header(text, delimiter, is_whole)
    if not has_rows and any(re.search(r"[\r\n]", name) for name in header):
        raise UnreadableFile(f"A quote in the header is not closed, so that the file seems to have no rows. {ACCEPTED}")
    if not has_rows:
        raise NoDataRows(f"The file has a header ({_shown(header)}) and no row below it. Add one row per customer.")
    chosen = find_id_column(header)
    return FileShape(
        CSV,
        tuple(header),
        chosen.index,
        chosen.by_name,
        delimiter=delimiter,
        encoding=encoding,
        header_records=blank_lines + 1,
    )


def _encoding(path: Path, sample: bytes) -> str:
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if sample.startswith(mark)), None)
    if marked == "utf-16":
        return marked
    if b"\0" in sample or len(sample.translate(None, UNPRINTABLE)) < 0.99 * len(sample):
        raise UnreadableFile(f"The content is binary, not text, although the name ends in .csv. {ACCEPTED}")
    encoding = marked or "utf-8"
    return encoding if _decodes(path, encoding) else _windows_encoding(path)


def _windows_encoding(path: Path) -> str:
    if _decodes(path, "cp1252"):
        return "cp1252"
    raise UnreadableFile(f"The text is neither UTF-8 nor Windows-1252. Save it as UTF-8 and send it again. {ACCEPTED}")


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as stream:
            while block := stream.read(SAMPLE_BYTES):
                decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _delimiter(header_line: str) -> str:
    outside_quotes = re.sub(r'"[^"]*"', "", header_line)
    return max(DELIMITERS, key=outside_quotes.count)


def _header(text: str, delimiter: str, is_whole: bool) -> tuple[list[str], int, bool]:
    """The first row that is not blank, how many blank lines stand before it, and whether a row follows."""
    records = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] = []
    blank_lines = 0
    try:
        for record in records:
            if header and record:
                return header, blank_lines, True
            if not header and record:
                header = record
                _check_width(len(header))
            elif not header:
                blank_lines += 1
    except csv.Error:
        raise UnreadableFile(
            "The first rows cannot be read as CSV: a quote is not closed, or a cell is longer than "
            f"{csv.field_size_limit() >> 10} kB. {ACCEPTED}"
        ) from None
    if not header:
        raise EmptyFile(f"The file holds nothing but blanks. {ACCEPTED}")
    return header, blank_lines, not is_whole


def _check_width(columns: int) -> None:
    if columns > COLUMNS_LIMIT:
        raise TooManyColumns(
            f"The header has {columns:,} columns; at most {COLUMNS_LIMIT:,} are taken. Leave some out."
        )


def _shown(header: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in header[:8]) + (", …" if len(header) > 8 else "")


def _closed_workbook(path: Path) -> FileShape:
    try:
        with zipfile.ZipFile(path) as archive:
            archive.getinfo("xl/workbook.xml")
    except (zipfile.BadZipFile, KeyError, OSError):
        raise _no_workbook() from None
    return FileShape(XLSX)


def _describe_workbook(path: Path) -> FileShape:
    try:
        check_extent(path)
    except DAMAGED:
        raise _no_workbook() from None
    sheet, rows = _sheet_rows(path)
    header = [cell_text(cell) for cell in next(rows, [])]
    if not any(header):
        raise EmptyFile(f"The first sheet, {sheet!r}, is empty. {ACCEPTED}")
    _check_width(len(header))
    if next(rows, None) is None:
        raise NoDataRows(
            f"The sheet {sheet!r} has a header ({_shown(header)}) and no row below it. Add one per customer."
        )
    chosen = find_id_column(header)
    return FileShape(XLSX, tuple(header), chosen.index, chosen.by_name, sheet=sheet)


def _sheet_rows(path: Path) -> tuple[str, Iterator[list[Any]]]:
    """The name of the first sheet and its rows from the first that is not blank to the last that is not."""
    try:
        workbook = python_calamine.CalamineWorkbook.from_path(path)
        name = workbook.sheet_names[0]
        sheet = workbook.get_sheet_by_index(0)
    except (python_calamine.CalamineError, IndexError, OSError):
        raise _no_workbook() from None
    return name, _without_outer_blank_rows(iter(sheet.iter_rows()))


def _without_outer_blank_rows(rows: Iterator[list[Any]]) -> Iterator[list[Any]]:
    held_back = 0
    begun = False
    for row in rows:
        if all(cell == "" for cell in row):
            held_back += begun
            continue
        begun = True
        yield from repeat([""] * len(row), held_back)
        held_back = 0
        yield row


def _no_workbook() -> UnreadableFile:
    return UnreadableFile(
        "The content is not an Excel workbook although the name ends in .xlsx, or it is damaged or locked by a password. "
        f"Open it in Excel and save it again without a password. {ACCEPTED}"
    )


# ---- its rows


def no_display(_rows: int) -> None:
    """For callers who need not know how many rows have been seen so far."""


def read_rows(
    path: Path, shape: FileShape, rows_per_chunk: int, saw: Callable[[int], None] = no_display
) -> Iterator[pa.RecordBatch]:
    """The rows below the header in their order, in batches of exactly so many rows, the last one of those that are left.

    Columns are named "0", "1", ... by position; string for a CSV, string or cells.CELLS for a worksheet, their own types for
    Parquet. The same file always gives the same batches. Blank lines of a CSV are no rows.
    saw: told how many rows have been seen so far, never less than before; for a display of progress.
    Raises a CustomerFileError at the first row that cannot be read.
    """
    read = _read_csv if shape.format == CSV else _read_sheet
    rows = 0
    for batch in read(path, shape, rows_per_chunk):
        rows += batch.num_rows
        saw(rows)
        yield batch


def ids_of(batch: pa.RecordBatch, shape: FileShape) -> pa.Array:
    """The ids of some rows as they are looked up, '' where there is none: string without nulls."""
    return lookup_ids(text_of(batch.column(shape.id_column)))


def count_rows(path: Path, shape: FileShape) -> RowCounts:
    """Reads all of the file to count its rows and customers. Raises CustomerFileError."""
    ids = [ids_of(batch, shape) for batch in read_rows(path, shape, ROWS_PER_COUNT)]
    every_id = pa.chunked_array(ids, pa.string())
    named = every_id.filter(pc.not_equal(every_id, ""))
    customers = int(pc.count_distinct(named).as_py())
    return RowCounts(len(every_id), customers, customers < len(named))


def _cut(batches: Iterator[pa.RecordBatch], rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly so many rows, the last one of those that are left."""
    waiting: list[pa.RecordBatch] = []
    missing = rows_per_chunk
    for batch in batches:
        while batch.num_rows >= missing:
            yield _joined([*waiting, batch.slice(0, missing)])
            batch, waiting, missing = batch.slice(missing), [], rows_per_chunk
        if batch.num_rows:
            waiting.append(batch)
            missing -= batch.num_rows
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def _read_csv(path: Path, shape: FileShape, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    return _cut(_csv_blocks(path, shape), rows_per_chunk)


def _csv_blocks(path: Path, shape: FileShape) -> Iterator[pa.RecordBatch]:
    names = [str(index) for index in range(len(shape.header))]
    with _named_csv_errors(shape):
        reader = pa_csv.open_csv(
            path,
            pa_csv.ReadOptions(
                column_names=names,
                skip_rows_after_names=shape.header_records,
                encoding=shape.encoding,
                block_size=min(BLOCK_BYTES, path.stat().st_size + 1),
                use_threads=False,
            ),
            pa_csv.ParseOptions(delimiter=shape.delimiter, newlines_in_values=True),
            pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), null_values=[], strings_can_be_null=False
            ),
        )
        spans_lines = False
        for batch in reader:
            spans_lines = spans_lines or any(_has_line_break(column) for column in batch.columns)
            yield batch
    if spans_lines:
        _check_quotes(path, shape)


def _has_line_break(cells: pa.Array) -> bool:
    return bool(pc.any(pc.or_(pc.match_substring(cells, "\n"), pc.match_substring(cells, "\r"))).as_py())


def _check_quotes(path: Path, shape: FileShape) -> None:
    """Arrow lets a quote that nobody closed swallow the rows below it: a cell of several lines must end with its quote."""
    with path.open(encoding=shape.encoding, newline="") as lines:
        records = csv.reader(lines, delimiter=shape.delimiter, strict=True)
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
                        'belong to the text (""), so that no row is taken for a part of another.'
                    ) from None


@contextmanager
def _named_csv_errors(shape: FileShape) -> Iterator[None]:
    """Arrow's messages quote the row, which may be personal: only its number goes on."""
    try:
        yield
    except pa.ArrowInvalid as problem:
        uneven = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", str(problem))
        if uneven:
            raise UnevenRow(
                f"Row {uneven[1]} (the header is row 1) has {uneven[3]} cells, the header has {uneven[2]}. Put cells that "
                f'contain "{shape.delimiter}" or a line break into quotes, and close every quote.'
            ) from None
        raise UnreadableFile(
            f"A row is longer than about {BLOCK_BYTES >> 20} MB or cannot be read as CSV; most often a quote is not closed. {ACCEPTED}"
        ) from None
    except UnicodeDecodeError:
        raise UnreadableFile(
            f"The text is not {shape.encoding} throughout. Save it as UTF-8 and send it again."
        ) from None


def _read_sheet(path: Path, _shape: FileShape, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    _name, rows = _sheet_rows(path)
    next(rows, None)
    while chunk := list(islice(rows, rows_per_chunk)):
        columns = [worksheet_column(column) for column in zip(*chunk, strict=True)]
        yield pa.record_batch(columns, names=[str(index) for index in range(len(columns))])
