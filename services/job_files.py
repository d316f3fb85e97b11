"""The files of a job in the object store: their keys, and how chunks, positions and a late shape are written and read.

`<job>/upload.<ext>`, `chunks/` (staged rows), `parts/` (rows with answers), `result-<fence>.<format>`, `customers-<fence>.npy`.
What a step writes has the step's fence in its key: whoever lost the lease can overwrite nothing of his successor's.
"""

import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_pipeline.file_shape import FileShape
from services.job_table import Job
from services.object_store import ObjectStore, named_failures

Positions = npt.NDArray[np.int64]


def upload_key(job_id: str, shape: FileShape) -> str:
    """The file as it came."""
    return f"{job_id}/upload.{shape.format}{'.gz' if shape.compression else ''}"


def shape_key(job_id: str) -> str:
    """The shape of a workbook that was too large to be opened at the upload. Every reading finds the same one."""
    return f"{job_id}/shape.json"


def chunks_folder(job_id: str) -> str:
    """Above all staged chunks."""
    return f"{job_id}/chunks"


def chunk_key(job_id: str, number: int, fence: int) -> str:
    """Staged rows; numbers from 1."""
    return f"{chunks_folder(job_id)}/{number:06d}-{fence}.arrow"


def parts_folder(job_id: str) -> str:
    """Above all parts and their positions."""
    return f"{job_id}/parts"


def part_key(job_id: str, number: int, fence: int, result_format: str) -> str:
    """The rows of a chunk with their answers, ready to be put together."""
    return f"{parts_folder(job_id)}/{number:06d}-{fence}.{result_format}"


def failed_part_key(job_id: str, number: int, fence: int, result_format: str) -> str:
    """The rows of a chunk that was given up; the fence is that of the step that puts the parts together."""
    return f"{parts_folder(job_id)}/{number:06d}-failed-{fence}.{result_format}"


def positions_key(part: str) -> str:
    """The snapshot positions of the distinct customers of a part."""
    return f"{part.rsplit('.', 1)[0]}.npy"


def result_key(job_id: str, fence: int, result_format: str) -> str:
    """The finished file."""
    return f"{job_id}/result-{fence}.{result_format}"


def customers_key(result: str) -> str:
    """The snapshot positions of the distinct customers of a result."""
    return re.sub(r"/result-(\d+)\.\w+$", r"/customers-\1.npy", result)


def converted_key(parent_id: str, conversion_id: str, fence: int, result_format: str) -> str:
    """The result in another format than the upload's."""
    return f"{parent_id}/converted-{conversion_id}-{fence}.{result_format}"


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
