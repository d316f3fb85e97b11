import re

import pytest

from app import create_app

UNDOCUMENTED = {"/openapi.json", "/docs", "/docs/assets/<path:name>"}


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json


def test_every_route_is_in_the_documentation(services, document):
    missing = []
    for rule in create_app(services=services).url_map.iter_rules():
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        offered = {method.lower() for method in rule.methods or () if method not in ("HEAD", "OPTIONS")}
        if rule.rule not in UNDOCUMENTED:
            missing += [f"{method} {path}" for method in offered - set(document["paths"].get(path, {}))]
    assert missing == []


def operations(document):
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_has_words_and_the_one_error_shape(document):
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        answers = operation["responses"]
        assert "422" not in answers, name
        assert {"400", "401", "500"} <= set(answers), name
        for status, answer in answers.items():
            if int(status) >= 400 and "health" not in name:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, f"{name} {status}"
    error = document["components"]["schemas"]["ErrorAnswer"]
    assert set(error["required"]) == {"error", "message"}


def test_the_document_is_openapi_3_1_and_every_reference_is_defined(document):
    assert document["openapi"].startswith("3.1")
    references = set(re.findall(r"#/components/schemas/([\w.\-]+)", str(document)))
    assert references <= set(document["components"]["schemas"])


def test_the_page_offers_no_login_where_there_is_none(document):
    assert set(document["components"]) == {"schemas"}


def test_the_body_of_predict_is_documented_as_one_of_three_shapes_with_an_example_of_each(document):
    ways = document["components"]["schemas"]["PredictRequest"]["anyOf"]
    assert [way["title"] for way in ways] == ["KnownCustomer", "Summary", "RawHistory"]
    (body,) = document["paths"]["/predict"]["post"]["requestBody"]["content"].values()
    assert set(body["examples"]) == {"known_customer", "summary", "eighteen_fields", "history"}
    assert set(body["examples"]["known_customer"]["value"]) == {"customer_id"}


def test_the_upload_is_documented_as_a_form_with_a_file(document):
    (content,) = document["paths"]["/bulk/predict"]["post"]["requestBody"]["content"].items()
    assert content[0] == "multipart/form-data"
    assert document["components"]["schemas"]["UploadForm"]["properties"]["file"]["format"] == "binary"


def test_what_a_bulk_job_takes_beside_its_file_is_documented(document):
    def parameters(path: str, method: str) -> set[tuple[str, str]]:
        return {(one["in"], one["name"]) for one in document["paths"][path][method]["parameters"]}

    upload = {("query", "sheet"), ("query", "webhook_url"), ("query", "high_value_over"), ("header", "Idempotency-Key")}
    assert parameters("/bulk/predict", "post") == upload
    assert ("header", "Last-Event-ID") in parameters("/bulk/events/{job_id}", "get")
    events = document["paths"]["/bulk/events/{job_id}"]["get"]["responses"]
    assert set(events["200"]["content"]) == {"text/event-stream"}
    assert "content" not in events["204"]


def test_the_page_and_its_files_come_from_here_alone(client):
    page = client.get("/docs")
    assert page.status_code == 200
    assert re.findall(r"(?:https?:)?//[a-z]", page.text) == []
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(assets) == 2
    for asset in assets:
        assert client.get(asset).status_code == 200
    assert "validatorUrl: null" in page.text


def test_no_file_outside_the_page_is_served(client):
    assert client.get("/docs/assets/../../../app.py").status_code == 404
    assert client.get("/docs/assets/%2e%2e/plugins.py").status_code == 404


def test_the_index_lists_every_documented_endpoint(client, document):
    listed = client.get("/").json["endpoints"]
    assert set(listed) == {name for name, _operation in operations(document)}


def nulls(part, within=None, path=()):
    if part is None and not (path[-1] == "default" and {"type": "null"} in within.get("anyOf", ())):
        yield path
    for name, inner in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from nulls(inner, part, (*path, name))


def test_the_document_has_nulls_only_as_defaults_of_what_may_be_null(document):
    assert list(nulls(document)) == []


def test_the_ids_of_the_examples_are_those_of_customers(client, document):
    def examples(path):
        return document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]

    assert client.post("/predict", json=examples("/predict")["known_customer"]["value"]).status_code == 200
    assert client.post("/predict/batch", json=examples("/predict/batch")["ids"]["value"]).json["failed"] == 0
