"""Random Forest, XGBoost and LightGBM behind one small interface: fit, predict, save in a native format, load.

Every input matrix is float32 `(n, F)` in the bundle's feature order, NaN = missing. Every prediction is float64 `(n,)`
in units of the currency (money) or a probability. Heavy libraries are imported when first used, never at import: a
booster loaded before a fork makes the child hang (xgboost#8040, LightGBM#6137).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import BundleMismatch

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

TWEEDIE_POWER = 1.2
MAX_BIN = 127
MONEY, PROBABILITY = "money", "probability"
FOREST_BLOCK = 65_536  # rows walked at a time


@dataclass(frozen=True)
class Effort:
    """How much is spent on fitting: a profile's limits, the same for every target."""

    learning_rate: float
    max_rounds: int
    patience: int
    forest_trees: int
    forest_rows: int  # rows each tree may see
    threads: int
    seed: int = 20_240_229


class Member(ABC):
    """A fitted model that stands alone: plain predictions from the features, no margin, no state."""

    library: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Predictions (n,) of features (n, F)."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes the model in its library's own format."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> "Member":
        """Reads what `save` wrote."""


class XGBoostMember(Member):
    """An XGBoost booster, saved as JSON."""

    library = "xgboost"
    suffix = ".json"

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """By `inplace_predict` on the array: a DMatrix per call costs more than the trees."""
        self._booster.set_param({"nthread": threads})
        predicted = self._booster.inplace_predict(features, missing=np.nan, validate_features=False)
        return np.asarray(predicted, dtype=np.float64)

    def save(self, path: Path) -> None:
        """As XGBoost JSON with the feature names inside."""
        self._booster.save_model(path)

    @classmethod
    def load(cls, path: Path) -> "XGBoostMember":
        """From XGBoost JSON."""
        import xgboost

        return cls(xgboost.Booster(model_file=str(path)))


class LightGBMMember(Member):
    """A LightGBM booster, saved as text."""

    library = "lightgbm"
    suffix = ".txt"

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """From the array by position; names were checked when the bundle was loaded."""
        return np.asarray(self._booster.predict(features, num_threads=threads), dtype=np.float64)

    def save(self, path: Path) -> None:
        """As LightGBM text with the feature names inside."""
        self._booster.save_model(str(path))

    @classmethod
    def load(cls, path: Path) -> "LightGBMMember":
        """From LightGBM text."""
        import lightgbm

        return cls(lightgbm.Booster(model_file=str(path)))


