"""The reasons for the served predictions of many customers: a file of customers in, one row per customer and reason out.

`python -m ml_pipeline.explain --models DIR --ids FILE --out FILE [--top 5]`

Explained is what the pair that serves answers, from the features in its snapshot; the tables are not needed. The format of
the output follows its ending: .csv, .xlsx or .parquet. Per customer and target the rows' amounts and the baseline add up to
the prediction.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml_pipeline.bundle import read_pointer
from ml_pipeline.command import run_command, thread_count
from ml_pipeline.customer_files import check_header, describe_upload, ids_of, read_rows
from ml_pipeline.predict import format_of
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.progress import Progress
from ml_pipeline.reasons import (
    ADJUSTMENT,
    ADJUSTMENT_WORDS,
    EVERYTHING_ELSE,
    EVERYTHING_ELSE_WORDS,
    NOT_BOUGHT_YET,
    NOT_BOUGHT_YET_WORDS,
    TOP,
    Reasons,
    explain_customers,
)
from ml_pipeline.result_files import PartFolder
from ml_pipeline.result_rows import FAILED, SUCCESS, answer_rows
from ml_pipeline.snapshot import CENTS, Snapshot, load_snapshot, money_columns

log = logging.getLogger(__name__)

CUSTOMERS_PER_SLICE = 1_000
"""Contributions take 8 bytes per customer, column of money and feature."""

ID = "customer_id"
COLUMNS = {
    "target": pa.string(),
    "rank": pa.int64(),
    "theme": pa.string(),
    "words": pa.string(),
    "amount": pa.float64(),
    "currency": pa.string(),
    "baseline": pa.float64(),
    "prediction": pa.float64(),
    "model_version": pa.string(),
    "status": pa.string(),
    "error": pa.string(),
}
"""What stands behind the customer's id in each row. A customer without a prediction has one row with status and error."""

IntArray = npt.NDArray[np.int64]
Cells = dict[str, npt.NDArray[np.object_]]


@dataclass(frozen=True)
class Explanation:
    """A written file: rows read, how many of them with a prediction, rows written."""

    customers: int
    successful: int
    rows: int


def explain_file(predictor: Predictor, snapshot: Snapshot, ids_file: Path, out_file: Path, top: int) -> Explanation:
    """Writes the reasons of the file's customers in its order, whole or not at all, in bounded memory.

    Raises CustomerFileError for a file that cannot be read, an ending that is not written, or more rows than fit.
    """
    result_format = format_of(out_file)
    shape = describe_upload(ids_file, ids_file.name)
    check_header(shape, snapshot)
    out_file.parent.mkdir(parents=True, exist_ok=True)
    customers = successful = 0
    with tempfile.TemporaryDirectory(dir=out_file.parent, prefix=f".{out_file.name}.") as staging:
        parts = PartFolder(Path(staging), result_format)
        for block in read_rows(ids_file, shape, CUSTOMERS_PER_SLICE):
            told = explain_rows(predictor, snapshot, ids_of(block, shape), top)
            parts.add(told.ids, told.columns)
            customers += block.num_rows
            successful += told.successful
        staged = Path(staging) / "result"
        parts.assemble(staged, [ID, *COLUMNS])
        os.replace(staged, out_file)
    return Explanation(customers, successful, parts.rows)


@dataclass(frozen=True)
class ToldRows:
    """Rows of the result: the customers' ids, the COLUMNS beside them, and of how many customers reasons are told."""

    ids: pa.RecordBatch
    columns: pa.RecordBatch
    successful: int


def explain_rows(predictor: Predictor, snapshot: Snapshot, ids: pa.Array, top: int) -> ToldRows:
    """The rows of some looked-up ids, in their order: several per known customer, one per unknown."""
    answered = answer_rows(snapshot, predictor.metadata.bundle_id, ids)
    known = np.flatnonzero(answered.positions >= 0)
    reasons = explain_customers(predictor, snapshot, answered.positions[known], top)
    told, customers = _told(reasons, money_columns(snapshot.targets))
    told["model_version"] = np.full(len(customers), predictor.metadata.bundle_id, dtype=object)
    failed = np.flatnonzero(answered.positions < 0)
    errors = answered.columns.column("error").to_numpy(zero_copy_only=False)[failed]
    refused = {"status": np.full(len(failed), FAILED, dtype=object), "error": errors}
    of_row = np.concatenate([known[customers], failed])
    order = np.argsort(of_row, kind="stable")
    columns = [
        pa.array(np.concatenate([_cells(told, name, len(customers)), _cells(refused, name, len(failed))])[order], kind)
        for name, kind in COLUMNS.items()
    ]
    named = pa.record_batch([ids.take(pa.array(of_row[order]))], names=[ID])
    return ToldRows(named, pa.record_batch(columns, names=list(COLUMNS)), len(known))


