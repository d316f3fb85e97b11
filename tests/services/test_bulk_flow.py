import csv
import io
from dataclasses import replace
from pathlib import Path

import openpyxl
import pyarrow.parquet as pq
import pytest

from ml_pipeline.bundle import read_pointer
from ml_pipeline.errors import MissingHeader, UnreadableFile
from services.bootstrap import build_services
from services.bulk_service import Caller, ConversionUnderWay
from services.errors import (
    ConversionFailed,
    JobFailed,
    JobInProgress,
    JobNotFinished,
    JobStoreUnavailable,
    ObjectMissing,
    RequestTooLarge,
    UnknownJob,
)
from services.uploads import UploadOptions
from tests.conftest import CUSTOMERS
from tests.services.bulk_files import ADDED, workbook


def read_csv(services, result) -> list[dict[str, str]]:
    with services.objects.local(result.key) as path:
        return list(csv.DictReader(io.StringIO(path.read_text("utf-8"), newline="")))


def test_a_file_comes_back_with_its_rows_in_order_and_the_predictions_beside_them(services, upload, run_queue, local):
    job = upload(
        f"note,Customer ID\nfirst,{CUSTOMERS[4]}\nsecond,nobody\nthird,\nfourth,{CUSTOMERS[4]}\nfifth, 12345.0 \n"
    )
    assert (job.status, job.rows_total, job.owner) == ("queued", 5, "local")
    assert job.metadata["id_column"] == "Customer ID"
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.rows_processed, job.rows_successful, job.rows_failed) == ("completed", 5, 3, 2)
    rows = read_csv(services, services.bulk.result(job.job_id, None, local))
    assert list(rows[0]) == ["note", "Customer ID", *ADDED]
    assert [row["note"] for row in rows] == ["first", "second", "third", "fourth", "fifth"]
    assert rows[4]["Customer ID"] == " 12345.0 "
    assert [row["status"] for row in rows] == ["success", "failed", "failed", "success", "success"]
    assert rows[0]["predicted_total_spend"] == rows[3]["predicted_total_spend"]
    alone = services.predictions.predict({"customer_id": CUSTOMERS[4]})
    assert float(rows[0]["predicted_total_spend"]) == alone["predicted_30d_spend"]["total"]
    assert float(rows[0]["predicted_total_spend_upper"]) == alone["intervals"]["total"]["upper"]


def test_money_counts_distinct_customers_and_progress_counts_rows(services, upload, run_queue, local):
    job = upload(f"customer_id\n{CUSTOMERS[0]}\n{CUSTOMERS[0]}\n{CUSTOMERS[1]}\nnobody\n")
    run_queue()
    statistics = services.bulk.status(job.job_id, local).statistics
    spend = [
        services.predictions.predict({"customer_id": one})["predicted_30d_spend"]["total"] for one in CUSTOMERS[:2]
    ]
    assert statistics["total_predicted_spend"] == round(sum(spend), 2)
    assert statistics["average_predicted_spend"] == round(sum(spend) / 2, 2)
    assert (statistics["min_predicted_spend"], statistics["max_predicted_spend"]) == (min(spend), max(spend))
    assert (statistics["rows"], statistics["rows_failed"], statistics["distinct_customers"]) == (4, 1, 2)
    assert statistics["currency"] == "INR"


def test_the_statistics_have_the_sum_of_the_distinct_customers_with_its_interval(services, upload, run_queue, local):
    ids = (CUSTOMERS[0], CUSTOMERS[0], *CUSTOMERS[:20], "nobody")
    job = upload("customer_id\n" + "".join(f"{one}\n" for one in ids))
    run_queue()
    statistics = services.bulk.status(job.job_id, local).statistics
    together = services.sums.sum({"customer_ids": list(ids)})
    intervals = together["intervals"]
    assert statistics["total_predicted_spend_lower"] == intervals["total"]["lower"]
    assert statistics["total_predicted_spend_upper"] == intervals["total"]["upper"]
    assert intervals["total"]["lower"] < statistics["total_predicted_spend"] < intervals["total"]["upper"]
    parts = {name: money for name, money in together["predicted_30d_spend"].items() if name != "total"}
    assert statistics["per_target"] == {
        name: {"predicted_spend": money, **intervals[name]} for name, money in parts.items()
    }
    assert round(sum(parts.values()), 2) == statistics["total_predicted_spend"]


