import io
import json
import logging
from dataclasses import replace

import pytest

from app import create_app
from config import load_settings
from services.bootstrap import build_services
from services.logs import json_handler

ELSEWHERE = {"REMOTE_ADDR": "203.0.113.7"}


@pytest.fixture
def open_client(settings, queue):
    return create_app(services=build_services(replace(settings, allow_anonymous=True), queue)).test_client()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.5", "::1", "::ffff:127.0.0.1"])
def test_a_caller_on_this_machine_is_answered(client, address):
    assert client.get("/", environ_base={"REMOTE_ADDR": address}).status_code == 200


@pytest.mark.parametrize(
    "address", ["203.0.113.7", "10.0.0.1", "172.17.0.1", "2001:db8::1", "::ffff:10.0.0.1", "", "unix:"]
)
def test_a_caller_from_elsewhere_gets_401_with_the_way_out(client, address):
    answer = client.get("/bulk/jobs", environ_base={"REMOTE_ADDR": address})
    assert (answer.status_code, answer.json["error"]) == (401, "IdentityRequired")
    assert "ALLOW_ANONYMOUS=1" in answer.json["message"]


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded", "Via", "X-Real-IP"]
)
def test_a_proxy_on_this_machine_does_not_make_its_callers_local(client, header):
    assert client.get("/", headers={header: "127.0.0.1"}).status_code == 401


def test_probes_are_answered_wherever_they_come_from(client):
    assert client.get("/health/live", environ_base=ELSEWHERE).status_code == 200
    assert client.get("/health/ready", environ_base=ELSEWHERE).status_code == 200
    assert client.get("/health", environ_base=ELSEWHERE).status_code == 401


def test_everyone_is_answered_where_that_is_allowed_but_jobs_stay_apart(open_client):
    form = {"file": (io.BytesIO(b"customer_id\nC00001\n"), "a.csv")}
    url = open_client.post("/bulk/predict", data=form, environ_base=ELSEWHERE).json["check_status_url"]
    assert open_client.get(url, environ_base=ELSEWHERE).status_code == 200
    assert open_client.get(url).status_code == 404


def test_a_request_id_is_taken_over_or_made(client):
    assert client.get("/", headers={"X-Request-ID": "shop-42.a_B"}).headers["X-Request-ID"] == "shop-42.a_B"
    made = {client.get("/").headers["X-Request-ID"] for _ in range(2)}
    assert len(made) == 2


@pytest.mark.parametrize("offered", ["", "a b", "x" * 65, "{}", "é"])
def test_a_request_id_that_could_harm_a_log_is_replaced(client, offered):
    answer = client.get("/nothing", headers={"X-Request-ID": offered})
    assert answer.headers["X-Request-ID"] not in (offered, "")


def test_the_request_id_travels_into_the_job(client, services):
    form = {"file": (io.BytesIO(b"customer_id\nC00001\n"), "a.csv")}
    job_id = client.post("/bulk/predict", data=form, headers={"X-Request-ID": "shop-42"}).json["job_id"]
    assert services.store.get(job_id).request_id == "shop-42"


def test_one_json_line_per_request_with_ids_only(client):
    stream = io.StringIO()
    handler = json_handler()
    handler.setStream(stream)
    logger = logging.getLogger("routes.context")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    try:
        form = {"file": (io.BytesIO(b"customer_id,mail\nC00001,a@example.com\n"), "Erika Mustermann.csv")}
        client.post("/bulk/predict?note=secret", data=form, headers={"X-Request-ID": "shop-42"})
    finally:
        logger.removeHandler(handler)
        logger.setLevel("NOTSET")
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["method"], line["path"], line["status"], line["request_id"]) == (
        "POST",
        "/bulk/predict",
        202,
        "shop-42",
    )
    assert "Mustermann" not in stream.getvalue()
    assert "secret" not in stream.getvalue()


def preflight(client, origin: str):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options("/predict", headers=headers).headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize(
    ("environ", "origin", "allowed"),
    [
        ({}, "http://localhost:3000", False),
        ({}, "https://shop.example.com", False),
        ({"FLASK_ENV": "development"}, "http://localhost:3000", True),
        ({"FLASK_ENV": "development"}, "http://127.0.0.1:8501", True),
        ({"FLASK_ENV": "development"}, "http://localhost.evil.example", False),
        ({"CORS_ORIGINS": "https://shop.example.com"}, "https://shop.example.com", True),
        ({"CORS_ORIGINS": "https://shop.example.com"}, "https://shop.example.com.evil.example", False),
        ({"CORS_ORIGINS": "https://shop.example.com", "FLASK_ENV": "development"}, "http://localhost:3000", False),
    ],
)
def test_browsers_may_call_from_configured_origins_only(tmp_path, queue, environ, origin, allowed):
    settings = load_settings({"VAR_DIR": str(tmp_path), "LOG_LEVEL": "WARNING", **environ})
    client = create_app(services=build_services(settings, queue)).test_client()
    assert (preflight(client, origin) == origin) is allowed
