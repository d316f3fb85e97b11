"""Smoke client: `python test_api.py` describes customers by numbers and histories, trains, and makes sample data, over HTTP.

BASE_URL names the service (default http://127.0.0.1:5000); exits with 1 if something is not as documented. The training that
it asks for is a short one and never serves. Needs nothing but Python.
"""

import io
import sys
import zipfile
from typing import Any

from test import call, expect, finish, post_json, run_checks, template_rows

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
    "customer_id": "CUST_002",
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
HISTORY = {
    "customer_id": "CUST_003",
    "transactions": [
        {"transaction_date": "2024-03-02", "amount": 1200.5, "category": "Electronics", "quantity": 1},
        {"transaction_date": "2024-04-11", "amount": 310.0, "category": "Grocery", "quantity": 6},
        {"transaction_date": "2024-05-20", "amount": 95.25},
    ],
}
SIX = {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}
N_SAMPLES = 300
N_CUSTOMERS = 50
TRAINING_SECONDS = 600.0


def posted(path: str, body: Any, status: int = 200) -> Any:
    answer = post_json(path, body)
    expect(f"status of {path}", (answer.status, answer.json() if answer.status != status else None), (status, None))
    return answer.json()


def summary_numbers() -> str:
    answer = posted("/predict", SEVEN)
    expect("horizon of the best model", answer["horizon_days"], 30)
    if not any("37.5" in warning for warning in answer["warnings"]):
        raise AssertionError(f"36 days between purchases do not fit and nobody says so: {answer['warnings']}")
    return f"{answer['predicted_clv']:.2f} in 30 days by {answer['model_used']}"


def summary_models() -> str:
    clv = {
        name: posted(f"/predict?model_type={name}", SEVEN)["predicted_clv"]
        for name in ("xgboost", "lightgbm", "bg_nbd")
    }
    return ", ".join(f"{name} {amount:.2f}" for name, amount in clv.items())


def horizons() -> str:
    clv = [posted(f"/predict?horizon_days={days}", SEVEN)["predicted_clv"] for days in (30, 90, 365)]
    expect("lifetime values in order", clv, sorted(clv))
    return " < ".join(f"{amount:.2f}" for amount in clv)


def eighteen_fields() -> str:
    answer = posted("/predict", EIGHTEEN)
    ignored = {each["field"] for each in answer["ignored_inputs"]}
    expect("what may not be used", {"segment_id", "loyalty_status", "total_loyalty_points"} - ignored, set())
    return f"{answer['predicted_30d_spend']['total']:.2f}, {len(ignored)} inputs ignored"


def raw_history() -> str:
    answer = posted("/predict", HISTORY)
    spend = answer["predicted_30d_spend"]
    parts = sum(round(money * 100) for name, money in spend.items() if name != "total")
    expect("cents of the parts", parts, round(spend["total"] * 100))
    return f"{spend['total']:.2f} from {len(HISTORY['transactions'])} transactions as of {answer['as_of']}"


def refusals() -> str:
    impossible = posted("/predict", {**SEVEN, "recency": 200}, 400)
    posted("/predict", {**SEVEN, **HISTORY}, 400)
    posted("/predict?model_type=crystal_ball", SEVEN, 400)
    return f"400: {impossible['message']}"


def mixed_batch() -> str:
    known = template_rows()[0]["customer_id"]
    answer = posted(
        "/predict/batch", [known, {"customer_id": known}, SEVEN, EIGHTEEN, HISTORY, "there is no such customer"]
    )
    expect("entries", answer["total_predictions"], 6)
    expect("entries with an error", ["error" in row for row in answer["predictions"]], [False] * 5 + [True])
    return f"{answer['successful']} answered, {answer['failed']} with an error in its place"


def customer_value() -> str:
    answer = posted("/predict_customer_value", SIX)
    expect("probability by the documented rule", answer["purchase_probability_30d"], 0.83)
    return f"{answer['customer_segment']}, by {answer['insight_source']}: {answer['recommended_action']}"


def sample_data() -> str:
    job = posted(f"/generate-sample-data?n_customers={N_CUSTOMERS}", {}, 202)
    finish(job["check_status_url"])
    download = call("GET", f"/bulk/download/{job['job_id']}")
    expect("status of the download", download.status, 200)
    names = zipfile.ZipFile(io.BytesIO(download.body)).namelist()
    tables = sorted(name for name in names if name.endswith((".csv", ".csv.gz", ".parquet")))
    expect("status of the deletion", call("DELETE", f"/bulk/delete/{job['job_id']}").status, 200)
    return f"{len(tables)} tables of {N_CUSTOMERS} customers"


def training() -> str:
    job = posted(f"/train/xgboost?n_samples={N_SAMPLES}&profile=quick&promote=never", {}, 202)
    finished = finish(job["check_status_url"], TRAINING_SECONDS)
    expect("promoted", finished["statistics"]["promoted"], False)
    expect("status of the deletion", call("DELETE", f"/bulk/delete/{job['job_id']}").status, 200)
    return f"bundle {finished['statistics']['bundle']} in {finished['processing_time_seconds']} s"


def versions() -> str:
    listed = call("GET", "/model/versions").json()["versions"]
    serving = [each["bundle"] for each in listed if each["serving"]]
    expect("versions that serve", serving, [call("GET", "/model/info").json()["model_version"]])
    return f"{len(listed)} kept, {serving[0]} serves"


CHECKS = (
    summary_numbers,
    summary_models,
    horizons,
    eighteen_fields,
    raw_history,
    refusals,
    mixed_batch,
    customer_value,
    sample_data,
    training,
    versions,
)


if __name__ == "__main__":
    sys.exit(run_checks(CHECKS))
