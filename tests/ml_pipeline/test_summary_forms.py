import numpy as np
import pytest

from ml_pipeline.rules import RULE_BY_NAME, purchase_heuristic, spend_history
from ml_pipeline.summary_columns import column_of, select_summary, summary_columns, summary_matrix, with_implied
from ml_pipeline.summary_forms import (
    EIGHTEEN,
    FORMS,
    INPUTS_OF_FORM,
    RULE_INPUTS,
    SEVEN,
    SIX,
    as_form,
    form_of,
    heuristic_spend,
    rule_spend,
    rules_of_form,
)

TARGETS = ("grocery",)


def matrix_of(*rows):
    return summary_matrix(rows, TARGETS, {"Grocery": "grocery"})


def whole_rows(n=50, seed=1):
    """Rows of which everything is known, of at least two transactions."""
    rng = np.random.default_rng(seed)
    matrix = rng.gamma(2.0, 20.0, (n, len(summary_columns(TARGETS)))).astype(np.float32)
    rows = []
    for values in matrix:
        row = dict(zip(INPUTS_OF_FORM[EIGHTEEN][:-1], values.astype(float), strict=False))
        rows.append(row | {"transactions": 3.0, "total_items": 9.0, "avg_days_between": 5.0, "dominant_category": "x"})
    return matrix_of(*rows)


@pytest.mark.parametrize(
    ("row", "form"),
    [
        ({"spend_90d": 5.0}, EIGHTEEN),
        ({"spend_30d": 0.0, "days_since_first": 9}, EIGHTEEN),
        ({"days_since_first": 9, "transactions_30d": 2}, SEVEN),
        ({"transactions": 3, "days_since_last": 4}, SIX),
        ({}, SIX),
    ],
)
def test_a_row_s_form_is_told_by_what_is_known_of_it(row, form):
    assert FORMS[form_of(matrix_of(row))[0]] == form


@pytest.mark.parametrize("form", FORMS)
def test_a_complete_row_cut_down_to_a_form_is_of_that_form(form):
    cut = as_form(whole_rows(), form, TARGETS)
    assert (form_of(cut) == FORMS.index(form)).all()
    told = sum(name != "dominant_category" for name in INPUTS_OF_FORM[form]) + (form == EIGHTEEN) * len(TARGETS)
    assert (~np.isnan(cut)).sum(axis=1).tolist() == [told] * len(cut)


def test_each_form_allows_the_rules_that_its_numbers_suffice_for():
    assert rules_of_form(SIX) == ("zero", "mean")
    assert rules_of_form(SEVEN) == ("zero", "mean", "lifetime_rate_x_30")
    assert rules_of_form(EIGHTEEN) == ("zero", "mean", "last_30_days", "last_90_days_over_3", "lifetime_rate_x_30")
    assert RULE_INPUTS["lifetime_rate_x_30"] == ("days_since_first", "total_spend")


@pytest.mark.parametrize("name", RULE_INPUTS)
def test_a_rule_says_of_a_summary_what_it_says_of_the_features(name, trained_shop):
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    features = features[~np.isnan(features).all(axis=1)]
    metadata = trained_shop.predictor.metadata
    history = spend_history(features, metadata.features, metadata.targets, "total")
    summary = select_summary(features, metadata.features, metadata.targets)
    np.testing.assert_array_equal(rule_spend(name, summary, 7.0), RULE_BY_NAME[name].predict(history, 7.0))


def test_the_rule_of_thumb_is_its_probability_times_the_mean_value():
    row = matrix_of({"days_since_last": 4, "transactions": 7, "avg_transaction_value": 49.3})
    np.testing.assert_allclose(heuristic_spend(row), purchase_heuristic(4, 7) * 49.3, rtol=1e-6)


def test_what_follows_from_what_is_known_is_known_and_nothing_else_changes():
    given = matrix_of(
        {"transactions": 5, "days_since_last": 30, "days_since_first": 180, "total_spend": 1500},
        {
            "transactions": 4,
            "avg_transaction_value": 10,
            "avg_days_between": 7,
            "days_since_last": 1,
            "days_since_first": 9,
        },
        {"transactions": 1, "days_since_last": 3, "days_since_first": 3, "total_spend": 20},
        {"total_spend": 20, "days_since_first": 3},
    )
    full = with_implied(given)
    nan = np.nan
    np.testing.assert_array_equal(column_of(full, "avg_days_between"), [37.5, 7, nan, nan])
    np.testing.assert_array_equal(column_of(full, "avg_transaction_value"), [300, 10, 20, nan])
    np.testing.assert_array_equal(column_of(full, "total_spend"), [1500, 40, 20, 20])
    known = ~np.isnan(given)
    np.testing.assert_array_equal(full[known], given[known])


def test_the_implied_gap_is_the_feature_bit_for_bit(trained_shop):
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    metadata = trained_shop.predictor.metadata
    summary = select_summary(features, metadata.features, metadata.targets)
    place = summary_columns(metadata.targets).index("avg_days_between_transactions")
    blank = summary.copy()
    blank[:, place] = np.nan
    np.testing.assert_array_equal(with_implied(blank)[:, place], summary[:, place])
