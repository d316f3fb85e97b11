"""What is known of every customer at the start of each as_of day: the one snapshot function.

Training calls `build_features` for many days, a snapshot for one, the raw-history request for one customer.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ibis.backends.duckdb import Backend

from ml_pipeline.calendar_features import (
    CalendarFeature,
    TargetDaysToYearEnd,
    TargetMonthCos,
    TargetMonthSin,
    TargetWeekendDays,
)
from ml_pipeline.errors import BadDatasetConfig
from ml_pipeline.feature_definitions import (
    AvgDaysBetweenTransactions,
    AvgItemsPerTransaction,
    AvgTransactionValue,
    CustomerTenureDays,
    DaysFirstToLast,
    DaysSinceFirstTransaction,
    DaysSinceLastTransaction,
    DaysUntilDue,
    EwSpendRate,
    EwTransactionRate,
    Feature,
    IsColdStart,
    LastTransactionValue,
    LifetimeSpend,
    MaxDaysBetweenTransactions,
    MaxItemsPerTransaction,
    MaxTransactionValue,
    MeanPurchaseDayValue,
    MeanRepeatValue,
    MinTransactionValue,
    MostCommonDayOfWeek,
    NumDistinct,
    PromotionUsageCount,
    PromotionUsageRate,
    PurchaseMomentum,
    RecencyRatio,
    ReturnRate,
    SpendMomentum,
    SpendSameWindowLastYear,
    SpendVelocity,
    StdDaysBetweenTransactions,
    StdTransactionValue,
    TotalItemsPurchased,
    TotalPurchaseDays,
    TotalTransactions,
    TransactionDensity,
    WeekendTransactionRate,
    WindowCount,
    WindowSpend,
    with_weighted_days,
)
from ml_pipeline.target_features import (
    TargetDaysSince,
    TargetEwSpendRate,
    TargetFavorite,
    TargetLifetimeSpend,
    TargetTransactions,
    TargetWindowSpend,
)
from ml_pipeline.totals import DecayedTotal, Total, WindowTotal, build_totals
from ml_pipeline.windows import Calendar, Decay, TimeTables, Window

MONTH, QUARTER = Window(1, 30), Window(1, 90)
SECOND_MONTH, THIRD_AND_FOURTH_MONTH = Window(31, 60), Window(61, 120)
HALF_YEAR, YEAR = Window(1, 180), Window(1, 365)
WINDOWS = (Window(1, 7), MONTH, Window(1, 60), QUARTER, HALF_YEAR, YEAR, SECOND_MONTH, THIRD_AND_FOURTH_MONTH)
TARGET_WINDOWS = (MONTH, QUARTER)

_DECAY_BUCKETS = tuple(
    Window(before + 1, oldest) for before, oldest in itertools.pairwise((0, 7, 14, 30, 60, 90, 120, 180, 270, 365))
)
SHORT_MEMORY, MEMORY, LONG_MEMORY = (Decay(half_life, _DECAY_BUCKETS) for half_life in (20, 45, 120))
DECAYS = (SHORT_MEMORY, MEMORY, LONG_MEMORY)
TARGET_DECAYS = (MEMORY, LONG_MEMORY)

_OF_EVERYTHING: tuple[Feature, ...] = (
    DaysSinceLastTransaction(),
    DaysSinceFirstTransaction(),
    TotalTransactions(),
    TotalPurchaseDays(),
    DaysFirstToLast(),
    AvgDaysBetweenTransactions(),
    StdDaysBetweenTransactions(),
    MaxDaysBetweenTransactions(),
    CustomerTenureDays(),
    RecencyRatio(),
    DaysUntilDue(),
    *(WindowCount(window) for window in WINDOWS),
    *(WindowSpend(window) for window in WINDOWS),
    SpendSameWindowLastYear(),
    *(EwTransactionRate(decay) for decay in DECAYS),
    *(EwSpendRate(decay) for decay in DECAYS),
    LifetimeSpend(),
    AvgTransactionValue(),
    MaxTransactionValue(),
    MinTransactionValue(),
    StdTransactionValue(),
    LastTransactionValue(),
    MeanPurchaseDayValue(),
    MeanRepeatValue(),
    SpendVelocity(),
    *(NumDistinct(things) for things in ("products", "categories", "stores")),
    PromotionUsageRate(),
    PromotionUsageCount(),
    PurchaseMomentum(MONTH, QUARTER),
    SpendMomentum(MONTH, SECOND_MONTH),
    SpendMomentum(MONTH, THIRD_AND_FOURTH_MONTH),
    WeekendTransactionRate(),
    MostCommonDayOfWeek(),
    AvgItemsPerTransaction(),
    MaxItemsPerTransaction(),
    TotalItemsPurchased(),
    TransactionDensity(),
    ReturnRate(),
    IsColdStart(),
    TargetMonthSin(),
    TargetMonthCos(),
    TargetWeekendDays(),
    TargetDaysToYearEnd(),
)


def _of_target(target: str, targets: tuple[str, ...]) -> tuple[Feature, ...]:
    return (
        *(TargetWindowSpend(target, window) for window in TARGET_WINDOWS),
        *(TargetEwSpendRate(target, decay) for decay in TARGET_DECAYS),
        TargetLifetimeSpend(target),
        TargetTransactions(target),
        TargetDaysSince(target),
        TargetFavorite(target, targets),
    )


def feature_set(targets: Sequence[str]) -> tuple[Feature, ...]:
    """All features of a shop with these targets, in the order of the columns."""
    features = (*_OF_EVERYTHING, *(one for target in targets for one in _of_target(target, tuple(targets))))
    names = [feature.name for feature in features]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadDatasetConfig(
            f"targets {', '.join(targets)}: two features would be called {', '.join(twice)}; "
            "every target needs a name of its own that makes no other feature's name: rename the target"
        )
    return features


def feature_names(targets: Sequence[str]) -> tuple[str, ...]:
    """The names of `feature_set`, in its order."""
    return tuple(feature.name for feature in feature_set(targets))


DAYS_SINCE_LAST = DaysSinceLastTransaction().name
DAYS_SINCE_FIRST = DaysSinceFirstTransaction().name
TOTAL_TRANSACTIONS = TotalTransactions().name
TOTAL_PURCHASE_DAYS = TotalPurchaseDays().name
DAYS_FIRST_TO_LAST = DaysFirstToLast().name
MEAN_REPEAT_VALUE = MeanRepeatValue().name
AVG_TRANSACTION_VALUE = AvgTransactionValue().name
CUSTOMER_TENURE_DAYS = CustomerTenureDays().name
AVG_DAYS_BETWEEN = AvgDaysBetweenTransactions().name
LIFETIME_SPEND = LifetimeSpend().name
NUM_DISTINCT_PRODUCTS, NUM_DISTINCT_CATEGORIES = NumDistinct("products").name, NumDistinct("categories").name
TOTAL_ITEMS = TotalItemsPurchased().name
IS_COLD_START = IsColdStart().name
CALENDAR_FEATURES = tuple(feature.name for feature in _OF_EVERYTHING if isinstance(feature, CalendarFeature))

TENURE_FEATURES = (DAYS_SINCE_FIRST, DAYS_FIRST_TO_LAST, CUSTOMER_TENURE_DAYS)
"""How long ago a customer came; with the days since the last transaction, from the first to the last tells it too."""


def features_beyond(days: int, targets: Sequence[str]) -> tuple[str, ...]:
    """The features that look back further than this many days and have no other meaning than over all of them.

    An exponentially weighted rate is one of however many days there are.
    """
    reach = {feature.name: feature.recent_totals for feature in feature_set(targets)}
    return tuple(
        name
        for name, totals in reach.items()
        if any(isinstance(total, WindowTotal) and total.window.oldest > days for total in totals)
        and not any(isinstance(total, DecayedTotal) for total in totals)
    )


def spend_window_name(days: int, target: str | None = None) -> str:
    """The feature that holds the spend of the last `days` days, in total or of one target."""
    window = Window(1, days)
    known = WINDOWS if target is None else TARGET_WINDOWS
    if window not in known:
        choices = ", ".join(str(one.oldest) for one in known if one.newest == 1)
        raise ValueError(f"no feature holds the spend of the last {days} days; choose one of {choices}")
    return WindowSpend(window).name if target is None else TargetWindowSpend(target, window).name


def transaction_count_name(days: int) -> str:
    """The feature that counts the transactions of the last `days` days."""
    window = Window(1, days)
    if window not in WINDOWS:
        choices = ", ".join(str(one.oldest) for one in WINDOWS if one.newest == 1)
        raise ValueError(f"no feature counts the transactions of the last {days} days; choose one of {choices}")
    return WindowCount(window).name


def decayed_rate_name(half_life_days: int, target: str | None = None) -> str:
    """The feature that holds the exponentially weighted spend per 30 days, in total or of one target."""
    known = DECAYS if target is None else TARGET_DECAYS
    for decay in known:
        if decay.half_life_days == half_life_days:
            return EwSpendRate(decay).name if target is None else TargetEwSpendRate(target, decay).name
    choices = ", ".join(str(decay.half_life_days) for decay in known)
    raise ValueError(
        f"no feature is a rate of spend with a half-life of {half_life_days} days; choose one of {choices}"
    )


def favorite_category_name(target: str) -> str:
    """The feature that is 1 where no other named target has more of a customer's spend."""
    return TargetFavorite(target, (target,)).name


