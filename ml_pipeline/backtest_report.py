"""What the backtest says, as plain JSON values: every candidate's metrics, rules first, probability and intervals."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import (
    RESAMPLES,
    SELECTION_RULE,
    Backtest,
    Contest,
    learn_probability,
    pooled,
    served_on,
)
from ml_pipeline.calibration import AS_IT_IS, reliability
from ml_pipeline.candidates import RULE
from ml_pipeline.features import DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name
from ml_pipeline.intervals import fit_intervals
from ml_pipeline.metrics import capped_r2, d2, normalised_gini, score_interval, score_probability, score_spend
from ml_pipeline.rules import purchase_heuristic
from ml_pipeline.schema import HORIZON_DAYS
from ml_pipeline.snapshot import money_columns
from ml_pipeline.training_set import Observations

FloatArray = npt.NDArray[np.float64]
Rows = Mapping[date, npt.NDArray[np.bool_]]

ACTIVE_DAYS = 90
NOISY = {"capped_r2": capped_r2, "d2": d2, "normalised_gini": normalised_gini}
"""The metrics whose bootstrap noise is reported, and on which a model is said to hold up."""


def fit_seconds(backtest: Backtest) -> dict[str, dict[str, float]]:
    """Seconds that each model's fits and predictions took on all windows together, per target."""
    return {
        target: {judged.learner.name: judged.seconds for judged in contest.models.values()}
        for target, contest in backtest.contests.items()
    } | {"purchase": {backtest.purchase.learner.name: backtest.purchase.seconds}}


def report_backtest(backtest: Backtest, observations: Observations, targets: Sequence[str]) -> dict[str, Any]:
    """The outcome as plain JSON values: per target every candidate's metrics, rules first; probability; intervals."""
    plan = backtest.plan
    populations = _populations(observations, plan.report)
    return {
        "calibration_days": [day.isoformat() for day in plan.calibration],
        "selection_days": [day.isoformat() for day in plan.selection],
        "report_days": [day.isoformat() for day in plan.report],
        "purge_days": HORIZON_DAYS,
        "selection_rule": SELECTION_RULE,
        "populations": {
            name: {day.isoformat(): int(rows.sum()) for day, rows in days.items()} for name, days in populations.items()
        },
        "targets": {
            target: _report_contest(contest, backtest, observations, populations)
            for target, contest in backtest.contests.items()
        },
        "probability": _report_probability(backtest, observations),
        "intervals": {target: _report_interval(backtest, observations, target) for target in money_columns(targets)},
    }


def _populations(observations: Observations, days: Iterable[date]) -> dict[str, dict[date, npt.NDArray[np.bool_]]]:
    """Who is judged: everyone with a purchase before `as_of`, and of these the ones active in the last 90 days."""
    recent = observations.names.index(transaction_count_name(ACTIVE_DAYS))
    rows = {day: observations.on(day) for day in days}
    return {
        "all": {day: np.ones(each.stop - each.start, dtype=bool) for day, each in rows.items()},
        f"active_{ACTIVE_DAYS}d": {day: observations.features[each, recent] > 0 for day, each in rows.items()},
    }


def _report_contest(
    contest: Contest, backtest: Backtest, observations: Observations, populations: Mapping[str, Rows]
) -> dict[str, Any]:
    def metrics_of(predicted: Mapping[date, FloatArray]) -> dict[str, Any]:
        return {
            name: _mean_metrics(observations.spend[contest.target], predicted, days, observations)
            for name, days in populations.items()
        }

    candidates: list[dict[str, Any]] = [
        {
            "name": candidate.name,
            "kind": candidate.kind,
            "rounds": {
                name: judged.rounds
                for name, judged in contest.models.items()
                if candidate.recipe and judged.learner in candidate.recipe.needs
            },
            "left_out": candidate.left_out,
            "selection_score": contest.scores.get(candidate.name),
            "metrics": metrics_of(candidate.predicted) if candidate.predicted else None,
        }
        for candidate in contest.candidates
    ]
    by_name = {candidate["name"]: candidate for candidate in candidates}
    served, rule = by_name[contest.served.name], by_name[contest.best_rule.name]
    reconciled = {day: backtest.served[day][contest.target] for day in backtest.plan.report}
    return {
        "served": contest.served.name,
        "served_kind": contest.served.kind,
        "best_rule": contest.best_rule.name,
        "beats_best_rule": contest.served.kind != RULE,
        "selection_advantage": contest.advantage,
        "selection_noise": contest.noise,
        "beats_best_rule_on_report": {
            metric: _beats(served["metrics"]["all"], rule["metrics"]["all"], metric) for metric in NOISY
        },
        "reconciled": metrics_of(reconciled),
        "noise": _noise(contest.target, reconciled, contest.best_rule.predicted, observations),
        "candidates": candidates,
    }


