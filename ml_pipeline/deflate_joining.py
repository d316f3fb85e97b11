"""Pieces of one deflate stream that are made apart and joined without being unpacked, and the check sum of the whole.

A piece is raw deflate (RFC 1951) that ends with a full flush: on a byte, not final, and nothing after it refers to what came
before. So pieces of one text may be made by several processes and simply written one after the other (as pigz does).
"""

import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO

LEVEL = 1
"""The rows of a sheet are so alike that higher levels cost far more time than they save room."""

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31
_BYTE = 1 << 23
"""x^8: with the bits reversed as in this check sum, x^k is bit 31 - k."""


@dataclass(frozen=True)
class Checked:
    """What a zip says of some bytes before they were packed: their CRC-32 and how many they are."""

    crc32: int = 0
    length: int = 0

    def then(self, following: "Checked") -> "Checked":
        """Of these bytes with others after them.

        The first sum is moved past the others' length (multiplied by x^(8 length) modulo the polynomial) and added: the way
        of `crc32_combine` in zlib 1.2.12 and later (Mark Adler, crc32.c).
        """
        moved = _product(_power(following.length), self.crc32)
        return Checked(moved ^ following.crc32, self.length + following.length)


def checked(text: bytes | memoryview) -> Checked:
    """CRC-32 and length of these bytes."""
    return Checked(zlib.crc32(text), len(text))


def deflate_piece(texts: Iterable[bytes | memoryview], last: bool = False) -> tuple[bytes, Checked]:
    """One piece of the texts one after the other, and what was packed; the last piece ends the stream."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    packed = []
    total = Checked()
    for text in texts:
        packed.append(packer.compress(text))
        total = Checked(zlib.crc32(text, total.crc32), total.length + len(text))
    packed.append(packer.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH))
    return b"".join(packed), total


@contextmanager
def packed_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """A stream for the content of a file of the zip that is packed already, as its entry says: CRC, both sizes, method.

    `zipfile` has no way to take packed bytes. This does what its writer does, without the packing; the archive has other
    files too, each written before or after.
    """
    stream = archive.fp
    assert stream is not None, "the archive is open"
    stream.seek(archive.start_dir)
    entry.header_offset = archive.start_dir
    stream.write(entry.FileHeader())
    yield stream
    archive.start_dir = stream.tell()
    archive.filelist.append(entry)
    archive.NameToInfo[entry.filename] = entry


def _power(length: int) -> int:
    """x^(8 length) modulo the polynomial."""
    power, square = _ONE, _BYTE
    while length:
        if length & 1:
            power = _product(power, square)
        square = _product(square, square)
        length >>= 1
    return power


def _product(left: int, right: int) -> int:
    """Of two polynomials over GF(2), modulo that of CRC-32."""
    product, bit = 0, _ONE
    while bit:
        if left & bit:
            product ^= right
        right = right >> 1 ^ _POLYNOMIAL if right & 1 else right >> 1
        bit >>= 1
    return product
