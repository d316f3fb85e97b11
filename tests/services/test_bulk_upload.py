"""What happens to a file before a job runs: keys that are used twice, limits, options, pages of jobs, and previews."""

import gzip
from dataclasses import replace

import pyarrow as pa
import pytest

from ml_pipeline.errors import (
    ImpossibleThreshold,
    MissingHeader,
    TooManyColumns,
    TooManyRows,
    UnknownSheet,
)
from services.bootstrap import build_services
from services.bulk_service import Caller
from services.errors import (
    IdempotencyConflict,
    InvalidRequest,
    RequestTooLarge,
    StorageFull,
    TooManyJobs,
    WebhookRefused,
)
from services.uploads import IdCounts, UploadOptions
from tests.conftest import CUSTOMERS
from tests.services.bulk_files import ROWS, csv_of, parquet_of, workbook
from tests.services.conftest import patient

KEY = UploadOptions(idempotency_key="order 4711")


# ---- idempotency


def test_the_same_key_and_file_give_the_same_job(services, upload, queue, local):
    first = upload("customer_id\nC00001\n", options=KEY)
    again = upload("customer_id\nC00001\n", "other name.csv", options=KEY)
    assert again == first
    assert len(services.bulk.jobs(local).jobs) == len(services.objects.folders()) == len(queue.sent) == 1


def test_a_key_still_gives_its_job_when_that_has_ended(services, upload, run_queue, local):
    job = upload("customer_id\nC00001\n", options=KEY)
    run_queue()
    again = upload("customer_id\nC00001\n", options=KEY)
    assert (again.job_id, again.status) == (job.job_id, "completed")


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("customer_id\nC00002\n", KEY),
        ("customer_id\nC00001\n", replace(KEY, high_value_over=5.0)),
    ],
)
def test_a_key_that_was_used_for_something_else_is_refused(services, upload, local, content, options):
    job = upload("customer_id\nC00001\n", options=KEY)
    with pytest.raises(IdempotencyConflict, match=job.job_id):
        upload(content, options=options)
    assert len(services.bulk.jobs(local).jobs) == len(services.objects.folders()) == 1


def test_all_that_is_said_beside_a_file_but_the_key_tells_two_requests_apart(tmp_path):
    path = tmp_path / "received"
    path.write_text("customer_id\nC00001\n")
    others = [
        replace(KEY, sheet="b"),
        replace(KEY, webhook_url="https://shop.example"),
        replace(KEY, high_value_over=5.0),
    ]
    assert len({said.digest(path) for said in (KEY, *others)}) == 4
    assert UploadOptions(idempotency_key="order 4712").digest(path) == KEY.digest(path)


def test_a_key_is_its_owners_own(upload):
    job = upload("customer_id\nC00001\n", options=KEY)
    assert upload("customer_id\nC00002\n", options=KEY, caller=Caller("somebody else", "r")).job_id != job.job_id


def test_of_two_uploads_at_once_with_one_key_one_is_recorded_and_the_others_file_goes(
    services, upload, queue, local, monkeypatch
):
    first = upload("customer_id\nC00001\n", options=KEY)
    monkeypatch.setattr(services.store, "with_key", lambda *_asked: None)  # both looked before the first was recorded
    assert upload("customer_id\nC00001\n", options=KEY).job_id == first.job_id
    with pytest.raises(IdempotencyConflict):
        upload("customer_id\nC00002\n", options=KEY)
    assert services.objects.folders() == [first.job_id]
    assert len(queue.sent) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "a\nb"])
def test_a_key_must_be_a_short_printable_text(upload, key):
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        upload("customer_id\nC00001\n", options=UploadOptions(idempotency_key=key))


# ---- limits


@pytest.fixture
def limited(settings, queue, services):
    def build(**limits):
        tables = (services.store, services.steps)
        return patient(build_services(replace(settings, **limits), queue, worker_id="w", tables=tables))

    return build


def test_a_file_over_the_limit_of_bytes_is_refused(upload, limited):
    with pytest.raises(RequestTooLarge, match="at most 1 MB"):
        upload(b"customer_id\n" + b"C1\n" * 400_000, to=limited(max_upload_mb=1))


