"""What past predictions were wrong by, learned on windows that the model had not seen: probabilities and amounts.

How far the level of a few past windows is trusted depends on how much the shop's level swings from window to window: on
a steady shop two windows say a lot, on a jumpy one little.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, minimize

from ml_pipeline.metrics import descending_order

FloatArray = npt.NDArray[np.float64]

PROBABILITY_FLOOR = 0.001  # nobody is certain to buy, nobody certain not to
DRIFT = 0.03  # standard deviation of the log level by which models are off for a reason, as opposed to swings
LEVELS = 5
LEVEL_SPREAD = 0.3  # standard deviation of the log factors between levels, before anything is seen


@dataclass(frozen=True)
class ProbabilityCalibration:
    """logit p' = a ln p - b ln(1 - p) + c: beta calibration (Kull et al. 2017); a, b ≥ 0, so that the order stays."""

    a: float
    b: float
    c: float

    def apply(self, probability: FloatArray) -> FloatArray:
        """Calibrated probabilities (n,), kept off 0 and 1."""
        p = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
        logit = self.a * np.log(p) - self.b * np.log1p(-p) + self.c
        return np.clip(1 / (1 + np.exp(-logit)), PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)

    def as_json(self) -> dict[str, float]:
        """For a bundle's metadata."""
        return {"a": self.a, "b": self.b, "c": self.c}

    @classmethod
    def from_json(cls, content: Mapping[str, float]) -> "ProbabilityCalibration":
        """What `as_json` made."""
        return cls(content["a"], content["b"], content["c"])


AS_IT_IS = ProbabilityCalibration(1.0, 1.0, 0.0)


def share_of_buyers(bought: FloatArray) -> float:
    """The probability of buying that everyone gets where nothing tells more, from outcomes (n,); Jeffreys' (k + ½) / (n + 1).

    Kept off 0 and 1: two rows of one customer prove little.
    """
    share = (float(bought.sum()) + 0.5) / (len(bought) + 1)
    return min(max(share, PROBABILITY_FLOOR), 1 - PROBABILITY_FLOOR)


def fit_probability_calibration(probability: FloatArray, outcome: FloatArray, trust: float) -> ProbabilityCalibration:
    """Maximum likelihood on rows (n,) that the classifier had not seen; a weak pull to the identity keeps it finite.

    Only the shape is taken over whole. The mean moves from the classifier's to what came as far as `trust` says.
    Nothing is learned, and the identity comes back, where only one outcome occurs.
    """
    if not len(outcome) or outcome.min() == outcome.max():
        return AS_IT_IS
    p = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    yes, no = np.log(p), np.log1p(-p)
    identity = np.array([1.0, 1.0, 0.0])

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        a, b, c = parameters
        logit = a * yes - b * no + c
        predicted = 1 / (1 + np.exp(-logit))
        away = parameters - identity
        value = float((np.logaddexp(0, logit) - outcome * logit).sum() + 0.5 * (away**2).sum())
        error = predicted - outcome
        return value, np.array([(error * yes).sum(), -(error * no).sum(), error.sum()]) + away

    found = minimize(loss, identity, jac=True, method="L-BFGS-B", bounds=[(0.0, None), (0.0, None), (None, None)])
    a, b, c = (float(value) for value in found.x)
    wanted = p.mean() ** (1 - trust) * outcome.mean() ** trust

    def excess(shift: float) -> float:
        return float((1 / (1 + np.exp(-(a * yes - b * no + shift)))).mean() - wanted)

    return ProbabilityCalibration(a, b, float(brentq(excess, c - 20, c + 20)))


