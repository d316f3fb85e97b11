"""How far predictions may go: the range of every feature that was trained on, and the most that is ever answered."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]


def trained_ranges(features: Matrix, names: Sequence[str]) -> dict[str, Any]:
    """The lowest and highest value of each feature (n, F) that was learned from; None where it was always missing."""
    return {
        name: [float(np.nanmin(column)), float(np.nanmax(column))] if not np.isnan(column).all() else None
        for name, column in zip(names, features.T, strict=True)
    }


def outside(features: Matrix, names: Sequence[str], ranges: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Whether any feature of a customer (n, F) lies outside of what was trained on, bool (n,)."""
    found = np.zeros(len(features), dtype=bool)
    for index, name in enumerate(names):
        if ranges[name] is not None:
            low, high = ranges[name]
            found |= (features[:, index] < low) | (features[:, index] > high)
    return found
