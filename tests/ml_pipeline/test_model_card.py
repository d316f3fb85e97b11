"""What the card says in words, from small made-up facts: nothing is computed here, so nothing needs to be trained."""

import copy

import pytest

from ml_pipeline.model_card import METRIC_TITLES, beside_card, candidate_rows, render_number, render_table, verdict_of

METRICS = dict.fromkeys(METRIC_TITLES, 0.5)


def candidate(name, kind, metrics=METRICS, left_out=None):
    of_everyone = None if metrics is None else {"all": metrics, "active_90d": metrics}
    return {"name": name, "kind": kind, "metrics": of_everyone, "left_out": left_out}


def contest(**changed):
    facts = {
        "served": "hurdle + lightgbm_rate",
        "best_rule": "last_90_days_over_3",
        "beats_best_rule": True,
        "selection_advantage": 0.123,
        "selection_noise": 0.02,
        "beats_best_rule_on_report": {"capped_r2": True, "d2": True, "normalised_gini": False},
        "reconciled": {"all": METRICS, "active_90d": {}},
        "candidates": [
            candidate("last_90_days_over_3", "rule"),
            candidate("xgboost", "model"),
            candidate("bg_nbd", "model", None, "bg_nbd: nobody came back"),
            candidate("hurdle + lightgbm_rate", "blend"),
        ],
    }
    return {**copy.deepcopy(facts), **changed}


def test_a_model_that_won_is_said_to_hold_up_only_where_it_did():
    text = verdict_of(contest())
    assert text.startswith(
        "hurdle + lightgbm rate beat the best simple rule (last 90 days ÷ 3) on the selection windows"
    )
    assert "(score +0.123, bootstrap SD 0.020) and serves" in text
    assert "it is better on capped R² and D²." in text
    assert "it is **not** better on nGini." in text


def test_where_no_model_won_the_card_says_that_the_rule_serves_and_by_how_little():
    lost = contest(served="last_90_days_over_3", beats_best_rule=False, selection_advantage=-0.01, selection_noise=0.02)
    text = verdict_of(lost)
    assert text == (
        "No model beat the best simple rule (last 90 days ÷ 3) on the selection windows (score -0.010, bootstrap SD "
        "0.020): the rule serves."
    )


def test_where_nothing_could_be_learned_the_card_does_not_speak_of_a_defeat_by_numbers():
    nothing = contest(served="zero", best_rule="zero", beats_best_rule=False, selection_advantage=None)
    assert "there was nothing for a model to learn): the rule serves" in verdict_of(nothing)


def test_the_table_has_rules_first_marks_what_serves_once_and_leaves_out_what_was_not_judged():
    rows = candidate_rows(contest(), "all")
    assert [row[0] for row in rows] == [
        "last 90 days ÷ 3",
        "xgboost",
        "hurdle + lightgbm rate ← serves",
        "served, parts scaled to the total",
    ]
    assert all(len(row) == 1 + len(METRIC_TITLES) for row in rows)


def test_a_population_that_nobody_belongs_to_gives_dashes():
    nobody = contest(candidates=[candidate("zero", "rule", {})], served="zero")
    assert [set(row[1:]) for row in candidate_rows(nobody, "active_90d")] == [{"–"}, {"–"}]


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.12345, "0.123"), (-0.5, "-0.500"), (99.9, "99.900"), (1234567.8, "1,234,568")]
)
def test_numbers_are_short(value, text):
    assert render_number(value) == text


def test_a_table_is_markdown_with_numbers_on_the_right():
    assert render_table(["", "MAE"], [["zero", "1.000"]]) == "|  | MAE |\n| --- | ---: |\n| zero | 1.000 |"


# Beside the card

CEILING = {
    "days": ["2025-12-02"],
    "served": {**METRICS, "capped_r2": 0.45},
    "ceiling": {**METRICS, "capped_r2": 0.5},
    "oracle": {**METRICS, "capped_r2": 0.6},
}


def test_beside_the_card_of_the_sample_stands_what_part_of_the_ceiling_is_reached():
    text = beside_card(None, CEILING)
    assert "What serves reaches 90.0% of the ceiling's capped R²" in text
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "what serves",
        "the best possible given the visible history",
        "the expectation given the hidden truth",
    ]
    assert "Run time" not in text


def test_a_shop_without_a_known_truth_gets_no_word_of_a_ceiling():
    text = beside_card({"total": {"xgboost": 1.25}, "purchase": {"lightgbm_purchase": 0.5}}, None)
    assert "ceiling" not in text
    assert "| xgboost | 1.2 |  |" in text
    assert "| lightgbm purchase |  | 0.5 |" in text
    assert beside_card(None, None) == ""


def test_a_ceiling_of_nothing_does_not_stop_a_promotion():
    """Where all spend the same, capped R² is not defined for anybody."""
    undefined = {name: {**METRICS, "capped_r2": None} for name in ("served", "ceiling", "oracle")}
    text = beside_card(None, {**CEILING, **undefined})
    assert "| the best possible given the visible history | – |" in text
    assert "reaches" not in text
