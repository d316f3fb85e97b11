"""The learned peers: linear models, forest and boosters on the same 36 columns.

Rounds are chosen on the latest window, by training on windows whose labels ended before it, and the model is then fitted on
all of them. Predictions below 0 become 0.
"""

from collections.abc import Callable
from typing import Any

import lightgbm
import numpy as np
import xgboost
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Lasso, LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.peers import Peer, Question, version_of
from benchmarks.public_data import FloatArray
from benchmarks.scores import Answer

SEED = 7
MOST_ROUNDS = 600
PATIENCE = 30
FOREST_ROWS = 40_000
FOREST_TREES = 100
LEARNING_RATE = 0.05
TWEEDIE_POWER = 1.3
SOURCES = ("peer_learners.py",)


def predict_lasso(question: Question) -> Answer:
    """Lasso on scaled columns, alpha 0.1."""
    return _fitted(question, make_pipeline(StandardScaler(), Lasso(alpha=0.1, max_iter=20_000)))


def predict_linear(question: Question) -> Answer:
    """Ordinary least squares on scaled columns."""
    return _fitted(question, make_pipeline(StandardScaler(), LinearRegression()))


def predict_forest(question: Question) -> Answer:
    """Random Forest: 100 trees with at least 20 rows in a leaf, a third of the columns per split."""
    rows = min(FOREST_ROWS, len(question.learning.spend))
    forest = RandomForestRegressor(
        FOREST_TREES, min_samples_leaf=20, max_features=1 / 3, max_samples=rows, random_state=SEED, n_jobs=1
    )
    return _fitted(question, forest)


def _fitted(question: Question, model: Any) -> Answer:
    model.fit(question.learning.features, question.learning.spend)
    return _answer(model.predict(question.features))


def _answer(predicted: FloatArray) -> Answer:
    return Answer(np.maximum(np.asarray(predicted, dtype=np.float64), 0.0))


def predict_sklearn_boosting(question: Question) -> Answer:
    """Gradient boosting of scikit-learn (histograms), squared error, small trees."""
    learning = question.learning
    earlier, latest = learning.earlier, learning.latest

    def model(rounds: int) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(
            max_iter=rounds,
            learning_rate=LEARNING_RATE,
            max_leaf_nodes=15,
            min_samples_leaf=40,
            early_stopping=False,
            random_state=SEED,
        )

    tried = model(MOST_ROUNDS // 2).fit(learning.features[earlier], learning.spend[earlier])
    errors = [
        float(np.square(learning.spend[latest] - told).mean())
        for told in tried.staged_predict(learning.features[latest])
    ]
    best = model(int(np.argmin(errors)) + 1).fit(learning.features, learning.spend)
    return _answer(best.predict(question.features))


def predict_xgboost(question: Question) -> Answer:
    """XGBoost, squared error."""
    settings = {
        "objective": "reg:squarederror",
        "eta": LEARNING_RATE,
        "max_depth": 4,
        "min_child_weight": 40,
        "subsample": 0.8,
        "colsample_bytree": 0.7,
        "seed": SEED,
        "nthread": 1,
    }
    learning = question.learning

    def matrix(rows: Any) -> xgboost.DMatrix:
        return xgboost.DMatrix(learning.features[rows], learning.spend[rows])

    tried = xgboost.train(
        settings,
        matrix(learning.earlier),
        MOST_ROUNDS,
        evals=[(matrix(learning.latest), "latest")],
        early_stopping_rounds=PATIENCE,
        verbose_eval=False,
    )
    best = xgboost.train(settings, matrix(slice(None)), tried.best_iteration + 1)
    return _answer(best.predict(xgboost.DMatrix(question.features)))


def predict_lightgbm_tweedie(question: Question) -> Answer:
    """LightGBM with Tweedie loss, small trees."""
    settings = {
        "objective": "tweedie",
        "tweedie_variance_power": TWEEDIE_POWER,
        "metric": "tweedie",
        "learning_rate": LEARNING_RATE,
        "num_leaves": 15,
        "min_data_in_leaf": 40,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": SEED,
        "num_threads": 1,
        "deterministic": True,
        "verbosity": -1,
    }
    learning = question.learning

    def rows_of(rows: Any) -> lightgbm.Dataset:
        return lightgbm.Dataset(learning.features[rows], learning.spend[rows])

    tried = lightgbm.train(
        settings,
        rows_of(learning.earlier),
        MOST_ROUNDS,
        valid_sets=[rows_of(learning.latest)],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )
    best = lightgbm.train(settings, rows_of(slice(None)), tried.best_iteration)
    return _answer(np.asarray(best.predict(question.features)))


def _peer(name: str, title: str, predict: Callable[[Question], Answer], *packages: str) -> Peer:
    return Peer(name, title, predict, packages, SOURCES)


BOOSTER_PACKAGE = "xgboost" if version_of("xgboost") else "xgboost-cpu"
LEARNERS: tuple[Peer, ...] = (
    _peer("lasso", "Lasso (scaled, α = 0.1)", predict_lasso, "scikit-learn"),
    _peer("linear", "linear regression", predict_linear, "scikit-learn"),
    _peer("sklearn_boosting", "gradient boosting (scikit-learn)", predict_sklearn_boosting, "scikit-learn"),
    _peer("random_forest", "Random Forest", predict_forest, "scikit-learn"),
    _peer("xgboost", "XGBoost, squared error", predict_xgboost, BOOSTER_PACKAGE),
    _peer("lightgbm_tweedie", "LightGBM Tweedie, 36 columns", predict_lightgbm_tweedie, "lightgbm"),
)
