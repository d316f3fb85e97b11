from dataclasses import replace

import numpy as np
import pytest

from ml_pipeline.errors import BadSummary, NoConvergence, NotEnoughHistory
from ml_pipeline.features import feature_names
from ml_pipeline.learners import (
    AMOUNT,
    PROBABILITY,
    BgNbdLearner,
    Effort,
    Fold,
    ForestLearner,
    GradientBoostingLearner,
    LassoLearner,
    LightGBMAmountLearner,
    LightGBMAmountOverUsualLearner,
    LightGBMBgNbdLearner,
    LightGBMLearner,
    LightGBMLogAmountLearner,
    LightGBMPurchaseLearner,
    LightGBMRateLearner,
    LightGBMSquaredLearner,
    LinearRegressionLearner,
    XGBoostLearner,
    XGBoostRateLearner,
    XGBoostSquaredLearner,
    draw_rows,
    rate_feature,
)
from ml_pipeline.members import load_member
from ml_pipeline.metrics import spearman

EFFORT = Effort(learning_rate=0.2, max_rounds=60, patience=5, forest_trees=12, forest_rows=800, threads=1)
NAMES = feature_names(["shoes"])
COLUMN = {name: index for index, name in enumerate(NAMES)}
MONEY_COLUMNS = [index for name, index in COLUMN.items() if "spend" in name or "value" in name]
SIGNAL = "num_distinct_stores"
RATE = rate_feature("total")
N = 2400

LINEAR = (LinearRegressionLearner(), LassoLearner())
BUYERS_ONLY = (LightGBMAmountLearner(), LightGBMAmountOverUsualLearner(), LightGBMLogAmountLearner())
STOPPING = (
    XGBoostLearner(),
    LightGBMLearner(),
    XGBoostSquaredLearner(),
    LightGBMSquaredLearner(),
    XGBoostRateLearner(),
    LightGBMRateLearner(),
    GradientBoostingLearner(),
    LightGBMBgNbdLearner(),
    LightGBMPurchaseLearner(),
    *BUYERS_ONLY,
)
LABELLED = (*STOPPING, ForestLearner(), *LINEAR)
LEARNERS = (*LABELLED, BgNbdLearner())


def named(learner):
    return learner.name


@pytest.fixture(scope="module")
def shop():
    """Customers of a BG/NBD past whose spend grows with one feature."""
    rng = np.random.default_rng(5)
    features = rng.gamma(1.0, 1.0, (N, len(NAMES))).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    features[:, MONEY_COLUMNS] *= 100
    ages, rates = rng.integers(20, 400, N), rng.gamma(0.8, 1 / 40, N)
    repeats, first_to_last = np.zeros(N), np.zeros(N)
    for row in range(N):
        day = 0.0
        while (day := day + 1 + rng.exponential(1 / rates[row])) < ages[row]:
            repeats[row], first_to_last[row] = repeats[row] + 1, np.floor(day)
            if rng.random() < 0.15:
                break
    features[:, COLUMN["total_purchase_days"]] = repeats + 1
    features[:, COLUMN["days_first_to_last"]] = first_to_last
    features[:, COLUMN["days_since_first_transaction"]] = ages
    values = rng.gamma(4 * np.maximum(repeats, 1)) / np.maximum(repeats, 1) / rng.gamma(5.0, 1 / 60, N)
    features[:, COLUMN["mean_repeat_value"]] = np.where(repeats > 0, values, np.nan)
    mean = 100 * np.exp(0.5 * np.nan_to_num(features[:, COLUMN[SIGNAL]]))
    return Fold(features, np.where(rng.random(N) < 0.4, rng.gamma(1.0, mean), 0.0))


def rows_for(learner, fold):
    """The labels that a learner is for: 0/1, or buyers alone."""
    if learner.kind == PROBABILITY:
        return replace(fold, labels=(fold.labels > 0).astype(float))
    bought = fold.labels > 0
    return Fold(fold.features[bought], fold.labels[bought]) if learner.kind == AMOUNT else fold


@pytest.fixture(scope="module")
def members(shop):
    """Each learner's member after 15 rounds, fitted once for all tests that only look."""
    return {each.name: each.fit(rows_for(each, shop), NAMES, EFFORT, rounds=15).member for each in LEARNERS}


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_saved_and_loaded_it_predicts_the_identical_number(learner, shop, members, tmp_path):
    member = members[learner.name]
    path = tmp_path / f"member{member.suffix}"
    member.save(path)
    again = load_member(member.library, path)
    np.testing.assert_array_equal(again.predict(shop.features), member.predict(shop.features))
    again.save(tmp_path / f"again{member.suffix}")
    assert (tmp_path / f"again{member.suffix}").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("fit_rows", [None, 250])
