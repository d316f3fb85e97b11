"""The rows of a Parquet file. Run it where memory is limited: a few bytes may stand for gigabytes of the same value."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ml_pipeline.errors import EmptyFile, NestedColumn, NoDataRows
from ml_pipeline.file_shape import ACCEPTED, check_width, shown_names
from ml_pipeline.row_batches import check_bytes, cut_batches

ROWS_PER_READ = 8_192
"""Small, so that long texts are noticed before many of them are in memory."""
BUFFER_BYTES = 1 << 20


def open_parquet(path: Path, columns_limit: int) -> pq.ParquetFile:
    """Opens a file whose columns all have one plain value per row.

    Raises EmptyFile, NoDataRows, TooManyColumns, NestedColumn, and what Arrow raises for a damaged file.
    """
    file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
    schema = file.schema_arrow
    if not schema.names:
        raise EmptyFile(f"The Parquet file has no columns. {ACCEPTED}")
    check_width(len(schema.names), columns_limit)
    for name, kind in zip(schema.names, schema.types, strict=True):
        if not _is_plain(kind):
            raise NestedColumn(
                f"The column {name[:100]!r} holds {str(kind)[:60]}; each cell must hold one value. Leave the column out, or "
                "turn it into text."
            )
    if not file.metadata.num_rows:
        raise NoDataRows(f"The file has columns ({shown_names(schema.names)}) and no row. Add one row per customer.")
    return file


def parquet_batches(file: pq.ParquetFile, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    """The rows in batches of exactly so many but for the last."""
    return cut_batches(_plain_batches(file, rows_per_chunk), rows_per_chunk)


def _plain_batches(file: pq.ParquetFile, rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    names = file.schema_arrow.names
    rows = min(ROWS_PER_READ, rows_per_chunk)
    for batch in file.iter_batches(rows, use_threads=False):
        check_bytes(batch.nbytes, batch.num_rows)
        plain = [_plain(array, name) for array, name in zip(batch.columns, names, strict=True)]
        yield pa.record_batch(plain, names=[str(place) for place in range(len(names))])


def _is_plain(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_plain(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_interval(kind))


def _plain(column: pa.Array, name: str) -> pa.Array:
    """Dictionaries as their values, any kind of text as string, bytes as the text they are; all else as it is."""
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return pa.array([None if cell is None else str(cell) for cell in column.to_pylist()], pa.string())
    if pa.types.is_dictionary(kind):
        _check_decoded(column)
        return _plain(column.dictionary_decode(), name)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_null(kind):
        return column.cast(pa.string())
    if pa.types.is_binary(kind) or _is_bytes(kind):
        return _text_of_bytes(column, name)
    return column


def _check_decoded(column: pa.DictionaryArray) -> None:
    """A long value is small in a dictionary, and large once it stands in each row."""
    if pa.types.is_string(column.dictionary.type) or _is_bytes(column.dictionary.type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
        check_bytes(pc.sum(lengths).as_py() or 0, len(column))


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _text_of_bytes(column: pa.Array, name: str) -> pa.Array:
    try:
        return column.cast(pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        raise NestedColumn(
            f"The column {name[:100]!r} holds bytes that are no UTF-8 text. Leave the column out, or turn it into text."
        ) from None
