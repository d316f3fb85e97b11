"""The requests and answers of the systems that this service stands in for, as they are documented, with their example bodies."""

import io
from pathlib import Path

import pytest

from tests.conftest import CUSTOMERS
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.ml_pipeline.summary_boosters import summary_members

SEVEN = {
    "customer_id": "CUST_001",
    "recency": 30,
    "frequency": 5,
    "monetary_value": 1500.0,
    "tenure": 180,
    "avg_order_value": 300.0,
    "days_between_purchases": 36.0,
    "total_orders": 5,
}
EIGHTEEN = {
    "total_spend": 5400.0,
    "total_transactions": 12,
    "avg_order_value": 450.0,
    "recency_days": 4,
    "tenure_days": 300,
    "spend_last_30d": 900.0,
    "spend_last_60d": 1300.0,
    "spend_last_90d": 1750.0,
    "tx_last_30d": 2,
    "tx_last_60d": 3,
    "tx_last_90d": 4,
    "unique_products": 9,
    "unique_categories": 3,
    "dominant_category": "Grocery",
    "segment_id": "LR",
    "loyalty_status": "Gold",
    "total_loyalty_points": 1200,
    "is_cold_start": False,
}
SIX = {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}
OF_A_CUSTOMER = {
    "customer_id",
    "predicted_30d_spend",
    "currency",
    "model_version",
    "model_info",
    "as_of",
    "horizon_days",
    "purchase_probability_30d",
    "intervals",
    "segment",
    "cold_start",
}
OF_A_SUMMARY = {
    "customer_id",
    "predicted_clv",
    "horizon_days",
    "predicted_30d_spend",
    "model_used",
    "prediction_date",
    "expected_purchases_next_30_days",
    "expected_purchases_next_90_days",
    "expected_purchases_next_365_days",
    "purchase_probability_30d",
    "probability_alive",
    "churn_probability",
    "warnings",
    "ignored_inputs",
}


@pytest.fixture(scope="module")
def toy_models(tmp_path_factory) -> Path:
    """A small real pair whose total is a booster's and whose summary model has every type."""
    folder = tmp_path_factory.mktemp("models")
    write_booster_pair(folder, CUSTOMERS, ["never"], summary=summary_members())
    return folder


def posted(client, path, body, status=200):
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.json
    return answer.json


def cents(money):
    return round(money * 100)


# ---- a known customer, and files of them


@pytest.mark.parametrize("customer_id", ["12345", 12345, 12345.0])
def test_a_known_customer_is_answered_by_total_and_category(client, customer_id):
    answer = posted(client, "/predict", {"customer_id": customer_id})
    assert answer.keys() >= OF_A_CUSTOMER
    assert answer["customer_id"] == "12345"
    spend = answer["predicted_30d_spend"]
    assert spend.keys() == {"total", "electronics", "grocery", "sports", "other"}
    assert sum(cents(money) for name, money in spend.items() if name != "total") == cents(spend["total"])
    assert answer["model_info"].keys() == {"trained_on", "num_features"}


def test_a_file_is_a_job_with_metadata_progress_and_statistics(client, run_queue):
    upload = {"file": (io.BytesIO(b"customer_id,name\n12345,A\n00042,B\n12345,A\n"), "customers.csv")}
    accepted = client.post("/bulk/predict", data=upload)
    assert accepted.status_code == 202
    job = accepted.json
    assert job.keys() >= {
        "job_id",
        "status",
        "metadata",
        "message",
        "estimated_time_seconds",
        "check_status_url",
        "download_url",
    }
    metadata = {
        "filename": "customers.csv",
        "total_rows": 3,
        "total_customers": 2,
        "columns": ["customer_id", "name"],
        "has_duplicates": True,
    }
    assert metadata.items() <= job["metadata"].items()
    run_queue()
    status = client.get(job["check_status_url"]).json
    assert status["status"] == "completed"
    progress = {"total": 3, "processed": 3, "successful": 3, "failed": 0, "percentage": 100.0}
    assert progress.items() <= status["progress"].items()
    assert status["statistics"].keys() >= {
        "total_predicted_spend",
        "average_predicted_spend",
        "min_predicted_spend",
        "max_predicted_spend",
        "currency",
        "rows",
        "distinct_customers",
    }
    header = client.get(job["download_url"]).text.splitlines()[0].split(",")
    assert header[:3] == ["customer_id", "name", "predicted_total_spend"]
    assert header[-2:] == ["status", "error"]


# ---- lifetime value from seven numbers


def test_seven_numbers_are_answered_with_lifetime_value_purchases_and_churn(client):
    answer = posted(client, "/predict", SEVEN)
    assert answer.keys() >= OF_A_SUMMARY
    assert (answer["customer_id"], answer["horizon_days"]) == ("CUST_001", 30)
    assert answer["predicted_clv"] == answer["predicted_30d_spend"]["total"] >= 0
    assert any("37.5" in warning for warning in answer["warnings"]), "36 days between purchases do not fit"
    if answer["probability_alive"] is not None:
        assert answer["churn_probability"] == pytest.approx(1 - answer["probability_alive"], abs=1e-4)


