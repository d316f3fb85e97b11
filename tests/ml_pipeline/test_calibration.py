from itertools import pairwise

import numpy as np
import pytest

from ml_pipeline.calibration import (
    AS_IT_IS,
    DRIFT,
    LEVELS,
    PROBABILITY_FLOOR,
    LevelCalibration,
    ProbabilityCalibration,
    agreement,
    fit_level_calibration,
    fit_probability_calibration,
    reliability,
    share_of_buyers,
    trust_in_level,
)

EVERY_PROBABILITY = np.linspace(0, 1, 501)


def outcomes(rng, probability):
    return (rng.random(len(probability)) < probability).astype(float)


# Probabilities


def test_a_classifier_that_says_too_much_is_brought_to_what_happened():
    rng = np.random.default_rng(1)
    said = rng.random(8000)
    calibration = fit_probability_calibration(said, outcomes(rng, said**2), trust=1.0)
    np.testing.assert_allclose(calibration.apply(np.array([0.3, 0.5, 0.7, 0.9])), [0.09, 0.25, 0.49, 0.81], atol=0.03)


def test_the_level_moves_as_far_as_it_is_trusted_and_the_shape_whole():
    rng = np.random.default_rng(2)
    said = np.clip(rng.random(4000), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    happened = outcomes(rng, said**2)
    means = [fit_probability_calibration(said, happened, trust).apply(said).mean() for trust in (0.0, 0.5, 1.0)]
    wanted = [said.mean(), np.sqrt(said.mean() * happened.mean()), happened.mean()]
    np.testing.assert_allclose(means, wanted, rtol=0.01)
    shapes = [fit_probability_calibration(said, happened, trust) for trust in (0.0, 1.0)]
    assert (shapes[0].a, shapes[0].b) == (shapes[1].a, shapes[1].b)


def test_windows_whose_errors_cancel_say_nothing_of_the_level_and_windows_that_agree_say_all():
    assert agreement([1.3, 0.75, 1.25, 0.8], [1.0] * 4) == pytest.approx(0.0, abs=0.2)
    assert agreement([1.031, 1.033, 1.025, 1.035], [1.0] * 4) > 0.98
    assert agreement([1.4], [1.0]) == 1.0
    assert agreement([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert 0 <= agreement([1.3, 0.9, 1.1], [1.0] * 3) <= 1


@pytest.mark.parametrize("trust", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("truth", [lambda p: p**2, lambda p: np.sqrt(p), lambda p: 1 - p, lambda p: 0.02 + 0 * p])
def test_calibrated_probabilities_ascend_with_the_classifier_and_nobody_is_certain(trust, truth):
    """Even where the classifier was upside down on the days it was judged."""
    rng = np.random.default_rng(3)
    said = rng.random(3000)
    calibrated = fit_probability_calibration(said, outcomes(rng, truth(said)), trust).apply(EVERY_PROBABILITY)
    assert all(one <= other for one, other in pairwise(calibrated))
    assert calibrated.min() >= PROBABILITY_FLOOR
    assert calibrated.max() <= 1 - PROBABILITY_FLOOR


@pytest.mark.parametrize("outcome", [np.zeros(50), np.ones(50), np.zeros(0)])
def test_where_only_one_outcome_occurs_nothing_is_learned(outcome):
    said = np.linspace(0.2, 0.8, len(outcome))
    assert fit_probability_calibration(said, outcome, trust=1.0) == AS_IT_IS
    np.testing.assert_allclose(AS_IT_IS.apply(EVERY_PROBABILITY[1:-1]), EVERY_PROBABILITY[1:-1], rtol=1e-12)


def test_outcomes_that_a_classifier_parts_without_fault_leave_the_calibration_finite():
    said = np.concatenate([np.zeros(200), np.ones(200)])
    calibration = fit_probability_calibration(said, said, trust=1.0)
    assert np.isfinite([calibration.a, calibration.b, calibration.c]).all()


def test_a_calibration_reads_back_from_json_as_it_was():
    calibration = ProbabilityCalibration(1.1, 0.9, -0.2)
    assert ProbabilityCalibration.from_json(calibration.as_json()) == calibration
    levels = LevelCalibration((1.0, 2.0), (0.9, 1.2))
    assert LevelCalibration.from_json(levels.as_json()) == levels


# How far a level is trusted


def test_the_more_a_shop_swings_from_window_to_window_the_less_its_level_is_trusted():
    swings = [0.0, 0.05, 0.2, 0.8]
    trusts = [trust_in_level([0.3 * np.exp(swing * (-1) ** step) for step in range(8)], 2) for swing in swings]
    assert trusts[0] == pytest.approx(1.0)
    assert all(one > other for one, other in pairwise(trusts))
    assert trusts[-1] < 0.05


def test_swing_is_measured_as_its_variance_and_a_trend_is_none():
    """White noise minus the mean of its two neighbours has 1.5 times its variance."""
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 0.3, 20_000)
    trust = trust_in_level(np.exp(noise - 0.002 * np.arange(len(noise))), 2)
    assert trust == pytest.approx(DRIFT**2 / (DRIFT**2 + 0.3**2 / 2), rel=0.05)
    assert trust_in_level([0.1 * 1.1**step for step in range(9)], 1) == pytest.approx(1.0)


def test_more_windows_are_trusted_more_and_none_not_at_all():
    shares = [0.2, 0.3, 0.2, 0.35, 0.22]
    assert trust_in_level(shares, 0) == 0.0
    assert 0 < trust_in_level(shares, 1) < trust_in_level(shares, 2) < trust_in_level(shares, 6) < 1
    assert trust_in_level([0.2, 0.3], 1) == 0.5  # too few to see a swing


# Amounts by level


def amounts(rng, factor_of, n=4000):
    predicted = rng.lognormal(3, 1, n)
    return predicted, predicted * factor_of(predicted) * rng.lognormal(-0.125, 0.5, n)


def test_amounts_that_are_too_low_at_the_top_are_raised_there_and_kept_elsewhere():
    predicted, actual = amounts(np.random.default_rng(5), lambda amount: np.where(amount > 50, 1.5, 1.0))
    calibrated = fit_level_calibration(predicted, actual).apply(np.array([5.0, 10.0, 200.0]))
    np.testing.assert_allclose(calibrated / [5.0, 10.0, 200.0], [1.0, 1.0, 1.5], atol=0.1)


def test_between_the_middles_of_levels_the_factor_moves_in_a_straight_line_over_the_logarithm():
    calibration = LevelCalibration((np.log(10.0), np.log(1000.0)), (1.0, 4.0))
    np.testing.assert_allclose(
        calibration.apply(np.array([1.0, 10.0, 100.0, 1000.0, 5000.0])), [1, 10, 200, 4000, 20_000]
    )
    assert calibration.apply(np.zeros(1)).tolist() == [0.0]


def test_a_level_of_few_noisy_amounts_keeps_close_to_the_factor_of_all():
    """Empirical Bayes: the same doubled top level moves its factor far in many rows and hardly in few noisy ones."""
    rng = np.random.default_rng(6)

    def factors(n, noise):
        predicted = np.exp(np.linspace(0, 2, n))
        came = predicted * np.where(np.arange(n) >= 0.8 * n, 2.0, 1.0) * rng.gamma(1 / noise, noise, n)
        own = came.sum() / predicted.sum()
        return np.array(fit_level_calibration(predicted, came).factors) / own

    sure, unsure = factors(20_000, 0.2), factors(20, 8.0)
    assert np.ptp(np.log(sure)) > 0.5
    assert np.abs(np.log(unsure)).max() < np.abs(np.log(sure)).max()


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [
        (np.zeros(100), np.ones(100)),
        (np.ones(100), np.zeros(100)),
        (np.ones(2 * LEVELS - 1), np.ones(2 * LEVELS - 1)),
        (np.zeros(0), np.zeros(0)),
    ],
)
def test_where_there_are_no_amounts_there_is_no_correction(predicted, actual):
    assert fit_level_calibration(predicted, actual) is None


def test_predictions_that_are_all_alike_make_one_level():
    calibration = fit_level_calibration(np.full(100, 10.0), np.full(100, 12.0))
    assert calibration.apply(np.array([10.0, 20.0])).tolist() == pytest.approx([12.0, 24.0])


# The table


def test_the_reliability_table_counts_everyone_once_from_low_to_high():
    probability = np.array([0.9, 0.1, 0.5, 0.5, 0.2, 0.8, 0.3, 0.4, 0.6, 0.7, 0.95])
    bought = (probability > 0.45).astype(float)
    tenths = reliability(probability, bought)
    assert [tenth["customers"] for tenth in tenths] == [2, *[1] * 9]
    assert tenths[0] == {"customers": 2, "predicted": pytest.approx(0.15), "bought": 0.0}
    assert tenths[-1] == {"customers": 1, "predicted": 0.95, "bought": 1.0}
    assert sum(tenth["bought"] * tenth["customers"] for tenth in tenths) == bought.sum()


def test_three_customers_make_three_rows_and_not_ten():
    assert len(reliability(np.array([0.1, 0.2, 0.3]), np.zeros(3))) == 3


@pytest.mark.parametrize(
    ("bought", "share"), [([1.0, 0.0, 0.0], 0.375), ([0.0] * 4, 0.1), ([0.0] * 10_000, 0.001), ([1.0] * 10_000, 0.999)]
)
def test_the_share_of_buyers_is_never_certain(bought, share):
    assert share_of_buyers(np.array(bought)) == pytest.approx(share)


def test_tenths_of_one_probability_for_all_do_not_depend_on_the_order_of_the_customers():
    outcome = np.r_[np.ones(100), np.zeros(900)]
    tenths = reliability(np.full(1_000, 0.1), outcome)
    assert max(tenth["bought"] for tenth in tenths) < 0.25
