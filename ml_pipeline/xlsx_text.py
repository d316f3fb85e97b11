"""Text as the XML of a worksheet has it (ECMA-376, ST_Xstring): markup escaped, and as _xHHHH_ what XML cannot hold.

Null is no cell and stays null. All arrays are pa.large_string().
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.errors import DoesNotFitXlsx
from ml_pipeline.text_bytes import bytes_of, first_bytes, holds_any, last_bytes

XLSX_CELL = 32_767
"""Characters of a cell, as Excel counts them: units of UTF-16."""
MARKUP = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
LOOKS_ESCAPED = "_x[0-9A-Fa-f]{4}_"
BEYOND_XML = ("\ufffe", "\uffff")
WHITESPACE = np.frombuffer(b"\t\n\r ", dtype=np.uint8)


def inline_text(texts: pa.Array) -> pa.Array:
    """The texts, escaped."""
    if b"_x" in bytes(bytes_of(texts)):
        escaped = pc.match_substring_regex(texts, LOOKS_ESCAPED)
        texts = pc.if_else(escaped, pc.replace_substring(texts, "_x", "_x005F_x"), texts)
    for sign in _out_of_place(texts):
        texts = pc.replace_substring(texts, sign, f"_x{ord(sign):04X}_")
    for sign, entity in MARKUP.items():
        if holds_any(texts, sign.encode()):
            texts = pc.replace_substring(texts, sign, entity)
    return texts


def _out_of_place(texts: pa.Array) -> list[str]:
    """The signs that XML 1.0 cannot hold or, a carriage return, does not keep."""
    text = bytes_of(texts)
    controls = np.unique(text[text < ord(" ")]) if len(text) else text
    beyond = BEYOND_XML if holds_any(texts, b"\xef") else ()
    return [chr(code) for code in controls if chr(code) not in "\t\n"] + list(beyond)


def outer_space(texts: pa.Array) -> pa.Array | None:
    """Which texts begin or end with white space, which a reader may drop unless told not to; None if none does."""
    at_end = np.isin(first_bytes(texts), WHITESPACE) | np.isin(last_bytes(texts), WHITESPACE)
    return pa.array(at_end) if at_end.any() else None


def check_lengths(texts: pa.Array, first_row: int) -> None:
    """Raises DoesNotFitXlsx if a text is longer than a cell holds. first_row: the number in the sheet of the first."""
    long = pc.fill_null(pc.greater(pc.binary_length(texts), XLSX_CELL), False)
    for index in np.flatnonzero(long.to_numpy(zero_copy_only=False)):
        characters = len(texts[int(index)].as_py().encode("utf-16-le")) // 2
        if characters > XLSX_CELL:
            raise DoesNotFitXlsx(
                f"A cell of row {first_row + int(index):,} has {characters:,} characters, an Excel cell holds "
                f"{XLSX_CELL:,}. Download the CSV instead."
            )
