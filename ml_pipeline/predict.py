"""The bulk job without a server: a file of customers in, the same file with the columns of a downloaded result out.

`python -m ml_pipeline.predict --data DIR --models DIR --ids FILE --out FILE [--as-of DATE] [--sums FILE]`

The tables are read anew and every known customer is described as of the given day (default: the day after the last day
of the data) with the bundle that serves. The format of the output follows its ending: .csv, .xlsx or .parquet.
With --sums the sum over the file's customers, each counted once, and its 80 % interval are written as JSON.
"""

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.bundle import BundleMetadata, read_pointer, write_atomically
from ml_pipeline.command import run_command, thread_count
from ml_pipeline.customer_files import check_header, describe_upload, ids_of, read_rows
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import UnsupportedFileType
from ml_pipeline.file_statistics import statistics_of
from ml_pipeline.predictor import build_snapshot, load_predictor
from ml_pipeline.prepare import prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.result_files import FORMATS, PartFolder
from ml_pipeline.result_rows import answer_rows, result_header
from ml_pipeline.schema import HORIZON_DAYS
from ml_pipeline.snapshot import Snapshot, load_snapshot, result_columns
from ml_pipeline.spend_sums import sum_spend

log = logging.getLogger(__name__)

ROWS_PER_SLICE = 50_000


@dataclass(frozen=True)
class Written:
    """A result file: how many rows, how many of them with a prediction, and the snapshot rows of its distinct customers."""

    rows: int
    successful: int
    customers: npt.NDArray[np.int64]

    @property
    def failed(self) -> int:
        """Rows without a prediction."""
        return self.rows - self.successful


def predict_file(snapshot: Snapshot, metadata: BundleMetadata, ids_file: Path, out_file: Path) -> Written:
    """Writes the uploaded columns and the answers of the snapshot that this bundle made, whole or not at all.

    Raises CustomerFileError for a file that cannot be read or an ending that is not written.
    """
    result_format = format_of(out_file)
    shape = describe_upload(ids_file, ids_file.name)
    check_header(shape, snapshot)
    header = result_header(shape.header, result_columns(snapshot.targets))
    successful = 0
    customers = [np.empty(0, dtype=np.int64)]
    out_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_file.parent, prefix=f".{out_file.name}.") as staging:
        parts = PartFolder(Path(staging), result_format)
        for block in read_rows(ids_file, shape, ROWS_PER_SLICE):
            answered = answer_rows(snapshot, metadata.bundle_id, ids_of(block, shape))
            parts.add(block, answered.columns)
            successful += answered.successful
            customers.append(np.unique(answered.positions[answered.positions >= 0]))
        written = Written(parts.rows, successful, np.unique(np.concatenate(customers)))
        staged = Path(staging) / "result"
        summary = _summary(snapshot, metadata, ids_file.name, written) if result_format == "xlsx" else None
        parts.assemble(staged, header, summary)
        os.replace(staged, out_file)
    return written


def _summary(snapshot: Snapshot, metadata: BundleMetadata, filename: str, written: Written) -> dict[str, Any]:
    statistics = statistics_of(snapshot, metadata.content, written.customers, written.rows, written.failed)
    return {**statistics, "filename": filename}


def sums_of(snapshot: Snapshot, metadata: BundleMetadata, written: Written) -> dict[str, Any]:
    """What the file's customers will spend together, in the words of the API's POST /predict/sum, and the file's rows."""
    return {
        "rows": written.rows,
        "rows_failed": written.failed,
        "currency": snapshot.currency,
        "model_version": metadata.bundle_id,
        "as_of": snapshot.as_of.isoformat(),
        "horizon_days": HORIZON_DAYS,
        **sum_spend(snapshot, metadata.content["sums"], written.customers).as_json(),
    }


def format_of(out_file: Path) -> str:
    """csv, xlsx or parquet, by the ending. Raises UnsupportedFileType for any other."""
    result_format = out_file.suffix.lower().lstrip(".")
    if result_format not in FORMATS:
        raise UnsupportedFileType(
            f"{out_file.name} would be no file that is written; end it in .{', .'.join(FORMATS)}."
        )
    return result_format


def predict_from_tables(options: argparse.Namespace, progress: Progress) -> Written:
    """The whole command: tables -> snapshot as of the day -> result file, and the sums where they are asked for."""
    format_of(options.out)  # before any work is done
    predictor = load_predictor(options.models, read_pointer(options.models).bundle_id, options.threads)
    with tempfile.TemporaryDirectory(prefix="predict-") as work_dir:
        work = Path(work_dir)
        engine = open_engine(work / "engine", threads=options.threads)
        prepared = prepare_dataset(engine, options.data, work / "prepared", options.as_of, progress)
        if prepared.as_of < predictor.metadata.as_of:
            log.warning(
                "the bundle has seen days on or after as_of: its predictions of them are no forecast",
                extra={"as_of": prepared.as_of.isoformat(), "trained_as_of": predictor.metadata.as_of.isoformat()},
            )
        with progress.stage("predict", 2) as stage:
            snapshot_id, customers = build_snapshot(engine, prepared, predictor, work)
            engine.disconnect()
            stage.advance("writing")
            snapshot = load_snapshot(work, snapshot_id)
            written = predict_file(snapshot, predictor.metadata, options.ids, options.out)
            if options.sums:
                write_sums(sums_of(snapshot, predictor.metadata, written), options.sums)
            stage.advance()
            stage.note(customers=customers, rows=written.rows, successful=written.successful, failed=written.failed)
    return written


def write_sums(sums: Mapping[str, Any], path: Path) -> None:
    """The sums as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(sums, indent=1, ensure_ascii=False, allow_nan=False).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m ml_pipeline.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--models", type=Path, required=True, help="folder of the models")
    parser.add_argument(
        "--ids", type=Path, required=True, help="file of customers: .csv, .csv.gz, .xlsx, .xls or .parquet"
    )
    parser.add_argument("--out", type=Path, required=True, help="where the result goes: .csv, .xlsx or .parquet")
    parser.add_argument("--sums", type=Path, help="where the sum over the file's customers goes: .json")
    parser.add_argument("--as-of", type=date.fromisoformat, help="predict the 30 days from this day (YYYY-MM-DD)")
    parser.add_argument("--threads", type=thread_count, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    written = predict_from_tables(options, Progress())
    log.info("written", extra={"file": options.out.name, "rows": written.rows, "failed": written.failed})
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
