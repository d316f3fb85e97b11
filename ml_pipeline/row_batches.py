"""Rows in batches of exactly so many, however a reader hands them over."""

from collections.abc import Iterator

import pyarrow as pa

from ml_pipeline.errors import RowsTooLong

CHUNK_BYTES = 256 << 20
"""What the rows of one batch may hold together."""


def cut_batches(batches: Iterator[pa.RecordBatch], rows_per_chunk: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of exactly so many, the last one of those that are left. Raises RowsTooLong."""
    waiting: list[pa.RecordBatch] = []
    missing = rows_per_chunk
    for batch in batches:
        while batch.num_rows >= missing:
            yield joined_batch([*waiting, batch.slice(0, missing)])
            batch, waiting, missing = batch.slice(missing), [], rows_per_chunk
        if batch.num_rows:
            waiting.append(batch)
            missing -= batch.num_rows
            check_bytes(sum(part.nbytes for part in waiting), rows_per_chunk - missing)
    if waiting:
        yield joined_batch(waiting)


def joined_batch(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of the same columns as one."""
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def check_bytes(size: int, rows: int) -> None:
    """Raises RowsTooLong where so many consecutive rows are larger than a chunk may be."""
    if size > CHUNK_BYTES:
        raise RowsTooLong(
            f"{rows:,} consecutive rows hold {size >> 20:,} MB; at most {CHUNK_BYTES >> 20} MB are read at a time. Leave "
            "columns of long text out."
        )
