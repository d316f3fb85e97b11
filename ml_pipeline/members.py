"""Fitted models that stand alone, each read from one file of plain content: text, JSON or arrays, never a pickle.

Every input matrix is float32 `(n, F)` in the bundle's feature order, NaN = missing. Every prediction is float64 `(n,)`,
money (>= 0) or a probability, and is the same number bit for bit for a customer alone and among all others. Heavy
libraries are imported when first used, never at import: a booster loaded before a fork makes the child hang
(xgboost#8040, LightGBM#6137).
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ml_pipeline.attribution import Contributions, Scale
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.tree_text import trees_as_lightgbm

if TYPE_CHECKING:
    from ml_pipeline.btyd import BgNbd, GammaGamma

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

WALKED_ROWS = 65_536
"""Rows that go down the trees at a time."""


class Member(ABC):
    """A fitted model that stands alone: plain predictions from the features, no margin, no state."""

    library: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Predictions (n,), >= 0, of features (n, F)."""

    @abstractmethod
    def contributions(self, features: Matrix) -> Contributions:
        """What each feature adds to the prediction, on the scale where parts add up, of features (n, F), n ≥ 1."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Writes the model; the same model gives the same bytes."""

    @classmethod
    @abstractmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""


# Boosters on their own


class SharedXGBoost:
    """An XGBoost booster that threads use one after the other: to set its number of threads while another thread predicts
    makes that prediction fail, and predictions from a DMatrix share a cache."""

    def __init__(self, booster: Any) -> None:
        self.booster = booster
        self._turn = Lock()

    def values(self, features: Matrix, threads: int, kind: str) -> FloatArray:
        """By `inplace_predict` on the array: a DMatrix per call costs more than the trees."""
        with self._turn:
            self.booster.set_param({"nthread": threads})
            values = self.booster.inplace_predict(features, missing=np.nan, validate_features=False, predict_type=kind)
        return np.asarray(values, dtype=np.float64)

    def contributions(self, features: Matrix, scale: Scale) -> Contributions:
        """Exact Shapley values of the trees along their own paths (TreeSHAP, Lundberg et al. 2018), float32 inside."""
        import xgboost

        with self._turn:
            self.booster.set_param({"nthread": 1})
            rows = xgboost.DMatrix(features, missing=np.nan, nthread=1)
            found = self.booster.predict(rows, pred_contribs=True, validate_features=False)
        return Contributions(scale, float(found[0, -1]), found[:, :-1].astype(np.float64))

    @cached_property
    def scale(self) -> Scale:
        """What the trees add up to."""
        with self._turn:
            config = json.loads(self.booster.save_config())
        return _scale_of(config["learner"]["objective"]["name"])