def test_who_learns_from_rows_that_others_learned_from_learns_what_he_learns_alone(shop, fit_rows):
    """Bins are shared; labels, weights and starting scores of the learner before must not be."""
    effort = replace(EFFORT, fit_rows=fit_rows)
    rows, held_out = shop.of(slice(80, 680)), shop.of(slice(0, 80))
    for learner in (*STOPPING, *STOPPING):
        for rounds, validation in ((5, None), (None, rows_for(learner, held_out))):
            fits = [
                learner.fit(rows_for(learner, fold), NAMES, effort, rounds=rounds, validation=validation).member
                for fold in (rows, Fold(rows.features, rows.labels))
            ]
            shared, alone = (member.predict(shop.features) for member in fits)
            np.testing.assert_array_equal(shared, alone, err_msg=learner.name)


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_one_customer_gets_the_number_that_he_gets_among_all(learner, shop, members):
    member = members[learner.name]
    together = member.predict(shop.features, threads=2)
    alone = np.array([member.predict(shop.features[row : row + 1])[0] for row in range(60)])
    np.testing.assert_array_equal(alone, together[:60])


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_a_customer_of_whom_nothing_is_known_gets_a_finite_number_not_below_0(learner, members):
    unknown = np.full((3, len(NAMES)), np.nan, dtype=np.float32)
    predicted = members[learner.name].predict(unknown)
    assert predicted.dtype == np.float64
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_an_extreme_customer_gets_a_finite_number_not_below_0(learner, shop, members):
    extreme = shop.features[:50].copy()
    extreme[:, MONEY_COLUMNS] *= 1e6
    predicted = members[learner.name].predict(extreme)
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()


@pytest.mark.parametrize("learner", [each for each in LABELLED if each.kind != PROBABILITY], ids=named)
def test_the_signal_is_learned_and_the_sum_is_right(learner, shop):
    rows = rows_for(learner, shop)
    predicted = learner.fit(rows, NAMES, EFFORT, rounds=30).member.predict(rows.features)
    assert spearman(np.nan_to_num(rows.features[:, COLUMN[SIGNAL]]).astype(float), predicted) > 0.2
    assert predicted.sum() == pytest.approx(rows.labels.sum(), rel=0.2)
    assert predicted.min() >= 0


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_the_currency_does_not_change_what_is_learned(learner, shop, members):
    rows = rows_for(learner, shop)
    worth = 1.0 if learner.kind == PROBABILITY else 83.0
    features = rows.features.copy()
    features[:, MONEY_COLUMNS] *= np.float32(83.0)
    in_rupees = learner.fit(Fold(features, rows.labels * worth), NAMES, EFFORT, rounds=15).member
    ours = members[learner.name].predict(rows.features)
    # a value in another currency may round to the other side of a split, for a few customers
    same = np.isclose(in_rupees.predict(features), ours * worth, rtol=1e-3)
    assert same.mean() > 0.97


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_two_threads_learn_and_predict_what_one_does(learner, shop, members):
    twice = learner.fit(rows_for(learner, shop), NAMES, replace(EFFORT, threads=2), rounds=15).member
    np.testing.assert_array_equal(
        twice.predict(shop.features, threads=2), members[learner.name].predict(shop.features, threads=1)
    )


@pytest.mark.parametrize("learner", STOPPING, ids=named)
def test_early_stopping_keeps_only_the_best_rounds(learner, shop):
    rng = np.random.default_rng(9)
    rows = rows_for(learner, shop)
    noise = Fold(rows.features[:300], rng.permutation(rows.labels[:300]))
    train = Fold(rows.features[300:], rows.labels[300:])
    assert learner.stops_early
    patient = replace(EFFORT, patience=10)
    fitted = learner.fit(train, NAMES, patient, validation=noise)
    assert 1 <= fitted.rounds < EFFORT.max_rounds
    again = learner.fit(train, NAMES, EFFORT, rounds=fitted.rounds)
    np.testing.assert_array_equal(fitted.member.predict(shop.features), again.member.predict(shop.features))
    # how long it looked on for a better round is not in the answer
    assert learner.fit(train, NAMES, replace(EFFORT, patience=12), validation=noise).rounds == fitted.rounds


