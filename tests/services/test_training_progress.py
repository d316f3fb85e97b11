"""What a command says of its phases, as one percentage that never goes back."""

import pytest

from services.job_table import DATA_REFRESH, SAMPLE_DATA, TRAINING
from services.training_progress import WEIGHTS, Course, training_progress
from tests.services.test_job_progress import EPOCH, job_of


def test_the_percentage_is_that_of_the_phases_passed_and_of_the_part_of_the_one_under_way():
    course = Course(TRAINING)
    shown = []
    for phase, done, of in (("read tables", 0, 1), ("read tables", 1, 1), ("clean", 1, 2), ("backtest", 10, 20)):
        course.hear(phase, "", done, of)
        shown.append(course.now["percentage"])
    assert shown == [0.0, 3.0, 6.5, 33.0]
    assert course.now == {"phase": "backtest", "doing": "", "done": 10, "of": 20, "percentage": 33.0}


def test_it_never_goes_back_nor_reaches_the_end_before_the_end():
    course = Course(SAMPLE_DATA)
    course.hear("sample tables", "", 2, 2)
    course.hear("sample tables", "", 1, 2)
    assert course.now["percentage"] == 90.0
    course.hear("zip", "", 3, 2)
    assert course.now["percentage"] == 99.9


def test_a_phase_that_nobody_has_weighed_moves_nothing():
    course = Course(DATA_REFRESH)
    course.hear("read tables", "", 1, 1)
    course.hear("count the sheep", "one by one", 5, None)
    assert course.now == {"phase": "count the sheep", "doing": "one by one", "done": 5, "of": None, "percentage": 20.0}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_the_weights_are_percentages(kind):
    assert sum(WEIGHTS[kind].values()) == 100


def progress(status: str, **facts) -> dict:
    return training_progress(job_of(kind=TRAINING, status=status, **facts))


SAID = {"phase": "backtest", "doing": "total: xgboost", "done": 3, "of": 40, "percentage": 23.7}


def test_while_it_goes_on_it_is_told_as_it_was_said_and_how_long_it_takes_is_not_known():
    told = progress("processing", progress=SAID)
    assert told == {
        "total": 40, "processed": 3, "successful": 3, "failed": 0, "percentage": 23.7, "phase": "backtest",
        "doing": "total: xgboost", "eta_seconds": None,
    }  # fmt: skip
    assert progress("processing")["phase"] == "starting"


def test_a_job_that_has_ended_has_no_time_left_and_says_how_far_it_had_come():
    done = progress("completed", progress=SAID, completed_at=EPOCH)
    assert (done["phase"], done["percentage"], done["processed"], done["total"]) == ("done", 100.0, 1, 1)
    for status in ("failed", "cancelled"):
        told = progress(status, progress=SAID, completed_at=EPOCH)
        assert (told["phase"], told["percentage"], told["doing"], told["eta_seconds"]) == ("backtest", 23.7, "", 0.0)


def test_one_that_was_never_begun_is_queued_also_when_it_was_cancelled():
    for status in ("queued", "cancelled"):
        assert progress(status, started_at=None)["phase"] == "queued"
    assert progress("queued", progress=SAID)["phase"] == "queued"