@pytest.mark.parametrize("model_type", ["xgboost", "lightgbm", "bg_nbd", "best"])
def test_each_documented_model_answers_seven_numbers(client, model_type):
    answer = posted(client, f"/predict?model_type={model_type}", SEVEN)
    assert answer["model_used"] == model_type or model_type == "best"
    assert answer["horizon_days"] == (365 if model_type == "bg_nbd" else 30)


def test_longer_horizons_never_contradict_shorter_ones(client):
    value = [posted(client, f"/predict?horizon_days={days}", SEVEN)["predicted_clv"] for days in (30, 90, 365)]
    assert value == sorted(value)


def test_who_somebody_is_does_not_count(client):
    answer = posted(client, "/predict", {**SEVEN, "age": 41, "gender": "F", "country": "IN"})
    assert {"age", "gender", "country"} <= {each["field"] for each in answer["ignored_inputs"]}
    assert answer["predicted_clv"] == posted(client, "/predict", SEVEN)["predicted_clv"]


@pytest.mark.parametrize(
    "impossible", [{"recency": 200}, {"monetary_value": -1}, {"total_orders": 6}, {"tenure": -1}, {"recency": -1}]
)
def test_the_impossible_is_refused_with_the_one_shape_of_errors(client, impossible):
    answer = posted(client, "/predict", {**SEVEN, **impossible}, 400)
    assert sorted(answer) == ["error", "message"]


def test_a_batch_says_how_many_and_by_what(client):
    answer = posted(client, "/predict/batch", [SEVEN, {"customer_id": "12345"}, "nobody"])
    assert answer.keys() >= {"predictions", "model_type", "total_predictions", "timestamp"}
    assert [("error" in row) for row in answer["predictions"]] == [False, False, True]


def test_training_sample_data_and_model_information_are_there(client):
    for path in ("/train/xgboost?n_samples=300&profile=quick", "/generate-sample-data?n_customers=50"):
        job = posted(client, path, {}, 202)
        status = client.get(f"/bulk/status/{job['job_id']}").json
        assert status["status"] == "queued"
    assert client.get("/model/info").status_code == 200


# ---- eighteen fields


def test_eighteen_fields_are_answered_and_what_may_not_be_used_is_listed(client):
    answer = posted(client, "/predict", EIGHTEEN)
    assert answer.keys() >= OF_A_SUMMARY
    ignored = {each["field"]: each["reason"] for each in answer["ignored_inputs"]}
    assert ignored.keys() >= {"segment_id", "loyalty_status", "total_loyalty_points"}
    assert all(ignored.values())


def test_a_category_that_nobody_has_seen_is_no_error(client):
    posted(client, "/predict", {**EIGHTEEN, "dominant_category": "Moon rocks"})


# ---- customer value and insight


def test_six_features_are_answered_with_segment_insight_and_action(client):
    answer = posted(client, "/predict_customer_value", SIX)
    assert answer.keys() >= {
        "customer_id",
        "predicted_future_spend_30d",
        "purchase_probability_30d",
        "customer_segment",
        "insight",
        "recommended_action",
        "insight_source",
    }
    assert answer["customer_id"] == "13085"
    assert answer["purchase_probability_30d"] == 0.83
    assert answer["customer_segment"] in ("Low Value", "Medium Value", "High Value")
    assert answer["insight_source"] == "rules"
    assert answer["insight"]
    assert answer["recommended_action"]


def test_six_features_by_name_are_the_same(client):
    names = ("total_spend", "avg_spend", "num_transactions", "total_units", "unique_products", "recency_days")
    by_name = {**SIX, "features": dict(zip(names, SIX["features"], strict=True))}
    assert posted(client, "/predict_customer_value", by_name) == posted(client, "/predict_customer_value", SIX)


# ---- raw histories


def test_a_raw_history_is_answered_as_a_known_customer_is(client):
    history = [
        {"transaction_date": "2025-11-02", "amount": 1200.5, "category": "Electronics", "quantity": 1},
        {"transaction_date": "2025-12-11", "amount": 310.0, "category": "Grocery", "quantity": 6},
        {"transaction_date": "2025-12-20", "amount": 95.25},
    ]
    answer = posted(client, "/predict", {"customer_id": "new", "transactions": history})
    assert answer.keys() >= OF_A_CUSTOMER
    refused = posted(client, "/predict", {"transactions": history, "as_of": "2025-12-20"}, 400)
    assert "2025-12-20" in refused["message"]
    posted(client, "/predict", {**SEVEN, "transactions": history}, 400)
