from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.features import CALENDAR_FEATURES, TENURE_FEATURES
from ml_pipeline.training_set import (
    Observations,
    UnusedFeatures,
    plan_windows,
    sample_customers,
    unused_features,
    without,
)
from tests.ml_pipeline.purchase_rows import customers_table, purchase, purchases_table

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
    with pytest.raises(NotEnoughHistory, match=r"89 days.*at least 90 \(models: 150\)"):
        plan(89)


@pytest.mark.parametrize(("days_of_history", "earlier"), [(90, 0), (119, 0), (120, 1), (149, 1)])
def test_a_history_too_short_for_models_has_one_window_to_select_a_rule_on_and_one_to_report(days_of_history, earlier):
    windows = plan(days_of_history)
    assert windows.rules_only == f"the history is {days_of_history} days; models need 150"
    assert windows.report == (SERVING - timedelta(days=30),)
    assert windows.selection == (SERVING - timedelta(days=60),)
    assert windows.calibration == ()
    assert windows.blocks == (windows.selection, windows.report)
    assert len(windows.learning) == 2 + earlier
    assert windows.learning[0] >= SERVING - timedelta(days=days_of_history - 30)


def test_a_history_long_enough_for_models_has_them():
    assert plan(150).rules_only is None


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


# Which customers and features are learned from


@pytest.fixture(scope="module")
def shop():
    """20 buyers of three purchases each, one who only gave something back, one who never came."""
    rows = [purchase(f"C{customer:02}", days_ago=ago) for customer in range(20) for ago in (5, 50, 300)]
    engine = open_engine(threads=1)
    purchases = engine.create_table("sales", purchases_table([*rows, purchase("returner", 9, -1)]))
    customers = engine.create_table(
        "people", customers_table({"C00": None, "C19": None, "returner": None, "never": None})
    )
    return engine, purchases, customers


def drawn(shop, most, seed=7):
    engine, purchases, customers = shop
    sales, people = sample_customers(engine, purchases, customers, most, seed)
    return engine.to_pyarrow(sales).to_pylist(), engine.to_pyarrow(people).to_pylist()


def test_a_sample_of_customers_has_all_purchases_and_columns_of_whom_it_draws(shop):
    engine, purchases, _ = shop
    sales, people = drawn(shop, 8)
    chosen = {row["customer_id"] for row in sales}
    everything = engine.to_pyarrow(purchases).to_pylist()
    assert len(chosen) == 8
    assert chosen <= {f"C{customer:02}" for customer in range(20)}  # nobody who never bought takes a place
    assert sorted(map(str, sales)) == sorted(str(row) for row in everything if row["customer_id"] in chosen)
    assert {row["customer_id"] for row in people} == chosen & {"C00", "C19"}


def test_the_same_seed_draws_the_same_customers_and_another_seed_others(shop):
    first, again, other = ({row["customer_id"] for row in drawn(shop, 8, seed)[0]} for seed in (7, 7, 8))
    assert first == again != other


def test_where_there_are_no_more_buyers_than_asked_for_the_tables_are_left_as_they_are(shop):
    engine, purchases, customers = shop
    assert sample_customers(engine, purchases, customers, 20, seed=7) == (purchases, customers)


def unused_after(days):
    return [group.features for group in unused_features(SERVING - timedelta(days=days), plan(730), ("food",))]


def test_calendar_features_are_unused_until_a_season_has_been_seen_one_and_a_half_times():
    assert unused_after(539) == [CALENDAR_FEATURES]
    assert unused_after(540) == []


def test_below_half_a_year_tenure_and_windows_that_look_back_further_are_unused_too():
    assert unused_after(180) == [CALENDAR_FEATURES]
    calendar, tenure, beyond = unused_after(179)
    assert calendar == CALENDAR_FEATURES
    assert tenure == TENURE_FEATURES
    assert set(tenure) == {"days_since_first_transaction", "days_first_to_last", "customer_tenure_days"}
    half_and_whole_year = {f"{what}_{days}d" for what in ("transaction_count", "total_spend") for days in (180, 365)}
    assert set(beyond) == {*half_and_whole_year, "spend_same_window_last_year"}
    assert "spend_momentum_30d_over_61_120d" in unused_after(119)[2]


def test_the_reason_names_the_days_that_there_are():
    reasons = [each.reason for each in unused_features(SERVING - timedelta(days=155), plan(155), ())]
    assert len(reasons) == 3
    assert all("155 days" in reason for reason in reasons)


def test_models_cannot_learn_from_what_is_unused_and_rules_still_read_it():
    rows = observations_on([date(2025, 1, 1)])
    wide = Observations(rows.as_of, rows.customer_id, np.ones((3, 3), np.float32), ("x", "y", "z"), {}, rows.bought)
    blank = without(wide, [UnusedFeatures("it means nothing", ("y",))])
    learnable = blank.learnable(slice(1, 3))
    assert np.isnan(learnable[:, 1]).all()
    assert (learnable[:, [0, 2]] == 1).all()
    assert (blank.features == 1).all()
    assert (wide.learnable(np.array([0])) == 1).all()
