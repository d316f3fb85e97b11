"""The short form of the swapping run, and whether it would notice what it is there to notice."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.hot_swap import SHORT, run_swaps
from benchmarks.hot_swap_load import Answered, RightAnswers, plain, questions
from benchmarks.hot_swap_models import small_models
from benchmarks.hot_swap_report import Change, SwapReport, render


@pytest.mark.server
def test_models_change_under_load_without_a_failed_or_mixed_answer(tmp_path: Path) -> None:
    report = run_swaps(SHORT, small_models(tmp_path / "models"), tmp_path)
    assert report.failures == [], render(report)
    assert sum(not change.bad for change in report.changes) >= SHORT.swaps
    assert sum(bool(change.bad) for change in report.changes) == 2


def test_an_answer_of_two_models_or_of_another_than_it_names_is_wrong(tmp_path: Path) -> None:
    models = small_models(tmp_path / "models")
    asked = [each for each in questions(models.ids) if each.path == "/predict/batch"]
    right = RightAnswers(models, asked, tmp_path / "alone")
    first, second = models.good[0].bundle_id, models.good[1].bundle_id
    (answer, later), (other,) = right._answers[0][first], right._answers[0][second]
    assert right.differ() == 1
    assert [right.judged(0, each) for each in (answer, later, other)] == ["", "", ""]
    mixed = {**answer, "predictions": [*answer["predictions"][:5], *other["predictions"][5:]]}
    assert "not what" in right.judged(0, mixed)
    assert "not what" in right.judged(0, {**other, "model_version": first})
    assert "not what" in right.judged(
        0, {**answer, "predictions": [*answer["predictions"][:-1], later["predictions"][0]]}
    )
    assert "nobody called" in right.judged(0, {**answer, "model_version": "another"})
    assert plain({"timestamp": 1, "predictions": [{"prediction_date": 2, "x": 3}]}) == {"predictions": [{"x": 3}]}


GOOD = SwapReport(
    customers=1,
    seconds=3.0,
    n_processes=2,
    answers=[Answered(number / 10, 0.01, "q", 200, "v", "d", "") for number in range(30)],
    changes=[Change(1.0, "a", "", 0.5, [0.1, 0.1], False), Change(2.0, "b", "damaged", None, [0.0, 0.0], True)],
    different_questions=1,
    other_problems=[],
)


def test_a_run_in_which_all_went_well_has_no_failures_and_a_table() -> None:
    assert GOOD.failures == []
    assert "| answers other than 2xx, broken connections | 0 |" in render(GOOD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answers": [*GOOD.answers, Answered(2.95, 0.1, "q", 503, "", "", "q: 503")]}, "1 wrong answers"),
        ({"answers": GOOD.answers[:15]}, "No answer came for 1.6"),
        ({"changes": [replace(GOOD.changes[0], processes=[0.1])]}, "1 of 2 processes"),
        ({"changes": [replace(GOOD.changes[0], last_old=6.0)]}, "still answered after 6.0 s"),
        ({"changes": [replace(GOOD.changes[1], seen=False)]}, "does not warn"),
        ({"different_questions": 0}, "nothing could be noticed"),
        ({"other_problems": ["something else"]}, "something else"),
    ],
)
def test_what_went_wrong_is_said(change: dict, said: str) -> None:
    assert any(said in failure for failure in replace(GOOD, **change).failures)
