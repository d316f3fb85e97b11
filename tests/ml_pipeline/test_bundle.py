import json

import pytest

from ml_pipeline import features
from ml_pipeline.bundle import (
    METADATA,
    ServingPair,
    check_features,
    check_file,
    load_metadata,
    read_pointer,
    versions_dir,
    write_pointer,
)
from ml_pipeline.errors import BundleMismatch, NoServingModel
from tests.ml_pipeline.toy_models import write_toy_pair

CUSTOMERS = ["00042", "7", "C1"]


@pytest.fixture
def pair(tmp_path):
    return write_toy_pair(tmp_path, CUSTOMERS)


def rewrite(tmp_path, pair, change):
    path = versions_dir(tmp_path) / pair.bundle_id / METADATA
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_sealed_bundle_loads_with_what_it_says(tmp_path, pair):
    metadata = load_metadata(tmp_path, pair.bundle_id)
    assert metadata.features == features.feature_names(metadata.targets)
    assert metadata.targets == ("electronics", "grocery", "sports")
    assert pair.bundle_id.startswith("20260101-")


def test_the_same_content_gets_the_same_name_and_other_content_another(tmp_path):
    first, second = write_toy_pair(tmp_path / "a", CUSTOMERS), write_toy_pair(tmp_path / "b", CUSTOMERS)
    other = write_toy_pair(tmp_path / "c", CUSTOMERS, seed=8)
    assert first == second
    assert other.bundle_id != first.bundle_id
    assert other.snapshot_id != first.snapshot_id


def test_a_feature_deleted_from_the_code_is_named(tmp_path, pair, monkeypatch):
    gone = features._OF_EVERYTHING[3]
    monkeypatch.setattr(features, "_OF_EVERYTHING", tuple(f for f in features._OF_EVERYTHING if f is not gone))
    with pytest.raises(BundleMismatch, match=f"needs {gone.name}, which this code does not build"):
        load_metadata(tmp_path, pair.bundle_id)


def test_a_column_deleted_from_the_metadata_is_named(tmp_path, pair):
    rewrite(tmp_path, pair, lambda content: content["features"].remove("total_spend_90d"))
    with pytest.raises(BundleMismatch, match="lacks total_spend_90d, which this code builds"):
        load_metadata(tmp_path, pair.bundle_id)


def test_swapped_columns_are_refused():
    with pytest.raises(BundleMismatch, match=r"another order .first at b."):
        check_features(["b", "a"], ["a", "b"], "Bundle x")


def test_metadata_changed_by_hand_is_refused(tmp_path, pair):
    rewrite(tmp_path, pair, lambda content: content["segments"]["thresholds"].append(1.0))
    with pytest.raises(BundleMismatch, match="was changed after it was sealed"):
        load_metadata(tmp_path, pair.bundle_id)


def test_a_file_that_differs_from_the_sealed_one_is_refused(tmp_path, pair):
    folder = versions_dir(tmp_path) / pair.bundle_id
    content = load_metadata(tmp_path, pair.bundle_id).content
    assert check_file(folder, content, "MODEL_CARD.md").is_file()
    (folder / "MODEL_CARD.md").write_text("better numbers")
    with pytest.raises(BundleMismatch, match="differs from what was sealed"):
        check_file(folder, content, "MODEL_CARD.md")


def test_no_model_yet_says_what_to_run(tmp_path):
    with pytest.raises(NoServingModel, match=r"run_pipeline\.py"):
        read_pointer(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"bundle": "x"}', '{"bundle": null, "snapshot": 7}'])
def test_a_damaged_pointer_is_named(tmp_path, damage):
    (tmp_path / "current.json").write_text(damage)
    with pytest.raises(BundleMismatch, match=r"current\.json is not a pointer"):
        read_pointer(tmp_path)


def test_the_pointer_is_replaced_and_leaves_nothing_beside_it(tmp_path):
    write_pointer(tmp_path, ServingPair("b1", "s1"))
    write_pointer(tmp_path, ServingPair("b2", "s2"))
    assert read_pointer(tmp_path) == ServingPair("b2", "s2")
    assert [path.name for path in tmp_path.iterdir()] == ["current.json"]
