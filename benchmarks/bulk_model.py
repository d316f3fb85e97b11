"""A model pair that knows a million customers, made by the product itself: trained on a small sample shop, then asked about
a million rows of features.

The feature rows are those of the sample's customers, drawn at random, with every tenth value another customer's: so nearly
all rows are different, and every value is one that the model was trained on. Kept in a folder; made once per size.
"""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.service_under_test import PROJECT, free_of_settings
from ml_pipeline.bundle import ServingPair, read_pointer, write_pointer
from ml_pipeline.predictor import Predictor, joined, load_predictor
from ml_pipeline.snapshot import Answers, load_snapshot, write_snapshot

SAMPLE_CUSTOMERS = 3000
ROWS_AT_A_TIME = 50_000
SHARE_OF_OTHERS = 0.1
FACTS = "facts.json"
FEATURES = "features.npy"
SEED = 20_260_101

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MillionModel:
    """Where the pair is, the matrix that the reference script has in memory, and what making the pair took.

    predicting_seconds: our predictor for every customer, with two threads. writing_seconds: of the snapshot.
    """

    models: Path
    features: Path
    customers: int
    n_features: int
    members: int
    predicting_seconds: float
    writing_seconds: float


def customer_ids(n: int) -> list[str]:
    """What the customers are called, in the order of the feature rows."""
    return [f"C{number:07d}" for number in range(n)]


def million_model(folder: Path, customers: int) -> MillionModel:
    """The pair for so many customers, from the folder or made now."""
    place = folder / f"model-{customers}"
    kept = place / FACTS
    if kept.is_file():
        facts = json.loads(kept.read_text("utf-8"))
        return MillionModel(place / "models", place / FEATURES, **facts)
    _train(place)
    made = _extend(place, customers)
    facts = {name: value for name, value in asdict(made).items() if name not in ("models", "features")}
    kept.write_text(json.dumps(facts, indent=1), "utf-8")
    return made


def _train(place: Path) -> None:
    tables = place / "tables"
    if not tables.is_dir():
        _run("ml_pipeline.sample_data", "--into", tables, "--truth", place / "truth", "--customers", SAMPLE_CUSTOMERS)
    places = ("--data", tables, "--models", place / "models", "--work", place / "work")
    _run("ml_pipeline.run_pipeline", *places, "--profile", "quick", "--no-explore")


def _run(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, cwd=PROJECT, env=free_of_settings(), check=True, stdout=subprocess.DEVNULL)


def _extend(place: Path, customers: int) -> MillionModel:
    """Has the trained bundle answer for `customers` rows and lets it serve with them."""
    models = place / "models"
    pair = read_pointer(models)
    predictor = load_predictor(models, pair.bundle_id, threads=2)
    features = features_of_many(models, pair, customers)
    np.save(place / FEATURES, features)
    started = time.perf_counter()
    answers = predict_many(predictor, features)
    predicted = time.perf_counter()
    snapshot_id = write_snapshot(
        models,
        as_of=predictor.metadata.as_of,
        bundle_id=pair.bundle_id,
        currency=predictor.metadata.currency,
        targets=predictor.metadata.targets,
        raw_names=predictor.raw_names,
        customer_ids=customer_ids(customers),
        features=features,
        answers=answers,
    )
    write_pointer(models, ServingPair(pair.bundle_id, snapshot_id))
    seconds = predicted - started, time.perf_counter() - predicted
    return MillionModel(
        models, place / FEATURES, customers, features.shape[1], len(predictor.needed_members()), *seconds
    )


def features_of_many(models: Path, pair: ServingPair, customers: int) -> Matrix:
    """So many rows made from those of the pair's customers, float32 (customers, F)."""
    snapshot = load_snapshot(models, pair.snapshot_id)
    known = snapshot.features(range(snapshot.n_customers))
    known = known[~np.isnan(known).all(axis=1)]
    draw = np.random.default_rng(SEED)
    features = np.empty((customers, known.shape[1]), dtype=np.float32)
    for start in range(0, customers, ROWS_AT_A_TIME):
        part = features[start : start + ROWS_AT_A_TIME]
        part[:] = known[draw.integers(0, len(known), len(part))]
        rows, columns = np.nonzero(draw.random(part.shape) < SHARE_OF_OTHERS)
        part[rows, columns] = known[draw.integers(0, len(known), len(rows)), columns]
    return features


def predict_many(predictor: Predictor, features: Matrix) -> Answers:
    """The answers, without the memory that all at once would take."""
    answers = predictor.predict(features[:ROWS_AT_A_TIME])
    for start in range(ROWS_AT_A_TIME, len(features), ROWS_AT_A_TIME):
        answers = joined(answers, predictor.predict(features[start : start + ROWS_AT_A_TIME]))
    return answers