def test_a_file_without_a_known_customer_completes_with_every_row_failed(services, upload, run_queue, local):
    job = upload("customer_id\nnobody\nnone of ours\n")
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.rows_failed) == ("completed", 2)
    assert job.statistics["average_predicted_spend"] is None
    assert job.statistics["total_predicted_spend"] == 0
    assert job.statistics["total_predicted_spend_upper"] == 0


def test_a_workbook_comes_back_as_a_workbook_with_its_types(services, upload, run_queue, local):
    job = upload(workbook([["CustomerID", "n", "status"], ["00042", 1.5, "=2"], [12345, 7, "x"]]), "a.xlsx")
    run_queue()
    result = services.bulk.result(job.job_id, None, local)
    with services.objects.local(result.key) as path:
        rows = list(openpyxl.load_workbook(path).active.iter_rows(values_only=True))
    assert rows[0][:3] == ("CustomerID", "n", "uploaded_status")
    assert rows[1][:3] == ("00042", 1.5, "'=2")
    assert rows[2][:3] == (12345, 7, "x")
    assert [dict(zip(rows[0], row, strict=True))["status"] for row in rows[1:]] == ["success", "success"]


def test_another_format_is_made_when_it_is_asked_for_and_holds_the_same(services, upload, run_queue, local):
    job = upload(f"customer_id,n\n{CUSTOMERS[0]},=1\nnobody,2\n")
    run_queue()
    rows = read_csv(services, services.bulk.result(job.job_id, "csv", local))
    for wanted in ("xlsx", "parquet"):
        assert isinstance(services.bulk.result(job.job_id, wanted, local), ConversionUnderWay)
        assert isinstance(services.bulk.result(job.job_id, wanted, local), ConversionUnderWay)
        run_queue()
        result = services.bulk.result(job.job_id, wanted, local)
        assert result.filename == f"customers_predictions.{wanted}"
        with services.objects.local(result.key) as path:
            if wanted == "xlsx":
                header, *body = openpyxl.load_workbook(path).active.iter_rows(values_only=True)
                converted = [dict(zip(header, row, strict=True)) for row in body]
            else:
                converted = pq.read_table(path).to_pylist()
        assert list(converted[0]) == list(rows[0])
        assert converted[0]["predicted_total_spend"] == float(rows[0]["predicted_total_spend"])
        assert [row["error"] for row in converted] == [row["error"] or None for row in rows]
    assert len(services.bulk.jobs(local).jobs) == 1


def test_a_result_is_asked_for_too_early_or_not_there(services, upload, local):
    job = upload("customer_id\nC1\n")
    with pytest.raises(JobNotFinished, match="queued"):
        services.bulk.result(job.job_id, None, local)
    with pytest.raises(UnknownJob):
        services.bulk.result("nothing", None, local)


def test_jobs_of_others_are_not_seen(services, upload, run_queue, local):
    job = upload("customer_id\nC1\n")
    run_queue()
    stranger = Caller("anonymous", "r")
    for act in (
        lambda: services.bulk.status(job.job_id, stranger),
        lambda: services.bulk.result(job.job_id, None, stranger),
        lambda: services.bulk.delete(job.job_id, stranger),
    ):
        with pytest.raises(UnknownJob):
            act()
    assert services.bulk.jobs(stranger).jobs == []


def test_a_deleted_job_leaves_no_file(services, upload, run_queue, local, settings):
    job = upload("customer_id\nC1\n")
    run_queue()
    assert (settings.var_dir / "objects" / job.job_id).is_dir()
    services.bulk.delete(job.job_id, local)
    assert not (settings.var_dir / "objects" / job.job_id).exists()
    with pytest.raises(UnknownJob):
        services.bulk.status(job.job_id, local)


def test_a_job_that_is_processed_is_not_deleted(services, upload, local):
    job = upload("customer_id\nC1\n")
    services.steps.claim(job.job_id, "worker-1")
    with pytest.raises(JobInProgress):
        services.bulk.delete(job.job_id, local)


