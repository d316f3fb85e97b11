"""What the files of a job are called in the object store. Light to import: the watchdog removes some of them.

`<job>/upload.<ext>`, `chunks/` (staged rows), `parts/` (rows with answers), `result-<fence>.<format>`, `customers-<fence>.npy`;
of sample tables `sample-<fence>/sample_data.zip`.
What a step writes has the step's fence in its key: whoever lost the lease can overwrite nothing of his successor's.
"""

import re
from typing import TYPE_CHECKING

from services.object_store import ObjectStore

if TYPE_CHECKING:
    from ml_pipeline.file_shape import FileShape


def upload_key(job_id: str, shape: "FileShape") -> str:
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
    folder, fence = re.fullmatch(r"(.*)/result-(\d+)\.\w+", result).groups()  # type: ignore[union-attr]
    return f"{folder}/customers-{fence}.npy"


def converted_key(parent_id: str, conversion_id: str, fence: int, result_format: str) -> str:
    """The result in another format than the upload's."""
    return f"{parent_id}/converted-{conversion_id}-{fence}.{result_format}"


def sample_folder(job_id: str, fence: int) -> str:
    """Above what one attempt at sample tables has made."""
    return f"{job_id}/sample-{fence}"


def sample_key(job_id: str, fence: int) -> str:
    """The archive of sample tables."""
    return f"{sample_folder(job_id, fence)}/sample_data.zip"


def clear_chunks(objects: ObjectStore, job_id: str) -> None:
    """Removes what a result was made of."""
    objects.delete_below(chunks_folder(job_id))
    objects.delete_below(parts_folder(job_id))
