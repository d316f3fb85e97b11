"""Smoke client: `python test.py` walks through a running service and exits with 1 if something is not as documented.

BASE_URL names the service (default http://127.0.0.1:5000). Needs nothing but Python.
"""

import csv
import io
import json
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from typing import Any

BASE_URL = os.environ.get("BASE_URL", "http://127.0.0.1:5000").rstrip("/")
JOB_SECONDS = 60.0


class Answer:
    """Status, headers and body of one answer."""

    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        return json.loads(self.body)


def call(method: str, path: str, body: bytes | None = None, content_type: str | None = None) -> Answer:
    headers = {"Content-Type": content_type} if content_type else {}
    request = urllib.request.Request(BASE_URL + path, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return Answer(answer.status, answer.headers, answer.read())
    except urllib.error.HTTPError as refused:
        return Answer(refused.code, refused.headers, refused.read())


def post_json(path: str, content: Any) -> Answer:
    return call("POST", path, json.dumps(content).encode(), "application/json")


def post_file(path: str, name: str, content: bytes) -> Answer:
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return call("POST", path, body, f"multipart/form-data; boundary={boundary}")


def expect(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {found!r}")


def template_rows() -> list[dict[str, str]]:
    answer = call("GET", "/bulk/template?format=csv")
    expect("status of /bulk/template", answer.status, 200)
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    expect("columns of the template", list(rows[0]), ["customer_id", "customer_name", "notes"])
    return rows


def health() -> str:
    report = call("GET", "/health").json()
    if report["status"] == "unavailable":
        raise AssertionError(f"the service cannot predict: {report['model']}")
    away = f", without {', '.join(report['degraded'])}" if report["degraded"] else ""
    return f"{report['status']}{away}, model {report['model_version']}, as of {report['as_of']}"


def known_customer() -> str:
    customer_id = template_rows()[0]["customer_id"]
    answer = post_json("/predict", {"customer_id": customer_id})
    expect(f"status of /predict for {customer_id}", answer.status, 200)
    spend = answer.json()["predicted_30d_spend"]
    parts = sum(round(money * 100) for name, money in spend.items() if name != "total")
    expect("cents of the parts", parts, round(spend["total"] * 100))
    return f"{customer_id}: {spend['total']:.2f} {answer.json()['currency']} in 30 days"


def invalid_request() -> str:
    answer = post_json("/predict", {"customer_id": "there is no such customer"})
    expect("status for an unknown customer", answer.status, 404)
    expect("fields of an error", sorted(answer.json()), ["error", "message"])
    said = answer.json()["message"]
    malformed = call("POST", "/predict", b"{", "application/json")
    expect("status for malformed JSON", malformed.status, 400)
    return f"404: {said}"


def bulk_job() -> str:
    ids = [row["customer_id"] for row in template_rows()] + ["there is no such customer"]
    content = "customer_id,note\n" + "".join(f"{one},row {number}\n" for number, one in enumerate(ids))
    accepted = post_file("/bulk/predict", "smoke.csv", content.encode())
    expect("status of /bulk/predict", accepted.status, 202)
    job = accepted.json()
    finished = finish(job["check_status_url"])
    expect("rows processed", finished["progress"]["processed"], len(ids))
    expect("rows failed", finished["progress"]["failed"], 1)
    download = call("GET", job["download_url"])
    expect("status of the download", download.status, 200)
    rows = list(csv.DictReader(io.StringIO(download.body.decode())))
    expect("ids in the result", [row["customer_id"] for row in rows], ids)
    expect("status column", [row["status"] for row in rows], ["success"] * (len(ids) - 1) + ["failed"])
    expect("status of the deletion", call("DELETE", f"/bulk/delete/{job['job_id']}").status, 200)
    return f"{len(rows)} rows in {finished['processing_time_seconds']} s"


def finish(url: str, seconds: float = JOB_SECONDS) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        status: dict[str, Any] = call("GET", url).json()
        if status["status"] == "completed":
            return status
        if status["status"] == "failed":
            raise AssertionError(f"the job failed: {status['error']}: {status['message']}")
        time.sleep(0.1)
    raise AssertionError(f"the job was not completed within {seconds:.0f} s; does a worker run?")


def template() -> str:
    expect("beginning of the XLSX template", call("GET", "/bulk/template?format=xlsx").body[:2], b"PK")
    return f"{len(template_rows())} sample rows"


CHECKS: tuple[Callable[[], str], ...] = (health, template, known_customer, invalid_request, bulk_job)


def run_checks(checks: Sequence[Callable[[], str]]) -> int:
    """Says how each check went; returns the exit status."""
    failures = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            print(f"ok    {name}: {check()}")
        except (AssertionError, OSError, KeyError, ValueError, IndexError) as problem:
            failures += 1
            print(f"FAIL  {name}: {type(problem).__name__}: {problem}")
    print(f"{len(checks) - failures} of {len(checks)} checks passed against {BASE_URL}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(run_checks(CHECKS))