def test_a_file_that_is_refused_leaves_no_job_and_no_file(services, upload, local, settings):
    with pytest.raises(UnreadableFile):
        upload(bytes(range(256)) * 10)
    assert services.bulk.jobs(local).jobs == []
    assert list((settings.var_dir / "objects").glob("*")) == []


def test_a_file_without_a_header_is_refused_instead_of_losing_its_first_customer(upload):
    with pytest.raises(MissingHeader, match=CUSTOMERS[0]):
        upload(f"{CUSTOMERS[0]},a\n{CUSTOMERS[1]},b\n")
    assert upload(f"whoever,note\n{CUSTOMERS[1]},b\n").metadata["id_column"] == "whoever"


def test_a_file_over_the_limit_is_refused(settings, queue, tmp_path, local):
    small = build_services(replace(settings, max_upload_mb=1), queue)
    path = tmp_path / "received"
    path.write_bytes(b"customer_id\n" + b"C1\n" * 400_000)
    with pytest.raises(RequestTooLarge, match="at most 1 MB"):
        small.bulk.upload(path, "a.csv", local)


def test_with_the_queue_away_the_job_is_recorded_and_runs_when_it_is_back(
    services, upload, queue, run_queue, local, monkeypatch
):
    queue.away = True
    job = upload("customer_id\nC1\n")
    assert (job.status, job.enqueued_at) == ("queued", None)
    monkeypatch.setattr("services.step_store.OWN_SENDING_SECONDS", -1.0)
    services.watchdog.sweep()
    assert queue.sent == []
    queue.away = False
    services.watchdog.sweep()
    assert queue.sent == [("bulk", job.job_id)]
    run_queue()
    assert services.bulk.status(job.job_id, local).status == "completed"


def test_a_job_delivered_twice_runs_once(services, upload, queue, local):
    job = upload("customer_id\nC1\n")
    services.runner.run(job.job_id)
    first = services.bulk.status(job.job_id, local)
    services.runner.run(job.job_id)
    assert services.bulk.status(job.job_id, local) == first
    assert {step.attempts for step in services.store.steps(job.job_id)} == {1}


def test_an_upload_that_cannot_be_recorded_leaves_no_file(services, upload, settings, monkeypatch):
    def away(*_facts):
        raise JobStoreUnavailable("The database of the jobs does not answer.")

    monkeypatch.setattr(services.store, "add", away)
    with pytest.raises(JobStoreUnavailable):
        upload("customer_id\nC1\n")
    assert services.objects.folders() == []


@pytest.mark.parametrize("still_away", [True, False])
def test_an_upload_whose_answer_was_lost_after_it_was_recorded_is_the_job_of_the_next_try(
    services, upload, run_queue, local, monkeypatch, still_away
):
    def recorded_but_away(new, limit):
        add(new, limit)
        raise JobStoreUnavailable("The link broke.")

    def away(_job_ids):
        raise JobStoreUnavailable("The link is still broken.")

    add, options = services.store.add, UploadOptions(idempotency_key="order 4711")
    with monkeypatch.context() as patched:
        patched.setattr(services.store, "add", recorded_but_away)
        if still_away:
            patched.setattr(services.store, "known", away)
        with pytest.raises(JobStoreUnavailable):
            upload("customer_id\nC00001\n", options=options)
    job = upload("customer_id\nC00001\n", options=options)
    services.runner.run(job.job_id)
    assert services.bulk.status(job.job_id, local).status == "completed"


def test_without_a_model_the_job_fails_with_the_reason(settings, queue, tmp_path, local):
    built = build_services(replace(settings, models_dir=tmp_path / "none"), queue, worker_id="w1")
    path = tmp_path / "received"
    path.write_text("customer_id\nC1\n")
    job = built.bulk.upload(path, "a.csv", local)
    built.runner.run(job.job_id)
    job = built.bulk.status(job.job_id, local)
    assert (job.status, job.error_name) == ("failed", "NoServingModel")
    with pytest.raises(JobFailed, match="NoServingModel"):
        built.bulk.result(job.job_id, None, local)


def test_an_upload_that_vanished_fails_the_job_by_name_when_it_stays_away(services, upload, settings, local, no_waits):
    job = upload("customer_id\nC1\n")
    (settings.var_dir / "objects" / job.parameters["upload_key"]).unlink()
    services.runner.run(job.job_id)
    assert services.bulk.status(job.job_id, local).error_name == ObjectMissing.__name__
    assert services.store.steps(job.job_id)[0].attempts == 1 + len(no_waits)


