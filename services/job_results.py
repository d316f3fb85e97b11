"""What a caller can fetch of a job: its result, the result in another format, what is done so far, and its customers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.file_statistics import list_customers
from ml_pipeline.result_files import FORMATS, MEDIA_TYPES, XLSX_ROWS, assemble_result
from ml_pipeline.result_rows import result_header
from ml_pipeline.snapshot import result_columns
from services.dispatcher import Dispatcher
from services.errors import (
    ConversionFailed,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    JobNotFinished,
    JobOver,
    NoResultFile,
    ObjectStoreUnavailable,
    UnknownJob,
)
from services.job_files import read_positions, shape_of
from services.job_keys import customers_key
from services.job_store import JobStore
from services.job_table import (
    CANCELLED,
    COMPLETED,
    CONVERSION,
    CONVERT,
    DONE,
    FAILED,
    OPEN,
    SAMPLE_DATA,
    SCORE,
    Job,
    NewJob,
    Step,
)
from services.model_registry import Model, ModelRegistry
from services.object_store import ObjectStore, named_failures

ZIP = "application/zip"


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


@dataclass(frozen=True)
class PartialFile:
    """What is done of a job so far: a local file with so many of its rows, in their order. rows_total: None if not known."""

    path: Path
    filename: str
    media_type: str
    rows: int
    rows_total: int | None


class JobResults:
    """The files that jobs have made."""

    def __init__(self, store: JobStore, objects: ObjectStore, registry: ModelRegistry, dispatcher: Dispatcher) -> None:
        self._store = store
        self._objects = objects
        self._registry = registry
        self._dispatcher = dispatcher

    def result(self, job: Job, result_format: str | None, request_id: str) -> ResultFile | ConversionUnderWay:
        """The result in its own format (None) or in another, which a worker makes on the first request.

        Raises JobNotFinished, JobFailed, JobCancelled, ConversionFailed, DoesNotFitXlsx.
        """
        check_has_result(job)
        wanted = result_format or own_format(job)
        if wanted == own_format(job):
            return _result_file(job, job, wanted)
        if wanted == "xlsx" and (job.rows_total or 0) >= XLSX_ROWS:
            raise DoesNotFitXlsx(
                f"The result has {job.rows_total:,} rows, an Excel sheet holds {XLSX_ROWS - 1:,} below its header. "
                "Download the CSV instead."
            )
        return self._converted(job, wanted, request_id)

    def _converted(self, job: Job, wanted: str, request_id: str) -> ResultFile | ConversionUnderWay:
        conversion = self._store.variant(job.job_id, CONVERSION, wanted)
        if conversion is not None and conversion.status == CANCELLED:  # for a delete that was not carried through
            self._forget(conversion)
            conversion = None
        if conversion is None:
            conversion = self._store.add(_conversion(job, wanted, request_id))
            self._dispatcher.send(conversion.job_id, CONVERT)
        if conversion.status == FAILED:
            self._forget(conversion)
            raise ConversionFailed(
                f"The result of job {job.job_id} could not be made as {wanted}: {conversion.error_message} "
                "Asking once more tries it again; the format of the upload is there."
            )
        if conversion.status == COMPLETED:
            return _result_file(job, conversion, wanted)
        return ConversionUnderWay(job.job_id, wanted)

    def _forget(self, conversion: Job) -> None:
        with suppress(UnknownJob):  # who asked at the same moment was quicker
            self._store.delete(conversion.job_id)

    def stop_conversions(self, job: Job) -> None:
        """Whoever turns the result into another format finds out at his next write that nobody waits for it."""
        for result_format in FORMATS:
            conversion = self._store.variant(job.job_id, CONVERSION, result_format)
            if conversion is not None and conversion.status in OPEN:
                with suppress(JobOver, UnknownJob):  # it has ended, or was forgotten, just now
                    self._store.cancel(conversion.job_id)

    @contextmanager
    def partial(self, job: Job) -> Iterator[PartialFile]:
        """The rows of the chunks that are done, in the result's own format; of a completed job its result.

        In a workbook each row stands where it will stand in the result, and those in between are empty. The file is gone when
        the block ends. Raises JobNotFinished, JobFailed or JobCancelled when there is none yet.
        """
        with ExitStack() as files:
            yield self._opened(job, files)

    def _opened(self, job: Job, files: ExitStack) -> PartialFile:
        try:
            return files.enter_context(self._whole(job) if job.status == COMPLETED else self._so_far(job))
        except ObjectStoreUnavailable:  # the parts are removed at once when the job is completed
            job = self._store.get(job.job_id)
            if job.status != COMPLETED:
                raise
        return files.enter_context(self._whole(job))

    @contextmanager
    def _whole(self, job: Job) -> Iterator[PartialFile]:
        result = _result_file(job, job, own_format(job))
        with self._objects.local(result.key) as path:
            yield PartialFile(path, result.filename, result.media_type, job.rows_total or 0, job.rows_total)

    @contextmanager
    def _so_far(self, job: Job) -> Iterator[PartialFile]:
        chunks = [step for step in self._store.steps(job.job_id) if step.kind == SCORE and step.status == DONE]
        if not chunks:
            check_has_result(job)
        result_format = own_format(job)
        with self._objects.receive() as stream:
            path = Path(str(stream.name))
            self._assemble(path, job, sorted(chunks, key=lambda chunk: chunk.number))
            name = _filename(job, "partial_predictions", result_format)
            rows = sum(chunk.rows for chunk in chunks)
            yield PartialFile(path, name, MEDIA_TYPES[result_format], rows, job.rows_total)

    def _assemble(self, path: Path, job: Job, chunks: Sequence[Step]) -> None:
        header = result_header(shape_of(job, self._objects).header, result_columns(self._pair(job).snapshot.targets))
        with named_failures(), ExitStack() as files:
            parts = [files.enter_context(self._objects.local(str(chunk.key))) for chunk in chunks]
            assemble_result(path, own_format(job), header, parts, None)

    def customers(self, job: Job, flag: str | None, segment: str | None, limit: int, offset: int) -> Mapping[str, Any]:
        """A page of the distinct customers of a completed job. Raises as `result`, and a CustomerListError."""
        check_has_result(job)
        model = self._pair(job)
        with self._objects.local(customers_key(str(job.result_key))) as path:
            positions = read_positions(path)
        threshold = job.parameters.get("high_value_over")
        return list_customers(model.snapshot, model.bundle.content, positions, flag, segment, limit, offset, threshold)

    def _pair(self, job: Job) -> Model:
        return self._registry.pair(str(job.bundle_id), str(job.snapshot_id))


def sample_archive(job: Job, result_format: str | None) -> ResultFile:
    """The archive of a job that made sample tables. Raises NoResultFile of a job that makes no file, InvalidRequest for a
    format, JobNotFinished, JobCancelled, JobFailed."""
    if job.kind != SAMPLE_DATA:
        raise NoResultFile(
            f"Job {job.job_id} is of the kind {job.kind} and makes no file to download. GET /bulk/status/{job.job_id} has what "
            "came of it, GET /model/info and GET /model/performance tell of the model that serves."
        )
    if result_format is not None:
        raise InvalidRequest(
            f"format is {result_format}; job {job.job_id} has made sample tables, which come as one zip of CSV files. Leave "
            "the format out."
        )
    check_has_result(job)
    return ResultFile(str(job.result_key), f"sample_data_{job.parameters['n_customers']}.zip", ZIP)


def own_format(job: Job) -> str:
    """The format that the job's result has without being asked for another."""
    return str(job.parameters["result_format"])


