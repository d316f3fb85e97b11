import io
from dataclasses import replace

import pytest

from app import create_app
from services.bootstrap import build_services
from tests.conftest import CUSTOMERS


@pytest.fixture
def send(client):
    def post(content: bytes, name: str = "customers.csv"):
        form = {"file": (io.BytesIO(content), name)}
        return client.post("/bulk/predict", data=form, content_type="multipart/form-data")

    return post


CONTENT = f"customer_id,note\n{CUSTOMERS[0]},a\nnobody,b\n".encode()


def test_a_job_from_the_upload_to_its_end(client, send, run_queue):
    answer = send(CONTENT)
    assert answer.status_code == 202
    accepted = answer.json
    assert set(accepted) == {
        "job_id", "status", "metadata", "message", "estimated_time_seconds", "check_status_url", "download_url",
    }  # fmt: skip
    assert {
        "filename",
        "file_size_bytes",
        "file_size_mb",
        "total_rows",
        "total_customers",
        "columns",
        "has_duplicates",
    } <= set(accepted["metadata"])
    assert accepted["status"] == "queued"

    waiting = client.get(accepted["check_status_url"]).json
    assert waiting["progress"] == {"total": 2, "processed": 0, "successful": 0, "failed": 0, "percentage": 0.0}
    early = client.get(accepted["download_url"])
    assert (early.status_code, early.json["error"]) == (409, "JobNotFinished")
    assert early.headers["Retry-After"]

    run_queue()
    done = client.get(accepted["check_status_url"]).json
    assert done["status"] == "completed"
    assert done["progress"] == {"total": 2, "processed": 2, "successful": 1, "failed": 1, "percentage": 100.0}
    assert {"completed_at", "processing_time_seconds", "statistics", "download_url", "created_at", "updated_at"} <= set(
        done
    )
    assert {"total_predicted_spend", "average_predicted_spend", "min_predicted_spend", "max_predicted_spend", "currency", "rows",
            "distinct_customers", "total_predicted_spend_lower", "total_predicted_spend_upper", "per_target"} <= set(done["statistics"])  # fmt: skip

    file = client.get(done["download_url"])
    assert file.status_code == 200
    assert file.headers["Content-Type"].startswith("text/csv")
    assert "customers_predictions.csv" in file.headers["Content-Disposition"]
    assert file.text.splitlines()[0].startswith("customer_id,note,predicted_total_spend,")
    assert len(file.text.splitlines()) == 3

    listed = client.get("/bulk/jobs?status=completed&limit=5").json
    assert [job["job_id"] for job in listed["jobs"]] == [accepted["job_id"]]
    assert client.get("/bulk/jobs?status=failed").json["count"] == 0

    assert client.delete(f"/bulk/delete/{accepted['job_id']}").json["deleted"] is True
    assert client.get(accepted["check_status_url"]).status_code == 404
    assert client.delete(f"/bulk/delete/{accepted['job_id']}").status_code == 404


def test_another_format_is_202_and_then_the_file(client, send, run_queue):
    url = send(CONTENT).json["download_url"]
    run_queue()
    under_way = client.get(f"{url}?format=xlsx")
    assert under_way.status_code == 202
    assert under_way.headers["Retry-After"]
    run_queue()
    file = client.get(f"{url}?format=xlsx")
    assert file.status_code == 200
    assert file.data.startswith(b"PK")
    assert client.get(f"{url}?format=pdf").status_code == 400


def test_a_failed_job_says_why_in_status_and_download(settings, queue, tmp_path):
    services = build_services(replace(settings, models_dir=tmp_path / "none"), queue)
    client = create_app(services=services).test_client()
    accepted = client.post("/bulk/predict", data={"file": (io.BytesIO(CONTENT), "a.csv")}).json
    services.runner.run(accepted["job_id"])
    status = client.get(accepted["check_status_url"]).json
    assert (status["status"], status["error"]) == ("failed", "NoServingModel")
    assert "run_pipeline" in status["message"]
    download = client.get(accepted["download_url"])
    assert (download.status_code, download.json["error"]) == (409, "JobFailed")


