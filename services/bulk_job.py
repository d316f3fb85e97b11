"""What workers do for a bulk job, step by step: read the upload into chunks, score each, put the parts together, convert."""

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ml_pipeline.customer_files import RowCounts, check_header, ids_of, open_rows, read_rows
from ml_pipeline.file_shape import FileShape
from ml_pipeline.file_statistics import statistics_of
from ml_pipeline.result_files import assemble_result
from ml_pipeline.result_parts import write_part
from ml_pipeline.result_rows import answer_rows, failed_rows, result_header
from ml_pipeline.snapshot import Snapshot, result_columns
from services.chunk_staging import ChunkStaging
from services.dispatcher import Dispatcher
from services.errors import LeaseLost, ObjectStoreUnavailable, UnknownJob
from services.job_files import Positions, keep_shape, read_chunk, read_positions, shape_of, write_positions
from services.job_keys import (
    clear_chunks,
    converted_key,
    customers_key,
    failed_part_key,
    part_key,
    positions_key,
    result_key,
)
from services.job_store import JobStore
from services.job_table import COMPLETED, DONE, GIVEN_UP, SCORE, Job, Lease, Step
from services.model_registry import Model, ModelRegistry
from services.object_store import ObjectStore, named_failures
from services.step_store import StepStore
from services.uploads import UploadLimits, file_metadata

log = logging.getLogger(__name__)

StepWork = Callable[["BulkJobs", Job, Step, Lease], None]


def _leaving_nothing_of_a_job_that_is_over(work: StepWork) -> StepWork:
    """Who learns by the loss of his lease that the job was deleted, or done by others, removes what he has written since."""

    @wraps(work)
    def done(jobs: "BulkJobs", job: Job, step: Step, lease: Lease) -> None:
        try:
            work(jobs, job, step, lease)
        except LeaseLost:
            jobs.clear_if_over(job.parent_id or job.job_id)
            raise

    return done


