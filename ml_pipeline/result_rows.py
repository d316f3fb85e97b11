"""From uploaded rows to result rows: the customer-id column, ids as they are looked up, answers beside the cells, CSV text.

The bulk job and the command line both use it, so that they give the same columns and the same numbers.
"""

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.schema import MAX_ID_LENGTH, NULL_TEXT, OUTER_WHITESPACE, SPREADSHEET_INTEGER
from ml_pipeline.snapshot import Snapshot, result_columns

ID_COLUMN = "customerid"
"""What the id column is called once case and everything but letters and digits are set aside."""
SUCCESS = "success"
FAILED = "failed"
PLAIN_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?$"
FORMULA_START = r"^[=+\-@\t\r]"
"""Text that a spreadsheet would run when it opens the file (CWE-1236), unless it is a plain number."""
PLAIN = np.isin(np.arange(256), np.frombuffer((string.ascii_letters + string.digits + "_-").encode(), np.uint8))
"""Which bytes are a sign of an id that is looked up as it is written."""
LONGEST_NULL = 4
"""Signs of the longest text that means nothing and has only plain signs."""
NEEDS_QUOTES = '[",\r\n]'


@dataclass(frozen=True)
class IdColumn:
    """Which column holds the customer ids: its position from 0, its header, and whether it was found by its name."""

    index: int
    name: str
    by_name: bool


def find_id_column(header: Sequence[str]) -> IdColumn:
    """The first column called customer_id in any case and spelling ("Customer ID", CustomerID, customer-id), else the first."""
    for index, name in enumerate(header):
        if re.sub(r"[^a-z0-9]", "", name.lower()) == ID_COLUMN:
            return IdColumn(index, name, True)
    return IdColumn(0, header[0], False)


def lookup_ids(cells: pa.Array) -> pa.Array:
    """Cells as the ids that are looked up: `schema.canonical_id`, vectorised. '' for nothing. string -> string."""
    if _are_plain(cells):
        return cells
    ids = pc.replace_substring_regex(cells, OUTER_WHITESPACE, "")
    ids = pc.replace_substring_regex(ids, NULL_TEXT, "")
    return pc.replace_substring_regex(ids, SPREADSHEET_INTEGER, r"\1")


def _are_plain(cells: pa.Array) -> bool:
    """Whether all are ids of nothing but PLAIN signs, and longer than any text that means nothing: most files' ids."""
    if cells.null_count or not pa.types.is_string(cells.type) or not len(cells):
        return False
    _validity, offsets, values = cells.buffers()
    ends = np.frombuffer(offsets, np.int32)[cells.offset : cells.offset + len(cells) + 1]
    if np.diff(ends).min() <= LONGEST_NULL:
        return False
    return bool(PLAIN[np.frombuffer(values, np.uint8)[ends[0] : ends[-1]]].all())


@dataclass(frozen=True)
class Answered:
    """Answers to n rows: the added columns in their order, and the snapshot row of each, -1 where there is none."""

    columns: pa.RecordBatch
    positions: npt.NDArray[np.int64]

    @property
    def successful(self) -> int:
        """Rows with a prediction."""
        return int((self.positions >= 0).sum())


def answer_rows(snapshot: Snapshot, model_version: str, ids: pa.Array) -> Answered:
    """The columns `snapshot.result_columns` for each looked-up id; a failed row has only `status` and `error`."""
    too_long = pc.greater(pc.utf8_length(ids), MAX_ID_LENGTH)
    positions = snapshot.positions(pc.if_else(too_long, "", ids).to_pylist())
    known = pa.array(positions >= 0)
    answers = snapshot.columns(np.maximum(positions, 0)) if snapshot.n_customers else {}
    nothing = pa.nulls(len(ids))

    def column(name: str) -> pa.Array:
        if name == "status":
            return pc.if_else(known, SUCCESS, FAILED)
        if name == "error":
            return _errors(ids, too_long, known, snapshot)
        if name in ("currency", "model_version"):
            return pc.if_else(known, model_version if name == "model_version" else snapshot.currency, None)
        return pc.if_else(known, pa.array(answers[name]), None) if answers else nothing.cast(_type_of(name))

    names = result_columns(snapshot.targets)
    return Answered(pa.record_batch([column(name) for name in names], names=list(names)), positions)


