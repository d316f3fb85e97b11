"""Observations to learn from: one row per customer and past `as_of`, and which days serve for what.

Time is honest by construction: the rows for a fold that is judged on `origin` are those whose label window has ended
before it (`as_of + horizon <= origin`), and rows lie in order of `as_of`, so such a fold is a prefix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.features import CALENDAR_FEATURES, build_features, feature_names, read_matrix
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.targets import build_targets

FloatArray = npt.NDArray[np.float64]

SHORTEST_PAST_DAYS = 30  # history that the first observation looks back on
SEASONS_SEEN_DAYS = 540  # with less history a season cannot be told from a trend
OLDEST_SHARE, MOST_OLDEST = 0.1, 100  # of a sample, those who came first: they alone are there on the earliest days


@dataclass(frozen=True)
class WindowPlan:
    """Which `as_of` days are used for what; all are first days of a label window that ends before `serving`.

    learning: every day with observations, ascending. Three blocks of judged days follow each other: on those of
    `calibration` it is learned what predictions are wrong by, on `selection` the winner is chosen, on `report` it is
    reported; a model that is judged on a block has learned from what had ended before the block began.
    """

    serving: date
    learning: tuple[date, ...]
    calibration: tuple[date, ...]
    selection: tuple[date, ...]
    report: tuple[date, ...]

    @property
    def blocks(self) -> tuple[tuple[date, ...], ...]:
        """Calibration, selection, report, in the order of time."""
        return self.calibration, self.selection, self.report

    @property
    def origins(self) -> tuple[date, ...]:
        """All judged days, ascending."""
        return tuple(sorted(day for block in self.blocks for day in block))

    def before(self, block: Sequence[date]) -> tuple[date, ...]:
        """The judged days of all earlier blocks: what may be learned from them for this one."""
        return tuple(day for day in self.origins if day < min(block))


def plan_windows(
    first_day: date,
    serving: date,
    *,
    spacing_days: int,
    most_days: int,
    n_calibration: int,
    n_selection: int,
    n_report: int,
) -> WindowPlan:
    """Lays the windows backwards from the last day whose label window has ended: report, selection, calibration.

    Shorter histories get fewer windows per block, but at least one each: what there is goes in turn to report,
    selection and calibration. Raises NotEnoughHistory when not even that fits.
    """
    horizon = timedelta(days=HORIZON_DAYS)
    latest, earliest = serving - horizon, first_day + timedelta(days=SHORTEST_PAST_DAYS)
    n_fitting = (latest - earliest) // horizon + 1
    needed = 4  # to learn from, to calibrate on, to select on, to report on
    if n_fitting < needed:
        least = SHORTEST_PAST_DAYS + needed * HORIZON_DAYS
        raise NotEnoughHistory(
            f"The history before {serving} begins on {first_day}: {(serving - first_day).days} days; training and judging "
            f"models on separate windows of {HORIZON_DAYS} days needs at least {least}. Bring older transactions."
        )
    sizes, wanted = [1, 1, 1], [n_report, n_selection, n_calibration]
    spare = n_fitting - needed
    while spare and sizes != wanted:
        block = max(range(3), key=lambda each: (wanted[each] - sizes[each], -each))
        sizes[block] += 1
        spare -= 1
    days = [latest - horizon * step for step in range(n_fitting)]
    ends = np.cumsum(sizes).tolist()
    learning = {latest - timedelta(days=spacing_days * step) for step in range(most_days)}
    learning = {day for day in learning if day >= earliest} | set(days[: ends[2] + 1])
    report, selection, calibration = (
        tuple(sorted(days[begin:end])) for begin, end in zip([0, *ends[:2]], ends, strict=True)
    )
    return WindowPlan(serving, tuple(sorted(learning)), calibration, selection, report)


@dataclass(frozen=True)
class Observations:
    """n rows in order of (as_of, customer_id): features float32 (n, F), spend per target float64 (n,) in currency units.

    spend has total, every named target and other; bought is 1.0 where any purchase was made in the horizon.
    """

    as_of: npt.NDArray[np.datetime64]
    customer_id: npt.NDArray[np.str_]
    features: npt.NDArray[np.float32]
    names: tuple[str, ...]
    spend: Mapping[str, FloatArray]
    bought: FloatArray

    def __len__(self) -> int:
        return len(self.as_of)

    def ended_before(self, origin: date) -> slice:
        """The rows whose label window has ended before `origin`: what a model judged there may learn from."""
        return slice(0, int(np.searchsorted(self.as_of, np.datetime64(origin - timedelta(days=HORIZON_DAYS)), "right")))

    def on(self, day: date) -> slice:
        """The rows of one `as_of`."""
        left, right = (int(np.searchsorted(self.as_of, np.datetime64(day), side)) for side in ("left", "right"))
        return slice(left, right)


def build_observations(
    engine: Backend, purchases: ir.Table, customers: ir.Table, as_of_days: Sequence[date], targets: Sequence[str]
) -> Observations:
    """Features and labels of every customer who bought before each `as_of`; nobody else is an observation."""
    features = build_features(purchases, customers, as_of_days, targets)
    labels = build_targets(purchases, as_of_days, targets)
    columns = (TOTAL_TARGET, *targets, OTHER_TARGET)
    keys = ["customer_id", "as_of"]
    labels = labels.select(*keys, "transactions", **{f"label_{name}": labels[name] for name in columns})
    joined = features.left_join(labels, keys)
    joined = joined.select(
        *keys,
        *feature_names(targets),
        **{f"label_{name}": joined[f"label_{name}"].fill_null(0.0) for name in columns},
        transactions=joined.transactions.fill_null(0).cast("float64"),
    )
    rows = read_matrix(engine, joined, feature_names(targets))
    return Observations(
        as_of=rows.as_of,
        customer_id=rows.customer_id,
        features=rows.features,
        names=feature_names(targets),
        spend={name: rows.other[f"label_{name}"] for name in columns},
        bought=(rows.other["transactions"] > 0).astype(np.float64),
    )


def sample_customers(
    engine: Backend, purchases: ir.Table, customers: ir.Table, most: int, seed: int
) -> tuple[ir.Table, ir.Table]:
    """Purchases and customers of at most `most` buyers, drawn by the seed; the tables as they are where there are no more.

    The few who came first are in every sample: a shop that grows fast would else have nobody on its earliest days.
    """
    bought = purchases.filter(purchases.spend_units > 0).group_by("customer_id")
    # a purchase that was taken back makes nobody an observation
    buyers = engine.to_pyarrow(bought.aggregate(first=lambda sale: sale.day.min(where=sale.cancelled_on.isnull())))
    ids = buyers["customer_id"].to_numpy(zero_copy_only=False).astype(str)
    if len(ids) <= most:
        return purchases, customers
    first = buyers["first"].to_numpy(zero_copy_only=False).astype("datetime64[D]")
    ids = ids[np.lexsort((ids, first))]  # those of whom nothing is left stand last, as NaT does
    n_oldest = min(MOST_OLDEST, int(np.ceil(OLDEST_SHARE * most)))
    younger = np.random.default_rng(seed).choice(np.sort(ids[n_oldest:]), most - n_oldest, replace=False)
    drawn = np.sort(np.concatenate([ids[:n_oldest], younger]))
    chosen = engine.create_table(
        ibis.util.gen_name("chosen"), ibis.memtable({"customer_id": drawn.tolist()}), temp=True
    )
    return purchases.semi_join(chosen, "customer_id"), customers.semi_join(chosen, "customer_id")


def unused_features(first_day: date, plan: WindowPlan) -> tuple[str, ...]:
    """The features that models must not learn from in a shop this young: those of the calendar."""
    return CALENDAR_FEATURES if (plan.serving - first_day).days < SEASONS_SEEN_DAYS else ()


def without(observations: Observations, names: Sequence[str]) -> Observations:
    """The same rows with these features missing everywhere, so that no model can learn from them."""
    if not names:
        return observations
    features = observations.features.copy()
    features[:, [observations.names.index(name) for name in names]] = np.nan
    return replace(observations, features=features)
