from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from ml_pipeline.calendar_features import TargetMonthCos, TargetMonthSin
from ml_pipeline.features import feature_names
from ml_pipeline.guardrails import TrainedRanges, reached_cap, trained_ranges, within_cap
from ml_pipeline.reconcile import PLAIN_METHODS
from ml_pipeline.train import profile_of
from ml_pipeline.training_set import SEASONS_SEEN_DAYS, plan_windows

DAYS, MONEY, STORES = "days_since_first_transaction", "lifetime_spend", "num_distinct_stores"
RATIO, WEEKDAY, ALWAYS_MISSING = "promotion_usage_rate", "target_weekend_days", "target_month_sin"
NAMES = (DAYS, MONEY, STORES, RATIO, WEEKDAY, ALWAYS_MISSING)
NAN = np.nan
TRAINED = np.array(
    [
        [1, 100, 1, 0.0, 8, NAN],
        [101, 1100, 1, NAN, 10, NAN],
        [50, 600, 1, 1.0, 9, NAN],
    ],
    dtype=np.float32,
)
INSIDE = TRAINED[2]


@pytest.fixture
def ranges():
    return TrainedRanges.from_json(trained_ranges(TRAINED, NAMES), NAMES, ())


def changed(**values):
    customer = INSIDE.copy()
    for name, value in values.items():
        customer[NAMES.index(name)] = value
    return customer


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ({}, False),
        ({MONEY: 1200}, False),  # a tenth of the width of 1,000
        ({MONEY: 1201}, True),
        ({MONEY: 100}, False),
        ({MONEY: 99.9}, True),  # less than anybody ever spent, though within a tenth of the width
        ({DAYS: 132}, False),  # 31 days, more than a tenth of 100
        ({DAYS: 133}, True),
        ({WEEKDAY: 11}, False),
        ({STORES: 2}, True),  # only one was ever seen
        ({RATIO: NAN}, False),  # as in training
        ({MONEY: NAN}, True),
        ({ALWAYS_MISSING: 0.5}, False),
    ],
)
def test_a_value_counts_as_outside_by_the_stated_rule(ranges, values, counts):
    assert ranges.outside(np.array([INSIDE, changed(**values)])).tolist() == [False, counts]


def test_days_get_a_tenth_where_that_is_more_than_a_month():
    trained = np.array([[0.0], [1000.0]], dtype=np.float32)
    ranges = TrainedRanges.from_json(trained_ranges(trained, (DAYS,)), (DAYS,), ())
    assert ranges.outside(np.array([[1099.0], [1101.0]], dtype=np.float32)).tolist() == [False, True]


def test_money_that_was_0_in_training_has_the_leave_of_any_number():
    trained = np.array([[0.0], [1000.0]], dtype=np.float32)
    ranges = TrainedRanges.from_json(trained_ranges(trained, (MONEY,)), (MONEY,), ())
    assert ranges.outside(np.array([[-99.0], [-101.0]], dtype=np.float32)).tolist() == [False, True]


def test_days_of_a_target_are_days_too():
    trained, name = np.array([[0.0], [10.0]], dtype=np.float32), "days_since_toys"
    ranges = TrainedRanges.from_json(trained_ranges(trained, (name,)), (name,), ("toys",))
    assert ranges.outside(np.array([[40.0], [42.0]], dtype=np.float32)).tolist() == [False, True]


def test_the_features_that_are_outside_are_told_the_farthest_first(ranges):
    customer = changed(**{DAYS: 240, MONEY: 50_000, RATIO: NAN, ALWAYS_MISSING: 1})
    assert ranges.farthest(customer) == [
        {"feature": MONEY, "value": 50_000.0, "trained": [100.0, 1100.0]},
        {"feature": DAYS, "value": 240.0, "trained": [1.0, 101.0]},
    ]
    assert [one["feature"] for one in ranges.farthest(customer, most=1)] == [MONEY]
    assert ranges.farthest(INSIDE) == []


def test_what_was_never_seen_at_all_comes_first_and_a_missing_value_is_none(ranges):
    told = ranges.farthest(changed(**{MONEY: 50_000, STORES: 2, DAYS: NAN}))
    assert [one["feature"] for one in told] == [DAYS, STORES, MONEY]
    assert told[0]["value"] is None


def test_ranges_of_a_few_rows_are_plain_json():
    assert trained_ranges(TRAINED, NAMES)[MONEY] == {"low": 100.0, "high": 1100.0, "missing": False}
    assert trained_ranges(TRAINED, NAMES)[RATIO] == {"low": 0.0, "high": 1.0, "missing": True}
    assert trained_ranges(TRAINED, NAMES)[ALWAYS_MISSING] is None


