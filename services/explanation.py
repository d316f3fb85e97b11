"""The reasons for predictions, shaped as the API documents them."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from services.model_registry import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ml_pipeline.reasons import Account, Reasons


def explanations(model: Model, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Why the snapshot says what it says of these customers: of the total, and by_target of each target and other.

    The bundle's members are loaded on the first call. Raises NoServingModel or BundleMismatch.
    """
    if not positions:
        return []
    from ml_pipeline.reasons import explain_customers

    return _shaped(model, explain_customers(model.predictor.get(), model.snapshot, positions), len(positions))


def explanations_of(
    model: Model, as_of: date, features: "npt.NDArray[np.float32]", cents: "npt.NDArray[np.int64]"
) -> list[dict[str, Any]]:
    """Why customers with these features, (n, F), NaN rows of who never bought, are predicted this money, (n, m) cents."""
    from ml_pipeline.reasons import explain_answers
    from ml_pipeline.wording import Occasion

    occasion = Occasion(model.bundle.currency, as_of)
    return _shaped(model, explain_answers(model.predictor.get(), occasion, features, cents), len(features))


def _shaped(model: Model, reasons: "Reasons", n: int) -> list[dict[str, Any]]:
    from ml_pipeline.snapshot import money_columns

    names = money_columns(model.bundle.targets)
    return [
        {
            "currency": model.bundle.currency,
            **_account(reasons.account(row, 0)),
            "by_target": {name: _account(reasons.account(row, column)) for column, name in enumerate(names) if column},
        }
        for row in range(n)
    ]


def _account(account: "Account") -> dict[str, Any]:
    return {
        "baseline": account.baseline,
        "reasons": [{**vars(reason), "features": list(reason.features)} for reason in account.reasons],
        "adjustment": account.adjustment,
        "prediction": account.prediction,
        "contributions": [dict(vars(contribution)) for contribution in account.contributions],
    }