def lifetime_spend_name(target: str | None = None) -> str:
    """The feature that holds the spend since the beginning, in total or of one target."""
    return LIFETIME_SPEND if target is None else TargetLifetimeSpend(target).name


def build_features(
    purchases: ir.Table, customers: ir.Table, as_of_days: Sequence[date], targets: Sequence[str]
) -> ir.Table:
    """One row per (as_of, customer with a valid purchase on a day < as_of), in no order.

    Columns: customer_id, as_of (date), then `feature_names(targets)`, all float64, NULL where undefined.
    purchases: rows of `purchases.build_purchases`; those on or after an as_of are invisible to it.
    customers: customer_id, customer_since (date or NULL); customers that are missing there are described all the same.
    Equal days in `as_of_days` count once. Raises ValueError when there is none.
    """
    return build_features_at(purchases, customers, feature_calendar(as_of_days, targets).in_memory(), targets)


def feature_calendar(as_of_days: Sequence[date], targets: Sequence[str]) -> Calendar:
    """The days, windows and facts of as_of days that the features need."""
    features = feature_set(targets)
    totals = _recent_totals(features)
    return Calendar(
        as_of_days,
        windows=[total.window for total in totals if isinstance(total, WindowTotal)],
        facts={one.name: one.of for one in features if isinstance(one, CalendarFeature)},
        decays=_decays(totals),
    )


