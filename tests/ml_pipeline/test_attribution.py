"""The algebra of reasons: whatever numbers are made of, the reasons add up to them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.attribution import (
    SMALLEST,
    Attributed,
    Contributions,
    arithmetic,
    carried,
    geometric,
    log_mean,
    of_contributions,
    of_logit,
    product,
    rescale,
    scaled_to,
    split,
    through_any,
    total,
)

N, F = 5, 4


def number(seed, zero=False):
    """A number with random reasons: at its baseline for the first customer, nothing for the second if told so."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(0, 1, (N, F)) * np.array([[0.0], [1.0], [1e-9], [0.1], [3.0]])
    found = of_contributions(Contributions("log", float(rng.normal(2, 2)), parts))
    return carried(found, lambda value: np.where(np.arange(len(value)) == 1, 0.0, value)) if zero else found


def level(value):
    """Some correction by level that is not a power."""
    return value * (1 + 0.5 * np.tanh(np.log(value)))


def assert_adds_up(found):
    size = np.abs(found.logs).sum(axis=1)
    np.testing.assert_array_less(np.abs(found.logs.sum(axis=1) - found.distance), 1e-9 * (1 + size))
    size = np.abs(found.money).sum(axis=1) + found.baseline
    np.testing.assert_array_less(np.abs(found.money.sum(axis=1) - (found.value - found.baseline)), 1e-9 * size)


