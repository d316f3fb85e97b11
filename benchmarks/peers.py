"""The peers that we are held against, each from purchases before the day to spend of the 30 days from it.

They share nothing with the pipeline: their features, windows and labels are made here and in the peer_* modules from the
purchases alone. A peer is handed only what was bought before the day.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.peer_features import Learning, features_at, learning_rows
from benchmarks.public_data import HORIZON_DAYS, FloatArray, Window, window_at
from benchmarks.scores import Answer, score

SHORTEST_TENURE_DAYS = 30
HALF_LIVES = (15, 30, 45, 60, 90, 120, 180, 270)
EARLIER_WINDOWS = 3


@dataclass(frozen=True)
class Question:
    """What a peer is asked: the purchases before `day`, and the customers in them, (n,), sorted."""

    day: date
    past: pd.DataFrame
    customer_ids: npt.NDArray[np.str_]

    @classmethod
    def of(cls, window: Window) -> "Question":
        """The window without its answers."""
        return cls(window.day, window.past, window.customer_ids)

    @cached_property
    def earlier(self) -> tuple[Window, ...]:
        """Windows that ended before the day, the latest first, as far as the purchases reach."""
        first = self.past["day"].min().date() + timedelta(days=2 * HORIZON_DAYS)
        days = [self.day - timedelta(days=HORIZON_DAYS * step) for step in range(1, EARLIER_WINDOWS + 1)]
        return tuple(window_at(self.past, day, {}) for day in days if day >= first)

    @cached_property
    def learning(self) -> Learning:
        """Rolling windows to learn from; the same rows for every learned peer."""
        return learning_rows(self.past, self.day)

    @cached_property
    def features(self) -> FloatArray:
        """36 columns of the customers that are asked for, (n, 36)."""
        return features_at(self.past, self.day).reindex(self.customer_ids).to_numpy(np.float64)


@dataclass(frozen=True)
class Peer:
    """A peer: its name in files, its title on the page, the distributions that it needs, and its arithmetic."""

    name: str
    title: str
    predict: Callable[[Question], Answer]
    packages: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The distributions that are not installed."""
        return tuple(package for package in self.packages if version_of(package) is None)

    @property
    def fingerprint(self) -> str:
        """What its predictions depend on besides the purchases: the code of the peers and the versions of packages."""
        folder = Path(__file__).parent
        sources = [folder / "peers.py", folder / "peer_features.py", *(folder / each for each in self.sources)]
        code = "".join(file.read_text(encoding="utf-8") for file in sources)
        return code + "".join(f"{package} {version_of(package)}" for package in ("numpy", "pandas", *self.packages))


def version_of(package: str) -> str | None:
    """The installed version of a distribution; None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ---- rules


def recent_spend(past: pd.DataFrame, day: date, days: int, customer_ids: npt.NDArray[np.str_]) -> FloatArray:
    """Spend on the `days` days before the day, (n,)."""
    recent = past[past["day"] >= pd.Timestamp(day - timedelta(days=days))]
    return _by_customer(recent.groupby("customer_id")["amount"].sum(), customer_ids)


def tenure_days(past: pd.DataFrame, day: date, customer_ids: npt.NDArray[np.str_]) -> FloatArray:
    """Days from the first purchase to the day, at least 30: the rates of new customers would explode, (n,)."""
    first = past.groupby("customer_id")["day"].min()
    days = (pd.Timestamp(day) - first).dt.days
    return np.asarray(np.maximum(_by_customer(days, customer_ids), SHORTEST_TENURE_DAYS), dtype=np.float64)


def _by_customer(values: "pd.Series[float]", customer_ids: npt.NDArray[np.str_]) -> FloatArray:
    return np.asarray(values.reindex(customer_ids, fill_value=0), dtype=np.float64)


def predict_zero(question: Question) -> Answer:
    """Nobody buys."""
    return Answer(np.zeros(len(question.customer_ids)))


def predict_mean(question: Question) -> Answer:
    """The mean of the last window that ended before the day, for everyone."""
    mean = question.earlier[0].actual.mean() if question.earlier else 0.0
    return Answer(np.full(len(question.customer_ids), mean))


def predict_last_30_days(question: Question) -> Answer:
    """What was spent in the last 30 days."""
    return Answer(recent_spend(question.past, question.day, HORIZON_DAYS, question.customer_ids))


def predict_last_90_days_over_3(question: Question) -> Answer:
    """What was spent in the last 90 days, divided by three."""
    return Answer(recent_spend(question.past, question.day, 90, question.customer_ids) / 3)


def predict_lifetime_rate(question: Question) -> Answer:
    """Everything that was spent, per day since the first purchase, times 30."""
    spent = _by_customer(question.past.groupby("customer_id")["amount"].sum(), question.customer_ids)
    return Answer(spent / tenure_days(question.past, question.day, question.customer_ids) * HORIZON_DAYS)


def weighted_rate(past: pd.DataFrame, day: date, customer_ids: npt.NDArray[np.str_], half_life: int) -> FloatArray:
    """Spend per 30 days in which a day counts half as much as one `half_life` days later, (n,)."""
    age = (pd.Timestamp(day) - past["day"]).dt.days.to_numpy(np.float64)
    weighed = pd.Series(past["amount"].to_numpy() * np.exp2(-age / half_life))
    spent = _by_customer(weighed.groupby(past["customer_id"].to_numpy()).sum(), customer_ids)
    tenure = tenure_days(past, day, customer_ids)
    days_that_count = half_life / np.log(2) * (1 - np.exp2(-tenure / half_life))
    return np.asarray(spent / days_that_count * HORIZON_DAYS, dtype=np.float64)


def predict_weighted_rate(question: Question) -> Answer:
    """The exponentially weighted rate, its half-life the one of the highest D² on the windows that ended before the day."""

    def mean_d2(half_life: int) -> float:
        scores = [
            score(window.actual, Answer(weighted_rate(window.past, window.day, window.customer_ids, half_life)))["d2"]
            for window in question.earlier
        ]
        return float(np.mean([value for value in scores if value is not None] or [0.0]))

    best = max(HALF_LIVES, key=mean_d2)
    return Answer(weighted_rate(question.past, question.day, question.customer_ids, best))


RULES: tuple[Peer, ...] = (
    Peer("zero", "zero", predict_zero),
    Peer("mean", "mean", predict_mean),
    Peer("last_30_days", "last 30 days", predict_last_30_days),
    Peer("last_90_days_over_3", "last 90 days ÷ 3", predict_last_90_days_over_3),
    Peer("lifetime_rate_x_30", "lifetime rate × 30", predict_lifetime_rate),
    Peer("weighted_rate", "exponentially weighted rate", predict_weighted_rate),
)
