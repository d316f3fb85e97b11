"""A summary model of every type, made in a moment."""

import numpy as np

from ml_pipeline.btyd import BgNbd, GammaGamma
from ml_pipeline.features import DAYS_SINCE_LAST, LIFETIME_SPEND
from ml_pipeline.members import LightGBMMember, XGBoostMember
from ml_pipeline.summary_columns import summary_columns
from ml_pipeline.summary_members import SummaryMembers
from ml_pipeline.summary_purchases import SummaryPurchases
from tests.ml_pipeline.toy_models import TARGETS


def summary_members() -> SummaryMembers:
    """A few trees of each library on a made-up rule, and both models of purchases as they are on CDNOW."""
    import lightgbm
    import xgboost

    columns = list(summary_columns(TARGETS))
    matrix = np.random.default_rng(5).gamma(1.0, 60.0, (400, len(columns))).astype(np.float32)
    spend = matrix[:, columns.index(LIFETIME_SPEND)] / (1 + matrix[:, columns.index(DAYS_SINCE_LAST)] / 30)
    matrix[np.random.default_rng(6).random(matrix.shape) < 0.2] = np.nan
    trees = xgboost.train(
        {"objective": "reg:tweedie", "max_depth": 3, "nthread": 1, "seed": 7},
        xgboost.DMatrix(matrix, label=spend, feature_names=columns),
        num_boost_round=10,
    )
    leaves = lightgbm.train(
        {"objective": "tweedie", "num_leaves": 4, "num_threads": 1, "seed": 7, "verbose": -1, "deterministic": True},
        lightgbm.Dataset(matrix, spend, feature_name=columns),
        num_boost_round=10,
    )
    boosters = {"xgboost": XGBoostMember(trees), "lightgbm": LightGBMMember(leaves)}
    purchases = BgNbd(0.243, 4.414 * 7, 0.793, 2.426, -9582.4, 2357)  # weeks as days
    return SummaryMembers(250.0, boosters, None, SummaryPurchases(purchases, GammaGamma(6.25, 3.74, 15.45, 0.0, 946)))
