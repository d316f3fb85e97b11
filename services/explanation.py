"""The reasons for served predictions, shaped as the API documents them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.model_registry import Model

if TYPE_CHECKING:
    from ml_pipeline.reasons import Account


def explanations(model: Model, positions: Sequence[int]) -> list[dict[str, Any]]:
    """Why the snapshot says what it says of these customers: of the total, and by_target of each target and other.

    The bundle's members are loaded on the first call. Raises NoServingModel or BundleMismatch.
    """
    if not positions:
        return []
    from ml_pipeline.reasons import explain_customers
    from ml_pipeline.snapshot import money_columns

    reasons = explain_customers(model.predictor.get(), model.snapshot, positions)
    names = money_columns(model.snapshot.targets)
    return [
        {
            "currency": model.snapshot.currency,
            **_shaped(reasons.account(row, 0)),
            "by_target": {name: _shaped(reasons.account(row, column)) for column, name in enumerate(names) if column},
        }
        for row in range(len(positions))
    ]


def _shaped(account: "Account") -> dict[str, Any]:
    return {
        "baseline": account.baseline,
        "reasons": [{**vars(reason), "features": list(reason.features)} for reason in account.reasons],
        "adjustment": account.adjustment,
        "prediction": account.prediction,
        "contributions": [dict(vars(contribution)) for contribution in account.contributions],
    }
