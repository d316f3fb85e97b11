"""The card's section on what summary numbers alone tell; from JSON values, nothing is computed but differences."""

from collections.abc import Mapping
from typing import Any

from ml_pipeline.card_text import render_number, render_share, render_table
from ml_pipeline.rules import RULE_BY_NAME
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.wording import plain

SPEND = {
    "capped_r2": "capped R²",
    "d2": "D²",
    "normalised_gini": "nGini",
    "decile_mape": "decile MAPE",
    "bias": "bias",
}
BUYING = {"auc": "AUC", "brier": "Brier"}
FORM_TITLES = {
    "eighteen_fields": "eighteen fields (spend of the last days known)",
    "seven_fields": "seven fields (days since the first purchase known)",
    "six_features": "six features (neither)",
}
MODEL_TITLES = {"xgboost": "XGBoost", "lightgbm": "LightGBM", "bg_nbd": "BG/NBD × Gamma-Gamma"}


def summary_section(performance: Mapping[str, Any]) -> str:
    """What each form of a few numbers tells beside the whole history, the best simple rule and the rule of thumb.

    Nothing where the report is of a backtest without a summary model.
    """
    found = performance.get("summary")
    if found is None:
        return ""
    forms = found["forms"]
    return "\n\n".join(
        [
            "## What summary numbers alone tell",
            "Who is described by a few numbers is answered by a model of those numbers: the same features, learned from the "
            "same rows with columns masked at random. The figures are of complete requests of each form on the report windows, "
            "all customers; the first line is what the whole history gives on the same rows, and the difference is what the "
            "missing history costs.",
            render_table(["", *SPEND.values(), *BUYING.values()], _beside(found)),
            "\n".join(f"- **{FORM_TITLES[form]}**: {summary_verdict(each)}" for form, each in forms.items()),
            *_not_learned(found),
            f"Selection: {found['choice']}",
            render_table(
                ["form", "", *SPEND.values(), "score that chose"],
                [row for form, each in forms.items() for row in _candidates(form, each)],
            ),
            "80 % intervals, learned on the selection windows, measured on the report windows (interval score: mean width plus a "
            "fine for what lies outside; lower is better):",
            render_table(
                ["", "covered", "below", "above", "mean width", "interval score"],
                [
                    _interval("the whole history: the full model", performance["intervals"][TOTAL_TARGET]),
                    *(_interval(FORM_TITLES[form], each["interval"]) for form, each in forms.items()),
                ],
            ),
        ]
    )


def summary_verdict(form: Mapping[str, Any]) -> str:
    """What serves a form, and why."""
    rule, left_out = summary_title(form["best_rule"]), _left_out(form)
    if form["selection_advantage"] is None:
        return f"{rule} serves; no model took part.{left_out}"
    margin = f"(score {form['selection_advantage']:+.3f}, bootstrap SD {form['selection_noise']:.3f})"
    if form["beats_best_rule"]:
        serves = summary_title(form["served"])
        return f"{serves} serves; it beat the best rule of the same information ({rule}) {margin}.{left_out}"
    return f"no model beat the best rule of the same information {margin}: {rule} serves.{left_out}"


def _left_out(form: Mapping[str, Any]) -> str:
    """Which models took no part, those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for each in form["candidates"]:
        if each["left_out"] and each["kind"] == "model":
            reasons.setdefault(each["left_out"].rstrip("."), []).append(summary_title(each["name"]))
    return "".join(f" Left out: {', '.join(names)} ({reason})." for reason, names in reasons.items())


def summary_title(name: str) -> str:
    """A rule by its title, a model by its name for people."""
    return RULE_BY_NAME[name].title if name in RULE_BY_NAME else MODEL_TITLES[name]


def _beside(found: Mapping[str, Any]) -> list[list[str]]:
    beside = found["beside"]
    rows = [_row("the whole history: the full model as it serves", beside["full_model"])]
    rows += [
        _row(f"{FORM_TITLES[form]}: {summary_title(each['served'])}", each["figures"])
        for form, each in found["forms"].items()
    ]
    rule = beside["best_rule"]
    rows.append(_row(f"best simple rule of the whole history: {summary_title(rule['name'])}", rule))
    rows.append(_row("the share of buyers as everybody's probability", beside["share_of_buyers"]))
    rows.append(_row("rule of thumb for the probability × mean value of a transaction", beside["heuristic"]))
    return rows


def _row(title: str, figures: Mapping[str, Any]) -> list[str]:
    return [title, *(render_number(figures.get(name)) if name in figures else "" for name in (*SPEND, *BUYING))]


def _not_learned(found: Mapping[str, Any]) -> list[str]:
    names = ", ".join(plain(name) for name in found["inputs_not_learned"])
    return (
        [f"Not learned from by the boosters, since the history is too short to mean anything: {names}."]
        if names
        else []
    )


def _candidates(form: str, found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for each in found["candidates"]:
        if each["metrics"] is not None:
            mark = " ← serves" if each["name"] == found["served"] else ""
            cells = [render_number(each["metrics"][name]) for name in SPEND]
            rows.append(
                [plain(form), f"{summary_title(each['name'])}{mark}", *cells, render_number(each["selection_score"])]
            )
    return rows


def _interval(title: str, found: Mapping[str, Any]) -> list[str]:
    shares = (render_share(found[name]) for name in ("covered", "below", "above"))
    return [title, *shares, *(render_number(found[name]) for name in ("mean_width", "interval_score"))]
