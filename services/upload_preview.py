"""What would be made of a file, without starting a job: how it is read, what its ids look like, who of them is known."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.cells import text_of
from ml_pipeline.customer_files import cheap_to_count, ids_of
from ml_pipeline.file_shape import FileShape
from ml_pipeline.schema import MAX_ID_LENGTH
from ml_pipeline.snapshot import Snapshot
from services.uploads import IdCounts, UploadLimits, file_metadata, opened

SHOWN_ROWS = 5
SHOWN_IDS = 10
SAMPLED_IDS = 1000
LONGEST_SHOWN = 200  # of a cell, in characters


def preview_of(
    path: Path, filename: str, sheet: str | None, limits: UploadLimits, snapshot: Snapshot | None
) -> dict[str, Any]:
    """By the names that the API documents; snapshot: of whom is known, None where no model serves.

    Raises what an upload of the file would raise, as far as it is looked at.
    """
    size = path.stat().st_size
    limits.check_size(size)
    is_whole = cheap_to_count(path)
    shape, batches = opened(path, filename, sheet, limits, snapshot)
    look = _Look(shape, snapshot)
    for rows in batches if is_whole else islice(batches, 1):
        look.add(rows)
    counts = look.ids.counts() if is_whole else None
    found = look.found()
    return {
        **file_metadata(filename, size, shape, counts),
        **found,
        "warnings": _warnings(shape, snapshot, found, is_whole),
    }


class _Look:
    """What some rows of a file have shown so far."""

    def __init__(self, shape: FileShape, snapshot: Snapshot | None) -> None:
        self.ids = IdCounts()
        self._shape = shape
        self._snapshot = snapshot
        self._first_rows: list[list[str]] = []
        self._unknown: dict[str, None] = {}
        self._rows_unknown = 0

    def add(self, rows: pa.RecordBatch) -> None:
        """The next rows."""
        ids = ids_of(rows, self._shape)
        self.ids.add(ids)
        if not self._first_rows:
            self._first_rows = _as_text(rows.slice(0, SHOWN_ROWS))
        if self._snapshot is not None:
            unknown = ids.filter(_unknown(ids, self._snapshot))
            self._rows_unknown += len(unknown)
            self._unknown |= dict.fromkeys(pc.unique(unknown).to_pylist())

    def found(self) -> dict[str, Any]:
        """What the rows so far have shown."""
        counts = self.ids.counts()
        duplicates = self.ids.rows - self.ids.empty - counts.customers
        return {
            "checked_rows": self.ids.rows,
            "duplicate_rows": duplicates,
            "empty_ids": self.ids.empty,
            "unknown_ids": None if self._snapshot is None else self._unknown_ids(),
            "first_rows": self._first_rows,
        }

    def _unknown_ids(self) -> dict[str, Any]:
        first = [one[:LONGEST_SHOWN] for one in list(self._unknown)[:SHOWN_IDS]]
        return {"count": len(self._unknown), "first": first, "of_rows": self._rows_unknown}


def _unknown(ids: pa.Array, snapshot: Snapshot) -> pa.Array:
    """Which of these rows name somebody who is not known; a row without an id names nobody. bool (n,)."""
    searched = pc.if_else(pc.greater(pc.utf8_length(ids), MAX_ID_LENGTH), "", ids)
    nobody = pa.array(np.less(snapshot.positions(searched.to_pylist()), 0))
    return pc.and_(nobody, pc.not_equal(ids, ""))


def _as_text(rows: pa.RecordBatch) -> list[list[str]]:
    columns = [[cell[:LONGEST_SHOWN] for cell in text_of(column).to_pylist()] for column in rows.columns]
    return [list(row) for row in zip(*columns, strict=True)]


def _warnings(shape: FileShape, snapshot: Snapshot | None, found: Mapping[str, Any], is_whole: bool) -> list[str]:
    checked = int(found["checked_rows"])
    rows = f"{checked:,} rows" if is_whole else f"the first {checked:,} rows"
    said = []
    if not is_whole:
        said.append(f"The file is large: only {rows} were looked at.")
    if not shape.id_column_by_name:
        name = shape.header[shape.id_column]
        said.append(f"No column is called customer_id, so the first column, {name[:40]!r}, is taken for the ids.")
    if len(shape.sheets) > 1:
        said.append(
            f"The workbook has {len(shape.sheets)} sheets; {shape.sheet!r} is read. Choose another with ?sheet=."
        )
    if found["empty_ids"]:
        said.append(f"{found['empty_ids']:,} of {rows} have no id; they will be marked as failed.")
    if found["duplicate_rows"]:
        said.append(
            f"{found['duplicate_rows']:,} of {rows} name a customer once more. Every row is answered; sums count each "
            "customer once."
        )
    return [*said, *_of_unknown(snapshot, found, rows)]


def _of_unknown(snapshot: Snapshot | None, found: Mapping[str, Any], rows: str) -> list[str]:
    if snapshot is None:
        return ["No model can serve now, so that nobody knows which of the ids are known: GET /health says why."]
    unknown = found["unknown_ids"]["of_rows"]
    if not unknown:
        return []
    shortened = _shortened(found["unknown_ids"]["first"], snapshot)
    if shortened is not None:
        lost, whole = shortened
        return [
            f"{unknown:,} of {rows} name customers that are not known, but some would be with zeros in front: {lost} as "
            f"{whole}. A spreadsheet takes them away from numbers: give the column the format Text before the ids go in."
        ]
    if unknown == found["checked_rows"] - found["empty_ids"]:
        return [
            f"None of the ids in {rows} is known. Is this the column of the ids? It must hold the same ids as the tables "
            f"that the model was trained on (as of {snapshot.as_of.isoformat()})."
        ]
    return [f"{unknown:,} of {rows} name customers that are not known; they will be marked as failed."]


def _shortened(unknown: Sequence[str], snapshot: Snapshot) -> tuple[str, str] | None:
    """The first of these ids that would be known with zeros in front, and that id; None where there is none."""
    some = snapshot.customer_ids(range(min(SAMPLED_IDS, snapshot.n_customers)))
    lengths = sorted({len(one) for one in some if one.isdecimal() and one.startswith("0")})
    tried = [(one, one.zfill(length)) for one in unknown if one.isdecimal() for length in lengths if length > len(one)]
    known = snapshot.positions([whole for _lost, whole in tried]) >= 0
    return next((pair for pair, is_known in zip(tried, known, strict=True) if is_known), None)
