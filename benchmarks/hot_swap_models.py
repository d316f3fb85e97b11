"""The pairs of a swapping run: some that answer differently, one with a damaged member, one that misses its golden predictions."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.bulk_model import customer_ids, features_of_many, predict_many
from benchmarks.service_under_test import PROJECT, free_of_settings
from ml_pipeline.bundle import ServingPair, read_pointer, versions_dir
from ml_pipeline.pointer import Serving, write_serving
from ml_pipeline.predictor import load_predictor
from ml_pipeline.promotion import promote
from ml_pipeline.snapshot import load_snapshot, snapshots_dir, write_snapshot
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.ml_pipeline.spoiled_pairs import copied, damage, with_other_golden
from tests.ml_pipeline.summary_boosters import summary_members

SAMPLE_CUSTOMERS = 1500
SEEDS = (11, 22)
DAMAGED, OTHER_GOLDEN = "damaged member", "golden predictions missed"


@dataclass(frozen=True)
class SwapModels:
    """A models folder that serves good[0]. ids: customers whom every pair knows."""

    folder: Path
    good: Sequence[ServingPair]
    bad: dict[str, ServingPair]
    ids: Sequence[str]


def small_models(folder: Path) -> SwapModels:
    """Three pairs in a moment, without a training: a few trees on made-up features."""
    ids = [f"B{number:03d}" for number in range(60)]
    pairs = [write_booster_pair(folder, ids, [], seed=seed, summary=summary_members()) for seed in (1, 2)]
    return _completed(folder, pairs, ids)


def trained_models(kept: Path, folder: Path, customers: int) -> SwapModels:
    """Three pairs that know so many customers, their bundles trained on two sample shops; kept in a folder, made once."""
    ids = customer_ids(customers)
    pairs = []
    for seed in SEEDS:
        place = kept / f"shop-{seed}"
        if not (place / "models" / "current.json").is_file():
            _train(place, seed)
        shown = kept / f"pair-{seed}-{customers}"
        if not shown.is_dir():
            _extend(place / "models", shown, customers)
        pair = read_pointer(shown)
        for parent, name in ((versions_dir, pair.bundle_id), (snapshots_dir, pair.snapshot_id)):
            shutil.copytree(parent(shown) / name, parent(folder) / name, copy_function=os.link)
            os.utime(parent(folder) / name)  # what was made just now is not tidied away
        pairs.append(pair)
    return _completed(folder, pairs, ids)


def _completed(folder: Path, pairs: Sequence[ServingPair], ids: Sequence[str]) -> SwapModels:
    """With a later snapshot of the first bundle, as a refresh of the data makes it, and the two bad ones."""
    first, second = pairs
    later = ServingPair(first.bundle_id, _later_snapshot(folder, first))
    broken = copied(folder, second, "to be damaged")
    members = sorted((versions_dir(folder) / broken.bundle_id / "members").iterdir())
    damage(members[0])
    bad = {DAMAGED: broken, OTHER_GOLDEN: with_other_golden(folder, first)}
    write_serving(folder, Serving(first))
    promote(folder, first)
    return SwapModels(folder, (first, second, later), bad, ids)


def _later_snapshot(folder: Path, pair: ServingPair) -> str:
    """Of the same customers a day later, who happen to look as they did."""
    snapshot, predictor = load_snapshot(folder, pair.snapshot_id), load_predictor(folder, pair.bundle_id)
    rows = range(snapshot.n_customers)
    features = snapshot.features(rows)
    return write_snapshot(
        folder, as_of=snapshot.as_of + timedelta(days=1), bundle_id=pair.bundle_id, currency=snapshot.currency,
        targets=snapshot.targets, raw_names=predictor.raw_names, customer_ids=snapshot.customer_ids(rows),
        features=features, answers=predict_many(predictor, features),
    )  # fmt: skip


def _train(place: Path, seed: int) -> None:
    tables = place / "tables"
    shutil.rmtree(tables, ignore_errors=True)
    many = ("--customers", SAMPLE_CUSTOMERS, "--seed", seed)
    _run("ml_pipeline.sample_data", "--into", tables, "--truth", place / "truth", *many)
    places = ("--data", tables, "--models", place / "models", "--work", place / "work")
    _run("ml_pipeline.run_pipeline", *places, "--profile", "quick", "--no-explore")


def _run(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    subprocess.run(command, cwd=PROJECT, env=free_of_settings(), check=True, stdout=subprocess.DEVNULL)


def _extend(models: Path, shown: Path, customers: int) -> None:
    """The trained bundle with a snapshot of so many customers, in a folder of its own."""
    pair = read_pointer(models)
    making = shown.with_name(f".{shown.name}")
    shutil.rmtree(making, ignore_errors=True)
    shutil.copytree(versions_dir(models) / pair.bundle_id, versions_dir(making) / pair.bundle_id)
    predictor = load_predictor(models, pair.bundle_id, threads=2)
    features = features_of_many(models, pair, customers)
    snapshot_id = write_snapshot(
        making, as_of=predictor.metadata.as_of, bundle_id=pair.bundle_id, currency=predictor.metadata.currency,
        targets=predictor.metadata.targets, raw_names=predictor.raw_names, customer_ids=customer_ids(customers),
        features=features, answers=predict_many(predictor, features),
    )  # fmt: skip
    write_serving(making, Serving(ServingPair(pair.bundle_id, snapshot_id)))
    making.rename(shown)
