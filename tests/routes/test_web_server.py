"""The app under a real gunicorn, as it is documented to be started."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import ROOT, Settings, load_settings
from tests.conftest import (
    CUSTOMERS,
    ServerProcess,
    accepts,
    environment_of,
    for_servers,
    free_port,
    programs,
    wait_until,
)

pytestmark = pytest.mark.server

BOUNDARY = "XyZ"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.fixture(scope="module")
def web_settings(tmp_path_factory, toy_models, redis_url) -> Settings:
    folders = {"VAR_DIR": str(tmp_path_factory.mktemp("var")), "MODELS_DIR": str(toy_models)}
    return for_servers(load_settings({**folders, "PORT": str(free_port())}), redis_url)


@pytest.fixture(scope="module")
def server(web_settings, tmp_path_factory) -> Iterator[ServerProcess]:
    environ = environment_of(web_settings, PORT=str(web_settings.port), MAX_UPLOAD_MB="2")
    with programs(tmp_path_factory.mktemp("web")) as start:
        program = start(["gunicorn", "-w", "2", "app:create_app()"], environ)
        wait_until(lambda: accepts(web_settings.port) or program.process.poll() is not None, "the start of gunicorn")
        assert program.process.poll() is None, program.log.read_text()
        yield program


@pytest.fixture(scope="module")
def port(web_settings, server) -> int:
    return web_settings.port


@pytest.fixture(scope="module")
def log(server) -> Path:
    return server.log


def send_form(connection: http.client.HTTPConnection, megabytes: int, chunked: bool) -> http.client.HTTPResponse:
    def body():
        yield HEAD
        for _ in range(megabytes):
            yield b"x" * 1_000_000
        yield TAIL

    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    if not chunked:
        headers["Content-Length"] = str(len(HEAD) + len(TAIL) + megabytes * 1_000_000)
    connection.request("POST", "/bulk/predict", body=body(), headers=headers, encode_chunked=chunked)
    return connection.getresponse()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("megabytes", [3, 60])
def test_a_body_over_the_limit_is_answered_413_on_a_connection_that_still_works(port, megabytes, chunked):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    answer = send_form(connection, megabytes, chunked)
    assert answer.status == 413
    assert json.loads(answer.read())["error"] == "RequestTooLarge"
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("chunks", [b"Maria\r\n", b"3\r\nMaria Muster\r\n", b"5;\x01\r\nMaria\r\n"])
@pytest.mark.parametrize(("path", "status"), [("/bulk/predict", 400), ("/nothing", 404)])
def test_a_body_whose_chunks_are_broken_is_refused_and_not_quoted_in_the_log(port, log, chunks, path, status):
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
    before = len(log.read_text())
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n")
        answered = b""
        while block := connection.recv(65536):
            answered += block
    assert answered.startswith(f"HTTP/1.1 {status} ".encode())
    assert set(json.loads(answered.partition(b"\r\n\r\n")[2])) == {"error", "message"}
    wait_until(lambda: "request answered" in log.read_text()[before:], "the line of the request")
    assert "Traceback" not in log.read_text()[before:]
    assert "Maria" not in log.read_text()[before:]


def test_a_body_for_a_route_that_does_not_take_it_is_answered_on_a_connection_that_still_works(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/nothing", body=b"x" * 1_500_000)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]) == (404, "UnknownRoute")
    connection.request("GET", "/health/live")
    assert connection.getresponse().status == 200


def test_many_callers_at_once_get_their_own_customers(port):
    from concurrent.futures import ThreadPoolExecutor

    def ask(customer_id: str) -> tuple[str, int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        body = json.dumps({"customer_id": customer_id})
        connection.request("POST", "/predict", body=body, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        return json.loads(answer.read())["customer_id"], answer.status

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, CUSTOMERS * 4)) == [(customer_id, 200) for customer_id in CUSTOMERS * 4]


@pytest.mark.parametrize(
    "stalled",
    [
        b"GET /health/live HT",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
    ],
    ids=["head", "body"],
)
def test_a_client_that_goes_silent_does_not_hold_its_thread_for_ever(web_settings, start_program, tmp_path, stalled):
    number = free_port()
    config = tmp_path / "impatient.conf.py"
    config.write_text((ROOT / "gunicorn.conf.py").read_text() + "\nSTALLED_SECONDS = 1\n")
    command = ["gunicorn", "-c", str(config), "-w", "1", "--threads", "1", "-b", f"127.0.0.1:{number}"]
    start_program([*command, "app:create_app()"], environment_of(web_settings))
    wait_until(lambda: accepts(number) or time.sleep(0.1), "the start of gunicorn")
    with socket.create_connection(("127.0.0.1", number)) as silent:
        silent.sendall(stalled)
        connection = http.client.HTTPConnection("127.0.0.1", number, timeout=20)
        connection.request("GET", "/health/live")
        assert connection.getresponse().status == 200


def test_the_smoke_client_passes_with_a_worker_and_fails_without_a_service(port, web_settings, start_program):
    worker = start_program(["celery", "-A", "worker", "worker", "-c", "1"], environment_of(web_settings))
    wait_until(lambda: "ready." in worker.log.read_text() or time.sleep(0.1), "the start of the worker")
    command = [sys.executable, "test.py"]
    environ = {**os.environ, "BASE_URL": f"http://127.0.0.1:{port}"}
    good = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert good.returncode == 0, good.stdout
    assert "5 of 5 checks passed" in good.stdout
    environ["BASE_URL"] = "http://127.0.0.1:1"
    bad = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert bad.returncode == 1
    assert "Traceback" not in bad.stdout + bad.stderr


def refused_by_gunicorn(port: int, request: bytes) -> tuple[int, dict[str, str], dict[str, str]]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        link.sendall(request)
        answer = http.client.HTTPResponse(link)
        answer.begin()
        return answer.status, dict(answer.getheaders()), json.loads(answer.read())


@pytest.mark.parametrize(
    ("request_head", "name"),
    [
        (b"GET /bulk/jobs?cursor=" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: here\r\n\r\n", "AddressTooLong"),
        (b"GET /health HTTP/1.1\r\nHost: here\r\nCookie: " + b"x" * 10_000 + b"\r\n\r\n", "HeadersTooLarge"),
        (b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", "HeadersTooLarge"),
        (b"GET /health?email=a@example.com\r\n\r\n", "MalformedRequest"),
        (b"GET /health HTTP/1.1\r\nBad Header: a@example.com\r\n\r\n", "MalformedRequest"),
        (b"POST /predict HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: mist\r\n\r\n", "MalformedRequest"),
        (
            b"POST /predict HTTP/1.1\r\nHost: here\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\n{}",
            "MalformedRequest",
        ),
    ],
)
def test_what_gunicorn_itself_refuses_has_the_shape_of_every_error(port, log, request_head, name):
    status, headers, body = refused_by_gunicorn(port, request_head)
    assert (status, headers["Content-Type"]) == (400, "application/json")
    assert (body["error"], sorted(body)) == (name, ["error", "message"])
    assert "example.com" not in body["message"] + log.read_text()