def _cells(cells: Cells, name: str, rows: int) -> npt.NDArray[np.object_]:
    return cells.get(name, np.full(rows, None, dtype=object))


def _told(reasons: Reasons, targets: Sequence[str]) -> tuple[Cells, IntArray]:
    """The cells of all rows that have reasons, and the customer of each row."""
    customer, column, place = np.nonzero(_has_row(reasons))
    cents = reasons.cents
    first = np.r_[True, (np.diff(customer) != 0) | (np.diff(column) != 0)] if len(customer) else np.empty(0, bool)
    starts = np.flatnonzero(first)
    rank = np.arange(len(customer)) - np.repeat(starts, np.diff(np.r_[starts, len(customer)])) + 1
    theme, words = _theme_and_words(reasons, customer, column, place)
    told: Cells = {
        "target": np.array(targets, dtype=object)[column],
        "rank": rank.astype(object),
        "theme": theme,
        "words": words,
        "amount": (cents[customer, column, place + 1] / CENTS).astype(object),
        "currency": np.full(len(customer), reasons.occasion.currency, dtype=object),
        "baseline": (cents[customer, column, 0] / CENTS).astype(object),
        "prediction": (reasons.served[customer, column] / CENTS).astype(object),
        "status": np.full(len(customer), SUCCESS, dtype=object),
    }
    return told, customer


def _has_row(reasons: Reasons) -> npt.NDArray[np.bool_]:
    """Which of the K reasons, everything else and the adjustment have a row, (n, m, K + 2).

    What is 0 has none, but every number has at least one: where nothing moved it, that of everything else.
    """
    rows = reasons.cents[..., 1:] != 0
    rows[..., -2] |= ~rows.any(axis=2)
    return rows


def _theme_and_words(
    reasons: Reasons, customer: IntArray, column: IntArray, place: IntArray
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    most = reasons.shown.shape[2]
    theme = np.full(len(place), EVERYTHING_ELSE, dtype=object)
    words = np.full(len(place), EVERYTHING_ELSE_WORDS, dtype=object)
    theme[place > most], words[place > most] = ADJUSTMENT, ADJUSTMENT_WORDS
    own = place < most
    cells = customer[own], column[own], place[own]
    theme[own] = np.array(reasons.themes, dtype=object)[reasons.shown[cells]]
    words[own] = reasons.phrases(reasons.voices[cells], customer[own])
    waiting = reasons.never_bought[customer]
    theme[waiting], words[waiting] = NOT_BOUGHT_YET, NOT_BOUGHT_YET_WORDS
    return theme, words


def explain_served(options: argparse.Namespace, progress: Progress) -> Explanation:
    """The whole command: the pair that serves, the file of customers -> the file of reasons."""
    format_of(options.out)  # before any work is done
    with progress.stage("explain") as stage:
        pair = read_pointer(options.models)
        snapshot = load_snapshot(options.models, pair.snapshot_id)
        predictor = load_predictor(options.models, pair.bundle_id, options.threads)
        written = explain_file(predictor, snapshot, options.ids, options.out, options.top)
        failed = written.customers - written.successful
        stage.note(customers=written.customers, failed=failed, rows=written.rows, as_of=snapshot.as_of.isoformat())
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_pipeline.explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="folder of the models")
    parser.add_argument(
        "--ids", type=Path, required=True, help="file of customers: .csv, .csv.gz, .xlsx, .xls or .parquet"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the reasons go: .csv, .xlsx or .parquet")
    parser.add_argument(
        "--top",
        type=_top,
        default=TOP,
        help="reasons told of each number; more where they leave over a fifth unexplained",
    )
    parser.add_argument("--threads", type=thread_count, default=os.cpu_count() or 1)
    explain_served(parser.parse_args(arguments), Progress())
    return 0


def _top(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} reasons; give a whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(run_command(main))
