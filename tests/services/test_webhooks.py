import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services import webhooks
from services.errors import LeaseLost, WebhookRefused
from services.job_table import CANCELLED, COMPLETED, DONE, FAILED, NOTIFY, READ, WAITING, Job, Lease, NewJob, Step
from services.step_store import NOTIFY_WAITS_SECONDS
from services.stores import open_job_tables
from services.webhooks import Webhooks
from tests.conftest import free_port

SECRET = "a-long-random-text"


@dataclass
class Receiver:
    """A real HTTP server that answers with the statuses it is given, one after the other, and keeps what it was sent."""

    url: str
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    received: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.received.append((self.path, dict(self.headers.items()), body))
            self.send_response(told.statuses.pop(0) if told.statuses else 200)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_line: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told = Receiver(f"http://127.0.0.1:{server.server_port}/hooks/spend?shop=1")
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield told
        server.shutdown()


@pytest.fixture
def tables(settings):
    store, steps = open_job_tables(settings)
    yield store, steps
    store.close()


@pytest.fixture
def hooks(settings, tables) -> Webhooks:
    allowed = replace(
        settings, webhook_secret=SECRET, webhook_hosts=("127.0.0.1", "Hooks.Example.com", "shop.test:8443")
    )
    return Webhooks(allowed, tables[1])


@pytest.fixture
def ended_job(tables) -> Callable[..., str]:
    """A job that has ended and whose webhook is to be told."""
    store, steps = tables

    def make(url: str, status: str = COMPLETED) -> str:
        job = store.add(NewJob("bulk_predict", "local", "r", READ, parameters={"webhook_url": url}, rows_total=4))
        _job, _step, lease = steps.claim(job.job_id, "w")
        if status == COMPLETED:
            steps.complete(lease, "result", {"total_predicted_spend": 12.5})
        elif status == FAILED:
            steps.fail(lease, "CorruptFile", "The file ends in the middle.")
        else:
            store.cancel(job.job_id)
        return job.job_id

    return make


@pytest.fixture
def claim(tables, monkeypatch) -> Callable[[str], tuple[Job, Step, Lease]]:
    """Takes the notification of a job, however long it is put off."""
    _store, steps = tables
    database = steps._database
    now = database.now

    def take(job_id: str) -> tuple[Job, Step, Lease]:
        with monkeypatch.context() as later:
            later.setattr(database, "now", lambda connection: now(connection) + 100_000)
            return steps.claim(job_id, "w")

    return take


def notification(tables, job_id: str) -> Step:
    (step,) = [step for step in tables[0].steps(job_id) if step.kind == NOTIFY]
    return step


def seconds_put_off(step: Step) -> float:
    return step.not_before - step.updated_at


# ---- what is sent


def test_the_receiver_can_tell_who_sent_it_and_that_nothing_was_changed(hooks, receiver, ended_job, claim):
    hooks.deliver(*claim(ended_job(receiver.url)))
    ((path, headers, body),) = receiver.received
    assert path == "/hooks/spend?shop=1"
    signed = hmac.digest(SECRET.encode(), headers["X-Webhook-Timestamp"].encode() + b"." + body, "sha256").hex()
    assert headers["X-Webhook-Signature"] == f"sha256={signed}"
    assert abs(int(headers["X-Webhook-Timestamp"]) - time.time()) < 60
    assert headers["Content-Type"] == "application/json"


def test_the_end_of_a_job_is_told_in_the_words_of_its_status(hooks, tables, receiver, ended_job, claim):
    done, failed = ended_job(receiver.url), ended_job(receiver.url, FAILED)
    for job_id in (done, failed, ended_job(receiver.url, CANCELLED)):
        hooks.deliver(*claim(job_id))
    told = [json.loads(body) for _path, _headers, body in receiver.received]
    assert [one["status"] for one in told] == ["completed", "failed", "cancelled"]
    assert told[0]["job_id"] == done
    assert told[0]["progress"] == {"total": 4, "processed": 0, "successful": 0, "failed": 0, "percentage": 100.0}
    assert told[0]["statistics"] == {"total_predicted_spend": 12.5}
    assert told[0]["download_url"] == f"/bulk/download/{done}"
    assert told[0]["completed_at"].endswith("+00:00")
    assert (told[1]["error"], told[1]["message"]) == ("CorruptFile", "The file ends in the middle.")
    assert "download_url" not in told[1]
    assert receiver.received[0][1]["X-Webhook-Id"].startswith(f"{done}:completed:")


