from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.training_set import Observations, plan_windows

SERVING = date(2026, 1, 1)


def plan(days_of_history, spacing_days=15, most_days=30, n_calibration=2, n_selection=3, n_report=2):
    return plan_windows(
        SERVING - timedelta(days=days_of_history),
        SERVING,
        spacing_days=spacing_days,
        most_days=most_days,
        n_calibration=n_calibration,
        n_selection=n_selection,
        n_report=n_report,
    )


@pytest.mark.parametrize("days_of_history", [150, 179, 200, 260, 400, 730, 3000])
def test_no_window_reaches_into_a_later_one_or_beyond_the_data(days_of_history):
    windows = plan(days_of_history)
    judged = (*windows.calibration, *windows.selection, *windows.report)
    assert judged == tuple(sorted(judged))
    assert all(later - earlier >= timedelta(days=30) for earlier, later in pairwise(judged))
    assert windows.report[-1] + timedelta(days=30) == SERVING
    assert windows.learning[-1] + timedelta(days=30) <= SERVING
    assert windows.learning[0] >= SERVING - timedelta(days=days_of_history - 30)
    assert any(day + timedelta(days=30) <= windows.calibration[0] for day in windows.learning)
    assert set(judged) <= set(windows.learning)


def test_selection_windows_are_others_than_the_reported_ones():
    windows = plan(730)
    assert len(windows.calibration) == 2
    assert len(windows.selection) == 3
    assert len(windows.report) == 2
    assert max(windows.selection) < min(windows.report)


def test_a_short_history_gets_fewer_windows_but_all_kinds():
    windows = plan(150)
    assert tuple(len(block) for block in windows.blocks) == (1, 1, 1)


def test_a_history_that_is_too_short_is_refused_with_the_days_it_has_and_needs():
    with pytest.raises(NotEnoughHistory, match=r"149 days.*at least 150"):
        plan(149)


def observations_on(days):
    as_of = np.repeat(np.array(days, dtype="datetime64[D]"), 3)
    n = len(as_of)
    return Observations(
        as_of, np.array(["a", "b", "c"] * len(days)), np.zeros((n, 1), np.float32), ("x",), {}, np.zeros(n)
    )


def test_rows_for_a_fold_have_labels_that_ended_before_it():
    days = [date(2025, 1, 1) + timedelta(days=10 * step) for step in range(10)]
    observations = observations_on(days)
    origin = date(2025, 3, 2)
    learned = observations.as_of[observations.ended_before(origin)]
    assert learned.max() == np.datetime64("2025-01-31")  # its label ends on 2025-03-01, the day before the origin
    assert len(learned) == 3 * 4
    judged = observations.as_of[observations.on(date(2025, 1, 31))]
    assert set(judged) == {np.datetime64("2025-01-31")}
    assert len(judged) == 3