@pytest.mark.parametrize("profile", ["quick", "full"])
def test_a_training_that_uses_the_calendar_has_seen_every_value_of_it(profile):
    """So a month needs no rule of its own: on no later day is its sine or cosine outside of what was trained on."""
    chosen = profile_of(profile, threads=1)
    for ahead in range(0, 366, 3):
        serving = date(2025, 1, 1) + timedelta(days=ahead)
        plan = plan_windows(
            serving - timedelta(days=SEASONS_SEEN_DAYS),
            serving,
            spacing_days=chosen.spacing_days,
            most_days=chosen.most_days,
            n_calibration=chosen.n_calibration,
            n_selection=chosen.n_selection,
            n_report=chosen.n_report,
        )
        for feature in (TargetMonthSin(), TargetMonthCos()):
            trained = np.array([[feature.of(day)] for day in plan.learning], dtype=np.float32)
            names = (feature.name,)
            ranges = TrainedRanges.from_json(trained_ranges(trained, names), names, ())
            later = [serving + timedelta(days=more) for more in range(0, 366, 5)]
            assert not ranges.outside(np.array([[feature.of(day)] for day in later], dtype=np.float32)).any(), serving


def test_a_prediction_that_was_cut_is_told_and_a_target_that_nobody_bought_cuts_nothing():
    caps = np.array([100.0, 0.0])
    assert reached_cap(np.array([[99.0, 0.0], [100.0, 0.0], [0.0, 0.0]]), caps).tolist() == [False, True, False]


def test_parts_that_add_up_to_more_than_the_cap_are_scaled_with_their_total():
    agreed = within_cap(np.array([[50.0, 20.0, 30.0], [400.0, 100.0, 300.0], [0.0, 0.0, 0.0]]), 100.0)
    np.testing.assert_allclose(agreed, [[50, 20, 30], [100, 25, 75], [0, 0, 0]])


def test_hardly_anybody_is_outside_on_the_day_that_is_served(trained_shop):
    served = trained_shop.snapshot.columns(range(trained_shop.snapshot.n_customers))
    assert served["extrapolated"].mean() < 0.03


def test_who_spends_fifty_times_what_everybody_does_is_told_capped_and_finite(trained_shop):
    predictor, names = trained_shop.predictor, trained_shop.predictor.metadata.features
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    money = [index for index, name in enumerate(names) if "spend" in name or name.endswith("_value")]
    everybody = np.nanmax(features, axis=0)
    whale = everybody.copy()
    whale[money] *= 50
    for customer in (whale, everybody * np.float32(1e6), np.full_like(whale, np.float32(3e38))):
        answers = predictor.predict(customer[None])
        caps = [predictor.metadata.content["serving"][name]["cap"] for name in ("total",)]
        assert answers.extrapolated.all()
        assert 0 < answers.money[0, 0] <= caps[0] * 100
        assert (answers.money >= 0).all()
        assert answers.money[0, 1:].sum() == answers.money[0, 0]
        assert (answers.lower <= answers.money).all()
        assert (answers.money <= answers.upper).all()
        assert np.isfinite(answers.variance).all()
    told = predictor.ranges.farthest(whale)
    assert told
    assert {one["feature"] for one in told} <= {names[index] for index in money}


@pytest.mark.parametrize("method", PLAIN_METHODS, ids=lambda method: method["name"])
def test_a_customer_that_only_reaches_the_cap_is_told_too(trained_shop, method):
    """Whatever makes total and parts agree: parts that are below their own caps add up to more than the total's."""
    rows = np.flatnonzero(trained_shop.snapshot.columns(range(200))["predicted_total_spend"] > 1)[:5]
    features = trained_shop.snapshot.features(rows)
    content = trained_shop.predictor.metadata.content
    lowered = {**content["serving"], "total": {**content["serving"]["total"], "cap": 1.0}}
    metadata = replace(
        trained_shop.predictor.metadata, content={**content, "serving": lowered, "reconciliation": method}
    )
    answers = replace(trained_shop.predictor, metadata=metadata).predict(features)
    assert answers.money[:, 0].tolist() == [100] * len(rows)
    assert answers.extrapolated.all()
    assert not trained_shop.predictor.predict(features).extrapolated.all()


def test_every_feature_has_a_range(trained_shop):
    content = trained_shop.predictor.metadata.content
    assert set(content["ranges"]) == set(feature_names(trained_shop.snapshot.targets))
    unused = [name for group in content["unused_features"] for name in group["features"]]
    assert unused
    assert all(content["ranges"][name] is None for name in unused)
