"""What the backtest says, as plain JSON values: every candidate's metrics, rules first; probability, intervals, subgroups."""

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
from ml_pipeline.calibration import AS_IT_IS, reliability, share_of_buyers
from ml_pipeline.candidates import RULE
from ml_pipeline.features import DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name
from ml_pipeline.interval_report import JudgedIntervals, judge_intervals, report_intervals
from ml_pipeline.metrics import (
    bias,
    capped_r2,
    d2,
    decile_mape,
    decile_of,
    exceeding_share,
    normalised_gini,
    score_probability,
    score_spend,
)
from ml_pipeline.reconciliation_report import report_reconciliation
from ml_pipeline.rules import purchase_heuristic
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.snapshot import money_columns
from ml_pipeline.subgroups import Regions, ReportedRows, group_by_activity, report_subgroups
from ml_pipeline.training_set import Observations

FloatArray = npt.NDArray[np.float64]
Rows = Mapping[date, npt.NDArray[np.bool_]]

ACTIVE_DAYS = 90
ACTIVE = f"active_{ACTIVE_DAYS}d"
HELD = ("capped_r2", "d2", "normalised_gini")
"""The metrics on which a model is said to hold up, the higher the better."""
NOISY = {
    "capped_r2": capped_r2,
    "d2": d2,
    "normalised_gini": normalised_gini,
    "decile_mape": decile_mape,
    "bias": bias,
}
"""The metrics whose bootstrap noise is reported."""


def fit_seconds(backtest: Backtest) -> dict[str, dict[str, float]]:
    """Seconds that each model's fits and predictions took on all windows together, per target.

    The first booster of a library to learn from some rows also bins them for the others.
    """
    return {
        target: {judged.learner.name: judged.seconds for judged in contest.models.values()}
        for target, contest in backtest.contests.items()
    } | {"purchase": {backtest.purchase.learner.name: backtest.purchase.seconds}}


def report_backtest(
    backtest: Backtest, observations: Observations, targets: Sequence[str], regions: Regions | None = None
) -> dict[str, Any]:
    """The outcome as plain JSON values: per target every candidate's metrics, rules first; probability; intervals.

    regions: of the store that each customer uses most (`subgroups.find_regions`), on the report windows.
    """
    plan = backtest.plan
    populations = _populations(observations, plan.report)
    active = populations[ACTIVE]
    told = _probabilities(backtest, observations)
    intervals = judge_intervals(backtest, observations, targets)
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
        "categories_exceed_total": {
            name: _report_exceeding(backtest, rows, targets) for name, rows in populations.items()
        },
        "tried": {target: _report_tried(contest) for target, contest in backtest.contests.items()},
        "reconciliation": report_reconciliation(backtest.agreement, money_columns(targets)),
        "deciles": {target: _report_deciles(backtest, observations, target) for target in money_columns(targets)},
        "probability": _report_probability(backtest, observations, populations, told),
        "intervals": report_intervals(intervals, backtest, observations, active),
        "subgroups": report_subgroups(_reported_rows(backtest, observations, told["served"], regions, intervals)),
    }


