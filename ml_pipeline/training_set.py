"""Observations to learn from: one row per customer and past `as_of`, and which days serve for what.

Time is honest by construction: the rows for a fold that is judged on `origin` are those whose label window has ended
before it (`as_of + horizon <= origin`), and rows lie in order of `as_of`, so such a fold is a prefix.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.features import build_features, feature_names, read_matrix
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.targets import build_targets

FloatArray = npt.NDArray[np.float64]

SHORTEST_PAST_DAYS = 30  # history that the first observation looks back on


@dataclass(frozen=True)
class WindowPlan:
    """Which `as_of` days are used for what; all are first days of a label window that ends before `serving`.

    learning: every day with observations, ascending. stopping: where early stopping looks. selection: where the
    winner is chosen. report: where it is reported, later than any day that chose it.
    """

    serving: date
    learning: tuple[date, ...]
    stopping: date
    selection: tuple[date, ...]
    report: tuple[date, ...]

    @property
    def origins(self) -> tuple[date, ...]:
        """Selection and report days, ascending."""
        return tuple(sorted((*self.selection, *self.report)))


def plan_windows(
    first_day: date, serving: date, *, spacing_days: int, most_days: int, n_selection: int, n_report: int
) -> WindowPlan:
    """Lays the windows backwards from the last day whose label window has ended: report, selection, stopping.

    Shorter histories get fewer selection and report windows, but at least one each.
    Raises NotEnoughHistory when not even that fits.
    """
    horizon = timedelta(days=HORIZON_DAYS)
    latest, earliest = serving - horizon, first_day + timedelta(days=SHORTEST_PAST_DAYS)
    n_fitting = (latest - earliest) // horizon + 1
    needed = 4  # to learn from, to stop at, to select on, to report on
    if n_fitting < needed:
        least = SHORTEST_PAST_DAYS + needed * HORIZON_DAYS
        raise NotEnoughHistory(
            f"The history before {serving} begins on {first_day}: {(serving - first_day).days} days; training and judging "
            f"models on separate windows of {HORIZON_DAYS} days needs at least {least}. Bring older transactions."
        )
    spare = n_fitting - needed
    n_report = 1 + min(n_report - 1, (spare + 1) // 2)
    n_selection = 1 + min(n_selection - 1, n_fitting - 3 - n_report)
    days = [latest - horizon * step for step in range(n_fitting)]
    stopping_at = n_report + n_selection
    learning = {latest - timedelta(days=spacing_days * step) for step in range(most_days)}
    learning = {day for day in learning if day >= earliest} | set(days[: stopping_at + 2])
    return WindowPlan(
        serving=serving,
        learning=tuple(sorted(learning)),
        stopping=days[stopping_at],
        selection=tuple(sorted(days[n_report:stopping_at])),
        report=tuple(sorted(days[:n_report])),
    )


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
