"""Server-sent events: their form with a client of the app, and what many of them do to a real server."""

import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from config import Settings, load_settings
from tests.conftest import CUSTOMERS, accepts, environment_of, for_servers, free_port, programs, wait_until

CONTENT = f"customer_id\n{CUSTOMERS[0]}\nnobody\n".encode()
THREADS = 8


@dataclass
class Seen:
    """What a stream said: its retry times, events in order as (name, id, content), and comments."""

    retries: list[int]
    events: list[tuple[str, int, dict]]
    comments: int


def read_stream(text: str) -> Seen:
    seen = Seen([], [], 0)
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        seen.comments += block.startswith(":")
        if "retry" in fields:
            seen.retries.append(int(fields["retry"]))
        if "event" in fields:
            seen.events.append((fields["event"], int(fields["id"]), json.loads(fields["data"])))
    return seen


@pytest.fixture
def job_id(client):
    return client.post("/bulk/predict", data={"file": (io.BytesIO(CONTENT), "a.csv")}).json["job_id"]


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr("services.job_events.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("services.job_events.HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr("services.job_events.STREAM_SECONDS", 0.2)


def test_a_job_is_followed_to_its_end_and_then_there_is_nothing_more_to_come(client, job_id, run_queue):
    def work_later() -> None:
        time.sleep(0.7)
        run_queue()

    worker = threading.Thread(target=work_later)
    worker.start()
    answer = client.get(f"/bulk/events/{job_id}")
    seen = read_stream(answer.text)
    worker.join()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-cache", "no")
    assert seen.retries == [500]
    names = [name for name, _number, _content in seen.events]
    assert (names[0], names[-1]) == ("progress", "completed")
    numbers = [number for _name, number, _content in seen.events]
    assert numbers == sorted(set(numbers))
    status = client.get(f"/bulk/status/{job_id}").json
    last = seen.events[-1][2]
    assert last == {name: status[name] for name in ("job_id", "kind", "status", "progress", "download_url")}
    over = client.get(f"/bulk/events/{job_id}", headers={"Last-Event-ID": str(numbers[-1])})
    assert (over.status_code, over.data) == (204, b"")
    missed = read_stream(client.get(f"/bulk/events/{job_id}", headers={"Last-Event-ID": str(numbers[0])}).text)
    assert missed.events == [("completed", numbers[-1], last)]


def test_a_failed_job_ends_with_its_reason(client, job_id, services):
    _job, _step, lease = services.steps.claim(job_id, "w")
    services.steps.fail(lease, "StorageFull", "There is no space left.")
    ((name, _number, content),) = read_stream(client.get(f"/bulk/events/{job_id}").text).events
    assert (name, content["error"], content["message"]) == ("failed", "StorageFull", "There is no space left.")


def test_a_stream_of_a_job_that_waits_ends_after_a_while_and_goes_on(client, job_id, brief):
    first = read_stream(client.get(f"/bulk/events/{job_id}").text)
    assert [name for name, _number, _content in first.events] == ["progress"]
    assert first.comments >= 3
    number = first.events[0][1]
    second = read_stream(client.get(f"/bulk/events/{job_id}", headers={"Last-Event-ID": str(number)}).text)
    assert second.events[0][1] > number


@pytest.mark.parametrize("odd", ["", "x", "-5", "9" * 40, "½"])
def test_a_last_event_that_is_none_of_ours_counts_for_nothing(client, job_id, run_queue, odd):
    run_queue()
    answer = client.get(f"/bulk/events/{job_id}", headers={"Last-Event-ID": odd})
    assert [name for name, _number, _content in read_stream(answer.text).events] == ["completed"]


def test_a_stream_too_many_has_the_state_of_now_and_asks_to_poll(client, job_id, brief):
    client.application.config["EVENT_STREAMS"] = 0
    began = time.monotonic()
    seen = read_stream(client.get(f"/bulk/events/{job_id}").text)
    assert time.monotonic() - began < 0.15
    assert seen.retries == [3000]
    assert [name for name, _number, _content in seen.events] == ["progress"]


def test_every_stream_gives_its_slot_back(client, job_id, brief):
    client.application.config["EVENT_STREAMS"] = 1
    for _ in range(3):
        with client.get(f"/bulk/events/{job_id}") as answer:
            assert read_stream(answer.text).retries == [500]
        client.head(f"/bulk/events/{job_id}").close()
        client.get(f"/bulk/events/{job_id}").close()


# ---- a real server


@pytest.fixture(scope="module")
def web_settings(tmp_path_factory, toy_models, redis_url) -> Settings:
    folders = {"VAR_DIR": str(tmp_path_factory.mktemp("var")), "MODELS_DIR": str(toy_models)}
    return for_servers(load_settings({**folders, "PORT": str(free_port())}), redis_url)


@pytest.fixture(scope="module")
def web(web_settings, tmp_path_factory) -> Iterator[tuple[int, int]]:
    """The port of a server of one process, and its pid. Nobody works on its jobs."""
    environ = environment_of(web_settings, PORT=str(web_settings.port))
    with programs(tmp_path_factory.mktemp("web")) as start:
        program = start(["gunicorn", "-w", "1", "app:create_app()"], environ)
        wait_until(lambda: accepts(web_settings.port) or program.process.poll() is not None, "the start of gunicorn")
        assert program.process.poll() is None, program.log.read_text()
        yield web_settings.port, program.pid


def call(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    connection.close()
    return answer.status, content


@pytest.fixture
def waiting_job(web) -> str:
    head = '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
    form = head.encode() + CONTENT + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, job = call(web[0], "POST", "/bulk/predict", form, **kind)
    assert status == 202
    return job["job_id"]


@contextmanager
def open_stream(port: int, job_id: str) -> Iterator[tuple[int, http.client.HTTPResponse]]:
    """(retry, the answer after its first line)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", f"/bulk/events/{job_id}")
    answer = connection.getresponse()
    try:
        yield int(answer.readline().split(b": ")[1]), answer
    finally:
        answer.close()
        connection.close()


@pytest.mark.server
def test_streams_without_end_do_not_keep_others_from_being_answered_and_free_their_threads(web, waiting_job):
    port = web[0]
    with ExitStack() as streams:
        retries = [streams.enter_context(open_stream(port, waiting_job))[0] for _ in range(3 * THREADS)]
        assert sorted(retries) == [500] * (THREADS // 2) + [3000] * (3 * THREADS - THREADS // 2)
        for path in ("/health", "/health/live", f"/bulk/status/{waiting_job}"):
            began = time.monotonic()
            assert call(port, "GET", path)[0] == 200
            assert time.monotonic() - began < 2
        body = json.dumps({"customer_id": CUSTOMERS[0]}).encode()
        assert call(port, "POST", "/predict", body, **{"Content-Type": "application/json"})[0] == 200

    def is_free() -> bool:
        with open_stream(port, waiting_job) as (retry, _answer):
            return retry == 500

    wait_until(is_free, "a slot after all clients had gone", seconds=8)


@pytest.mark.server
def test_events_come_when_they_happen(web, waiting_job):
    with open_stream(web[0], waiting_job) as (_retry, answer):
        lines = iter(answer.readline, b"")
        assert next(line for line in lines if line.startswith(b"event")) == b"event: progress\n"
        cancelled = time.monotonic()
        assert call(web[0], "POST", f"/bulk/cancel/{waiting_job}")[0] == 200
        assert next(line for line in lines if line.startswith(b"event")) == b"event: cancelled\n"
        assert time.monotonic() - cancelled < 2


@pytest.mark.server
def test_a_server_that_is_told_to_stop_does_not_wait_for_its_streams(web_settings, start_program, waiting_job):
    port = free_port()
    program = start_program(
        ["gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}", "app:create_app()"], environment_of(web_settings)
    )
    wait_until(lambda: accepts(port), "the start of gunicorn")
    with open_stream(port, waiting_job) as (_retry, answer):
        asked = time.monotonic()
        program.process.terminate()
        assert answer.read().endswith(b": this stream ends here; connect again to go on\n\n")
        program.process.wait(timeout=10)
        assert time.monotonic() - asked < 5
