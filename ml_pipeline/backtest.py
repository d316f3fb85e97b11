"""The time-honest contest: every candidate predicts windows that it has not seen, beside the simple rules.

For each origin (first day of a judged window) a candidate is fitted on rows whose label window ended before it. The
winner of a target is chosen on the selection windows alone and reported on later ones.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.isotonic import IsotonicRegression

from ml_pipeline.errors import LabelOverlap
from ml_pipeline.features import transaction_count_name
from ml_pipeline.intervals import fit_intervals
from ml_pipeline.learners import LEARNERS, MONEY, PROBABILITY, Effort, Fold, Learner, LightGBMLearner
from ml_pipeline.metrics import capped_r2, d2, normalised_gini, rmse, score_interval, score_probability, score_spend
from ml_pipeline.progress import Stage
from ml_pipeline.reconcile import reconcile_parts
from ml_pipeline.rules import RULES, spend_history
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.snapshot import money_columns
from ml_pipeline.training_set import Observations, WindowPlan

FloatArray = npt.NDArray[np.float64]

RULE, MODEL = "rule", "model"
PURCHASE_LEARNER: Learner = LightGBMLearner()
ACTIVE_DAYS = 90
RESAMPLES = 40
NOISE_MARGIN = 2.0
SELECTION_RULE = (
    "A candidate's score is capped R² + D² + normalised Gini, averaged over the selection windows (undefined counts 0); "
    "of equal scores the lower RMSE decides. "
    "The model with the highest score serves if it beats the best rule on the same rows by more than "
    f"{NOISE_MARGIN:g} bootstrap standard deviations of their difference ({RESAMPLES} paired resamples of customers); "
    "else the best rule serves."
)
PROBABILITY_FLOOR = 0.001  # nobody is certain to buy, nobody certain not to


@dataclass
class Candidate:
    """One way to predict one target: its numbers on every judged window (origin -> (n,)) and what they cost."""

    name: str
    kind: str
    predicted: dict[date, FloatArray] = field(default_factory=dict)
    rounds: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Contest:
    """All candidates of one target, rules first, and which of them serves.

    advantage: the best model's score minus the best rule's; noise: its bootstrap standard deviation; None without models.
    """

    target: str
    candidates: tuple[Candidate, ...]
    scores: Mapping[str, float]
    served: Candidate
    best_rule: Candidate
    advantage: float | None
    noise: float | None


@dataclass(frozen=True)
class PurchaseModel:
    """The purchase classifier on the judged windows: raw scores and what they become when calibrated.

    fitted: False when only one outcome was seen, so that the rate serves.
    """

    scores: Mapping[date, FloatArray]
    rounds: int
    fitted: bool


@dataclass(frozen=True)
class Backtest:
    """The outcome: a contest per target, the served numbers after reconciliation, and the purchase classifier."""

    plan: WindowPlan
    contests: Mapping[str, Contest]
    served: Mapping[date, Mapping[str, FloatArray]]
    purchase: PurchaseModel


def run_backtest(
    observations: Observations, plan: WindowPlan, targets: Sequence[str], effort: Effort, stage: Stage
) -> Backtest:
    """Fits and judges every candidate of every target, and the purchase classifier.

    `stage` advances once per fit (`count_fits`). Raises LabelOverlap when a fold's labels reach into a judged window.
    """
    for origin in (plan.stopping, *plan.origins):
        refuse_overlap(observations, observations.ended_before(origin), origin)
    contests = {
        target: _contest(observations, plan, targets, target, effort, stage) for target in money_columns(targets)
    }
    purchase = _judge_purchase(observations, plan, effort, stage)
    served = {
        origin: reconcile_served(
            {target: contest.served.predicted[origin] for target, contest in contests.items()},
            usual_shares(observations, observations.ended_before(origin), targets),
        )
        for origin in plan.origins
    }
    return Backtest(plan, contests, served, purchase)


def count_fits(plan: WindowPlan, targets: Sequence[str]) -> int:
    """How often `run_backtest` advances its stage."""
    return (len(targets) + 1) * len(LEARNERS) * (1 + len(plan.origins)) + 1 + len(plan.origins)


def refuse_overlap(observations: Observations, rows: slice, origin: date) -> None:
    """Raises LabelOverlap when any of these training rows has a label that reaches to `origin` or beyond."""
    days = observations.as_of[rows]
    if len(days) and days.max() + np.timedelta64(HORIZON_DAYS, "D") > np.datetime64(origin):
        raise LabelOverlap(
            f"Training rows as of {days.max()} have labels until {days.max() + np.timedelta64(HORIZON_DAYS - 1, 'D')}, "
            f"which reaches into the window judged from {origin}: purge rows later than {origin - timedelta(days=HORIZON_DAYS)}."
        )


def reconcile_served(predicted: Mapping[str, FloatArray], shares: FloatArray) -> dict[str, FloatArray]:
    """Served predictions of total and parts (n,) each, with the parts scaled to the total; all ≥ 0."""
    names = [name for name in predicted if name != TOTAL_TARGET]
    total = np.maximum(predicted[TOTAL_TARGET], 0.0)
    parts = np.column_stack([np.maximum(predicted[name], 0.0) for name in names])
    agreed = reconcile_parts(total, parts, shares)
    return {TOTAL_TARGET: total, **{name: agreed[:, index] for index, name in enumerate(names)}}


def usual_shares(observations: Observations, rows: slice, targets: Sequence[str]) -> FloatArray:
    """Each part's share (targets, then other) of all spend in these rows; equal shares when nothing was spent."""
    sums = np.array([observations.spend[name][rows].sum() for name in money_columns(targets)[1:]])
    return sums / sums.sum() if sums.sum() > 0 else np.full(len(sums), 1 / len(sums))


