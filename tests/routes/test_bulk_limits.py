"""Large files that are refused, by a real server: the answer arrives, and the connection can be used again."""

import http.client
import json
from collections.abc import Iterator

import pytest

from config import load_settings
from tests.conftest import CUSTOMERS, accepts, environment_of, for_servers, free_port, programs, wait_until

pytestmark = pytest.mark.server

MB = 1_000_000
HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\ncustomer_id\n'
TAIL = b"\r\n--x--\r\n"
LINE = f"{CUSTOMERS[0]}\n".encode()


@pytest.fixture(scope="module")
def connection(tmp_path_factory, toy_models, redis_url) -> Iterator[http.client.HTTPConnection]:
    """One connection to a server that takes 30 MB and one job at a time, which nobody works on."""
    folders = {"VAR_DIR": str(tmp_path_factory.mktemp("var")), "MODELS_DIR": str(toy_models)}
    settings = for_servers(load_settings({**folders, "PORT": str(free_port())}), redis_url)
    environ = environment_of(settings, PORT=str(settings.port), MAX_UPLOAD_MB="30", MAX_JOBS_PER_CALLER="1")
    with programs(tmp_path_factory.mktemp("web")) as start:
        program = start(["gunicorn", "-w", "1", "app:create_app()"], environ)
        wait_until(lambda: accepts(settings.port) or program.process.poll() is not None, "the start of gunicorn")
        assert program.process.poll() is None, program.log.read_text()
        opened = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=30)
        opened.connect()
        yield opened
        opened.close()


def send(connection: http.client.HTTPConnection, size: int) -> http.client.HTTPResponse:
    body = HEAD + LINE * (size // len(LINE)) + TAIL
    connection.request("POST", "/bulk/predict", body, {"Content-Type": "multipart/form-data; boundary=x"})
    return connection.getresponse()


def test_large_files_are_refused_with_the_limit_and_the_connection_goes_on(connection):
    socket = connection.sock
    too_large = send(connection, 33 * MB)
    said = json.loads(too_large.read())
    assert (too_large.status, said["error"]) == (413, "RequestTooLarge")
    assert "30 MB" in said["message"]

    first = send(connection, 100)
    assert (first.status, json.loads(first.read())["status"]) == (202, "queued")

    too_many = send(connection, 30 * MB)
    said = json.loads(too_many.read())
    assert (too_many.status, said["error"]) == (429, "TooManyJobs")
    assert said["message"].startswith("1 of your jobs")
    assert too_many.headers["Retry-After"]

    connection.request("GET", "/bulk/jobs")
    listed = connection.getresponse()
    assert (listed.status, json.loads(listed.read())["count"]) == (200, 1)
    assert connection.sock is socket, "a connection was closed and opened anew"
