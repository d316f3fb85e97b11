import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config import ROOT
from ml_pipeline.summary_columns import DOMINANT_CATEGORY, SUMMARY_INPUTS
from routes.summary_messages import DOCUMENTED_SUMMARY, EIGHTEEN_FIELD_SUMMARY
from services.errors import InvalidRequest
from services.summary_fields import SIX_FEATURES, UNUSED_FIELDS
from services.summary_requests import FIELDS, SUMMARY_FIELDS, is_summary, read_six_features, read_summary

quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def refusal(request) -> str:
    with pytest.raises(InvalidRequest) as refused:
        read_summary(request)
    return str(refused.value)


def said_briefly(problem: InvalidRequest) -> None:
    assert 20 < len(str(problem)) < 700


def test_the_documented_request_is_read_and_its_gap_recomputed():
    told = read_summary(DOCUMENTED_SUMMARY)
    assert told.customer_id == "CUST_001"
    assert told.inputs == {
        "days_since_last": 30, "days_since_first": 180, "transactions": 5, "total_spend": 1500,
        "avg_transaction_value": 300, "avg_days_between": 37.5,
    }  # fmt: skip
    assert told.warnings == [
        "days_between_purchases is 36, but (tenure − recency) / (total_orders − 1) = (180 − 30) / 4 = 37.5; 37.5 was used."
    ]
    assert told.ignored == []


def test_the_eighteen_fields_are_read_and_those_of_today_ignored():
    told = read_summary(EIGHTEEN_FIELD_SUMMARY)
    assert told.warnings == []
    assert set(told.inputs) == set(SUMMARY_INPUTS) - {"total_items"}
    ignored = {one["field"]: one["reason"] for one in told.ignored}
    assert list(ignored) == ["segment_id", "loyalty_status", "total_loyalty_points", "is_cold_start"]
    assert "today's value" in ignored["segment_id"]
    assert ignored["is_cold_start"] == "It follows from the number of orders."


def test_every_field_is_an_input_of_the_summary_model_and_every_input_has_a_field():
    assert {one.input for one in FIELDS} | {one.input for one in SIX_FEATURES} == set(SUMMARY_INPUTS)
    assert len(set(SUMMARY_FIELDS)) == len(SUMMARY_FIELDS) == 7 + 18 - 1 - 4


