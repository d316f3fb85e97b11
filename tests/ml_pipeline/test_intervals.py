import json

import numpy as np
import pytest

from ml_pipeline.intervals import Intervals, fit_intervals


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(1.0, 200.0, n)
    return np.where(rng.random(n) < 0.7, rng.gamma(2.0, predicted / 2), 0.0), predicted


def test_new_customers_of_every_level_are_covered_as_often_as_said():
    intervals = fit_intervals(*drawn(20_000, 1))
    actual, predicted = drawn(20_000, 2)
    _, upper = intervals.around(predicted)
    level = np.searchsorted(np.array(intervals.edges), predicted, side="right")
    for each in range(10):
        rows = level == each
        assert np.mean(actual[rows] > upper[rows]) == pytest.approx(0.10, abs=0.03)


def test_no_more_than_a_tenth_lies_below_the_interval_where_spend_is_never_zero():
    """With spends of 0 among them the lower end is 0 and says nothing; here it must do its work."""

    def lively(seed):
        rng = np.random.default_rng(seed)
        predicted = rng.gamma(2.0, 200.0, 20_000) + 50
        return rng.gamma(9.0, predicted / 9), predicted

    intervals = fit_intervals(*lively(1))
    actual, predicted = lively(2)
    lower, _ = intervals.around(predicted)
    level = np.searchsorted(np.array(intervals.edges), predicted, side="right")
    for each in range(10):
        rows = level == each
        assert np.mean(actual[rows] < lower[rows]) == pytest.approx(0.10, abs=0.03)


def test_the_ends_stand_in_order_and_never_below_zero():
    intervals = fit_intervals(*drawn(2_000, 3))
    predicted = np.r_[0.0, np.geomspace(1e-3, 1e6, 200)]
    lower, upper = intervals.around(predicted)
    assert (lower >= 0).all()
    assert (lower <= predicted).all()
    assert (predicted <= upper).all()


def test_many_equal_predictions_share_one_level():
    actual = np.r_[np.zeros(900), np.full(100, 50.0)]
    predicted = np.r_[np.zeros(900), np.full(100, 50.0)]
    intervals = fit_intervals(actual, predicted)
    lower, upper = intervals.around(np.array([0.0, 50.0]))
    assert lower.tolist() == upper.tolist() == [0.0, 50.0]


def test_a_constant_prediction_has_one_level():
    intervals = fit_intervals(np.arange(100.0), np.full(100, 10.0))
    assert intervals.edges == ()
    lower, upper = intervals.around(np.array([10.0]))
    assert 8 <= lower[0] <= 10 <= 88 <= upper[0] <= 92


def test_they_survive_json():
    intervals = fit_intervals(*drawn(500, 4))
    assert Intervals.from_json(json.loads(json.dumps(intervals.as_json()))) == intervals


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="No rows"):
        fit_intervals(np.zeros(0), np.zeros(0))


def test_many_who_spend_nothing_stay_inside_when_a_constant_moves():
    actual = np.where(np.arange(1000) % 3 == 0, 120.0, 0.0)
    intervals = fit_intervals(actual, np.full(1000, 40.0))
    lower, upper = intervals.around(np.full(1000, 41.0))
    assert lower.max() == 0
    assert ((actual >= lower) & (actual <= upper)).mean() >= 0.8
    assert Intervals.from_json(json.loads(json.dumps(intervals.as_json()))) == intervals
