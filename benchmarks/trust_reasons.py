"""Whether contributions in money add up to what is served, and whether what they call idle is idle."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.public_data import FloatArray
from ml_pipeline.explanations import explain
from ml_pipeline.members import Matrix
from ml_pipeline.predictor import Predictor
from ml_pipeline.snapshot import CENTS

IntArray = npt.NDArray[np.int64]

EXPLAINED = 1_000
SEED = 20_240_229


class Reasons(Protocol):
    """What is said of k customers: baseline (m,), contributions (k, m, F) and adjustment (k, m), in money."""

    @property
    def baseline(self) -> FloatArray:
        """The same for everyone."""

    @property
    def contributions(self) -> FloatArray:
        """Of every feature to every column of money."""

    @property
    def adjustment(self) -> FloatArray:
        """What no feature answers for."""


@dataclass(frozen=True)
class ReasonChecks:
    """Of k customers who were explained; money in units of the currency, (k, 2 + targets).

    gap: baseline + contributions + adjustment − served. adjustment: what could not be attributed. distance: prediction −
    baseline. idle: how many features contribute 0 to everything of everyone; changed: how many of the k have another
    prediction when the idle features are permuted among them. seconds: of the explanation.
    """

    gap: FloatArray
    adjustment: FloatArray
    distance: FloatArray
    idle: int
    changed: int
    seconds: float


def check_reasons(predictor: Predictor, features: Matrix, served: FloatArray) -> ReasonChecks:
    """Explains customers of features (k, F), whom `served` (k, 2 + targets) is predicted, in money."""
    started = time.perf_counter()
    told = explain(predictor, features)
    seconds = time.perf_counter() - started
    return checks_of(told, lambda permuted: predictor.predict(permuted).money, features, served, seconds)


def checks_of(
    told: Reasons, predict: Callable[[Matrix], IntArray], features: Matrix, served: FloatArray, seconds: float
) -> ReasonChecks:
    """Holds reasons against what is served and against what `predict` says, in cents, when idle features are permuted."""
    summed = told.baseline[None, :] + told.contributions.sum(axis=2) + told.adjustment
    idle = idle_features(told.contributions)
    changed = (predict(permute(features, idle)) != np.rint(served * CENTS).astype(np.int64)).any(axis=1)
    return ReasonChecks(
        summed - served, told.adjustment, served - told.baseline[None, :], len(idle), int(changed.sum()), seconds
    )


def idle_features(contributions: FloatArray) -> IntArray:
    """The features of contributions (k, columns, F) that contribute exactly 0 to every column of every customer."""
    return np.flatnonzero((contributions == 0).all(axis=(0, 1)))


def permute(features: Matrix, which: IntArray, seed: int = SEED) -> Matrix:
    """The features with each of `which` shuffled among the customers."""
    random = np.random.default_rng(seed)
    permuted = features.copy()
    for column in which:
        permuted[:, column] = features[random.permutation(len(features)), column]
    return permuted


def some_customers(n_customers: int, count: int = EXPLAINED, seed: int = SEED) -> IntArray:
    """Seeded positions of those who are explained, ascending; all where there are not more."""
    chosen = np.random.default_rng(seed).choice(n_customers, min(count, n_customers), replace=False)
    return np.sort(chosen)


def adjustment_share(checks: ReasonChecks) -> FloatArray:
    """|adjustment| ÷ |prediction − baseline|, (k, columns); 0 where nothing was adjusted, infinite where only that was.

    Less than a cent is no adjustment: it is the rounding of what is displayed.
    """
    adjustment, distance = np.abs(checks.adjustment), np.abs(checks.distance)
    share = np.divide(adjustment, distance, out=np.full_like(adjustment, np.inf), where=distance > 0)
    return np.where(adjustment <= 1 / CENTS, 0.0, share)
