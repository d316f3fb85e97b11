"""The plots are drawn from JSON values, the same bytes each time, small, with words on their axes."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ml_pipeline.plots import PANELS, draw_plots, plot_paths, wilson_ends

PROJECT = Path(__file__).resolve().parents[2]
LARGEST = 60_000  # bytes


def made_up(targets):
    """Values of the real shape; `targets` with total and other."""
    tenths = [{"tenth": n, "rows": 100, "predicted": 3.0**n / 50, "actual": 3.1**n / 60} for n in range(1, 11)]
    interval = {"above_by_decile": [n / 100 for n in range(10)], "below_by_decile": [0.0] * 8 + [0.05, 0.09]}
    return {
        "probability": {
            "reliability": [
                {"customers": 100, "predicted": n / 10 + 0.05, "bought": min(n / 9, 1.0)} for n in range(10)
            ]
        },
        "deciles": dict.fromkeys(targets, tenths),
        "intervals": dict.fromkeys(targets, interval),
    }


USUAL = made_up(("total", "electronics", "grocery", "sports", "food_and_drink", "other"))


@pytest.fixture(scope="module")
def drawn():
    return draw_plots(USUAL, "INR")


def words_of(picture):
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture.decode())


def test_the_same_values_give_the_same_bytes_whatever_the_user_set_for_matplotlib(drawn):
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": "another", "axes.linewidth": 3.0}):
        assert draw_plots(USUAL, "INR") == drawn
        assert matplotlib.rcParams["font.size"] == 20


def test_another_process_draws_the_same_bytes(drawn):
    program = (
        "import hashlib; from tests.ml_pipeline.test_plots import USUAL; from ml_pipeline.plots import draw_plots\n"
        "for name, picture in draw_plots(USUAL, 'INR').items(): print(name, hashlib.sha256(picture).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env=environment, capture_output=True, text=True
    )
    expected = [f"{name} {hashlib.sha256(picture).hexdigest()}" for name, picture in drawn.items()]
    assert found.stdout.splitlines() == expected, found.stderr


def test_each_file_is_small_and_says_nothing_of_when_or_by_what_it_was_made(drawn):
    for name, picture in drawn.items():
        assert len(picture) < LARGEST, name
        assert b"dc:date" not in picture
        assert b"Matplotlib v" not in picture


def test_a_changed_value_changes_its_plot_and_no_other(drawn):
    changed = {
        **USUAL,
        "intervals": {**USUAL["intervals"], "total": {"above_by_decile": [0.3] * 10, "below_by_decile": [0.0] * 10}},
    }
    differing = {name for name, picture in draw_plots(changed, "INR").items() if picture != drawn[name]}
    assert differing == {"plots/coverage.svg"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plots/reliability.svg", ["mean predicted probability", "share that bought within 30 days", "customers"]),
        (
            "plots/deciles.svg",
            ["spend in 30 days (INR)", "tenth of prediction, lowest first", "mean actual", "grocery"],
        ),
        ("plots/coverage.svg", ["customers (%)", "above the interval", "below the interval", "food_and_drink"]),
    ],
)
def test_axes_have_titles_and_units_and_lines_have_names(drawn, name, words):
    assert set(words) <= set(words_of(drawn[name]))


def test_the_two_lines_differ_in_mark_and_dash_and_not_only_in_colour(drawn):
    """In grey: one line is dashed and its marks are filled with white."""
    for name in ("plots/deciles.svg", "plots/coverage.svg"):
        assert b"stroke-dasharray" in drawn[name]
        assert re.search(rb"fill: #ffffff; stroke: #(d55e00|0072b2)", drawn[name])


def test_many_targets_go_on_in_further_files():
    targets = ("total", *(f"c{number}" for number in range(PANELS)), "other")
    drawn = draw_plots(made_up(targets), "EUR")
    paths = plot_paths(targets)
    assert paths["deciles"] == ["plots/deciles.svg", "plots/deciles_2.svg"]
    assert sorted(drawn) == sorted(path for kind in paths.values() for path in kind)
    assert {"c5", "other"} <= set(words_of(drawn["plots/coverage_2.svg"]))
    assert "c0" not in words_of(drawn["plots/coverage_2.svg"])


def test_without_named_targets_the_total_is_drawn_alone():
    drawn = draw_plots(made_up(("total", "other")), "EUR")
    assert "total" in words_of(drawn["plots/deciles.svg"])
    assert "other" not in words_of(drawn["plots/deciles.svg"])


def test_what_is_all_zero_and_what_has_few_rows_can_be_drawn():
    nothing = [{"tenth": 10, "rows": 1, "predicted": 0.0, "actual": 0.0}]
    interval = {"above_by_decile": [0.0] * 10, "below_by_decile": [1.0] * 10}
    facts = {
        "probability": {"reliability": [{"customers": 1, "predicted": 0.0, "bought": 0.0}]},
        "deciles": {"total": nothing, "other": nothing},
        "intervals": {"total": interval, "other": interval},
    }
    assert len(draw_plots(facts, "€ $_^{")) == 3


def test_whoever_writes_cards_or_serves_does_not_load_matplotlib():
    program = "import sys, ml_pipeline.model_card, ml_pipeline.predictor; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=PROJECT).returncode == 0


def test_chance_allows_something_at_a_share_of_0_too():
    """The examples of Newcombe 1998 (0 of 20, 81 of 263)."""
    assert wilson_ends(0.0, 20) == (pytest.approx(0.0, abs=1e-12), pytest.approx(0.1611, abs=1e-4))
    assert wilson_ends(81 / 263, 263) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