@pytest.mark.parametrize(
    ("request_body", "expected"),
    [
        ({"customer_id": "1"}, False),
        ({"customer_id": "1", "age": 30, "gender": "f", "country": "IN"}, False),
        ({"customer_id": "1", "segment_id": "AR", "is_cold_start": False}, False),
        ({"recency": None}, True),
        ({"customer_id": "1", "recency": None, "tenure": " "}, False),
        ({"customer_id": "1", "recency": None, "tenure": 0}, True),
        ({"dominant_category": "Grocery"}, True),
    ],
)
def test_a_request_is_a_summary_when_it_has_one_of_the_fields(request_body, expected):
    assert is_summary(request_body) is expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("recency", "recency_days"),
        ("frequency", "total_orders"),
        ("frequency", "total_transactions"),
        ("total_orders", "total_transactions"),
        ("monetary_value", "total_spend"),
        ("tenure", "tenure_days"),
    ],
)
def test_two_names_of_the_same_may_not_contradict_each_other(one, other):
    said = refusal({one: 12, other: 13})
    assert f"{one} is 12 and {other} is 13: both are the " in said
    assert read_summary({one: 12, other: "12.0"}).inputs == read_summary({other: 12}).inputs


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"recency": 200, "tenure": 180}, "recency is 200 and tenure is 180: the last purchase cannot be longer ago"),
        (
            {"recency": -1},
            "recency is -1; a number of days is never below 0. Send the days since the last purchase, or",
        ),
        ({"avg_order_value": -0.5}, "avg_order_value is -0.5; an amount of money is never below 0"),
        ({"total_orders": 2.5}, "total_orders is 2.5; a count is a whole number"),
        ({"tx_last_30d": 3, "tx_last_60d": 2}, "tx_last_30d is 3 and tx_last_60d is 2: the orders of a shorter time"),
        ({"tx_last_30d": 3, "tx_last_90d": 2}, "tx_last_30d is 3 and tx_last_90d is 2"),
        ({"tx_last_90d": 3, "frequency": 2}, "tx_last_90d is 3 and frequency is 2"),
        ({"total_orders": 0, "monetary_value": 10}, "total_orders is 0 and monetary_value is 10: without an order"),
        ({"total_orders": 0, "avg_order_value": 10}, "total_orders is 0 and avg_order_value is 10"),
        ({"total_orders": 0, "unique_products": 1}, "total_orders is 0 and unique_products is 1"),
        ({"total_orders": 0, "spend_last_60d": 1}, "total_orders is 0 and spend_last_60d is 1"),
        ({"tx_last_30d": 0, "spend_last_30d": 5}, "tx_last_30d is 0 and spend_last_30d is 5"),
        ({"tx_last_60d": 0, "spend_last_30d": 5}, "tx_last_60d is 0 and spend_last_30d is 5"),
        (
            {"recency": 10, "tx_last_30d": 0},
            "recency is 10 and tx_last_30d is 0: the last purchase is one of the last 30",
        ),
        (
            {"recency": 31, "tx_last_30d": 1},
            "recency is 31 and tx_last_30d is 1: the last purchase is older than 30 days",
        ),
        (
            {"recency": 99, "spend_last_90d": 1},
            "recency is 99 and spend_last_90d is 1: the last purchase is older than 90",
        ),
        (
            {"tenure": 20, "tx_last_30d": 1, "total_orders": 3},
            "tenure is 20, tx_last_30d is 1 and total_orders is 3: all orders since the first purchase are of the last 30",
        ),
        ({"recency": 73_051}, "recency is 73051; a number of days of more than 73,050 is not believed of one customer"),
        (
            {"monetary_value": 1e14},
            "monetary_value is 100000000000000; an amount of money of more than 10,000,000,000,000",
        ),
        ({"monetary_value": 10**400}, "is not believed of one customer"),
        ({"monetary_value": -(10**400)}, "is never below 0"),
        ({"total_orders": True}, "total_orders is a boolean; it must be a count, as a plain number such as 30. Send"),
        ({"monetary_value": "1e999"}, "monetary_value is '1e999'; it must be an amount of money, as a plain number"),
        ({"recency": math.nan}, "recency is not a finite number; it must be a number of days"),
        ({"recency": math.inf}, "recency is not a finite number"),
        ({"recency": "NaN"}, "recency is 'NaN'; it must be a number of days"),
        ({"recency": "1_000"}, "recency is '1_000'"),
        (
            {"recency": "1,500"},
            "recency is '1,500'; it must be a number of days, as a plain number such as 30 or 1500.5",
        ),
        ({"recency": "٣"}, "recency is '٣'"),
        ({"recency": True}, "recency is a boolean"),
        ({"recency": [1]}, "recency is a list"),
        ({"recency": {}}, "recency is an object"),
        ({"dominant_category": 3}, "dominant_category is 3; it must be a text"),
        ({"dominant_category": ["Grocery"]}, "dominant_category is a list; it must be a text"),
        ({"recency": None, "tenure": " "}, "recency, tenure: nothing of it is known (null)"),
        ({"customer_id": [1], "recency": 1}, "customer_id is a list"),
        ({"customer_id": "x" * 129, "recency": 1}, "of 129 characters; an id has at most 128"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value_and_the_way_out(request_body, said):
    message = refusal(request_body)
    assert said in message
    assert any(way in message for way in ("Send ", "Correct ", "must be"))
    assert len(message) < 700


@pytest.mark.parametrize(
    "request_body",
    [
        {"recency": 0, "tx_last_30d": 0},  # bought today, and today is not among the last 30 days
        {"recency": 30, "tx_last_30d": 0},  # they end yesterday, or today
        {"recency": 30, "tx_last_30d": 1},
        {"recency": 29.5, "tenure": 29.5},
        {"tenure": 30, "tx_last_30d": 1, "total_orders": 3},
        {"tenure": 0, "tx_last_30d": 0, "total_orders": 3},
        {"recency": 31, "tx_last_30d": 0, "tx_last_60d": 1},
        {"frequency": 3, "total_orders": 3, "total_transactions": "3"},
        {"recency": 180, "tenure": 180, "total_orders": 4},
        {"monetary_value": 0.01},
    ],
)
def test_what_can_be_is_answered_without_a_warning(request_body):
    assert read_summary(request_body).warnings == []


@pytest.mark.parametrize("value", [30, 30.0, "30", " 30 ", "30.0", "3e1", "+30"])
def test_numbers_come_as_json_numbers_or_as_text(value):
    assert read_summary({"recency": value}).inputs == {"days_since_last": 30}


def test_minus_zero_is_zero():
    assert math.copysign(1, read_summary({"recency": -0.0}).inputs["days_since_last"]) == 1


def test_null_and_blank_are_not_known_and_not_zero():
    told = read_summary({"recency": 30, "tenure": None, "total_orders": "", "dominant_category": " "})
    assert told.inputs == {"days_since_last": 30}
    assert told.warnings == []


def test_an_id_is_optional_and_canonical():
    assert read_summary({"recency": 1}).customer_id is None
    assert read_summary({"recency": 1, "customer_id": " "}).customer_id is None
    assert read_summary({"recency": 1, "customer_id": 12345.0}).customer_id == "12345"
    assert read_summary({"recency": 1, "customer_id": " 00042 "}).customer_id == "00042"


def test_unused_and_unknown_fields_are_listed_with_the_reason_and_null_ones_are_not():
    told = read_summary({"recency": 1, "age": 40, "gender": None, "country": "IN", "shoe_size": 44, "horizon_days": 90})
    assert [one["field"] for one in told.ignored] == ["age", "country", "shoe_size", "horizon_days"]
    assert told.ignored[0]["reason"] == UNUSED_FIELDS["age"]
    assert "no field of this name" in told.ignored[2]["reason"]
    assert "POST /predict?horizon_days=90" in told.ignored[3]["reason"]


# ---- what does not fit


def settled(**fields):
    told = read_summary(fields)
    return told.inputs, told.warnings


def test_money_that_does_not_fit_the_average_is_used_as_sent_and_said():
    inputs, (warning,) = settled(total_spend=2000, avg_order_value=300, total_orders=5)
    assert (inputs["total_spend"], inputs["avg_transaction_value"]) == (2000, 400)
    assert warning == (
        "total_spend is 2000, but avg_order_value × total_orders = 300 × 5 = 1500; 2000 was used, and 400 per order."
    )


def test_a_monetary_value_that_is_the_average_once_more_is_taken_for_it():
    inputs, (warning,) = settled(monetary_value=300, avg_order_value=300, total_orders=5)
    assert (inputs["total_spend"], inputs["avg_transaction_value"]) == (1500, 300)
    assert (
        "It is the average once more, so 1500 was used as the money spent so far; send total_spend where 300" in warning
    )
    inputs, (warning,) = settled(total_spend=300, avg_order_value=300, total_orders=5)
    assert inputs["total_spend"] == 300


@pytest.mark.parametrize(("total", "average", "orders"), [(345.7, 49.3, 7), (1000, 333.33, 3), (0.99, 0.01, 100)])
def test_rounding_is_no_contradiction(total, average, orders):
    inputs, warnings = settled(total_spend=total, avg_order_value=average, total_orders=orders)
    assert warnings == []
    assert inputs["avg_transaction_value"] == total / orders


def test_an_average_above_the_total_is_not_used():
    inputs, (warning,) = settled(monetary_value=100, avg_order_value=300)
    assert inputs == {"total_spend": 100}
    assert warning.startswith("avg_order_value (300) is more than monetary_value (100)")


def test_what_follows_from_other_numbers_is_derived():
    assert settled(total_spend=900, total_orders=3)[0]["avg_transaction_value"] == 300
    assert settled(avg_order_value=300, total_orders=3)[0]["total_spend"] == 900
    assert settled(recency=30, tenure=180, total_orders=5)[0]["avg_days_between"] == 37.5
    assert settled(recency=30, days_between_purchases=37.5, total_orders=5)[0]["days_since_first"] == 180
    assert settled(tenure=180, days_between_purchases=37.5, total_orders=5)[0]["days_since_last"] == 30
    assert settled(recency=30, total_orders=1)[0]["days_since_first"] == 30
    assert settled(tenure=30, total_orders=1)[0]["days_since_last"] == 30
    assert "days_since_first" not in settled(recency=30, total_orders=2)[0]


def test_a_rounded_gap_takes_no_purchase_out_of_its_time():
    inputs, warnings = settled(tenure=100, days_between_purchases=25.2, total_orders=5)
    assert (inputs["days_since_last"], warnings) == (0, [])
    inputs, warnings = settled(recency=1, days_between_purchases=73_049.3, total_orders=2)
    assert (inputs["days_since_first"], warnings) == (73_050, [])


def test_gaps_within_half_a_day_are_rounded_ones():
    assert settled(recency=30, tenure=180, total_orders=5, days_between_purchases=38)[1] == []
    assert len(settled(recency=30, tenure=180, total_orders=5, days_between_purchases=38.1)[1]) == 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"total_orders": 1, "recency": 5, "days_between_purchases": 9}, "a single order has no next one"),
        ({"total_orders": 5, "tenure": 100, "days_between_purchases": 40}, "5 orders so far apart take 160 days"),
        ({"total_orders": 9, "recency": 1, "days_between_purchases": 70_000}, "9 orders so far apart take 560000 days"),
        (
            {"tenure": 100, "recency": 70, "days_between_purchases": 40},
            "only 30 days from the first purchase to the last",
        ),
        ({"tenure": 30, "days_between_purchases": 40}, "only 30 days from the first purchase to the last"),
    ],
)
def test_a_gap_that_cannot_be_is_not_used(fields, said):
    inputs, (warning,) = settled(**fields)
    assert "avg_days_between" not in inputs
    assert warning.startswith("days_between_purchases (")
    assert said in warning
    assert set(inputs) == set(settled(**{name: value for name, value in fields.items() if "between" not in name})[0])


