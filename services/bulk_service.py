"""Bulk jobs as a caller sees them: hand over a file, watch the job, fetch the result, delete it."""

import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa

from ml_pipeline.customer_files import RowCounts, check_header, count_rows, describe_upload
from ml_pipeline.errors import DoesNotFitXlsx, ModelError
from ml_pipeline.file_shape import FileShape
from ml_pipeline.result_files import MEDIA_TYPES, XLSX_ROWS, open_result
from services.errors import (
    ConversionFailed,
    JobFailed,
    JobNotFinished,
    QueueUnavailable,
    RequestTooLarge,
)
from services.job_store import COMPLETED, FAILED, PROCESSING, QUEUED, Job, JobStore, NewJob
from services.model_registry import ModelRegistry
from services.object_store import ObjectStore
from services.queue import JobQueue

log = logging.getLogger(__name__)

BULK = "bulk_predict"
CONVERSION = "convert_result"
BULK_QUEUE = "bulk"
FINISHING_QUEUE = "finishing"
MB = 1024 * 1024
FULL_PARSE_BYTES = 20_000_000
"""Larger files are counted by the job, so that the upload is answered at once."""
ROWS_PER_SECOND = 50_000
TEMPLATE_ROWS = 5
LONGEST_NAME = 200


@dataclass(frozen=True)
class Caller:
    """Who asks, and the id of the request."""

    owner: str
    request_id: str


@dataclass(frozen=True)
class ResultFile:
    """A finished file: where it is, what it is called, and its media type."""

    key: str
    filename: str
    media_type: str


@dataclass(frozen=True)
class ConversionUnderWay:
    """The result is being turned into the format that was asked for; ask again."""

    job_id: str
    format: str


