"""Everything that docs/trust.md says of one data set, computed from the facts and from what is kept of our runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import pandas as pd

from benchmarks.public_data import FloatArray, PublicDataSet
from benchmarks.scores import mean_scores
from benchmarks.trust_bounds import Bound, Measured, together
from benchmarks.trust_coherence import (
    Agreement,
    Compared,
    Scores,
    agreement_of,
    compare_columns,
    drawn_gains,
    gains_of,
)
from benchmarks.trust_facts import Facts
from benchmarks.trust_intervals import (
    CATEGORY_POINTS,
    Judged,
    Shares,
    empirical_interval,
    interval_score,
    judge_shares,
    outside_by_chance,
    shares_by_decile,
)
from benchmarks.trust_reasons import adjustment_share
from benchmarks.trust_record import PER_CUSTOMER, TrustRecord
from benchmarks.trust_sums import SumCoverage, coverage_of, judged_sums, past_errors, sets_of, with_peer
from ml_pipeline.schema import OTHER_TARGET

POOLED = "all windows"
MEAN_OF_TARGETS = "mean of targets"
BELOW_ONE = Bound(most=1.0, percent=False, strict=True)
SUMS_COVERED = Bound(0.70, 0.92)
WIDTH_RATIO = Bound(most=1.0, percent=False)
NO_LOSS = Bound(least=-0.003, digits=5)
NOBODY = Bound(most=0, percent=False, digits=0)
GAP = Bound(most=0.01, percent=False, digits=4)
ADJUSTED = Bound(most=0.10)


class CustomersMissing(Exception):
    """A customer with purchases before the day has no prediction."""


@dataclass(frozen=True)
class TrustWindow:
    """A window: what came, what we said of the same customers, and the same of the window 30 days before."""

    facts: Facts
    record: TrustRecord
    earlier_facts: Facts
    earlier_record: TrustRecord


@dataclass(frozen=True)
class IntervalRow:
    """The intervals of one column of money over one window or all; scores are means over customers.

    points: what the goal allows more on each side. by_prediction, by_rule: the reference's score, its tenths those of our
    prediction and those of the last 90 days ÷ 3.
    """

    of: str
    windows: str
    points: float
    shares: Shares
    score: float
    by_prediction: float
    by_rule: float

    @property
    def measured(self) -> list[Measured]:
        """Every figure with its goal."""
        return [
            *judge_shares(self.shares, self.points),
            Measured("interval score ÷ by tenths of prediction", BELOW_ONE, (_ratio(self.score, self.by_prediction),)),
            Measured("interval score ÷ by tenths of last 90 days", BELOW_ONE, (_ratio(self.score, self.by_rule),)),
        ]

    @property
    def chance(self) -> tuple[int, int, float]:
        """As `outside_by_chance`."""
        return outside_by_chance(self.shares, self.points)


def _ratio(value: float, of: float) -> float:
    return value / of if of > 0 else float("inf")


@dataclass(frozen=True)
class SumRow:
    """A group of sums; judged: whether a goal is set for it, or it is a part of one."""

    family: str
    of: str
    coverage: SumCoverage
    judged: bool

    @property
    def measured(self) -> list[Measured]:
        """Every figure with its goal."""
        return [
            Measured("covered", SUMS_COVERED, (self.coverage.covered,)),
            Measured("mean relative width ÷ the peer's", WIDTH_RATIO, (self.coverage.ratio,)),
            Measured("mean width in money ÷ the peer's", WIDTH_RATIO, (self.coverage.money_ratio,)),
        ]


@dataclass(frozen=True)
class CoherenceRow:
    """One column's metrics (or their means over targets), means over the windows, before and after.

    noise: SD of each gain, in the same unit, when customers are drawn anew.
    """

    of: str
    before: Scores
    after: Scores
    noise: Mapping[str, float]

    @property
    def gains(self) -> dict[str, float]:
        """By metric, where it is defined; positive is better."""
        return gains_of(self.before, self.after)


@dataclass(frozen=True)
class TrustReport:
    """Of one data set. agreement, sums, coherence, windows: in the order in which they are printed."""

    data_set: PublicDataSet
    windows: Sequence[TrustWindow]
    pipeline: str
    intervals: Sequence[IntervalRow] = ()
    sums: Sequence[SumRow] = ()
    agreement: Agreement = field(default_factory=lambda: Agreement(0, 0, 0))
    coherence: Sequence[CoherenceRow] = ()


def judged_columns(data_set: PublicDataSet, columns: Sequence[str]) -> dict[str, int]:
    """Name -> position of the columns that are judged: without targets, other is the total once more."""
    return {name: index for index, name in enumerate(columns) if data_set.targets or name == "total"}


def aligned(record: TrustRecord, facts: Facts) -> TrustRecord:
    """The record of the facts' customers, in their order. Raises CustomersMissing."""
    rows = pd.Index(record.customer_ids).get_indexer(pd.Index(facts.customer_ids))
    if (rows < 0).any():
        raise CustomersMissing(
            f"{int((rows < 0).sum())} customers with purchases before {facts.day} have no prediction, the first is "
            f"{facts.customer_ids[rows < 0][0]!r}."
        )
    return replace(record, **{name: getattr(record, name)[rows] for name in PER_CUSTOMER})