def _contest(
    observations: Observations, plan: WindowPlan, targets: Sequence[str], target: str, effort: Effort, stage: Stage
) -> Contest:
    candidates = _judge_rules(observations, plan, targets, target)
    if target != OTHER_TARGET:
        candidates += [_judge_learner(learner, observations, plan, target, effort, stage) for learner in LEARNERS]
    judged = [candidate for candidate in candidates if candidate.predicted]
    scores = {candidate.name: _selection_score(candidate, observations, plan, target) for candidate in judged}

    def rank(candidate: Candidate) -> tuple[float, float]:
        """Where everybody spends the same no score is defined, and the first rule (zero) must not win by its place."""
        return scores[candidate.name], -_selection_rmse(candidate, observations, plan, target)

    best_rule = max((c for c in judged if c.kind == RULE), key=rank)
    best_model = max((c for c in judged if c.kind == MODEL), key=rank, default=None)
    if best_model is None:
        return Contest(target, tuple(candidates), scores, best_rule, best_rule, None, None)
    advantage = scores[best_model.name] - scores[best_rule.name]
    noise = _score_noise(best_model, best_rule, observations, plan, target, effort.seed)
    served = best_model if advantage > NOISE_MARGIN * noise else best_rule
    return Contest(target, tuple(candidates), scores, served, best_rule, advantage, noise)


def _judge_rules(observations: Observations, plan: WindowPlan, targets: Sequence[str], target: str) -> list[Candidate]:
    candidates = [Candidate(rule.name, RULE) for rule in RULES]
    for origin in plan.origins:
        mean = float(observations.spend[target][observations.ended_before(origin)].mean())
        history = spend_history(observations.features[observations.on(origin)], observations.names, targets, target)
        for candidate, rule in zip(candidates, RULES, strict=True):
            candidate.predicted[origin] = rule.predict(history, mean)
    return candidates


def _judge_learner(
    learner: Learner, observations: Observations, plan: WindowPlan, target: str, effort: Effort, stage: Stage
) -> Candidate:
    started = time.perf_counter()
    labels = observations.spend[target]
    predicted, rounds = _fit_and_predict(
        learner, observations, labels, plan, effort, MONEY, f"{target}: {learner.name}", stage
    )
    return Candidate(learner.name, MODEL, predicted, rounds, round(time.perf_counter() - started, 2))


