"""A small shop with a known truth, prepared and trained once for all tests that need a real bundle."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ibis.backends.duckdb import Backend

from ml_pipeline.bundle import ServingPair
from ml_pipeline.engine import open_engine
from ml_pipeline.learners import Effort
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.sample_data import write_sample_tables
from ml_pipeline.snapshot import Snapshot, load_snapshot
from ml_pipeline.train import Profile, train

EFFORT = Effort(learning_rate=0.2, max_rounds=60, patience=5, forest_trees=8, forest_rows=1000, threads=1)
SMALL = Profile(
    "small",
    spacing_days=30,
    most_days=8,
    n_calibration=1,
    n_selection=1,
    n_report=1,
    thorough=False,
    most_observations=100_000,
    n_trials=0,
    effort=EFFORT,
)


@dataclass(frozen=True)
class TrainedShop:
    """Tables, what was made of them, and the pair that serves."""

    tables: Path
    models: Path
    engine: Backend
    prepared: Prepared
    pair: ServingPair
    report: dict[str, Any]
    predictor: Predictor
    snapshot: Snapshot


@pytest.fixture(scope="session")
def sample_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables of 1,500 customers over 14 months, with flaws."""
    folder = tmp_path_factory.mktemp("shop")
    write_sample_tables(folder / "tables", folder / "truth", n_customers=1500, n_products=60, months=14, seed=3)
    return folder / "tables"


@pytest.fixture(scope="session")
def trained_shop(sample_tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrainedShop]:
    """The sample shop, trained with little effort."""
    folder = tmp_path_factory.mktemp("trained")
    engine = open_engine(folder / "engine", threads=2)
    progress = Progress(bars=False)
    prepared = prepare_dataset(engine, sample_tables, folder / "work", progress=progress)
    trained = train(engine, prepared, folder / "models", SMALL, progress)
    yield TrainedShop(
        tables=sample_tables,
        models=folder / "models",
        engine=engine,
        prepared=prepared,
        pair=trained.pair,
        report=trained.report,
        predictor=load_predictor(folder / "models", trained.pair.bundle_id),
        snapshot=load_snapshot(folder / "models", trained.pair.snapshot_id),
    )
    engine.disconnect()