def test_a_delivery_ends_the_notification_and_leaves_the_job_as_it_is(hooks, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url)
    before = tables[0].get(job_id)
    receiver.statuses = [204]
    hooks.deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert (step.status, step.error_name) == (DONE, None)
    assert tables[0].get(job_id) == before
    assert claim(job_id) is None


# ---- what is tried again


@pytest.mark.parametrize("status", [500, 503, 404, 429, 301])
def test_an_answer_other_than_2xx_is_tried_again_later(hooks, tables, receiver, ended_job, claim, status):
    job_id = ended_job(receiver.url)
    receiver.statuses = [status, 200]
    hooks.deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert (step.status, step.error_name) == (WAITING, "NotDelivered")
    assert str(status) in step.error_message
    hooks.deliver(*claim(job_id))
    assert notification(tables, job_id).status == DONE
    first, second = (headers["X-Webhook-Id"] for _path, headers, _body in receiver.received)
    assert first == second  # by which a receiver drops what it has seen


def test_each_wait_is_longer_and_after_the_last_it_is_given_up(hooks, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url)
    receiver.statuses = [500] * 20
    for wait in NOTIFY_WAITS_SECONDS:
        hooks.deliver(*claim(job_id))
        assert wait * 0.8 <= seconds_put_off(notification(tables, job_id)) <= wait * 1.2
    hooks.deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert (step.status, step.error_name) == (DONE, "NotDelivered")
    assert "500" in step.error_message
    assert len(receiver.received) == len(NOTIFY_WAITS_SECONDS) + 1
    assert tables[0].get(job_id).status == COMPLETED


def test_each_end_of_a_job_that_was_retried_has_an_id_of_its_own(hooks, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url, FAILED)
    hooks.deliver(*claim(job_id))
    tables[0].retry(job_id)
    _job, _step, lease = tables[1].claim(job_id, "w")
    tables[1].fail(lease, "CorruptFile", "Still.")
    hooks.deliver(*claim(job_id))
    first, second = (headers["X-Webhook-Id"] for _path, headers, _body in receiver.received)
    assert first.split(":")[:2] == second.split(":")[:2] == [job_id, "failed"]
    assert first != second


def test_waits_are_not_all_alike(hooks, tables, receiver, ended_job, claim):
    receiver.statuses = [500] * 5
    jobs = [ended_job(receiver.url) for _ in range(5)]
    for job_id in jobs:
        hooks.deliver(*claim(job_id))
    assert len({round(seconds_put_off(notification(tables, job_id)), 3) for job_id in jobs}) > 1


def test_a_receiver_that_is_gone_is_not_asked_again(hooks, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url)
    receiver.statuses = [410]
    hooks.deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert (step.status, step.error_name) == (DONE, "NotDelivered")
    assert "410" in step.error_message


