"""The reading of an upload: from the file to staged chunks that any worker can score."""

import time
from collections.abc import Iterable, Sequence

import pyarrow as pa

from ml_pipeline.customer_files import RowCounts, ids_of
from ml_pipeline.file_shape import FileShape
from services.dispatcher import Dispatcher
from services.job_files import write_chunk
from services.job_keys import chunk_key
from services.job_table import SCORE, Lease, Step
from services.object_store import ObjectStore
from services.step_store import StepStore
from services.uploads import IdCounts

CELLS_PER_CHUNK = 2_000_000
"""A chunk of a wide file has fewer rows, so that it fits in memory like one of a narrow file."""
SECONDS_PER_NOTE = 0.5


class ChunkStaging:
    """Stages the chunks of one upload in order; a reading that is done anew writes only those that are not there yet."""

    def __init__(
        self, lease: Lease, staged: Sequence[Step], steps: StepStore, objects: ObjectStore, dispatcher: Dispatcher
    ) -> None:
        self._lease = lease
        self._steps = steps
        self._objects = objects
        self._dispatcher = dispatcher
        self._staged = {step.number: step for step in staged}
        self._noted_at: float | None = None

    def rows_per_chunk(self, columns: int, at_most: int) -> int:
        """How many rows a chunk of a file of so many columns has: as many as the first one has, if it is staged already."""
        if 1 in self._staged:
            return self._staged[1].rows
        return max(1, min(at_most, CELLS_PER_CHUNK // max(1, columns)))

    def saw(self, rows: int) -> None:
        """So many rows were seen so far, which is noted now and then. Raises LeaseLost."""
        now = time.monotonic()
        if self._noted_at is None or now - self._noted_at >= SECONDS_PER_NOTE:
            self._steps.note_rows_read(self._lease, rows)
            self._noted_at = now

    def stage_all(self, batches: Iterable[pa.RecordBatch], shape: FileShape, counted: RowCounts | None) -> RowCounts:
        """Reads to the end and returns the counts of all rows; `counted`: these, where they are known.

        Raises LeaseLost, what reading the batches raises, and what the stores raise.
        """
        ids, first_row = IdCounts(), 0
        for number, rows in enumerate(batches, start=1):
            if number not in self._staged:
                self._stage(number, first_row, rows)
            first_row += rows.num_rows
            if counted is None:
                ids.add(ids_of(rows, shape))
        return counted or ids.counts()

    def _stage(self, number: int, first_row: int, rows: pa.RecordBatch) -> None:
        key = chunk_key(self._lease.job_id, number, self._lease.fence)
        with self._objects.create(key) as path:
            write_chunk(path, rows)
        self._steps.stage(self._lease, number, first_row, rows.num_rows, key)
        self._dispatcher.send(self._lease.job_id, SCORE, number=number)
