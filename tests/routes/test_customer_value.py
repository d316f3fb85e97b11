import pytest

PATH = "/predict_customer_value"
DOCUMENTED = {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}


def test_the_documented_request_is_answered(client):
    answer = client.post(PATH, json=DOCUMENTED)
    assert answer.status_code == 200
    assert (answer.json["customer_id"], answer.json["purchase_probability_30d"]) == ("13085", 0.83)
    assert answer.json["insight_source"] == "rules"


def test_the_examples_of_the_documentation_work_as_they_stand(client):
    document = client.get("/openapi.json").json
    (body,) = document["paths"][PATH]["post"]["requestBody"]["content"].values()
    answers = [client.post(PATH, json=example["value"]) for example in body["examples"].values()]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json == answers[1].json


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        ("{", 400, "MalformedJson"),
        ("[]", 400, "InvalidRequest"),
        ("{}", 400, "InvalidRequest"),
        ('{"customer_id": "1", "features": [1, 2]}', 400, "InvalidRequest"),
        ('{"customer_id": "1", "features": [NaN, 1, 1, 1, 1, 1]}', 400, "MalformedJson"),
        ('{"customer_id": "1", "features": [1e999, 1, 1, 1, 1, 1]}', 400, "InvalidRequest"),
        ('{"customer_id": [1], "features": [1, 1, 1, 1, 1, 1]}', 400, "InvalidRequest"),
        ('{"as_sent": 1, "model_config": 2}', 400, "InvalidRequest"),
    ],
)
def test_a_body_that_makes_no_sense_has_the_one_shape_of_errors(client, body, status, name):
    answer = client.post(PATH, data=body, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (status, name)
    assert set(answer.json) == {"error", "message"}


def test_the_order_of_the_six_is_documented(client):
    document = client.get("/openapi.json").json
    features = document["components"]["schemas"]["ValueRequest"]["properties"]["features"]
    in_order, by_name = features["anyOf"]
    names = ["total_spend", "avg_spend", "num_transactions", "total_units", "unique_products", "recency_days"]
    assert in_order["description"] == f"In this order: {', '.join(names)}."
    assert (in_order["minItems"], in_order["maxItems"], by_name["required"]) == (6, 6, names)