@pytest.mark.parametrize("learner", [ForestLearner(), *LINEAR, BgNbdLearner()], ids=named)
def test_what_has_no_rounds_says_so(learner):
    assert not learner.stops_early


def test_a_chance_to_buy_is_a_probability(shop, members):
    predicted = members[LightGBMPurchaseLearner.name].predict(shop.features)
    assert 0 <= predicted.min() < predicted.max() <= 1


def test_the_learned_chance_to_buy_is_right_on_average(shop, members):
    predicted = members["lightgbm_purchase"].predict(shop.features)
    assert predicted.mean() == pytest.approx((shop.labels > 0).mean(), abs=0.02)


@pytest.mark.parametrize("learner", [LightGBMRateLearner(), XGBoostRateLearner()], ids=named)
def test_before_any_tree_a_customer_is_expected_to_go_on_as_he_did(learner, shop):
    still = replace(EFFORT, learning_rate=1e-9)
    predicted = learner.fit(shop, NAMES, still, rounds=1).member.predict(shop.features)
    own = np.nan_to_num(shop.features[:, COLUMN[RATE]]).astype(float)
    np.testing.assert_allclose(predicted, 0.9 * own + 0.1 * shop.labels.mean(), rtol=1e-5)


def test_the_rate_of_a_named_target_is_that_of_the_target(shop):
    still = replace(EFFORT, learning_rate=1e-9)
    member = LightGBMRateLearner().fit(shop, NAMES, still, target="shoes", rounds=1).member
    predicted = member.predict(shop.features)
    own = np.nan_to_num(shop.features[:, COLUMN[f"{RATE}_shoes"]]).astype(float)
    np.testing.assert_allclose(predicted, 0.9 * own + 0.1 * shop.labels.mean(), rtol=1e-5)


def test_amounts_start_from_the_usual_transaction(shop):
    rows = rows_for(LightGBMAmountLearner(), shop)
    still = replace(EFFORT, learning_rate=1e-9)
    predicted = LightGBMAmountOverUsualLearner().fit(rows, NAMES, still, rounds=1).member.predict(rows.features)
    usual = np.nan_to_num(rows.features[:, COLUMN["avg_transaction_value"]]).astype(float)
    np.testing.assert_allclose(predicted, 0.8 * usual + 0.2 * rows.labels.mean(), rtol=1e-5)


def test_smearing_brings_the_mean_of_logarithms_back_to_money(shop):
    rows = rows_for(LightGBMLogAmountLearner(), shop)
    still = replace(EFFORT, learning_rate=1e-9)
    predicted = LightGBMLogAmountLearner().fit(rows, NAMES, still, rounds=1).member.predict(rows.features)
    np.testing.assert_allclose(predicted, rows.labels.mean(), rtol=1e-5)


def test_least_squares_finds_the_line_that_made_the_labels(shop):
    features = np.random.default_rng(3).uniform(0, 1, (N, 3)).astype(np.float32)
    inner = ((features > 0.01) & (features < 0.99)).all(axis=1)
    labels = 40 + features.astype(float) @ [30.0, 0.0, -20.0]
    predicted = LinearRegressionLearner().fit(Fold(features, labels), ["a", "b", "c"], EFFORT).member.predict(features)
    np.testing.assert_allclose(predicted[inner], labels[inner], rtol=2e-3)


def test_lasso_leaves_out_features_that_say_nothing(shop, members):
    used = np.flatnonzero(members["lasso"].coefficient)
    assert COLUMN[SIGNAL] in used
    assert len(used) < len(np.flatnonzero(members["linear_regression"].coefficient)) / 4


def test_at_most_fit_rows_are_learned_from_drawn_by_the_seed_in_their_order():
    fold = Fold(np.arange(200, dtype=np.float32).reshape(-1, 2), np.arange(100.0))
    drawn = draw_rows(fold, replace(EFFORT, fit_rows=30))
    assert len(set(drawn.labels)) == 30
    assert (np.diff(drawn.labels) > 0).all()
    np.testing.assert_array_equal(drawn.features[:, 0], 2 * drawn.labels)
    np.testing.assert_array_equal(draw_rows(fold, replace(EFFORT, fit_rows=30)).labels, drawn.labels)
    assert (draw_rows(fold, replace(EFFORT, fit_rows=30, seed=1)).labels != drawn.labels).any()
    assert draw_rows(fold, replace(EFFORT, fit_rows=100)) is fold


