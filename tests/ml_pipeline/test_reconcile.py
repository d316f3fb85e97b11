import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ml_pipeline.reconcile import reconcile_parts, to_cents

money = st.floats(0, 1e7, allow_subnormal=False)
some_parts = st.integers(1, 6).flatmap(
    lambda k: arrays(np.float64, st.tuples(st.integers(1, 8), st.just(k)), elements=money)
)


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
