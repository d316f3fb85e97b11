"""Makes the parts agree with the whole: named targets + other = total, all ≥ 0, to the displayed cent.

A method is plain JSON in a bundle's metadata: its name and whatever was learned for it on windows judged before.

- top_down: the total stays, the parts are scaled to it.
- bottom_up: the parts stay, the total is their sum.
- half_and_half: the total is the mean of both, the parts are scaled to it.
- mint: the gap between both is shared out as past errors went along with it, customer by customer (Wickramasuriya,
  Athanasopoulos & Hyndman 2019, equation 9). floors: what a prediction counts at least; covariance: of the errors relative
  to the predictions, total first, shrunk.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import BundleMismatch
from ml_pipeline.metrics import CAP_QUANTILE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Method = Mapping[str, Any]

TOP_DOWN = "top_down"
BOTTOM_UP = "bottom_up"
HALF_AND_HALF = "half_and_half"
MINT = "mint"

PLAIN_METHODS: tuple[Method, ...] = ({"name": TOP_DOWN}, {"name": BOTTOM_UP}, {"name": HALF_AND_HALF})
"""Those for which nothing is learned."""
LEVEL_FLOOR = 0.01  # of the mean that was spent: a prediction of 0 is not certain either
SMALLEST_FLOOR = 0.01  # a cent
LARGEST_ERROR = 8.0  # standard deviations: of very small predictions the relative error has no bounds
LEAST_SHRINKAGE = 0.05  # windows are few and their rows alike: rows alone would promise too much


def reconcile(method: Method, total: FloatArray, parts: FloatArray, usual_shares: FloatArray) -> FloatArray:
    """Total (n,) and parts (n, k), all ≥ 0, made to agree by a method, (n, 1 + k); all ≥ 0, parts add up to the total.

    Each customer by himself, bit for bit; whose parts add up already stays as he is. One part is the total. Where all
    parts are 0 they say nothing: the total stays and the shop's usual shares (k,) apply, which must be ≥ 0 and sum to 1.
    Raises BundleMismatch for a method that this code does not know.
    """
    if parts.shape[1] == 1:
        return np.column_stack([total, total])
    sums = _row_sums(parts)
    whole, moved = _moved(method, total, parts, sums)
    silent = sums == 0
    whole, moved = np.where(silent, total, whole), np.where(silent[:, None], parts, moved)
    return np.column_stack([whole, reconcile_parts(whole, moved, usual_shares)])


def reconcile_parts(total: FloatArray, parts: FloatArray, usual_shares: FloatArray) -> FloatArray:
    """Scales each customer's parts (n, k) to his total (n,); where all parts are 0 the shop's usual shares (k,) apply.

    The total is left as it is, and so are parts that add up to it. `usual_shares` must be ≥ 0 and sum to 1.
    """
    sums = _row_sums(parts)[:, None]
    shares = np.where(sums > 0, parts / np.where(sums > 0, sums, 1.0), usual_shares)
    return np.where(sums == total[:, None], parts, shares * total[:, None])


def fit_mint(predicted: FloatArray, actual: FloatArray) -> Method:
    """What `mint` needs, from total and parts (n, 1 + k) that were predicted for unseen rows and what came.

    An error's scale is the prediction (at least a small share of what is spent on average). Correlations are shrunk to
    none by their noise (Schäfer & Strimmer 2005, as in Wickramasuriya et al.), and at least a little.
    """
    errors = _without_wholesale(predicted - actual)
    floors = np.maximum(LEVEL_FLOOR * actual.mean(axis=0), SMALLEST_FLOOR)
    levels = np.maximum(predicted, floors)
    scale = np.sqrt(np.square(errors).sum(axis=0) / np.square(levels).sum(axis=0))
    sure = scale == 0
    relative = np.clip(errors / (levels * np.where(sure, 1.0, scale)), -LARGEST_ERROR, LARGEST_ERROR)
    spread = np.sqrt(np.square(relative).mean(axis=0))
    standard = relative / np.where(sure, 1.0, spread)
    # einsum adds in one order however many threads there are, so that a bundle's id stays
    correlation = np.einsum("ni,nj->ij", standard, standard) / len(standard)
    np.fill_diagonal(correlation, 1.0)
    kept = 1 - max(_shrinkage(standard, correlation), LEAST_SHRINKAGE)
    shrunk = np.where(np.eye(len(correlation), dtype=bool), correlation, kept * correlation)
    return {
        "name": MINT,
        "floors": floors.tolist(),
        "covariance": (shrunk * scale[:, None] * scale[None, :]).tolist(),
    }


def _without_wholesale(errors: FloatArray) -> FloatArray:
    """Errors (n, 1 + k), no larger than their 99.5th percentile: one wholesale order must not tell how they go together."""
    sizes = np.abs(errors)
    cap = np.quantile(sizes, CAP_QUANTILE, axis=0)
    cap = np.where(cap > 0, cap, sizes.max(axis=0))
    return np.clip(errors, -cap, cap)


def _shrinkage(standard: FloatArray, correlation: FloatArray) -> float:
    """Noise of the correlations (1 + k)² of standardised errors (n, 1 + k) as a share of their squares, in [0, 1]."""
    squares = np.einsum("ni,nj->ij", np.square(standard), np.square(standard)) / len(standard)
    noise = (squares - np.square(correlation)) / len(standard)
    others = ~np.eye(len(correlation), dtype=bool)
    strength = float(np.square(correlation[others]).sum())
    return min(max(float(noise[others].sum()) / strength, 0.0), 1.0) if strength > 0 else 1.0


def _moved(method: Method, total: FloatArray, parts: FloatArray, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The total (n,) that the method decides for, and parts (n, k) in the proportions that it decides for."""
    match method["name"]:
        case "top_down":
            return total, parts
        case "bottom_up":
            return sums, parts
        case "half_and_half":
            return (total + sums) / 2, parts
        case "mint":
            return _mint(method, total, parts, sums)
        case unknown:
            raise BundleMismatch(f"This code does not know the reconciliation {unknown!r}: train again.")


