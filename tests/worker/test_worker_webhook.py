"""A webhook as its receiver sees it: from an upload through a real worker to a real server."""

import hmac
import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from config import Settings
from services.uploads import UploadOptions
from tests.conftest import CUSTOMERS, wait_until
from tests.worker.conftest import LOCAL, ended

pytestmark = pytest.mark.server

SECRET = "a-long-random-text"


@pytest.fixture
def worker_settings(server_settings: Settings) -> Settings:
    return replace(server_settings, webhook_secret=SECRET, webhook_hosts=("127.0.0.1",))


def test_the_receiver_is_told_of_the_end_and_again_when_it_did_not_answer(services, start_worker, tmp_path):
    received: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((dict(self.headers.items()), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(503 if len(received) == 1 else 200)
            self.end_headers()

        def log_message(self, *_line: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        path = tmp_path / "received"
        path.write_text(f"customer_id\n{CUSTOMERS[0]}\nnobody\n")
        url = f"http://127.0.0.1:{server.server_port}/told"
        job = services.bulk.upload(path, "a.csv", LOCAL, UploadOptions(webhook_url=url))
        worker = start_worker()
        ended(services, job)
        wait_until(lambda: services.bulk.webhook(services.store.get(job.job_id))["status"] == "delivered", "it", 30)
        server.shutdown()
    (first, _body), (second, body) = received
    assert first["X-Webhook-Id"] == second["X-Webhook-Id"]
    signed = hmac.digest(SECRET.encode(), second["X-Webhook-Timestamp"].encode() + b"." + body, "sha256").hex()
    assert second["X-Webhook-Signature"] == f"sha256={signed}"
    told = json.loads(body)
    assert (told["job_id"], told["status"], told["progress"]["failed"]) == (job.job_id, "completed", 1)
    assert told["statistics"]["distinct_customers"] == 1
    log = worker.log.read_text()
    assert "webhook put off" in log
    assert SECRET not in log
    assert "/told" not in log
