"""What the summary model's backtest says, and what its bundle must know, as plain JSON values.

Of each form: every candidate's figures on the report windows; beside them, on the same rows, the full model's as it serves,
the best simple rule's with the whole history, and the documented rule of thumb's.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import Backtest, learn_probability, pooled
from ml_pipeline.calibration import AS_IT_IS, share_of_buyers
from ml_pipeline.features import AVG_TRANSACTION_VALUE, LIFETIME_SPEND
from ml_pipeline.interval_report import served_probability
from ml_pipeline.intervals import COVERAGE, Intervals, fit_intervals
from ml_pipeline.metrics import interval_score, score_probability, score_spend
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.summary_columns import SUMMARY_INPUTS, FloatArray, Matrix, select_summary, summary_columns
from ml_pipeline.summary_forms import (
    INPUTS_OF_FORM,
    RULE_INPUTS,
    heuristic_probability,
    heuristic_spend,
)
from ml_pipeline.summary_members import MODEL_TYPES
from ml_pipeline.summary_model import CHOICE, FormContest, SummaryModel, random_masks
from ml_pipeline.training_set import Observations, WindowPlan

ALWAYS_SPENT = (LIFETIME_SPEND, AVG_TRANSACTION_VALUE)
SHOWN = ("capped_r2", "d2", "normalised_gini", "decile_mape", "bias", "mae", "rmse")
ByDay = Mapping[date, FloatArray]


def report_summary(
    model: SummaryModel, backtest: Backtest, observations: Observations, targets: Sequence[str]
) -> dict[str, Any]:
    """For backtest.json: how each form was judged, beside what knows more and what knows nothing, on the same rows."""
    days = backtest.plan.report
    return {
        "choice": CHOICE,
        "inputs": list(SUMMARY_INPUTS),
        "inputs_not_learned": list(model.unused),
        "rows": {day.isoformat(): _rows_on(day, observations) for day in days},
        "beside": _beside(backtest, observations, targets),
        "forms": {form: report_form(contest, backtest.plan, observations) for form, contest in model.contests.items()},
    }


def _rows_on(day: date, observations: Observations) -> int:
    rows = observations.on(day)
    return rows.stop - rows.start


def _beside(backtest: Backtest, observations: Observations, targets: Sequence[str]) -> dict[str, Any]:
    """The full model as it serves, the best simple rule of the whole history, the share of buyers, and the rule of thumb."""
    plan = backtest.plan
    matrix = {
        day: select_summary(observations.features[observations.on(day)], observations.names, targets)
        for day in plan.report
    }
    rule = backtest.contests[TOTAL_TARGET].best_rule
    full = {day: backtest.served[day][TOTAL_TARGET] for day in plan.report}
    rows = observations.ended_before(plan.report[0])
    earlier = plan.before(plan.report)
    probability = {day: served_probability(backtest, observations, [day], earlier, rows) for day in plan.report}
    rate = _rate(earlier, observations)
    share = {day: np.full(_rows_on(day, observations), rate) for day in plan.report}
    return {
        "full_model": {
            "name": backtest.contests[TOTAL_TARGET].served.name,
            **_figures({day: full[day] for day in plan.report}, plan, observations),
            **_buying({day: _or_else(told, share[day]) for day, told in probability.items()}, plan, observations),
        },
        "best_rule": {"name": rule.name, **_figures(rule.predicted, plan, observations)},
        "share_of_buyers": _buying(share, plan, observations),
        "heuristic": {
            **_figures({day: heuristic_spend(each) for day, each in matrix.items()}, plan, observations),
            **_buying({day: heuristic_probability(each) for day, each in matrix.items()}, plan, observations),
        },
    }


def _or_else(told: FloatArray | None, otherwise: FloatArray) -> FloatArray:
    return otherwise if told is None else told


def _rate(days: Sequence[date], observations: Observations) -> float:
    return share_of_buyers(pooled(observations.bought, days, observations))


def report_form(contest: FormContest, plan: WindowPlan, observations: Observations) -> dict[str, Any]:
    """One form: what serves, why, its figures on the report windows, its interval's, and every candidate's."""
    candidates = [
        {
            "name": name,
            "kind": "model" if name in MODEL_TYPES else "rule",
            "selection_score": contest.scores.get(name),
            "left_out": contest.left_out.get(name),
            "metrics": _figures(contest.told[name], plan, observations) if name in contest.told else None,
        }
        for name in (*contest.told, *(name for name in (*RULE_INPUTS, *MODEL_TYPES) if name in contest.left_out))
    ]
    probability = _told_probability(contest, plan, observations)
    return {
        "inputs": list(INPUTS_OF_FORM[contest.form]),
        "served": contest.served,
        "serves": list(contest.serves),
        "corrected_by_level": sorted(contest.levels),
        "best_rule": contest.best_rule,
        "beats_best_rule": contest.served in MODEL_TYPES,
        "selection_advantage": contest.advantage,
        "selection_noise": contest.noise,
        "figures": {
            **_figures(contest.told[contest.served], plan, observations),
            **_buying(probability, plan, observations),
        },
        "probability": "classifier, calibrated" if contest.purchase_serves else "share of buyers",
        "interval": _report_interval(contest, probability, plan, observations),
        "candidates": candidates,
    }


def _figures(told: ByDay, plan: WindowPlan, observations: Observations) -> dict[str, Any]:
    """Means over the report windows; None where no window defines a metric."""
    spend = observations.spend[TOTAL_TARGET]
    scored = [score_spend(spend[observations.on(day)], told[day]) for day in plan.report]
    return {name: _mean([each[name] for each in scored]) for name in SHOWN}


def _buying(told: ByDay, plan: WindowPlan, observations: Observations) -> dict[str, Any]:
    """Of buying at all, report windows pooled, as in the card's section on it."""
    found = score_probability(
        pooled(observations.bought, plan.report, observations), np.concatenate([told[day] for day in plan.report])
    )
    return {name: found[name] for name in ("auc", "brier", "log_loss")}


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def _told_probability(
    contest: FormContest, plan: WindowPlan, observations: Observations, learned_on: Sequence[date] | None = None
) -> dict[date, FloatArray]:
    """Probability of buying (n,) on the selection and report windows, calibrated by what came on `learned_on`.

    learned_on: None: on the windows before the report's, so that these are judged by what was known.
    """
    earlier = plan.before(plan.report) if learned_on is None else learned_on
    days = (*plan.selection, *plan.report)
    if not contest.purchase_serves:
        rate = _rate(earlier, observations)
        return {day: np.full(_rows_on(day, observations), rate) for day in days}
    rows = observations.ended_before(plan.report[0]) if learned_on is None else slice(0, len(observations))
    calibration = learn_probability(observations, contest.purchase, earlier, rows) or AS_IT_IS
    return {day: calibration.apply(contest.purchase.raw[day]) for day in days}


