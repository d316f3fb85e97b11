"""The card's section on summary numbers, read as a sceptic would: every number beside what knows more and what knows less."""

import numpy as np
import pytest

from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.summary_card import FORM_TITLES, summary_section


@pytest.fixture(scope="module")
def tables(trained_shop):
    """The section's tables, each by the first cell of its rows: lists of the other cells."""
    section = summary_section(trained_shop.report)
    found = [block for block in section.split("\n\n") if block.startswith("| ")]
    lines = [[[cell.strip() for cell in line[1:-1].split(" | ")] for line in block.splitlines()] for block in found]
    return [{cells[0]: cells[1:] for cells in table} for table in lines]


def test_the_forms_stand_between_the_full_model_and_what_knows_next_to_nothing(tables):
    beside = tables[0]
    titles = list(beside)[2:]
    assert "full model" in titles[0]
    assert all(title.startswith(FORM_TITLES[form]) for form, title in zip(FORM_TITLES, titles[1:4], strict=True))
    assert [title.split(":")[0].split(" for ")[0] for title in titles[4:]] == [
        "best simple rule of the whole history",
        "the share of buyers as everybody's probability",
        "rule of thumb",
    ]


def test_a_probability_is_shown_beside_the_share_of_buyers_of_the_windows_before(trained_shop, tables):
    *_, auc, brier = tables[0]["the share of buyers as everybody's probability"]
    shown = float(tables[0]["the whole history: the full model as it serves"][-1])
    bought = trained_shop.report["probability"]["rate"]["share_buying"]
    assert (float(auc), float(brier)) == (0.5, pytest.approx(bought * (1 - bought), abs=0.002))
    assert shown < float(brier)


def test_an_interval_is_shown_beside_the_full_model_s(trained_shop, tables):
    full = trained_shop.report["intervals"][TOTAL_TARGET]
    rows = tables[-1]
    assert rows["the whole history: the full model"][0] == f"{full['covered']:.1%}"
    for form, title in FORM_TITLES.items():
        interval = trained_shop.report["summary"]["forms"][form]["interval"]
        assert rows[title][0] == f"{interval['covered']:.1%}"
        assert rows[title][-1] == f"{interval['interval_score']:,.0f}"
        assert np.isclose(interval["covered"] + interval["below"] + interval["above"], 1)
