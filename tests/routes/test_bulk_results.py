import csv
import io
from dataclasses import replace

import pytest

from ml_pipeline.customer_flags import FLAGS
from tests.conftest import CUSTOMERS

IDS = [*CUSTOMERS[:4], CUSTOMERS[0], "nobody"]
CONTENT = ("customer_id\n" + "".join(f"{one}\n" for one in IDS)).encode()


@pytest.fixture
def settings(settings):
    return replace(settings, rows_per_chunk=2)


@pytest.fixture
def job_id(client):
    return client.post("/bulk/predict", data={"file": (io.BytesIO(CONTENT), "Größe.csv")}).json["job_id"]


@pytest.fixture
def url(job_id, run_queue):
    run_queue()
    return f"/bulk/download/{job_id}"


def test_a_part_of_the_result_can_be_had(client, url):
    whole = client.get(url)
    assert whole.headers["Accept-Ranges"] == "bytes"
    size = len(whole.data)
    for asked, start, end in (
        ("bytes=0-9", 0, 10),
        (f"bytes={size - 5}-", size - 5, size),
        ("bytes=-7", size - 7, size),
    ):
        part = client.get(url, headers={"Range": asked})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.data == whole.data[start:end]


def test_a_download_that_broke_off_goes_on_only_in_the_same_file(client, url):
    tag = client.get(url).headers["ETag"]
    same = client.get(url, headers={"Range": "bytes=5-9", "If-Range": tag})
    other = client.get(url, headers={"Range": "bytes=5-9", "If-Range": '"another"'})
    assert (same.status_code, len(same.data)) == (206, 5)
    assert other.status_code == 200
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=9-2", "bytes=0-1,4-5", "bytes=x-y"])
def test_a_range_that_cannot_be_had_is_416_in_the_one_shape(client, url, asked):
    answer = client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.json["error"]) == (416, "RangeNotSatisfiable")
    assert set(answer.json) == {"error", "message"}
    assert answer.headers["Content-Range"] == f"bytes */{len(client.get(url).data)}"


def test_a_range_of_a_unit_that_is_not_known_is_passed_over(client, url):
    answer = client.get(url, headers={"Range": "lines=1-2"})
    assert (answer.status_code, answer.data) == (200, client.get(url).data)


def test_the_charset_of_a_csv_is_said_once(client, services, queue, job_id, run_queue):
    url = f"/bulk/download/{job_id}"
    services.runner._seconds_per_message = 0.0
    for _ in range(2):
        services.runner.run(queue.sent.pop(0)[1])
    assert client.get(f"{url}?partial=true").headers["Content-Type"] == "text/csv; charset=utf-8"
    run_queue()
    assert client.get(url).headers["Content-Type"] == "text/csv; charset=utf-8"


def test_head_says_what_get_would(client, url):
    head, get = client.head(url), client.get(url)
    assert (head.status_code, head.data) == (200, b"")
    for header in ("Content-Length", "Content-Type", "Content-Disposition", "ETag", "Accept-Ranges"):
        assert head.headers[header] == get.headers[header]


def test_what_is_done_so_far_can_be_had(client, services, queue, job_id):
    url = f"/bulk/download/{job_id}?partial=true"
    services.runner._seconds_per_message = 0.0
    services.runner.run(queue.sent.pop(0)[1])
    nothing = client.get(url)
    assert (nothing.status_code, nothing.json["error"]) == (409, "JobNotFinished")
    for done in (2, 4):
        services.runner.run(queue.sent.pop(0)[1])
        part = client.get(url)
        rows = list(csv.DictReader(io.StringIO(part.text)))
        assert (part.status_code, part.headers["X-Partial-Rows"]) == (200, f"{done}/6")
        assert [row["customer_id"] for row in rows] == IDS[:done]
        assert "partial" in part.headers["Content-Disposition"]
        assert "ETag" not in part.headers
    while queue.sent:
        services.runner.run(queue.sent.pop(0)[1])
    whole = client.get(url)
    assert whole.data == client.get(f"/bulk/download/{job_id}").data
    assert "partial" not in whole.headers["Content-Disposition"]


def test_what_is_done_so_far_is_only_there_as_uploaded(client, job_id):
    answer = client.get(f"/bulk/download/{job_id}?partial=true&format=xlsx")
    assert (answer.status_code, answer.json["error"]) == (400, "InvalidRequest")


def test_the_customers_of_a_file_are_listed_once_and_by_flag_and_segment(client, job_id, url):
    listed = client.get(f"/bulk/customers/{job_id}").json
    assert listed["total"] == 4
    spends = [one["predicted_total_spend"] for one in listed["customers"]]
    assert spends == sorted(spends, reverse=True)
    page = client.get(f"/bulk/customers/{job_id}?limit=1&offset=2").json
    assert [one["customer_id"] for one in page["customers"]] == [listed["customers"][2]["customer_id"]]
    by_flag = {flag: client.get(f"/bulk/customers/{job_id}?flag={flag}").json["total"] for flag in FLAGS}
    assert by_flag == {flag: sum(flag in one["flags"] for one in listed["customers"]) for flag in FLAGS}
    segments = {one["segment"] for one in listed["customers"]}
    for segment in segments:
        found = client.get(f"/bulk/customers/{job_id}", query_string={"segment": segment}).json
        assert {one["segment"] for one in found["customers"]} == {segment}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("flag=odd", "UnknownFlag"),
        ("segment=odd", "UnknownSegment"),
        ("limit=0", "InvalidRequest"),
        ("offset=-1", "InvalidRequest"),
    ],
)
def test_a_list_that_is_impossible_is_400(client, job_id, url, query, error):
    answer = client.get(f"/bulk/customers/{job_id}?{query}")
    assert (answer.status_code, answer.json["error"]) == (400, error)


def test_the_customers_of_a_job_under_way_are_409(client, job_id):
    answer = client.get(f"/bulk/customers/{job_id}")
    assert (answer.status_code, answer.json["error"]) == (409, "JobNotFinished")


def test_an_error_names_no_path(client, job_id, url, settings):
    for file in settings.objects_dir.rglob("result-*"):
        file.unlink()
    answer = client.get(url)
    assert (answer.status_code, answer.json["error"]) == (503, "ObjectMissing")
    assert str(settings.var_dir) not in answer.text