def test_a_job_that_is_processed_is_not_deleted(client, send, services):
    job_id = send(CONTENT).json["job_id"]
    services.store.claim(job_id, "w1")
    assert client.delete(f"/bulk/delete/{job_id}").status_code == 409


def test_with_the_queue_away_the_upload_is_taken_and_the_answer_says_so(send, queue):
    queue.away = True
    answer = send(CONTENT)
    assert answer.status_code == 202
    assert "when it is back" in answer.json["message"]


@pytest.mark.parametrize(
    ("content", "name", "status", "error"),
    [
        (b"", "a.csv", 400, "EmptyFile"),
        (b"customer_id,n\n", "a.csv", 400, "NoDataRows"),
        (bytes(range(256)) * 8, "a.csv", 400, "UnreadableFile"),
        (b"customer_id\nC1\n", "a.xlsx", 400, "UnreadableFile"),
        (b"customer_id,n\nC1\n", "a.csv", 400, "UnevenRow"),
        (b"customer_id\nC1\n", "a.docx", 415, "UnsupportedFileType"),
        (b"customer_id\nC1\n", "", 400, "MissingFile"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_at_once(client, send, content, name, status, error):
    answer = send(content, name)
    assert (answer.status_code, answer.json["error"]) == (status, error)
    assert client.get("/bulk/jobs").json["jobs"] == []


def test_a_form_without_the_file_part_is_400_with_an_example(client):
    for form in ({"other": (io.BytesIO(b"x"), "a.csv")}, {"file": "just text"}, {"other": "text"}):
        answer = client.post("/bulk/predict", data=form, content_type="multipart/form-data")
        assert (answer.status_code, answer.json["error"]) == (400, "MissingFile")
        assert "file" in answer.json["message"]
    assert client.post("/bulk/predict").json["error"] == "MissingFile"


@pytest.mark.parametrize("content_type", ["application/json", "text/csv", "application/octet-stream"])
def test_a_body_that_is_no_form_is_415(client, content_type):
    assert client.post("/bulk/predict", data=b"customer_id\nC1\n", content_type=content_type).status_code == 415


def test_a_form_that_is_broken_is_400(client):
    answer = client.post("/bulk/predict", data=b"nonsense", content_type="multipart/form-data; boundary=x")
    assert answer.status_code == 400
    assert client.post("/bulk/predict", data=b"nonsense", content_type="multipart/form-data").status_code == 400


def test_a_file_over_the_limit_is_413(settings, queue):
    client = create_app(services=build_services(replace(settings, max_upload_mb=1), queue)).test_client()
    for size in (1024 * 1024 + 1, 3_000_000):
        answer = client.post("/bulk/predict", data={"file": (io.BytesIO(b"x" * size), "a.csv")})
        assert (answer.status_code, answer.json["error"]) == (413, "RequestTooLarge")
        assert "1 MB" in answer.json["message"]


def test_an_upload_leaves_nothing_unfinished(client, send, settings):
    send(CONTENT)
    send(b"")
    assert list((settings.var_dir / "objects" / ".unfinished").iterdir()) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=many", "limit=100000", "status=odd"])
def test_a_listing_with_an_impossible_parameter_is_400(client, query):
    answer = client.get(f"/bulk/jobs?{query}")
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
    assert query.split("=")[0] in answer.json["message"]


@pytest.mark.parametrize("file_format", ["csv", "xlsx"])
def test_the_template_can_be_sent_as_it_is(client, send, run_queue, file_format):
    template = client.get(f"/bulk/template?format={file_format}")
    assert f"bulk_template.{file_format}" in template.headers["Content-Disposition"]
    accepted = send(template.data, f"t.{file_format}").json
    assert accepted["metadata"]["columns"] == ["customer_id", "customer_name", "notes"]
    run_queue()
    assert client.get(accepted["check_status_url"]).json["progress"]["successful"] == 5


def test_a_template_in_an_unknown_format_is_400(client):
    assert client.get("/bulk/template?format=pdf").status_code == 400