@pytest.mark.parametrize("learner", LEARNERS, ids=named)
def test_every_learner_keeps_to_fit_rows(learner, shop):
    rows = rows_for(learner, shop)
    few = replace(EFFORT, fit_rows=300)
    member = learner.fit(rows, NAMES, few, rounds=5).member
    by_hand = learner.fit(draw_rows(rows, few), NAMES, EFFORT, rounds=5).member
    np.testing.assert_array_equal(member.predict(shop.features), by_hand.predict(shop.features))


def test_bg_nbd_counts_a_customer_once_by_his_newest_row(shop):
    features = shop.features.copy()
    features[: N // 2, COLUMN["days_since_first_transaction"]] += 500  # other rows, another past
    latest = np.arange(N) >= N // 2
    both = BgNbdLearner().fit(Fold(features, shop.labels, latest), NAMES, EFFORT).member
    newest = BgNbdLearner().fit(Fold(features[latest], shop.labels[latest]), NAMES, EFFORT).member
    np.testing.assert_array_equal(both.predict(shop.features), newest.predict(shop.features))


def test_bg_nbd_expects_more_of_who_bought_often_and_lately(shop, members):
    pasts = np.full((3, len(NAMES)), np.nan, dtype=np.float32)
    pasts[:, COLUMN["total_purchase_days"]] = [11, 11, 2]
    pasts[:, COLUMN["days_first_to_last"]] = [295, 60, 295]
    pasts[:, COLUMN["days_since_first_transaction"]] = 300
    pasts[:, COLUMN["mean_repeat_value"]] = 80
    often, gone, seldom = members["bg_nbd"].predict(pasts)
    assert often > 2 * seldom > 0
    assert often > 2 * gone > 0


def test_bg_nbd_tries_once_more_with_a_ridge_where_there_is_no_maximum():
    rng = np.random.default_rng(2)
    features = np.full((300, len(NAMES)), np.nan, dtype=np.float32)
    repeats = rng.poisson(9, 300) + 1  # nobody ever stops: a runs to 0
    features[:, COLUMN["total_purchase_days"]] = repeats + 1
    features[:, COLUMN["days_since_first_transaction"]] = 301
    features[:, COLUMN["days_first_to_last"]] = 300
    features[:, COLUMN["mean_repeat_value"]] = rng.gamma(5, 20, 300)
    member = BgNbdLearner().fit(Fold(features, np.ones(300)), NAMES, EFFORT).member
    assert member.predict(features).mean() == pytest.approx((repeats * 0.1 * 100).mean(), rel=0.3)


def test_bg_nbd_refuses_pasts_that_cannot_be(shop):
    features = shop.features.copy()
    features[:, COLUMN["days_first_to_last"]] = 9999
    with pytest.raises(BadSummary):
        BgNbdLearner().fit(Fold(features, shop.labels), NAMES, EFFORT)


@pytest.mark.parametrize("learner", [BgNbdLearner()], ids=named)
def test_bg_nbd_refuses_customers_who_never_came_back_and_a_named_target(learner, shop):
    features = shop.features.copy()
    features[:, COLUMN["total_purchase_days"]] = 1
    features[:, COLUMN["days_first_to_last"]] = 0
    with pytest.raises((NotEnoughHistory, NoConvergence)):
        learner.fit(Fold(features, shop.labels), NAMES, EFFORT)
    with pytest.raises(NotEnoughHistory, match="shoes"):
        learner.fit(shop, NAMES, EFFORT, target="shoes")


@pytest.mark.parametrize("learner", LABELLED, ids=named)
def test_labels_that_are_all_0_are_refused(learner, shop):
    with pytest.raises(NotEnoughHistory, match=learner.name):
        learner.fit(Fold(shop.features, np.zeros(N)), NAMES, EFFORT)


@pytest.mark.parametrize("learner", BUYERS_ONLY, ids=named)
def test_amounts_are_learned_of_buyers_alone(learner, shop):
    with pytest.raises(ValueError, match="buyers"):
        learner.fit(shop, NAMES, EFFORT, rounds=2)


def test_a_feature_that_is_needed_and_not_there_is_named(shop):
    with pytest.raises(ValueError, match=RATE):
        LightGBMRateLearner().fit(shop, [f"feature_{index}" for index in range(len(NAMES))], EFFORT)


def test_gradient_boosting_takes_a_column_without_any_value(shop):
    features = shop.features.copy()
    features[:, 3] = np.nan
    member = GradientBoostingLearner().fit(Fold(features, shop.labels), NAMES, EFFORT, rounds=10).member
    np.testing.assert_array_equal(member.predict(shop.features), member.predict(features))
