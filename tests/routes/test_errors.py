import inspect

import pytest

import ml_pipeline.errors
import services.errors
from app import create_app
from routes.errors import STATUS, status_of

BASES = {"ServiceError", "PipelineError"}


def error_classes() -> list[type[Exception]]:
    return [
        found
        for module in (services.errors, ml_pipeline.errors)
        for name, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and found.__module__ == module.__name__ and name not in BASES
    ]


@pytest.mark.parametrize("problem", error_classes(), ids=lambda problem: problem.__name__)
def test_every_error_has_a_status(problem):
    assert status_of(problem) is not None, f"{problem.__name__} is missing in routes.errors.STATUS"


def test_the_table_gives_no_status_to_everything():
    assert status_of(services.errors.ServiceError) is None
    assert status_of(RuntimeError) is None
    assert all(400 <= status < 600 and status != 422 for status in STATUS.values())


@pytest.fixture
def app(services):
    app = create_app(services=services)

    @app.route("/crash")
    def crash():
        raise RuntimeError("the secret of the house")

    return app


def test_an_error_of_our_own_is_500_without_its_text_or_trace(app, caplog):
    answer = app.test_client().get("/crash", headers={"X-Request-ID": "request-9"})
    assert answer.status_code == 500
    assert set(answer.json) == {"error", "message"}
    assert answer.json["error"] == "InternalError"
    assert "request-9" in answer.json["message"]
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert "the secret of the house" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nothing", 404, "UnknownRoute"),
        ("GET", "/bulk/", 404, "UnknownRoute"),
        ("GET", "/predict", 405, "MethodNotAllowed"),
        ("DELETE", "/health", 405, "MethodNotAllowed"),
        ("POST", "/bulk/jobs", 405, "MethodNotAllowed"),
        ("GET", "/bulk/status/nothing", 404, "UnknownJob"),
    ],
)
def test_what_is_not_there_is_said_in_the_one_shape(client, method, path, status, name):
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert answer.json["error"] == name
    assert set(answer.json) == {"error", "message"}
    if status == 405:
        assert answer.headers["Allow"]


def test_a_slash_at_the_end_changes_nothing(client):
    assert client.get("/health/live/").status_code == 200
