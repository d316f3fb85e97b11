"""Bulk jobs as a caller sees them: hand over a file, watch the job, fetch the result, cancel it, try it again, delete it."""

import base64
import binascii
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_pipeline.errors import ModelError
from ml_pipeline.file_shape import FileShape
from ml_pipeline.result_files import MEDIA_TYPES, assemble_result
from ml_pipeline.result_parts import write_part
from services.dispatcher import Dispatcher
from services.errors import IdempotencyConflict, InvalidRequest, JobStoreUnavailable, NoResultFile
from services.job_keys import upload_key
from services.job_progress import progress_of
from services.job_results import ConversionUnderWay, JobResults, PartialFile, ResultFile, sample_archive
from services.job_store import JobStore, too_many_jobs
from services.job_table import (
    BULK,
    COMPLETED,
    DONE,
    GIVEN_UP,
    NOTIFY,
    READ,
    TRAINING_KINDS,
    WATCHED_KINDS,
    Job,
    NewJob,
    Step,
)
from services.model_registry import Model, ModelRegistry
from services.object_store import ObjectStore
from services.training_progress import training_progress
from services.upload_preview import preview_of
from services.uploads import UploadLimits, UploadOptions, file_metadata, looked_at, plain_name
from services.webhooks import Webhooks

log = logging.getLogger(__name__)

ROWS_PER_SECOND = 50_000
BYTES_PER_ROW = 50
NO_OPTIONS = UploadOptions()
NOT_TOLD: Mapping[str, Any] = {"status": "waiting", "attempts": 0, "message": None}
TEMPLATE_ROWS = 5
TEMPLATE_HEADER = ("customer_id", "customer_name", "notes")


@dataclass(frozen=True)
class Caller:
    """Who asks, and the id of the request."""

    owner: str
    request_id: str


@dataclass(frozen=True)
class JobPage:
    """Some of the caller's jobs, the newest first; next_cursor asks for those that are older, None if there are none."""

    jobs: list[Job]
    next_cursor: str | None