class BulkJobs:
    """The work of the steps. Nothing is committed before the object that it speaks of is whole.

    Every step raises LeaseLost, and what the stores and the registry raise.
    """

    def __init__(
        self,
        store: JobStore,
        steps: StepStore,
        objects: ObjectStore,
        registry: ModelRegistry,
        dispatcher: Dispatcher,
        limits: UploadLimits,
        rows_per_chunk: int,
    ) -> None:
        self._store = store
        self._steps = steps
        self._objects = objects
        self._registry = registry
        self._dispatcher = dispatcher
        self._limits = limits
        self._rows_per_chunk = rows_per_chunk

    def clear_if_over(self, job_id: str) -> None:
        """Removes all files of a job that is not there any more, and the chunks and parts of one whose result is made."""
        try:
            job = self._store.get(job_id)
        except UnknownJob:
            self._objects.delete_below(job_id)
            return
        if job.status == COMPLETED and all(chunk.status == DONE for chunk in self._store.steps(job_id, SCORE)):
            self._clear(job_id)

    # ---- read

    @_leaving_nothing_of_a_job_that_is_over
    def read(self, job: Job, step: Step, lease: Lease) -> None:
        """Cuts the upload into chunks. Raises a CustomerFileError or TooManyRows for a file that is not taken."""
        job, model = self._pinned(job, lease)
        chunks = _chunks(self._store.steps(job.job_id))
        staging = ChunkStaging(lease, chunks, self._steps, self._objects, self._dispatcher)
        with self._objects.local(job.parameters["upload_key"]) as upload, named_failures():
            shape, batches = self._opened(job, upload, staging, model.snapshot)
            counts = staging.stage_all(batches, shape, _counted(job))
        name, size = str(job.parameters["filename"]), int(job.parameters["size"])
        self._steps.finish_reading(lease, file_metadata(name, size, shape, counts), counts.rows)

    def _pinned(self, job: Job, lease: Lease) -> tuple[Job, Model]:
        """The pair that served at the upload; where none did, the one that serves now."""
        if job.bundle_id is None:
            serving = self._registry.serving()
            self._registry.publish(serving)
            job = self._steps.pin(lease, serving.bundle.bundle_id, serving.snapshot.snapshot_id)
        return job, self._pair(job)

    def _pair(self, job: Job) -> Model:
        return self._registry.pair(str(job.bundle_id), str(job.snapshot_id))

    def _opened(
        self, job: Job, upload: Path, staging: ChunkStaging, snapshot: Snapshot
    ) -> tuple[FileShape, Iterator[pa.RecordBatch]]:
        """The shape as recorded, and the rows; a workbook that was too large for the upload's answer is judged here."""
        shape = FileShape.from_parameters(job.parameters["shape"])
        if not shape.header:
            narrow = staging.rows_per_chunk(1, self._rows_per_chunk)
            limits = {"columns_limit": self._limits.columns, "rows_limit": self._limits.rows}
            name = str(job.parameters["filename"])
            shape, batches = open_rows(upload, name, narrow, staging.saw, sheet=shape.sheet, **limits)
            check_header(shape, snapshot)
            keep_shape(job.job_id, shape, self._objects)
            if staging.rows_per_chunk(len(shape.header), self._rows_per_chunk) == narrow:
                return shape, batches
        rows_per_chunk = staging.rows_per_chunk(len(shape.header), self._rows_per_chunk)
        return shape, read_rows(upload, shape, rows_per_chunk, staging.saw, self._limits.rows)

    # ---- score

    @_leaving_nothing_of_a_job_that_is_over
    def score(self, job: Job, step: Step, lease: Lease) -> None:
        """Answers one chunk."""
        model, shape = self._pair(job), shape_of(job, self._objects)
        with self._objects.local(str(step.key)) as staged:
            rows = read_chunk(staged)
        answered = answer_rows(model.snapshot, model.version, ids_of(rows, shape))
        key = part_key(job.job_id, step.number, lease.fence, shape.result_format)
        with self._objects.create(key) as path:
            write_part(path, shape.result_format, rows, answered.columns, step.first_row)
        with self._objects.create(positions_key(key)) as path:
            write_positions(path, np.unique(answered.positions[answered.positions >= 0]))
        self._steps.commit(lease, key, answered.successful)

    # ---- write

    @_leaving_nothing_of_a_job_that_is_over
    def write(self, job: Job, step: Step, lease: Lease) -> None:
        """Puts the parts together, sums up over distinct customers and completes the job."""
        model, shape = self._pair(job), shape_of(job, self._objects)
        chunks = _chunks(self._store.steps(job.job_id))
        result_format = shape.result_format
        parts = [self._part(chunk, lease, model, result_format) for chunk in chunks]
        customers = self._customers(chunks, model.snapshot)
        statistics = _statistics(job, chunks, customers, model)
        key = result_key(job.job_id, lease.fence, result_format)
        with ExitStack() as files:
            paths = [files.enter_context(self._objects.local(part)) for part in parts]
            path = files.enter_context(self._objects.create(key))
            assemble_result(path, result_format, _header(shape, model), paths, _summary(job, statistics))
        with self._objects.create(customers_key(key)) as path:
            write_positions(path, customers)
        self._steps.complete(lease, key, statistics)
        if not any(chunk.status == GIVEN_UP for chunk in chunks):  # these are tried again from what is staged
            self._clear(job.job_id)

    def _part(self, chunk: Step, lease: Lease, model: Model, result_format: str) -> str:
        """The key of a chunk's part; one that was given up gets a part that says so of each of its rows."""
        if chunk.status != GIVEN_UP:
            return str(chunk.key)
        key = failed_part_key(chunk.job_id, chunk.number, lease.fence, result_format)
        with self._objects.local(str(chunk.key)) as staged:
            rows = read_chunk(staged)
        with self._objects.create(key) as path:
            write_part(path, result_format, rows, _given_up(chunk, rows, model), chunk.first_row)
        return key

    def _customers(self, chunks: Sequence[Step], snapshot: Snapshot) -> Positions:
        """The snapshot rows of the distinct customers of all parts, ascending."""
        seen = np.zeros(snapshot.n_customers, dtype=bool)
        for chunk in chunks:
            if chunk.status != GIVEN_UP:
                with self._objects.local(positions_key(str(chunk.key))) as path:
                    seen[read_positions(path)] = True
        return np.flatnonzero(seen)

    def _clear(self, job_id: str) -> None:
        """What stays behind here is removed later (retention.py): it is no reason to fail a job that is completed."""
        try:
            clear_chunks(self._objects, job_id)
        except ObjectStoreUnavailable as problem:
            log.warning("chunks are left behind", extra={"job_id": job_id, "reason": str(problem)})

    # ---- convert

    @_leaving_nothing_of_a_job_that_is_over
    def convert(self, job: Job, step: Step, lease: Lease) -> None:
        """Makes the parent's result once more, in another format, from the same upload and the same pair."""
        parent, result_format = self._store.get(str(job.parent_id)), str(job.variant)
        assert parent.statistics is not None, "only a completed job's result is converted"
        model, shape = self._pair(parent), shape_of(parent, self._objects)
        chunks = _chunks(self._store.steps(parent.job_id))
        key = converted_key(parent.job_id, job.job_id, lease.fence, result_format)
        with self._objects.local(parent.parameters["upload_key"]) as upload, self._objects.create(key) as path:
            answered = _answered_anew(read_rows(upload, shape, chunks[0].rows), chunks, shape, model)
            with self._parts_beside(path, result_format, answered, lease) as parts:
                summary = _summary(parent, parent.statistics)
                assemble_result(path, result_format, _header(shape, model), parts, summary)
        self._steps.complete(lease, key)

    @contextmanager
    def _parts_beside(
        self,
        path: Path,
        result_format: str,
        answered: Iterable[tuple[Step, pa.RecordBatch, pa.RecordBatch]],
        lease: Lease,
    ) -> Iterator[list[Path]]:
        """Parts on the disk that the result goes to, gone when the block ends."""
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            parts = []
            for chunk, rows, answers in answered:
                parts.append(Path(folder) / f"{chunk.number:06d}.{result_format}")
                write_part(parts[-1], result_format, rows, answers, chunk.first_row)
                self._steps.renew(lease)  # a conversion that nobody waits for any more ends here
            yield parts


