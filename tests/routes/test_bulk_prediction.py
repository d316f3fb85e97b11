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
        "job_id", "status", "metadata", "message", "estimated_time_seconds", "check_status_url", "download_url", "events_url",
        "cancel_url",
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
    assert waiting["progress"] == {
        "total": 2, "processed": 0, "successful": 0, "failed": 0, "percentage": 0.0,
        "phase": "queued", "rows_read": 0, "rows_per_second": None, "eta_seconds": None,
    }  # fmt: skip
    assert "expires_at" not in waiting
    early = client.get(accepted["download_url"])
    assert (early.status_code, early.json["error"]) == (409, "JobNotFinished")
    assert early.headers["Retry-After"]

    run_queue()
    done = client.get(accepted["check_status_url"]).json
    assert done["status"] == "completed"
    assert done["progress"].pop("rows_per_second") > 0
    assert done["progress"] == {
        "total": 2, "processed": 2, "successful": 1, "failed": 1, "percentage": 100.0,
        "phase": "done", "rows_read": 2, "eta_seconds": 0.0,
    }  # fmt: skip
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
        (b"customer_id\nC1\n", "a.xlsx", 400, "MisnamedFile"),
        (b"customer_id,n\nC1,a,b\n", "a.csv", 400, "UnevenRow"),
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


@pytest.mark.parametrize("form", [{"file": "x" * 600_000}, {f"field{n}": "x" for n in range(1001)}])
def test_a_form_of_long_or_many_fields_is_413_with_what_it_lacks(client, form):
    answer = client.post("/bulk/predict", data=form, content_type="multipart/form-data")
    assert (answer.status_code, answer.json["error"]) == (413, "RequestTooLarge")
    assert "more than 1,000 parts, or more than 500 kB in parts without a file name" in answer.json["message"]


def test_an_upload_leaves_nothing_unfinished(client, send, settings):
    send(CONTENT)
    send(b"")
    assert list((settings.var_dir / "objects" / ".unfinished").iterdir()) == []


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


def with_key(client, key: str, content: bytes = CONTENT, query: str = "", **headers):
    form = {"file": (io.BytesIO(content), "customers.csv")}
    return client.post(f"/bulk/predict{query}", data=form, headers={"Idempotency-Key": key, **headers})


def test_the_same_key_and_file_is_the_same_job(client, run_queue):
    first = with_key(client, "order 66/a")
    again = with_key(client, "order 66/a")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json["job_id"] == first.json["job_id"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert client.get("/bulk/jobs").json["count"] == 1
    run_queue()
    ended = with_key(client, "order 66/a").json
    assert (ended["status"], ended["estimated_time_seconds"]) == ("completed", 0)


def test_a_client_that_repeats_its_request_id_too_is_told_that_the_job_was_there(client, services):
    first = with_key(client, "k", **{"X-Request-ID": "r-1"})
    assert "Idempotency-Replayed" not in first.headers
    with services.store._database.writing() as connection:
        connection.exec_driver_sql("UPDATE jobs SET created_at = created_at - 10")
    assert with_key(client, "k", **{"X-Request-ID": "r-1"}).headers["Idempotency-Replayed"] == "true"


def test_the_same_key_for_something_else_is_409(client):
    with_key(client, "k")
    for answer in (with_key(client, "k", CONTENT + b"C00003,c\n"), with_key(client, "k", query="?high_value_over=9")):
        assert (answer.status_code, answer.json["error"]) == (409, "IdempotencyConflict")
    assert client.get("/bulk/jobs").json["count"] == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "caf\u00e9", "a\tb"])
def test_a_key_that_cannot_be_kept_is_400(client, key):
    answer = with_key(client, key)
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
    assert "Idempotency-Key" in answer.json["message"]


@pytest.mark.parametrize(
    "query", ["high_value_over=-1", "high_value_over=nan", "high_value_over=much", "sheet=" + "x" * 201]
)
def test_an_option_that_is_impossible_is_400(client, query):
    answer = with_key(client, "k", query=f"?{query}")
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")
    assert query.split("=")[0] in answer.json["message"]


def test_a_webhook_that_may_not_be_called_is_400(client):
    answer = with_key(client, "k", query="?webhook_url=http://169.254.169.254/latest")
    assert (answer.status_code, answer.json["error"]) == (400, "WebhookRefused")
    assert client.get("/bulk/jobs").json["count"] == 0


def test_a_preview_says_how_a_file_is_read_and_starts_nothing(client, settings):
    content = f"note;Customer ID\na;{CUSTOMERS[0]}\nb;nobody\nc;\nd;{CUSTOMERS[0]}\n".encode()
    answer = client.post("/bulk/preview", data={"file": (io.BytesIO(content), "a.csv")})
    assert answer.status_code == 200
    found = answer.json
    assert (found["id_column"], found["id_column_found_by"], found["delimiter"]) == ("Customer ID", "name", ";")
    assert (found["total_rows"], found["duplicate_rows"], found["empty_ids"]) == (4, 1, 1)
    assert found["unknown_ids"] == {"count": 1, "first": ["nobody"], "of_rows": 1}
    assert found["first_rows"][0] == ["a", CUSTOMERS[0]]
    assert len(found["warnings"]) == 3
    assert client.get("/bulk/jobs").json["count"] == 0
    assert [path for path in settings.objects_dir.rglob("*") if path.is_file()] == []


def client_with(settings, queue, **limits):
    return create_app(services=build_services(replace(settings, **limits), queue)).test_client()


@pytest.mark.parametrize(
    ("limits", "content", "error", "limit"),
    [
        ({"max_rows": 2}, b"customer_id\n1\n2\n3\n", "TooManyRows", " 2 rows"),
        ({"max_columns": 3}, b"customer_id,a,b,c\n1,2,3,4\n", "TooManyColumns", " 3 "),
    ],
)
@pytest.mark.parametrize("route", ["/bulk/predict", "/bulk/preview"])
def test_a_file_over_a_limit_is_413_with_the_limit(settings, queue, route, limits, content, error, limit):
    answer = client_with(settings, queue, **limits).post(route, data={"file": (io.BytesIO(content), "a.csv")})
    assert (answer.status_code, answer.json["error"]) == (413, error)
    assert limit in answer.json["message"]


def test_one_job_more_than_a_caller_may_have_is_429_until_one_has_ended(settings, queue):
    client = client_with(settings, queue, max_jobs_per_caller=2)
    jobs = [with_key(client, f"key {number}") for number in range(2)]
    refused = with_key(client, "key 2")
    assert (refused.status_code, refused.json["error"]) == (429, "TooManyJobs")
    assert refused.headers["Retry-After"]
    assert "2 of your jobs" in refused.json["message"]
    assert with_key(client, "key 1").headers["Idempotency-Replayed"] == "true"
    assert client.post(jobs[0].json["cancel_url"]).status_code == 200
    assert with_key(client, "key 2").status_code == 202
    assert client.post(f"/bulk/resume/{jobs[0].json['job_id']}").status_code == 429
