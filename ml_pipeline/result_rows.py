"""From uploaded rows to result rows: the customer-id column, ids as they are looked up, answers beside the cells, CSV text.

The bulk job and the command line both use it, so that they give the same columns and the same numbers.
"""

import re
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.schema import MAX_ID_LENGTH, NULL_TEXT, OUTER_WHITESPACE, SPREADSHEET_INTEGER
from ml_pipeline.snapshot import Snapshot, result_columns
from ml_pipeline.text_bytes import bytes_of, first_bytes, holds_any

ID_COLUMN = "customerid"
"""What the id column is called once case and everything but letters and digits are set aside."""
SUCCESS = "success"
FAILED = "failed"
PLAIN_NUMBER = r"^[+-]?[0-9]+([.,][0-9]+)*([eE][+-]?[0-9]+)?$"
FORMULA_SIGNS = "=+-@\t\r"
"""Text that begins with one a spreadsheet would run when it opens the file (CWE-1236), unless it is a plain number."""
PLAIN = np.isin(np.arange(256), np.frombuffer((string.ascii_letters + string.digits + "_-").encode(), np.uint8))
"""Which bytes are a sign of an id that is looked up as it is written."""
LONGEST_NULL = 4
"""Signs of the longest text that means nothing and has only plain signs."""
NEEDS_QUOTES = ',"\r\n'


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
    if pc.min(pc.binary_length(cells)).as_py() <= LONGEST_NULL:
        return False
    return bool(PLAIN[bytes_of(cells)].all())


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
    """The columns `answer_types` for each looked-up id, string without nulls; a failed row has only `status` and `error`."""
    too_long = pc.greater(pc.utf8_length(ids), MAX_ID_LENGTH)
    searched = pc.if_else(too_long, "", ids) if pc.any(too_long).as_py() else ids
    positions = snapshot.positions(searched.to_pylist())
    failed = positions < 0
    answers: dict[str, npt.NDArray[Any]] = snapshot.columns(np.maximum(positions, 0)) if snapshot.n_customers else {}
    same = {"currency": snapshot.currency, "model_version": model_version}

    def column(name: str, kind: pa.DataType) -> pa.Array:
        if name == "status":
            return pc.if_else(pa.array(failed), FAILED, SUCCESS)
        if name == "error":
            return _errors(ids, too_long, failed, snapshot)
        if name in same:
            return pc.if_else(pa.array(failed), None, same[name])
        return pa.array(answers[name], kind, mask=failed) if answers else pa.nulls(len(ids), kind)

    return Answered(_batch(snapshot.targets, column), positions)


def failed_rows(targets: Sequence[str], rows: int, error: str) -> pa.RecordBatch:
    """The same columns for so many rows that could not be answered, with the reason in each."""
    told = {"status": FAILED, "error": error}

    def column(name: str, kind: pa.DataType) -> pa.Array:
        return pa.repeat(told[name], rows) if name in told else pa.nulls(rows, kind)

    return _batch(targets, column)


def answer_types(targets: Sequence[str]) -> pa.Schema:
    """The columns that a result adds to the uploaded ones, `snapshot.result_columns`: text and float64."""
    texts = {"segment", "currency", "model_version", "status", "error"}
    return pa.schema([(name, pa.string() if name in texts else pa.float64()) for name in result_columns(targets)])


def _batch(targets: Sequence[str], column: Callable[[str, pa.DataType], pa.Array]) -> pa.RecordBatch:
    types = answer_types(targets)
    return pa.record_batch([column(field.name, field.type) for field in types], schema=types)


def _errors(ids: pa.Array, too_long: pa.Array, failed: npt.NDArray[np.bool_], snapshot: Snapshot) -> pa.Array:
    """Why each failed row failed, null for the others."""
    unknown = f"UnknownCustomer: this id is not among the customers known on {snapshot.as_of.isoformat()}"
    empty = "EmptyCustomerId: the row has no customer id"
    long = f"UnknownCustomer: ids have at most {MAX_ID_LENGTH} characters"
    where = pa.array(failed)
    of_failed = pc.if_else(pc.equal(ids.filter(where), ""), empty, pc.if_else(too_long.filter(where), long, unknown))
    return pc.replace_with_mask(pa.nulls(len(ids), pa.string()), where, of_failed)


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
    starts = np.isin(first_bytes(cells), np.frombuffer(FORMULA_SIGNS.encode(), np.uint8))
    if not starts.any():
        return cells
    risky = pc.and_not(pa.array(starts), pc.match_substring_regex(cells, PLAIN_NUMBER))
    return pc.if_else(risky, _join("'", cells), cells)


def neutral_text(text: str) -> str:
    """`without_formulas` for one text."""
    return f"'{text}" if text.startswith(tuple(FORMULA_SIGNS)) and not re.fullmatch(PLAIN_NUMBER, text) else text


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
    stream.write(bytes_of(lines).data)


def _as_csv_text(column: pa.Array) -> pa.Array:
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    text = pc.fill_null(column.cast(pa.large_string()), "")
    if not is_text:
        return text
    text = without_formulas(text)
    if not holds_any(text, NEEDS_QUOTES.encode()):
        return text
    special = pc.match_substring_regex(text, f"[{NEEDS_QUOTES}]")
    return pc.if_else(special, _join('"', pc.replace_substring(text, '"', '""'), '"'), text)


def _join(*parts: pa.Array | str) -> pa.Array:
    """The parts of each row one after the other; a str is the same in every row."""
    kind = next(part.type for part in parts if not isinstance(part, str))
    same = [pa.scalar(part, kind) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*same, pa.scalar("", kind))


def _text(value: str) -> pa.Scalar:
    return pa.scalar(value, pa.large_string())