def check_has_result(job: Job) -> None:
    """Raises JobNotFinished, JobCancelled or JobFailed unless the job is completed."""
    if job.status in OPEN:
        so_far = f" ({job.rows_processed:,} of {_shown_total(job)} rows)" if job.kind != SAMPLE_DATA else ""
        raise JobNotFinished(
            f"Job {job.job_id} is {job.status}{so_far}. Ask GET /bulk/status/{job.job_id} until it is completed, then download."
        )
    if job.status == CANCELLED and job.kind == SAMPLE_DATA:
        raise JobCancelled(
            f"Job {job.job_id} was cancelled and has no result. POST /bulk/retry/{job.job_id} begins it anew."
        )
    if job.status == CANCELLED:
        raise JobCancelled(
            f"Job {job.job_id} was cancelled after {job.rows_processed:,} of {_shown_total(job)} rows and has no result. "
            f"POST /bulk/resume/{job.job_id} goes on with it; "
            f"GET /bulk/download/{job.job_id}?partial=true gives the rows that are done, where there are any."
        )
    if job.status != COMPLETED:
        raise JobFailed(f"Job {job.job_id} is {job.status} and has no result. {job.error_name}: {job.error_message}")


def _shown_total(job: Job) -> str:
    return "an unknown number of" if job.rows_total is None else f"{job.rows_total:,}"


def _conversion(job: Job, wanted: str, request_id: str) -> NewJob:
    return NewJob(
        CONVERSION,
        job.owner,
        request_id,
        CONVERT,
        rows_total=job.rows_total,
        parent_id=job.job_id,
        variant=wanted,
        bundle_id=job.bundle_id,
        snapshot_id=job.snapshot_id,
    )


def _result_file(job: Job, maker: Job, result_format: str) -> ResultFile:
    name = _filename(job, "predictions", result_format)
    return ResultFile(str(maker.result_key), name, MEDIA_TYPES[result_format])


def _filename(job: Job, what: str, result_format: str) -> str:
    name = str(job.parameters["filename"])
    stem = PurePosixPath(name[: -len(".gz")] if name.lower().endswith(".gz") else name).stem or "result"
    return f"{stem}_{what}.{result_format}"