def _report_interval(
    contest: FormContest, probability: ByDay, plan: WindowPlan, observations: Observations
) -> dict[str, float | None]:
    """Learned on the selection windows, measured on the report windows; None where what serves was not judged on the former."""
    if not set(contest.told[contest.served]) >= set(plan.selection):
        return dict.fromkeys(("covered", "below", "above", "mean_width", "interval_score"))
    learned = _learn_interval(contest, contest.served, plan.selection, probability, observations)
    predicted = np.concatenate([contest.told[contest.served][day] for day in plan.report])
    chances = np.concatenate([probability[day] for day in plan.report])
    actual = pooled(observations.spend[TOTAL_TARGET], plan.report, observations)
    lower, upper = learned.around(predicted, chances if learned.amounts is not None else None)
    below, above = float((actual < lower).mean()), float((actual > upper).mean())
    return {
        "covered": 1 - below - above,
        "below": below,
        "above": above,
        "mean_width": float((upper - lower).mean()),
        "interval_score": interval_score(actual, lower, upper, COVERAGE),
    }


def _learn_interval(
    contest: FormContest, name: str, days: Sequence[date], probability: ByDay, observations: Observations
) -> Intervals:
    """From what a candidate was wrong by on those of these windows that it was asked for; what serves is told the
    probability of buying too."""
    days = [day for day in days if day in contest.told[name]]
    return fit_intervals(
        pooled(observations.spend[TOTAL_TARGET], days, observations),
        np.concatenate([contest.told[name][day] for day in days]),
        np.concatenate([probability[day] for day in days])
        if name == contest.served and contest.purchase_serves
        else None,
    )


# For the bundle


def summary_content(
    model: SummaryModel, plan: WindowPlan, observations: Observations, targets: Sequence[str]
) -> dict[str, Any]:
    """For a bundle's metadata: columns, members, what is rare, and per form what serves, its probability and its intervals."""
    return {
        "inputs": list(SUMMARY_INPUTS),
        "columns": list(summary_columns(targets)),
        "inputs_not_learned": list(model.unused),
        "members": model.members.as_json(),
        "model_types": list(model.members.model_types),
        "left_out": dict(model.left_out),
        "mean": model.members.mean,
        "least": _least_money(observations),
        "rounds": model.rounds,
        "rows": model.rows,
        "forms": {form: _form_content(contest, model, plan, observations) for form, contest in model.contests.items()},
    }


def _form_content(
    contest: FormContest, model: SummaryModel, plan: WindowPlan, observations: Observations
) -> dict[str, Any]:
    days = (*plan.selection, *plan.report)
    told = _told_probability(contest, plan, observations, plan.origins)
    names = dict.fromkeys((*contest.serves, *(name for name in model.members.model_types if name in contest.told)))
    return {
        "inputs": list(INPUTS_OF_FORM[contest.form]),
        "serves": list(contest.serves),
        "levels": {name: level.as_json() for name, level in contest.levels.items()},
        "probability": _probability_content(contest, plan, observations),
        "intervals": {name: _learn_interval(contest, name, days, told, observations).as_json() for name in names},
    }


def _probability_content(contest: FormContest, plan: WindowPlan, observations: Observations) -> dict[str, Any]:
    rate = _rate(plan.origins, observations)
    if not contest.purchase_serves:
        return {"kind": "rate", "rate": rate}
    calibration = learn_probability(observations, contest.purchase, plan.origins, slice(0, len(observations)))
    return {"kind": "model", "rate": rate, "calibration": calibration.as_json() if calibration else None}


RARE = 0.001
"""Fewer rows than that of those that are learned from make no leaf of a tree: what is said of them is said of others."""


def _least_money(observations: Observations) -> dict[str, float]:
    """The RARE quantile of the money that everybody has spent something of, one of the values; the lowest of few."""
    columns = {name: observations.features[:, observations.names.index(name)] for name in ALWAYS_SPENT}
    known = {name: column[~np.isnan(column)] for name, column in columns.items()}
    return {name: float(np.quantile(column, RARE, method="lower")) for name, column in known.items() if len(column)}


GOLDEN_SEED = 7


def golden_rows(observations: Observations, rows: npt.NDArray[np.int64], targets: Sequence[str]) -> Matrix:
    """Rows of the training as summary rows of every form, to be re-checked when the bundle is loaded; the first is unknown."""
    matrix = select_summary(observations.features[rows], observations.names, targets)
    matrix[~random_masks(len(matrix), targets, GOLDEN_SEED)] = np.nan
    matrix[:1] = np.nan
    return matrix