def test_a_single_order_is_the_first_and_the_last():
    inputs, (warning,) = settled(total_orders=1, recency=30, tenure=180)
    assert (inputs["days_since_last"], inputs["days_since_first"]) == (30, 30)
    assert warning.startswith(
        "recency is 30 and tenure is 180, but total_orders is 1: a single order is the first and the last"
    )


def test_parts_above_the_whole_and_zeros_are_doubted_and_used():
    inputs, warnings = settled(spend_last_30d=500, spend_last_60d=400, total_spend=450)
    assert (inputs["spend_30d"], inputs["spend_60d"]) == (500, 400)
    assert [warning[:54] for warning in warnings] == ["spend_last_30d (500) is more than spend_last_60d (400)"]
    assert "though a product is of one category" in settled(unique_products=2, unique_categories=3)[1][0]
    (warning,) = settled(tx_last_30d=5, tx_last_90d=5, total_orders=5, recency=2, tenure=400)[1]
    assert warning.startswith(
        "tenure is 400, but tx_last_90d is 5 and total_orders is 5: all orders are of the last 90"
    )
    assert "where it counts from the registration" in warning
    assert not settled(tx_last_30d=5, total_orders=5, tenure=30)[1]
    assert "Leave out what is not known: it is not 0." in settled(total_orders=4, unique_products=0)[1][0]
    assert "spend_last_30d is 0, but tx_last_30d is 2" in settled(tx_last_30d=2, spend_last_30d=0)[1][0]