class XGBoostMember(Member):
    """An XGBoost booster, saved as JSON."""

    library = "xgboost"
    suffix = ".json"

    def __init__(self, booster: Any) -> None:
        self._shared = SharedXGBoost(booster)

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """The booster's value, floored at 0: squared error may fall below."""
        return np.maximum(self._shared.values(features, threads, "value"), 0.0)

    def contributions(self, features: Matrix) -> Contributions:
        """Of the trees, on the scale of the booster's link."""
        return self._shared.contributions(features, self._shared.scale)

    def save(self, path: Path) -> None:
        """As XGBoost JSON with the feature names inside."""
        self._shared.booster.save_model(path)

    @classmethod
    def load(cls, path: Path) -> Self:
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
        """The booster's value, floored at 0: squared error may fall below."""
        return np.maximum(_lightgbm_values(self._booster, features, threads), 0.0)

    def contributions(self, features: Matrix) -> Contributions:
        """Of the trees, on the scale of the booster's link."""
        return _lightgbm_contributions(self._booster, features, _scale_of(self._booster.params["objective"]))

    def save(self, path: Path) -> None:
        """As LightGBM text with the feature names inside."""
        path.write_text(_lightgbm_text(self._booster), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """From LightGBM text."""
        import lightgbm

        return cls(lightgbm.Booster(model_file=str(path)))


def _lightgbm_values(booster: Any, features: Matrix, threads: int, *, raw: bool = False) -> FloatArray:
    """From the array by position; names were checked when the bundle was loaded."""
    return np.asarray(booster.predict(features, num_threads=threads, raw_score=raw), dtype=np.float64)


SCALES: Mapping[str, Scale] = {
    "reg:tweedie": "log",
    "reg:squarederror": "money",
    "tweedie": "log",
    "gamma": "log",
    "regression": "money",
    "binary": "logit",
}
"""What the trees of a booster of this objective add up to."""


def _scale_of(objective: str) -> Scale:
    if objective not in SCALES:
        raise BundleMismatch(f"This code does not know the link of the objective {objective!r}: train again.")
    return SCALES[objective]


def _lightgbm_contributions(booster: Any, features: Matrix, scale: Scale) -> Contributions:
    """Exact Shapley values of the trees along their own paths (TreeSHAP, Lundberg et al. 2018)."""
    found = np.asarray(booster.predict(features, num_threads=1, pred_contrib=True), dtype=np.float64)
    return Contributions(scale, float(found[0, -1]), found[:, :-1])


# Boosters on top of a personal amount


@dataclass(frozen=True)
class Offset:
    """What is expected before any tree: weight * max(feature, 0) + prior, money; `missing` is taken for a missing feature."""

    feature_index: int
    feature: str
    weight: float
    prior: float
    missing: float = 0.0

    def amounts(self, features: Matrix) -> FloatArray:
        """Money (n,), above 0 as `prior` is."""
        seen = np.nan_to_num(features[:, self.feature_index].astype(np.float64), nan=self.missing)
        return self.weight * np.maximum(seen, 0.0) + self.prior

    @property
    def usual(self) -> float:
        """The amount of a customer of whom nothing is known: the mean that `prior` is the rest of."""
        return self.prior / (1 - self.weight) if self.weight < 1 else self.prior


class RateMember(Member):
    """A booster with a log link that corrects a personal amount: prediction = offset * exp(sum of the trees).

    The file is JSON: the facts of the offset and the booster in its library's own text.
    """

    suffix = ".json"

    def __init__(self, offset: Offset, booster: Any) -> None:
        self._offset = offset
        self._booster = booster

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """The personal amount times what the trees make of it."""
        return self._offset.amounts(features) * np.exp(self._raw(features, threads))

    def contributions(self, features: Matrix) -> Contributions:
        """Logarithms of the trees; the personal amount over the usual one belongs to its feature."""
        trees = self._corrections(features)
        usual = np.log(self._offset.usual)
        trees.parts[:, self._offset.feature_index] += np.log(self._offset.amounts(features)) - usual
        return Contributions("log", trees.base + float(usual), trees.parts)

    def save(self, path: Path) -> None:
        """As JSON with the booster's text inside."""
        _write_json(path, {**asdict(self._offset), "booster": self._text()})

    @classmethod
    def load(cls, path: Path) -> Self:
        """From that JSON."""
        content = _read_json(path)
        return cls(
            Offset(**{name: value for name, value in content.items() if name != "booster"}),
            cls._booster_of(content["booster"]),
        )

    @abstractmethod
    def _raw(self, features: Matrix, threads: int) -> FloatArray: ...

    @abstractmethod
    def _corrections(self, features: Matrix) -> Contributions: ...

    @abstractmethod
    def _text(self) -> str: ...

    @staticmethod
    @abstractmethod
    def _booster_of(text: str) -> Any: ...


class LightGBMRateMember(RateMember):
    """With a LightGBM booster."""

    library = "lightgbm_rate"

    def _raw(self, features: Matrix, threads: int) -> FloatArray:
        return _lightgbm_values(self._booster, features, threads, raw=True)

    def _corrections(self, features: Matrix) -> Contributions:
        return _lightgbm_contributions(self._booster, features, "log")

    def _text(self) -> str:
        return _lightgbm_text(self._booster)

    @staticmethod
    def _booster_of(text: str) -> Any:
        return _lightgbm_of(text)


class XGBoostRateMember(RateMember):
    """With an XGBoost booster whose base score is 1, so that its margin is the sum of the trees."""

    library = "xgboost_rate"

    def __init__(self, offset: Offset, booster: Any) -> None:
        super().__init__(offset, booster)
        self._shared = SharedXGBoost(booster)

    def _raw(self, features: Matrix, threads: int) -> FloatArray:
        return self._shared.values(features, threads, "margin")

    def _corrections(self, features: Matrix) -> Contributions:
        return self._shared.contributions(features, "log")

    def _text(self) -> str:
        return bytes(self._booster.save_raw("json")).decode("utf-8")

    @staticmethod
    def _booster_of(text: str) -> Any:
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(bytearray(text, "utf-8"))
        return booster


class LogAmountMember(Member):
    """A LightGBM booster of log(amount / scale): prediction = scale * smearing * exp(sum of the trees).

    The exponential of a mean logarithm is below the mean; Duan (1983), "Smearing Estimate", makes up for it with the
    training rows' mean of exp(residual).
    """

    library = "lightgbm_log_amount"
    suffix = ".json"

    def __init__(self, smearing: float, scale: float, booster: Any) -> None:
        self._smearing = smearing
        self._scale = scale
        self._booster = booster

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Money, above 0."""
        return self._scale * self._smearing * np.exp(_lightgbm_values(self._booster, features, threads))

    def contributions(self, features: Matrix) -> Contributions:
        """Logarithms, of the trees."""
        trees = _lightgbm_contributions(self._booster, features, "log")
        return Contributions("log", trees.base + float(np.log(self._scale * self._smearing)), trees.parts)

    def save(self, path: Path) -> None:
        """As JSON with the booster's text inside."""
        text = _lightgbm_text(self._booster)
        _write_json(path, {"smearing": self._smearing, "scale": self._scale, "booster": text})

    @classmethod
    def load(cls, path: Path) -> Self:
        """From that JSON."""
        content = _read_json(path)
        return cls(content["smearing"], content["scale"], _lightgbm_of(content["booster"]))


def _lightgbm_text(booster: Any) -> str:
    """LightGBM's own text, without the number of threads: they change no tree, and must not change a bundle's name."""
    return re.sub(r"^\[num_threads: \d+\]$", "[num_threads: 0]", booster.model_to_string(), flags=re.MULTILINE)


def _lightgbm_of(text: str) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=text)


