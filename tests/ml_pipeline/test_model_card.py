"""What the card says in words, from small made-up facts, and that endpoint and metadata say all of it."""

import copy
import json
import re
import shutil

import pytest

from ml_pipeline.bundle import versions_dir
from ml_pipeline.card_sections import intervals_section, reconciliation_section, subgroups_section, tried_section
from ml_pipeline.card_text import render_number, render_table
from ml_pipeline.model_card import METRIC_TITLES, beside_card, candidate_rows, verdict_of, write_model_card
from ml_pipeline.promotion import promote
from tests.conftest import ListQueue

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
        "served, total and parts made to agree",
    ]
    assert all(len(row) == 1 + len(METRIC_TITLES) for row in rows)


def test_a_population_that_nobody_belongs_to_gives_dashes():
    nobody = contest(candidates=[candidate("zero", "rule", {})], served="zero")
    assert [set(row[1:]) for row in candidate_rows(nobody, "active_90d")] == [{"–"}, {"–"}]


def test_every_method_of_making_total_and_parts_agree_is_in_the_card_and_the_served_one_is_marked():
    metrics = {target: {"capped_r2": 0.5, "d2": 0.4, "bias": None} for target in ("total", "grocery")}
    gains = {"total": -0.00123, "grocery": 0.01}
    tried = {"selection_gains": gains, "report_gains": gains, "metrics": metrics}
    found = {"method": "bottom_up", "why": "Because.", "rule": "The rule.", "before": metrics}
    text = reconciliation_section({"reconciliation": {**found, "tried": {"top_down": tried, "bottom_up": tried}}})
    assert "Served: bottom up. Because." in text
    rows = [line for line in text.splitlines() if line.startswith(("| total", "| grocery"))]
    assert [row.split(" | ")[1] for row in rows] == ["before", "top down", "bottom up ← serves"] * 2
    assert rows[2].endswith("| -0.12% | -0.12% |")


def test_a_shop_without_named_targets_reads_that_there_is_nothing_to_agree():
    nothing = {"method": "top_down", "why": "There are no named targets.", "rule": "", "before": {}, "tried": {}}
    text = reconciliation_section({"reconciliation": nothing})
    assert text.endswith("There are no named targets.")
    assert "|" not in text


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


# Sections from made-up facts


def test_what_lost_stands_best_first_with_how_far_it_was_behind():
    lost = [
        {"name": "xgboost", "kind": "model", "score": 1.6, "behind": -0.1},
        {"name": "last_90_days_over_3", "kind": "rule", "score": 1.25, "behind": 0.25},
    ]
    left_out = [{"name": "bg_nbd", "why": "nobody came back"}]
    tried = {"served": "hurdle + lightgbm_rate", "score": 1.5, "lost": lost, "left_out": left_out}
    text = tried_section({"tried": {"total": tried, "other": {**tried, "lost": [], "left_out": []}}})
    assert (
        "- **total**, served by hurdle + lightgbm rate (1.500): xgboost (-0.100), last 90 days ÷ 3 (+0.250).\n"
        "  Left out: bg nbd (nobody came back)."
    ) in text
    assert "**other**" not in text, "without named targets the rest is the total itself"


def subgroups(groups, **changed):
    found = {"fewest_customers": 50, "groups": groups, "regions_known": 1.0, "regions_merged": [], **changed}
    return subgroups_section({"subgroups": found, "targets": {"total": {"best_rule": "last_90_days_over_3"}}})


FIGURES = {
    **dict.fromkeys(("share_buying", "below", "above", "covered"), 0.25),
    **dict.fromkeys(("mean_actual", "mean_predicted", "mae", "mean_probability", "auc", "brier"), 0.5),
    **dict.fromkeys(("bias", "bias_error", "capped_r2", "d2", "normalised_gini"), None),
    "best_rule": {"bias": 1.5, "mae": 1.0, "capped_r2": 0.125, "normalised_gini": 0.75},
}


