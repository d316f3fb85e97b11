"""The tables read anew for the bundle that serves: a new snapshot, a later `as_of`, no training.

`python -m ml_pipeline.refresh --data DIR --models DIR [--as-of DATE] [--force]`
"""

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ibis.backends.duckdb import Backend

from ml_pipeline.bundle import ServingPair, read_pointer
from ml_pipeline.command import (
    add_consent_argument,
    add_engine_arguments,
    add_progress_argument,
    open_progress,
    run_command,
)
from ml_pipeline.engine import engine_in
from ml_pipeline.errors import OlderTables
from ml_pipeline.predictor import Predictor, build_snapshot, check_settings, load_predictor
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.promotion import promote
from ml_pipeline.snapshot import snapshot_day

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Refreshed:
    """The pair that serves now, the day it knows the shop until (exclusive), and that of the snapshot before.

    previous_as_of: None where the snapshot before could not be read. changed: False where it was the same already.
    """

    pair: ServingPair
    as_of: date
    previous_as_of: date | None
    customers: int
    changed: bool

    def as_json(self) -> dict[str, Any]:
        """For the program that asked."""
        return {
            "bundle": self.pair.bundle_id,
            "snapshot": self.pair.snapshot_id,
            "as_of": self.as_of.isoformat(),
            "previous_as_of": self.previous_as_of.isoformat() if self.previous_as_of else None,
            "customers": self.customers,
            "promoted": self.changed,
        }


def refresh(
    engine: Backend,
    prepared: Prepared,
    models_dir: Path,
    progress: Progress,
    *,
    threads: int = 1,
    force: bool = False,
) -> Refreshed:
    """Describes every customer anew with the bundle that serves, and changes over to that snapshot.

    The same tables give the same snapshot, and then nothing changes. Raises NoServingModel, BundleMismatch where the bundle
    is damaged or the tables are of another shop, and OlderTables where `as_of` would go back, unless forced.
    """
    serving = read_pointer(models_dir)
    with progress.stage("refresh", 2) as stage:
        stage.doing("bundle")
        predictor = load_predictor(models_dir, serving.bundle_id, threads)
        check_settings(predictor.metadata, prepared)
        before = snapshot_day(models_dir, serving.snapshot_id)
        if before and prepared.as_of < before and not force:
            raise OlderTables(
                f"These tables are as of {prepared.as_of}, the snapshot that serves is as of {before}: what was sold in "
                "between would no longer be known. Bring newer tables, or use --force (over HTTP: ?force=true)."
            )
        stage.advance("snapshot")
        pair, customers = remake_snapshot(engine, prepared, predictor, models_dir, serving, progress)
        stage.advance()
        stage.note(bundle=pair.bundle_id, snapshot=pair.snapshot_id, customers=customers)
    return Refreshed(pair, prepared.as_of, before, customers, pair != serving)


def remake_snapshot(
    engine: Backend,
    prepared: Prepared,
    predictor: Predictor,
    models_dir: Path,
    serving: ServingPair,
    progress: Progress,
) -> tuple[ServingPair, int]:
    """The serving bundle's answers on these tables, promoted where they are not those that serve; with how many customers.

    Raises NotAllowedToServe.
    """
    snapshot_id, customers = build_snapshot(engine, prepared, predictor, models_dir)
    pair = ServingPair(serving.bundle_id, snapshot_id)
    if pair != serving:
        progress.ask_to_promote()
        promote(models_dir, pair)
    return pair, customers


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m ml_pipeline.refresh`."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.refresh", description=__doc__)
    add_folder_arguments(parser)
    parser.add_argument("--as-of", type=date.fromisoformat, help="read nothing on or after this day (YYYY-MM-DD)")
    parser.add_argument("--force", action="store_true", help="also where as_of goes back")
    add_engine_arguments(parser)
    add_progress_argument(parser)
    add_consent_argument(parser)
    options = parser.parse_args(arguments)
    progress = open_progress(options)
    with engine_in(options.work, options.threads, options.memory_mb) as engine:
        prepared = prepare_dataset(engine, options.data, options.work, options.as_of, progress)
        refreshed = refresh(engine, prepared, options.models, progress, threads=options.threads, force=options.force)
    log.info("refreshed", extra=refreshed.as_json())
    progress.close(refreshed.as_json())
    return 0


def add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """Where tables, models and working files are; relative defaults are those of the repository."""
    parser.add_argument("--data", type=Path, default=ROOT / "pymind_dataset", help="folder of the tables")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="where bundles and snapshots go")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "pipeline", help="reports, quarantine, spill files")


if __name__ == "__main__":
    raise SystemExit(run_command(main))
