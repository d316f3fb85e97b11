"""Reasons in money: what each feature adds to what is answered, starting from a baseline that is the same for all."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.attribution import Attributed, arithmetic, scaled_to, through_any, total
from ml_pipeline.formulas import Reasons, attribute, members_of
from ml_pipeline.members import Matrix
from ml_pipeline.predictor import Predictor
from ml_pipeline.reconcile import BOTTOM_UP, HALF_AND_HALF, TOP_DOWN, reconcile
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, money_columns

FloatArray = npt.NDArray[np.float64]

ROWS_AT_ONCE = 2048
NOTHING = 1e-12
"""Money below it is 0: what a very small number leaves behind in a mean."""


@dataclass(frozen=True)
class Explained:
    """Columns of money are `snapshot.money_columns(targets)`; n customers, m columns, F features in the bundle's order.

    money: float64 (n, m), as displayed. baseline: float64 (m,), what the same models say when they know nothing of the
    customer. contributions: float64 (n, m, F). adjustment: float64 (n, m), what no feature answers for: rounding to the
    cent, and what the cap cut off. baseline + contributions.sum(2) + adjustment == money.
    """

    money: FloatArray
    baseline: FloatArray
    contributions: FloatArray
    adjustment: FloatArray


def explain(predictor: Predictor, features: Matrix) -> Explained:
    """Why each of n customers that bought before `as_of` gets his answer, from float32 features (n, F).

    The same for a customer alone and among all, bit for bit. Raises what `Predictor.predict` raises.
    """
    money = predictor.predict(features).money / CENTS
    n_columns, n_features = money.shape[1], features.shape[1]
    baseline = np.zeros(n_columns)
    contributions = np.zeros((len(features), n_columns, n_features))
    for row in range(0, len(features), ROWS_AT_ONCE):
        rows = slice(row, row + ROWS_AT_ONCE)
        baseline = _explain_rows(predictor, features[rows], contributions[rows])
    if not len(features):
        baseline = _explain_rows(
            predictor, np.zeros((1, n_features), dtype=np.float32), np.zeros((1, n_columns, n_features))
        )
    adjustment = money - baseline - contributions.sum(axis=2)
    return Explained(money, baseline, contributions, adjustment)


def _explain_rows(predictor: Predictor, features: Matrix, contributions: FloatArray) -> FloatArray:
    """Fills the contributions (n, m, F) of some rows and returns the baseline (m,)."""
    told = attributed(predictor, features)
    agreed = agree(
        predictor.metadata.content["reconciliation"], told, np.array(predictor.metadata.content["usual_shares"])
    )
    for index, found in enumerate(agreed.contributions):
        contributions[:, index] = found
    return agreed.baseline


def attributed(predictor: Predictor, features: Matrix) -> list[Attributed]:
    """Total, targets and other with their reasons, before they are made to agree and without a cap."""
    metadata = predictor.metadata
    formulas = {name: metadata.content["serving"][name]["formula"] for name in money_columns(metadata.targets)}
    needed = dict.fromkeys(name for formula in formulas.values() for name in members_of(formula))
    own = {name: predictor.members[name].contributions(features) for name in needed}
    reasons = Reasons(features, metadata.features, metadata.targets, own)
    whole = attribute(formulas[TOTAL_TARGET], reasons, TOTAL_TARGET)
    reasons = replace(reasons, total=whole)
    return [whole, *(attribute(formulas[name], reasons, name) for name in formulas if name != TOTAL_TARGET)]


@dataclass(frozen=True)
class Agreed:
    """Total and parts that agree: the baseline (m,) of each and its reasons in money, (n, F) each."""

    baseline: FloatArray
    contributions: Sequence[FloatArray]


def agree(method: dict[str, Any], told: Sequence[Attributed], usual_shares: FloatArray) -> Agreed:
    """Carries the reasons of total and parts through the bundle's method of making them agree.

    Scaling and adding have an algebra of their own; any other method, and rows or baselines where all parts are 0, are
    taken as they come (`through_any`).
    """

    def step(values: FloatArray) -> FloatArray:
        seen = np.where(values > NOTHING, values, 0.0)
        return reconcile(method, seen[:, 0], seen[:, 1:], usual_shares)

    baseline = step(np.array([[number.baseline for number in told]]))[0]
    known = _by_algebra(method["name"], told)
    if known is None or sum(number.baseline for number in told[1:]) <= NOTHING:
        return Agreed(baseline, through_any(told, step))
    contributions = [number.money for number in known]
    silent = np.flatnonzero(total(told[1:]).value <= NOTHING)
    if len(silent):
        some = [Attributed(number.value[silent], number.baseline, number.logs[silent]) for number in told]
        for whole, found in zip(contributions, through_any(some, step), strict=True):
            whole[silent] = found
    return Agreed(baseline, contributions)


def _by_algebra(method: str, told: Sequence[Attributed]) -> list[Attributed] | None:
    """Total and parts after a method that only scales and adds; None for others."""
    whole, parts = told[0], told[1:]
    if len(parts) == 1:
        return [whole, whole]
    if method == TOP_DOWN:
        return [whole, *scaled_to(parts, whole)]
    if method == BOTTOM_UP:
        return [total(parts), *parts]
    if method == HALF_AND_HALF:
        middle = arithmetic([whole, total(parts)])
        return [middle, *scaled_to(parts, middle)]
    return None
