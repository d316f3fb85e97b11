"""Refuses to train on columns that know the future and on folds whose labels reach into one another.

Columns of `build_features` are proven blind: they are built again without anything that was unknown at as_of and must not
change by a bit. Columns that came into the matrix by another way cannot be built again; they are judged by how much they
know of what happened from as_of on, beyond what the proven columns know. Every training runs `check_for_leaks`.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from ibis.backends.duckdb import Backend
from scipy.stats import rankdata

from ml_pipeline.cancellations import CANCELLATION_COLUMNS, find_cancellations, with_cancellations
from ml_pipeline.errors import FeatureLeak, LabelOverlap
from ml_pipeline.features import build_features, feature_names, read_matrix
from ml_pipeline.purchases import PURCHASE_COLUMNS
from ml_pipeline.schema import AMOUNT_SCALE, HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.tables import drop_tables, materialise
from ml_pipeline.training_set import Observations, WindowPlan

FloatArray = npt.NDArray[np.float64]

REBUILT_DAYS = 30
REBUILT_ROWS = 900
"""Spread over the days; half of them, where there are as many, bought in the window of the label: there a leak shows."""
CUSTOMER_COLUMNS = ("customer_id", "customer_since")
"""What a customer table says that was true on a past day too; of everything else nobody knows since when."""

JUDGED_DAYS = 3
JUDGED_ROWS = 2_000
"""Per day, of the earlier days: they have the longest future."""
FOLDS = 4
RIDGE = 0.01
LEAST_SPREAD = 0.03
"""Standard deviation of within-day ranks (all different: 0.29) below which a column tells next to nothing."""
MOST_BEYOND = 0.35
"""Partial rank correlation with the future given the proven columns; docs/leaks.md has what was measured."""
MOST_BEYOND_NOISE = 6.0
"""... and this many standard errors of a correlation between strangers, 1 / sqrt(customers)."""
TWIN, TWIN_OF_FEW, FEW = 0.95, 0.9999, 25
"""Rank correlation with an outcome from which a column is that outcome, and what it takes with few customers."""
TELLS_BUYERS, BUYERS_KNOWN, ENOUGH = 0.99, 0.97, 100
"""AUC that no honest column has, unless a proven one tells nearly as much; judged from so many customers on."""
LEAST_BUYERS = 10
"""And from so many rows of buyers, and of others, on."""
NO_SECRET = 0.99
"""Rank correlation of a proven column with an outcome from which nobody can betray it any more."""

WAY_OUT = "Leave it out, or build it from purchases before as_of among the features, where it can be proven blind."


@dataclass(frozen=True)
class LeakReport:
    """What was checked and found clean.

    days: rebuilt as_of days. rows: customers and days rebuilt. rebuilt: columns proven blind. judged: for each column
    that could not be rebuilt the strongest partial rank correlation with the future. origins: judged windows.
    """

    days: tuple[date, ...]
    rows: int
    rebuilt: tuple[str, ...]
    judged: Mapping[str, float]
    origins: tuple[date, ...]

    @property
    def values(self) -> int:
        """How many numbers were compared."""
        return self.rows * len(self.rebuilt)

    def sentence(self) -> str:
        """For the model card."""
        text = (
            f"{self.values:,} values ({len(self.rebuilt)} columns, {self.rows:,} rows of {len(self.days)} days) were rebuilt "
            "without anything on or after as_of and without any column of today: all equal. "
            f"Their labels are the sums of the {HORIZON_DAYS} days from as_of on. "
            f"No label reaches into one of the {len(self.origins)} judged windows or beyond the data."
        )
        if self.judged:
            strongest = max(self.judged, key=lambda name: self.judged[name])
            text += (
                f" {len(self.judged)} columns could not be rebuilt; what they know of the future beyond the others is at "
                f"most {self.judged[strongest]:.2f} ({strongest}; {MOST_BEYOND} is refused)."
            )
        return text

    def as_json(self) -> dict[str, Any]:
        """Plain values; the same tables give the same."""
        return {
            "days": [day.isoformat() for day in self.days],
            "rows": self.rows,
            "columns": len(self.rebuilt),
            "values": self.values,
            "judged": dict(self.judged),
            "origins": [day.isoformat() for day in self.origins],
            "summary": self.sentence(),
        }


def check_for_leaks(
    engine: Backend,
    purchases: ir.Table,
    customers: ir.Table,
    observations: Observations,
    plan: WindowPlan,
    targets: Sequence[str],
    seed: int = 0,
) -> LeakReport:
    """Everything below, in one call, before anything is fitted.

    purchases, customers: what the observations were built on. Raises FeatureLeak with the column, LabelOverlap with the
    days.
    """
    refuse_overlapping_folds(observations, plan)
    refuse_foreign_labels(engine, purchases, observations, seed)
    days, rows, rebuilt = refuse_sighted_columns(engine, purchases, customers, observations, targets, seed)
    judged = refuse_knowing_columns(engine, purchases, observations, rebuilt, seed)
    return LeakReport(days, rows, rebuilt, judged, plan.origins)


# Folds


def refuse_overlapping_folds(observations: Observations, plan: WindowPlan) -> None:
    """Raises LabelOverlap unless every fold learns from labels that ended before its judged window begins.

    Neither may the windows that calibrate or choose reach into those that come after them, nor any label into the day
    from which the bundle serves.
    """
    for origin in plan.origins:
        _refuse_reach(observations.as_of[observations.ended_before(origin)], origin, "training rows")
    judging = ("calibration", "selection", "report")[-len(plan.blocks) :]
    for name, (earlier, later) in zip(judging, pairwise(plan.blocks), strict=False):
        _refuse_reach(_days(earlier), min(later), f"the {name} window")
    _refuse_reach(observations.as_of, plan.serving, "training rows")


def refuse_foreign_labels(engine: Backend, purchases: ir.Table, observations: Observations, seed: int = 0) -> None:
    """Raises FeatureLeak where the label of a sampled row is another than its own sum over as_of … as_of + 29.

    The total alone is summed here: purchases of a window, floored at 0, straight from the lines.
    """
    sample = _sample(observations, seed)
    ids, as_of = observations.customer_id[sample], observations.as_of[sample].astype("datetime64[D]")
    numbers = pa.array(range(len(ids)), pa.int64())
    people = pa.table(
        {
            "number": numbers,
            "customer_id": pa.array(ids.tolist(), pa.string()),
            "as_of": pa.array(as_of.astype(object).tolist(), pa.date32()),
        }
    )
    lines = purchases.select("customer_id", "day", "amount_units").inner_join(ibis.memtable(people), "customer_id")
    within = lines.filter(lines.day >= lines.as_of, lines.day < lines.as_of + ibis.interval(days=HORIZON_DAYS))
    summed = engine.to_pyarrow(within.group_by("number").aggregate(units=within.amount_units.sum().cast("int64")))
    came = np.zeros(len(ids))
    came[summed["number"].to_numpy()] = np.maximum(summed["units"].to_numpy(), 0) / AMOUNT_SCALE
    label = observations.spend[TOTAL_TARGET][sample]
    wrong = np.flatnonzero(came != label)
    if len(wrong):
        first = wrong[0]
        raise FeatureLeak(
            f"The label of customer {ids[first]} as of {as_of[first]} is {label[first]:,.2f}; the purchases of the "
            f"{HORIZON_DAYS} days from then on sum to {came[first]:,.2f} ({len(wrong):,} of {len(ids):,} sampled rows differ). "
            "Sum labels over as_of … as_of + 29 and over nothing else."
        )


def _refuse_reach(as_of: npt.NDArray[np.datetime64], origin: date, whose: str) -> None:
    if not len(as_of) or as_of.max() + np.timedelta64(HORIZON_DAYS, "D") <= np.datetime64(origin):
        return
    last = as_of.max().astype("datetime64[D]").item()
    raise LabelOverlap(
        f"The label of {whose} as of {last} ends on {last + timedelta(days=HORIZON_DAYS - 1)}, and what comes next begins on "
        f"{origin}: it would be judged, or served, by what it was told. Leave {HORIZON_DAYS} days between them: nothing "
        f"later than {origin - timedelta(days=HORIZON_DAYS)}."
    )


def _days(days: Sequence[date]) -> npt.NDArray[np.datetime64]:
    return np.array(days, dtype="datetime64[D]")


# Columns that can be built again


@dataclass(frozen=True)
class _Blinding:
    """What is taken from the builder, and in the words of a person."""

    delete: bool = False
    permute: bool = False
    exchange: bool = False

    def __str__(self) -> str:
        if self.delete and self.permute:
            return "rows on and after as_of were deleted, columns of today permuted and ids exchanged, all at once"
        if self.delete:
            return "every row on and after as_of was deleted: it reads purchases of the future"
        if self.permute:
            return (
                f"columns other than {', '.join(CUSTOMER_COLUMNS)} of the customers, and columns added to the purchases, "
                "were permuted: it reads what is known only today"
            )
        if self.exchange:
            return "customers exchanged their ids: it looks ids up in a table of its own, which nobody can take back in time"
        return "it was built for these customers alone: it was changed after it was built, or it depends on other customers"


_BLIND = _Blinding(delete=True, permute=True, exchange=True)
_CAUSES = (_Blinding(), _Blinding(delete=True), _Blinding(permute=True), _Blinding(exchange=True))


def refuse_sighted_columns(
    engine: Backend,
    purchases: ir.Table,
    customers: ir.Table,
    observations: Observations,
    targets: Sequence[str],
    seed: int,
) -> tuple[tuple[date, ...], int, tuple[str, ...]]:
    """Raises FeatureLeak when a column changes as what was unknown at as_of is taken away; days, rows, columns compared.

    Taken away: purchases on and after as_of, cancellations of earlier ones included; registrations on and after as_of;
    every further column of the customers and of the purchases (permuted); who is who (customers exchange their ids,
    transactions get new ones).
    """
    names = tuple(name for name in feature_names(targets) if name in observations.names)
    sample = _sample(observations, seed)
    if not len(sample):
        return (), 0, names
    with ExitStack() as kept:
        own = _OwnRows(engine, kept, purchases, customers, observations, sample, seed)
        learned = observations.features[sample][:, [observations.names.index(name) for name in names]]
        found = own.rebuilt(names, targets, _BLIND)
        wrong = _differs(learned, found)
        if wrong.any():
            column = int(wrong.sum(axis=0).argmax())

            def blamed(cause: _Blinding) -> bool:
                return bool(_differs(learned, own.rebuilt(names, targets, cause))[:, column].any())

            cause = next(filter(blamed, _CAUSES), _BLIND)
            _raise_sighted(observations, sample, names, learned, found, column, cause)
    days = tuple(day.item() for day in np.unique(observations.as_of[sample]).astype("datetime64[D]"))
    return days, len(sample), names


def _differs(learned: npt.NDArray[Any], found: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Where two matrices are not the same to the bit; missing equals missing."""
    same = learned.astype(np.float32, copy=False)
    return ~((same == found) | (np.isnan(same) & np.isnan(found)))