def test_a_receiver_that_is_not_there_is_tried_again(hooks, tables, ended_job, claim):
    job_id = ended_job(f"http://127.0.0.1:{free_port()}/")
    hooks.deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert step.status == WAITING
    assert "ConnectionRefusedError" in step.error_message


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 2", b"SSH-2.0-OpenSSH_9.6\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_a_receiver_that_breaks_off_or_speaks_no_http_is_tried_again(hooks, tables, ended_job, claim, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            end, _address = listener.accept()
            with end:
                end.recv(65_536)
                end.sendall(answer)

        threading.Thread(target=answer_once, daemon=True).start()
        job_id = ended_job(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        hooks.deliver(*claim(job_id))
    assert notification(tables, job_id).status == WAITING


@pytest.mark.parametrize("drips", [False, True], ids=["silent", "dripping"])
def test_a_receiver_that_takes_too_long_is_left_in_time(hooks, tables, ended_job, claim, monkeypatch, drips):
    monkeypatch.setattr(webhooks, "DELIVERY_SECONDS", 0.5)
    left = threading.Event()

    def drip(end: socket.socket) -> None:
        with end, suppress(OSError):
            while drips:
                end.sendall(b"H")
                time.sleep(0.02)
            while end.recv(65_536):
                pass
        left.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=lambda: drip(listener.accept()[0]), daemon=True).start()
        job_id = ended_job(f"http://127.0.0.1:{listener.getsockname()[1]}/")
        begun = time.monotonic()
        hooks.deliver(*claim(job_id))
        assert time.monotonic() - begun < 2
        assert notification(tables, job_id).status == WAITING
        assert "within 0.5 s" in notification(tables, job_id).error_message
        assert left.wait(2)


def test_no_redirect_is_followed(hooks, tables, receiver, ended_job, claim):
    receiver.statuses = [307]
    receiver.headers = {"Location": receiver.url + "&again=1"}
    hooks.deliver(*claim(ended_job(receiver.url)))
    assert len(receiver.received) == 1


def test_a_worker_that_lost_its_lease_meanwhile_records_nothing(hooks, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url)
    held = claim(job_id)
    tables[1].release_worker("w")
    with pytest.raises(LeaseLost):
        hooks.deliver(*held)
    assert notification(tables, job_id).status == WAITING  # it is told once more: the id is the same


# ---- what may be called


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/",
        "https://HOOKS.example.com:4433/spend?x=1",
        "http://127.0.0.1",
        "https://shop.test:8443/a/b",
    ],
)
def test_an_address_on_a_listed_host_may_be_called(hooks, url):
    hooks.check(url)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://evil.example.com/", "'evil.example.com'"),
        ("https://hooks.example.com.evil.test/", "WEBHOOK_HOSTS"),
        ("https://evil.test/hooks.example.com", "WEBHOOK_HOSTS"),
        ("https://shop.test/", "port 443"),
        ("https://shop.test:22/", "port 22"),
        ("http://127.0.0.2/", "WEBHOOK_HOSTS"),
        ("http://2130706433/", "WEBHOOK_HOSTS"),
        ("https://user:word@hooks.example.com/", "user name or password"),
        ("https://hooks.example.com@evil.test/", "user name or password"),
        ("https://evil.test\\@hooks.example.com/", "user name or password"),
        ("https://evil.test#@hooks.example.com/", "WEBHOOK_HOSTS"),
        ("ftp://hooks.example.com/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("//hooks.example.com/", "http:// or https://"),
        ("hooks.example.com", "http:// or https://"),
        ("", "http:// or https://"),
        ("https://", "http:// or https://"),
        ("https://hooks.example.com:0/", "http:// or https://"),
        ("https://hooks.example.com:99999/", "cannot be read"),
        ("https://hooks.example.com:port/", "cannot be read"),
        ("https://[hooks.example.com/", "cannot be read"),
        ("https://hooks.example.com/a b", "ASCII"),
        ("https://hooks.example.com/\r\nX-Evil: 1", "ASCII"),
        ("https://hooks.example.com/ä", "ASCII"),
        ("https://hooks.example.com/" + "a" * 2000, "2,000"),
    ],
)
def test_any_other_address_is_refused_with_the_reason(hooks, url, fault):
    with pytest.raises(WebhookRefused, match=fault.replace("(", r"\(")):
        hooks.check(url)


def test_without_a_secret_or_hosts_no_webhook_is_taken(settings, tables):
    with pytest.raises(WebhookRefused, match="WEBHOOK_SECRET"):
        Webhooks(replace(settings, webhook_hosts=("127.0.0.1",)), tables[1]).check("http://127.0.0.1/")
    with pytest.raises(WebhookRefused, match="WEBHOOK_HOSTS"):
        Webhooks(replace(settings, webhook_secret=SECRET), tables[1]).check("http://127.0.0.1/")


def test_an_address_that_is_no_longer_allowed_is_not_called(settings, tables, receiver, ended_job, claim):
    job_id = ended_job(receiver.url)
    Webhooks(replace(settings, webhook_secret=SECRET, webhook_hosts=("other.test",)), tables[1]).deliver(*claim(job_id))
    step = notification(tables, job_id)
    assert (step.status, step.error_name, receiver.received) == (DONE, "WebhookRefused", [])


def test_logs_and_the_job_table_name_neither_the_secret_nor_the_address(
    hooks, tables, receiver, ended_job, claim, caplog
):
    caplog.set_level(logging.DEBUG)
    job_id = ended_job(receiver.url)
    receiver.statuses = [500, 200]
    for _ in range(2):
        hooks.deliver(*claim(job_id))
    logged = "".join(str(vars(record)) for record in caplog.records)
    assert "webhook put off" in logged
    assert "webhook delivered" in logged
    for word in (SECRET, "/hooks/spend", "shop=1"):
        assert word not in logged
        assert word not in repr(notification(tables, job_id))
