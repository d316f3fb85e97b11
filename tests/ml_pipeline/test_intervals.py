import json

import numpy as np
import pytest

from ml_pipeline.intervals import (
    SHARES,
    Amounts,
    Intervals,
    conformal_quantile,
    fit_intervals,
    interval_ends,
    neighbourhoods,
    within_total,
)
from ml_pipeline.metrics import decile_of, interval_score


def drawn(n, seed):
    """Actual and predicted spend and the probability of buying; the amount of a buyer is predicted / probability."""
    rng = np.random.default_rng(seed)
    predicted, probability = rng.gamma(1.0, 200.0, n), rng.uniform(0.3, 1.0, n)
    return (
        np.where(rng.random(n) < probability, rng.gamma(2.0, predicted / probability / 2), 0.0),
        predicted,
        probability,
    )


def lively(seed):
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(2.0, 200.0, 20_000) + 50
    return rng.gamma(9.0, predicted / 9), predicted


def shares_by_decile(wrong, predicted):
    return np.bincount(decile_of(predicted), wrong, 10) / np.bincount(decile_of(predicted), minlength=10)


@pytest.mark.parametrize("with_probability", [False, True])
def test_new_customers_of_every_level_lie_above_as_rarely_as_said(with_probability):
    past, (actual, predicted, probability) = drawn(20_000, 1), drawn(20_000, 2)
    intervals = fit_intervals(*past) if with_probability else fit_intervals(*past[:2])
    _, upper = intervals.around(predicted, probability if with_probability else None)
    assert shares_by_decile(actual > upper, predicted) == pytest.approx(np.full(10, 0.1), abs=0.025)


def test_no_more_than_a_tenth_lies_below_the_interval_where_spend_is_never_zero():
    """With spends of 0 among them the lower end is 0 and says nothing; here it must do its work."""
    intervals = fit_intervals(*lively(1))
    actual, predicted = lively(2)
    lower, _ = intervals.around(predicted)
    assert shares_by_decile(actual < lower, predicted) == pytest.approx(np.full(10, 0.1), abs=0.025)


def test_with_a_probability_the_interval_is_sharper_and_wider_for_who_seldom_buys():
    past, (actual, predicted, probability) = drawn(20_000, 1), drawn(20_000, 2)
    plain = fit_intervals(*past[:2]).around(predicted)
    knowing = fit_intervals(*past)
    assert interval_score(actual, *knowing.around(predicted, probability)) < interval_score(actual, *plain)
    lower, upper = knowing.around(np.array([200.0, 200.0]), np.array([0.4, 0.99]))
    assert upper[0] > upper[1]
    assert lower[0] == 0 < lower[1]


def test_a_prediction_alone_has_the_interval_that_it_has_among_others():
    _, predicted, probability = drawn(500, 5)
    intervals = fit_intervals(*drawn(5_000, 1))
    lower, upper = intervals.around(predicted, probability)
    for row in range(0, 500, 97):
        alone = intervals.around(predicted[row : row + 1], probability[row : row + 1])
        assert (alone[0][0], alone[1][0]) == (lower[row], upper[row])


def test_the_currency_has_no_say():
    actual, predicted, probability = drawn(3_000, 6)
    lower, upper = fit_intervals(actual, predicted, probability).around(predicted, probability)
    scaled = fit_intervals(actual * 1e6, predicted * 1e6, probability).around(predicted * 1e6, probability)
    assert scaled[0] == pytest.approx(lower * 1e6, rel=1e-9)
    assert scaled[1] == pytest.approx(upper * 1e6, rel=1e-9)


def test_the_ends_stand_in_order_and_never_below_zero():
    predicted = np.r_[0.0, np.geomspace(1e-3, 1e6, 200)]
    probability = np.linspace(0.0, 1.0, 201)
    for intervals in (
        fit_intervals(*drawn(2_000, 3)),
        fit_intervals(*drawn(2_000, 3)[:2]),
        fit_intervals(*drawn(3, 3)),
    ):
        lower, upper = intervals.around(predicted, probability)
        assert (lower >= 0).all()
        assert (lower <= predicted).all()
        assert (predicted <= upper).all()
        assert np.isfinite(upper).all()


def test_predictions_of_zero_have_an_upper_end_from_what_such_customers_spent():
    actual = np.r_[np.zeros(850), np.full(150, 30.0), np.full(1_000, 50.0)]
    predicted = np.r_[np.zeros(1_000), np.full(1_000, 50.0)]
    lower, upper = fit_intervals(actual, predicted).around(np.array([0.0, 50.0]))
    assert lower.tolist() == [0.0, 50.0]
    assert upper == pytest.approx([30.0, 50.0])


