"""Plain trees written as a LightGBM model, which can take a prediction apart exactly."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

MISSING_IS_NAN, MISSING_GOES_LEFT = 8, 2
"""Of LightGBM's `decision_type`."""


def trees_as_lightgbm(arrays: Mapping[str, npt.NDArray[Any]], n_features: int) -> str:
    """The trees as a LightGBM model of squared error whose value is their sum.

    LightGBM compares float64 and goes left on <=, as scikit-learn does: the same rows come to the same leaves.
    """
    ends = [*arrays["roots"][1:], len(arrays["feature"])]
    trees = [
        "\n".join([f"Tree={number}", *_tree_lines(arrays, int(root), int(end)), "", ""])
        for number, (root, end) in enumerate(zip(arrays["roots"], ends, strict=True))
    ]
    names = " ".join(f"f{index}" for index in range(n_features))
    header = (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\n"
        f"max_feature_idx={n_features - 1}\nobjective=regression\nfeature_names={names}\n"
        f"feature_infos={' '.join(['[-inf:inf]'] * n_features)}\ntree_sizes={' '.join(str(len(tree)) for tree in trees)}"
    )
    return f"{header}\n\n{''.join(trees)}\nend of trees\n"


def _tree_lines(arrays: Mapping[str, npt.NDArray[Any]], root: int, end: int) -> list[str]:
    """One tree: inner nodes and leaves are numbered apart, a child below 0 is a leaf: -1 - its number."""
    split, value, cover = (arrays[name][root:end] for name in ("feature", "value", "cover"))
    inner = split >= 0
    number = np.where(inner, np.cumsum(inner) - 1, -1 * np.cumsum(~inner))

    def child(side: str) -> npt.NDArray[Any]:
        return number[arrays[side][root:end][inner] - root]

    columns: dict[str, Any] = {
        "split_feature": split[inner],
        "split_gain": np.ones(inner.sum(), dtype=np.int64),
        "threshold": arrays["threshold"][root:end][inner],
        "decision_type": MISSING_IS_NAN + MISSING_GOES_LEFT * arrays["missing_left"][root:end][inner],
        "left_child": child("left"),
        "right_child": child("right"),
        "leaf_value": value[~inner],
        "leaf_weight": cover[~inner],
        "leaf_count": cover[~inner],
        "internal_value": value[inner],
        "internal_weight": cover[inner],
        "internal_count": cover[inner],
    }
    lines = [f"{name}={' '.join(map(repr, column.tolist()))}" for name, column in columns.items() if len(column)]
    return [f"num_leaves={(~inner).sum()}", "num_cat=0", *lines, "is_linear=0", "shrinkage=1"]
