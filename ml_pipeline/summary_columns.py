"""The few numbers that a caller may know of a customer, and the feature columns that they are.

The summary model learns from a selection of the very columns that the full models learn from: nothing is computed a second
time. A number that is not known is NaN, never 0; which of them are known may differ from row to row.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ml_pipeline.features import (
    AVG_DAYS_BETWEEN,
    AVG_TRANSACTION_VALUE,
    DAYS_SINCE_FIRST,
    DAYS_SINCE_LAST,
    LIFETIME_SPEND,
    NUM_DISTINCT_CATEGORIES,
    NUM_DISTINCT_PRODUCTS,
    TOTAL_ITEMS,
    TOTAL_TRANSACTIONS,
    favorite_category_name,
    spend_window_name,
    transaction_count_name,
)

Matrix = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]
Inputs = Mapping[str, float | str]

DOMINANT_CATEGORY = "dominant_category"

COLUMN_OF_INPUT: Mapping[str, str] = {
    "days_since_last": DAYS_SINCE_LAST,
    "days_since_first": DAYS_SINCE_FIRST,
    "transactions": TOTAL_TRANSACTIONS,
    "total_spend": LIFETIME_SPEND,
    "avg_transaction_value": AVG_TRANSACTION_VALUE,
    "avg_days_between": AVG_DAYS_BETWEEN,
    "spend_30d": spend_window_name(30),
    "spend_60d": spend_window_name(60),
    "spend_90d": spend_window_name(90),
    "transactions_30d": transaction_count_name(30),
    "transactions_60d": transaction_count_name(60),
    "transactions_90d": transaction_count_name(90),
    "distinct_products": NUM_DISTINCT_PRODUCTS,
    "distinct_categories": NUM_DISTINCT_CATEGORIES,
    "total_items": TOTAL_ITEMS,
}
"""The feature that each numeric input is, in the order of the matrix."""

SUMMARY_INPUTS: tuple[str, ...] = (*COLUMN_OF_INPUT, DOMINANT_CATEGORY)
"""Everything that may be known; the last is text, a product category as the shop writes it."""

_PLACE = {name: index for index, name in enumerate(COLUMN_OF_INPUT)}

LARGEST = float(np.finfo(np.float32).max)


def summary_columns(targets: Sequence[str]) -> tuple[str, ...]:
    """The features behind the inputs, in the order of the summary matrix: C of them."""
    return (*COLUMN_OF_INPUT.values(), *favorite_columns(targets))


def favorite_columns(targets: Sequence[str]) -> tuple[str, ...]:
    """The features that say which named target is a customer's favourite: the levels of the dominant category."""
    return tuple(favorite_category_name(target) for target in targets)


def columns_of_inputs(inputs: Iterable[str], targets: Sequence[str]) -> tuple[str, ...]:
    """The features behind some of the inputs, in the order given."""
    return tuple(
        column
        for name in inputs
        for column in (favorite_columns(targets) if name == DOMINANT_CATEGORY else (COLUMN_OF_INPUT[name],))
    )


def select_summary(features: Matrix, names: Sequence[str], targets: Sequence[str]) -> Matrix:
    """The summary columns (n, C), C-contiguous, of full feature rows (n, F) whose columns are `names`."""
    position = {name: index for index, name in enumerate(names)}
    return np.ascontiguousarray(features[:, [position[name] for name in summary_columns(targets)]])


def summary_matrix(
    rows: Sequence[Inputs], config_targets: Sequence[str], target_of_category: Mapping[str, str]
) -> Matrix:
    """What is known of n customers as float32 (n, C), NaN where it is not known.

    rows: by the names of SUMMARY_INPUTS; absent = not known. target_of_category: product category -> named target, looked
    up without case and outer spaces. A dominant category that belongs to no named target is the unknown level: 0 in all of
    its columns. Raises ValueError for a name that is no input and for a number that is not finite.
    """
    unknown = {name for row in rows for name in row} - set(SUMMARY_INPUTS)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: no such summary input; they are {', '.join(SUMMARY_INPUTS)}")
    numbers = [_numbers(name, rows) for name in COLUMN_OF_INPUT]
    return np.column_stack([*numbers, _favorites(rows, config_targets, target_of_category)])


def column_of(matrix: Matrix, name: str) -> FloatArray:
    """A numeric input of a summary matrix as float64 (n,), NaN where it is not known."""
    return matrix[:, _PLACE[name]].astype(np.float64)


def with_implied(matrix: Matrix) -> Matrix:
    """A copy of a summary matrix (n, C) in which is known what follows from what was known.

    The mean value of a transaction and the total from each other, the mean gap from the days since the first and the last:
    by the definitions of these features, but that in net mode, where the total is less what came back and the mean value is
    not, each is only about the other's. What was known stays as it was. Training, backtest and answers all read it so.
    """
    full = matrix.copy()
    count, last, first = (column_of(matrix, name) for name in ("transactions", "days_since_last", "days_since_first"))
    total, value = column_of(matrix, "total_spend"), column_of(matrix, "avg_transaction_value")
    _fill(full, "avg_transaction_value", total / np.where(count > 0, count, np.nan))
    _fill(full, "total_spend", value * count)
    _fill(full, "avg_days_between", (first - last) / np.where(count > 1, count - 1, np.nan))
    return full


def _fill(matrix: Matrix, name: str, values: FloatArray) -> None:
    column = matrix[:, _PLACE[name]]
    missing = np.isnan(column)
    column[missing] = np.clip(values[missing], -LARGEST, LARGEST)


def _numbers(name: str, rows: Sequence[Inputs]) -> Matrix:
    """One numeric input as (n,)."""
    given = np.array([row.get(name, np.nan) for row in rows], dtype=np.float64)
    known = np.array([name in row for row in rows], dtype=bool)
    if not np.isfinite(given[known]).all():
        raise ValueError(f"{name} is {given[known & ~np.isfinite(given)][0]}; leave out what is not known")
    return np.clip(given, -LARGEST, LARGEST).astype(np.float32)


def _favorites(rows: Sequence[Inputs], targets: Sequence[str], target_of_category: Mapping[str, str]) -> Matrix:
    """The dominant category as one column per target (n, targets)."""
    column = {target: index for index, target in enumerate(targets)}
    level = {_folded(category): column[target] for category, target in target_of_category.items()}
    told = np.full((len(rows), len(targets)), np.nan, dtype=np.float32)
    for number, row in enumerate(rows):
        if DOMINANT_CATEGORY in row:
            told[number] = 0.0
            favorite = level.get(_folded(str(row[DOMINANT_CATEGORY])))
            if favorite is not None:
                told[number, favorite] = 1.0
    return told


def _folded(category: str) -> str:
    return category.strip().casefold()