class BulkService:
    """Everything a caller can do with bulk jobs; what a worker does is in bulk_job.py.

    Trainings, sample tables and data refreshes (asked for in training_service.py) are watched, cancelled, tried again, listed
    and deleted here too. Methods that take a job_id raise UnknownJob unless it is one of the caller's.
    """

    def __init__(
        self,
        store: JobStore,
        objects: ObjectStore,
        dispatcher: Dispatcher,
        registry: ModelRegistry,
        webhooks: Webhooks,
        limits: UploadLimits,
        jobs_per_caller: int,
    ) -> None:
        self._store = store
        self._objects = objects
        self._dispatcher = dispatcher
        self._registry = registry
        self._webhooks = webhooks
        self._limits = limits
        self._jobs_per_caller = jobs_per_caller
        self._results = JobResults(store, objects, registry, dispatcher)

    # ---- handing over a file

    def template(self, template_format: str) -> bytes:
        """A file to fill in: customer_id, customer_name, notes, with five customers that exist. CSV or XLSX.

        Raises what the registry raises when no model serves.
        """
        ids = _first_ids(self._registry.serving())
        names = [f"Customer {number}" for number in range(1, len(ids) + 1)]
        notes = ["sample row: put your own customers here", *[""] * (len(ids) - 1)][: len(ids)]
        return _template(template_format, [ids, names, notes])

    def sample_ids(self) -> list[str]:
        """Those of the template, for examples that work when they are pasted; none while no model serves."""
        model = self._serving()
        return _first_ids(model) if model else []

    def preview(self, path: Path, filename: str, sheet: str | None = None) -> dict[str, Any]:
        """What would be made of a file, without starting a job. Raises what an upload of the file would raise."""
        model = self._serving()
        return preview_of(path, plain_name(filename), sheet, self._limits, model.snapshot if model else None)

    def upload(self, path: Path, filename: str, caller: Caller, options: UploadOptions = NO_OPTIONS) -> Job:
        """Checks a file, keeps it, records a job for it and queues that. The file at `path` may go afterwards.

        The same idempotency key and file once more give the job that there is. Raises a CustomerFileError for a file that
        cannot be read, RequestTooLarge or TooManyRows for one that is too large, TooManyJobs, IdempotencyConflict,
        WebhookRefused; a queue that is away only delays the job.
        """
        self._limits.check_size(path.stat().st_size)
        options.check()
        digest = None if options.idempotency_key is None else options.digest(path)
        earlier = self._asked_before(caller, options, digest)
        if earlier is not None:
            return earlier
        self._check_allowed(caller, options)
        model = self._serving()
        new, key = self._described(path, plain_name(filename), caller, options, digest, model)
        with self._files_kept_only_with_their_job(new.job_id):
            self._objects.adopt(key, path)
            if model is not None:
                self._registry.publish(model)
            job = self._store.add(new, self._jobs_per_caller)
        if job.job_id != new.job_id:  # the same request was quicker
            self._objects.delete_below(new.job_id)
            return checked_same(job, digest)
        log.info("job recorded", extra={"job_id": new.job_id, "bytes": new.parameters["size"]})
        self._dispatcher.send(job.job_id, READ)
        return self._store.get(job.job_id)

    def _asked_before(self, caller: Caller, options: UploadOptions, digest: str | None) -> Job | None:
        if options.idempotency_key is None:
            return None
        job = self._store.with_key(caller.owner, options.idempotency_key)
        return None if job is None else checked_same(job, digest)

    def _check_allowed(self, caller: Caller, options: UploadOptions) -> None:
        """Before anything is read: what is refused in the end costs nothing."""
        if options.webhook_url is not None:
            self._webhooks.check(options.webhook_url)
        self._check_open_jobs(caller, BULK)

    def _check_open_jobs(self, caller: Caller, kind: str) -> None:
        if self._store.open_jobs(caller.owner, kind) >= self._jobs_per_caller:
            raise too_many_jobs(self._jobs_per_caller)

    def _serving(self) -> Model | None:
        """Without a model nobody is known, and the job will say that there is none."""
        try:
            return self._registry.serving()
        except ModelError as problem:
            log.warning("no model can serve", extra={"error": type(problem).__name__, "reason": str(problem)})
            return None

    def _described(
        self,
        path: Path,
        filename: str,
        caller: Caller,
        options: UploadOptions,
        digest: str | None,
        model: Model | None,
    ) -> tuple[NewJob, str]:
        """The job for a file, tied to the pair that serves now, and the key for the file."""
        shape, counts = looked_at(path, filename, options.sheet, self._limits, model.snapshot if model else None)
        size = path.stat().st_size
        new = NewJob(
            BULK,
            caller.owner,
            caller.request_id,
            READ,
            metadata=file_metadata(filename, size, shape, counts),
            rows_total=counts.rows if counts else None,
            idempotency_key=options.idempotency_key,
            bundle_id=model.bundle.bundle_id if model else None,
            snapshot_id=model.snapshot.snapshot_id if model else None,
        )
        key = upload_key(new.job_id, shape)
        return replace(new, parameters=_parameters(key, filename, size, shape, options, digest)), key

    @contextmanager
    def _files_kept_only_with_their_job(self, job_id: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if not self._may_be_recorded(job_id):
                self._objects.delete_below(job_id)
            raise

    def _may_be_recorded(self, job_id: str) -> bool:
        """A link to the database that breaks at the very end leaves the job there. Where nobody answers, the files stay: the
        watchdog removes those without a job."""
        try:
            return bool(self._store.known([job_id]))
        except JobStoreUnavailable:
            return True

    # ---- watching

    def status(self, job_id: str, caller: Caller) -> Job:
        """The caller's job, of whatever kind."""
        return self._store.find(job_id, caller.owner, *WATCHED_KINDS)

    def progress(self, job: Job) -> dict[str, Any]:
        """How far a job is, by the names that the API documents: as `progress_of` has it, or `training_progress`."""
        if job.kind in TRAINING_KINDS:
            return training_progress(job)
        if job.status == COMPLETED:  # of which a list has many
            return progress_of(job, [], job.updated_at)
        return progress_of(job, *self._store.steps_now(job.job_id))

    def webhook(self, job: Job) -> dict[str, Any] | None:
        """Whether the job's latest end was told to its webhook: url, status (waiting, delivered or given_up), attempts, and
        the message of the last failure; None for a job without a webhook."""
        url = job.parameters.get("webhook_url")
        if not url:
            return None
        calls = self._store.steps(job.job_id, NOTIFY)
        return {"url": url, **(_told(calls[-1]) if calls else NOT_TOLD)}

    def jobs(
        self,
        caller: Caller,
        status: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        kind: str | None = None,
    ) -> JobPage:
        """The caller's jobs, the newest first; cursor: where the page before ended; kind: None for all. Raises InvalidRequest."""
        before = None if cursor is None else _read_cursor(cursor)
        kinds = WATCHED_KINDS if kind is None else (kind,)
        found = self._store.page(caller.owner, kinds, status, limit + 1, before)
        page = found[:limit]
        return JobPage(page, _cursor(page[-1]) if len(found) > limit and page else None)

    # ---- fetching

    def result(self, job_id: str, result_format: str | None, caller: Caller) -> ResultFile | ConversionUnderWay:
        """The result in the format of the upload (None) or in another, which a worker makes on the first request; of sample
        tables their archive.

        Raises JobNotFinished, JobFailed, JobCancelled, ConversionFailed, DoesNotFitXlsx; NoResultFile of a training;
        InvalidRequest for a format of sample tables.
        """
        job = self.status(job_id, caller)
        if job.kind in TRAINING_KINDS:
            return sample_archive(job, result_format)
        return self._results.result(job, result_format, caller.request_id)

    def partial(self, job_id: str, caller: Caller) -> AbstractContextManager[PartialFile]:
        """The rows that are done so far, or the whole result. Raises JobNotFinished, JobFailed, JobCancelled without any, and
        NoResultFile of a job without rows."""
        return self._results.partial(self._of_a_file(job_id, caller))

    def customers(
        self,
        job_id: str,
        caller: Caller,
        flag: str | None = None,
        segment: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Mapping[str, Any]:
        """A page of the file's distinct customers, the highest prediction first. Raises as `result` and a CustomerListError."""
        return self._results.customers(self._of_a_file(job_id, caller), flag, segment, limit, offset)

    def _of_a_file(self, job_id: str, caller: Caller) -> Job:
        job = self.status(job_id, caller)
        if job.kind != BULK:
            raise NoResultFile(
                f"Job {job_id} is of the kind {job.kind} and has no customers of an uploaded file: only jobs of "
                f"POST /bulk/predict have. GET /bulk/status/{job_id} says what it has come to."
            )
        return job

    # ---- changing its course

    def cancel(self, job_id: str, caller: Caller) -> Job:
        """Ends a job that waits or is under way; what is done stays. Raises JobOver."""
        job = self._store.cancel(self.status(job_id, caller).job_id)
        log.info("job cancelled", extra={"job_id": job_id})
        self._dispatcher.send_unsent(job_id)  # its webhook
        return job

    def retry(self, job_id: str, caller: Caller) -> Job:
        """Goes on with a failed or cancelled job where it stopped; of a completed one, with the rows that were given up.

        Raises JobInProgress, NothingToRetry, TooManyJobs.
        """
        job = self.status(job_id, caller)
        self._check_open_jobs(caller, job.kind)
        self._store.retry(job.job_id)
        log.info("job tried again", extra={"job_id": job_id})
        self._dispatcher.send_unsent(job_id)
        return self._store.get(job_id)

    def delete(self, job_id: str, caller: Caller) -> None:
        """Removes a job, its upload and its results. Raises JobInProgress while a worker is at it."""
        job = self.status(job_id, caller)
        if job.kind == BULK:
            self._results.stop_conversions(job)
        self._store.delete(job.job_id)
        self._objects.delete_below(job.job_id)
        log.info("job deleted", extra={"job_id": job.job_id})


def media_type_of(file_format: str) -> str:
    """Of a file that is offered for download."""
    return MEDIA_TYPES[file_format]


def estimated_seconds(job: Job) -> int:
    """A rough guess of how long the job takes once a worker has it."""
    rows = job.rows_total if job.rows_total is not None else int(job.parameters["size"]) / BYTES_PER_ROW
    return max(1, math.ceil(rows / ROWS_PER_SECOND))


def _parameters(
    key: str, filename: str, size: int, shape: FileShape, options: UploadOptions, digest: str | None
) -> dict[str, Any]:
    return {
        "upload_key": key,
        "filename": filename,
        "size": size,
        "shape": shape.as_parameters(),
        "result_format": shape.result_format,
        "webhook_url": options.webhook_url,
        "high_value_over": options.high_value_over,
        "digest": digest,
    }


def _told(call: Step) -> dict[str, Any]:
    """One call of a webhook, as its owner is told; one that ended with an error was given up."""
    given_up = call.status == GIVEN_UP or (call.status == DONE and call.error_name is not None)
    status = "given_up" if given_up else "delivered" if call.status == DONE else "waiting"
    return {"status": status, "attempts": call.attempts, "message": call.error_message}


def checked_same(job: Job, digest: str | None) -> Job:
    """The job that was asked for under a key before, if it was asked for the same. Raises IdempotencyConflict."""
    if job.parameters.get("digest") != digest:
        raise IdempotencyConflict(
            f"This Idempotency-Key was used for job {job.job_id} ({job.kind}), with another file or other options. Send a "
            "new key for a new job, or the very same request to get that one."
        )
    return job


def _cursor(last: Job) -> str:
    return base64.urlsafe_b64encode(f"{last.created_at!r} {last.job_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        created_at, job_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        moment = float(created_at)
    except (ValueError, binascii.Error):
        moment, job_id = math.nan, ""
    if not math.isfinite(moment) or not job_id.isalnum():
        raise InvalidRequest(
            f"cursor is {cursor[:40]!r}; it must be the next_cursor of an answer of GET /bulk/jobs. Leave it out for the "
            "newest jobs."
        )
    return moment, job_id


def _first_ids(model: Model) -> list[str]:
    return model.snapshot.customer_ids(range(min(TEMPLATE_ROWS, model.snapshot.n_customers)))


def _template(template_format: str, columns: list[list[str]]) -> bytes:
    texts = [pa.array(column, pa.string()) for column in columns]
    rows = pa.record_batch(texts[:-1], names=[str(index) for index in range(len(texts) - 1)])
    last = pa.record_batch(texts[-1:], names=TEMPLATE_HEADER[-1:])
    with tempfile.TemporaryDirectory() as folder:
        part, path = Path(folder) / f"part.{template_format}", Path(folder) / f"template.{template_format}"
        write_part(part, template_format, rows, last, 0)
        assemble_result(path, template_format, list(TEMPLATE_HEADER), [part], None)
        return path.read_bytes()