def _chunks(steps: Iterable[Step]) -> list[Step]:
    return sorted((step for step in steps if step.kind == SCORE), key=lambda step: step.number)


def _counted(job: Job) -> RowCounts | None:
    """What the upload has counted."""
    found = job.metadata
    if job.rows_total is None or found["total_customers"] is None:
        return None
    return RowCounts(job.rows_total, int(found["total_customers"]), bool(found["has_duplicates"]))


def _header(shape: FileShape, model: Model) -> list[str]:
    return result_header(shape.header, result_columns(model.snapshot.targets))


def _given_up(chunk: Step, rows: pa.RecordBatch, model: Model) -> pa.RecordBatch:
    return failed_rows(model.snapshot.targets, rows.num_rows, f"{chunk.error_name}: {chunk.error_message}")


def _answered_anew(
    batches: Iterable[pa.RecordBatch], chunks: Sequence[Step], shape: FileShape, model: Model
) -> Iterator[tuple[Step, pa.RecordBatch, pa.RecordBatch]]:
    """Each chunk with its rows and their answers, those that were given up marked as they are in the result."""
    for chunk, rows in zip(chunks, batches, strict=True):
        if chunk.status == GIVEN_UP:
            yield chunk, rows, _given_up(chunk, rows, model)
        else:
            yield chunk, rows, answer_rows(model.snapshot, model.version, ids_of(rows, shape)).columns


def _statistics(job: Job, chunks: Sequence[Step], customers: Positions, model: Model) -> dict[str, Any]:
    rows = sum(chunk.rows for chunk in chunks)
    failed = rows - sum(chunk.successful for chunk in chunks if chunk.status != GIVEN_UP)
    threshold = job.parameters.get("high_value_over")
    return statistics_of(model.snapshot, model.bundle.content, customers, rows, failed, threshold)


def _summary(job: Job, statistics: Mapping[str, Any]) -> dict[str, Any]:
    return {**statistics, "filename": job.parameters["filename"]}