def test_each_group_stands_beside_the_best_rule_and_those_without_figures_say_why():
    everyone = {"title": "everyone", "customers": 1234, "figures": FIGURES}
    few = {"title": "store region A|B", "customers": 3, "figures": None, "why": "fewer than 50 customers"}
    text = subgroups([everyone, few], regions_merged=["C", "D"])
    assert "| everyone | 1,234 | 25.0% | 0.500 | 0.500 | – | – | 0.500 | – | – | – | 1.500 | 0.125 | 0.750 |" in text
    assert "| everyone | 0.500 | 0.500 | 0.500 | 25.0% | 25.0% | 25.0% |" in text
    assert "(last 90 days ÷ 3)" in text
    assert "- store region A|B: fewer than 50 customers" in text
    assert "Put together under other regions: C, D." in text


def test_tenths_that_nobody_is_in_are_not_said_to_be_covered():
    interval = dict.fromkeys(("covered", "below", "above"), 0.0)
    interval |= dict.fromkeys(("interval_score", "empirical_interval_score", "mean_width"), 1.0)
    interval |= {f"{name}_by_decile": [0.0] * 10 for name in ("buying", "below", "above")}
    text = intervals_section(
        {
            "intervals": {"total": {**interval, "sums": None}},
            "deciles": {"total": [{"tenth": tenth} for tenth in (1, 4, 7)]},
            "plots": {"coverage": []},
        }
    )
    table = text[text.index("| tenth | share that spent") : text.index("The worst tenth")]
    assert [line[2] for line in table.splitlines()[2:] if line] == ["1", "4", "7"]


def test_a_shop_without_regions_is_told_so():
    assert "No store region is known" in subgroups([], regions_known=0.0)


def test_a_bar_or_a_line_break_in_a_name_does_not_end_a_cell():
    assert render_table(["", "n"], [["A|B\nC", "1"]]).endswith("| A\\|B C | 1 |")


# The card, the endpoint and the metadata say the same


@pytest.fixture(scope="module")
def told(trained_shop, tmp_path_factory):
    """What GET /model/performance answers for the trained shop."""
    from app import create_app
    from config import load_settings
    from services.bootstrap import build_services

    folder = tmp_path_factory.mktemp("told")
    settings = load_settings({"VAR_DIR": str(folder), "MODELS_DIR": str(trained_shop.models), "LOG_LEVEL": "WARNING"})
    services = build_services(settings, ListQueue(), worker_id="worker-1")
    answer = create_app(services=services).test_client().get("/model/performance")
    services.store.close()
    assert answer.status_code == 200
    return answer.json


def sealed_in(trained_shop):
    return versions_dir(trained_shop.models) / trained_shop.pair.bundle_id


def test_the_sealed_card_can_be_written_from_what_the_endpoint_and_the_metadata_say(told, trained_shop, tmp_path):
    metadata = json.loads((sealed_in(trained_shop) / "metadata.json").read_text())
    write_model_card(tmp_path / "card.md", metadata, told, metadata["targets"])
    assert (tmp_path / "card.md").read_text() == (sealed_in(trained_shop) / "MODEL_CARD.md").read_text()


def leaves(value):
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def as_printed(value):
    """All forms in which the card may show one value."""
    if isinstance(value, bool) or value is None:
        return {"–"}
    if isinstance(value, str):
        forms = {value, value.replace("_", " "), f"`{value}`"}
        return forms | ({f"{float(value):,.2f}"} if re.fullmatch(r"-?\d+(\.\d+)?", value) else set())
    return {render_number(value), f"{value:.1%}", f"{value:+.2%}", f"{value:,.2f}", f"{value:.3f}", f"{value:,}"}


