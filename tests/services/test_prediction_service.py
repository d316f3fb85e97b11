import math

import pytest

from ml_pipeline.features import feature_names
from services.errors import InvalidRequest, NotOffered, RequestTooLarge, UnknownCustomer
from services.prediction_service import BATCH_LIMIT, SUMMARY_FIELDS
from tests.conftest import CUSTOMERS
from tests.ml_pipeline.toy_models import TARGETS


def cents(money: float) -> int:
    return round(money * 100)


def test_an_answer_has_the_documented_fields_and_its_cents_add_up(services):
    answer = services.predictions.predict({"customer_id": CUSTOMERS[0]})
    spend = answer["predicted_30d_spend"]
    assert list(spend) == ["total", "electronics", "grocery", "sports", "other"]
    assert cents(spend["total"]) == sum(cents(money) for name, money in spend.items() if name != "total")
    assert set(answer) == {
        "customer_id", "predicted_30d_spend", "currency", "model_version", "model_info", "as_of", "horizon_days",
        "purchase_probability_30d", "intervals", "segment", "cold_start",
        "cold_start_reason", "extrapolated",
    }  # fmt: skip
    assert answer["model_info"] == {"trained_on": "2026-01-01", "num_features": len(feature_names(TARGETS))}
    assert set(answer["intervals"]["total"]) == {"lower", "upper"}


@pytest.mark.parametrize("value", ["12345", " 12345 ", "12345.0", 12345, 12345.0])
def test_an_id_is_found_as_text_or_number(services, value):
    assert services.predictions.predict({"customer_id": value})["customer_id"] == "12345"


def test_zeros_in_front_belong_to_the_id(services):
    assert services.predictions.predict({"customer_id": "00042"})["customer_id"] == "00042"
    with pytest.raises(UnknownCustomer):
        services.predictions.predict({"customer_id": 42})


@pytest.mark.parametrize("value", ["nobody", "C00001\0", "x" * 10_000, 10**400, -1, 1.5, "ü" * 100])
def test_an_unknown_id_is_named(services, value):
    with pytest.raises(UnknownCustomer, match="There is no customer"):
        services.predictions.predict({"customer_id": value})


@pytest.mark.parametrize("value", [None, "", "  ", "null", [], {}, True, False, math.nan, math.inf])
def test_what_is_no_id_is_refused(services, value):
    with pytest.raises(InvalidRequest):
        services.predictions.predict({"customer_id": value})


def test_raw_numbers_come_only_when_asked_for(services):
    assert "raw" not in services.predictions.predict({"customer_id": CUSTOMERS[0]})
    raw = services.predictions.predict({"customer_id": CUSTOMERS[0]}, explain=True)["raw"]
    assert isinstance(raw["xgboost_total_spend"], float)


@pytest.mark.parametrize("field", ["transactions", *SUMMARY_FIELDS])
def test_another_way_in_is_not_mistaken_for_an_id(services, field):
    with pytest.raises(NotOffered, match="customer_id"):
        services.predictions.predict({"customer_id": CUSTOMERS[0], field: 1})


def test_two_ways_in_at_once_contradict_each_other(services):
    with pytest.raises(InvalidRequest, match="together") as caught:
        services.predictions.predict({"transactions": [], "recency": 3})
    assert type(caught.value) is InvalidRequest


def test_what_is_not_used_is_listed_with_the_reason(services):
    answer = services.predictions.predict({"customer_id": CUSTOMERS[0], "age": 30})
    assert [ignored["field"] for ignored in answer["ignored_inputs"]] == ["age"]


def test_a_batch_answers_in_order_with_errors_in_place(services):
    batch = [
        CUSTOMERS[1],
        {"customer_id": CUSTOMERS[0]},
        "nobody",
        None,
        {"recency": 3},
        [1],
        12345,
        True,
        {"customer_id": "", "x": 1},
    ]
    result = services.predictions.predict_batch(batch)
    rows = result["predictions"]
    assert [row.get("error") for row in rows] == [
        None, None, "UnknownCustomer", "InvalidRequest", "NotOffered", "InvalidRequest", None, "InvalidRequest", "InvalidRequest",
    ]  # fmt: skip
    assert [row.get("customer_id") for row in rows[:3]] == [CUSTOMERS[1], CUSTOMERS[0], "nobody"]
    assert (result["total_predictions"], result["successful"], result["failed"]) == (9, 3, 6)
    assert rows[1] == services.predictions.predict({"customer_id": CUSTOMERS[0]})


def test_an_empty_batch_is_answered_with_nothing(services):
    assert services.predictions.predict_batch([])["predictions"] == []


def test_a_batch_over_the_limit_is_refused(services):
    with pytest.raises(RequestTooLarge, match="10,000"):
        services.predictions.predict_batch(["C1"] * (BATCH_LIMIT + 1))
