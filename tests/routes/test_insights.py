import io

import pytest

from tests.conftest import CUSTOMERS

PATH = "/insights/segment"


@pytest.fixture
def job(client):
    content = io.BytesIO(("customer_id\n" + "\n".join(CUSTOMERS[:9])).encode())
    return client.post("/bulk/predict", data={"file": (content, "customers.csv")}).json["job_id"]


def test_a_group_is_told_in_words_and_figures(client):
    answer = client.post(PATH, json={"customer_ids": [*CUSTOMERS[:5], "nobody"]})
    assert answer.status_code == 200
    assert list(answer.json) == [
        "customers", "unknown_ids", "predicted_30d_spend", "intervals", "expected_buyers", "mean_purchase_probability_30d",
        "segments", "flags", "insight", "recommended_action", "insight_source", "facts", "currency", "model_version", "as_of",
        "horizon_days",
    ]  # fmt: skip
    assert (answer.json["customers"], answer.json["unknown_ids"]["count"]) == (5, 1)
    assert answer.json["insight_source"] == "rules"


def test_the_examples_of_the_documentation_work_as_they_stand(client):
    document = client.get("/openapi.json").json
    (body,) = document["paths"][PATH]["post"]["requestBody"]["content"].values()
    assert set(body["examples"]) == {"segment", "customers", "everyone"}
    for example in body["examples"].values():
        assert client.post(PATH, json=example["value"]).status_code == 200


def test_a_job_is_told_when_it_is_completed(client, job, run_queue):
    early = client.post(PATH, json={"job_id": job})
    assert (early.status_code, early.json["error"]) == (409, "JobNotFinished")
    assert early.headers["Retry-After"] == "2"
    run_queue()
    answer = client.post(PATH, json={"job_id": job})
    assert (answer.status_code, answer.json["customers"], answer.json["job_id"]) == (200, 9, job)


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        ("{", 400, "MalformedJson"),
        ("[]", 400, "InvalidRequest"),
        ("{}", 400, "InvalidRequest"),
        ('{"all": true, "segment": "High Value"}', 400, "InvalidRequest"),
        ('{"as_sent": 1}', 400, "InvalidRequest"),
        ('{"customer_ids": ["nobody"]}', 404, "NoCustomers"),
        ('{"job_id": "nothing"}', 404, "UnknownJob"),
    ],
)
def test_a_body_that_makes_no_sense_has_the_one_shape_of_errors(client, body, status, name):
    answer = client.post(PATH, data=body, content_type="application/json")
    assert (answer.status_code, answer.json["error"]) == (status, name)
    assert set(answer.json) == {"error", "message"}


def test_another_type_of_body_is_refused(client):
    assert client.post(PATH, data="all", content_type="text/plain").status_code == 415
    assert client.get(PATH).status_code == 405
