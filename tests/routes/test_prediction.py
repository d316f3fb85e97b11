import json
from dataclasses import replace

import jsonschema_rs
import pytest

from app import FORM_OVERHEAD_BYTES, create_app
from routes.context import JSON_LIMIT
from routes.prediction_messages import Explanation
from services.bootstrap import build_services
from tests.conftest import CUSTOMERS
from tests.ml_pipeline.booster_pair import write_booster_pair


def test_a_known_customer_is_answered_in_the_documented_shape(client):
    answer = client.post("/predict", json={"customer_id": CUSTOMERS[0]})
    assert answer.status_code == 200
    assert list(answer.json["predicted_30d_spend"]) == ["total", "electronics", "grocery", "sports", "other"]
    assert answer.json["horizon_days"] == 30
    assert "raw" not in answer.json
    assert "ignored_inputs" not in answer.json


def test_a_number_is_an_id_too(client):
    assert client.post("/predict", json={"customer_id": 12345}).json["customer_id"] == "12345"
    assert client.post("/predict", data='{"customer_id": 12345.0}', content_type="application/json").status_code == 200


@pytest.fixture(scope="module")
def booster_models(tmp_path_factory):
    """A models folder with a pair that can be explained; read-only."""
    folder = tmp_path_factory.mktemp("boosters")
    write_booster_pair(folder, ["B01", "B02", "B03"], ["never"])
    return folder


@pytest.fixture
def explaining(settings, queue, booster_models):
    built = build_services(replace(settings, models_dir=booster_models), queue)
    yield create_app(services=built).test_client()
    built.store.close()


def test_explain_adds_the_reasons_and_the_boosters_own_numbers(explaining):
    answer = explaining.post("/predict?explain=true", json={"customer_id": "B01"})
    assert answer.status_code == 200
    assert "xgboost_total_spend" in answer.json["raw"]
    explanation = answer.json["explanation"]
    assert set(explanation) == {
        "currency", "baseline", "reasons", "adjustment", "prediction", "contributions", "by_target",
    }  # fmt: skip
    assert explanation["prediction"] == answer.json["predicted_30d_spend"]["total"]
    assert set(explanation["reasons"][0]) == {"theme", "words", "amount", "features"}
    assert set(explanation["contributions"][0]) == {"feature", "value", "amount"}
    assert list(explanation["by_target"]) == ["electronics", "grocery", "sports", "other"]
    assert "explanation" not in explaining.post("/predict", json={"customer_id": "B01"}).json


def test_a_batch_can_be_explained_up_to_its_limit(explaining):
    rows = explaining.post("/predict/batch?explain=true", json=["B02", "nobody", "never"]).json["predictions"]
    assert rows[0] == explaining.post("/predict?explain=true", json={"customer_id": "B02"}).json
    assert [("explanation" in row) for row in rows] == [True, False, True]
    answer = explaining.post("/predict/batch?explain=true", json=["B01"] * 1_001)
    assert (answer.status_code, answer.json["error"]) == (413, "RequestTooLarge")
    assert "at most 1,000 are explained" in answer.json["message"]
    assert explaining.post("/predict/batch", json=["B01"] * 1_001).status_code == 200


def test_reasons_are_documented_with_their_limit_and_examples(client):
    document = client.get("/openapi.json").json
    schemas = document["components"]["schemas"]
    assert schemas["Explanation"]["properties"]["by_target"]["additionalProperties"] == {
        "$ref": "#/components/schemas/Account"
    }
    example = Explanation.model_validate(schemas["Explanation"]["example"])
    told = [example.baseline, example.adjustment, *(reason.amount for reason in example.reasons)]
    assert sum(told) == example.prediction
    query = {one["name"]: one for one in document["paths"]["/predict/batch"]["post"]["parameters"]}
    assert set(query) == {"explain", "model_type", "horizon_days"}
    assert "1,000" in query["explain"]["description"]


