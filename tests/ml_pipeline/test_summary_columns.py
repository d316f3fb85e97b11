import numpy as np
import pytest

from ml_pipeline.features import feature_names
from ml_pipeline.summary_columns import (
    SUMMARY_INPUTS,
    columns_of_inputs,
    select_summary,
    summary_columns,
    summary_matrix,
)

TARGETS = ("electronics", "grocery")
CATEGORIES = {"Electronics": "electronics", " phones": "electronics", "GROCERY": "grocery"}


def matrix_of(*rows):
    return summary_matrix(rows, TARGETS, CATEGORIES)


def test_the_columns_are_features_of_the_full_model_in_the_order_of_the_inputs():
    columns = summary_columns(TARGETS)
    assert set(columns) < set(feature_names(TARGETS))
    assert columns == columns_of_inputs(SUMMARY_INPUTS, TARGETS)
    assert columns[0] == "days_since_last_transaction"
    assert columns[-2:] == ("favorite_category_electronics", "favorite_category_grocery")


def test_selecting_takes_the_very_columns():
    names = feature_names(TARGETS)
    features = np.arange(3 * len(names), dtype=np.float32).reshape(3, -1)
    chosen = select_summary(features, names, TARGETS)
    for index, name in enumerate(summary_columns(TARGETS)):
        np.testing.assert_array_equal(chosen[:, index], features[:, names.index(name)])


def test_what_is_absent_is_nan_and_never_0():
    matrix = matrix_of({"transactions": 5, "total_spend": 0}, {})
    known = ~np.isnan(matrix)
    assert known.sum(axis=1).tolist() == [2, 0]
    assert matrix[0, SUMMARY_INPUTS.index("transactions")] == 5
    assert matrix[0, SUMMARY_INPUTS.index("total_spend")] == 0
    assert matrix.dtype == np.float32


@pytest.mark.parametrize(
    ("category", "columns"),
    [
        ("Electronics", [1, 0]),
        (" ELECTRONICS ", [1, 0]),
        ("Phones", [1, 0]),
        ("grocery", [0, 1]),
        ("toys, never seen", [0, 0]),
        ("", [0, 0]),
    ],
)
def test_a_category_is_its_target_s_column_and_an_unseen_one_the_unknown_level(category, columns):
    assert matrix_of({"dominant_category": category})[0, -2:].tolist() == columns


def test_no_row_and_no_target_make_a_matrix_of_the_right_shape():
    assert summary_matrix([], TARGETS, CATEGORIES).shape == (0, len(summary_columns(TARGETS)))
    assert summary_matrix([{"dominant_category": "x"}], (), {}).shape == (1, len(summary_columns(())))


def test_a_misspelt_input_and_a_number_that_is_none_are_refused_by_name():
    with pytest.raises(ValueError, match=r"recency: no such summary input; they are days_since_last"):
        matrix_of({"recency": 3})
    with pytest.raises(ValueError, match=r"total_spend is inf"):
        matrix_of({"total_spend": 1}, {"total_spend": float("inf")})


def test_a_number_too_large_for_the_matrix_becomes_the_largest_there_is():
    assert np.isfinite(matrix_of({"total_spend": 1e300})[0, SUMMARY_INPUTS.index("total_spend")])
