import gc
import json
import logging
import shutil
import threading
import weakref

import pytest

from ml_pipeline.bundle import Serving, ServingPair, read_pointer, write_serving
from ml_pipeline.errors import BundleMismatch, NoServingModel, SnapshotMismatch
from ml_pipeline.predictor import load_predictor
from ml_pipeline.snapshot import load_snapshot, write_snapshot
from services.model_registry import ModelRegistry
from services.model_service import ModelService
from services.object_store import FolderStore
from services.open_pairs import PAIRS_KEPT_OPEN
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.ml_pipeline.toy_models import write_toy_pair


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


def test_without_a_promoted_pair_the_way_out_is_said(models):
    with pytest.raises(NoServingModel, match="run_pipeline"):
        ModelRegistry(models).serving()


def test_a_new_pointer_is_followed_without_a_restart(models):
    registry = ModelRegistry(models)
    with pytest.raises(NoServingModel):
        registry.serving()
    first = write_toy_pair(models, ["C1", "C2"], seed=1)
    assert registry.serving().version == first.bundle_id
    second = write_toy_pair(models, ["C1", "C2", "C3"], seed=2)
    registry.check_now()
    assert registry.serving().version == second.bundle_id
    assert registry.serving().snapshot.n_customers == 3


def test_a_pair_is_opened_once_and_shared(models):
    pair = write_toy_pair(models, ["C1"])
    registry = ModelRegistry(models)
    assert registry.serving() is registry.serving()
    assert registry.pair(pair.bundle_id, pair.snapshot_id) is registry.serving()


def test_an_old_pair_is_still_there_for_a_job_that_is_tied_to_it(models):
    old = write_toy_pair(models, ["C1"], seed=1)
    write_toy_pair(models, ["C1"], seed=2)
    registry = ModelRegistry(models)
    assert registry.serving().version != old.bundle_id
    assert registry.pair(old.bundle_id, old.snapshot_id).version == old.bundle_id


def test_only_a_few_pairs_stay_open(models):
    pairs = [write_toy_pair(models, ["C1"], seed=seed) for seed in range(6)]
    registry = ModelRegistry(models)
    first = registry.pair(pairs[0].bundle_id, pairs[0].snapshot_id)
    for pair in pairs[1:]:
        registry.pair(pair.bundle_id, pair.snapshot_id)
    assert registry.pair(pairs[0].bundle_id, pairs[0].snapshot_id) is not first


def test_a_snapshot_of_another_bundle_is_refused_by_name(models):
    first = write_toy_pair(models, ["C1"], seed=1)
    second = write_toy_pair(models, ["C1"], seed=2)
    write_serving(models, Serving(ServingPair(second.bundle_id, first.snapshot_id)))
    with pytest.raises(SnapshotMismatch, match=first.snapshot_id):
        ModelRegistry(models).serving()


def test_a_bundle_that_was_changed_by_hand_is_refused(models):
    pair = write_toy_pair(models, ["C1"])
    path = models / "versions" / pair.bundle_id / "metadata.json"
    content = json.loads(path.read_text())
    content["features"] = content["features"][:-1]
    path.write_text(json.dumps(content))
    with pytest.raises(BundleMismatch):
        ModelRegistry(models).serving()


def test_a_backtest_that_is_gone_is_named(models):
    write_toy_pair(models, ["C1"])
    bundle_id = read_pointer(models).bundle_id
    model = ModelRegistry(models).serving()
    assert "targets" in ModelRegistry(models).backtest(model)
    shutil.rmtree(models / "versions" / bundle_id)
    with pytest.raises(BundleMismatch, match=r"backtest\.json"):
        ModelRegistry(models).backtest(model)


def test_how_good_a_fetched_bundle_was_is_told_where_the_models_folder_has_lost_it(models, tmp_path):
    pair, objects = write_toy_pair(models, ["C1"]), FolderStore(tmp_path / "objects")
    registry = ModelRegistry(models, objects, tmp_path / "cache")
    registry.publish(registry.serving())
    for kind in ("versions", "snapshots"):
        shutil.rmtree(models / kind)
    again = ModelRegistry(models, objects, tmp_path / "cache")
    assert ModelService(again).performance()["model_version"] == pair.bundle_id


@pytest.mark.parametrize("content", ["", "[1, 2]", '{"targets": {}}'])
def test_figures_that_are_not_the_sealed_ones_are_not_told(models, content):
    bundle_id = write_toy_pair(models, ["C1"]).bundle_id
    (models / "versions" / bundle_id / "backtest.json").write_text(content)
    with pytest.raises(BundleMismatch, match=r"backtest\.json"):
        ModelService(ModelRegistry(models)).performance()


def snapshot_of_some(models, pair, rows):
    """Another snapshot of the same bundle, of these rows."""
    whole = load_snapshot(models, pair.snapshot_id)
    predictor = load_predictor(models, pair.bundle_id)
    features = whole.features(rows)
    return write_snapshot(
        models, as_of=whole.as_of, bundle_id=pair.bundle_id, currency=whole.currency, targets=whole.targets,
        raw_names=predictor.raw_names, customer_ids=whole.customer_ids(rows), features=features,
        answers=predictor.predict(features),
    )  # fmt: skip


def test_members_are_loaded_on_demand_once_per_bundle_and_shared_by_its_snapshots(models, caplog):
    pair = write_booster_pair(models, ["C1", "C2", "C3"], [])
    other = snapshot_of_some(models, pair, [0, 1])
    registry = ModelRegistry(models)
    first, second = registry.pair(pair.bundle_id, pair.snapshot_id), registry.pair(pair.bundle_id, other)
    assert not first.predictor.is_loaded
    found = []

    def load(model):
        found.append(model.predictor.get())

    threads = [threading.Thread(target=load, args=(one,)) for one in (first, second) * 4]
    with caplog.at_level(logging.INFO, logger="services.open_pairs"):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len({id(predictor) for predictor in found}) == 1
    assert found[0].threads == 1
    assert [record.message for record in caplog.records].count("members loaded") == 1


def test_members_go_with_the_last_pair_of_their_bundle(models):
    pair = write_booster_pair(models, ["C1", "C2", "C3"], [])
    registry = ModelRegistry(models)
    loaded = weakref.ref(registry.serving().predictor.get())
    others = [write_toy_pair(models, ["C1"], seed=seed) for seed in range(PAIRS_KEPT_OPEN)]
    for other in others:
        registry.pair(other.bundle_id, other.snapshot_id)
    registry.check_now()
    assert registry.serving().version != pair.bundle_id
    gc.collect()
    assert loaded() is None
