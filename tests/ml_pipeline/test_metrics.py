import numpy as np
import pytest
from sklearn import metrics as reference

from ml_pipeline import metrics


@pytest.fixture
def spend():
    rng = np.random.default_rng(1)
    actual = np.where(rng.random(5000) < 0.4, rng.gamma(1.0, 300.0, 5000), 0.0)
    predicted = np.maximum(actual * 0.4 + rng.gamma(2.0, 50.0, 5000), 0.0)
    return actual, predicted


def test_r2_and_d2_agree_with_scikit_learn(spend):
    actual, predicted = spend
    floored = np.maximum(predicted, 0.01 * actual.mean())
    assert metrics.r2(actual, predicted) == pytest.approx(reference.r2_score(actual, predicted))
    assert metrics.d2(actual, predicted) == pytest.approx(reference.d2_tweedie_score(actual, floored, power=1.5))


def test_auc_brier_and_log_loss_agree_with_scikit_learn_with_ties():
    rng = np.random.default_rng(2)
    outcome = (rng.random(2000) < 0.3).astype(float)
    score = np.round(np.clip(outcome * 0.2 + rng.random(2000) * 0.8, 0, 1), 1)
    assert metrics.auc(outcome, score) == pytest.approx(reference.roc_auc_score(outcome, score))
    assert metrics.brier(outcome, score) == pytest.approx(reference.brier_score_loss(outcome, score))
    clipped = np.clip(score, 1e-6, 1 - 1e-6)
    assert metrics.log_loss(outcome, score) == pytest.approx(reference.log_loss(outcome, clipped))


def test_a_constant_prediction_ranks_nobody(spend):
    actual, _ = spend
    constant = np.full(len(actual), 7.0)
    assert metrics.spearman(actual, constant) == 0.0
    assert metrics.normalised_gini(actual, constant) == 0.0
    assert metrics.auc((actual > 0).astype(float), constant) == 0.5


def test_a_perfect_prediction_is_perfect(spend):
    actual, _ = spend
    scored = metrics.score_spend(actual, actual.copy())
    assert scored["r2"] == scored["capped_r2"] == 1.0
    assert scored["normalised_gini"] == pytest.approx(1.0)
    assert scored["spearman"] == pytest.approx(1.0)
    assert scored["bias"] == pytest.approx(1.0)
    assert scored["mae"] == scored["rmse"] == scored["decile_mape"] == 0.0


def test_one_wholesale_order_does_not_decide_capped_r2(spend):
    actual, predicted = spend
    with_whale = np.append(actual, 1e7)
    prediction = np.append(predicted, 100.0)
    assert metrics.r2(with_whale, prediction) < 0.01
    assert metrics.capped_r2(with_whale, prediction) > metrics.capped_r2(actual, predicted) - 0.2


def test_capped_r2_takes_the_maximum_where_the_percentile_is_zero():
    actual = np.zeros(10_000)
    actual[:5] = [10.0, 20.0, 30.0, 40.0, 50.0]
    assert np.quantile(actual, 0.995) == 0
    assert metrics.capped_r2(actual, actual * 2) == pytest.approx(metrics.r2(actual, np.minimum(actual * 2, 50.0)))


def test_predicting_zero_wins_mae_and_loses_everything_else():
    rng = np.random.default_rng(3)
    actual = np.where(rng.random(4000) < 0.1, rng.gamma(1.0, 100.0, 4000), 0.0)
    zero, mean = np.zeros(4000), np.full(4000, actual.mean())
    assert metrics.mae(actual, zero) < metrics.mae(actual, mean)
    assert metrics.bias(actual, zero) == 0.0
    assert metrics.d2(actual, zero) < metrics.d2(actual, mean) == pytest.approx(0.0)


def test_metrics_are_undefined_and_not_zero_where_nobody_spent():
    scored = metrics.score_spend(np.zeros(50), np.linspace(0, 1, 50))
    for name in ("r2", "capped_r2", "d2", "spearman", "normalised_gini", "decile_mape", "bias"):
        assert scored[name] is None, name
    assert metrics.auc(np.zeros(50), np.linspace(0, 1, 50)) is None


@pytest.mark.parametrize("amount", [0.1, 33.33, 1234.56])
def test_no_variance_is_explained_where_everybody_spends_the_same(amount):
    """The mean of equal numbers is rounded, so that their variance in floats need not be 0."""
    actual = np.full(7, amount)
    assert metrics.r2(actual, np.zeros(7)) is None
    assert metrics.capped_r2(actual, np.zeros(7)) is None
    assert metrics.d2(actual, np.zeros(7)) is None


def test_ties_are_broken_at_random_but_always_alike():
    actual = np.r_[np.ones(500), np.zeros(500)]
    tied = np.r_[np.full(999, 2.0), 3.0]
    first, second = metrics.normalised_gini(actual, tied), metrics.normalised_gini(actual, tied)
    assert first == second
    assert abs(first) < 0.1  # in file order the buyers would come first and the ties would look like skill


def test_deciles_have_equal_size_and_follow_the_prediction():
    predicted = np.r_[np.zeros(95), np.arange(1, 6)].astype(float)
    deciles = metrics.decile_of(predicted)
    assert np.bincount(deciles).tolist() == [10] * 10
    assert set(deciles[95:]) == {9}


def test_decile_mape_sees_a_calibration_that_bias_cancels():
    actual = np.repeat(np.arange(1.0, 11.0), 100)
    flat = np.full(1000, actual.mean()) + np.repeat(np.arange(10), 100) * 1e-9
    assert metrics.bias(actual, flat) == pytest.approx(1.0)
    expected = np.mean([abs(5.5 - value) / value for value in range(1, 11)])
    assert metrics.decile_mape(actual, flat) == pytest.approx(expected, rel=1e-6)


def test_intervals_are_judged_on_each_side_and_by_decile():
    actual = np.array([0.0] * 10 + [100.0] * 10)
    predicted = np.arange(20.0)
    scored = metrics.score_interval(actual, predicted, np.full(20, 1.0), np.full(20, 50.0))
    assert (scored["below"], scored["above"], scored["covered"]) == (0.5, 0.5, 0.0)
    assert scored["below_by_decile"] == [1.0] * 5 + [0.0] * 5
    assert scored["above_by_decile"] == [0.0] * 5 + [1.0] * 5


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="No rows"):
        metrics.score_spend(np.zeros(0), np.zeros(0))
