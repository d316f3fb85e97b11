import datetime as dt
import io
from dataclasses import replace

import pytest

from app import create_app
from services.bootstrap import build_services
from services.job_table import SCORE
from tests.conftest import CUSTOMERS

ROWS = 7
CONTENT = ("customer_id\n" + "".join(f"{customer}\n" for customer in CUSTOMERS[:ROWS])).encode()


@pytest.fixture
def settings(settings):
    return replace(settings, rows_per_chunk=2)


@pytest.fixture
def send(client):
    def post(name: str = "customers.csv") -> str:
        return client.post("/bulk/predict", data={"file": (io.BytesIO(CONTENT), name)}).json["job_id"]

    return post


@pytest.fixture
def run_steps(services, queue):
    """Does the next steps, one by one."""
    services.runner._seconds_per_message = 0.0

    def run(count: int) -> None:
        for _ in range(count):
            services.runner.run(queue.sent.pop(0)[1])

    return run


def test_the_status_shows_the_steps_as_they_go(client, send, run_steps):
    url = f"/bulk/status/{send()}"
    run_steps(1)
    read = client.get(url).json
    assert (read["progress"]["phase"], read["progress"]["rows_read"], read["progress"]["processed"]) == (
        "scoring",
        ROWS,
        0,
    )
    assert "partial_url" not in read
    run_steps(1)
    scored = client.get(url).json
    assert (scored["progress"]["processed"], scored["progress"]["percentage"]) == (2, 28.5)
    assert scored["progress"]["eta_seconds"] > 0
    assert scored["progress"]["rows_per_second"] > 0
    assert client.get(scored["partial_url"]).status_code == 200
    run_steps(3)
    written = client.get(url).json
    assert (written["status"], written["progress"]["phase"], written["progress"]["percentage"]) == (
        "processing",
        "writing",
        99.9,
    )
    run_steps(1)
    done = client.get(url).json
    assert (done["status"], done["progress"]["phase"], done["progress"]["percentage"]) == ("completed", "done", 100.0)
    assert {"cancel_url", "retry_url", "partial_url"}.isdisjoint(done)
    assert client.get(done["download_url"]).status_code == 200


def test_a_job_that_has_ended_says_when_it_is_deleted(client, send, run_queue, settings, queue):
    job_id = send()
    assert "expires_at" not in client.get(f"/bulk/status/{job_id}").json
    run_queue()
    done = client.get(f"/bulk/status/{job_id}").json
    kept = dt.datetime.fromisoformat(done["expires_at"]) - dt.datetime.fromisoformat(done["completed_at"])
    assert kept == dt.timedelta(days=30)
    for_ever = create_app(services=build_services(replace(settings, retention_days=0), queue)).test_client()
    assert "expires_at" not in for_ever.get(f"/bulk/status/{job_id}").json


def test_a_cancelled_job_keeps_what_is_done_and_goes_on_there(client, send, run_steps, run_queue, queue):
    job_id = send()
    run_steps(2)
    cancelled = client.post(f"/bulk/cancel/{job_id}")
    assert (cancelled.status_code, cancelled.json["status"], cancelled.json["progress"]["processed"]) == (
        200,
        "cancelled",
        2,
    )
    assert cancelled.json["progress"]["eta_seconds"] == 0
    assert client.get(cancelled.json["partial_url"]).headers["X-Partial-Rows"] == f"2/{ROWS}"
    download = client.get(f"/bulk/download/{job_id}")
    assert (download.status_code, download.json["error"]) == (409, "JobCancelled")
    again = client.post(f"/bulk/cancel/{job_id}")
    assert (again.status_code, again.json["error"]) == (409, "JobOver")
    queue.sent.clear()
    resumed = client.post(f"/bulk/resume/{job_id}")
    assert (resumed.status_code, resumed.json["status"], resumed.json["progress"]["processed"]) == (202, "queued", 2)
    run_queue()
    assert client.get(f"/bulk/status/{job_id}").json["progress"]["successful"] == ROWS