@dataclass(frozen=True)
class LevelCalibration:
    """A factor by level of prediction, between the levels' middles a straight line over the logarithm of prediction."""

    middles: tuple[float, ...]  # logarithms of predictions, ascending
    factors: tuple[float, ...]

    def apply(self, predicted: FloatArray) -> FloatArray:
        """Calibrated predictions (n,); 0 stays 0."""
        at = np.log(np.maximum(predicted, 1e-300))
        return predicted * np.exp(np.interp(at, self.middles, np.log(self.factors)))

    def as_json(self) -> dict[str, list[float]]:
        """For a bundle's metadata."""
        return {"middles": list(self.middles), "factors": list(self.factors)}

    @classmethod
    def from_json(cls, content: Mapping[str, Sequence[float]]) -> "LevelCalibration":
        """What `as_json` made."""
        return cls(tuple(content["middles"]), tuple(content["factors"]))


def fit_level_calibration(predicted: FloatArray, actual: FloatArray, trust: float = 1.0) -> LevelCalibration | None:
    """Σ actual / Σ predicted by fifth of prediction, shrunk to the factor of all by its noise (empirical Bayes).

    trust: how far the factor of all is believed (`trust_in_level`). For amounts of buyers whose logarithm was modelled
    this is smearing (Duan 1983) that may differ by level. None where there is nothing to learn from.
    """
    rows = predicted > 0
    predicted, actual = predicted[rows], actual[rows]
    if len(actual) < 2 * LEVELS or actual.sum() <= 0:
        return None
    edges = np.unique(np.quantile(predicted, np.arange(1, LEVELS) / LEVELS))
    level = np.searchsorted(edges, predicted, side="right")
    present = np.flatnonzero(np.bincount(level, minlength=len(edges) + 1))
    overall = actual.sum() / predicted.sum()
    middles, factors = [], []
    for each in present:
        own, came = predicted[level == each], actual[level == each]
        noise = float(np.sqrt(np.square(came - own * overall).sum()) / own.sum() / overall)
        kept = LEVEL_SPREAD**2 / (LEVEL_SPREAD**2 + noise**2)
        factors.append(float(overall**trust * max(1 + kept * (came.sum() / own.sum() / overall - 1), 0.05)))
        middles.append(float(np.log(own.mean())))
    return LevelCalibration(tuple(middles), tuple(factors))


def trust_in_level(means: Sequence[float], windows: int) -> float:
    """Between 0 and 1: how far the mean level of `windows` past windows is believed.

    means: the outcome's mean in successive windows that do not overlap. Their swing is what is left of the logarithms
    when each is compared with the mean of its neighbours, so that a trend is no swing.
    """
    positive = np.log([mean for mean in means if mean > 0])
    if len(positive) < 3 or not windows:
        return 0.5 if windows else 0.0
    left = positive[1:-1] - (positive[2:] + positive[:-2]) / 2
    swing = float(np.square(left).mean() / 1.5)
    return DRIFT**2 / (DRIFT**2 + swing / windows)


def agreement(told: Sequence[float], came: Sequence[float]) -> float:
    """Between 0 and 1: how far windows agree that the level is off (positive-part James & Stein 1961, of log errors).

    told, came: predicted and actual mean of each window. 0 where the errors of the windows cancel; 1 for one window, of
    which nothing can be said.
    """
    errors = np.log([one / other for one, other in zip(told, came, strict=True) if one > 0 and other > 0])
    if len(errors) < 2:
        return 1.0
    mean = float(errors.mean())
    return max(0.0, 1 - float(errors.var(ddof=1)) / len(errors) / mean**2) if mean else 0.0


def reliability(probability: FloatArray, outcome: FloatArray) -> list[dict[str, Any]]:
    """The reliability table: by tenth of predicted probability, how many, the mean predicted and the share that bought.

    Equal probabilities are parted at random, by a fixed seed.
    """
    order = descending_order(probability)[::-1]
    tenths = [part for part in np.array_split(order, 10) if len(part)]
    return [
        {
            "customers": len(part),
            "predicted": float(probability[part].mean()),
            "bought": float(outcome[part].mean()),
        }
        for part in tenths
    ]