def test_of_one_who_never_bought_only_the_time_since_the_registration_is_used():
    told = read_summary(
        {"total_orders": 0, "recency": 40, "tenure": 90, "monetary_value": 0, "days_between_purchases": 0,
         "tx_last_30d": 0, "dominant_category": "Grocery", "age": 3}
    )  # fmt: skip
    assert told.never_bought
    assert told.inputs == {"transactions": 0, "days_since_first": 90}
    assert told.warnings == [
        "total_orders is 0: nothing was bought yet. The answer is what such customers 90 days after they registered spent in "
        "the past."
    ]
    assert [one["field"] for one in told.ignored] == ["recency", "dominant_category", "age"]
    assert not read_summary({"monetary_value": 0}).never_bought
    assert read_summary({"total_orders": 0, "recency": 10, "tenure": 20, "tx_last_30d": 0}).never_bought


# ---- six features


def test_six_features_are_read_in_order_or_by_name():
    values = [345.7, 49.3, 7, 12, 5, 4]
    told = read_six_features(values)
    assert told == read_six_features({one.name: value for one, value in zip(SIX_FEATURES, values, strict=True)})
    assert told.inputs == {
        "total_spend": 345.7, "avg_transaction_value": 345.7 / 7, "transactions": 7, "total_items": 12,
        "distinct_products": 5, "days_since_last": 4,
    }  # fmt: skip
    assert told.warnings == []


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (None, "features is missing; features takes the six of total_spend, avg_spend, num_transactions"),
        ([1, 2, 3], "features has 3 entries"),
        ("345.7", "features is a text"),
        (7, "features is a number"),
        (True, "features is a boolean"),
        ({"total_spend": 1}, "features lacks avg_spend, num_transactions, total_units, unique_products, recency_days"),
        ({**dict.fromkeys((one.name for one in SIX_FEATURES), 1), "size": 1}, "features has size, which is none"),
        ([1, 1, 1, 1, 1, None], "recency_days is null; all six features must be numbers"),
        ([1, 1, 1, "", 1, 1], "total_units is blank"),
        ([1, 1, 1, True, 1, 1], "total_units is a boolean"),
        ([1, 1, 1.5, 1, 1, 1], "num_transactions is 1.5; a count is a whole number"),
        ([-1, 1, 1, 1, 1, 1], "total_spend is -1; an amount of money is never below 0"),
        ([10, 10, 0, 1, 1, 1], "num_transactions is 0 and total_spend is 10: without an order nothing is bought"),
        ([0, 0, 0, 3, 0, 0], "num_transactions is 0 and total_units is 3"),
    ],
)
def test_six_features_that_cannot_be_are_refused(features, said):
    with pytest.raises(InvalidRequest) as refused:
        read_six_features(features)
    assert said in str(refused.value)