def test_rows_that_were_given_up_are_tried_again(client, send, run_queue, run_steps, services):
    job_id = send()
    run_steps(1)
    for _ in range(3):
        _job, step, lease = services.steps.claim(job_id, "w")
        assert (step.kind, step.number) == (SCORE, 1)
        services.steps.give_back(lease, "ChunkGivenUp", "Rows 1 to 2: lost three times.")
    run_queue()
    done = client.get(f"/bulk/status/{job_id}").json
    assert (done["status"], done["progress"]["failed"]) == ("completed", 2)
    assert client.post(f"/bulk/retry/{job_id}").status_code == 202
    run_queue()
    assert client.get(f"/bulk/status/{job_id}").json["progress"]["failed"] == 0
    nothing = client.post(f"/bulk/retry/{job_id}")
    assert (nothing.status_code, nothing.json["error"]) == (409, "NothingToRetry")


def test_a_failed_job_says_why_and_how_to_go_on(client, send, services):
    job_id = send()
    _job, _step, lease = services.steps.claim(job_id, "w")
    services.steps.fail(lease, "StorageFull", "There is no space left.")
    failed = client.get(f"/bulk/status/{job_id}").json
    assert (failed["status"], failed["error"], failed["message"]) == (
        "failed",
        "StorageFull",
        "There is no space left.",
    )
    assert client.post(failed["retry_url"]).status_code == 202
    assert client.post(failed["retry_url"]).json["error"] == "JobInProgress"


def test_a_job_that_is_processed_is_deleted_after_it_was_cancelled(client, send, services):
    job_id = send()
    services.steps.claim(job_id, "w1")
    refused = client.delete(f"/bulk/delete/{job_id}")
    assert (refused.status_code, refused.json["error"]) == (409, "JobInProgress")
    assert client.post(f"/bulk/cancel/{job_id}").status_code == 200
    assert client.delete(f"/bulk/delete/{job_id}").json["deleted"] is True
    assert client.get(f"/bulk/status/{job_id}").status_code == 404


def test_jobs_are_listed_page_by_page(client, send):
    sent = [send() for _ in range(5)]
    listed, cursor, pages = [], "", 0
    while cursor is not None:
        page = client.get(f"/bulk/jobs?limit=2{cursor and '&cursor=' + cursor}").json
        assert page["count"] == len(page["jobs"])
        listed += [job["job_id"] for job in page["jobs"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert listed == sent[::-1]
    assert pages == 3
    assert client.get("/bulk/jobs?status=queued").json["count"] == 5


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=many", "limit=100000", "status=odd", "cursor=odd", "cursor=", "cursor=%ff%00"]
)
def test_a_listing_with_an_impossible_parameter_is_400(client, query):
    answer = client.get(f"/bulk/jobs?{query}")
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
    assert query.split("=")[0] in answer.json["message"]


@pytest.mark.parametrize(
    ("method", "route"),
    [("GET", "status"), ("GET", "events"), ("GET", "download"), ("GET", "customers"), ("POST", "cancel"), ("POST", "retry"),
     ("POST", "resume"), ("DELETE", "delete")],
)  # fmt: skip
def test_nobody_elses_job_is_there(client, services, send, method, route):
    job_id = send()
    with services.store._database.writing() as connection:
        connection.exec_driver_sql("UPDATE jobs SET owner = 'anonymous'")
    answer = client.open(f"/bulk/{route}/{job_id}", method=method)
    assert (answer.status_code, answer.json["error"]) == (404, "UnknownJob")


def test_a_webhooks_state_is_told(settings, queue):
    allowed = replace(settings, webhook_secret="s" * 20, webhook_hosts=("127.0.0.1",))
    services = build_services(allowed, queue)
    client = create_app(services=services).test_client()
    url = "http://127.0.0.1:9/done"
    job_id = client.post(
        "/bulk/predict", query_string={"webhook_url": url}, data={"file": (io.BytesIO(CONTENT), "a.csv")}
    ).json["job_id"]
    state = client.get(f"/bulk/status/{job_id}").json["webhook"]
    assert (state["url"], state["status"], state["attempts"]) == (url, "waiting", 0)
    services.runner.run(job_id)
    services.runner.run(job_id)  # the call is of another queue
    state = client.get(f"/bulk/status/{job_id}").json
    assert (state["status"], state["webhook"]["status"], state["webhook"]["attempts"]) == ("completed", "waiting", 1)
    assert "could not be reached" in state["webhook"]["message"]