class BulkService:
    """Everything a caller can do with bulk jobs; what a worker does is in bulk_job.py."""

    def __init__(
        self,
        store: JobStore,
        objects: ObjectStore,
        queue: JobQueue,
        registry: ModelRegistry,
        max_upload_bytes: int,
    ) -> None:
        self._max_upload_bytes = max_upload_bytes
        self._store = store
        self._objects = objects
        self._queue = queue
        self._registry = registry

    def template(self, template_format: str) -> bytes:
        """A file to fill in: customer_id, customer_name, notes, with five customers that exist. CSV or XLSX.

        Raises what the registry raises when no model serves.
        """
        snapshot = self._registry.serving().snapshot
        ids = snapshot.customer_ids(range(min(TEMPLATE_ROWS, snapshot.n_customers)))
        names = [f"Customer {number}" for number in range(1, len(ids) + 1)]
        notes = ["sample row: put your own customers here", *[""] * (len(ids) - 1)][: len(ids)]
        header = ["customer_id", "customer_name", "notes"]
        rows = pa.record_batch([pa.array(column, pa.string()) for column in (ids, names, notes)], names=header)
        return _file_in_memory(template_format, header, rows)

    def upload(self, path: Path, filename: str, caller: Caller) -> Job:
        """Checks a file, keeps it, records a job for it and queues that. The file at `path` may go afterwards.

        Raises a CustomerFileError for a file that cannot be read; a queue that is away only delays the job.
        """
        shown_name = _plain_name(filename)
        size = path.stat().st_size
        if size > self._max_upload_bytes:
            raise RequestTooLarge(
                f"The file has {size / MB:,.1f} MB; at most {self._max_upload_bytes / MB:,.0f} MB are taken. Split it "
                "(the operator can raise MAX_UPLOAD_MB)."
            )
        counted = size <= FULL_PARSE_BYTES
        shape = describe_upload(path, shown_name, open_workbooks=counted)
        with suppress(ModelError):  # without a model nobody is known, and the job will say that there is none
            check_header(shape, self._registry.serving().snapshot)
        counts = count_rows(path, shape) if counted else None
        new = NewJob(BULK, BULK_QUEUE, caller.owner, caller.request_id)
        key = f"{new.job_id}/upload.{shape.format}"
        self._objects.adopt(key, path)
        new = replace(
            new,
            parameters={"upload_key": key, "filename": shown_name, "size": size, "shape": shape.as_parameters()},
            metadata=file_metadata(shown_name, size, shape, counts),
            rows_total=counts.rows if counts else None,
        )
        with self._file_kept_only_with_its_job(new.job_id):
            self._store.add(new)
        log.info("job recorded", extra={"job_id": new.job_id, "bytes": size, "format": shape.format})
        return self._send(new.job_id)

    def status(self, job_id: str, caller: Caller) -> Job:
        """The caller's job. Raises UnknownJob."""
        return self._store.find(job_id, caller.owner, BULK)

    def jobs(self, caller: Caller, status: str | None, limit: int) -> list[Job]:
        """The caller's jobs, the newest first."""
        return self._store.of_owner(caller.owner, BULK, status, limit)

    def result(self, job_id: str, result_format: str | None, caller: Caller) -> ResultFile | ConversionUnderWay:
        """The result in the format of the upload (None) or in another, which a worker makes on the first request.

        Raises UnknownJob, JobNotFinished, JobFailed, ConversionFailed, DoesNotFitXlsx.
        """
        job = self.status(job_id, caller)
        _check_has_result(job)
        made = str(job.parameters["shape"]["format"])
        wanted = result_format or made
        if wanted == made:
            return _result_file(job, job, wanted)
        if wanted == "xlsx" and (job.rows_total or 0) >= XLSX_ROWS:
            raise DoesNotFitXlsx(
                f"The result has {job.rows_total:,} rows, an Excel sheet holds {XLSX_ROWS - 1:,} below its header. "
                "Download the CSV instead."
            )
        return self._converted(job, wanted, caller)

    def delete(self, job_id: str, caller: Caller) -> None:
        """Removes a job, its upload and its results. Raises UnknownJob, or JobInProgress while a worker is at it."""
        job = self.status(job_id, caller)
        self._store.delete(job.job_id)
        self._objects.delete_below(job.job_id)
        log.info("job deleted", extra={"job_id": job.job_id})

    def _converted(self, job: Job, wanted: str, caller: Caller) -> ResultFile | ConversionUnderWay:
        conversion = self._store.variant(job.job_id, CONVERSION, wanted)
        if conversion is None:
            conversion = self._store.add(
                NewJob(
                    CONVERSION,
                    FINISHING_QUEUE,
                    caller.owner,
                    caller.request_id,
                    rows_total=job.rows_total,
                    parent_id=job.job_id,
                    variant=wanted,
                )
            )
            self._send(conversion.job_id)
        if conversion.status == FAILED:
            self._store.delete(conversion.job_id)
            raise ConversionFailed(
                f"The result of job {job.job_id} could not be made as {wanted}: {conversion.error_message} "
                "Asking once more tries it again; the format of the upload is there."
            )
        if conversion.status == COMPLETED:
            return _result_file(job, conversion, wanted)
        return ConversionUnderWay(job.job_id, wanted)

    def _send(self, job_id: str) -> Job:
        """Queues a recorded job; where the queue is away, the watchdog does it later."""
        job = self._store.get(job_id)
        try:
            self._queue.send(job.queue, job_id)
            self._store.mark_enqueued(job_id)
        except QueueUnavailable:
            log.warning("queue unavailable, the job waits in the table", extra={"job_id": job_id})
            return job
        return self._store.get(job_id)

    @contextmanager
    def _file_kept_only_with_its_job(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._objects.delete_below(job_id)
            raise


def media_type_of(file_format: str) -> str:
    """Of a file that is offered for download."""
    return MEDIA_TYPES[file_format]


def estimated_seconds(job: Job) -> int:
    """A rough guess of how long the job takes once a worker has it."""
    rows = job.rows_total if job.rows_total is not None else int(job.parameters["size"]) / 50
    return max(1, math.ceil(rows / ROWS_PER_SECOND))


def file_metadata(filename: str, size: int, shape: FileShape, counts: RowCounts | None) -> dict[str, Any]:
    """What is known of an uploaded file; what needs a full reading is None until `counts` is there."""
    id_column = shape.header[shape.id_column] if shape.header else None
    return {
        "filename": filename,
        "file_size_bytes": size,
        "file_size_mb": round(size / MB, 3),
        "total_rows": counts.rows if counts else None,
        "total_customers": counts.customers if counts else None,
        "columns": list(shape.header) if shape.header else None,
        "has_duplicates": counts.has_duplicates if counts else None,
        "metadata_status": "complete" if counts else "pending",
        "format": shape.format,
        "id_column": id_column,
        "id_column_found_by": ("name" if shape.id_column_by_name else "position") if shape.header else None,
        "delimiter": shape.delimiter if shape.format == "csv" else None,
        "encoding": shape.encoding if shape.format == "csv" else None,
        "sheet": shape.sheet,
    }


def _check_has_result(job: Job) -> None:
    if job.status in (QUEUED, PROCESSING):
        raise JobNotFinished(
            f"Job {job.job_id} is {job.status} ({job.rows_processed:,} of {_shown_total(job)} rows). "
            f"Ask GET /bulk/status/{job.job_id} until it is completed, then download."
        )
    if job.status != COMPLETED:
        raise JobFailed(f"Job {job.job_id} is {job.status} and has no result. {job.error_name}: {job.error_message}")


def _shown_total(job: Job) -> str:
    return "an unknown number of" if job.rows_total is None else f"{job.rows_total:,}"


def _result_file(job: Job, maker: Job, result_format: str) -> ResultFile:
    stem = PurePosixPath(str(job.parameters["filename"])).stem or "result"
    return ResultFile(str(maker.result_key), f"{stem}_predictions.{result_format}", MEDIA_TYPES[result_format])


def _plain_name(filename: str) -> str:
    """The last part of a file name, without what could break a header or a log line."""
    name = filename.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(sign for sign in name if sign.isprintable()).strip()[-LONGEST_NAME:]


def _file_in_memory(file_format: str, header: list[str], rows: pa.RecordBatch) -> bytes:
    nothing_added = pa.RecordBatch.from_struct_array(pa.array([{}] * rows.num_rows, pa.struct([])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"template.{file_format}"
        with open_result(path, file_format, header) as writer:
            writer.write(rows, nothing_added)
        return path.read_bytes()
