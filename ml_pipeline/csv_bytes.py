"""The bytes of a CSV as plain UTF-8, whatever it is packed and encoded in; never more of it in memory than one block."""

import codecs
import gzip
import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from ml_pipeline.errors import DamagedFile, UnpacksTooLarge, UnreadableFile
from ml_pipeline.file_shape import GZIP

UNPACKED_LIMIT = 4 << 30
"""Bytes of a compressed CSV once it is unpacked."""
BLOCK_BYTES = 1 << 20


def open_packed(path: Path, compression: str | None, limit: int = UNPACKED_LIMIT) -> BinaryIO:
    """The bytes of a file, unpacked where it is compressed. Reading raises DamagedFile and UnpacksTooLarge."""
    if compression != GZIP:
        return path.open("rb")
    return cast(BinaryIO, io.BufferedReader(_Unpacked(path, limit), BLOCK_BYTES))


def open_utf8(path: Path, compression: str | None, encoding: str, limit: int = UNPACKED_LIMIT) -> BinaryIO:
    """A CSV's text as UTF-8 without a byte order mark.

    Reading raises DamagedFile and UnpacksTooLarge, and UnreadableFile for bytes that are not of this encoding.
    """
    return cast(BinaryIO, io.BufferedReader(_Utf8(open_packed(path, compression, limit), encoding), BLOCK_BYTES))


class _Unpacked(io.RawIOBase):
    """A gzip file that is unpacked while it is read."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = gzip.GzipFile(path)
        self._limit = limit
        self._seen = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            count = self._file.readinto(memoryview(buffer))
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise DamagedFile(
                "The gzip file is cut off or damaged: it cannot be unpacked to its end. Pack it again and send it once more."
            ) from None
        self._seen += count
        if self._seen > self._limit:
            raise UnpacksTooLarge(
                f"The gzip file unpacks to more than {self._limit >> 20:,} MB, which is the most that is taken. Split it."
            )
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


class _Utf8(io.RawIOBase):
    """Recodes and checks text block by block."""

    def __init__(self, packed: BinaryIO, encoding: str) -> None:
        self._packed = packed
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        target = memoryview(buffer)
        while not self._left:
            block = self._packed.read(BLOCK_BYTES)
            self._left = self._recoded(block)
            if not block:
                break
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _recoded(self, block: bytes) -> bytes:
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError:
            raise UnreadableFile(
                f"The text is not {self._encoding} throughout. Save it as UTF-8 and send it again."
            ) from None
        if "\0" in text:
            raise UnreadableFile(
                "The text has a NUL character, which no text of a table has: the file is damaged or not a CSV. "
                "Export it again."
            )
        return block if self._encoding == "utf-8" else text.encode()

    def close(self) -> None:
        self._packed.close()
        super().close()
