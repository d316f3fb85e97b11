"""How each candidate learns: a fold of rows in, one fitted member out.

Features are float32 `(n, F)`, NaN = missing; labels are float64 `(n,)` in money or 0/1. What is learned does not depend
on the currency: every log link sees labels in units of their mean, and the penalties of squared error scale with them.
The same rows, effort and library versions give the same member. Heavy libraries are imported when first used.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import NoConvergence, NotEnoughHistory
from ml_pipeline.features import (
    AVG_TRANSACTION_VALUE,
    DAYS_FIRST_TO_LAST,
    DAYS_SINCE_FIRST,
    MEAN_REPEAT_VALUE,
    TOTAL_PURCHASE_DAYS,
    decayed_rate_name,
)
from ml_pipeline.members import (
    OUTLOOK_NAMES,
    BgNbdMember,
    BoostedTreesMember,
    FloatArray,
    ForestMember,
    LightGBMBgNbdMember,
    LightGBMMember,
    LightGBMRateMember,
    LinearMember,
    LogAmountMember,
    Matrix,
    Member,
    Offset,
    PurchaseOutlook,
    PurchaseSummary,
    RateMember,
    XGBoostMember,
    XGBoostRateMember,
)
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET

if TYPE_CHECKING:
    from ml_pipeline.btyd import BgNbd, GammaGamma

Model = TypeVar("Model")

MONEY, PROBABILITY, AMOUNT = "money", "probability", "amount"
"""Spend of all rows; that anything is bought, of a 0/1 label; spend of the rows where something is bought."""

TWEEDIE_POWER = 1.2
MAX_BIN = 127
RATE_HALF_LIFE_DAYS = 120
RATE_WEIGHT = 0.9
"""A customer's expected spend before any tree: 0.9 of his own rate, 0.1 of the mean of all."""
USUAL_WEIGHT = 0.8
"""The same for what a buyer spends: 0.8 of his usual transaction, 0.2 of the mean buyer."""
TAIL = 0.005
"""Share of a feature's values at either end that linear models draw in."""
LASSO_ALPHA = 0.1
RIDGE = 0.01
"""For BG/NBD and Gamma-Gamma where the likelihood alone has no maximum."""


@dataclass(frozen=True)
class Shape:
    """How a booster's trees may look; what `search` varies."""

    leaves: int = 8
    least_rows: int = 40  # in a leaf
    columns: float = 0.4  # share that a tree may look at
    penalty: float = 5.0  # on the squares of the leaves' values
    tweedie_power: float = TWEEDIE_POWER


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
    fit_rows: int | None = None  # rows that a fit may see, drawn at random; None: all
    shape: Shape = Shape()