def test_an_unknown_customer_is_404(client):
    answer = client.post("/predict", json={"customer_id": "nobody"})
    assert (answer.status_code, answer.json["error"]) == (404, "UnknownCustomer")
    assert "'nobody'" in answer.json["message"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("", "MalformedJson"),
        ("{", "MalformedJson"),
        ('{"customer_id": "1"', "MalformedJson"),
        ('{"customer_id": NaN}', "MalformedJson"),
        ('{"customer_id": Infinity}', "MalformedJson"),
        ('{"customer_id": "\\ud800"}', "MalformedJson"),
        (b'{"customer_id": "\xff\xfe"}', "MalformedJson"),
        ("[" * 100_000, "MalformedJson"),
        ("1" * 10_000, "MalformedJson"),
        ('"text"', "InvalidRequest"),
        ("12345", "InvalidRequest"),
        ("null", "InvalidRequest"),
        ('"{\\"customer_id\\": \\"C00001\\"}"', "InvalidRequest"),
        ("[]", "InvalidRequest"),
        ("{}", "InvalidRequest"),
        ('{"customer_id": null}', "InvalidRequest"),
        ('{"customer_id": ""}', "InvalidRequest"),
        ('{"customer_id": {"a": 1}}', "InvalidRequest"),
        ('{"customer_id": [1]}', "InvalidRequest"),
        ('{"customer_id": true}', "InvalidRequest"),
        ('{"customer_id": "1", "transactions": [], "recency": 1}', "InvalidRequest"),
        ('{"recency": -30, "frequency": 5}', "InvalidRequest"),
        ('{"transactions": null}', "InvalidRequest"),
        ('{"transactions": {"transaction_date": "2025-01-01", "amount": 5}}', "InvalidRequest"),
        ('{"transactions": [{"transaction_date": "2025-01-01", "amount": 1e999}]}', "InvalidRequest"),
    ],
)
def test_a_body_that_makes_no_sense_is_400_with_words(client, body, name):
    answer = client.post("/predict", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (400, name)
    assert answer.json["message"].endswith((".", "…"))


def test_no_body_at_all_is_400(client):
    assert client.post("/predict").status_code == 400


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "multipart/form-data"]
)
def test_another_type_of_body_is_415_with_the_right_one(client, content_type):
    answer = client.post("/predict", data='{"customer_id": "1"}', content_type=content_type)
    assert (answer.status_code, answer.json["error"]) == (415, "UnsupportedMediaType")
    assert "application/json" in answer.json["message"]


def test_a_charset_beside_the_type_is_fine(client):
    answer = client.post(
        "/predict", data=json.dumps({"customer_id": CUSTOMERS[0]}), content_type="application/json; charset=utf-8"
    )
    assert answer.status_code == 200


def test_a_parameter_that_is_no_boolean_is_named(client):
    answer = client.post("/predict?explain=perhaps", json={"customer_id": CUSTOMERS[0]})
    assert answer.status_code == 400
    assert answer.json["message"] == "explain: true or false is needed here, not 'perhaps'."


def test_a_body_over_the_limit_is_413(client, settings):
    assert settings.max_upload_bytes + FORM_OVERHEAD_BYTES > JSON_LIMIT
    answer = client.post("/predict/batch", data=b"[" + b" " * JSON_LIMIT + b"]", content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (413, "RequestTooLarge")
    assert "16 MB" in answer.json["message"]


def test_a_batch_has_row_errors_in_their_place(client):
    answer = client.post("/predict/batch", json=[CUSTOMERS[0], "nobody", {"customer_id": 12345}])
    assert answer.status_code == 200
    rows = answer.json["predictions"]
    assert [row["customer_id"] for row in rows] == [CUSTOMERS[0], "nobody", "12345"]
    assert rows[1]["error"] == "UnknownCustomer"
    assert rows[0] == client.post("/predict", json={"customer_id": CUSTOMERS[0]}).json
    assert {"predictions", "model_type", "total_predictions", "timestamp"} <= set(answer.json)


def test_a_batch_that_is_no_list_is_400(client):
    answer = client.post("/predict/batch", json={"customer_id": "1"})
    assert answer.status_code == 400
    assert "JSON list" in answer.json["message"]


def test_model_info_and_performance_say_what_serves(client):
    info, performance = client.get("/model/info").json, client.get("/model/performance").json
    assert info["model_version"] == performance["model_version"]
    assert info["num_features"] == len(info["features"])
    assert performance["targets"]["total"]["best_rule"]


def test_without_a_model_predictions_are_503_and_the_way_out_is_said(settings, queue, tmp_path):
    client = create_app(services=build_services(replace(settings, models_dir=tmp_path / "none"), queue)).test_client()
    for answer in (
        client.post("/predict", json={"customer_id": "1"}),
        client.get("/model/info"),
        client.get("/bulk/template"),
    ):
        assert (answer.status_code, answer.json["error"]) == (503, "NoServingModel")
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health").status_code == 503
    assert client.get("/health/live").status_code == 200


# ---- the three ways in


HISTORY = {"transactions": [{"transaction_date": "2025-12-01", "amount": 40, "category": "Grocery", "note": "x"}]}
SUMMARY = {"customer_id": "S1", "recency": 30, "frequency": 5, "monetary_value": 1500.0, "tenure": 180}


def documented(client, path):
    """Checks a JSON value against the documented answer of a path."""
    document = client.get("/openapi.json").json
    schema = document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})