def _raise_sighted(
    observations: Observations,
    sample: npt.NDArray[np.intp],
    names: tuple[str, ...],
    learned: npt.NDArray[Any],
    found: npt.NDArray[np.float32],
    column: int,
    cause: _Blinding,
) -> None:
    wrong = _differs(learned, found)
    row = int(wrong[:, column].argmax())
    others = [name for number, name in enumerate(names) if number != column and wrong[:, number].any()]
    more = f" The same goes for {', '.join(others[:5])}{' and more' if len(others) > 5 else ''}." if others else ""
    raise FeatureLeak(
        f"{names[column]}: {wrong[:, column].sum()} of {len(sample)} values changed when {cause}. Customer "
        f"{observations.customer_id[sample[row]]} as of {observations.as_of[sample[row]]} has {learned[row, column]:g} in "
        f"the training matrix and {found[row, column]:g} without it. A feature may use purchases before as_of, and "
        f"customer_since. {WAY_OUT}{more}"
    )


def _sample(observations: Observations, seed: int) -> npt.NDArray[np.intp]:
    """Rows of all days, or of so many spread over them, ascending; no customer twice, so that each has one as_of."""
    rng = np.random.default_rng(seed)
    days = _spread(np.unique(observations.as_of), REBUILT_DAYS)
    most = min(REBUILT_ROWS, len(np.unique(observations.customer_id)))
    share = math.ceil(most / max(len(days), 1))
    chosen = np.empty(0, dtype=np.intp)
    for day in days:
        rows = rng.permutation(np.flatnonzero(observations.as_of == day))
        rows = rows[~np.isin(observations.customer_id[rows], observations.customer_id[chosen])]
        buyers = rows[observations.bought[rows] > 0][: share // 2]
        others = rows[~np.isin(rows, buyers)][: share - len(buyers)]
        chosen = np.concatenate([chosen, buyers, others])
    return np.sort(chosen)


def _spread(days: npt.NDArray[np.datetime64], most: int) -> npt.NDArray[np.datetime64]:
    return days[np.unique(np.linspace(0, len(days) - 1, min(most, len(days))).astype(int))] if len(days) else days


class _OwnRows:
    """The purchases and customers of a sample alone, kept by the engine until `kept` is closed."""

    def __init__(
        self,
        engine: Backend,
        kept: ExitStack,
        purchases: ir.Table,
        customers: ir.Table,
        observations: Observations,
        sample: npt.NDArray[np.intp],
        seed: int,
    ) -> None:
        self._engine, self._kept = engine, kept
        self._ids = observations.customer_id[sample]
        self._as_of = observations.as_of[sample].astype("datetime64[D]").astype(object)
        ring = np.random.default_rng(seed).permutation(len(sample))
        self._aliases = np.empty_like(self._ids)
        self._aliases[ring] = self._ids[np.roll(ring, 1)]
        sampled = self._people(self._ids)
        self._lines, self._owners = (
            self._keep(rows.semi_join(sampled, "customer_id")) for rows in (purchases, customers)
        )

    def rebuilt(self, names: tuple[str, ...], targets: Sequence[str], blinding: _Blinding) -> npt.NDArray[np.float32]:
        """(rows of the sample, names); NaN throughout for a customer whom nothing that is left describes."""
        lines, owners, ids = self._lines, self._owners, self._ids
        if blinding.delete:
            lines, owners = self._without_future(lines, owners)
        if blinding.exchange:
            ids = self._aliases
            lines, owners = (self._exchanged(rows) for rows in (lines, owners))
        if blinding.permute:
            lines, owners = self._permuted(lines, PURCHASE_COLUMNS), self._permuted(owners, CUSTOMER_COLUMNS)
        features = build_features(self._keep(lines), self._keep(owners), sorted(set(self._as_of)), targets)
        features = features.semi_join(self._people(ids), ["customer_id", "as_of"])
        rows = read_matrix(self._engine, features, names)
        place = {str(customer): number for number, customer in enumerate(rows.customer_id)}
        found: npt.NDArray[np.float32] = np.full((len(ids), len(names)), np.nan, dtype=np.float32)
        for number, customer in enumerate(ids):
            if customer in place:
                found[number] = rows.features[place[customer]]
        return found

    def _people(self, ids: npt.NDArray[np.str_]) -> ir.Table:
        """customer_id, as_of, goes_by (the id that another customer takes)."""
        columns = {
            "customer_id": pa.array(ids.tolist(), pa.string()),
            "as_of": pa.array(self._as_of.tolist(), pa.date32()),
            "goes_by": pa.array(self._aliases.tolist(), pa.string()),
        }
        return ibis.memtable(pa.table(columns))

    def _without_future(self, lines: ir.Table, owners: ir.Table) -> tuple[ir.Table, ir.Table]:
        """What was cancelled is found anew among the lines that are left, for a later return is of the future too."""
        people = self._people(self._ids)
        dated = lines.inner_join(people, "customer_id")
        past = dated.filter(dated.day < dated.as_of)
        past = self._keep(past.select(*[name for name in lines.columns if name not in CANCELLATION_COLUMNS]))
        past = with_cancellations(past, self._keep(find_cancellations(past)))
        registered = owners.inner_join(people, "customer_id")
        known = (registered.customer_since < registered.as_of).ifelse(registered.customer_since, None)
        return (
            past.select(*lines.columns),
            registered.select(
                **{name: known if name == "customer_since" else registered[name] for name in owners.columns}
            ),
        )

    def _exchanged(self, rows: ir.Table) -> ir.Table:
        joined = rows.inner_join(self._people(self._ids), "customer_id")
        changed = {"customer_id": joined.goes_by}
        if "transaction_id" in rows.columns:
            changed["transaction_id"] = ibis.literal("t") + joined.transaction_id
        return joined.select(**{name: changed.get(name, joined[name]) for name in rows.columns})

    def _permuted(self, rows: ir.Table, known: Sequence[str]) -> ir.Table:
        """Other columns than the known ones, each moved by half the rows in its own order.

        So nearly every row gets a value that is not its own, however few values there are.
        """
        columns = [name for name in rows.columns if name not in known]
        n_rows = int(self._engine.execute(rows.count())) if columns else 0
        for column in columns:
            placed = rows.mutate(_place=ibis.row_number().over(order_by=[rows[column], rows.customer_id]))
            placed = self._keep(placed)
            givers = placed.select(_place=(placed["_place"] + n_rows // 2) % n_rows, _given=placed[column])
            joined = placed.left_join(self._keep(givers), "_place")
            rows = joined.select(
                **{name: joined["_given"] if name == column else joined[name] for name in rows.columns}
            )
        return rows

    def _keep(self, rows: ir.Table) -> ir.Table:
        table = materialise(self._engine, rows, "own")
        self._kept.callback(drop_tables, self._engine, table)
        return table


# Columns that cannot


def refuse_knowing_columns(
    engine: Backend, purchases: ir.Table, observations: Observations, proven: Sequence[str], seed: int
) -> dict[str, float]:
    """Raises FeatureLeak when a column that is not proven blind knows too much of the future; how much each knows.

    What is known is the partial rank correlation given all proven columns (ridge regressions that are learned on other
    customers), with each label, with buying, and with all that the customer does until the data ends.
    """
    suspects = [name for name in observations.names if name not in proven]
    if not suspects or not len(observations):
        return {}
    future = _Future(engine, purchases, observations, proven, seed)
    known = {}
    for name in suspects:
        column = observations.features[:, observations.names.index(name)]
        _refuse_negative_age(name, column, observations)
        known[name] = future.refuse(name, column)
    return known


def _refuse_negative_age(name: str, column: npt.NDArray[np.float32], observations: Observations) -> None:
    if "days_since" not in name or not (column < 0).any():
        return
    row = int(np.argmax(column < 0))
    raise FeatureLeak(
        f"{name} is {column[row]:g} for customer {observations.customer_id[row]} as of {observations.as_of[row]}: it counts "
        f"the days since something that had not happened yet. {WAY_OUT}"
    )


class _Future:
    """What happened from as_of on in a sample of the observations, and what of it the proven columns do not tell."""

    def __init__(
        self, engine: Backend, purchases: ir.Table, observations: Observations, proven: Sequence[str], seed: int
    ) -> None:
        self.rows = _earlier_rows(observations, seed)
        self._as_of = observations.as_of[self.rows]
        ids = observations.customer_id[self.rows]
        customers, number = np.unique(ids, return_inverse=True)
        self._n_customers = len(customers)
        self._fold = np.random.default_rng(seed).permutation(len(customers))[number] % FOLDS
        places = np.array([observations.names.index(name) for name in proven], dtype=np.intp)
        told = observations.features[self.rows][:, places]
        self._given = _scaled(np.column_stack([self._ranks(told), np.isnan(told) - np.isnan(told).mean(axis=0)]))
        outcomes = {f"the label {name}": spend[self.rows] for name, spend in observations.spend.items()}
        outcomes["buying at all"] = observations.bought[self.rows]
        outcomes |= _later(engine, purchases, ids, self._as_of)
        self._names = list(outcomes)
        happened = np.column_stack(list(outcomes.values()))
        self._outcomes, self._positive = self._ranks(happened), happened > 0
        self._unexplained = self._beyond(self._outcomes)
        best = np.abs(_correlations(self._ranks(told), self._outcomes)).max(axis=0, initial=0.0)
        self._best_twin = best
        self._best_auc = np.array([self._auc(self._ranks(told), number) for number in range(len(self._names))])

    def refuse(self, name: str, column: npt.NDArray[np.float32]) -> float:
        """The strongest partial rank correlation of a column (all observations) with an outcome, if it may stay."""
        values = column[self.rows, None]
        missing = np.isnan(values).astype(np.float64)
        ranks = np.column_stack([self._ranks(values), missing - missing.mean()])
        beyond = np.abs(_correlations(self._beyond(ranks), self._unexplained)).max(axis=0)
        # What a proven column tells as well is no secret of the future, as of subscribers who pay the same each month.
        beyond[self._best_twin > NO_SECRET] = 0.0
        most = max(MOST_BEYOND, MOST_BEYOND_NOISE / math.sqrt(max(self._n_customers, 1)))
        worst = int(beyond.argmax())
        if beyond[worst] > most:
            self._raise(
                name, worst, f"partial rank correlation {beyond[worst]:.2f} given all proven columns, limit {most:.2f}"
            )
        twin = np.abs(_correlations(ranks[:, :1], self._outcomes))[0]
        limit = TWIN if self._n_customers >= FEW else TWIN_OF_FEW
        for number in np.flatnonzero((twin > limit) & (twin > self._best_twin + (1 - limit) / 2)).tolist():
            self._raise(name, number, f"rank correlation {twin[number]:.4f}, limit {limit}")
        for number in range(len(self._names) if self._n_customers >= ENOUGH else 0):
            auc = self._auc(ranks[:, :1], number)
            if auc > TELLS_BUYERS and self._best_auc[number] < BUYERS_KNOWN:
                self._raise(name, number, f"AUC {auc:.4f}, limit {TELLS_BUYERS}")
        return round(float(beyond[worst]), 2)

    def _raise(self, name: str, outcome: int, evidence: str) -> None:
        raise FeatureLeak(
            f"{name} cannot be rebuilt by build_features, and as of {self._as_of.min()} to {self._as_of.max()} it knows "
            f"{self._names[outcome]}, which comes on or after as_of ({evidence}; {len(self.rows):,} rows of "
            f"{self._n_customers:,} customers). {WAY_OUT}"
        )

    def _ranks(self, columns: npt.NDArray[Any]) -> FloatArray:
        """Ranks within each day, centred, from -0.5 to 0.5; missing is lowest."""
        filled = np.where(np.isnan(columns), -np.inf, columns.astype(np.float64))
        ranks = np.empty(filled.shape)
        for day in np.unique(self._as_of):
            rows = self._as_of == day
            ranks[rows] = (rankdata(filled[rows], axis=0) - 0.5) / rows.sum() - 0.5
        return ranks

    def _beyond(self, columns: FloatArray) -> FloatArray:
        """What is left of columns after a ridge regression on the proven ones, learned on the other folds' customers."""
        left = columns.copy()
        for fold in range(FOLDS):
            held = self._fold == fold
            given = self._given[~held]
            if len(given) and held.any():
                gram = given.T @ given / len(given) + RIDGE * np.eye(given.shape[1])
                left[held] -= self._given[held] @ np.linalg.solve(gram, given.T @ columns[~held] / len(given))
        return left

    def _auc(self, ranks: FloatArray, outcome: int) -> float:
        """The best AUC of any of the columns, either way round, for whether the outcome is above 0."""
        positive = self._positive[:, outcome]
        if min(positive.sum(), (~positive).sum()) < LEAST_BUYERS or not ranks.shape[1]:
            return 0.5
        return float(0.5 + np.abs(ranks[positive].mean(axis=0) - ranks[~positive].mean(axis=0)).max())


def _earlier_rows(observations: Observations, seed: int) -> npt.NDArray[np.intp]:
    """Rows of some days of the earlier half and a little more."""
    rng = np.random.default_rng(seed)
    days = np.unique(observations.as_of)
    chosen = []
    for day in _spread(days[: max(1, math.ceil(len(days) * 0.6))], JUDGED_DAYS):
        rows = np.flatnonzero(observations.as_of == day)
        chosen.append(np.sort(rng.permutation(rows)[:JUDGED_ROWS]))
    return np.concatenate(chosen)


def _later(
    engine: Backend, purchases: ir.Table, ids: npt.NDArray[np.str_], as_of: npt.NDArray[np.datetime64]
) -> dict[str, FloatArray]:
    """What each customer does from as_of until the data ends: spend, days with a purchase, days to the last of them."""
    number = pa.array(range(len(ids)), pa.int64())
    days = pa.array(as_of.astype("datetime64[D]").astype(object).tolist(), pa.date32())
    asked = ibis.memtable(
        pa.table({"number": number, "customer_id": pa.array(ids.tolist(), pa.string()), "as_of": days})
    )
    bought = purchases.filter(purchases.spend_units > 0).semi_join(asked, "customer_id")
    by_day = bought.group_by("customer_id", "day").aggregate(spend=bought.amount_units.sum())
    later = by_day.join(asked, [by_day.customer_id == asked.customer_id, by_day.day >= asked.as_of])
    ahead = later.day.epoch_days() - later.as_of.epoch_days() + 1
    found = engine.to_pyarrow(
        later.group_by("number").aggregate(
            spend=later.spend.sum().cast("float64") / AMOUNT_SCALE, days=later.count(), last=ahead.max()
        )
    )
    titles = {
        "spend": "the spend until the data ends",
        "days": "the number of later purchases",
        "last": "the day of the last purchase",
    }
    outcomes = {}
    for column, title in titles.items():
        outcomes[title] = np.zeros(len(ids))
        outcomes[title][found["number"].to_numpy()] = found[column].to_numpy()
    return outcomes


def _scaled(columns: FloatArray) -> FloatArray:
    """Columns that vary, each with standard deviation 1."""
    spread = columns.std(axis=0)
    return columns[:, spread > LEAST_SPREAD] / spread[spread > LEAST_SPREAD]


def _correlations(ones: FloatArray, others: FloatArray) -> FloatArray:
    """(columns of ones, columns of others); 0 for a column that does not vary."""
    standard = []
    for columns in (ones, others):
        centred = columns - columns.mean(axis=0)
        length = np.sqrt((centred**2).sum(axis=0))
        standard.append(centred / np.where(length > 1e-9 * math.sqrt(len(centred)), length, np.inf))
    return standard[0].T @ standard[1]