# Trees of scikit-learn


class FlatTrees(Member):
    """scikit-learn's trees as plain arrays: pickles break across versions, arrays do not.

    Trees lie one behind the other; a leaf has feature -1. A sample goes left when its float32 value is <= the float64
    threshold, as in scikit-learn, and where the tree learned it when the value is missing. `cover` is how many of the
    rows learned from came through a node.
    """

    suffix = ".npz"
    ARRAYS: ClassVar[tuple[str, ...]] = (
        "roots",
        "feature",
        "threshold",
        "left",
        "right",
        "missing_left",
        "value",
        "cover",
    )

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._arrays = {name: arrays[name] for name in self.ARRAYS}
        self._same_trees: dict[int, Any] = {}

    def _contributions(self, features: Matrix) -> Contributions:
        """Of the sum of the trees, by LightGBM, which is handed the same trees the first time."""
        n_features = features.shape[1]
        if n_features not in self._same_trees:
            self._same_trees[n_features] = _lightgbm_of(trees_as_lightgbm(self._arrays, n_features))
        return _lightgbm_contributions(self._same_trees[n_features], features, "money")

    def save(self, path: Path) -> None:
        """As a compressed .npz of the arrays."""
        np.savez_compressed(path, allow_pickle=False, **self._arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From .npz; nothing in it is executed."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(dict(arrays))

    def _sums(self, features: Matrix, start: float) -> FloatArray:
        """`start` plus all trees' values (n,), added in the order of the trees."""
        blocks = [self._walk(features[row : row + WALKED_ROWS], start) for row in range(0, len(features), WALKED_ROWS)]
        return np.concatenate(blocks) if blocks else np.zeros(0)

    def _walk(self, features: Matrix, start: float) -> FloatArray:
        """All rows of a block down one tree at a time."""
        split, threshold, left, right = (self._arrays[name] for name in ("feature", "threshold", "left", "right"))
        missing_left, value = self._arrays["missing_left"], self._arrays["value"]
        total = np.full(len(features), start)
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
        return total


class ForestMember(FlatTrees):
    """The mean of a random forest's trees."""

    library = "random_forest"

    @classmethod
    def from_sklearn(cls, forest: Any) -> Self:
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
                "cover": np.concatenate([tree.weighted_n_node_samples for tree in trees]).astype(np.int64),
            }
        )

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """`threads` has no effect here."""
        return self._sums(features, 0.0) / len(self._arrays["roots"])

    def contributions(self, features: Matrix) -> Contributions:
        """Money, the mean of what the trees say."""
        found, n_trees = self._contributions(features), len(self._arrays["roots"])
        return Contributions("money", found.base / n_trees, found.parts / n_trees)


