"""Snapshots whose customers lie on and around every limit that a flag has: no training, made-up numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.features import DAYS_FIRST_TO_LAST, DAYS_SINCE_LAST, TOTAL_PURCHASE_DAYS, feature_names
from ml_pipeline.snapshot import Answers, Snapshot, load_snapshot, money_columns, segments, write_snapshot
from ml_pipeline.sums import SumIntervals

THRESHOLDS = [10.0, 30.0]
AS_OF = date(2026, 1, 1)


@dataclass(frozen=True)
class HabitShop:
    """A snapshot and what of its bundle's metadata flags and sums need."""

    snapshot: Snapshot
    content: dict[str, Any]

    @property
    def everyone(self) -> np.ndarray:
        return np.arange(self.snapshot.n_customers)


@dataclass(frozen=True)
class Customer:
    """One row: cents per category and other; days since the last purchase, days with one, days from first to last."""

    parts: Sequence[int]
    probability: float = 0.6
    habit: tuple[float, float, float] = (1, 1, 0)


def random_customers(n: int, n_parts: int, seed: int) -> list[Customer]:
    """Small whole numbers, so that shares, thresholds and gaps are often met exactly; a tenth never bought."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        parts = rng.choice([0, 1, 2, 3, 7, 10, 20], n_parts) * 100 * rng.integers(0, 2, n_parts)
        habit = (float(rng.integers(1, 40)), float(rng.integers(1, 6)), float(rng.integers(0, 40)))
        if rng.random() < 0.1:
            habit = (np.nan, np.nan, np.nan)
        probability = rng.choice([0.0, 0.1, 0.49994, 0.49996, 0.5, 0.9])
        found.append(Customer(parts.tolist(), float(probability), habit))
    return found


def habit_shop(
    folder: Path,
    targets: Sequence[str],
    customers: Sequence[Customer],
    usual_shares: Sequence[float] | None = None,
) -> HabitShop:
    """Customers C0000, C0001, ... of a shop with these targets; usual shares are equal where none are given."""
    names = feature_names(targets)
    parts = np.array([customer.parts for customer in customers], dtype=np.int64).reshape(-1, len(targets) + 1)
    money = np.column_stack([parts.sum(axis=1), parts])
    features = np.zeros((len(customers), len(names)), dtype=np.float32)
    for name, values in zip(
        (DAYS_SINCE_LAST, TOTAL_PURCHASE_DAYS, DAYS_FIRST_TO_LAST),
        np.array([customer.habit for customer in customers]).reshape(-1, 3).T,
        strict=True,
    ):
        features[:, names.index(name)] = values
    features[np.isnan(features).any(axis=1)] = np.nan
    snapshot_id = write_snapshot(
        folder,
        as_of=AS_OF,
        bundle_id="20260101-000000000000",
        currency="INR",
        targets=targets,
        raw_names=[],
        customer_ids=[f"C{number:04d}" for number in range(len(customers))],
        features=features,
        answers=Answers(
            money=money,
            lower=money // 2,
            upper=money * 2,
            probability=np.array([customer.probability for customer in customers]),
            segment=segments(money[:, 0] / 100, THRESHOLDS),
            cold_start_reason=np.zeros(len(customers), dtype=np.uint8),
            extrapolated=np.zeros(len(customers), dtype=bool),
            variance=np.square(money / 100),
            raw=np.zeros((len(customers), 0)),
        ),
    )
    equal = [1 / (len(targets) + 1)] * (len(targets) + 1)
    content = {
        "features": list(names),
        "sums": {name: SumIntervals(1.0, np.zeros(1), np.ones(1), 0.1, 6).as_json() for name in money_columns(targets)},
        "segments": {"quantiles": [0.5, 0.8], "thresholds": THRESHOLDS},
        "usual_shares": list(equal if usual_shares is None else usual_shares),
    }
    return HabitShop(load_snapshot(folder, snapshot_id), content)