def failed_rows(targets: Sequence[str], rows: int, error: str) -> pa.RecordBatch:
    """The same columns for so many rows that could not be answered, with the reason in each."""

    def column(name: str) -> pa.Array:
        if name in ("status", "error"):
            return pa.repeat(FAILED if name == "status" else error, rows)
        return pa.nulls(rows, _type_of(name))

    names = result_columns(targets)
    return pa.record_batch([column(name) for name in names], names=list(names))


def _type_of(name: str) -> pa.DataType:
    return pa.string() if name in ("segment", "currency", "model_version") else pa.float64()


def _errors(ids: pa.Array, too_long: pa.Array, known: pa.Array, snapshot: Snapshot) -> pa.Array:
    unknown = f"UnknownCustomer: this id is not among the customers known on {snapshot.as_of.isoformat()}"
    empty = "EmptyCustomerId: the row has no customer id"
    long = f"UnknownCustomer: ids have at most {MAX_ID_LENGTH} characters"
    absent = pc.if_else(pc.equal(ids, ""), empty, pc.if_else(too_long, long, unknown))
    return pc.if_else(known, None, absent)


def result_header(uploaded: Sequence[str], added: Sequence[str]) -> list[str]:
    """The uploaded column names, then the added ones; an uploaded one that clashes becomes `uploaded_<name>`."""
    taken = {*uploaded, *added}
    header = []
    for name in uploaded:
        kept = name
        if name in added:
            kept = f"uploaded_{name}"
            while kept in taken:
                kept = f"uploaded_{kept}"
            taken.add(kept)
        header.append(kept)
    return [*header, *added]


def without_formulas(cells: pa.Array) -> pa.Array:
    """Text cells with a ' before those that a spreadsheet would run as a formula; plain numbers stay. Same type back."""
    risky = pc.match_substring_regex(cells, FORMULA_START)
    if not pc.any(risky).as_py():
        return cells
    risky = pc.and_not(risky, pc.match_substring_regex(cells, PLAIN_NUMBER))
    return pc.if_else(risky, _join("'", cells), cells)


def neutral_text(text: str) -> str:
    """`without_formulas` for one text."""
    return f"'{text}" if re.match(FORMULA_START, text) and not re.match(PLAIN_NUMBER, text) else text


def write_csv_header(stream: BinaryIO, header: Sequence[str]) -> None:
    """The first line of a CSV: UTF-8, commas, quotes only where needed, lines end in a line feed."""
    _write_lines(stream, [pa.array([name]) for name in header])


def write_csv_rows(stream: BinaryIO, columns: Sequence[pa.Array]) -> None:
    """Rows, given as their columns, as CSV lines; null is an empty cell."""
    if len(columns[0]):
        _write_lines(stream, columns)


def _write_lines(stream: BinaryIO, columns: Sequence[pa.Array]) -> None:
    texts = [_as_csv_text(column) for column in columns]
    if len(texts) == 1:  # a blank line would be no row at all
        texts = [pc.if_else(pc.equal(texts[0], _text("")), _text('""'), texts[0])]
    lines = _join(texts[0], *(part for text in texts[1:] for part in (",", text)), "\n")
    stream.write(_bytes_of(lines))


def _as_csv_text(column: pa.Array) -> pa.Array:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    text = pc.fill_null(column.cast(pa.large_string()), "")
    if not is_text:
        return text
    text = without_formulas(text)
    special = pc.match_substring_regex(text, NEEDS_QUOTES)
    if not pc.any(special).as_py():
        return text
    return pc.if_else(special, _join('"', pc.replace_substring(text, '"', '""'), '"'), text)


def _join(*parts: pa.Array | str) -> pa.Array:
    """The parts of each row one after the other; a str is the same in every row."""
    kind = next(part.type for part in parts if not isinstance(part, str))
    same = [pa.scalar(part, kind) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*same, pa.scalar("", kind))


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())


def _bytes_of(texts: pa.Array) -> memoryview:
    """The texts one after the other, without a copy: the value buffer of the array between its first and last offset."""
    _validity, offsets, values = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(values)[int(ends[0]) : int(ends[-1])]