def report_on(
    data_set: PublicDataSet, windows: Sequence[TrustWindow], earlier: Mapping[date, Sequence[Facts]], pipeline: str
) -> TrustReport:
    """All tables. earlier: for each window's day the windows that ended before it, for the peer of sums."""
    columns = judged_columns(data_set, windows[0].record.columns)
    return TrustReport(
        data_set,
        windows,
        pipeline,
        [row for name, column in columns.items() for row in interval_rows(windows, name, column)],
        [
            row
            for family, stores in (("random sets", False), ("stores", True))
            for row in sum_rows(family, windows, earlier, columns, stores=stores)
        ],
        agreement_of(np.concatenate([window.record.money for window in windows])),
        coherence_rows(windows, columns),
    )


# ---- what is to be reached


@dataclass(frozen=True)
class Item:
    """One line of what is to be reached: what it is of, and the figure."""

    of: str
    measured: Measured


def items(report: TrustReport) -> list[Item]:
    """Everything that has a goal, the same figure of several windows or categories in one line."""
    return [*_interval_items(report), *_sum_items(report), *_coherence_items(report), *_reason_items(report)]


def _interval_items(report: TrustReport) -> list[Item]:
    found = []
    for what, categories in (("total", False), ("categories", True)):
        for when, pooled in (("windows together", True), ("each window", False)):
            rows = [
                row.measured
                for row in report.intervals
                if (row.of != "total") == categories and (row.windows == POOLED) == pooled
            ]
            found += [Item(f"{what}, {when}", together(figures)) for figures in zip(*rows, strict=True)]
    return found


def _sum_items(report: TrustReport) -> list[Item]:
    return [Item(f"sums over {row.family}", measured) for row in report.sums if row.judged for measured in row.measured]


def _coherence_items(report: TrustReport) -> list[Item]:
    agreement = report.agreement
    found = [
        Item("parts and total", Measured("customers with categories over the total", NOBODY, (agreement.over_total,))),
        Item("parts and total", Measured("customers whose parts do not add up", NOBODY, (agreement.not_adding_up,))),
    ]
    groups = {row.of: [row] for row in report.coherence if row.of in ("total", MEAN_OF_TARGETS)}
    groups["each category"] = [row for row in report.coherence if row.of not in groups]
    for of, rows in groups.items():
        gains = tuple(value for row in rows for value in row.gains.values())
        if gains:
            found.append(Item(f"reconciled, {of}", Measured("metrics, change for the better", NO_LOSS, gains)))
    return found


def _reason_items(report: TrustReport) -> list[Item]:
    checks = [window.record.reasons for window in report.windows]
    shares = [np.quantile(adjustment_share(each), 0.95, axis=0, method="higher") for each in checks]
    found = [
        Item(
            "contributions",
            Measured("greatest |sum − served|", GAP, tuple(float(np.abs(each.gap).max()) for each in checks)),
        ),
        Item(
            "contributions",
            Measured("adjustment of total, 95 % quantile", ADJUSTED, tuple(share[0] for share in shares)),
        ),
        Item(
            "contributions",
            Measured("predictions that idle features change", NOBODY, tuple(each.changed for each in checks)),
        ),
    ]
    if report.data_set.targets:
        parts = tuple(value for share in shares for value in share[1:])
        found.insert(2, Item("contributions", Measured("adjustment of categories, 95 % quantile", ADJUSTED, parts)))
    return found


