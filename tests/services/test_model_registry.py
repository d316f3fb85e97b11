import json
import shutil

import pytest

from ml_pipeline.bundle import ServingPair, read_pointer, write_pointer
from ml_pipeline.errors import BundleMismatch, NoServingModel, SnapshotMismatch
from services.model_registry import ModelRegistry
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
    write_pointer(models, ServingPair(second.bundle_id, first.snapshot_id))
    if second.bundle_id == first.bundle_id:
        second = write_toy_pair(models, ["C1", "C2"], seed=2)
        write_pointer(models, ServingPair(second.bundle_id, first.snapshot_id))
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
    registry = ModelRegistry(models)
    assert "targets" in registry.backtest(bundle_id)
    shutil.rmtree(models / "versions" / bundle_id)
    with pytest.raises(BundleMismatch, match=r"backtest\.json"):
        registry.backtest(bundle_id)
