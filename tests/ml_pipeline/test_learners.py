import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from ml_pipeline.errors import BundleMismatch
from ml_pipeline.learners import (
    LEARNERS,
    PROBABILITY,
    Effort,
    Fold,
    ForestMember,
    LightGBMLearner,
    XGBoostLearner,
    load_member,
)
from ml_pipeline.metrics import spearman

EFFORT = Effort(learning_rate=0.2, max_rounds=60, patience=5, forest_trees=12, forest_rows=800, threads=1)
NAMES = [f"feature_{index}" for index in range(6)]
BOOSTERS = (XGBoostLearner(), LightGBMLearner())


@pytest.fixture(scope="module")
def shop():
    rng = np.random.default_rng(5)
    features = rng.gamma(1.0, 1.0, (3000, 6)).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    mean = 100 * np.exp(0.5 * np.nan_to_num(features[:, 0]))
    labels = np.where(rng.random(3000) < 0.4, rng.gamma(1.0, mean), 0.0)
    return Fold(features, labels)


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_saved_and_loaded_it_predicts_the_identical_number(learner, shop, tmp_path):
    member = learner.fit(shop, NAMES, EFFORT, rounds=15).member
    path = tmp_path / f"member{member.suffix}"
    member.save(path)
    again = load_member(member.library, path)
    np.testing.assert_array_equal(again.predict(shop.features), member.predict(shop.features))


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_one_customer_gets_the_number_that_he_gets_among_all(learner, shop):
    member = learner.fit(shop, NAMES, EFFORT, rounds=15).member
    together = member.predict(shop.features, threads=2)
    alone = np.array([member.predict(shop.features[row : row + 1])[0] for row in range(40)])
    np.testing.assert_array_equal(alone, together[:40])


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda learner: learner.name)
def test_the_signal_is_learned_and_the_sum_is_right(learner, shop):
    predicted = learner.fit(shop, NAMES, EFFORT, rounds=30).member.predict(shop.features)
    assert spearman(np.nan_to_num(shop.features[:, 0]).astype(float), predicted) > 0.6
    assert predicted.sum() == pytest.approx(shop.labels.sum(), rel=0.1)
    assert predicted.min() >= 0


def test_the_flattened_forest_gives_what_scikit_learn_gives(shop):
    forest = RandomForestRegressor(n_estimators=8, max_depth=7, min_samples_leaf=5, random_state=1)
    forest.fit(shop.features, shop.labels)
    np.testing.assert_allclose(
        ForestMember.from_sklearn(forest).predict(shop.features), forest.predict(shop.features), rtol=1e-12
    )


def test_a_forest_that_never_saw_a_missing_value_still_takes_one():
    features = np.arange(400, dtype=np.float32).reshape(-1, 2)
    forest = RandomForestRegressor(n_estimators=3, random_state=0).fit(features, features[:, 0])
    assert np.isfinite(ForestMember.from_sklearn(forest).predict(np.full((2, 2), np.nan, dtype=np.float32))).all()


@pytest.mark.parametrize("learner", BOOSTERS, ids=lambda learner: learner.name)
def test_the_currency_does_not_change_what_is_learned(learner, shop):
    in_rupees = Fold(shop.features, shop.labels * 83.0)
    ours = learner.fit(shop, NAMES, EFFORT, rounds=20).member.predict(shop.features)
    theirs = learner.fit(in_rupees, NAMES, EFFORT, rounds=20).member.predict(shop.features)
    np.testing.assert_allclose(theirs, ours * 83.0, rtol=1e-3)


@pytest.mark.parametrize("learner", BOOSTERS, ids=lambda learner: learner.name)
def test_early_stopping_keeps_only_the_best_rounds(learner, shop):
    rng = np.random.default_rng(9)
    noise = Fold(shop.features[:500], rng.permutation(shop.labels[:500]))
    fitted = learner.fit(Fold(shop.features[500:], shop.labels[500:]), NAMES, EFFORT, validation=noise)
    assert fitted.rounds < EFFORT.max_rounds
    again = learner.fit(Fold(shop.features[500:], shop.labels[500:]), NAMES, EFFORT, rounds=fitted.rounds)
    np.testing.assert_allclose(fitted.member.predict(shop.features), again.member.predict(shop.features), rtol=1e-5)


@pytest.mark.parametrize("learner", BOOSTERS, ids=lambda learner: learner.name)
def test_a_classifier_gives_probabilities(learner, shop):
    bought = Fold(shop.features, (shop.labels > 0).astype(float))
    predicted = learner.fit(bought, NAMES, EFFORT, kind=PROBABILITY, rounds=15).member.predict(shop.features)
    assert 0 < predicted.min() < predicted.max() < 1
    assert predicted.mean() == pytest.approx(bought.labels.mean(), abs=0.02)


def test_a_library_that_this_code_does_not_know_is_refused_by_name(tmp_path):
    with pytest.raises(BundleMismatch, match="catboost"):
        load_member("catboost", tmp_path / "member.cbm")
