"""The simple rules that every model is held against: what anyone could compute in a spreadsheet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ml_pipeline.feature_definitions import SHORTEST_TENURE_DAYS
from ml_pipeline.features import DAYS_SINCE_FIRST, decayed_rate_name, lifetime_spend_name, spend_window_name
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET

FloatArray = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

RULE_HALF_LIFE_DAYS = 120
MONTH_DAYS, QUARTER_DAYS = 30, 90


@dataclass(frozen=True)
class SpendHistory:
    """What the rules look at, for n customers and one target; money (n,), days (n,); decayed_rate is per 30 days."""

    last_30_days: FloatArray
    last_90_days: FloatArray
    lifetime: FloatArray
    decayed_rate: FloatArray
    days_since_first: FloatArray


def spend_history(features: Matrix, names: Sequence[str], targets: Sequence[str], target: str) -> SpendHistory:
    """The history of `target` (total, a named one or other) from features (n, F) whose columns are `names`."""
    position = {name: index for index, name in enumerate(names)}

    def column(name: str) -> FloatArray:
        # spend per target is missing where no category is known yet: none of it was seen
        return np.nan_to_num(features[:, position[name]].astype(np.float64), nan=0.0)

    def money(name_of: Callable[[str | None], str]) -> FloatArray:
        if target == TOTAL_TARGET:
            return column(name_of(None))
        if target != OTHER_TARGET:
            return column(name_of(target))
        named = sum((column(name_of(each)) for each in targets), start=np.zeros(len(features)))
        return np.maximum(column(name_of(None)) - named, 0.0)

    return SpendHistory(
        last_30_days=money(lambda each: spend_window_name(MONTH_DAYS, each)),
        last_90_days=money(lambda each: spend_window_name(QUARTER_DAYS, each)),
        lifetime=money(lifetime_spend_name),
        decayed_rate=money(lambda each: decayed_rate_name(RULE_HALF_LIFE_DAYS, each)),
        days_since_first=column(DAYS_SINCE_FIRST),
    )


@dataclass(frozen=True)
class Rule:
    """A rule: its name in files, its name for people, its arithmetic over a history and the training mean, and the
    columns it looks at: of money (of everything for None, else of a target), and of days where it divides by them."""

    name: str
    title: str
    formula: Callable[[SpendHistory, float], FloatArray]
    money_column: Callable[[str | None], str] | None = None
    days_column: str | None = None

    def predict(self, history: SpendHistory, mean: float) -> FloatArray:
        """Spend of the next 30 days, (n,); `mean` is the mean of the target over the training rows."""
        return self.formula(history, mean)


RULES: tuple[Rule, ...] = (
    Rule("zero", "zero", lambda history, mean: np.zeros(len(history.lifetime))),
    Rule("mean", "mean of the training rows", lambda history, mean: np.full(len(history.lifetime), mean)),
    Rule(
        "last_30_days",
        "last 30 days",
        lambda history, mean: history.last_30_days,
        partial(spend_window_name, MONTH_DAYS),
    ),
    Rule(
        "last_90_days_over_3",
        "last 90 days ÷ 3",
        lambda history, mean: history.last_90_days / 3,
        partial(spend_window_name, QUARTER_DAYS),
    ),
    Rule(
        "lifetime_rate_x_30",
        "lifetime rate × 30",
        lambda history, mean: (
            history.lifetime / np.maximum(history.days_since_first, SHORTEST_TENURE_DAYS) * HORIZON_DAYS
        ),
        lifetime_spend_name,
        DAYS_SINCE_FIRST,
    ),
    Rule(
        "decayed_rate",
        f"exponentially weighted rate ({RULE_HALF_LIFE_DAYS} days)",
        lambda history, mean: history.decayed_rate,
        partial(decayed_rate_name, RULE_HALF_LIFE_DAYS),
    ),
)
RULE_BY_NAME = {rule.name: rule for rule in RULES}


def purchase_heuristic(days_since_last: npt.ArrayLike, transactions: npt.ArrayLike) -> FloatArray:
    """The documented rule of thumb for the probability of buying within 30 days (n,), in 0.05 … 0.95.

    0.6 × max(0, 1 − days since the last purchase / 45) + 0.4 × min(number of transactions / 10, 1).
    """
    recency, count = (np.asarray(values, dtype=np.float64) for values in (days_since_last, transactions))
    return np.clip(0.6 * np.maximum(0, 1 - recency / 45) + 0.4 * np.minimum(count / 10, 1), 0.05, 0.95)