def test_every_figure_of_every_table_of_the_card_is_in_the_json(told, trained_shop):
    """But for the numbers of tenths, and the lead of what serves, which is the difference of two rows above it."""
    metadata = json.loads((sealed_in(trained_shop) / "metadata.json").read_text())
    known = {form for value in leaves([told, metadata]) for form in as_printed(value)} | {"", "–"}
    known |= {str(number) for number in range(1, 11)}
    card = (sealed_in(trained_shop) / "MODEL_CARD.md").read_text()
    rows = [re.split(r"(?<!\\)\|", line)[2:-1] for line in card.splitlines() if is_row_of_figures(line)]
    figures = [cell.strip() for row in rows for cell in row if re.fullmatch(r"[+-]?[\d.,]+%?", cell.strip())]
    assert len(figures) > 500
    assert [figure for figure in figures if figure not in known] == []


def is_row_of_figures(line):
    return line.startswith("| ") and "---" not in line and "served minus the best rule" not in line


def test_every_sentence_on_limits_and_verdicts_is_in_the_json_and_on_the_card(told, trained_shop):
    card = (sealed_in(trained_shop) / "MODEL_CARD.md").read_text()
    assert len(told["limits"]) >= 5
    for sentence in (*told["limits"], *told["how_to_read"]):
        assert f"- {sentence}\n" in card
    for target in ("total", *trained_shop.snapshot.targets):
        assert f"**{target}**: {told['verdicts'][target]}" in card


def test_the_endpoint_documents_every_key_that_it_answers(told):
    from routes.messages import ModelPerformance

    assert set(told) <= set(ModelPerformance.model_fields)
    assert {"subgroups", "deciles", "reconciliation", "tried", "limits", "plots", "currency"} <= set(told)


def test_subgroups_of_the_trained_shop_cover_everyone_once_by_region(told):
    groups = told["subgroups"]["groups"]
    everyone = next(group for group in groups if group["kind"] == "everyone")
    regions = [group for group in groups if group["kind"] == "store region"]
    assert len(regions) >= 3
    assert sum(group["rows"] for group in regions) == everyone["rows"]
    served = told["targets"]["total"]["reconciled"]["all"]
    assert everyone["figures"]["bias"] == pytest.approx(served["bias"], rel=1e-9)
    active = next(group for group in groups if group["name"] == "active_90d")
    of_active = told["targets"]["total"]["reconciled"]["active_90d"]
    assert active["figures"]["mae"] == pytest.approx(of_active["mae"], rel=1e-9)
    interval = told["intervals"]["total"]
    assert everyone["figures"]["above"] == pytest.approx(interval["above"], rel=1e-9)


def test_plots_that_the_card_shows_stand_beside_it_in_the_bundle_and_in_the_models_folder(told, trained_shop):
    shown = [path for paths in told["plots"].values() for path in paths]
    card = (trained_shop.models / "MODEL_CARD.md").read_text()
    assert sorted(re.findall(r"\]\((plots/[^)]*)\)", card)) == sorted(shown)
    for path in shown:
        sealed = (sealed_in(trained_shop) / path).read_bytes()
        assert sealed.startswith(b"<?xml")
        assert (trained_shop.models / path).read_bytes() == sealed
    metadata = json.loads((sealed_in(trained_shop) / "metadata.json").read_text())
    assert set(shown) <= set(metadata["files"])


def test_a_promotion_takes_away_plots_that_it_does_not_have_and_leaves_those_of_others(trained_shop, tmp_path):
    models = tmp_path / "models"
    shutil.copytree(trained_shop.models, models)
    enhanced = models / "model_metadata_enhanced.json"
    content = json.loads(enhanced.read_text())
    enhanced.write_text(json.dumps({**content, "plots": [*content["plots"], "plots/deciles_2.svg"]}))
    for name in ("deciles_2.svg", "mine.svg"):
        (models / "plots" / name).write_text("<svg/>")
    promote(models, trained_shop.pair)
    assert sorted(path.name for path in (models / "plots").iterdir()) == [
        "coverage.svg",
        "deciles.svg",
        "mine.svg",
        "reliability.svg",
    ]
