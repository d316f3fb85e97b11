import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor

from ml_pipeline.btyd import BgNbd, GammaGamma, expected_spend
from ml_pipeline.errors import BadSummary, BundleMismatch
from ml_pipeline.members import (
    MEMBER_TYPES,
    BgNbdMember,
    BoostedTreesMember,
    ForestMember,
    LinearMember,
    Offset,
    PurchaseSummary,
    load_member,
)

BG_NBD = BgNbd(0.25, 4.5, 0.8, 2.4, -9.0, 100)
GAMMA_GAMMA = GammaGamma(6.25, 3.74, 15.4, -9.0, 100)
SUMMARY = PurchaseSummary(purchase_days=0, first_to_last=1, since_first=2, repeat_value=3)


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    features = rng.gamma(1.0, 1.0, (2000, 6)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    labels = np.where(rng.random(2000) < 0.4, rng.gamma(1.0, 100 * np.exp(0.5 * np.nan_to_num(features[:, 0]))), 0.0)
    return features, labels


def line(**changed):
    facts = {
        "fill": np.array([1.0, 2.0]),
        "low": np.array([0.0, -1.0]),
        "high": np.array([10.0, 3.0]),
        "mean": np.array([2.0, 1.0]),
        "scale": np.array([4.0, 0.5]),
        "coefficient": np.array([8.0, -1.0]),
        "intercept": 20.0,
    }
    return LinearMember(**{**facts, **changed})


def test_the_flattened_forest_gives_what_scikit_learn_gives(rows):
    features, labels = rows
    forest = RandomForestRegressor(n_estimators=8, max_depth=7, min_samples_leaf=5, random_state=1)
    forest.fit(features, labels)
    np.testing.assert_allclose(
        ForestMember.from_sklearn(forest).predict(features), forest.predict(features), rtol=1e-12
    )


def test_a_forest_that_never_saw_a_missing_value_still_takes_one():
    features = np.arange(400, dtype=np.float32).reshape(-1, 2)
    forest = RandomForestRegressor(n_estimators=3, random_state=0).fit(features, features[:, 0])
    assert np.isfinite(ForestMember.from_sklearn(forest).predict(np.full((2, 2), np.nan, dtype=np.float32))).all()


@pytest.mark.parametrize("rounds", [1, 40])
def test_the_flattened_boosted_trees_give_what_scikit_learn_gives(rows, rounds):
    features, labels = rows
    boosting = HistGradientBoostingRegressor(max_iter=40, max_leaf_nodes=8, early_stopping=False).fit(features, labels)
    staged = list(boosting.staged_predict(features))[rounds - 1]
    predicted = BoostedTreesMember.from_sklearn(boosting, rounds).predict(features)
    np.testing.assert_allclose(predicted, np.maximum(staged, 0), rtol=1e-12)


def test_boosted_trees_that_never_saw_a_missing_value_send_one_where_scikit_learn_does():
    features = np.arange(800, dtype=np.float32).reshape(-1, 2)
    boosting = HistGradientBoostingRegressor(max_iter=5, early_stopping=False).fit(features, features[:, 0])
    unknown = np.full((2, 2), np.nan, dtype=np.float32)
    predicted = BoostedTreesMember.from_sklearn(boosting, 5).predict(unknown)
    np.testing.assert_allclose(predicted, boosting.predict(unknown), rtol=1e-12)


def test_more_rows_than_are_walked_at_once_and_none_at_all_are_predicted(rows, monkeypatch):
    features, labels = rows
    forest = ForestMember.from_sklearn(RandomForestRegressor(n_estimators=3, random_state=1).fit(features, labels))
    at_once = forest.predict(features)
    monkeypatch.setattr("ml_pipeline.members.WALKED_ROWS", 300)
    np.testing.assert_array_equal(forest.predict(features), at_once)
    assert forest.predict(features[:0]).shape == (0,)


def test_a_line_fills_draws_in_scales_and_adds():
    features = np.array([[6, 2], [np.nan, np.nan], [1000, 0]], dtype=np.float32)
    np.testing.assert_array_equal(line().predict(features), [20 + 8 - 2, 20 - 2 - 2, 20 + 16 + 2])


def test_a_line_never_falls_below_0():
    assert line(intercept=-100.0).predict(np.zeros((1, 2), dtype=np.float32))[0] == 0


def test_a_line_is_saved_with_the_limits_that_it_draws_values_into(tmp_path):
    path = tmp_path / "line.json"
    line().save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["low"], content["high"], content["fill"]) == ([0.0, -1.0], [10.0, 3.0], [1.0, 2.0])


def test_an_offset_counts_missing_and_negative_values_as_0():
    features = np.array([[5, 10], [5, np.nan], [5, -10]], dtype=np.float32)
    np.testing.assert_allclose(Offset(1, "rate", 0.9, 4.0).amounts(features), [13.0, 4.0, 4.0])


def test_bg_nbd_reads_repeats_ages_and_values_from_the_features():
    features = np.array([[4, 50, 90, 30], [1, 0, 20, np.nan]], dtype=np.float32)
    expected = expected_spend(BG_NBD, GAMMA_GAMMA, [3, 0], [50, 0], [90, 20], [30, np.nan], 30)
    np.testing.assert_array_equal(BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA).predict(features), expected)


def test_bg_nbd_refuses_a_customer_that_cannot_be():
    features = np.array([[4, 500, 90, 30]], dtype=np.float32)
    with pytest.raises(BadSummary, match="500"):
        BgNbdMember(SUMMARY, 30, BG_NBD, GAMMA_GAMMA).predict(features)


def test_every_library_has_one_name_and_one_kind_of_file():
    assert {member.suffix for member in MEMBER_TYPES.values()} == {".json", ".txt", ".npz"}
    assert all(member.library == name for name, member in MEMBER_TYPES.items())


def test_a_library_that_this_code_does_not_know_is_refused_by_name(tmp_path):
    with pytest.raises(BundleMismatch, match="catboost"):
        load_member("catboost", tmp_path / "member.cbm")
