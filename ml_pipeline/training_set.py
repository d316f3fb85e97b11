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

from ml_pipeline.errors import NotEnoughHistory, TooFewToLearnFrom
from ml_pipeline.features import (
    CALENDAR_FEATURES,
    TENURE_FEATURES,
    build_features,
    feature_names,
    features_beyond,
    read_matrix,
)
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.targets import build_targets

FloatArray = npt.NDArray[np.float64]

SHORTEST_PAST_DAYS = 30  # history that the first observation looks back on
LEAST_WINDOWS = 2  # rules: to select on, to report on
MODEL_WINDOWS = 4  # models: to learn from, to calibrate on, to select on, to report on
LEAST_DAYS, MODEL_DAYS = (SHORTEST_PAST_DAYS + windows * HORIZON_DAYS for windows in (LEAST_WINDOWS, MODEL_WINDOWS))
SHORT_DAYS = 180  # with less history, how long ago somebody came says most of all when the data began
SEASONS_SEEN_DAYS = 540  # with less history a season cannot be told from a trend
LEAST_SAMPLE = 100
"""A sample of fewer customers teaches next to nothing, and no score on it means anything."""
OLDEST_SHARE, MOST_OLDEST = 0.1, 100  # of a sample, those who came first: they alone are there on the earliest days


@dataclass(frozen=True)
class WindowPlan:
    """Which `as_of` days are used for what; all are first days of a label window that ends before `serving`.

    learning: every day with observations, ascending. Three blocks of judged days follow each other: on those of
    `calibration` it is learned what predictions are wrong by, on `selection` the winner is chosen, on `report` it is
    reported; a model that is judged on a block has learned from what had ended before the block began.
    rules_only: why no model takes part, where none does: then nothing is calibrated either. None: models do.
    """

    serving: date
    learning: tuple[date, ...]
    calibration: tuple[date, ...]
    selection: tuple[date, ...]
    report: tuple[date, ...]
    rules_only: str | None = None

    @property
    def blocks(self) -> tuple[tuple[date, ...], ...]:
        """Calibration, selection, report, in the order of time; those that have days."""
        return tuple(block for block in (self.calibration, self.selection, self.report) if block)

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
    selection and calibration. Where no models fit, rules are selected on one window and reported on the next. Raises
    NotEnoughHistory when not even that fits.
    """
    horizon = timedelta(days=HORIZON_DAYS)
    latest, earliest = serving - horizon, first_day + timedelta(days=SHORTEST_PAST_DAYS)
    n_fitting = (latest - earliest) // horizon + 1
    history_days = (serving - first_day).days
    if n_fitting < LEAST_WINDOWS:
        raise NotEnoughHistory(
            f"The history before {serving} begins on {first_day}: {history_days} days; selecting a rule and reporting on it "
            f"on separate windows of {HORIZON_DAYS} days needs at least {LEAST_DAYS} (models: {MODEL_DAYS}). "
            "Bring older transactions."
        )
    if n_fitting < MODEL_WINDOWS:
        return _plan_rules(latest, serving, n_fitting, history_days)
    sizes, wanted = [1, 1, 1], [n_report, n_selection, n_calibration]
    spare = n_fitting - MODEL_WINDOWS
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


def _plan_rules(latest: date, serving: date, n_fitting: int, history_days: int) -> WindowPlan:
    """One window to select on and the last one to report on; what fits before them is only learned from."""
    *earlier, selection, report = (
        latest - timedelta(days=HORIZON_DAYS * step) for step in range(n_fitting - 1, -1, -1)
    )
    why = f"the history is {history_days} days; models need {MODEL_DAYS}"
    return WindowPlan(serving, (*earlier, selection, report), (), (selection,), (report,), rules_only=why)


@dataclass(frozen=True)
class Observations:
    """n rows in order of (as_of, customer_id): features float32 (n, F), spend per target float64 (n,) in currency units.

    spend has total, every named target and other; bought is 1.0 where any purchase was made in the horizon.
    unused: features that models must not learn from. Rules and formulas may read them, and serving has them too.
    """

    as_of: npt.NDArray[np.datetime64]
    customer_id: npt.NDArray[np.str_]
    features: npt.NDArray[np.float32]
    names: tuple[str, ...]
    spend: Mapping[str, FloatArray]
    bought: FloatArray
    unused: tuple[str, ...] = ()

    def learnable(self, rows: slice | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Features of these rows as models may learn from them (a copy): missing where they are unused."""
        features = self.features[rows].copy()
        features[:, [self.names.index(name) for name in self.unused]] = np.nan
        return features

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


def refuse_small_sample(n_samples: int | None, buyers: int) -> None:
    """Raises TooFewToLearnFrom where a sample of fewer than LEAST_SAMPLE customers is asked for; None asks for none."""
    if n_samples is not None and n_samples < LEAST_SAMPLE:
        raise TooFewToLearnFrom(
            f"n_samples = {n_samples}: a sample takes at least {LEAST_SAMPLE} customers; the shop has {buyers:,}. Ask for more, "
            "or for none to learn from all."
        )


@dataclass(frozen=True)
class UnusedFeatures:
    """Features that models must not learn from, and the fact of the history for which they cannot mean anything."""

    reason: str
    features: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """For a bundle's metadata."""
        return {"reason": self.reason, "features": list(self.features)}


def unused_features(first_day: date, plan: WindowPlan, targets: Sequence[str]) -> tuple[UnusedFeatures, ...]:
    """What models must not learn from in a shop this young, in groups that do not overlap."""
    days = (plan.serving - first_day).days
    groups = []
    if days < SEASONS_SEEN_DAYS:
        reason = f"a season cannot be told from a trend in {days} days (it takes {SEASONS_SEEN_DAYS})"
        groups.append(UnusedFeatures(reason, CALENDAR_FEATURES))
    if days < SHORT_DAYS:
        reason = f"in {days} days (of {SHORT_DAYS}) how long ago somebody came says most of all when the data begins"
        groups.append(UnusedFeatures(reason, TENURE_FEATURES))
        reason = f"they look back further than the {days} days that there are"
        groups.append(UnusedFeatures(reason, features_beyond(days, targets)))
    return tuple(groups)


def without(observations: Observations, groups: Sequence[UnusedFeatures]) -> Observations:
    """The same rows, of which models cannot learn from these features."""
    return replace(observations, unused=tuple(name for group in groups for name in group.features))