def build_features_at(purchases: ir.Table, customers: ir.Table, time: TimeTables, targets: Sequence[str]) -> ir.Table:
    """`build_features` for the as_of days of a calendar whose tables the engine holds already."""
    features = feature_set(targets)
    recent_totals = _recent_totals(features)
    totals = build_totals(purchases, time, targets, recent_totals)
    row = with_weighted_days(_with_customer_since(totals, customers), _decays(recent_totals))
    columns = {feature.name: feature.value(row).cast("float64") for feature in features}
    return row.select("customer_id", "as_of", **columns)


def _recent_totals(features: Sequence[Feature]) -> tuple[Total, ...]:
    return tuple(dict.fromkeys(total for feature in features for total in feature.recent_totals))


def _decays(totals: Sequence[Total]) -> tuple[Decay, ...]:
    return tuple(dict.fromkeys(total.decay for total in totals if isinstance(total, DecayedTotal)))


def _with_customer_since(totals: ir.Table, customers: ir.Table) -> ir.Table:
    """Adds customer_since_day, days since 1970-01-01, NULL where it is unknown."""
    since = customers.group_by("customer_id").aggregate(day=customers.customer_since.min().epoch_days().cast("int32"))
    joined = totals.left_join(since, "customer_id")
    return joined.select(*[totals[column] for column in totals.columns], customer_since_day=since.day)


@dataclass(frozen=True)
class FeatureRows:
    """Features as models read them; row i of all arrays belongs together, sorted by (as_of, customer_id)."""

    as_of: npt.NDArray[np.datetime64]
    """(n,) days."""
    customer_id: npt.NDArray[np.str_]
    """(n,)."""
    features: npt.NDArray[np.float32]
    """(n, n_features), C-contiguous, NaN = missing; columns in the order of the names that were asked for."""
    other: Mapping[str, npt.NDArray[np.float64]]
    """The remaining columns of the table, (n,) each, NaN = NULL."""


def read_matrix(engine: Backend, rows: ir.Table, names: Sequence[str], batch_rows: int = 50_000) -> FeatureRows:
    """Runs `build_features` (with labels beside it or not) and reads it in batches: little more memory than its answer.

    rows: customer_id, as_of, the feature columns `names`, and any other numeric columns.
    """
    name = ibis.util.gen_name("rows")
    table = engine.create_table(name, rows, temp=True)
    try:
        n_rows = int(table.count().execute())
        batches = table.order_by("as_of", "customer_id").to_pyarrow_batches(chunk_size=batch_rows)
        return collect_rows(batches, n_rows, names)
    finally:
        engine.drop_table(name)


def collect_rows(batches: Iterable[pa.RecordBatch], n_rows: int, names: Sequence[str]) -> FeatureRows:
    """The rows of sorted batches as arrays: the one place where features become float32."""
    features = np.empty((n_rows, len(names)), dtype=np.float32)
    as_of = np.empty(n_rows, dtype="datetime64[D]")
    ids = [np.empty(0, dtype=np.str_)]
    other: dict[str, np.ndarray] = {}
    start = 0
    for batch in batches:
        block = slice(start, start + batch.num_rows)
        ids.append(_array(batch, "customer_id").astype(np.str_))
        as_of[block] = _array(batch, "as_of")
        for position, name in enumerate(names):
            features[block, position] = _array(batch, name)
        for name in batch.schema.names:
            if name not in ("customer_id", "as_of", *names):
                other.setdefault(name, np.empty(n_rows))[block] = _array(batch, name)
        start = block.stop
    return FeatureRows(as_of, np.concatenate(ids), features, other)


def _array(batch: pa.RecordBatch, name: str) -> np.ndarray:
    return batch.column(name).to_numpy(zero_copy_only=False)