def test_a_conversion_that_fails_is_said_once_and_then_tried_again(services, upload, run_queue, local, monkeypatch):
    job = upload("customer_id\n" + "x" * 40_000 + "\n")
    run_queue()
    services.bulk.result(job.job_id, "xlsx", local)
    run_queue()
    with pytest.raises(ConversionFailed, match="40,000 characters"):
        services.bulk.result(job.job_id, "xlsx", local)
    assert isinstance(services.bulk.result(job.job_id, "xlsx", local), ConversionUnderWay)


def test_of_two_that_hear_at_once_that_a_conversion_failed_both_are_told_so(
    services, upload, run_queue, local, monkeypatch
):
    job = upload("customer_id\n" + "x" * 40_000 + "\n")
    run_queue()
    services.bulk.result(job.job_id, "xlsx", local)
    run_queue()
    failed = services.store.variant(job.job_id, "convert_result", "xlsx")
    monkeypatch.setattr(services.store, "variant", lambda *_asked: failed)  # both looked before the first forgot it
    for _ in range(2):
        with pytest.raises(ConversionFailed, match="40,000 characters"):
            services.bulk.result(job.job_id, "xlsx", local)


def test_a_large_file_is_counted_by_the_job(services, upload, run_queue, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    job = upload("customer_id,n\nC00001,1\nC00001,2\n")
    assert job.rows_total is None
    pending = {name for name, value in job.metadata.items() if value is None}
    assert pending == {"total_rows", "total_customers", "has_duplicates", "compression", "sheet", "sheets"}
    assert job.metadata["metadata_status"] == "pending"
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.rows_total, job.rows_processed) == ("completed", 2, 2)
    assert job.metadata["metadata_status"] == "complete"
    assert (job.metadata["total_customers"], job.metadata["has_duplicates"]) == (1, True)


def test_a_large_workbook_is_opened_by_the_job(services, upload, run_queue, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    job = upload(workbook([["n", "customer_id"], [1, "C00001"]]), "a.xlsx")
    assert job.metadata["columns"] is None
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.metadata["id_column"], job.rows_successful) == ("completed", "customer_id", 1)
    assert isinstance(services.bulk.result(job.job_id, "csv", local), ConversionUnderWay)
    run_queue()
    assert read_csv(services, services.bulk.result(job.job_id, "csv", local))[0]["status"] == "success"


def test_a_large_workbook_without_a_header_loses_no_customer_to_it(services, upload, run_queue, local, monkeypatch):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    job = upload(workbook([["C00001"], ["C00002"]]), "a.xlsx")
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.error_name) == ("failed", "MissingHeader")


def test_a_large_file_that_is_broken_further_down_fails_the_job_by_name(
    services, upload, run_queue, local, monkeypatch
):
    monkeypatch.setattr("services.uploads.cheap_to_count", lambda _path: False)
    job = upload("customer_id,n\nC00001,1\nC00001,2,3\n")
    run_queue()
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.error_name) == ("failed", "UnevenRow")


def test_the_template_has_customers_that_exist_and_comes_back_whole(services, upload, run_queue, local):
    for template_format in ("csv", "xlsx"):
        job = upload(services.bulk.template(template_format), f"template.{template_format}")
        assert job.metadata["columns"] == ["customer_id", "customer_name", "notes"]
        run_queue()
        job = services.bulk.status(job.job_id, local)
        assert (job.status, job.rows_successful) == ("completed", 5)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("C:\\Users\\me\\customers.csv", "customers.csv"), ("../../etc/x.csv", "x.csv"), ("a\r\nb\0.csv", "ab.csv")],
)
def test_of_a_file_name_only_the_plain_last_part_is_kept(upload, given, kept):
    assert upload("customer_id\nC1\n", given).metadata["filename"] == kept


def test_the_models_folder_is_not_touched(services, upload, run_queue, toy_models: Path):
    before = sorted(toy_models.rglob("*"))
    upload("customer_id\nC1\n")
    run_queue()
    assert sorted(toy_models.rglob("*")) == before
    assert read_pointer(toy_models)