class MadeOnce:
    """What is made of one feature matrix, once for all who learn from it: rows drawn from it, and how boosters bin them,
    which takes longer than many a fit."""

    def __init__(self) -> None:
        self._made: dict[Hashable, tuple[Matrix, Any]] = {}

    def of(self, features: Matrix, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made of these features under this key before, or is made now."""
        # the features are kept too, so that no other matrix can come to have their identity
        own = (id(features), key)
        if own not in self._made:
            self._made[own] = (features, make())
        return self._made[own][1]


@dataclass(frozen=True)
class Fold:
    """Rows to learn from: features (n, F), labels (n,) in money or 0/1.

    A row is one customer on one as_of day; `latest` (n,) marks the rows of the newest one, None: all are.
    past: (n, F), the features with those that must not be learned from by themselves, which are missing in `features`;
    None: none are. Only a model of given form, as BG/NBD, may read them. made: shared by folds of the very same features.
    """

    features: Matrix
    labels: FloatArray
    latest: npt.NDArray[np.bool_] | None = None
    past: Matrix | None = None
    made: MadeOnce = field(default_factory=MadeOnce, compare=False, repr=False)

    def of(self, rows: Any) -> "Fold":
        """Some of the rows; which of them are of the newest day is not kept."""
        return Fold(self.features[rows], self.labels[rows], past=None if self.past is None else self.past[rows])

    @property
    def history(self) -> Matrix:
        """All that is known of the rows, (n, F)."""
        return self.features if self.past is None else self.past


@dataclass(frozen=True)
class Fitted:
    """A fitted member and the boosting rounds (or trees) that it has; 0 where there are none."""

    member: Member
    rounds: int


@dataclass(frozen=True)
class Task:
    """What a fit is for: the columns' names, the target, the effort, and where the rounds come from."""

    names: Sequence[str]
    target: str
    effort: Effort
    validation: Fold | None
    rounds: int | None

    @property
    def most_rounds(self) -> int:
        """Rounds to grow at most."""
        return self.rounds or self.effort.max_rounds

    def position(self, name: str) -> int:
        """The column of a feature."""
        if name not in self.names:
            raise ValueError(f"no column is called {name!r}, which this learner needs; pass all of feature_names(...)")
        return list(self.names).index(name)


class Learner(ABC):
    """Fits one member. With `validation` the rounds are found by early stopping on it, else `rounds` are grown."""

    name: ClassVar[str]
    kind: ClassVar[str] = MONEY
    stops_early: ClassVar[bool] = True
    reads_past: ClassVar[bool] = False
    """Whether it needs `Fold.past`."""

    def fit(
        self,
        training: Fold,
        names: Sequence[str],
        effort: Effort,
        *,
        target: str = TOTAL_TARGET,
        validation: Fold | None = None,
        rounds: int | None = None,
    ) -> Fitted:
        """Learns `kind` of `target` from the training fold, or from `effort.fit_rows` of its rows.

        Raises NotEnoughHistory for labels that are all 0 or none at all, and, for AMOUNT, ValueError for labels of 0.
        """
        self._check(training.labels, target)
        return self._fit(self._chosen(training, effort), Task(names, target, effort, validation, rounds))

    @abstractmethod
    def _fit(self, training: Fold, task: Task) -> Fitted: ...

    def _chosen(self, training: Fold, effort: Effort) -> Fold:
        return draw_rows(training, effort)

    def _check(self, labels: FloatArray, target: str) -> None:
        if not (labels > 0).any():
            raise NotEnoughHistory(
                f"{self.name}: none of {len(labels):,} rows has a label of {target!r} above 0: there is nothing to "
                "learn. Use a longer history or leave this target out."
            )
        if self.kind == AMOUNT and not (labels > 0).all():
            raise ValueError(
                f"{self.name} learns amounts of buyers: {(labels <= 0).sum():,} labels are 0; leave them out"
            )


def draw_rows(training: Fold, effort: Effort) -> Fold:
    """At most `effort.fit_rows` rows, drawn without replacement by the seed, in their old order."""
    n = len(training.labels)
    if effort.fit_rows is None or n <= effort.fit_rows:
        return training
    drawn = np.sort(np.random.default_rng(effort.seed).choice(n, effort.fit_rows, replace=False))
    key = ("drawn", effort.fit_rows, effort.seed)
    features, made = training.made.of(training.features, key, lambda: (training.features[drawn], MadeOnce()))
    past = None if training.past is None else training.past[drawn]
    return Fold(features, training.labels[drawn], past=past, made=made)


def rate_feature(target: str) -> str:
    """The feature that is a customer's own spend per 30 days on `target`."""
    return decayed_rate_name(RATE_HALF_LIFE_DAYS, None if target == TOTAL_TARGET else target)


def tweedie_weight(labels: FloatArray, power: float) -> float:
    """One weight for all rows that makes Tweedie boosting blind to the currency's scale.

    With a log link, labels scaled by s scale every gradient and Hessian by s^(2-p); weighting by mean^(p-2) undoes it,
    so that regularisation means the same in yen and in euro.
    """
    return float(np.mean(labels) ** (power - 2))


# Boosters


@dataclass(frozen=True)
class BoosterRows:
    """What a booster sees: features (n, F), labels (n,), one weight for all rows, and the score before any tree (n,)."""

    features: Matrix
    labels: FloatArray
    weight: float | None = None
    start: FloatArray | None = None

    @property
    def weights(self) -> FloatArray | None:
        """One per row, if there is any."""
        return None if self.weight is None else np.full(len(self.labels), self.weight)


RowsOf = Callable[[Fold], BoosterRows]
Objective = Mapping[str, Any]
Grow = Callable[[Objective, Fold, RowsOf, Task], tuple[Any, int]]


def grow_lightgbm(objective: Objective, training: Fold, rows_of: RowsOf, task: Task) -> tuple[Any, int]:
    """A LightGBM booster of small leaf-wise trees, and its rounds; of an early-stopped run, the best ones alone."""
    import lightgbm

    effort = task.effort
    parameters = {
        **objective,
        "tweedie_variance_power": effort.shape.tweedie_power,
        "num_leaves": effort.shape.leaves,
        "learning_rate": effort.learning_rate,
        "min_data_in_leaf": effort.shape.least_rows,
        "lambda_l2": effort.shape.penalty,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "feature_fraction": effort.shape.columns,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": effort.threads,
        "seed": effort.seed,
        "verbose": -1,
    }

    def dataset(fold: Fold, reference: Any = None) -> Any:
        rows = rows_of(fold)

        def binned() -> Any:
            return lightgbm.Dataset(
                rows.features,
                feature_name=list(task.names),
                reference=reference,
                params={"max_bin": MAX_BIN, "verbose": -1, **parameters},
            ).construct()

        key = ("lightgbm", reference, effort.shape.least_rows, effort.seed, effort.threads)
        made = fold.made.of(rows.features, key, binned) if rows.features is fold.features else binned()
        made.set_label(rows.labels)
        # None as such would leave those of the learner before
        made.set_weight(rows.weights).set_field("weight", rows.weights)
        made.set_init_score(rows.start).set_field("init_score", rows.start)
        return made

    train = dataset(training)
    stopping: dict[str, Any] = {}
    if task.validation is not None:
        stopping = {
            "valid_sets": [dataset(task.validation, train)],
            "callbacks": [lightgbm.early_stopping(effort.patience, verbose=False)],
        }
    booster = lightgbm.train(parameters, train, num_boost_round=task.most_rounds, **stopping)
    if task.validation is None:
        return booster, booster.current_iteration()
    best = booster.best_iteration
    return lightgbm.Booster(model_str=booster.model_to_string(num_iteration=best)), best


def grow_xgboost(objective: Objective, training: Fold, rows_of: RowsOf, task: Task) -> tuple[Any, int]:
    """An XGBoost booster of small leaf-wise trees, and its rounds; of an early-stopped run, the best ones alone."""
    import xgboost

    effort = task.effort

    def matrix(fold: Fold, reference: Any = None) -> Any:
        rows = rows_of(fold)

        def binned() -> Any:
            return xgboost.QuantileDMatrix(
                rows.features,
                feature_names=list(task.names),
                missing=np.nan,
                max_bin=MAX_BIN,
                nthread=effort.threads,
                ref=reference,
            )

        key = ("xgboost", reference, effort.threads)
        made = fold.made.of(rows.features, key, binned) if rows.features is fold.features else binned()
        made.set_label(rows.labels)
        # after binning: the weight must not move the bins; nothing would leave those of the learner before
        made.set_weight(np.empty(0) if rows.weights is None else rows.weights)
        made.set_base_margin(np.empty(0) if rows.start is None else rows.start)
        return made

    parameters = {
        "tree_method": "hist",
        "grow_policy": "lossguide",
        "max_leaves": effort.shape.leaves,
        "max_depth": 0,
        "max_bin": MAX_BIN,
        "eta": effort.learning_rate,
        "subsample": 0.8,
        "colsample_bytree": effort.shape.columns,
        "min_child_weight": effort.shape.least_rows / 2,
        "lambda": effort.shape.penalty,
        "nthread": effort.threads,
        "seed": effort.seed,
        "verbosity": 0,
        **objective,
    }
    if objective["objective"] == XGBOOST_TWEEDIE["objective"]:
        power = effort.shape.tweedie_power
        parameters |= {"tweedie_variance_power": power, "eval_metric": f"tweedie-nloglik@{power}"}
    train = matrix(training)
    stopping: dict[str, Any] = {}
    if task.validation is not None:
        stopping = {
            "evals": [(matrix(task.validation, train), "validation")],
            "early_stopping_rounds": effort.patience,
            "verbose_eval": False,
        }
    booster = xgboost.train(parameters, train, num_boost_round=task.most_rounds, **stopping)
    if task.validation is not None:
        booster = booster[: booster.best_iteration + 1]
    return booster, booster.num_boosted_rounds()


LIGHTGBM_TWEEDIE: Objective = {"objective": "tweedie"}
LIGHTGBM_SQUARED: Objective = {"objective": "regression"}
LIGHTGBM_GAMMA: Objective = {"objective": "gamma"}
LIGHTGBM_BINARY: Objective = {"objective": "binary"}
XGBOOST_TWEEDIE: Objective = {"objective": "reg:tweedie"}
XGBOOST_SQUARED: Objective = {"objective": "reg:squarederror", "eval_metric": "rmse"}


@dataclass(frozen=True)
class Boosting:
    """A boosting library: how it grows trees, and the members that its boosters become."""

    grow: Grow
    member: Callable[[Any], Member]
    rate_member: Callable[[Offset, Any], RateMember]


XGBOOST_BOOSTING = Boosting(grow_xgboost, XGBoostMember, XGBoostRateMember)
LIGHTGBM_BOOSTING = Boosting(grow_lightgbm, LightGBMMember, LightGBMRateMember)


class BoosterLearner(Learner):
    """A booster on its own: its value is the prediction."""

    boosting: ClassVar[Boosting]
    objective: ClassVar[Objective]

    def _fit(self, training: Fold, task: Task) -> Fitted:
        is_tweedie = self.objective in (LIGHTGBM_TWEEDIE, XGBOOST_TWEEDIE)
        weight = tweedie_weight(training.labels, task.effort.shape.tweedie_power) if is_tweedie else None
        booster, rounds = self.boosting.grow(
            self.objective, training, lambda fold: BoosterRows(fold.features, fold.labels, weight), task
        )
        return Fitted(self.boosting.member(booster), rounds)


class RateLearner(Learner):
    """A booster with a log link on top of a personal amount: `weight` of a feature plus the rest of the mean label."""

    boosting: ClassVar[Boosting]
    objective: ClassVar[Objective]
    weight: ClassVar[float] = RATE_WEIGHT

    def _feature_of(self, target: str) -> str:
        return rate_feature(target)

    def _where_missing(self, seen: Matrix) -> float:
        """What the feature is taken for where it is missing; seen: the training rows' (n,). Without a past rate it is 0."""
        return 0.0

    def _fit(self, training: Fold, task: Task) -> Fitted:
        mean = float(np.mean(training.labels))
        feature = self._feature_of(task.target)
        index = task.position(feature)
        missing = self._where_missing(training.features[:, index])
        offset = Offset(index, feature, self.weight, (1 - self.weight) * mean, missing)

        def rows_of(fold: Fold) -> BoosterRows:
            start = np.log(offset.amounts(fold.features) / mean)
            return BoosterRows(fold.features, fold.labels / mean, start=start)

        booster, rounds = self.boosting.grow(self.objective, training, rows_of, task)
        return Fitted(self.boosting.rate_member(offset, booster), rounds)


class XGBoostLearner(BoosterLearner):
    """Tweedie loss."""

    name = "xgboost"
    boosting = XGBOOST_BOOSTING
    objective = XGBOOST_TWEEDIE


class LightGBMLearner(BoosterLearner):
    """Tweedie loss."""

    name = "lightgbm"
    boosting = LIGHTGBM_BOOSTING
    objective = LIGHTGBM_TWEEDIE


class XGBoostSquaredLearner(XGBoostLearner):
    """Squared error."""

    name = "xgboost_squared"
    objective = XGBOOST_SQUARED


class LightGBMSquaredLearner(LightGBMLearner):
    """Squared error."""

    name = "lightgbm_squared"
    objective = LIGHTGBM_SQUARED


class LightGBMPurchaseLearner(LightGBMLearner):
    """The probability that anything is bought."""

    name = "lightgbm_purchase"
    kind = PROBABILITY
    objective = LIGHTGBM_BINARY


class LightGBMAmountLearner(LightGBMLearner):
    """What a buyer spends: gamma loss."""

    name = "lightgbm_amount"
    kind = AMOUNT
    objective = LIGHTGBM_GAMMA


class XGBoostRateLearner(RateLearner):
    """Tweedie loss over the customer's own rate."""

    name = "xgboost_rate"
    boosting = XGBOOST_BOOSTING
    objective: ClassVar[Objective] = {**XGBOOST_TWEEDIE, "base_score": 1.0}


class LightGBMRateLearner(RateLearner):
    """Tweedie loss over the customer's own rate."""

    name = "lightgbm_rate"
    boosting = LIGHTGBM_BOOSTING
    objective = LIGHTGBM_TWEEDIE


class LightGBMAmountOverUsualLearner(LightGBMRateLearner):
    """What a buyer spends: gamma loss over his usual transaction."""

    name = "lightgbm_amount_over_usual"
    kind = AMOUNT
    objective = LIGHTGBM_GAMMA
    weight = USUAL_WEIGHT

    def _feature_of(self, target: str) -> str:
        return AVG_TRANSACTION_VALUE


class LightGBMLogAmountLearner(Learner):
    """Squared error on log(label / mean label), brought back to money by Duan's smearing factor."""

    name = "lightgbm_log_amount"
    kind = AMOUNT

    def _fit(self, training: Fold, task: Task) -> Fitted:
        scale = float(np.mean(training.labels))

        def rows_of(fold: Fold) -> BoosterRows:
            return BoosterRows(fold.features, np.log(fold.labels / scale))

        booster, rounds = grow_lightgbm(LIGHTGBM_SQUARED, training, rows_of, task)
        unsmeared = LogAmountMember(1.0, scale, booster).predict(training.features, task.effort.threads)
        smearing = float(np.mean(training.labels / unsmeared))
        return Fitted(LogAmountMember(smearing, scale, booster), rounds)


# scikit-learn


class ForestLearner(Learner):
    """Bagged deep trees on squared error, bounded in rows, depth and number.

    A forest does not overfit by more trees, so there is nothing to stop early.
    """

    name = "random_forest"
    stops_early = False

    def _fit(self, training: Fold, task: Task) -> Fitted:
        from sklearn.ensemble import RandomForestRegressor

        effort = task.effort
        trees = task.rounds or effort.forest_trees
        forest = RandomForestRegressor(
            n_estimators=trees,
            max_depth=12,
            min_samples_leaf=15,
            max_features=0.2,
            max_samples=min(1.0, effort.forest_rows / len(training.labels)),
            n_jobs=effort.threads,
            random_state=effort.seed,
        )
        forest.fit(training.features, training.labels)
        return Fitted(ForestMember.from_sklearn(forest), trees)


class GradientBoostingLearner(Learner):
    """scikit-learn's histogram gradient boosting on squared error."""

    name = "gradient_boosting"

    def _fit(self, training: Fold, task: Task) -> Fitted:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits

        effort, validation = task.effort, task.validation
        boosting = HistGradientBoostingRegressor(
            max_iter=task.most_rounds,
            learning_rate=effort.learning_rate,
            max_leaf_nodes=8,
            min_samples_leaf=40,
            l2_regularization=5.0,
            max_features=0.7,
            max_bins=MAX_BIN,
            early_stopping=validation is not None,
            n_iter_no_change=effort.patience,
            scoring="loss",
            tol=0.0,
            random_state=effort.seed,
        )
        # scikit-learn cannot bin a column without any value; a constant is not split on either
        empty = np.isnan(training.features).all(axis=0)

        def binnable(features: Matrix) -> Matrix:
            return np.where(empty, np.float32(0), features) if empty.any() else features

        held_out = {} if validation is None else {"X_val": binnable(validation.features), "y_val": validation.labels}
        with threadpool_limits(effort.threads):
            boosting.fit(binnable(training.features), training.labels, **held_out)
        # scores are negative losses, the first of no tree at all
        rounds = boosting.n_iter_ if validation is None else max(int(np.argmax(boosting.validation_score_)), 1)
        return Fitted(BoostedTreesMember.from_sklearn(boosting, rounds), rounds)


class LinearLearner(Learner):
    """A sum of standardised features by least squares, with a penalty on the sum of absolute coefficients or without.

    Labels are in units of their mean, so that the penalty means the same in every currency.
    """

    alpha: ClassVar[float]
    stops_early = False

    def _fit(self, training: Fold, task: Task) -> Fitted:
        from sklearn.linear_model import Lasso, LinearRegression
        from threadpoolctl import threadpool_limits

        blank = _blank_line(training.features)
        unit = float(np.mean(training.labels))
        model = Lasso(self.alpha, precompute=True, max_iter=20_000) if self.alpha else LinearRegression()
        with threadpool_limits(1):  # sums of several threads differ in the last digit
            model.fit(blank.standardised(training.features), training.labels / unit)
        member = replace(
            blank,
            coefficient=np.asarray(model.coef_, dtype=np.float64) * unit,
            intercept=float(model.intercept_) * unit,
        )
        return Fitted(member, 0)


class LinearRegressionLearner(LinearLearner):
    """Without a penalty."""

    name = "linear_regression"
    alpha = 0.0


class LassoLearner(LinearLearner):
    """With `LASSO_ALPHA`."""

    name = "lasso"
    alpha = LASSO_ALPHA


def _blank_line(features: Matrix) -> LinearMember:
    """How features are filled, drawn in and scaled, learned from (n, F); without coefficients yet."""
    columns = [_column_facts(features[:, index].astype(np.float64)) for index in range(features.shape[1])]
    fill, low, high, mean, scale = np.array(columns).reshape(-1, 5).T.copy()
    return LinearMember(fill, low, high, mean, scale, np.zeros(len(columns)), 0.0)


def _column_facts(values: FloatArray) -> tuple[float, float, float, float, float]:
    """Fill, low, high, mean and scale of one column; 0 and scale 1 where every value is missing or the same."""
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0, 0.0, 0.0, 0.0, 1.0
    low, fill, high = np.quantile(known, (TAIL, 0.5, 1 - TAIL))
    drawn = np.clip(np.where(np.isnan(values), fill, values), low, high)
    return float(fill), float(low), float(high), float(drawn.mean()), float(drawn.std()) if high > low else 1.0


# Buy till you die


class BgNbdLearner(Learner):
    """BG/NBD × Gamma-Gamma from the past alone: the labels are not looked at.

    Learns from the rows of the newest as_of, where every customer is once. Without a maximum it tries once more with a
    ridge. Raises NotEnoughHistory, NoConvergence (UnboundedMean) or BadSummary, and NotEnoughHistory for a target other
    than everything, of which the features hold no purchase days.
    """

    name = "bg_nbd"
    stops_early = False
    reads_past = True

    def _chosen(self, training: Fold, effort: Effort) -> Fold:
        latest = training.latest
        newest = training if latest is None else training.of(latest)
        return draw_rows(newest, effort)

    def _check(self, labels: FloatArray, target: str) -> None:
        if target != TOTAL_TARGET:
            raise NotEnoughHistory(
                f"{self.name} learns from purchase days, which the features hold of everything and not of {target!r}; "
                "use another model for this target."
            )

    def _fit(self, training: Fold, task: Task) -> Fitted:
        summary = _summary_columns(task)
        x, t_x, T, m = summary.of(training.history)
        purchases = fit_purchases(x, t_x, T)
        return Fitted(BgNbdMember(summary, HORIZON_DAYS, purchases, fit_values(x, m)), 0)


class LightGBMBgNbdLearner(Learner):
    """Tweedie loss, with what BG/NBD and Gamma-Gamma say of a customer as further features.

    Both are fitted on the rows of the newest as_of in the fold. Raises what `BgNbdLearner` raises.
    """

    name = "lightgbm_bg_nbd"
    reads_past = True

    def _chosen(self, training: Fold, effort: Effort) -> Fold:
        return training

    def _fit(self, training: Fold, task: Task) -> Fitted:
        summary = _summary_columns(task)
        latest = slice(None) if training.latest is None else training.latest
        x, t_x, T, m = summary.of(training.history[latest])
        outlook = PurchaseOutlook(summary, fit_purchases(x, t_x, T), fit_values(x, m))
        drawn = draw_rows(training, task.effort)
        weight = tweedie_weight(drawn.labels, task.effort.shape.tweedie_power)
        booster, rounds = grow_lightgbm(
            LIGHTGBM_TWEEDIE,
            drawn,
            lambda fold: BoosterRows(outlook.beside(fold.history, fold.features), fold.labels, weight),
            replace(task, names=(*task.names, *OUTLOOK_NAMES)),
        )
        return Fitted(LightGBMBgNbdMember(outlook, booster), rounds)


def _summary_columns(task: Task) -> PurchaseSummary:
    return PurchaseSummary(
        purchase_days=task.position(TOTAL_PURCHASE_DAYS),
        first_to_last=task.position(DAYS_FIRST_TO_LAST),
        since_first=task.position(DAYS_SINCE_FIRST),
        repeat_value=task.position(MEAN_REPEAT_VALUE),
    )


def fit_purchases(x: FloatArray, t_x: FloatArray, T: FloatArray) -> "BgNbd":
    """BG/NBD, with a ridge where the likelihood alone has no maximum. Raises NotEnoughHistory, NoConvergence, BadSummary."""
    from ml_pipeline.btyd import fit_bg_nbd

    return _with_ridge_at_last(lambda ridge: fit_bg_nbd(x, t_x, T, ridge=ridge))


def fit_values(x: FloatArray, m: FloatArray) -> "GammaGamma":
    """Gamma-Gamma in the same way; also raises UnboundedMean."""
    from ml_pipeline.btyd import fit_gamma_gamma

    return _with_ridge_at_last(lambda ridge: fit_gamma_gamma(x, m, ridge=ridge))


def _with_ridge_at_last(fit: Callable[[float], Model]) -> Model:
    try:
        return fit(0.0)
    except NoConvergence:
        return fit(RIDGE)
