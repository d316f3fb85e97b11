"""What agreement cost or gained: every method that was tried, on selection and report windows, as plain JSON values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import Agreement
from ml_pipeline.metrics import bias, capped_r2, d2, decile_mape, normalised_gini
from ml_pipeline.reconciliation_choice import RECONCILIATION_RULE, gains_of

FloatArray = npt.NDArray[np.float64]

REPORTED = {
    "capped_r2": capped_r2,
    "d2": d2,
    "normalised_gini": normalised_gini,
    "decile_mape": decile_mape,
    "bias": bias,
}
"""The metrics that agreement must not cost."""


def report_reconciliation(agreement: Agreement, columns: Sequence[str]) -> dict[str, Any]:
    """Method, why, and per method that was tried its gains and metrics per target; `before` are those without agreement.

    columns: total, targets, other. On the report windows each method is as it was known before them.
    """
    windows = list(agreement.told.values())
    learned = {method["name"]: method for method in agreement.on_report}
    return {
        "method": agreement.choice.name,
        "why": agreement.choice.why,
        "rule": RECONCILIATION_RULE,
        "before": _metrics([(window.actual, window.predicted) for window in windows], columns) if windows else {},
        "tried": {
            name: {
                "selection_gains": _by_column(gains, columns),
                "report_gains": _by_column(gains_of(learned[name], windows), columns),
                "metrics": _metrics([(window.actual, window.agreed(learned[name])) for window in windows], columns),
            }
            for name, gains in agreement.choice.gains.items()
        },
    }


def _by_column(values: FloatArray, columns: Sequence[str]) -> dict[str, float]:
    return dict(zip(columns, values.tolist(), strict=True))


def _metrics(
    told: Sequence[tuple[FloatArray, FloatArray]], columns: Sequence[str]
) -> dict[str, Mapping[str, float | None]]:
    """Per column the means over windows of the reported metrics; None where no window defines one."""
    return {
        column: {
            name: _mean([metric(actual[:, index], predicted[:, index]) for actual, predicted in told if len(actual)])
            for name, metric in REPORTED.items()
        }
        for index, column in enumerate(columns)
    }


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