def test_a_raw_history_is_answered_in_the_shape_of_a_known_customer(explaining):
    answer = explaining.post("/predict?explain=true&model_type=bg_nbd", json=HISTORY)
    assert answer.status_code == 200
    assert {"predicted_30d_spend", "intervals", "explanation", "raw"} <= set(answer.json)
    assert [one["field"] for one in answer.json["ignored_inputs"]] == ["transactions[].note", "model_type"]
    assert answer.json["customer_id"] is None
    documented(explaining, "/predict").validate(answer.json)


def test_every_answer_of_a_mixed_batch_has_a_documented_shape(explaining):
    batch = ["B01", "never", "nobody", None, HISTORY, SUMMARY, {"transactions": []}, {**HISTORY, **SUMMARY}]
    for query in ("", "?explain=true", "?horizon_days=30"):
        answer = explaining.post(f"/predict/batch{query}", json=batch)
        assert answer.status_code == 200
        documented(explaining, "/predict/batch").validate(answer.json)
        rows = answer.json["predictions"]
        assert [row.get("error") for row in rows if "error" in row] == [
            "UnknownCustomer",
            "InvalidRequest",
            "InvalidRequest",
        ]
        assert rows[5]["predicted_clv"] == rows[5]["predicted_30d_spend"]["total"]
        assert rows[4]["cold_start_reason"] == "one_purchase"
        for place in (0, 4, 5):
            alone = explaining.post(f"/predict{query}", json=batch[place] if place else {"customer_id": "B01"})
            assert alone.json == rows[place]


def test_the_documented_examples_of_bodies_are_answered(explaining):
    document = explaining.get("/openapi.json").json
    for path in ("/predict", "/predict/batch"):
        for example in document["paths"][path]["post"]["requestBody"]["content"]["application/json"][
            "examples"
        ].values():
            answer = explaining.post(path, json=example["value"])
            assert answer.status_code == 200
            assert answer.json.get("failed", 0) == 0


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("model_type=random_forest", "model_type is 'random_forest'; there are"),
        ("horizon_days=60", "horizon_days is 60; it can be"),
        ("horizon_days=soon", "horizon_days: a whole number is needed here, not 'soon'"),
    ],
)
def test_a_model_or_horizon_that_there_is_not_is_400(client, query, words):
    for path, body in (("/predict", {"customer_id": CUSTOMERS[0]}), ("/predict/batch", [CUSTOMERS[0]])):
        answer = client.post(f"{path}?{query}", json=body)
        assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
        assert words in answer.json["message"]


def test_a_history_over_the_limit_is_413(client):
    answer = client.post("/predict", json={"transactions": HISTORY["transactions"] * 10_001})
    assert (answer.status_code, answer.json["error"]) == (413, "RequestTooLarge")
    (row,) = client.post("/predict/batch", json=[{"transactions": HISTORY["transactions"] * 10_001}]).json[
        "predictions"
    ]
    assert row["error"] == "RequestTooLarge"
