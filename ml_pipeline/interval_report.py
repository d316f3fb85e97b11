"""What intervals learn from in a backtest, and how well they hold: of one customer and of sums over many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import Backtest, learn_probability, pooled, served_on
from ml_pipeline.calibration import AS_IT_IS
from ml_pipeline.intervals import COVERAGE, TAIL, Intervals, fit_intervals, interval_ends, level_edges
from ml_pipeline.metrics import interval_score, score_interval
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import money_columns
from ml_pipeline.sums import SumIntervals, fit_sums
from ml_pipeline.training_set import Observations

FloatArray = npt.NDArray[np.float64]
Ends = Mapping[str, Mapping[date, tuple[FloatArray, FloatArray]]]
"""Per target and window the lower and upper end of every customer, (n,) each."""

SETS, SMALLEST_SET, LARGEST_SET, SEED = 100, 50, 2_000, 20_240_229
"""Sums are judged over so many sets per window, drawn at random, of so many customers."""


@dataclass(frozen=True)
class LearnedIntervals:
    """Per target: of one customer, and of sums over many."""

    of_one: Mapping[str, Intervals]
    of_sums: Mapping[str, SumIntervals]


def served_probability(
    backtest: Backtest, observations: Observations, days: Sequence[date], learned_on: Sequence[date], rows: slice
) -> FloatArray | None:
    """Probability of buying (n,) on several windows, one behind the other; None where no classifier serves.

    Calibrated by what the classifier was wrong by on `learned_on`, whose level counts as far as `rows` let it.
    """
    if not backtest.purchase_serves:
        return None
    calibration = learn_probability(observations, backtest.purchase, learned_on, rows) or AS_IT_IS
    return calibration.apply(np.concatenate([backtest.purchase.raw[day] for day in days]))


def learn_intervals(
    backtest: Backtest,
    observations: Observations,
    targets: Sequence[str],
    days: Sequence[date],
    probability: FloatArray | None,
) -> LearnedIntervals:
    """From the served predictions of judged windows; probability (n,) belongs to the rows of these days."""
    of_one, of_sums = {}, {}
    for target in money_columns(targets):
        spend = observations.spend[target]
        of_one[target] = fit_intervals(
            pooled(spend, days, observations),
            served_on(backtest, days, target),
            probability if target == TOTAL_TARGET else None,
        )
        of_sums[target] = fit_sums([(spend[observations.on(day)], backtest.served[day][target]) for day in days])
    return LearnedIntervals(of_one, of_sums)


@dataclass(frozen=True)
class JudgedIntervals:
    """What intervals that were learned on the selection windows say of the report windows."""

    learned: LearnedIntervals
    ends: Ends

    def pooled_ends(self, target: str, days: Sequence[date]) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends (n,), (n,) on several windows, one behind the other."""
        lower, upper = (np.concatenate([self.ends[target][day][side] for day in days]) for side in (0, 1))
        return lower, upper


def judge_intervals(backtest: Backtest, observations: Observations, targets: Sequence[str]) -> JudgedIntervals:
    """Intervals of the report windows that know nothing of them."""
    plan, columns = backtest.plan, money_columns(targets)
    earlier, rows = plan.before(plan.report), observations.ended_before(plan.report[0])

    def probability(days: Sequence[date]) -> FloatArray | None:
        return served_probability(backtest, observations, days, earlier, rows)

    learned = learn_intervals(backtest, observations, targets, plan.selection, probability(plan.selection))
    ends: dict[str, dict[date, tuple[FloatArray, FloatArray]]] = {name: {} for name in columns}
    for day in plan.report:
        predicted = np.column_stack([backtest.served[day][name] for name in columns])
        lower, upper = interval_ends(learned.of_one, predicted, probability([day]))
        for index, name in enumerate(columns):
            ends[name][day] = lower[:, index], upper[:, index]
    return JudgedIntervals(learned, ends)


def report_intervals(
    judged: JudgedIntervals,
    backtest: Backtest,
    observations: Observations,
    active: Mapping[date, npt.NDArray[np.bool_]],
) -> dict[str, Any]:
    """Per target: coverage on each side, overall and by decile, interval score beside the empirical quantiles' by decile.

    Under `active_90d` the same of the customers active in the last 90 days, where there are any; under `sums` how many
    sums over random sets of customers were covered.
    """
    days, selection = backtest.plan.report, backtest.plan.selection
    chosen = np.concatenate([active[day] for day in days])
    found: dict[str, Any] = {}
    for target in judged.ends:
        actual = pooled(observations.spend[target], days, observations)
        predicted = served_on(backtest, days, target)
        lower, upper = judged.pooled_ends(target, days)
        past = pooled(observations.spend[target], selection, observations), served_on(backtest, selection, target)
        found[target] = {
            **score_interval(actual, predicted, lower, upper),
            "empirical_interval_score": interval_score(actual, *empirical_ends(*past, predicted), COVERAGE),
            "sums": _report_sums(judged.learned.of_sums[target], backtest, observations, target),
        }
        if chosen.any():
            found[target]["active_90d"] = score_interval(
                actual[chosen], predicted[chosen], lower[chosen], upper[chosen]
            )
    return found


def empirical_ends(actual: FloatArray, predicted: FloatArray, asked: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What a spreadsheet would do: the 10 % and 90 % quantiles of what came, by decile of prediction; (n,), (n,)."""
    edges = np.array(level_edges(predicted))
    level, wanted = (np.searchsorted(edges, values, side="right") for values in (predicted, asked))
    quantiles = [np.quantile(actual[level == each], (TAIL, 1 - TAIL)) for each in range(len(edges) + 1)]
    ends = np.array(quantiles)[wanted]
    return ends[:, 0], ends[:, 1]


def _report_sums(
    sums: SumIntervals, backtest: Backtest, observations: Observations, target: str
) -> dict[str, Any] | None:
    """None where a window has too few customers to draw sets from."""
    rng = np.random.default_rng(SEED)
    below, above, widths = [], [], []
    for day in backtest.plan.report:
        actual, predicted = observations.spend[target][observations.on(day)], backtest.served[day][target]
        if len(actual) <= SMALLEST_SET:
            return None
        variance = sums.variance(predicted)
        for _ in range(SETS):
            most = min(LARGEST_SET, len(actual))
            size = int(np.exp(rng.uniform(np.log(SMALLEST_SET), np.log(most))))
            rows = rng.choice(len(actual), size, replace=False)
            point, lower, upper = sums.around(predicted[rows], variance[rows])
            came = float(actual[rows].sum())
            below.append(came < lower)
            above.append(came > upper)
            widths.append((upper - lower) / point if point > 0 else 0.0)
    return {
        "sets": len(below),
        "below": float(np.mean(below)),
        "above": float(np.mean(above)),
        "covered": float(1 - np.mean(below) - np.mean(above)),
        "mean_relative_width": float(np.mean(widths)),
        "common": sums.common,
    }
