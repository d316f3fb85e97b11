"""Makes the parts agree with the whole: named targets + other = total, all ≥ 0, to the displayed cent."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import BundleMismatch

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


TOP_DOWN = "top_down"


def reconcile(method: Mapping[str, Any], total: FloatArray, parts: FloatArray, usual_shares: FloatArray) -> FloatArray:
    """Total (n,) and parts (n, k), made to agree by the bundle's method, (n, 1 + k); all ≥ 0, parts add up to the total."""
    if method["name"] != TOP_DOWN:
        raise BundleMismatch(f"This code does not know the reconciliation {method['name']!r}: train again.")
    return np.column_stack([total, reconcile_parts(total, parts, usual_shares)])


def reconcile_parts(total: FloatArray, parts: FloatArray, usual_shares: FloatArray) -> FloatArray:
    """Scales each customer's parts (n, k) to his total (n,); where all parts are 0 the shop's usual shares (k,) apply.

    The total is left as it is. `usual_shares` must be ≥ 0 and sum to 1.
    """
    sums = parts.sum(axis=1, keepdims=True)
    shares = np.where(sums > 0, parts / np.where(sums > 0, sums, 1.0), usual_shares)
    return shares * total[:, None]


def to_cents(total: FloatArray, parts: FloatArray) -> IntArray:
    """Total and parts in cents, int64 (n, 1 + k); the parts add up to the total by largest remainder.

    The total is rounded half to even; each part then differs from its exact value by less than one cent (and the
    total's own rounding). Ties go to the earlier part.
    """
    whole = np.rint(total * 100).astype(np.int64)
    sums = parts.sum(axis=1, keepdims=True)
    exact = np.where(sums > 0, parts / np.where(sums > 0, sums, 1.0), 1.0 / parts.shape[1]) * whole[:, None]
    floors = np.floor(exact).astype(np.int64)
    missing = whole - floors.sum(axis=1)
    by_remainder = np.argsort(-(exact - floors), axis=1, kind="stable")
    places = np.empty_like(by_remainder)
    np.put_along_axis(places, by_remainder, np.arange(parts.shape[1])[None, :], axis=1)
    cents = floors + (places < missing[:, None])
    return np.column_stack([whole, cents])
