"""The bytes below a column of texts, to see in one sweep whether any text needs more than to be copied.

Texts are pa.string() or pa.large_string(), in UTF-8: a byte below 128 is always a sign of its own.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]


def bytes_of(texts: pa.Array) -> Bytes:
    """All texts one after the other, without a copy."""
    ends, values = _ends_and_values(texts)
    return values[ends[0] : ends[-1]]


def holds_any(texts: pa.Array, signs: bytes) -> bool:
    """Whether one of these ASCII signs is in any of the texts."""
    text = bytes_of(texts)
    return any(bool((text == sign).any()) for sign in signs)


def first_bytes(texts: pa.Array) -> Bytes:
    """The first byte of each text, (n,); 0 for an empty one."""
    ends, values = _ends_and_values(texts)
    return _picked(values, ends[:-1], ends[1:] > ends[:-1])


def last_bytes(texts: pa.Array) -> Bytes:
    """The last byte of each text, (n,); 0 for an empty one."""
    ends, values = _ends_and_values(texts)
    return _picked(values, ends[1:] - 1, ends[1:] > ends[:-1])


def _picked(values: Bytes, at: npt.NDArray[np.int64], there: npt.NDArray[np.bool_]) -> Bytes:
    if not there.any():
        return np.zeros(len(at), dtype=np.uint8)
    picked: Bytes = np.where(there, values[np.where(there, at, 0)], 0).astype(np.uint8)
    return picked


def _ends_and_values(texts: pa.Array) -> tuple[npt.NDArray[np.int64], Bytes]:
    _validity, offsets, values = texts.buffers()
    if not len(texts):
        return np.zeros(1, dtype=np.int64), np.empty(0, dtype=np.uint8)
    kind = np.int64 if pa.types.is_large_string(texts.type) else np.int32
    ends = np.frombuffer(offsets, dtype=kind)[texts.offset : texts.offset + len(texts) + 1]
    return ends.astype(np.int64, copy=False), np.frombuffer(values or b"", dtype=np.uint8)
