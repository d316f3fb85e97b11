"""An upload as it arrives: its name, the limits that it must keep to, and what is known of its rows."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.customer_files import RowCounts, cheap_to_count, check_header, describe_upload, ids_of, open_rows
from ml_pipeline.customer_flags import checked_threshold
from ml_pipeline.file_shape import CSV, FileShape
from ml_pipeline.schema import MAX_ID_LENGTH
from ml_pipeline.snapshot import Snapshot
from services.errors import InvalidRequest, RequestTooLarge

MB = 1024 * 1024
ROWS_AT_ONCE = 50_000
LONGEST_NAME = 200
LONGEST_KEY = 200


@dataclass(frozen=True)
class UploadLimits:
    """The largest file that is taken: bytes, rows below the header, columns."""

    bytes: int
    rows: int
    columns: int

    def check_size(self, size: int) -> None:
        """Raises RequestTooLarge."""
        if size > self.bytes:
            raise RequestTooLarge(
                f"The file has {size / MB:,.1f} MB; at most {self.bytes / MB:,.0f} MB are taken. Split it "
                "(the operator can raise MAX_UPLOAD_MB)."
            )


@dataclass(frozen=True)
class UploadOptions:
    """What a caller may say beside the file.

    sheet: the worksheet to read, by name. idempotency_key: the same key and file give the same job. webhook_url: called when
    the job has ended. high_value_over: from which predicted money on a customer is flagged as of high value.
    """

    sheet: str | None = None
    idempotency_key: str | None = None
    webhook_url: str | None = None
    high_value_over: float | None = None

    def check(self) -> None:
        """Raises InvalidRequest or ImpossibleThreshold for a value that nothing can be done with."""
        key = self.idempotency_key
        if key is not None and not (0 < len(key) <= LONGEST_KEY and key.isprintable()):
            raise InvalidRequest(
                f"The Idempotency-Key has {len(key):,} characters; it must be 1 to {LONGEST_KEY} printable ones, "
                "for example a UUID."
            )
        if self.high_value_over is not None:
            checked_threshold(self.high_value_over)

    def digest(self, path: Path) -> str:
        """Of the file's content and all that was said beside it: two requests of one digest ask for the same."""
        said = {name: value for name, value in asdict(self).items() if name != "idempotency_key"}
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256")
        content.update(json.dumps(said, sort_keys=True).encode())
        return content.hexdigest()


def plain_name(filename: str) -> str:
    """The last part of a file name, without what could break a header or a log line."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(sign for sign in name if sign.isprintable()).strip()[-LONGEST_NAME:]


def looked_at(
    path: Path, filename: str, sheet: str | None, limits: UploadLimits, snapshot: Snapshot | None
) -> tuple[FileShape, RowCounts | None]:
    """What an upload is, and its counts where counting is cheap. snapshot: of whom is known, None where no model serves.

    Raises RequestTooLarge, or a CustomerFileError for a file that is not taken.
    """
    limits.check_size(path.stat().st_size)
    if not cheap_to_count(path):
        shape = describe_upload(path, filename, sheet, open_workbooks=False, columns_limit=limits.columns)
        check_named(shape, snapshot)
        return shape, None
    shape, batches = opened(path, filename, sheet, limits, snapshot)
    ids = IdCounts()
    for rows in batches:
        ids.add(ids_of(rows, shape))
    return shape, ids.counts()


def opened(
    path: Path, filename: str, sheet: str | None, limits: UploadLimits, snapshot: Snapshot | None
) -> tuple[FileShape, Iterator[pa.RecordBatch]]:
    """What an upload is, and its rows, ROWS_AT_ONCE at a time. Raises a CustomerFileError."""
    shape, batches = open_rows(
        path, filename, ROWS_AT_ONCE, sheet=sheet, columns_limit=limits.columns, rows_limit=limits.rows
    )
    check_named(shape, snapshot)
    return shape, batches


def check_named(shape: FileShape, snapshot: Snapshot | None) -> None:
    """Raises MissingHeader when the header names one of the customers that are known."""
    if snapshot is not None:
        check_header(shape, snapshot)


def file_metadata(filename: str, size: int, shape: FileShape, counts: RowCounts | None) -> dict[str, Any]:
    """What is known of an uploaded file; what needs a full reading is None until `counts` is there."""
    return {
        "filename": filename,
        "file_size_bytes": size,
        "file_size_mb": round(size / MB, 3),
        "total_rows": counts.rows if counts else None,
        "total_customers": counts.customers if counts else None,
        "columns": list(shape.header) if shape.header else None,
        "has_duplicates": counts.has_duplicates if counts else None,
        "metadata_status": "complete" if counts else "pending",
        **detected(shape),
    }


def detected(shape: FileShape) -> Mapping[str, Any]:
    """How a file is read, in the words of the answers; what its format does not have is None."""
    is_text = shape.format == CSV
    return {
        "format": shape.format,
        "compression": shape.compression,
        "id_column": shape.header[shape.id_column] if shape.header else None,
        "id_column_found_by": ("name" if shape.id_column_by_name else "position") if shape.header else None,
        "delimiter": shape.delimiter if is_text else None,
        "quote": shape.quote if is_text else None,
        "encoding": shape.encoding if is_text else None,
        "decimal": shape.decimal if is_text else None,
        "sheet": shape.sheet,
        "sheets": list(shape.sheets) or None,
    }


class IdCounts:
    """Counts rows and distinct ids as they go by. It keeps every id that is not empty: about 20 bytes a row."""

    def __init__(self) -> None:
        self.rows = 0
        self._named: list[pa.Array] = []

    def add(self, ids: pa.Array) -> None:
        """The ids of the next rows as they are looked up, '' for none."""
        self.rows += len(ids)
        named = ids.filter(pc.not_equal(ids, ""))
        self._named.append(_shortened(named).cast(pa.binary()))

    @property
    def empty(self) -> int:
        """Rows without an id."""
        return self.rows - sum(map(len, self._named))

    def counts(self) -> RowCounts:
        """Of all rows so far."""
        named = pa.chunked_array(self._named, pa.binary())
        customers = sum(int(pc.count_distinct(some).as_py()) for some in _by_ending(named))
        return RowCounts(self.rows, customers, customers < len(named))


def _by_ending(ids: pa.ChunkedArray) -> Iterator[pa.ChunkedArray]:
    """Those of one last byte at a time: counting five million at once takes 700 MB more, and twice as long."""
    endings = pc.binary_slice(ids, -1)
    for ending in pc.unique(endings):
        yield ids.filter(pc.equal(endings, ending))


def _shortened(ids: pa.Array) -> pa.Array:
    """Ids that no customer can have by their hash: a column of long texts is counted without keeping them."""
    long = pc.greater(pc.utf8_length(ids), MAX_ID_LENGTH)
    if not pc.any(long).as_py():
        return ids
    hashed = [hashlib.sha256(one.encode()).hexdigest() for one in ids.filter(long).to_pylist()]
    return pc.replace_with_mask(ids, long, pa.array(hashed, pa.string()))