def test_six_features_that_do_not_fit_are_answered_with_a_warning():
    told = read_six_features([1000, 49.3, 7, 12, 5, 4])
    assert told.warnings[0].startswith(
        "total_spend is 1000, but avg_spend × num_transactions = 49.3 × 7 = 345.1; 1000 was"
    )
    assert read_six_features([0, 0, 0, 0, 0, 0]).never_bought


# ---- whatever comes

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
plausible = st.one_of(st.integers(0, 100), st.floats(0, 500, allow_nan=False), st.sampled_from(["5", "0", "1e2", ""]))


@quick
@given(
    st.dictionaries(st.sampled_from([*SUMMARY_FIELDS, "customer_id", "age", "odd"]), anything | plausible, max_size=8)
)
def test_any_json_is_read_or_refused_by_name(request_body):
    try:
        told = read_summary(request_body)
    except InvalidRequest as problem:
        said_briefly(problem)
        return
    assert set(told.inputs) <= set(SUMMARY_INPUTS)
    assert all(
        isinstance(told.inputs[name], float) and 0 <= told.inputs[name] < 1e30
        for name in told.inputs
        if name != DOMINANT_CATEGORY
    )
    assert all(len(warning) < 700 for warning in told.warnings)
    json.dumps(told.warnings, allow_nan=False)


@quick
@given(anything | st.lists(anything | plausible, min_size=6, max_size=6))
def test_any_json_is_six_features_or_refused_by_name(features):
    try:
        assert set(read_six_features(features).inputs) <= set(SUMMARY_INPUTS)
    except InvalidRequest as problem:
        said_briefly(problem)


@st.composite
def consistent_summaries(draw) -> dict:
    """What a shop would tell of a real history: days of orders with amounts."""
    days = sorted(draw(st.lists(st.integers(1, 1500), min_size=1, max_size=12)))
    cents = [draw(st.integers(1, 10**7)) for _ in days]
    money = [one / 100 for one in cents]
    n, total = len(days), sum(money)
    orders = {f"tx_last_{window}d": sum(day <= window for day in days) for window in (30, 60, 90)}
    spend = {
        f"spend_last_{window}d": round(sum(one for one, day in zip(money, days, strict=True) if day <= window), 2)
        for window in (30, 60, 90)
    }
    everything = {
        "recency": days[0], "recency_days": days[0], "tenure": days[-1], "tenure_days": days[-1], "frequency": n,
        "total_orders": n, "total_transactions": n, "monetary_value": round(total, 2), "total_spend": round(total, 2),
        "avg_order_value": round(total / n, 2), "unique_products": 3, "unique_categories": 2, "dominant_category": "Grocery",
        **({"days_between_purchases": round((days[-1] - days[0]) / (n - 1), 2)} if n > 1 else {}), **orders, **spend,
    }  # fmt: skip
    kept = draw(st.sets(st.sampled_from(sorted(everything)), min_size=1))
    return {name: everything[name] for name in kept}


@quick
@given(consistent_summaries())
def test_any_part_of_a_real_history_is_read_without_a_doubt(request_body):
    told = read_summary(request_body)
    assert told.warnings == []
    assert told.ignored == []
    assert {one.input for one in FIELDS if one.name in request_body} <= set(told.inputs)


def test_the_page_tells_every_field():
    page = Path(ROOT, "docs", "summary_way_in.md").read_text("utf-8")
    assert [name for name in (*SUMMARY_FIELDS, *UNUSED_FIELDS) if f"`{name}`" not in page] == []
