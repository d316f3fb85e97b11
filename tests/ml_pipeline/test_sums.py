import json
import subprocess
import sys

import numpy as np
import pytest

from ml_pipeline.sums import LEAST_COMMON, USUAL_COMMON, SumIntervals, fit_sums


def window(seed, n=4_000, common=0.0):
    """Actual and predicted spend of one window in which everybody spends `common` more or less than predicted."""
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(1.0, 100.0, n) + 1
    return np.where(rng.random(n) < 0.6, rng.gamma(2.0, predicted / 1.2), 0.0) * (1 + common), predicted


def shares(sums, windows, size, sets=200):
    rng = np.random.default_rng(0)
    sides = []
    for actual, predicted in windows:
        variance = sums.variance(predicted)
        for _ in range(sets):
            rows = rng.choice(len(actual), size, replace=False)
            _, lower, upper = sums.around(predicted[rows], variance[rows])
            sides.append((actual[rows].sum() < lower, actual[rows].sum() > upper))
    return np.mean(sides, axis=0)


@pytest.mark.parametrize("size", [50, 300, 2_000])
def test_sums_over_sets_of_any_size_are_covered_about_as_often_as_said(size):
    shocks = np.random.default_rng(3).normal(0, 0.1, 40)
    sums = fit_sums([window(seed, common=shock) for seed, shock in enumerate(shocks[:20])])
    below, above = shares(sums, [window(100 + seed, common=shock) for seed, shock in enumerate(shocks[20:])], size)
    assert below == pytest.approx(0.1, abs=0.06)
    assert above == pytest.approx(0.1, abs=0.06)


def test_what_all_share_does_not_go_away_with_many_customers():
    sums = fit_sums([window(seed, common=shock) for seed, shock in enumerate((-0.3, 0.3, -0.3, 0.3))])
    predicted = np.full(1_000_000, 50.0)
    point, lower, upper = sums.around(predicted, sums.variance(predicted))
    assert point == pytest.approx(50e6)
    assert 0.2 * point < upper - point < 0.5 * point
    assert 0.2 * point < point - lower < 0.5 * point


def test_without_shared_errors_few_windows_still_leave_room_for_them():
    steady = fit_sums([window(1)])
    assert 0.5 * USUAL_COMMON < steady.common <= USUAL_COMMON
    assert fit_sums([window(seed, n=20_000) for seed in range(60)]).common == pytest.approx(LEAST_COMMON, abs=0.005)


def test_the_ends_stand_in_order_and_a_sum_of_nothing_is_nothing():
    sums = fit_sums([window(1)])
    for predicted in (np.array([0.01]), np.array([1e6]), np.array([0.0, 3.0])):
        point, lower, upper = sums.around(predicted, sums.variance(predicted))
        assert 0 <= lower <= point <= upper
        assert np.isfinite(upper)
    assert sums.around(np.zeros(0), np.zeros(0)) == (0.0, 0.0, 0.0)


def test_the_less_is_known_the_higher_is_the_upper_end():
    predicted = np.full(100, 10.0)
    ends = [
        SumIntervals(1.0, np.zeros(1), np.ones(1), 0.05, 6).around(predicted, np.full(100, own * 100.0))[2]
        for own in (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 1e12)
    ]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(3.02 * 1_000, rel=0.01)


def test_customers_of_whom_nothing_is_expected_may_still_spend():
    actual, predicted = np.r_[np.zeros(900), np.full(100, 40.0)], np.zeros(1_000)
    sums = fit_sums([(actual, predicted)])
    point, lower, upper = sums.around(predicted[:50], sums.variance(predicted[:50]))
    assert (point, lower) == (0.0, 0.0)
    assert upper > 50


def test_they_survive_json_and_refuse_no_rows():
    sums = fit_sums([window(4)])
    text = json.dumps(sums.as_json(), allow_nan=False)
    assert json.dumps(SumIntervals.from_json(json.loads(text)).as_json()) == text
    with pytest.raises(ValueError, match="No rows"):
        fit_sums([(np.zeros(0), np.zeros(0))])


def test_whoever_serves_sums_does_not_load_all_of_scipys_distributions():
    program = "import sys, ml_pipeline.spend_sums; sys.exit('scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_who_was_expected_to_spend_nothing_does_not_blow_up_the_variance_of_the_others():
    predicted = np.r_[np.full(50, 0.01), np.full(100, 100.0)]
    actual = np.r_[50.0, np.zeros(49), np.full(100, 100.0)]
    sums = fit_sums([(actual, predicted)])
    assert sums.variance(np.array([100.0]))[0] < 50.0**2


def test_what_is_known_from_few_windows_is_told_less_surely():
    predicted = np.full(1_000_000, 50.0)

    def width(windows):
        sums = SumIntervals(1.0, np.array([0.0]), np.array([1.0]), common=0.1, windows=windows)
        point, lower, _ = sums.around(predicted, sums.variance(predicted))
        return (point - lower) / point

    assert width(1_000_000) == pytest.approx(0.1 * 1.2816, rel=0.01)
    assert width(4) == pytest.approx(0.1 * 1.5332, rel=0.01)


def test_few_windows_do_not_widen_what_is_each_customers_own():
    few = SumIntervals(1.0, np.array([0.0]), np.array([4.0]), common=0.02, windows=3)
    many = SumIntervals(1.0, np.array([0.0]), np.array([4.0]), common=0.02, windows=1_000_000)
    predicted = np.full(20, 50.0)
    one, other = (sums.around(predicted, sums.variance(predicted)) for sums in (few, many))
    assert one == pytest.approx(other, rel=1e-3)