class BoostedTreesMember(FlatTrees):
    """A baseline plus the sum of the trees of scikit-learn's histogram gradient boosting on squared error."""

    library = "gradient_boosting"
    ARRAYS = (*FlatTrees.ARRAYS, "baseline")

    @classmethod
    def from_sklearn(cls, boosting: Any, rounds: int) -> Self:
        """Flattens the first `rounds` trees of a fitted HistGradientBoostingRegressor."""
        trees = [stage[0].nodes for stage in boosting._predictors[:rounds]]
        roots = np.cumsum([0, *(len(tree) for tree in trees)])[: len(trees)]
        nodes = np.concatenate(trees)
        shift = np.repeat(roots, [len(tree) for tree in trees])
        leaf = nodes["is_leaf"].astype(bool)
        return cls(
            {
                "roots": roots.astype(np.int32),
                "feature": np.where(leaf, -1, nodes["feature_idx"]).astype(np.int32),
                "threshold": nodes["num_threshold"].astype(np.float64),
                "left": (nodes["left"] + shift).astype(np.int32),
                "right": (nodes["right"] + shift).astype(np.int32),
                "missing_left": nodes["missing_go_to_left"].astype(bool),
                "value": nodes["value"].astype(np.float64),
                "cover": nodes["count"].astype(np.int64),
                "baseline": np.asarray(boosting._baseline_prediction, dtype=np.float64).ravel(),
            }
        )

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Floored at 0; `threads` has no effect here."""
        return np.maximum(self._sums(features, float(self._arrays["baseline"][0])), 0.0)

    def contributions(self, features: Matrix) -> Contributions:
        """Money, of the trees."""
        found = self._contributions(features)
        return Contributions("money", found.base + float(self._arrays["baseline"][0]), found.parts)


# A sum of columns


@dataclass(frozen=True)
class LinearMember(Member):
    """intercept + sum of coefficient * (value - mean) / scale over the features, floored at 0.

    A missing value is filled, then every value is drawn into low … high, so that one extreme does not explode. All
    arrays are (F,) in the features' own units; the coefficients are money per scale.
    """

    library = "linear"
    suffix = ".json"

    fill: FloatArray
    low: FloatArray
    high: FloatArray
    mean: FloatArray
    scale: FloatArray
    coefficient: FloatArray
    intercept: float

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Column by column: a matrix product adds in an order that depends on how many rows there are."""
        total = np.full(len(features), self.intercept)
        for index in np.flatnonzero(self.coefficient):
            total += self.coefficient[index] * self._standardised(features, int(index))
        return np.maximum(total, 0.0)

    def contributions(self, features: Matrix) -> Contributions:
        """Money: coefficient * standardised value; a feature at its mean adds nothing."""
        return Contributions("money", self.intercept, self.standardised(features) * self.coefficient)

    def standardised(self, features: Matrix) -> FloatArray:
        """What the coefficients are multiplied with, (n, F)."""
        columns = [self._standardised(features, index) for index in range(len(self.fill))]
        return np.column_stack(columns) if columns else np.zeros((len(features), 0))

    def _standardised(self, features: Matrix, index: int) -> FloatArray:
        seen = features[:, index].astype(np.float64)
        filled = np.where(np.isnan(seen), self.fill[index], seen)
        return (np.clip(filled, self.low[index], self.high[index]) - self.mean[index]) / self.scale[index]

    def save(self, path: Path) -> None:
        """As JSON; every number reads back as the same float64."""
        arrays = {name: array.tolist() for name, array in vars(self).items() if name != "intercept"}
        _write_json(path, {**arrays, "intercept": self.intercept})

    @classmethod
    def load(cls, path: Path) -> Self:
        """From that JSON."""
        content = _read_json(path)
        arrays = {name: np.array(content[name], dtype=np.float64) for name in content if name != "intercept"}
        return cls(**arrays, intercept=content["intercept"])