def _judge_purchase(observations: Observations, plan: WindowPlan, effort: Effort, stage: Stage) -> PurchaseModel:
    scores, rounds = _fit_and_predict(
        PURCHASE_LEARNER, observations, observations.bought, plan, effort, PROBABILITY, "purchase probability", stage
    )
    return PurchaseModel(scores, rounds or 0, bool(scores))


def _fit_and_predict(
    learner: Learner,
    observations: Observations,
    labels: FloatArray,
    plan: WindowPlan,
    effort: Effort,
    kind: str,
    doing: str,
    stage: Stage,
) -> tuple[dict[date, FloatArray], int | None]:
    """Rounds by early stopping, then one fit per origin; nothing at all when a fold holds nothing to learn."""
    folds = [observations.ended_before(day) for day in (plan.stopping, *plan.origins)]
    if not all(can_learn(labels[rows], kind) for rows in (*folds, observations.on(plan.stopping))):
        for _ in folds:
            stage.advance(doing)
        return {}, None

    def fold(rows: slice) -> Fold:
        return Fold(observations.features[rows], labels[rows])

    rounds = None
    if learner.stops_early:
        stage.doing(doing)
        stopped = learner.fit(
            fold(folds[0]), observations.names, effort, kind=kind, validation=fold(observations.on(plan.stopping))
        )
        rounds = stopped.rounds
    stage.advance(doing)
    predicted = {}
    for origin, rows in zip(plan.origins, folds[1:], strict=True):
        fitted = learner.fit(fold(rows), observations.names, effort, kind=kind, rounds=rounds)
        judged = observations.features[observations.on(origin)]
        predicted[origin] = np.maximum(fitted.member.predict(judged, effort.threads), 0.0)
        stage.advance(doing)
    return predicted, rounds


def can_learn(labels: FloatArray, kind: str) -> bool:
    """Whether there is anything to learn: money that was spent, or both outcomes of buying."""
    return bool(len(labels)) and bool(labels.max() > 0) and (kind == MONEY or bool(labels.min() == 0))


def _selection_score(candidate: Candidate, observations: Observations, plan: WindowPlan, target: str) -> float:
    labels = observations.spend[target]
    return float(np.mean([_score(labels[observations.on(day)], candidate.predicted[day]) for day in plan.selection]))


def _selection_rmse(candidate: Candidate, observations: Observations, plan: WindowPlan, target: str) -> float:
    labels = observations.spend[target]
    return float(np.mean([rmse(labels[observations.on(day)], candidate.predicted[day]) for day in plan.selection]))


def _score(actual: FloatArray, predicted: FloatArray) -> float:
    parts = (capped_r2(actual, predicted), d2(actual, predicted), normalised_gini(actual, predicted))
    return sum(part or 0.0 for part in parts)


def _score_noise(
    one: Candidate, other: Candidate, observations: Observations, plan: WindowPlan, target: str, seed: int
) -> float:
    """Standard deviation of the difference of two scores when the customers of each window are drawn anew.

    Paired bootstrap (Efron & Tibshirani 1993, chapter 16): both candidates are judged on the same draw.
    """
    rng = np.random.default_rng(seed)
    labels = observations.spend[target]
    differences = np.zeros(RESAMPLES)
    for day in plan.selection:
        actual = labels[observations.on(day)]
        for resample in range(RESAMPLES):
            rows = rng.integers(0, len(actual), len(actual))
            gained = _score(actual[rows], one.predicted[day][rows]) - _score(actual[rows], other.predicted[day][rows])
            differences[resample] += gained / len(plan.selection)
    return float(differences.std(ddof=1))


# What the backtest says, as JSON


def fit_seconds(backtest: Backtest) -> dict[str, dict[str, float]]:
    """Seconds that each model's fits and predictions took on all windows together, per target."""
    return {
        target: {candidate.name: candidate.seconds for candidate in contest.candidates if candidate.kind == MODEL}
        for target, contest in backtest.contests.items()
    }


