import json

import pytest

from services.sum_service import IDS_LIMIT
from tests.conftest import CUSTOMERS


def cents(money: float) -> int:
    return round(money * 100)


def test_a_sum_comes_with_its_interval_and_its_parts_add_up(client):
    answer = client.post("/predict/sum", json={"customer_ids": [*CUSTOMERS[:5], "nobody"]})
    assert answer.status_code == 200
    spend = answer.json["predicted_30d_spend"]
    assert cents(spend["total"]) == sum(cents(money) for name, money in spend.items() if name != "total")
    assert set(answer.json["intervals"]) == set(spend)
    for name, interval in answer.json["intervals"].items():
        assert 0 <= interval["lower"] <= spend[name] <= interval["upper"]
    assert answer.json["coverage"] == 0.8
    assert (answer.json["customers"], answer.json["unknown_ids"]["count"]) == (5, 1)


def test_the_examples_of_the_documentation_work_as_they_stand(client):
    document = client.get("/openapi.json").json
    (body,) = document["paths"]["/predict/sum"]["post"]["requestBody"]["content"].values()
    assert set(body["examples"]) == {"segment", "customers", "everyone"}
    for example in body["examples"].values():
        assert client.post("/predict/sum", json=example["value"]).status_code == 200


def test_an_empty_object_is_everyone(client):
    assert client.post("/predict/sum", json={}).json["customers"] == len(CUSTOMERS)


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        ("{", 400, "MalformedJson"),
        ("[]", 400, "InvalidRequest"),
        ("", 400, "MalformedJson"),
        ('{"all": false}', 400, "InvalidRequest"),
        ('{"segment": "VIP"}', 400, "InvalidRequest"),
        ('{"customer_ids": {"a": 1}}', 400, "InvalidRequest"),
        ('{"customer_ids": [NaN]}', 400, "MalformedJson"),
        ('{"customer_ids": ["1"], "all": true}', 400, "InvalidRequest"),
        ('{"as_sent": 1, "model_config": 2}', 400, "InvalidRequest"),
        (json.dumps({"customer_ids": ["C1"] * (IDS_LIMIT + 1)}), 413, "RequestTooLarge"),
    ],
)
def test_a_body_that_makes_no_sense_has_the_one_shape_of_errors(client, body, status, name):
    answer = client.post("/predict/sum", data=body, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (status, name)
    assert set(answer.json) == {"error", "message"}


def test_what_lies_outside_is_told_with_the_prediction(client):
    """Customers 3, 10, 17, … of the toy are flagged; their lifetime spend goes up to 1 and was trained on 0 to 0.5."""
    answers = client.post("/predict/batch", json=list(CUSTOMERS)).json["predictions"]
    flagged = [answer for answer in answers if answer["extrapolated"]]
    assert [CUSTOMERS.index(answer["customer_id"]) for answer in flagged] == list(range(3, len(CUSTOMERS), 7))
    assert all("extrapolated_features" not in answer for answer in answers if not answer["extrapolated"])
    told = [one for answer in flagged for one in answer["extrapolated_features"]]
    assert told
    assert any(answer["extrapolated_features"] == [] for answer in flagged)
    for one in told:
        assert (one["feature"], one["trained"]) == ("lifetime_spend", [0.0, 0.5])
        assert 0.55 < one["value"] < 1
