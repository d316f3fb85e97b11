"""BG/NBD and Gamma-Gamma from a summary alone: how often a customer buys, whether still, and for how much.

Purchases are transactions here, since a summary does not tell their days: x = transactions − 1, t_x = days since the first −
days since the last, T = days since the first. A customer whose transactions are all of one day has repeated nothing. What
Gamma-Gamma hears of is the mean value of all transactions, so it counts all of them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ml_pipeline.schema import HORIZON_DAYS
from ml_pipeline.summary_columns import FloatArray, Matrix, column_of
from ml_pipeline.summary_forms import BoolArray, known

if TYPE_CHECKING:
    from ml_pipeline.btyd import BgNbd, GammaGamma

NEEDS = ("transactions", "days_since_last", "days_since_first")


def tells_purchases(matrix: Matrix) -> BoolArray:
    """Whether all is known that BG/NBD needs, (n,)."""
    return np.logical_and.reduce([known(matrix, name) for name in NEEDS])


def purchase_history(matrix: Matrix) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x, t_x and T, each (n,), of rows of which all in NEEDS is known; what contradicts itself counts as one purchase."""
    count, last, first = (np.maximum(column_of(matrix, name), 0.0) for name in NEEDS)
    repeats, age = np.maximum(np.rint(count) - 1, 0.0), np.maximum(first - last, 0.0)
    again = (repeats > 0) & (age > 0)
    return np.where(again, repeats, 0.0), np.where(again, age, 0.0), first


def purchase_values(matrix: Matrix) -> tuple[FloatArray, FloatArray]:
    """How many transactions have the mean value that is known, and that value, each (n,); 0 and 0 where it is not known."""
    count, value = np.rint(column_of(matrix, "transactions")), column_of(matrix, "avg_transaction_value")
    told = (count > 0) & (value >= 0)  # 0 is known: of such a customer nobody would expect the usual value
    return np.where(told, count, 0.0), np.where(told, value, 0.0)


@dataclass(frozen=True)
class SummaryPurchases:
    """Both models, fitted. Rows must tell what is in NEEDS."""

    purchases: "BgNbd"
    values: "GammaGamma"

    def spend(self, matrix: Matrix) -> FloatArray:
        """Money (n,) of the next HORIZON_DAYS; the usual value of a purchase where a customer's own is not known."""
        return self.expected(matrix, [HORIZON_DAYS])[:, 0] * self.values.expected_value(*purchase_values(matrix))

    def alive(self, matrix: Matrix) -> FloatArray:
        """Probability (n,) that a customer still buys."""
        return self.purchases.probability_alive(*purchase_history(matrix))

    def expected(self, matrix: Matrix, days: Sequence[float]) -> FloatArray:
        """Mean number of purchases (n, len(days)) in so many days."""
        history = purchase_history(matrix)
        return np.column_stack([self.purchases.expected_purchases(*history, horizon) for horizon in days])

    def save(self, path: Path) -> None:
        """As JSON: the parameters."""
        content = {"bg_nbd": self.purchases.as_json(), "gamma_gamma": self.values.as_json()}
        path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, path: Path) -> "SummaryPurchases":
        """From that JSON."""
        from ml_pipeline.btyd import BgNbd, GammaGamma

        content: Mapping[str, Any] = json.loads(path.read_text("utf-8"))
        return cls(BgNbd.from_json(content["bg_nbd"]), GammaGamma.from_json(content["gamma_gamma"]))