# Buy till you die


@dataclass(frozen=True)
class PurchaseSummary:
    """The feature columns that BG/NBD and Gamma-Gamma read: where x + 1, t_x, T and m are."""

    purchase_days: int
    first_to_last: int
    since_first: int
    repeat_value: int

    @property
    def pattern(self) -> tuple[int, int, int]:
        """The columns that say when was bought."""
        return (self.purchase_days, self.first_to_last, self.since_first)

    def of(self, features: Matrix) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """x, t_x, T and m, each (n,); who has no purchases (missing values) counts as new on that day."""

        def column(index: int) -> FloatArray:
            return np.nan_to_num(features[:, index].astype(np.float64), nan=0.0)

        repeats = np.maximum(column(self.purchase_days) - 1.0, 0.0)
        return repeats, column(self.first_to_last), column(self.since_first), column(self.repeat_value)


class BgNbdMember(Member):
    """BG/NBD's purchases times Gamma-Gamma's value: spend."""

    library = "bg_nbd"
    suffix = ".json"

    def __init__(self, summary: PurchaseSummary, horizon_days: int, purchases: "BgNbd", values: "GammaGamma") -> None:
        self._summary = summary
        self._horizon_days = horizon_days
        self._purchases = purchases
        self._values = values

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Finite and >= 0; `threads` has no effect here. Raises BadSummary for features that cannot be."""
        from ml_pipeline.btyd import expected_spend

        x, t_x, T, m = self._summary.of(features)
        return expected_spend(self._purchases, self._values, x, t_x, T, m, self._horizon_days)

    def contributions(self, features: Matrix) -> Contributions:
        """Logarithms of expected purchases and of expected value over those of a customer who is new today.

        Only together do x, t_x and T say how often someone buys: each gets a third of it. The value is the column's of m.
        """
        x, t_x, T, m = self._summary.of(features)
        new = (np.zeros(1),) * 3
        usual = np.log(self._purchases.expected_purchases(*new, self._horizon_days)[0])
        average = np.log(self._values.mean_value)
        often = np.log(self._purchases.expected_purchases(x, t_x, T, self._horizon_days)) - usual
        parts = np.zeros(features.shape)
        for column in self._summary.pattern:
            parts[:, column] += often / len(self._summary.pattern)
        parts[:, self._summary.repeat_value] += np.log(self._values.expected_value(x, m)) - average
        return Contributions("log", float(usual + average), parts)

    def save(self, path: Path) -> None:
        """As JSON: the two models' parameters and where the features are."""
        content = {
            "columns": asdict(self._summary),
            "horizon_days": self._horizon_days,
            "bg_nbd": self._purchases.as_json(),
            "gamma_gamma": self._values.as_json(),
        }
        _write_json(path, content)

    @classmethod
    def load(cls, path: Path) -> Self:
        """From that JSON."""
        from ml_pipeline.btyd import BgNbd, GammaGamma

        content = _read_json(path)
        return cls(
            PurchaseSummary(**content["columns"]),
            content["horizon_days"],
            BgNbd.from_json(content["bg_nbd"]),
            GammaGamma.from_json(content["gamma_gamma"]),
        )


OUTLOOK_NAMES = (
    "probability_alive",
    "purchase_probability_30d",
    "expected_purchases_30d",
    "expected_purchases_90d",
    "expected_purchases_365d",
    "expected_value",
    "expected_spend_30d",
)
"""What BG/NBD and Gamma-Gamma say of a customer, as columns for another model."""
OUTLOOKS_ON_VALUE = ("expected_value", "expected_spend_30d")
"""Those that are made from the value of purchases; all but the first are made from their pattern."""