class ForestMember(Member):
    """A scikit-learn forest as plain arrays: pickles break across versions, arrays do not.

    Trees lie one behind the other; a leaf has feature -1. A sample goes left when its float32 value is <= the float64
    threshold, as in scikit-learn, and where the tree learned it when the value is missing.
    """

    library = "random_forest"
    suffix = ".npz"
    _ARRAYS: ClassVar[tuple[str, ...]] = ("roots", "feature", "threshold", "left", "right", "missing_left", "value")

    def __init__(self, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._arrays = {name: arrays[name] for name in self._ARRAYS}

    @classmethod
    def from_sklearn(cls, forest: Any) -> "ForestMember":
        """Flattens a fitted RandomForestRegressor."""
        trees = [estimator.tree_ for estimator in forest.estimators_]
        roots = np.cumsum([0, *(tree.node_count for tree in trees)])[:-1]
        shifted = list(zip(trees, roots, strict=True))
        return cls(
            {
                "roots": roots.astype(np.int32),
                "feature": np.concatenate([np.maximum(tree.feature, -1) for tree in trees]).astype(np.int32),
                "threshold": np.concatenate([tree.threshold for tree in trees]),
                "left": np.concatenate([tree.children_left + root for tree, root in shifted]).astype(np.int32),
                "right": np.concatenate([tree.children_right + root for tree, root in shifted]).astype(np.int32),
                "missing_left": np.concatenate([tree.missing_go_to_left for tree in trees]).astype(bool),
                "value": np.concatenate([tree.value[:, 0, 0] for tree in trees]),
            }
        )

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Walks all rows of a block down one tree at a time; `threads` has no effect here."""
        blocks = [self._walk(features[start : start + FOREST_BLOCK]) for start in range(0, len(features), FOREST_BLOCK)]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _walk(self, features: Matrix) -> FloatArray:
        split, threshold, left, right = (self._arrays[name] for name in ("feature", "threshold", "left", "right"))
        missing_left, value = self._arrays["missing_left"], self._arrays["value"]
        total = np.zeros(len(features))
        for root in self._arrays["roots"]:
            node = np.full(len(features), root, dtype=np.int32)
            walking = np.arange(len(features)) if split[root] >= 0 else np.arange(0)
            while len(walking):
                at = node[walking]
                seen = features[walking, split[at]]
                goes_left = np.where(np.isnan(seen), missing_left[at], seen <= threshold[at])
                node[walking] = np.where(goes_left, left[at], right[at])
                walking = walking[split[node[walking]] >= 0]
            total += value[node]
        return total / len(self._arrays["roots"])

    def save(self, path: Path) -> None:
        """As a compressed .npz of the arrays."""
        np.savez_compressed(path, allow_pickle=False, **self._arrays)

    @classmethod
    def load(cls, path: Path) -> "ForestMember":
        """From .npz; nothing in it is executed."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(dict(arrays))


MEMBER_TYPES: dict[str, type[Member]] = {
    member.library: member for member in (ForestMember, XGBoostMember, LightGBMMember)
}


def load_member(library: str, path: Path) -> Member:
    """A saved model. Raises BundleMismatch if this code does not know the library."""
    if library not in MEMBER_TYPES:
        raise BundleMismatch(
            f"{path.name} was made by {library!r}; this code reads {', '.join(MEMBER_TYPES)}: train again."
        )
    return MEMBER_TYPES[library].load(path)


@dataclass(frozen=True)
class Fold:
    """Rows to learn from: features (n, F), labels (n,) in money or 0/1."""

    features: Matrix
    labels: FloatArray


@dataclass(frozen=True)
class Fitted:
    """A fitted member and the boosting rounds (or trees) that it has."""

    member: Member
    rounds: int


class Learner(ABC):
    """Fits one member. With `validation` the rounds are found by early stopping on it, else `rounds` are grown."""

    name: ClassVar[str]
    stops_early: ClassVar[bool] = True

    @abstractmethod
    def fit(
        self,
        training: Fold,
        names: Sequence[str],
        effort: Effort,
        *,
        kind: str = MONEY,
        validation: Fold | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """Learns `kind` (money, or probability of a 0/1 label) from the training fold."""


def tweedie_weight(labels: FloatArray) -> float:
    """One weight for all rows that makes Tweedie boosting blind to the currency's scale.

    With a log link, labels scaled by s scale every gradient and Hessian by s^(2-p); weighting by mean^(p-2) undoes it,
    so that regularisation means the same in yen and in euro.
    """
    return float(np.mean(labels) ** (TWEEDIE_POWER - 2))


class XGBoostLearner(Learner):
    """Histogram boosting of small trees; Tweedie for money, logistic for probabilities."""

    name = "xgboost"

    def fit(
        self,
        training: Fold,
        names: Sequence[str],
        effort: Effort,
        *,
        kind: str = MONEY,
        validation: Fold | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """See `Learner.fit`; the best iteration of an early-stopped run is cut out, so plain predict uses just it."""
        import xgboost

        weight = tweedie_weight(training.labels) if kind == MONEY else 1.0

        def matrix(fold: Fold, reference: Any = None) -> Any:
            binned = xgboost.QuantileDMatrix(
                fold.features,
                fold.labels,
                feature_names=list(names),
                missing=np.nan,
                max_bin=MAX_BIN,
                nthread=effort.threads,
                ref=reference,
            )
            # after binning: the weight must not move the bins
            binned.set_weight(np.full(len(fold.labels), weight))
            return binned

        train = matrix(training)
        stopping = {}
        if validation is not None:
            stopping = {
                "evals": [(matrix(validation, train), "validation")],
                "early_stopping_rounds": effort.patience,
                "verbose_eval": False,
            }
        booster = xgboost.train(
            self._parameters(kind, effort), train, num_boost_round=rounds or effort.max_rounds, **stopping
        )
        if validation is not None:
            booster = booster[: booster.best_iteration + 1]
        return Fitted(XGBoostMember(booster), booster.num_boosted_rounds())

    def _parameters(self, kind: str, effort: Effort) -> dict[str, Any]:
        objective = (
            {
                "objective": "reg:tweedie",
                "tweedie_variance_power": TWEEDIE_POWER,
                "eval_metric": f"tweedie-nloglik@{TWEEDIE_POWER}",
            }
            if kind == MONEY
            else {"objective": "binary:logistic", "eval_metric": "logloss"}
        )
        return {
            **objective,
            "tree_method": "hist",
            "grow_policy": "lossguide",
            "max_leaves": 8,
            "max_depth": 0,
            "max_bin": MAX_BIN,
            "eta": effort.learning_rate,
            "subsample": 0.8,
            "colsample_bytree": 0.7,
            "min_child_weight": 20 if kind == MONEY else 5,
            "lambda": 5,
            "nthread": effort.threads,
            "seed": effort.seed,
            "verbosity": 0,
        }


class LightGBMLearner(Learner):
    """Leaf-wise boosting of small trees; Tweedie for money, logistic for probabilities."""

    name = "lightgbm"

    def fit(
        self,
        training: Fold,
        names: Sequence[str],
        effort: Effort,
        *,
        kind: str = MONEY,
        validation: Fold | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """See `Learner.fit`."""
        import lightgbm

        weight = tweedie_weight(training.labels) if kind == MONEY else 1.0

        def dataset(fold: Fold, reference: Any = None) -> Any:
            return lightgbm.Dataset(
                fold.features,
                fold.labels,
                weight=np.full(len(fold.labels), weight),
                feature_name=list(names),
                reference=reference,
                params={"max_bin": MAX_BIN, "verbose": -1, "num_threads": effort.threads},
            )

        train = dataset(training)
        stopping: dict[str, Any] = {}
        if validation is not None:
            stopping = {
                "valid_sets": [dataset(validation, train)],
                "callbacks": [lightgbm.early_stopping(effort.patience, verbose=False)],
            }
        booster = lightgbm.train(
            self._parameters(kind, effort), train, num_boost_round=rounds or effort.max_rounds, **stopping
        )
        grown = booster.best_iteration if validation is not None else booster.current_iteration()
        if validation is not None:
            booster = lightgbm.Booster(model_str=booster.model_to_string(num_iteration=grown))
        return Fitted(LightGBMMember(booster), grown)

    def _parameters(self, kind: str, effort: Effort) -> dict[str, Any]:
        objective = (
            {"objective": "tweedie", "tweedie_variance_power": TWEEDIE_POWER}
            if kind == MONEY
            else {"objective": "binary"}
        )
        return {
            **objective,
            "num_leaves": 8,
            "learning_rate": effort.learning_rate,
            "min_data_in_leaf": 40,
            "lambda_l2": 5.0,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "feature_fraction": 0.7,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": effort.threads,
            "seed": effort.seed,
            "verbose": -1,
        }


class ForestLearner(Learner):
    """Bagged deep trees on squared error, bounded in rows, depth and number."""

    name = "random_forest"
    stops_early = False

    def fit(
        self,
        training: Fold,
        names: Sequence[str],
        effort: Effort,
        *,
        kind: str = MONEY,
        validation: Fold | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """See `Learner.fit`; a forest does not overfit by more trees, so there is nothing to stop early."""
        from sklearn.ensemble import RandomForestRegressor

        trees = rounds or effort.forest_trees
        forest = RandomForestRegressor(
            n_estimators=trees,
            max_depth=12,
            min_samples_leaf=15,
            max_features=0.33,
            max_samples=min(1.0, effort.forest_rows / len(training.labels)),
            n_jobs=effort.threads,
            random_state=effort.seed,
        )
        forest.fit(training.features, training.labels)
        return Fitted(ForestMember.from_sklearn(forest), trees)


LEARNERS: tuple[Learner, ...] = (ForestLearner(), XGBoostLearner(), LightGBMLearner())
