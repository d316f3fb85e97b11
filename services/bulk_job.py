"""What a worker does for a bulk job: rows in, answers beside them, one result file, one commit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.customer_files import check_header, count_rows, describe_upload, ids_of, read_rows
from ml_pipeline.file_shape import FileShape
from ml_pipeline.result_files import open_result
from ml_pipeline.result_rows import Answered, answer_rows, result_header
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, result_columns
from ml_pipeline.spend_sums import sum_spend
from services.bulk_service import file_metadata
from services.job_store import Job, JobStore, Lease, Progress
from services.model_registry import Model, ModelRegistry
from services.object_store import ObjectStore

ROWS_PER_SLICE = 50_000


class BulkJobs:
    """The work of bulk and conversion jobs. Files are worked through in slices, with the lease checked after each."""

    def __init__(
        self, store: JobStore, objects: ObjectStore, registry: ModelRegistry, rows_per_slice: int = ROWS_PER_SLICE
    ) -> None:
        self._store = store
        self._objects = objects
        self._registry = registry
        self._rows_per_slice = rows_per_slice

    def predict(self, job: Job, lease: Lease) -> None:
        """Makes the result of an upload in the upload's own format.

        Raises LeaseLost, a CustomerFileError, and what the stores and the registry raise.
        """
        model = self._pinned(job, lease)
        with self._objects.local(job.parameters["upload_key"]) as upload:
            job, shape = self._read_metadata(job, lease, upload, model)
            key = f"{job.job_id}/result-{lease.fence}.{shape.format}"
            tally = self._write_result(upload, shape, shape.format, key, model, job.rows_total, lease)
        self._store.complete(lease, key, tally.progress(job.rows_total), tally.statistics(model))

    def convert(self, job: Job, lease: Lease) -> None:
        """Makes the result of its parent once more, in another format, from the same upload and the same pair."""
        parent = self._store.get(str(job.parent_id))
        model = self._registry.pair(str(parent.bundle_id), str(parent.snapshot_id))
        shape = FileShape.from_parameters(parent.parameters["shape"])
        key = f"{parent.job_id}/converted-{lease.fence}.{job.variant}"
        with self._objects.local(parent.parameters["upload_key"]) as upload:
            if not shape.header:
                shape = describe_upload(upload, f"upload.{shape.format}")
            tally = self._write_result(upload, shape, str(job.variant), key, model, job.rows_total, lease)
        self._store.complete(lease, key, tally.progress(job.rows_total))

    def _pinned(self, job: Job, lease: Lease) -> Model:
        """The pair that serves now, or the one that an earlier attempt began with."""
        if job.bundle_id is None:
            serving = self._registry.serving()
            job = self._store.pin(lease, serving.bundle.bundle_id, serving.snapshot.snapshot_id)
        return self._registry.pair(str(job.bundle_id), str(job.snapshot_id))

    def _read_metadata(self, job: Job, lease: Lease, upload: Path, model: Model) -> tuple[Job, FileShape]:
        """Fills in what was left open at the upload because the file is large."""
        shape = FileShape.from_parameters(job.parameters["shape"])
        if job.rows_total is not None:
            return job, shape
        filename, size = str(job.parameters["filename"]), int(job.parameters["size"])
        if not shape.header:
            shape = describe_upload(upload, filename)
            check_header(shape, model.snapshot)
        counts = count_rows(upload, shape)
        return self._store.record_metadata(lease, file_metadata(filename, size, shape, counts), counts.rows), shape

    def _write_result(
        self,
        upload: Path,
        shape: FileShape,
        result_format: str,
        key: str,
        model: Model,
        rows_total: int | None,
        lease: Lease,
    ) -> "Tally":
        header = result_header(shape.header, result_columns(model.snapshot.targets))
        tally = Tally()
        with self._objects.create(key) as path, open_result(path, result_format, header) as writer:
            for rows in read_rows(upload, shape, self._rows_per_slice):
                answered = answer_rows(model.snapshot, model.version, ids_of(rows, shape))
                writer.write(rows, answered.columns)
                tally.add(answered)
                self._store.record_progress(lease, tally.progress(rows_total))
        return tally


class Tally:
    """Counts rows as they are done, and remembers which customers they were."""

    def __init__(self) -> None:
        self._processed = 0
        self._successful = 0
        self._positions: list[npt.NDArray[np.int64]] = []

    def add(self, answered: Answered) -> None:
        """The next rows."""
        self._processed += len(answered.positions)
        self._successful += answered.successful
        self._positions.append(np.unique(answered.positions[answered.positions >= 0]))

    def progress(self, total: int | None) -> Progress:
        """Row by row."""
        return Progress(total, self._processed, self._successful, self._processed - self._successful)

    def statistics(self, model: Model) -> Mapping[str, Any]:
        """Money over distinct customers, however often each is in the file; None where there is no customer."""
        seen = np.zeros(model.snapshot.n_customers, dtype=bool)
        for positions in self._positions:
            seen[positions] = True
        customers = np.flatnonzero(seen)
        together = sum_spend(model.snapshot, model.bundle.content["sums"], customers)
        intervals = together.intervals
        cents = np.rint(model.snapshot.money(customers)[0][:, 0] * CENTS).astype(np.int64)
        some = len(cents) > 0
        return {
            "total_predicted_spend": together.money[TOTAL_TARGET],
            "total_predicted_spend_lower": intervals[TOTAL_TARGET]["lower"],
            "total_predicted_spend_upper": intervals[TOTAL_TARGET]["upper"],
            "per_target": {
                name: {"predicted_spend": money, **intervals[name]}
                for name, money in together.money.items()
                if name != TOTAL_TARGET
            },
            "average_predicted_spend": round(int(cents.sum()) / CENTS / len(cents), 2) if some else None,
            "min_predicted_spend": int(cents.min()) / CENTS if some else None,
            "max_predicted_spend": int(cents.max()) / CENTS if some else None,
            "currency": model.snapshot.currency,
            "rows": self._processed,
            "rows_failed": self._processed - self._successful,
            "distinct_customers": len(cents),
            "model_version": model.version,
            "as_of": model.as_of.isoformat(),
        }