def _mint(method: Method, total: FloatArray, parts: FloatArray, sums: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Total (n,) and parts (n, k), each moved by its share of the gap's variance, nobody below 0.

    Where a part would go below 0 they no longer add up by themselves and are to be scaled to the total.
    """
    told = [total, *parts.T]
    signs = [1.0, *[-1.0] * parts.shape[1]]
    levels = [np.maximum(each, floor) for each, floor in zip(told, method["floors"], strict=True)]
    # column by column: a product of matrices may round one customer differently than many
    with_gap = []
    for level, row in zip(levels, method["covariance"], strict=True):
        weights = [sign * value for sign, value in zip(signs, row, strict=True)]
        with_gap.append(level * _added(weight * each for weight, each in zip(weights, levels, strict=True)))
    of_gap = _added(sign * each for sign, each in zip(signs, with_gap, strict=True))
    step = np.where(of_gap > 0, (total - sums) / np.where(of_gap > 0, of_gap, 1.0), 0.0)
    moved = [np.maximum(each - step * share, 0.0) for each, share in zip(told, with_gap, strict=True)]
    return moved[0], np.column_stack(moved[1:])


def _row_sums(parts: FloatArray) -> FloatArray:
    """Sums (n,) over columns (n, k), added from left to right however many rows there are."""
    return _added(parts.T)


def _added(columns: Iterable[FloatArray]) -> FloatArray:
    first, *others = columns
    return sum(others, start=first)


def to_cents(total: FloatArray, parts: FloatArray) -> IntArray:
    """Total and parts in cents, int64 (n, 1 + k); the parts add up to the total by largest remainder.

    The total is rounded half to even; each part then differs from its exact value by less than one cent (and the
    total's own rounding). Ties go to the earlier part.
    """
    whole = np.rint(total * 100).astype(np.int64)
    sums = parts.sum(axis=1, keepdims=True)
    shares: FloatArray = np.where(sums > 0, parts / np.where(sums > 0, sums, 1.0), 1.0 / parts.shape[1])
    return np.column_stack([whole, cents_that_add_up(shares * whole[:, None], whole)])


def cents_that_add_up(exact: FloatArray, whole: IntArray) -> IntArray:
    """Exact cents (..., k), of either sign, as whole cents that sum to `whole` (...), each within a cent of its own.

    Largest remainder; the exact ones must sum to the whole. One of 0 stays 0; ties go to the earlier one.
    """
    floors = np.floor(exact).astype(np.int64)
    missing = whole - floors.sum(axis=-1)
    by_remainder = np.argsort(-(exact - floors), axis=-1, kind="stable")
    gets_one = np.zeros(exact.shape, dtype=bool)
    np.put_along_axis(gets_one, by_remainder, np.arange(exact.shape[-1]) < missing[..., None], axis=-1)
    return floors + gets_one