def report_backtest(backtest: Backtest, observations: Observations, targets: Sequence[str]) -> dict[str, Any]:
    """The outcome as plain JSON values: per target every candidate's metrics, rules first; probability; intervals."""
    plan = backtest.plan
    populations = _populations(observations, plan.report)
    return {
        "selection_days": [day.isoformat() for day in plan.selection],
        "report_days": [day.isoformat() for day in plan.report],
        "stopping_day": plan.stopping.isoformat(),
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
    contest: Contest,
    backtest: Backtest,
    observations: Observations,
    populations: Mapping[str, Mapping[date, npt.NDArray[np.bool_]]],
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
            "rounds": candidate.rounds,
            "selection_score": contest.scores.get(candidate.name),
            "metrics": metrics_of(candidate.predicted) if candidate.predicted else None,
        }
        for candidate in contest.candidates
    ]
    by_name = {candidate["name"]: candidate for candidate in candidates}
    served, rule = by_name[contest.served.name], by_name[contest.best_rule.name]
    return {
        "served": contest.served.name,
        "served_kind": contest.served.kind,
        "best_rule": contest.best_rule.name,
        "beats_best_rule": contest.served.kind == MODEL,
        "selection_advantage": contest.advantage,
        "selection_noise": contest.noise,
        "beats_best_rule_on_report": {
            metric: _beats(served["metrics"]["all"], rule["metrics"]["all"], metric) for metric in ("capped_r2", "d2")
        },
        "reconciled": metrics_of({day: backtest.served[day][contest.target] for day in backtest.plan.report}),
        "candidates": candidates,
    }


def _beats(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> bool:
    """Whether the first is better; a metric that is undefined beats nothing."""
    return one[metric] is not None and (other[metric] is None or one[metric] > other[metric])


def _mean_metrics(
    actual: FloatArray,
    predicted: Mapping[date, FloatArray],
    days: Mapping[date, npt.NDArray[np.bool_]],
    observations: Observations,
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


def _report_probability(backtest: Backtest, observations: Observations) -> dict[str, Any]:
    """Calibrated on the selection windows, measured on the report windows, beside the plain share of buyers."""
    selection, report = backtest.plan.selection, backtest.plan.report
    rate = float(pooled(observations.bought, selection, observations).mean())
    outcome = pooled(observations.bought, report, observations)
    result: dict[str, Any] = {"rate": score_probability(outcome, np.full(len(outcome), rate))}
    if backtest.purchase.fitted:
        calibration = calibrate(
            np.concatenate([backtest.purchase.scores[day] for day in selection]),
            pooled(observations.bought, selection, observations),
        )
        scores = np.concatenate([backtest.purchase.scores[day] for day in report])
        calibrated = np.interp(scores, calibration["score"], calibration["probability"])
        result["served"] = {"name": PURCHASE_LEARNER.name, **score_probability(outcome, calibrated)}
    else:
        result["served"] = {"name": "rate", **result["rate"]}
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


def pooled(labels: FloatArray, days: Sequence[date], observations: Observations) -> FloatArray:
    """Labels (n,) of several windows, one behind the other."""
    return np.concatenate([labels[observations.on(day)] for day in days])


def served_on(backtest: Backtest, days: Sequence[date], target: str) -> FloatArray:
    """Served, reconciled predictions (n,) of several windows, one behind the other."""
    return np.concatenate([backtest.served[day][target] for day in days])


def calibrate(scores: FloatArray, outcome: FloatArray) -> dict[str, list[float]]:
    """Isotonic calibration as the corners of a line: score -> probability, ascending, kept off 0 and 1.

    Zadrozny & Elkan 2002, by scikit-learn.
    """
    isotonic = IsotonicRegression(y_min=PROBABILITY_FLOOR, y_max=1 - PROBABILITY_FLOOR, out_of_bounds="clip")
    isotonic.fit(scores, outcome)
    return {"score": isotonic.X_thresholds_.tolist(), "probability": isotonic.y_thresholds_.tolist()}