def test_a_file_with_more_columns_than_are_taken_is_refused(services, upload, limited):
    with pytest.raises(TooManyColumns, match="2"):
        upload("customer_id,a,b\nC1,1,2\n", to=limited(max_columns=2))
    assert services.objects.folders() == []
    assert upload("customer_id,a\nC1,1\n", to=limited(max_columns=2)).rows_total == 1


def test_a_file_with_more_rows_than_are_taken_is_refused(services, upload, limited):
    with pytest.raises(TooManyRows, match="29"):
        upload(csv_of(ROWS), to=limited(max_rows=29))
    assert services.objects.folders() == []
    assert upload(csv_of(ROWS), to=limited(max_rows=30)).rows_total == 30


def test_a_large_file_with_more_rows_than_are_taken_fails_its_job(services, upload, limited, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    strict = limited(max_rows=29, rows_per_chunk=7)
    job = upload(csv_of(ROWS), to=strict)
    strict.runner.run(job.job_id)
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.error_name) == ("failed", "TooManyRows")
    assert "29" in job.error_message


def test_a_caller_has_only_so_many_jobs_at_once(services, upload, limited, run_queue, local, monkeypatch):
    two = limited(max_jobs_per_caller=2)
    first = upload("customer_id\nC00001\n", to=two, options=KEY)
    upload("customer_id\nC00001\n", to=two)
    with monkeypatch.context() as patched:
        patched.setattr("services.bulk_service.looked_at", None)  # a refused file is not even looked at
        with pytest.raises(TooManyJobs, match="2 of your jobs"):
            upload("customer_id\nC00001\n", to=two)
    assert upload("customer_id\nC00001\n", to=two, options=KEY).job_id == first.job_id
    assert upload("customer_id\nC00001\n", to=two, caller=Caller("somebody else", "r"))
    run_queue()
    third = upload("customer_id\nC00001\n", to=two)
    services.bulk.cancel(third.job_id, local)
    for _ in range(2):
        upload("customer_id\nC00001\n", to=two)
    with pytest.raises(TooManyJobs):
        two.bulk.retry(third.job_id, local)


def test_of_uploads_at_once_no_more_than_the_limit_are_recorded(services, upload, limited, monkeypatch):
    one = limited(max_jobs_per_caller=1)
    upload("customer_id\nC00001\n", to=one)
    monkeypatch.setattr(services.store, "open_jobs", lambda *_asked: 0)  # looked before the other was recorded
    with pytest.raises(TooManyJobs):
        upload("customer_id\nC00001\n", to=one)
    assert len(services.objects.folders()) == 1


def test_a_webhook_that_may_not_be_called_is_refused_before_anything_is_kept(services, upload, local):
    with pytest.raises(WebhookRefused):
        upload("customer_id\nC00001\n", options=UploadOptions(webhook_url="https://nobody.example.com/x"))
    assert services.bulk.jobs(local).jobs == []
    assert services.objects.folders() == []


def test_a_webhook_that_may_be_called_is_called_when_the_job_has_ended(services, upload, limited, local):
    hooked = limited(webhook_secret="s" * 32, webhook_hosts=("127.0.0.1",))
    job = upload("customer_id\nC00001\n", to=hooked, options=UploadOptions(webhook_url="http://127.0.0.1:9/x"))
    assert hooked.bulk.webhook(job)["status"] == "waiting"
    hooked.runner.run(job.job_id)
    hooked.runner.run(job.job_id)  # the call is of another queue
    job = services.bulk.status(job.job_id, local)
    told = hooked.bulk.webhook(job)
    assert (job.status, told["status"], told["attempts"]) == ("completed", "waiting", 1)  # nobody listens there
    assert told["message"]
    assert services.bulk.webhook(upload("customer_id\nC00001\n")) is None


@pytest.mark.parametrize("amount", [-1.0, float("nan"), float("inf"), 1e300])
def test_a_threshold_that_is_no_amount_of_money_is_refused(services, upload, amount):
    with pytest.raises(ImpossibleThreshold, match="high_value_over"):
        upload("customer_id\nC00001\n", options=UploadOptions(high_value_over=amount))
    assert services.objects.folders() == []


