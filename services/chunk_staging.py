"""The reading of an upload: from the file to staged chunks that any worker can score."""

import time
from collections.abc import Callable
from pathlib import Path

from ml_pipeline.customer_files import RowCounts, ids_of, read_rows
from ml_pipeline.errors import NoDataRows
from ml_pipeline.file_shape import FileShape
from services.dispatcher import Dispatcher
from services.job_files import chunk_key, write_chunk
from services.job_table import SCORE, Lease, Step
from services.object_store import ObjectStore
from services.step_store import StepStore
from services.uploads import IdCounts, UploadLimits

CELLS_PER_CHUNK = 2_000_000
"""A chunk of a wide file has fewer rows, so that it fits in memory like one of a narrow file."""
SECONDS_PER_NOTE = 0.5


def rows_of_a_chunk(shape: FileShape, at_most: int) -> int:
    """How many rows a chunk of such a file has."""
    return max(1, min(at_most, CELLS_PER_CHUNK // max(1, len(shape.header))))


class ChunkStaging:
    """Stages the chunks of one upload in order; a reading that is done anew writes only those that are not there yet."""

    def __init__(
        self, lease: Lease, staged: list[Step], steps: StepStore, objects: ObjectStore, dispatcher: Dispatcher
    ) -> None:
        self._lease = lease
        self._steps = steps
        self._objects = objects
        self._dispatcher = dispatcher
        self._staged = {step.number: step for step in staged}

    def stage_all(
        self, upload: Path, shape: FileShape, rows_per_chunk: int, limits: UploadLimits, counted: RowCounts | None
    ) -> RowCounts:
        """Reads to the end and returns the counts of all rows; `counted`: these, where they are known.

        Raises LeaseLost, TooManyRows, a CustomerFileError, and what the stores raise.
        """
        # a reading that is done anew cuts as the first one did, whatever is set here
        rows_per_chunk = self._staged[1].rows if 1 in self._staged else rows_per_chunk
        seen = RowsSeen(lambda rows: self._steps.note_rows_read(self._lease, rows), limits)
        ids, first_row = IdCounts(), 0
        for number, rows in enumerate(read_rows(upload, shape, rows_per_chunk, seen), start=1):
            if number not in self._staged:
                key = chunk_key(self._lease.job_id, number, self._lease.fence)
                with self._objects.create(key) as path:
                    write_chunk(path, rows)
                self._steps.stage(self._lease, number, first_row, rows.num_rows, key)
                self._dispatcher.send(self._lease.job_id, SCORE)
            first_row += rows.num_rows
            seen(first_row)
            if counted is None:
                ids.add(ids_of(rows, shape))
        if not first_row:
            raise NoDataRows("The file has a header and no row below it. Add one row per customer.")
        return counted or ids.counts()


class RowsSeen:
    """Called with how many rows were seen so far: notes it now and then, and stops a file that has too many."""

    def __init__(self, note: Callable[[int], None], limits: UploadLimits) -> None:
        self._note = note
        self._limits = limits
        self._noted_at: float | None = None

    def __call__(self, rows: int) -> None:
        """Raises TooManyRows, and what noting raises."""
        self._limits.check_rows(rows, are_all=False)
        now = time.monotonic()
        if self._noted_at is None or now - self._noted_at >= SECONDS_PER_NOTE:
            self._note(rows)
            self._noted_at = now