def test_where_many_share_a_prediction_they_are_a_level_of_their_own():
    predicted = np.r_[np.zeros(900), np.arange(1.0, 101.0)]
    groups = neighbourhoods(predicted, 0.15)
    assert [len(rows) for rows in groups if predicted[rows].max() == 0] == [900]
    assert all(predicted[rows].min() > 0 for rows in groups[1:])
    assert {row for rows in groups for row in rows.tolist()} == set(range(1_000))


def test_a_constant_prediction_has_one_level():
    intervals = fit_intervals(np.arange(100.0), np.full(100, 10.0))
    assert len(intervals.middles) == 1
    lower, upper = intervals.around(np.array([10.0]))
    assert 8 <= lower[0] <= 10 <= 88 <= upper[0] <= 92


def test_where_everybody_always_spends_the_same_the_interval_is_that_amount():
    intervals = fit_intervals(np.full(300, 25.0), np.full(300, 25.0), np.full(300, 0.999))
    lower, upper = intervals.around(np.array([25.0]), np.array([0.999]))
    assert (lower[0], upper[0]) == pytest.approx((25.0, 25.0), rel=0.011)


def test_many_who_spend_nothing_stay_inside_when_a_constant_moves():
    actual = np.where(np.arange(1000) % 3 == 0, 120.0, 0.0)
    intervals = fit_intervals(actual, np.full(1000, 40.0))
    lower, upper = intervals.around(np.full(1000, 41.0))
    assert lower.max() == 0
    assert ((actual >= lower) & (actual <= upper)).mean() >= 0.8


def test_parts_are_never_surer_of_more_than_the_whole():
    predicted = np.array([[100.0, 60.0, 40.0], [0.0, 0.0, 0.0]])
    lower, upper = within_total(
        np.array([[20.0, 50.0, 0.0], [0.0, 0.0, 0.0]]), np.array([[150.0, 200.0, 90.0], [5.0, 9.0, 0.0]]), predicted
    )
    assert lower.tolist() == [[20.0, 20.0, 0.0], [0.0, 0.0, 0.0]]
    assert upper.tolist() == [[150.0, 150.0, 90.0], [5.0, 5.0, 0.0]]


def test_only_intervals_that_learned_with_the_probability_ask_for_it():
    actual, predicted, probability = drawn(2_000, 7)
    intervals = {"total": fit_intervals(actual, predicted, probability), "other": fit_intervals(actual, predicted)}
    both = np.column_stack([predicted, predicted])
    lower, upper = interval_ends(intervals, both, probability)
    assert (upper[:, 0] == intervals["total"].around(predicted, probability)[1]).all()
    assert (lower <= both).all()
    with pytest.raises(ValueError, match="probability"):
        intervals["total"].around(predicted)


def test_quantiles_of_a_customer_count_the_times_that_nothing_is_bought():
    amounts = Amounts(np.log([100.0]), np.array([SHARES * 2]))
    assert amounts.mixture_quantile(np.array([50.0]), np.array([0.5]), 0.5).tolist() == [0.0]
    assert amounts.mixture_quantile(np.array([50.0]), np.array([0.5]), 0.75) == pytest.approx([0.5 * 2 * 100.0])


@pytest.mark.parametrize(("n", "lower", "upper"), [(9, 1, 9), (10, 1, 10), (99, 10, 90), (100, 10, 91)])
def test_the_ranks_of_the_ends_are_taken_over_one_more_than_there_are(n, lower, upper):
    scores = np.arange(1.0, n + 1)[::-1]
    assert conformal_quantile(scores, 0.1, safe="lower") == lower
    assert conformal_quantile(scores, 0.9, safe="higher") == upper


def test_a_handful_of_rows_proves_no_precision():
    assert conformal_quantile(np.full(8, 1.0), 0.1, safe="lower") == 0
    lower, upper = fit_intervals(np.full(2, 30.0), np.full(2, 30.0)).around(np.array([30.0]))
    assert lower[0] == 0
    assert upper[0] >= 60


def test_they_survive_json():
    for fitted in (fit_intervals(*drawn(3_000, 4)), fit_intervals(*drawn(500, 4)[:2])):
        text = json.dumps(fitted.as_json(), allow_nan=False)
        assert json.dumps(Intervals.from_json(json.loads(text)).as_json()) == text


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="No rows"):
        fit_intervals(np.zeros(0), np.zeros(0))
