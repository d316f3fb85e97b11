"""What is usually known together: the forms that requests come in, and the simple rules that each of them allows.

A row belongs to a form by what is known of it, whoever sent it: spend of the last days makes it one of eighteen fields, the
days since the first purchase one of seven, anything less one of six features.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml_pipeline.rules import RULES, Rule, SpendHistory, purchase_heuristic
from ml_pipeline.summary_columns import (
    COLUMN_OF_INPUT,
    DOMINANT_CATEGORY,
    FloatArray,
    Matrix,
    column_of,
    columns_of_inputs,
    summary_columns,
)

BoolArray = npt.NDArray[np.bool_]

FORMS = EIGHTEEN, SEVEN, SIX = "eighteen_fields", "seven_fields", "six_features"

INPUTS_OF_FORM: dict[str, tuple[str, ...]] = {
    EIGHTEEN: (
        "total_spend",
        "transactions",
        "avg_transaction_value",
        "days_since_last",
        "days_since_first",
        "spend_30d",
        "spend_60d",
        "spend_90d",
        "transactions_30d",
        "transactions_60d",
        "transactions_90d",
        "distinct_products",
        "distinct_categories",
        DOMINANT_CATEGORY,
    ),
    SEVEN: (
        "days_since_last",
        "days_since_first",
        "transactions",
        "total_spend",
        "avg_transaction_value",
        "avg_days_between",
    ),
    SIX: (
        "total_spend",
        "avg_transaction_value",
        "transactions",
        "total_items",
        "distinct_products",
        "days_since_last",
    ),
}
"""What a complete request of a form tells."""

RECENT_SPEND = ("spend_30d", "spend_60d", "spend_90d")


def form_of(matrix: Matrix) -> npt.NDArray[np.uint8]:
    """The form of each row of a summary matrix, (n,), index into FORMS."""
    recent = np.logical_or.reduce([known(matrix, name) for name in RECENT_SPEND])
    return np.where(recent, 0, np.where(known(matrix, "days_since_first"), 1, 2)).astype(np.uint8)


def known(matrix: Matrix, name: str) -> BoolArray:
    """Whether a numeric input is known, (n,)."""
    return ~np.isnan(column_of(matrix, name))


def columns_of_form(form: str, targets: Sequence[str]) -> BoolArray:
    """Which columns of the summary matrix a complete request of a form fills, (C,)."""
    told = set(columns_of_inputs(INPUTS_OF_FORM[form], targets))
    return np.array([name in told for name in summary_columns(targets)])


def as_form(matrix: Matrix, form: str, targets: Sequence[str]) -> Matrix:
    """A copy of a summary matrix (n, C) of which is left what a complete request of a form tells."""
    left = matrix.copy()
    left[:, ~columns_of_form(form, targets)] = np.nan
    return left


# Rules


def _columns_of(rule: Rule) -> set[str]:
    """The features that a rule reads."""
    money = {rule.money_column(None)} if rule.money_column else set()
    return money | ({rule.days_column} if rule.days_column else set())


_INPUT_OF_COLUMN = {column: name for name, column in COLUMN_OF_INPUT.items()}
_RULES = {rule.name: rule for rule in RULES if _columns_of(rule) <= _INPUT_OF_COLUMN.keys()}
RULE_INPUTS: dict[str, tuple[str, ...]] = {
    name: tuple(sorted(_INPUT_OF_COLUMN[column] for column in _columns_of(rule))) for name, rule in _RULES.items()
}
"""The rules that a summary allows, in their order, and the inputs that each of them needs."""


def rules_of_form(form: str) -> tuple[str, ...]:
    """The rules that a complete request of a form allows."""
    return tuple(name for name, needs in RULE_INPUTS.items() if set(needs) <= set(INPUTS_OF_FORM[form]))


def rule_spend(name: str, matrix: Matrix, mean: float) -> FloatArray:
    """What a rule says of n customers, (n,), money ≥ 0; of those of whom its inputs are not known it says nothing sensible.

    mean: of the training rows.
    """

    def told(name: str) -> FloatArray:
        return np.maximum(np.nan_to_num(column_of(matrix, name), nan=0.0), 0.0)

    history = SpendHistory(
        last_30_days=told("spend_30d"),
        last_90_days=told("spend_90d"),
        lifetime=told("total_spend"),
        decayed_rate=np.zeros(len(matrix)),  # no rule that reads it is among these
        days_since_first=told("days_since_first"),
    )
    return _RULES[name].predict(history, mean)


def heuristic_spend(matrix: Matrix) -> FloatArray:
    """The documented rule of thumb for the probability times the mean value of a transaction, (n,)."""
    return heuristic_probability(matrix) * column_of(matrix, "avg_transaction_value")


def heuristic_probability(matrix: Matrix) -> FloatArray:
    """The documented rule of thumb, (n,)."""
    return purchase_heuristic(column_of(matrix, "days_since_last"), column_of(matrix, "transactions"))