# ---- intervals


def interval_rows(windows: Sequence[TrustWindow], name: str, column: int) -> list[IntervalRow]:
    """One row for all windows, and one for each."""
    points = 0.0 if name == "total" else CATEGORY_POINTS
    groups = {POOLED: list(windows), **{str(window.facts.day): [window] for window in windows}}
    return [_interval_row(name, title, points, group, column) for title, group in groups.items()]


def _interval_row(of: str, title: str, points: float, windows: Sequence[TrustWindow], column: int) -> IntervalRow:
    judged = [_judged(window, column) for window in windows]
    scores = [_scores(window, each, column) for window, each in zip(windows, judged, strict=True)]
    means = [float(np.concatenate(kind).mean()) for kind in zip(*scores, strict=True)]
    return IntervalRow(of, title, points, shares_by_decile(judged), *means)


def _judged(window: TrustWindow, column: int) -> Judged:
    record = window.record
    said = (record.money[:, column], record.lower[:, column], record.upper[:, column])
    return Judged(window.facts.customer_ids, window.facts.actual[:, column], *said)


def _scores(window: TrustWindow, judged: Judged, column: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Of each customer's interval: ours, the reference's by tenths of prediction, and by tenths of the rule."""
    past = window.earlier_facts.actual[:, column]
    by_prediction = empirical_interval(window.earlier_record.money[:, column], past, judged.predicted)
    by_rule = empirical_interval(window.earlier_facts.rule[:, column], past, window.facts.rule[:, column])
    return (
        interval_score(judged.actual, judged.lower, judged.upper),
        interval_score(judged.actual, *by_prediction),
        interval_score(judged.actual, *by_rule),
    )


# ---- sums


def sum_rows(
    family: str,
    windows: Sequence[TrustWindow],
    earlier: Mapping[date, Sequence[Facts]],
    columns: Mapping[str, int],
    *,
    stores: bool,
) -> list[SumRow]:
    """The whole family first, which is judged; then by column, by window and by kind. None without such sets."""
    ours = [
        judged_sums(
            window.facts,
            sets_of(window.facts, stores=stores),
            columns,
            window.record.money,
            window.record.variance,
            window.record.sums,
        )
        for window in windows
    ]
    every = pd.concat(ours, ignore_index=True)
    if every.empty:
        return []
    sums = with_peer(every, {day: past_errors(past, columns, stores=stores) for day, past in earlier.items()})
    groups = [("all", sums, True)]
    for by, order in (("column", "day"), ("day", "day"), ("kind", "customers")):
        if sums[by].nunique() > 1:
            ordered = sums.sort_values(order, kind="stable")
            groups += [(str(each), rows, False) for each, rows in ordered.groupby(by, sort=False)]
    return [SumRow(family, of, coverage_of(rows), judged) for of, rows, judged in groups]


# ---- coherence


def coherence_rows(windows: Sequence[TrustWindow], columns: Mapping[str, int]) -> list[CoherenceRow]:
    """The total, the means over the named targets, each category."""
    targets = [name for name in columns if name not in ("total", OTHER_TARGET)]
    groups = {"total": ["total"], MEAN_OF_TARGETS: targets, **{name: [name] for name in columns if name != "total"}}
    compared = [
        Compared(window.facts.customer_ids, window.facts.actual, window.record.unreconciled, window.record.money)
        for window in windows
    ]
    told = compare_columns(compared, list(columns.values()))
    drawn = drawn_gains(compared, columns, {of: names for of, names in groups.items() if names})
    rows = []
    for of, names in groups.items():
        if names:
            before, after = (mean_scores([told[columns[name]][when] for name in names]) for when in (0, 1))
            rows.append(CoherenceRow(of, before, after, drawn[of]))
    return rows
