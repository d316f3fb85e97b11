"""How good predictions of 30-day spend are: accuracy, calibration and ranking, with their edge cases settled.

Every function takes float64 arrays `(n,)` of money (or 0/1 outcomes and probabilities) and returns a plain float, or
None where the metric is not defined on these rows (which is not the same as 0).
"""

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]

TWEEDIE_POWER = 1.5
DEVIANCE_FLOOR = 0.01  # of the actual mean, for predictions
MAPE_FLOOR = 0.05  # of the actual mean, for denominators
CAP_QUANTILE = 0.995
TIE_SEED = 20_240_229
PROBABILITY_FLOOR = 1e-6
MAPE_WEIGHT = 0.25  # in the score
EXCEEDS = 1e-9  # of the total (of one unit, where that is more): less is rounding


def mae(actual: FloatArray, predicted: FloatArray) -> float:
    """Mean absolute error. Never to be read without `bias`: predicting 0 for everyone can win it."""
    return float(np.abs(actual - predicted).mean())


def rmse(actual: FloatArray, predicted: FloatArray) -> float:
    """Root mean squared error."""
    return float(np.sqrt(np.square(actual - predicted).mean()))


def r2(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Share of variance explained; None when the actual values are all the same."""
    if np.ptp(actual) == 0:  # the sum below need not be 0 then: the mean of equal numbers is rounded
        return None
    variance = float(np.square(actual - actual.mean()).sum())
    return 1 - float(np.square(actual - predicted).sum()) / variance


def capped_r2(actual: FloatArray, predicted: FloatArray) -> float | None:
    """R² with both sides clipped at the 99.5th percentile of actual spend, so that one wholesale order does not decide.

    If that percentile is 0, both are clipped at the maximum of actual spend.
    """
    cap = float(np.quantile(actual, CAP_QUANTILE)) or float(actual.max())
    return r2(np.minimum(actual, cap), np.minimum(predicted, cap))


def d2(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Share of Tweedie deviance (power 1.5) explained; predictions floored at 1 % of the actual mean.

    None when nobody spent anything or everybody spent the same.
    """
    mean = float(actual.mean())
    if mean <= 0:
        return None
    null = tweedie_deviance(actual, np.full_like(actual, mean))
    if null <= 1e-12 * mean:
        return None
    return 1 - tweedie_deviance(actual, np.maximum(predicted, DEVIANCE_FLOOR * mean)) / null


def tweedie_deviance(actual: FloatArray, predicted: FloatArray, power: float = TWEEDIE_POWER) -> float:
    """Mean Tweedie deviance for 1 < power < 2; predictions must be > 0."""
    p = power
    terms = (
        np.power(actual, 2 - p) / ((1 - p) * (2 - p))
        - actual * np.power(predicted, 1 - p) / (1 - p)
        + np.power(predicted, 2 - p) / (2 - p)
    )
    return float(2 * terms.mean())


def spearman(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Rank correlation with mid-ranks; 0 for a constant prediction, None for constant actual values."""
    if np.ptp(actual) == 0:
        return None
    if np.ptp(predicted) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(actual), rankdata(predicted))[0, 1])


def normalised_gini(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Area between the cumulative-gains curve and the diagonal, as a share of what perfect ranking gives.

    Ties in prediction are broken at random with a fixed seed; a constant prediction has 0.
    None when the actual values are all the same.
    """
    if np.ptp(actual) == 0:
        return None
    if np.ptp(predicted) == 0:
        return 0.0
    return _gini(actual, descending_order(predicted)) / _gini(actual, np.argsort(-actual, kind="stable"))


def _gini(actual: FloatArray, order: npt.NDArray[np.int64]) -> float:
    gains = np.cumsum(actual[order]) / actual.sum()
    return float(gains.sum() - (len(actual) + 1) / 2)


def descending_order(predicted: FloatArray) -> npt.NDArray[np.int64]:
    """Positions from the highest prediction to the lowest, ties in a random but fixed order."""
    shuffled = np.random.default_rng(TIE_SEED).permutation(len(predicted))
    return shuffled[np.argsort(-predicted[shuffled], kind="stable")]


def decile_of(predicted: FloatArray) -> npt.NDArray[np.int64]:
    """0 (lowest tenth) … 9 (highest tenth) for each prediction; tenths of equal size, ties broken by a fixed seed."""
    ranks = np.empty(len(predicted), dtype=np.int64)
    ranks[descending_order(predicted)[::-1]] = np.arange(len(predicted))
    return ranks * 10 // max(len(predicted), 1)


def decile_mape(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Mean over deciles of prediction of |mean predicted - mean actual| / mean actual.

    Denominators are floored at 5 % of the overall actual mean. None when nobody spent anything.
    """
    mean = float(actual.mean())
    if mean <= 0:
        return None
    deciles = decile_of(predicted)
    counts = np.bincount(deciles, minlength=10)
    present = counts > 0
    actual_means = np.bincount(deciles, actual, 10)[present] / counts[present]
    predicted_means = np.bincount(deciles, predicted, 10)[present] / counts[present]
    return float((np.abs(predicted_means - actual_means) / np.maximum(actual_means, MAPE_FLOOR * mean)).mean())


def bias(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Σ predicted / Σ actual: 1 is right in aggregate. None when nobody spent anything."""
    total = float(actual.sum())
    return None if total <= 0 else float(predicted.sum()) / total


def explained(actual: FloatArray, predicted: FloatArray) -> float:
    """capped R² + D²; what is undefined counts 0."""
    return (capped_r2(actual, predicted) or 0.0) + (d2(actual, predicted) or 0.0)


def score(actual: FloatArray, predicted: FloatArray) -> float:
    """capped R² + D² + normalised Gini − decile MAPE / 4; what is undefined counts 0."""
    ranking, calibration = normalised_gini(actual, predicted) or 0.0, decile_mape(actual, predicted) or 0.0
    return explained(actual, predicted) + ranking - MAPE_WEIGHT * calibration


def exceeding_share(total: FloatArray, parts: FloatArray) -> float | None:
    """Share of customers whose named categories (n, k) add up to more than their total (n,), beyond rounding of floats.

    None without categories: nothing can exceed anything.
    """
    if not parts.shape[1]:
        return None
    return float((parts.sum(axis=1) > total + EXCEEDS * np.maximum(total, 1.0)).mean())


def auc(outcome: FloatArray, score: FloatArray) -> float | None:
    """Area under the ROC curve, ties counted half; 0.5 for a constant score, None when only one outcome occurs."""
    positives = float(outcome.sum())
    negatives = len(outcome) - positives
    if positives == 0 or negatives == 0:
        return None
    ranks = rankdata(score)
    return float((ranks[outcome > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def brier(outcome: FloatArray, probability: FloatArray) -> float:
    """Mean squared error of the probability."""
    return float(np.square(outcome - probability).mean())


def log_loss(outcome: FloatArray, probability: FloatArray) -> float:
    """Mean negative log-likelihood, probabilities kept within 1e-6 of 0 and 1."""
    p = np.clip(probability, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    return float(-(outcome * np.log(p) + (1 - outcome) * np.log1p(-p)).mean())


def score_spend(actual: FloatArray, predicted: FloatArray) -> dict[str, float | None]:
    """All metrics of predicted money on the same rows. Raises ValueError when there are none."""
    if not len(actual):
        raise ValueError("No rows to score.")
    return {
        "mae": mae(actual, predicted),
        "rmse": rmse(actual, predicted),
        "r2": r2(actual, predicted),
        "capped_r2": capped_r2(actual, predicted),
        "d2": d2(actual, predicted),
        "spearman": spearman(actual, predicted),
        "normalised_gini": normalised_gini(actual, predicted),
        "decile_mape": decile_mape(actual, predicted),
        "bias": bias(actual, predicted),
    }


def score_probability(outcome: FloatArray, probability: FloatArray) -> dict[str, float | None]:
    """AUC, log loss and Brier score of buying at all, with the share that bought."""
    return {
        "auc": auc(outcome, probability),
        "log_loss": log_loss(outcome, probability),
        "brier": brier(outcome, probability),
        "share_buying": float(outcome.mean()),
        "mean_probability": float(probability.mean()),
    }


def interval_score(actual: FloatArray, lower: FloatArray, upper: FloatArray, coverage: float = 0.8) -> float:
    """Mean width, plus 2 / (1 − coverage) times by how much what came lies outside; money, lower is better.

    Source: Gneiting & Raftery (2007), "Strictly Proper Scoring Rules, Prediction, and Estimation", equation 43.
    """
    outside = np.maximum(lower - actual, 0.0) + np.maximum(actual - upper, 0.0)
    return float((upper - lower + 2 / (1 - coverage) * outside).mean())


def score_interval(
    actual: FloatArray, predicted: FloatArray, lower: FloatArray, upper: FloatArray
) -> dict[str, float | list[float]]:
    """Share of customers below and above their interval, overall and by decile of prediction, and the interval score.

    Beside the deciles the share that spent anything: where many spend nothing, nobody can be below.
    """
    below, above = (actual < lower).astype(float), (actual > upper).astype(float)
    deciles = decile_of(predicted)
    counts = np.maximum(np.bincount(deciles, minlength=10), 1)
    return {
        "below": float(below.mean()),
        "above": float(above.mean()),
        "covered": float(1 - below.mean() - above.mean()),
        "mean_width": float((upper - lower).mean()),
        "interval_score": interval_score(actual, lower, upper),
        "buying_by_decile": (np.bincount(deciles, actual > 0, 10) / counts).tolist(),
        "below_by_decile": (np.bincount(deciles, below, 10) / counts).tolist(),
        "above_by_decile": (np.bincount(deciles, above, 10) / counts).tolist(),
    }
