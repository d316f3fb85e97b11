"""How total and parts are made to agree, by each method, and which method serves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_pipeline.backtest import Agreement
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.metrics import score
from ml_pipeline.reconcile import (
    BOTTOM_UP,
    HALF_AND_HALF,
    LEAST_SHRINKAGE,
    MINT,
    PLAIN_METHODS,
    TOP_DOWN,
    fit_mint,
    reconcile,
    reconcile_parts,
    to_cents,
)
from ml_pipeline.reconciliation_choice import (
    LOSS_ALLOWED,
    SMALLEST_SCORE,
    ToldWindow,
    choose_reconciliation,
    gains_of,
    method_called,
    methods_learned,
)
from ml_pipeline.reconciliation_report import report_reconciliation

money = st.floats(0, 1e7, allow_subnormal=False)
some_parts = st.integers(1, 6).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.integers(1, 8), st.just(k)), elements=money)
)
THREE = np.array([0.5, 0.3, 0.2])


def made_up_mint(k, seed=0):
    rng = np.random.default_rng(seed)
    predicted = rng.gamma(1.0, 50.0, (300, 1 + k))
    return fit_mint(predicted, predicted * rng.gamma(4.0, 0.25, predicted.shape))


def every_method(k):
    return (*PLAIN_METHODS, made_up_mint(k))


# Each method


@given(some_parts, st.data())
def test_by_every_method_the_parts_add_up_to_the_total_and_nothing_is_below_zero(parts, data):
    total = data.draw(arrays(np.float64, len(parts), elements=money))
    shares = np.full(parts.shape[1], 1 / parts.shape[1])
    for method in every_method(parts.shape[1]):
        agreed = reconcile(method, total, parts, shares)
        assert agreed.shape == (len(parts), 1 + parts.shape[1])
        assert np.isfinite(agreed).all()
        assert (agreed >= 0).all()
        np.testing.assert_allclose(agreed[:, 1:].sum(axis=1), agreed[:, 0], rtol=1e-9, atol=1e-9)


def test_top_down_keeps_the_total_bottom_up_the_parts_and_half_and_half_meets_in_the_middle():
    total, parts = np.array([100.0]), np.array([[60.0, 30.0, 30.0]])
    assert reconcile({"name": TOP_DOWN}, total, parts, THREE).tolist() == [[100.0, 50.0, 25.0, 25.0]]
    assert reconcile({"name": BOTTOM_UP}, total, parts, THREE).tolist() == [[120.0, 60.0, 30.0, 30.0]]
    np.testing.assert_allclose(
        reconcile({"name": HALF_AND_HALF}, total, parts, THREE), [[110.0, 55.0, 27.5, 27.5]], rtol=1e-12
    )


def test_bottom_up_keeps_the_parts_to_the_last_bit():
    parts = np.random.default_rng(0).gamma(0.3, 50.0, (500, 7))
    agreed = reconcile({"name": BOTTOM_UP}, parts.sum(axis=1) * 1.1, parts, np.full(7, 1 / 7))
    np.testing.assert_array_equal(agreed[:, 1:], parts)


def test_mint_without_correlations_shares_the_gap_out_by_variance():
    """Errors of 10 %, 20 % and 30 % of 100, 50 and 60: the gap of -10 goes by 100 : 100 : 324."""
    method = {"name": MINT, "floors": [0.01] * 3, "covariance": np.diag([0.01, 0.04, 0.09]).tolist()}
    agreed = reconcile(method, np.array([100.0]), np.array([[50.0, 60.0]]), np.array([0.5, 0.5]))
    moved = 10 / (100 + 100 + 324)
    np.testing.assert_allclose(agreed, [[100 + 100 * moved, 50 - 100 * moved, 60 - 324 * moved]], rtol=1e-12)


def test_mint_is_the_projection_of_the_paper():
    """ŷ − W C' (C W C')⁻¹ C ŷ with C = (1, −1, …, −1), written out for one customer."""
    method = made_up_mint(3)
    told = np.array([120.0, 40.0, 35.0, 30.0])
    scale = np.diag(np.maximum(told, method["floors"]))
    w = scale @ np.array(method["covariance"]) @ scale
    c = np.array([[1.0, -1.0, -1.0, -1.0]])
    expected = told - w @ c.T @ np.linalg.inv(c @ w @ c.T) @ c @ told
    assert (expected > 0).all()
    np.testing.assert_allclose(reconcile(method, told[:1], told[None, 1:], THREE)[0], expected, rtol=1e-9)


def test_a_customer_alone_gets_the_same_bits_as_among_all():
    rng = np.random.default_rng(2)
    for k in (2, 6, 12):
        parts, total = rng.gamma(0.4, 30.0, (200, k)), rng.gamma(0.4, 30.0 * k, 200)
        shares = np.full(k, 1 / k)
        for method in every_method(k):
            among_all = reconcile(method, total, parts, shares)
            alone = [reconcile(method, total[i : i + 1], parts[i : i + 1], shares)[0] for i in range(200)]
            np.testing.assert_array_equal(among_all, alone, err_msg=method["name"])


def test_whoever_adds_up_already_stays_as_he_is_by_every_method():
    parts = np.random.default_rng(3).integers(0, 40, (50, 3)).astype(float)
    for method in every_method(3):
        agreed = reconcile(method, parts.sum(axis=1), parts, THREE)
        np.testing.assert_array_equal(agreed, np.column_stack([parts.sum(axis=1), parts]), err_msg=method["name"])


def test_without_named_targets_the_total_stays_to_the_last_bit_and_other_is_the_total():
    total, other = np.array([0.1, 7.3, 0.0]), np.array([[0.3], [7.1], [5.0]])
    for method in every_method(1):
        agreed = reconcile(method, total, other, np.ones(1))
        np.testing.assert_array_equal(agreed, np.column_stack([total, total]))


def test_parts_that_are_all_zero_say_nothing_the_total_stays_and_the_usual_shares_apply():
    for method in every_method(2):
        agreed = reconcile(method, np.array([100.0, 0.0]), np.zeros((2, 2)), np.array([0.75, 0.25]))
        assert agreed.tolist() == [[100.0, 75.0, 25.0], [0.0, 0.0, 0.0]]


def test_a_total_of_zero_empties_the_parts_only_from_the_top():
    total, parts = np.zeros(1), np.array([[30.0, 10.0]])
    shares = np.array([0.5, 0.5])
    assert reconcile({"name": TOP_DOWN}, total, parts, shares).tolist() == [[0.0, 0.0, 0.0]]
    assert reconcile({"name": BOTTOM_UP}, total, parts, shares).tolist() == [[40.0, 30.0, 10.0]]
    assert reconcile({"name": HALF_AND_HALF}, total, parts, shares).tolist() == [[20.0, 15.0, 5.0]]


def test_a_method_that_this_code_does_not_know_is_refused_by_name():
    with pytest.raises(BundleMismatch, match="'by_feel': train again"):
        reconcile({"name": "by_feel"}, np.ones(1), np.ones((1, 2)), np.array([0.5, 0.5]))


# What MinT learns


def test_a_part_that_was_never_wrong_does_not_move():
    rng = np.random.default_rng(4)
    actual = rng.gamma(1.0, 20.0, (400, 3))
    predicted = np.column_stack([actual[:, 0] * rng.gamma(4, 0.25, 400), actual[:, 1], actual[:, 2] * 1.2])
    agreed = reconcile(fit_mint(predicted, actual), predicted[:, 0], predicted[:, 1:], np.array([0.5, 0.5]))
    inside = agreed[:, 2] > 0  # elsewhere all parts are scaled so that none is below 0
    assert inside.mean() > 0.5
    np.testing.assert_allclose(agreed[inside, 1], predicted[inside, 1], rtol=1e-9)


def test_one_wholesale_order_does_not_tell_how_large_errors_are_nor_how_they_go_together():
    rng = np.random.default_rng(5)
    predicted = rng.gamma(2.0, 20.0, (2_000, 3))
    actual = predicted * rng.gamma(4.0, 0.25, predicted.shape)
    actual[0] = 1e6
    learned = fit_mint(predicted, actual)
    assert np.abs(correlation_of(learned)[~np.eye(3, dtype=bool)]).max() < 0.1
    assert np.sqrt(np.diag(learned["covariance"])).max() < 1, "errors are half of the prediction, but for one order"


def correlation_of(method):
    covariance = np.array(method["covariance"])
    return covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))


def test_errors_that_always_go_together_are_not_taken_to_be_one():
    rng = np.random.default_rng(5)
    predicted = np.repeat(rng.gamma(2.0, 20.0, (2_000, 1)), 3, axis=1)
    actual = predicted * rng.gamma(4.0, 0.25, (2_000, 1))
    correlation = correlation_of(fit_mint(predicted, actual))
    np.testing.assert_allclose(correlation[~np.eye(3, dtype=bool)], 1 - LEAST_SHRINKAGE, rtol=1e-9)


def test_where_nothing_was_bought_nor_predicted_mint_still_agrees():
    nothing = np.zeros((50, 3))
    method = fit_mint(nothing, nothing)
    agreed = reconcile(method, np.array([9.0]), np.array([[2.0, 1.0]]), np.array([0.5, 0.5]))
    assert agreed.tolist() == [[9.0, 6.0, 3.0]]


# Which method serves


def shop(seed, total_noise, part_noise, *, common=0.3, n=1_500):
    """A window of a shop of which total and parts are predicted with separate errors beside one that all share."""
    rng = np.random.default_rng(seed)
    truth = rng.gamma(0.8, 60.0, (n, 1)) * rng.dirichlet([4.0, 2.0, 2.0], n)
    actual = truth * rng.gamma(2.0, 0.5, truth.shape)
    shared = np.exp(rng.normal(0, common, n))
    total = truth.sum(axis=1) * shared * np.exp(rng.normal(0, total_noise, n))
    parts = truth * shared[:, None] * np.exp(rng.normal(0, part_noise, truth.shape))
    return ToldWindow(
        np.column_stack([total, parts]), np.column_stack([actual.sum(axis=1), actual]), np.arange(n), THREE
    )


def chosen(*noise):
    methods = methods_learned([shop(1, *noise), shop(2, *noise)])
    return choose_reconciliation(methods, [shop(3, *noise), shop(4, *noise)], seed=0)


def test_where_the_total_is_known_well_and_the_parts_are_not_the_total_is_kept():
    choice = chosen(0.05, 0.9)
    assert choice.name in (TOP_DOWN, MINT)
    assert choice.gains[TOP_DOWN].mean() > choice.gains[BOTTOM_UP].mean()


def test_where_the_parts_are_known_well_and_the_total_is_not_the_parts_are_kept():
    choice = chosen(0.9, 0.05)
    assert choice.name in (BOTTOM_UP, MINT)
    assert choice.gains[BOTTOM_UP].min() >= -LOSS_ALLOWED > choice.gains[TOP_DOWN].min()


def test_nobody_loses_by_what_serves_while_there_is_a_method_by_which_nobody_does():
    for noise in ((0.05, 0.9), (0.9, 0.05), (0.4, 0.4), (0.2, 0.5)):
        choice = chosen(*noise)
        if any(gains.min() >= -LOSS_ALLOWED for gains in choice.gains.values()):
            assert choice.gains[choice.name].min() >= -LOSS_ALLOWED


def test_where_every_method_costs_somebody_more_the_one_whose_greatest_loss_is_least_serves():
    window = shop(3, 0.3, 0.3)
    wrong = ToldWindow(window.predicted * [1.0, 1.6, 0.3, 1.0], window.actual, window.customer, THREE)
    costly = [{"name": TOP_DOWN}, {"name": HALF_AND_HALF}]
    gains = {each["name"]: gains_of(each, [wrong]) for each in costly}
    assert max(each.min() for each in gains.values()) < -LOSS_ALLOWED
    choice = choose_reconciliation(costly, [wrong], seed=0)
    assert choice.name == max(gains, key=lambda name: gains[name].min())
    assert "costs least" in choice.why


def test_a_lead_that_chance_may_have_given_does_not_let_the_learned_method_serve():
    """Learned on a window of 100 customers and ahead on 100 others."""
    close = []
    for seed in range(12):
        methods = methods_learned([shop(100 + seed, 0.2, 0.35, n=100)])
        choice = choose_reconciliation(methods, [shop(200 + seed, 0.2, 0.35, n=100)], seed=0)
        assert choice.name != MINT or "by more than chance" in choice.why or "costs least" in choice.why
        if "Chance alone may have put mint" in choice.why:
            close.append(choice)
    assert close
    for choice in close:
        assert choice.name != MINT
        assert choice.gains[MINT].mean() > choice.gains[choice.name].mean()


def test_the_learned_method_serves_where_it_is_clearly_ahead():
    choice = chosen(0.3, 0.5)
    assert (choice.name, choice.why) == (MINT, "Its mean gain is the highest, by more than chance gives.")


def test_of_simple_methods_between_which_chance_decides_the_one_whose_greatest_loss_is_least_serves():
    found = [choose_reconciliation(PLAIN_METHODS, [shop(seed, 0.3, 0.3, n=60)], seed=0) for seed in range(20)]
    close = [choice for choice in found if "greatest loss is the least" in choice.why]
    assert any(
        choice.gains[choice.name].mean() < max(each.mean() for each in choice.gains.values()) for choice in close
    )
    for choice in close:
        rivals = [name for name in choice.gains if f" {name}" in choice.why]
        assert choice.gains[choice.name].min() >= max(choice.gains[name].min() for name in rivals)


def test_where_total_and_parts_agree_already_the_total_is_kept_and_nothing_is_judged():
    window = shop(3, 0.3, 0.3)
    parts = window.predicted[:, 1:]
    rounded = np.column_stack([parts.sum(axis=1) * (1 + 2e-7), parts])
    choice = choose_reconciliation(PLAIN_METHODS, [ToldWindow(rounded, window.actual, window.customer, THREE)], seed=0)
    assert (choice.name, choice.gains) == (TOP_DOWN, {})


def test_a_target_that_nobody_can_predict_does_not_decide_by_a_ratio_without_bounds():
    window = shop(3, 0.3, 0.3)
    predicted = np.column_stack([window.predicted[:, :3], np.full(1_500, window.actual[:, 3].mean())])
    hopeless = ToldWindow(predicted, window.actual, window.customer, THREE)
    before = score(window.actual[:, 3], predicted[:, 3])
    after = score(window.actual[:, 3], hopeless.agreed({"name": HALF_AND_HALF})[:, 3])
    assert abs(before) < SMALLEST_SCORE
    gain = gains_of({"name": HALF_AND_HALF}, [hopeless])[3]
    assert gain == pytest.approx((after - before) / SMALLEST_SCORE)


def test_before_anything_was_judged_only_methods_that_learn_nothing_take_part():
    assert methods_learned([]) == PLAIN_METHODS


# What is said of it


def test_the_report_has_every_method_with_its_metrics_before_and_after():
    windows = [shop(seed, 0.3, 0.3) for seed in (3, 4)]
    methods = methods_learned([shop(1, 0.3, 0.3)])
    choice = choose_reconciliation(methods, windows[:1], seed=0)
    told = dict(zip(("a", "b"), windows, strict=True))
    report = report_reconciliation(
        Agreement(choice, method_called(choice.name, methods), methods, told), ("total", "x", "y", "other")
    )
    assert set(report["tried"]) == {TOP_DOWN, BOTTOM_UP, HALF_AND_HALF, MINT}
    for target in ("x", "y", "other"):
        assert report["tried"][BOTTOM_UP]["metrics"][target] == report["before"][target]
    assert report["tried"][TOP_DOWN]["metrics"]["total"] == report["before"]["total"]
    assert report["tried"][TOP_DOWN]["report_gains"]["total"] == 0.0
    assert report["tried"][TOP_DOWN]["report_gains"]["x"] != 0.0


def test_without_named_targets_the_report_says_that_there_is_nothing_to_agree():
    report = report_reconciliation(Agreement(), ("total", "other"))
    assert (report["method"], report["tried"], report["before"]) == (TOP_DOWN, {}, {})


# Parts, and cents


@given(some_parts, st.data())
def test_parts_scale_to_the_total_and_stay_in_proportion(parts, data):
    total = data.draw(arrays(np.float64, len(parts), elements=money))
    shares = np.full(parts.shape[1], 1 / parts.shape[1])
    agreed = reconcile_parts(total, parts, shares)
    assert (agreed >= 0).all()
    np.testing.assert_allclose(agreed.sum(axis=1), total, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(agreed * parts.sum(axis=1, keepdims=True), parts * total[:, None], rtol=1e-9, atol=1e-3)


@given(some_parts)
def test_the_displayed_cents_add_up_and_each_is_within_a_cent(parts):
    total = parts.sum(axis=1)
    cents = to_cents(total, parts)
    assert cents.dtype == np.int64
    assert (cents >= 0).all()
    np.testing.assert_array_equal(cents[:, 1:].sum(axis=1), cents[:, 0])
    np.testing.assert_array_equal(cents[:, 0], np.rint(total * 100))
    assert (np.abs(cents[:, 1:] - parts * 100) <= 1.5 + 1e-6).all()


def test_where_all_parts_are_zero_the_usual_shares_apply():
    agreed = reconcile_parts(np.array([100.0, 0.0]), np.zeros((2, 2)), np.array([0.75, 0.25]))
    assert agreed.tolist() == [[75.0, 25.0], [0.0, 0.0]]


def test_a_third_of_a_euro_is_given_out_to_the_last_cent():
    assert to_cents(np.array([1.0]), np.full((1, 3), 1 / 3)).tolist() == [[100, 34, 33, 33]]