formulas = st.recursive(
    st.integers(0, 10_000).map(lambda seed: ("number", seed)),
    lambda inner: st.one_of(
        st.tuples(
            st.sampled_from(["geometric", "arithmetic", "product", "total"]), st.lists(inner, min_size=1, max_size=3)
        ),
        st.tuples(st.just("level"), inner),
        st.tuples(st.just("scaled"), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def build(formula):
    """The attributed number of a formula, its value computed by plain arithmetic, and its baseline."""
    kind, inner = formula
    if kind == "number":
        found = number(inner)
        return found, found.value, np.array([found.baseline])
    if kind == "level":
        found, value, base = build(inner)
        return carried(found, level), level(value), level(base)
    parts = [build(each) for each in inner]
    plain = {
        "geometric": lambda values: np.prod(values, axis=0) ** (1 / len(values)),
        "arithmetic": lambda values: np.mean(values, axis=0),
        "product": lambda values: np.prod(values, axis=0),
        "total": lambda values: np.sum(values, axis=0),
        "scaled": lambda values: values[0] * values[-1] / np.sum(values, axis=0),
    }[kind]
    numbers = [part[0] for part in parts]
    combined = {
        "geometric": lambda: geometric(numbers),
        "arithmetic": lambda: arithmetic(numbers),
        "product": lambda: product(numbers),
        "total": lambda: total(numbers),
        "scaled": lambda: scaled_to(numbers, numbers[-1])[0],
    }[kind]()
    return combined, plain([part[1] for part in parts]), plain([part[2] for part in parts])


@settings(max_examples=150, deadline=None)
@given(formulas)
def test_the_reasons_of_any_formula_add_up_to_its_number(formula):
    found, value, base = build(formula)
    np.testing.assert_allclose(found.value, value, rtol=1e-9)
    assert found.baseline == pytest.approx(base[0], rel=1e-9)
    assert_adds_up(found)


@settings(max_examples=50, deadline=None)
@given(formulas, st.integers(0, F - 1))
def test_a_feature_that_is_no_reason_of_any_part_is_none_of_the_whole(formula, silent):
    def muted(each):
        kind, inner = each
        if kind == "number":
            return quiet(number(inner))
        return {
            "level": lambda: carried(muted(inner), level),
            "scaled": lambda: scaled_to([muted(one) for one in inner], muted(inner[-1]))[0],
            "geometric": lambda: geometric([muted(one) for one in inner]),
            "arithmetic": lambda: arithmetic([muted(one) for one in inner]),
            "product": lambda: product([muted(one) for one in inner]),
            "total": lambda: total([muted(one) for one in inner]),
        }[kind]()

    def quiet(found):
        parts = found.logs.copy()
        parts[:, silent] = 0.0
        return of_contributions(Contributions("log", float(np.log(found.baseline)), parts))

    assert (muted(formula).money[:, silent] == 0).all()


def test_a_number_of_one_customer_has_the_reasons_that_it_has_among_all():
    def made(rows):
        numbers = [of_contributions(Contributions("log", 1.5 * seed, number(seed).logs[rows])) for seed in (1, 2, 3)]
        whole = carried(geometric(numbers), level)
        return np.stack([*(each.money for each in scaled_to(numbers, whole)), *through_any(numbers, shares)])

    together = made(slice(None))
    for row in range(N):
        np.testing.assert_array_equal(made(slice(row, row + 1))[:, 0], together[:, row])


def shares(values):
    """Like a reconciliation: the first stays, the others are scaled to it."""
    return np.column_stack([values[:, 0], values[:, 1:] * (values[:, 0] / values[:, 1:].sum(axis=1))[:, None]])


def test_the_logarithmic_mean_lies_between_both_and_is_both_where_they_are_equal():
    value = np.array([1.0, 4.0, 4.0 * (1 + 1e-13), 4.0 * (1 + 1e-7), 100.0, SMALLEST])
    found = log_mean(value, 4.0)
    assert found[1] == 4.0
    assert found[2] == pytest.approx(4.0, rel=1e-12)
    assert found[3] == pytest.approx(4.0 * (1 + 5e-8), rel=1e-12)
    assert found[0] == pytest.approx((1 - 4) / np.log(1 / 4))
    assert found[4] == pytest.approx(96 / np.log(25))
    assert 0 < found[5] < 0.1


def test_a_number_of_nothing_has_lost_its_whole_baseline():
    found = number(3, zero=True)
    assert found.money[1].sum() == pytest.approx(-found.baseline, rel=1e-9)
    mixed = geometric([found, number(4)])
    assert mixed.value[1] < 1e-10
    assert mixed.money[1].sum() == pytest.approx(-mixed.baseline, rel=1e-9)


def test_money_that_falls_below_nothing_is_cut_off_from_all_reasons_alike():
    found = of_contributions(Contributions("money", 10.0, np.array([[-5.0, -15.0], [5.0, -3.0], [0.0, 0.0]])))
    np.testing.assert_allclose(found.value, [SMALLEST, 12.0, 10.0])
    np.testing.assert_allclose(found.money, [[-2.5, -7.5], [5.0, -3.0], [0.0, 0.0]], atol=1e-12)


def test_a_baseline_below_nothing_is_nothing():
    found = of_contributions(Contributions("money", -2.0, np.array([[6.0, -1.0]])))
    assert found.baseline == SMALLEST
    np.testing.assert_allclose(found.money, [[3.6, -0.6]])


def test_a_probability_stretches_the_reasons_of_its_logit_evenly():
    found = of_logit(
        Contributions("logit", -1.0, np.array([[2.0, -1.0], [0.0, 0.0]])), lambda logit: 1 / (1 + np.exp(-logit))
    )
    assert found.logs[0, 0] == pytest.approx(-2 * found.logs[0, 1])
    assert (found.logs[1] == 0).all()
    assert_adds_up(found)


def test_what_is_no_money_is_refused_as_money_and_the_other_way():
    with pytest.raises(ValueError, match="'logit' are not money"):
        of_contributions(Contributions("logit", 0.0, np.zeros((1, 1))))
    with pytest.raises(ValueError, match="'log' are no logit"):
        of_logit(Contributions("log", 0.0, np.zeros((1, 1))), np.exp)


def test_reasons_of_nothing_stay_as_they_are():
    assert rescale(np.array([0.0, 2.0]), np.array([0.0, 6.0])).tolist() == [1.0, 3.0]


def test_what_hangs_on_several_features_is_split_by_their_weights():
    found = split(np.array([20.0, 0.0]), 5.0, np.array([[0.25, 0.75, 0, 0], [0.5, 0.5, 0, 0]]))
    np.testing.assert_allclose(found.money, [[3.75, 11.25, 0, 0], [-2.5, -2.5, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_any_step_hands_on_exactly_what_it_changes(seed):
    numbers = [number(10 * seed + index, zero=index == 2) for index in range(4)]

    def step(values):
        floored = np.maximum(shares(values) - [0.0, 0.5, 0.0, 0.0], 0.0)
        return np.column_stack([floored, values.min(axis=1)])

    values = np.column_stack([each.value for each in numbers])
    start = np.array([[each.baseline for each in numbers]])
    gained = step(values) - step(start)
    for output, reasons in enumerate(through_any(numbers, step)):
        size = np.abs(reasons).sum(axis=1) + 1
        np.testing.assert_array_less(np.abs(reasons.sum(axis=1) - gained[:, output]), 1e-9 * size)


def test_a_step_that_only_adds_hands_on_what_the_algebra_does():
    numbers = [number(seed) for seed in (1, 2, 3)]
    found = through_any(numbers, lambda values: values @ np.array([[1.0], [2.0], [0.5]]))[0]
    expected = numbers[0].money + 2 * numbers[1].money + 0.5 * numbers[2].money
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)


def test_a_step_that_scales_is_seen_alike_by_the_algebra_near_the_baseline():
    """Both are the same derivative; far away they share the interaction out in two ways."""
    numbers = [
        Attributed(base * np.exp(logs.sum(axis=1)), base, logs)
        for base, logs in ((30.0, SMALL_LOGS), (10.0, SMALL_LOGS[:, ::-1]), (15.0, -SMALL_LOGS[:, [1, 0, 3, 2]]))
    ]
    exact = [each.money for each in scaled_to(numbers[1:], numbers[0])]
    for one, other in zip(through_any(numbers, shares)[1:], exact, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-4 * np.abs(other).max())


SMALL_LOGS = np.random.default_rng(1).normal(0, 1e-4, (N, F))