def _beats(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> bool:
    """Whether the first is better; a metric that is undefined beats nothing."""
    return one[metric] is not None and (other[metric] is None or one[metric] > other[metric])


def _mean_metrics(
    actual: FloatArray, predicted: Mapping[date, FloatArray], days: Rows, observations: Observations
) -> dict[str, Any]:
    """Means over the windows, with the windows' own values beside them; None where no window defines the metric."""
    scored = {
        day: score_spend(actual[observations.on(day)][rows], predicted[day][rows])
        for day, rows in days.items()
        if rows.any()
    }
    names = next(iter(scored.values())).keys() if scored else ()
    means: dict[str, Any] = {name: _mean([metrics[name] for metrics in scored.values()]) for name in names}
    return {**means, "windows": {day.isoformat(): metrics for day, metrics in scored.items()}}


def _mean(values: Iterable[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _noise(
    target: str, served: Mapping[date, FloatArray], rule: Mapping[date, FloatArray], observations: Observations
) -> dict[str, dict[str, float | None]]:
    """Bootstrap standard deviations on the report windows: of what is served, and of its lead over the best rule.

    The customers of each window are drawn anew, the same for both; figures are of the mean over windows.
    """
    rng = np.random.default_rng(0)
    draws: dict[str, list[list[float]]] = {metric: [[], []] for metric in NOISY}
    for _ in range(RESAMPLES):
        own: dict[str, list[float]] = {metric: [] for metric in NOISY}
        lead: dict[str, list[float]] = {metric: [] for metric in NOISY}
        for day, predicted in served.items():
            actual = observations.spend[target][observations.on(day)]
            rows = rng.integers(0, len(actual), len(actual))
            for metric, score in NOISY.items():
                ours, theirs = score(actual[rows], predicted[rows]), score(actual[rows], rule[day][rows])
                if ours is not None and theirs is not None:
                    own[metric].append(ours)
                    lead[metric].append(ours - theirs)
        for metric in NOISY:
            if own[metric]:
                draws[metric][0].append(float(np.mean(own[metric])))
                draws[metric][1].append(float(np.mean(lead[metric])))
    return {
        metric: {
            name: float(np.std(values, ddof=1)) if len(values) > 1 else None
            for name, values in zip(("own", "lead"), pair, strict=True)
        }
        for metric, pair in draws.items()
    }


def _report_probability(backtest: Backtest, observations: Observations) -> dict[str, Any]:
    """Calibrated on the windows before, measured on the report windows, beside what is simpler."""
    plan = backtest.plan
    earlier = plan.before(plan.report)
    rate = float(pooled(observations.bought, earlier, observations).mean())
    outcome = pooled(observations.bought, plan.report, observations)
    history = np.concatenate([observations.features[observations.on(day)] for day in plan.report])
    heuristic = purchase_heuristic(
        history[:, observations.names.index(DAYS_SINCE_LAST)],
        history[:, observations.names.index(TOTAL_TRANSACTIONS)],
    )
    result: dict[str, Any] = {
        "rate": score_probability(outcome, np.full(len(outcome), rate)),
        "heuristic": score_probability(outcome, heuristic),
    }
    if backtest.purchase.raw:
        raw = np.concatenate([backtest.purchase.raw[day] for day in plan.report])
        rows = observations.ended_before(plan.report[0])
        calibration = learn_probability(observations, backtest.purchase, earlier, rows) or AS_IT_IS
        served = calibration.apply(raw)
        result["uncalibrated"] = score_probability(outcome, raw)
        result["served"] = {"name": backtest.purchase.learner.name, **score_probability(outcome, served)}
    else:
        served = np.full(len(outcome), rate)
        result["served"] = {"name": "rate", "why": backtest.purchase.left_out, **result["rate"]}
    result["reliability"] = reliability(served, outcome)
    return result


def _report_interval(backtest: Backtest, observations: Observations, target: str) -> dict[str, Any]:
    """Learned on the selection windows, measured on the report windows."""
    selection, report = backtest.plan.selection, backtest.plan.report
    intervals = fit_intervals(
        pooled(observations.spend[target], selection, observations), served_on(backtest, selection, target)
    )
    predicted = served_on(backtest, report, target)
    return score_interval(
        pooled(observations.spend[target], report, observations), predicted, *intervals.around(predicted)
    )