def test_customers_above_the_threshold_that_was_asked_for_are_of_high_value(services, upload, run_queue, local):
    content = csv_of(ROWS)
    everyone = upload(content, options=UploadOptions(high_value_over=0.0))
    nobody = upload(content, options=UploadOptions(high_value_over=1e6))
    run_queue()
    for job, share in ((everyone, 1), (nobody, 0)):
        statistics = services.bulk.status(job.job_id, local).statistics
        expected = share * statistics["distinct_customers"]
        assert statistics["flags"]["high_value"]["customers"] == expected
        assert services.bulk.customers(job.job_id, local, flag="high_value", limit=3)["total"] == expected


def test_a_full_disk_refuses_the_upload_and_leaves_nothing(services, upload, local, monkeypatch):
    def full(*_facts):
        raise StorageFull("There is no space left.")

    monkeypatch.setattr(services.objects, "adopt", full)
    with pytest.raises(StorageFull):
        upload("customer_id\nC00001\n")
    assert services.bulk.jobs(local).jobs == []


# ---- sheets


def test_the_sheet_that_was_asked_for_is_read(services, upload, run_queue, local):
    book = workbook([["customer_id"], [CUSTOMERS[0]]], sheets=("Cover", "Customers"))
    job = upload(book, "a.xlsx", options=UploadOptions(sheet="Customers"))
    assert (job.metadata["sheet"], job.metadata["sheets"]) == ("Customers", ["Cover", "Customers"])
    run_queue()
    assert services.bulk.status(job.job_id, local).rows_successful == 1
    with pytest.raises(UnknownSheet, match="Nowhere"):
        upload(book, "a.xlsx", options=UploadOptions(sheet="Nowhere"))


def test_a_large_workbook_is_read_from_the_sheet_that_was_asked_for(services, upload, run_queue, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    book = workbook([["customer_id"], [CUSTOMERS[0]]], sheets=("Cover", "Customers"))
    job = upload(book, "a.xlsx", options=UploadOptions(sheet="Customers"))
    assert job.metadata["columns"] is None
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.metadata["sheet"], job.rows_successful) == ("completed", "Customers", 1)


def test_a_large_wide_workbook_is_cut_into_chunks_of_fewer_rows(services, upload, run_queue, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    monkeypatch.setattr("services.chunk_staging.CELLS_PER_CHUNK", 20)
    job = upload(workbook([["customer_id", "note"], *ROWS]), "a.xlsx")
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.rows_total, job.metadata["total_customers"]) == ("completed", 30, 17)
    assert [step.rows for step in services.store.steps(job.job_id) if step.kind == "score"] == [10, 10, 10]


# ---- pages


def test_jobs_come_in_pages_the_newest_first(services, upload, local):
    ids = [upload("customer_id\nC00001\n").job_id for _ in range(5)]
    first = services.bulk.jobs(local, limit=2)
    second = services.bulk.jobs(local, limit=2, cursor=first.next_cursor)
    last = services.bulk.jobs(local, limit=2, cursor=second.next_cursor)
    assert [job.job_id for page in (first, second, last) for job in page.jobs] == ids[::-1]
    assert last.next_cursor is None
    assert services.bulk.jobs(local, limit=5).next_cursor is None
    assert services.bulk.jobs(local, "completed").jobs == []


@pytest.mark.parametrize("cursor", ["", "x", "*", "bm9uZSBvZiBvdXJz", "bmFuIGFiYw", "é"])
def test_a_cursor_that_is_none_of_ours_is_refused(services, local, cursor):
    with pytest.raises(InvalidRequest, match="next_cursor"):
        services.bulk.jobs(local, cursor=cursor)


# ---- previews


@pytest.fixture
def preview(services, tmp_path):
    def ask(content, name="customers.csv", sheet=None):
        path = tmp_path / "received"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return services.bulk.preview(path, name, sheet)

    return ask


def test_a_preview_says_how_a_file_is_read_and_starts_nothing(services, preview, queue, local):
    found = preview(csv_of([*ROWS, ["", "no id"]]))
    assert (found["format"], found["delimiter"], found["encoding"], found["decimal"]) == ("csv", ",", "utf-8", ".")
    assert (found["id_column"], found["id_column_found_by"]) == ("customer_id", "name")
    assert (found["total_rows"], found["total_customers"], found["checked_rows"]) == (31, 17, 31)
    assert (found["has_duplicates"], found["duplicate_rows"], found["empty_ids"]) == (True, 13, 1)
    assert found["unknown_ids"] == {"count": 1, "first": ["nobody"], "of_rows": 6}
    assert found["first_rows"] == [[str(cell) for cell in row] for row in ROWS[:5]]
    assert found["metadata_status"] == "complete"
    assert len(found["warnings"]) == 3
    assert queue.sent == services.bulk.jobs(local).jobs == []
    assert services.objects.folders() == []


