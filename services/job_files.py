"""How the files of a job are written and read: chunks, positions and a shape that the upload did not know."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_pipeline.file_shape import FileShape
from services.job_keys import shape_key
from services.job_table import Job
from services.object_store import ObjectStore, named_failures

Positions = npt.NDArray[np.int64]


def shape_of(job: Job, objects: ObjectStore) -> FileShape:
    """How the job's upload is to be read: as recorded at the upload or, for a large workbook, by its reading."""
    shape = FileShape.from_parameters(job.parameters["shape"])
    if shape.header:
        return shape
    with objects.local(shape_key(job.job_id)) as path:
        return FileShape.from_parameters(json.loads(path.read_text("utf-8")))


def keep_shape(job_id: str, shape: FileShape, objects: ObjectStore) -> None:
    """For those who come later."""
    with objects.create(shape_key(job_id)) as path:
        path.write_text(json.dumps(shape.as_parameters()), "utf-8")


def write_chunk(path: Path, rows: pa.RecordBatch) -> None:
    """Rows as an Arrow file."""
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, rows.schema) as writer:
        writer.write_batch(rows)


def read_chunk(path: Path) -> pa.RecordBatch:
    """Rows that `write_chunk` wrote, in memory. Raises ObjectStoreUnavailable."""
    with named_failures(), pa.OSFile(str(path), "rb") as stream, pa.ipc.open_file(stream) as reader:
        return reader.get_batch(0)


def write_positions(path: Path, positions: Positions) -> None:
    """int64 (n,)."""
    with path.open("wb") as stream:
        np.save(stream, positions)


def read_positions(path: Path) -> Positions:
    """What `write_positions` wrote. Raises ObjectStoreUnavailable."""
    with named_failures():
        loaded: Positions = np.load(path)
        return loaded
