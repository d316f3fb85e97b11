import copy
import json
import shutil
from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from ml_pipeline.bundle import METADATA, content_id, versions_dir
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.predictor import load_predictor
from ml_pipeline.snapshot import segments


@pytest.fixture
def copied(trained_shop, tmp_path):
    """The bundle in a folder that a test may damage."""
    folder = versions_dir(tmp_path) / trained_shop.pair.bundle_id
    shutil.copytree(versions_dir(trained_shop.models) / trained_shop.pair.bundle_id, folder)
    return folder


def buyers(trained_shop):
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    rows = np.flatnonzero(~np.isnan(features).all(axis=1))
    return rows, features[rows]


def test_the_snapshot_holds_what_the_bundle_predicts(trained_shop):
    rows, features = buyers(trained_shop)
    answers = trained_shop.predictor.predict(features)
    served = trained_shop.snapshot.columns(rows)
    np.testing.assert_array_equal(answers.money[:, 0] / 100, served["predicted_total_spend"])
    np.testing.assert_array_equal(np.round(answers.probability, 4), served["purchase_probability_30d"])


def test_a_customer_alone_gets_what_he_gets_among_all(trained_shop):
    rows, features = buyers(trained_shop)
    for row in (0, len(rows) // 2, len(rows) - 1):
        alone = trained_shop.predictor.predict(features[row : row + 1])
        np.testing.assert_array_equal(alone.money[0], trained_shop.predictor.predict(features).money[row])


def test_no_part_of_what_someone_who_never_bought_may_spend_exceeds_his_total(trained_shop):
    metadata = trained_shop.predictor.metadata
    prior = copy.deepcopy(metadata.content["never_bought"])
    for age in prior[
        "ages"
    ].values():  # as net spend can be: 100 of a part, of another 80 more brought back than bought
        age["upper"] = dict.fromkeys(age["upper"], 100.0) | {"total": 20.0}
        age["spend"] = dict.fromkeys(age["spend"], 0.0)
    changed = replace(metadata, content={**metadata.content, "never_bought": prior})
    answers = replace(trained_shop.predictor, metadata=changed).predict_never_bought(np.array([0, 4], dtype=np.uint8))
    assert (answers.upper == 2000).all()


def test_features_of_another_width_are_refused_with_both_numbers(trained_shop):
    n_features = len(trained_shop.predictor.metadata.features)
    with pytest.raises(ValueError, match=rf"\(1, 3\).*\(n, {n_features}\)"):
        trained_shop.predictor.predict(np.zeros((1, 3), dtype=np.float32))


def test_a_bundle_whose_member_was_changed_is_refused(copied):
    member = copied / "members" / "xgboost_total_spend.json"
    member.write_text(member.read_text().replace("0", "1", 5))
    with pytest.raises(BundleMismatch, match=r"xgboost_total_spend\.json is missing or differs"):
        load_predictor(copied.parent.parent, copied.name)


def test_a_bundle_that_answers_otherwise_than_when_it_was_made_is_refused(copied):
    """As after a library that reads its files differently: the files are sealed, the answers are not the golden ones."""
    content = json.loads((copied / METADATA).read_text())
    del content["bundle_id"]
    content["serving"]["total"]["cap"] = 1.0
    changed = copied.with_name(content_id(date.fromisoformat(content["as_of"]), content))
    copied.rename(changed)
    (changed / METADATA).write_text(json.dumps({"bundle_id": changed.name, **content}))
    with pytest.raises(BundleMismatch, match="golden rows differently"):
        load_predictor(changed.parent.parent, changed.name)


def test_segments_begin_above_their_thresholds():
    assert segments(np.array([0.0, 100.0, 100.01, 400.0, 400.01]), [100.0, 400.0]).tolist() == [0, 0, 1, 1, 2]


@pytest.mark.parametrize("thresholds", [[0.0, 0.0], [0.0, 7.0]])
def test_who_is_predicted_nothing_is_of_low_value_also_where_that_is_the_median(thresholds):
    assert segments(np.zeros(3), thresholds).tolist() == [0, 0, 0]