def _populations(observations: Observations, days: Iterable[date]) -> dict[str, dict[date, npt.NDArray[np.bool_]]]:
    """Who is judged: everyone with a purchase before `as_of`, and of these the ones active in the last 90 days."""
    recent = observations.names.index(transaction_count_name(ACTIVE_DAYS))
    rows = {day: observations.on(day) for day in days}
    return {
        "all": {day: np.ones(each.stop - each.start, dtype=bool) for day, each in rows.items()},
        ACTIVE: {day: observations.features[each, recent] > 0 for day, each in rows.items()},
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
    reconciled = {day: backtest.served[day][contest.target] for day in backtest.plan.report}
    served, rule = metrics_of(reconciled)["all"], metrics_of(contest.best_rule.predicted)["all"]
    return {
        "served": contest.served.name,
        "served_kind": contest.served.kind,
        "best_rule": contest.best_rule.name,
        "beats_best_rule": contest.served.kind != RULE,
        "selection_advantage": contest.advantage,
        "selection_noise": contest.noise,
        "beats_best_rule_on_report": {metric: _beats(served, rule, metric) for metric in HELD},
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

    Customers are drawn anew, the same for both and in all windows (one who is drawn twice counts twice wherever he is),
    for whoever is hard to predict in one window is so in the next; figures are of the mean over windows. How one month
    differs from another is not in it: that is what the windows' own figures show.
    """
    days = list(served)
    customers = np.unique(np.concatenate([observations.customer_id[observations.on(day)] for day in days]))
    places = [np.searchsorted(customers, observations.customer_id[observations.on(day)]) for day in days]
    rng = np.random.default_rng(0)
    draws: dict[str, list[tuple[float, float]]] = {metric: [] for metric in NOISY}
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, len(customers), len(customers)), minlength=len(customers))
        found: dict[str, list[tuple[float, float]]] = {metric: [] for metric in NOISY}
        for day, place in zip(days, places, strict=True):
            rows = np.repeat(np.arange(len(place)), times[place])
            actual = observations.spend[target][observations.on(day)][rows]
            for metric, score in NOISY.items() if len(rows) else ():
                ours, theirs = score(actual, served[day][rows]), score(actual, rule[day][rows])
                if ours is not None and theirs is not None:
                    found[metric].append((ours, ours - theirs))
        for metric, values in found.items():
            if values:
                own, lead = np.mean(values, axis=0)
                draws[metric].append((float(own), float(lead)))
    return {metric: _spread_of(values) for metric, values in draws.items()}


def _spread_of(draws: Sequence[tuple[float, float]]) -> dict[str, float | None]:
    if len(draws) < 2:
        return {"own": None, "lead": None}
    own, lead = np.std(draws, axis=0, ddof=1)
    return {"own": float(own), "lead": float(lead)}


def _report_tried(contest: Contest) -> dict[str, Any]:
    """Every candidate that was judged and does not serve, the highest score first, and those that could not be judged.

    behind: the score of what serves minus its own, on the selection windows; below 0 where it scored more and was not
    preferred (`SELECTION_RULE`).
    """
    best = contest.scores[contest.served.name]
    losers = [each for each in contest.candidates if each.name in contest.scores and each.name != contest.served.name]
    return {
        "served": contest.served.name,
        "score": best,
        "lost": [
            {
                "name": each.name,
                "kind": each.kind,
                "score": contest.scores[each.name],
                "behind": best - contest.scores[each.name],
            }
            for each in sorted(losers, key=lambda candidate: -contest.scores[candidate.name])
        ],
        "left_out": [{"name": each.name, "why": each.left_out} for each in contest.candidates if each.left_out],
    }


def _report_deciles(backtest: Backtest, observations: Observations, target: str) -> list[dict[str, Any]]:
    """By tenth of what is served, lowest first, report windows pooled: rows, mean predicted, mean actual, share spending.

    Tenths that nobody is in (of fewer than ten rows) are left out.
    """
    days = backtest.plan.report
    actual, predicted = pooled(observations.spend[target], days, observations), served_on(backtest, days, target)
    tenths = decile_of(predicted)
    return [
        {
            "tenth": number,
            "rows": int(rows.sum()),
            "predicted": float(predicted[rows].mean()),
            "actual": float(actual[rows].mean()),
            "share_spending": float((actual[rows] > 0).mean()),
        }
        for number in range(1, 11)
        if (rows := tenths == number - 1).any()
    ]


def _reported_rows(
    backtest: Backtest,
    observations: Observations,
    probability: Mapping[date, FloatArray],
    regions: Regions | None,
    intervals: JudgedIntervals,
) -> ReportedRows:
    """What subgroups are measured on: the total, as it is served, on the report windows one behind the other."""
    days = backtest.plan.report
    customer = np.concatenate([observations.customer_id[observations.on(day)] for day in days])
    rule = backtest.contests[TOTAL_TARGET].best_rule.predicted
    lower, upper = intervals.pooled_ends(TOTAL_TARGET, days)
    return ReportedRows(
        customer=customer,
        actual=pooled(observations.spend[TOTAL_TARGET], days, observations),
        predicted=served_on(backtest, days, TOTAL_TARGET),
        rule=np.concatenate([rule[day] for day in days]),
        lower=lower,
        upper=upper,
        bought=pooled(observations.bought, days, observations),
        probability=np.concatenate([probability[day] for day in days]),
        activity=group_by_activity(observations, days),
        region=np.concatenate([regions[day] for day in days]) if regions else np.full(len(customer), ""),
    )


def _report_exceeding(backtest: Backtest, rows: Rows, targets: Sequence[str]) -> dict[str, float | None]:
    """Share of customers whose named categories exceed the total: as served, before the parts are scaled, of best rules."""

    def share(predicted: Mapping[str, Mapping[date, FloatArray]]) -> float | None:
        days = [day for day, chosen in rows.items() if chosen.any()]
        parts = {day: [predicted[name][day][rows[day]] for name in targets] for day in days}
        shares = [
            exceeding_share(predicted[TOTAL_TARGET][day][rows[day]], np.column_stack(parts[day])) if targets else None
            for day in days
        ]
        return _mean(shares)

    names = (TOTAL_TARGET, *targets)
    return {
        "served": share({name: {day: backtest.served[day][name] for day in rows} for name in names}),
        "before_scaling": share({name: backtest.contests[name].served.predicted for name in names}),
        "best_rules": share({name: backtest.contests[name].best_rule.predicted for name in names}),
    }


def _report_probability(
    backtest: Backtest,
    observations: Observations,
    populations: Mapping[str, Rows],
    told: Mapping[str, Mapping[date, FloatArray]],
) -> dict[str, Any]:
    """Calibrated on the windows before, measured on the report windows, beside what is simpler; windows pooled.

    Of everyone, with the reliability table and what is served window by window; under `active_90d` the same measures of
    the customers active in the last 90 days, where there are any.
    """
    days = backtest.plan.report
    outcome = {day: observations.bought[observations.on(day)] for day in days}

    def measure(rows: Rows) -> dict[str, Any]:
        bought = np.concatenate([outcome[day][rows[day]] for day in days])
        return {
            name: score_probability(bought, np.concatenate([by_day[day][rows[day]] for day in days]))
            for name, by_day in told.items()
        }

    result: dict[str, Any] = measure(populations["all"])
    if backtest.purchase_serves:
        result["served"] = {"name": backtest.purchase.learner.name, **result["served"]}
    else:
        why = backtest.purchase.left_out or "the classifier did not tell more on the selection windows"
        result["served"] = {"name": "rate", "why": why, **result["served"]}
    result["windows"] = {day.isoformat(): score_probability(outcome[day], told["served"][day]) for day in days}
    result["reliability"] = reliability(
        np.concatenate([told["served"][day] for day in days]), np.concatenate([outcome[day] for day in days])
    )
    if any(rows.any() for rows in populations[ACTIVE].values()):
        result[ACTIVE] = measure(populations[ACTIVE])
    return result


def _probabilities(backtest: Backtest, observations: Observations) -> dict[str, dict[date, FloatArray]]:
    """Every way to tell who buys, on each report window: what is simpler, the classifier as it is, what is served."""
    plan, purchase = backtest.plan, backtest.purchase
    earlier = plan.before(plan.report)
    rate = share_of_buyers(pooled(observations.bought, earlier, observations))
    since, count = (observations.names.index(name) for name in (DAYS_SINCE_LAST, TOTAL_TRANSACTIONS))
    history = {day: observations.features[observations.on(day)] for day in plan.report}
    told = {
        "rate": {day: np.full(len(rows), rate) for day, rows in history.items()},
        "heuristic": {day: purchase_heuristic(rows[:, since], rows[:, count]) for day, rows in history.items()},
    }
    if not purchase.raw:
        return {**told, "served": told["rate"]}
    rows = observations.ended_before(plan.report[0])
    calibration = learn_probability(observations, purchase, earlier, rows) or AS_IT_IS
    raw = {day: purchase.raw[day] for day in plan.report}
    calibrated = {day: calibration.apply(each) for day, each in raw.items()}
    served = calibrated if backtest.purchase_serves else told["rate"]
    return {**told, "uncalibrated": raw, "calibrated": calibrated, "served": served}