def test_a_preview_has_the_metadata_that_the_upload_has(preview, upload):
    for content, name in (
        (csv_of(ROWS), "a.csv"),
        (gzip.compress(csv_of(ROWS)), "a.csv.gz"),
        (workbook([["n", "Customer ID"], [1, "C00001"], [2, 12345.0]]), "a.xlsx"),
        (parquet_of(ROWS), "a.parquet"),
    ):
        found, recorded = preview(content, name), upload(content, name).metadata
        assert {key: found[key] for key in recorded} == dict(recorded)


def test_a_preview_of_a_clean_file_warns_of_nothing(preview):
    assert preview("customer_id\nC00001\nC00002\n")["warnings"] == []


def test_a_preview_warns_of_a_column_that_is_no_column_of_ids(preview):
    found = preview("name,id\nAnn,C00001\n,C00003\nBob,C00002\n")
    assert any("'name'" in sentence for sentence in found["warnings"])
    assert any("None of the ids" in sentence for sentence in found["warnings"])
    assert found["unknown_ids"]["first"] == ["Ann", "Bob"]


def test_a_preview_tells_of_zeros_that_a_spreadsheet_took_away(preview):
    found = preview(b"customer_id\n42\n7\n12345\n")
    assert any("zeros in front: 42 as 00042" in sentence for sentence in found["warnings"])


def test_a_preview_of_a_large_file_looks_at_its_first_rows_and_says_so(preview, monkeypatch):
    monkeypatch.setattr("services.upload_preview.cheap_to_count", lambda _path: False)
    monkeypatch.setattr("services.uploads.ROWS_AT_ONCE", 10)
    found = preview(csv_of(ROWS))
    assert (found["checked_rows"], found["total_rows"], found["metadata_status"]) == (10, None, "pending")
    assert (found["has_duplicates"], found["total_customers"]) == (None, None)
    assert found["unknown_ids"] == {"count": 1, "first": ["nobody"], "of_rows": 2}
    assert any("only the first 10 rows" in sentence for sentence in found["warnings"])


def test_a_preview_names_the_sheets(preview):
    book = workbook([["customer_id"], [CUSTOMERS[0]]], sheets=("Cover", "Customers"))
    found = preview(book, "a.xlsx", "Customers")
    assert (found["sheet"], found["sheets"], found["total_rows"]) == ("Customers", ["Cover", "Customers"], 1)
    assert any("2 sheets" in sentence for sentence in found["warnings"])


def test_a_preview_refuses_what_an_upload_refuses(preview):
    with pytest.raises(MissingHeader):
        preview(f"{CUSTOMERS[0]},a\n{CUSTOMERS[1]},b\n")


def test_a_preview_without_a_model_says_that_nobody_knows_whom_it_knows(settings, queue, tmp_path):
    built = build_services(replace(settings, models_dir=tmp_path / "none"), queue)
    path = tmp_path / "received"
    path.write_bytes(csv_of(ROWS))
    found = built.bulk.preview(path, "a.csv")
    assert (found["unknown_ids"], found["total_rows"]) == (None, 30)
    assert any("No model can serve" in sentence for sentence in found["warnings"])


def test_ids_are_counted_as_they_go_by_whatever_their_length():
    counts = IdCounts()
    for ids in (["a", "", "x" * 1000], ["b", "a", "x" * 1000, "x" * 1001]):
        counts.add(pa.array(ids))
    assert (counts.rows, counts.empty) == (7, 1)
    assert (counts.counts().customers, counts.counts().has_duplicates) == (4, True)


def test_distinct_ids_are_counted_whatever_they_end_with():
    counts = IdCounts()
    assert (counts.counts().customers, counts.counts().has_duplicates) == (0, False)
    counts.add(pa.array(["1", "21", "é", "è", "日", "1 ", "", "C\u0301"]))
    assert (counts.counts().customers, counts.counts().has_duplicates) == (7, False)
    counts.add(pa.array(["日", "x"]))
    assert (counts.counts().customers, counts.counts().has_duplicates) == (8, True)
