"""Trainings, sample tables and data refreshes over HTTP: asked for by routes of their own, watched as files are."""

import io
import re
import sys
import zipfile

import pytest

from config import ROOT
from routes.errors import status_of
from routes.training import QUEUED_MESSAGE, WAITING_MESSAGE
from services import errors, training_jobs
from services.job_table import SAMPLE, TRAIN
from services.training_progress import WEIGHTS
from tests.conftest import CUSTOMERS
from tests.services.test_training_jobs import STAND_IN

PAGE = (ROOT / "docs" / "training_jobs.md").read_text()
TRAIN_URL = "/train/xgboost?n_samples=300&profile=quick&promote=never"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """Commands that say what those of the pipeline say."""
    for kind, behaviour in ((TRAIN, "train"), (SAMPLE, "sample")):
        monkeypatch.setitem(training_jobs.COMMANDS, kind, (sys.executable, str(STAND_IN), behaviour))


def test_a_training_is_started_watched_and_deleted(client, run_queue):
    started = client.post(TRAIN_URL, json={})
    assert started.status_code == 202
    job = started.json
    job_id = job["job_id"]
    assert job == {
        "job_id": job_id,
        "kind": "train",
        "status": "queued",
        "metadata": {"model_type": "xgboost", "n_samples": 300, "profile": "quick", "promote": "never"},
        "message": QUEUED_MESSAGE,
        "check_status_url": f"/bulk/status/{job_id}",
        "events_url": f"/bulk/events/{job_id}",
        "cancel_url": f"/bulk/cancel/{job_id}",
    }
    waiting = client.get(job["check_status_url"]).json
    assert (waiting["status"], waiting["progress"]["phase"], waiting["progress"]["percentage"]) == (
        "queued",
        "queued",
        0,
    )
    run_queue()
    done = client.get(job["check_status_url"]).json
    assert done["status"] == "completed"
    assert done["progress"] == {
        "total": 1,
        "processed": 1,
        "successful": 1,
        "failed": 0,
        "percentage": 100.0,
        "phase": "done",
        "doing": "",
        "eta_seconds": 0.0,
    }
    assert (
        done["statistics"].items()
        >= {"bundle": "b1", "promoted": False, "reason": "not better", "serving": "b0"}.items()
    )
    assert done["metadata"] == job["metadata"]
    assert "download_url" not in done
    refused = client.get(f"/bulk/download/{job_id}")
    assert (refused.status_code, refused.json["error"]) == (409, "NoResultFile")
    assert (client.get(f"/bulk/customers/{job_id}").json["error"]) == "NoResultFile"
    assert client.post(f"/bulk/retry/{job_id}").json["error"] == "NothingToRetry"
    assert client.delete(f"/bulk/delete/{job_id}").json["deleted"] is True
    assert client.get(job["check_status_url"]).status_code == 404


def test_the_events_of_a_training_are_told_as_those_of_a_file(client, run_queue):
    job_id = client.post("/train/all").json["job_id"]
    run_queue()
    told = client.get(f"/bulk/events/{job_id}").text
    assert "event: completed" in told
    assert '"kind": "train"' in told
    assert '"phase": "done"' in told


def test_sample_tables_are_downloaded_as_a_zip(client, run_queue):
    job = client.post("/generate-sample-data?n_customers=12&seed=3").json
    assert job["metadata"] == {"n_customers": 12, "seed": 3}
    assert client.get(job["download_url"]).json["error"] == "JobNotFinished"
    assert client.get(f"{job['download_url']}?partial=true").json["error"] == "NoResultFile"
    run_queue()
    done = client.get(job["check_status_url"]).json
    assert done["download_url"] == job["download_url"]
    assert done["statistics"] == {"customers": 12, "files": ["products.csv", "stores.csv"], "rows": {"stores": 1}}
    file = client.get(job["download_url"])
    assert (file.status_code, file.mimetype) == (200, "application/zip")
    assert "sample_data_12.zip" in file.headers["Content-Disposition"]
    assert zipfile.ZipFile(io.BytesIO(file.data)).namelist()[0] == "README.txt"
    assert client.get(f"{job['download_url']}?format=csv").status_code == 400


