"""Whether all of an upload can be read while its sender waits."""

import os
import zipfile
from pathlib import Path

from ml_pipeline.file_kind import GZIP_MAGIC, OLE_MAGIC, PARQUET_MAGIC, ZIP_MAGIC

FILE_BYTES = 20_000_000
OLD_WORKBOOK_BYTES = 8_000_000
UNPACKED_BYTES = 64_000_000
"""What a packed file of that kind declares to hold. A file that lies about it meets the limits of its reader."""


def is_cheap(path: Path) -> bool:
    """A matter of a second or two, by its size and what it declares."""
    size = path.stat().st_size
    if size > FILE_BYTES:
        return False
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(ZIP_MAGIC):
        return _archive_bytes(path) <= UNPACKED_BYTES
    if start.startswith(GZIP_MAGIC):
        return _gzip_bytes(path) <= UNPACKED_BYTES
    return not start.startswith((OLE_MAGIC, PARQUET_MAGIC)) or size <= OLD_WORKBOOK_BYTES


def _archive_bytes(path: Path) -> int:
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return 0


def _gzip_bytes(path: Path) -> int:
    """The last four bytes of a gzip file are its unpacked size, modulo 2 to the 32."""
    with path.open("rb") as stream:
        stream.seek(-min(4, path.stat().st_size), os.SEEK_END)
        return int.from_bytes(stream.read(4), "little")