@dataclass(frozen=True)
class PurchaseOutlook:
    """The outputs of both models as features."""

    summary: PurchaseSummary
    purchases: "BgNbd"
    values: "GammaGamma"

    def beside(self, history: Matrix, features: Matrix | None = None) -> Matrix:
        """The features (n, F) with the columns of OUTLOOK_NAMES behind them, (n, F + 7), which are told from `history`.

        features: those of a training, where some are blanked out (n, F); None: the history itself.
        """
        x, t_x, T, m = self.summary.of(history)
        expected = [self.purchases.expected_purchases(x, t_x, T, days) for days in (30, 90, 365)]
        value = self.values.expected_value(x, m)
        columns = (
            self.purchases.probability_alive(x, t_x, T),
            self.purchases.purchase_probability(x, t_x, T, 30),
            *expected,
            value,
            expected[0] * value,
        )
        return np.column_stack(
            [history if features is None else features, *(column.astype(np.float32) for column in columns)]
        )

    def back(self, parts: FloatArray) -> FloatArray:
        """Contributions to the features alone, (n, F), from those to the features and OUTLOOK_NAMES (n, F + 7).

        What an outlook contributes is shared alike by the columns that it is made from.
        """
        n_features = parts.shape[1] - len(OUTLOOK_NAMES)
        own = parts[:, :n_features].copy()
        for position, name in enumerate(OUTLOOK_NAMES):
            columns = self._made_from(name)
            for column in columns:
                own[:, column] += parts[:, n_features + position] / len(columns)
        return own

    def _made_from(self, name: str) -> tuple[int, ...]:
        value = (self.summary.repeat_value,) if name in OUTLOOKS_ON_VALUE else ()
        return value if name == OUTLOOKS_ON_VALUE[0] else (*self.summary.pattern, *value)

    def as_json(self) -> dict[str, Any]:
        """For a member's file."""
        return {
            "columns": asdict(self.summary),
            "bg_nbd": self.purchases.as_json(),
            "gamma_gamma": self.values.as_json(),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """What `as_json` made."""
        from ml_pipeline.btyd import BgNbd, GammaGamma

        return cls(
            PurchaseSummary(**content["columns"]),
            BgNbd.from_json(content["bg_nbd"]),
            GammaGamma.from_json(content["gamma_gamma"]),
        )


class LightGBMBgNbdMember(Member):
    """A LightGBM booster that also sees what BG/NBD and Gamma-Gamma say."""

    library = "lightgbm_bg_nbd"
    suffix = ".json"

    def __init__(self, outlook: PurchaseOutlook, booster: Any) -> None:
        self._outlook = outlook
        self._booster = booster

    def predict(self, features: Matrix, threads: int = 1) -> FloatArray:
        """Money >= 0. Raises BadSummary for features that cannot be."""
        return np.maximum(_lightgbm_values(self._booster, self._outlook.beside(features), threads), 0.0)

    def contributions(self, features: Matrix) -> Contributions:
        """Logarithms of the trees; what both models say counts for the columns that they said it from."""
        trees = _lightgbm_contributions(self._booster, self._outlook.beside(features), "log")
        return Contributions("log", trees.base, self._outlook.back(trees.parts))

    def save(self, path: Path) -> None:
        """As JSON: both models' parameters and the booster's text."""
        _write_json(path, {**self._outlook.as_json(), "booster": _lightgbm_text(self._booster)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """From that JSON."""
        content = _read_json(path)
        return cls(PurchaseOutlook.from_json(content), _lightgbm_of(content["booster"]))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", encoding="utf-8")


def _read_json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


MEMBER_TYPES: dict[str, type[Member]] = {
    member.library: member
    for member in (
        LinearMember,
        BoostedTreesMember,
        BgNbdMember,
        ForestMember,
        XGBoostMember,
        XGBoostRateMember,
        LightGBMMember,
        LightGBMRateMember,
        LogAmountMember,
        LightGBMBgNbdMember,
    )
}


def load_member(library: str, path: Path) -> Member:
    """A saved model. Raises BundleMismatch if this code does not know the library."""
    if library not in MEMBER_TYPES:
        raise BundleMismatch(
            f"{path.name} was made by {library!r}; this code reads {', '.join(MEMBER_TYPES)}: train again."
        )
    return MEMBER_TYPES[library].load(path)