def test_a_refresh_is_a_job_that_can_be_cancelled_and_tried_again(client):
    job = client.post("/data/refresh").json
    assert (job["kind"], job["metadata"]) == ("refresh_data", {"force": False})
    cancelled = client.post(job["cancel_url"])
    assert (cancelled.status_code, cancelled.json["status"]) == (200, "cancelled")
    assert client.post(cancelled.json["retry_url"]).status_code == 202


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("/train/catboost", "'xgboost', 'lightgbm', 'random_forest', 'bg_nbd' or 'all'"),
        ("/train/all?n_samples=99", "n_samples"),
        ("/train/all?n_samples=many", "n_samples"),
        ("/train/all?profile=slow", "profile"),
        ("/train/all?promote=maybe", "promote"),
        ("/generate-sample-data?n_customers=0", "n_customers"),
        ("/generate-sample-data?n_customers=200001", "n_customers"),
        ("/generate-sample-data?seed=-1", "seed"),
        ("/data/refresh?force=perhaps", "force"),
        ("/bulk/jobs?kind=odd", "kind"),
    ],
)
def test_what_cannot_be_asked_for_is_400_and_names_it(client, url, named):
    answer = client.open(url, method="GET" if url.startswith("/bulk") else "POST")
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
    assert named in answer.json["message"]
    assert client.get("/bulk/jobs").json["count"] == 0


def test_the_same_key_is_the_same_job_and_another_wish_under_it_a_conflict(client):
    headers = {"Idempotency-Key": "nightly"}
    first = client.post(TRAIN_URL, headers=headers)
    again = client.post(TRAIN_URL, headers=headers)
    assert (again.status_code, again.json["job_id"]) == (202, first.json["job_id"])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    for url in ("/train/all", "/data/refresh"):
        conflict = client.post(url, headers=headers)
        assert (conflict.status_code, conflict.json["error"]) == (409, "IdempotencyConflict")
    file = {"file": (io.BytesIO(f"customer_id\n{CUSTOMERS[0]}\n".encode()), "a.csv")}
    assert client.post("/bulk/predict", data=file, headers=headers).status_code == 409


def test_a_queue_that_is_away_is_told_and_the_job_is_recorded(client, queue):
    queue.away = True
    answer = client.post("/data/refresh")
    assert (answer.status_code, answer.json["message"]) == (202, WAITING_MESSAGE)


def test_jobs_of_all_kinds_are_listed_together_or_by_kind(client):
    file = {"file": (io.BytesIO(f"customer_id\n{CUSTOMERS[0]}\n".encode()), "a.csv")}
    bulk = client.post("/bulk/predict", data=file).json["job_id"]
    others = [client.post(url).json["job_id"] for url in ("/train/all", "/generate-sample-data", "/data/refresh")]
    listed = client.get("/bulk/jobs").json["jobs"]
    assert [job["job_id"] for job in listed] == [*others[::-1], bulk]
    assert [job["kind"] for job in listed] == ["refresh_data", "generate_sample_data", "train", "bulk_predict"]
    for job in listed:
        assert [one["job_id"] for one in client.get(f"/bulk/jobs?kind={job['kind']}").json["jobs"]] == [job["job_id"]]
        assert job == client.get(f"/bulk/status/{job['job_id']}").json


def test_nobody_elses_training_is_there(client, services):
    job_id = client.post("/train/all").json["job_id"]
    with services.store._database.writing() as connection:
        connection.exec_driver_sql("UPDATE jobs SET owner = 'anonymous'")
    for method, route in (("GET", "status"), ("POST", "cancel"), ("GET", "download"), ("DELETE", "delete")):
        assert client.open(f"/bulk/{route}/{job_id}", method=method).status_code == 404


def test_the_document_says_which_shape_a_job_of_which_kind_has(client):
    schemas = client.get("/openapi.json").json["components"]["schemas"]
    mapping = schemas["AnyJobStatus"]["discriminator"]["mapping"]
    assert {kind: shape.rpartition("/")[2] for kind, shape in mapping.items()} == {
        "bulk_predict": "JobStatus",
        "train": "TrainingStatus",
        "generate_sample_data": "TrainingStatus",
        "refresh_data": "TrainingStatus",
    }


# ---- the page


def test_every_example_of_the_page_is_answered(client):
    lines = [line for line in PAGE.splitlines() if line.startswith("curl -s ")]
    assert len(lines) == 4
    for line in lines:
        method = "POST" if " -X POST " in line else "GET"
        url = re.search(r"'http://127\.0\.0\.1:5000(/.*)'", line)[1]
        assert client.open(url, method=method).status_code == (202 if method == "POST" else 200), line


def test_every_call_parameter_field_and_error_is_on_the_page(client):
    document = client.get("/openapi.json").json
    for path in ("/train/{model_type}", "/generate-sample-data", "/data/refresh"):
        assert f"`POST {path.replace('{', '<').replace('}', '>')}" in PAGE
        for parameter in document["paths"][path]["post"]["parameters"]:
            assert f"`{parameter['name']}`" in PAGE, parameter["name"]
    for field in document["components"]["schemas"]["TrainingProgress"]["properties"]:
        assert f"`{field}`" in PAGE
    for phase in {phase for weights in WEIGHTS.values() for phase in weights} - {"write"}:
        assert f"`{phase}`" in PAGE
    for name in re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, re.MULTILINE):
        assert status_of(getattr(errors, name)) == 409
