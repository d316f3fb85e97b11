import os
import subprocess
import sys
import time
import uuid
from dataclasses import replace

import pytest
import sqlalchemy as sa

from config import ROOT
from services.bootstrap import build_services
from services.errors import UnknownJob
from services.object_store import UNFINISHED
from services.retention import Retention

FILE = "customer_id\nC00001\n"


def age(folder, seconds):
    """Makes all files below a folder older."""
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


@pytest.fixture
def tidy(services):
    """Tidies as if ended jobs were kept for so many days."""
    return lambda days: Retention(services.store, services.objects, days).tidy()


def test_jobs_go_with_their_files_when_their_time_is_over(services, upload, run_queue, local, tidy):
    ended, waiting = upload(FILE), upload(FILE)
    services.runner.run(ended.job_id)
    services.bulk.result(ended.job_id, "parquet", local)
    services.runner.run(services.store.variant(ended.job_id, "convert_result", "parquet").job_id)
    time.sleep(0.02)
    tidy(0.01 / 86_400)
    with pytest.raises(UnknownJob):
        services.bulk.status(ended.job_id, local)
    assert services.objects.names(ended.job_id) == []
    assert services.bulk.status(waiting.job_id, local).status == "queued"
    assert len(services.objects.names(waiting.job_id)) == 1


@pytest.mark.parametrize("days", [1, 0])
def test_jobs_stay_until_then_and_for_ever_where_0_days_are_set(services, upload, run_queue, local, tidy, days):
    job = upload(FILE)
    run_queue()
    tidy(days)
    assert services.bulk.status(job.job_id, local).status == "completed"


def test_files_of_jobs_that_nobody_knows_go_after_an_hour(services, upload, settings, tidy, monkeypatch):
    monkeypatch.setattr("services.retention.IDS_PER_QUESTION", 1)
    job = upload(FILE)
    stranger, another, newcomer = (uuid.uuid4().hex for _ in range(3))
    for name in (stranger, another, newcomer):
        with services.objects.create(f"{name}/parts/000001-1.csv") as path:
            path.write_text("left behind")
    for name, seconds in (
        (job.job_id, 4000), (stranger, 4000), (another, 4000), (newcomer, 3000), ("models", 9_000_000),
    ):  # fmt: skip
        age(settings.objects_dir / name, seconds)
    models = services.objects.names("models")
    tidy(30)
    assert set(services.objects.folders()) == {job.job_id, newcomer}
    assert services.objects.names("models") == models != []


def test_a_job_whose_result_is_being_converted_stays(services, upload, run_queue, local, tidy):
    job = upload(FILE)
    run_queue()
    services.bulk.result(job.job_id, "parquet", local)
    services.steps.claim(services.store.variant(job.job_id, "convert_result", "parquet").job_id, "worker-0")
    time.sleep(0.02)
    tidy(0.01 / 86_400)
    assert services.bulk.status(job.job_id, local).status == "completed"
    assert services.objects.exists(services.bulk.status(job.job_id, local).result_key)


def test_what_a_result_was_made_of_goes_also_where_its_maker_died_before_and_stays_where_rows_can_be_tried_again(
    services, upload, tidy
):
    done, given_up, open_job = upload(FILE), upload(FILE), upload(FILE)
    for job in (done, given_up):
        services.runner.run(job.job_id)
    lost = sa.text("UPDATE steps SET status = 'given_up' WHERE kind = 'score' AND job_id = :job_id")
    with services.store._database.writing() as connection:
        connection.execute(lost, {"job_id": given_up.job_id})
    for job in (done, given_up, open_job):
        for place in ("chunks/000001-1.arrow", "parts/000001-1.csv"):
            with services.objects.create(f"{job.job_id}/{place}") as path:
                path.write_text("left behind")
    tidy(30)
    assert [len(services.objects.names(job.job_id)) for job in (done, given_up, open_job)] == [3, 5, 3]


def test_what_was_being_written_when_a_process_died_goes_after_a_day(services, settings, tidy):
    services.objects.check()
    left = settings.objects_dir / UNFINISHED / "half"
    left.write_text("half a file")
    age(settings.objects_dir / UNFINISHED, 90_000)
    tidy(30)
    assert not left.exists()


def test_the_watchdog_of_a_service_tidies_by_its_settings(settings, queue, upload, services, local):
    job = upload(FILE)
    services.runner.run(job.job_id)
    time.sleep(0.02)
    strict = replace(settings, retention_days=0.01 / 86_400)
    build_services(strict, queue, tables=(services.store, services.steps)).watchdog.tidy()
    with pytest.raises(UnknownJob):
        services.bulk.status(job.job_id, local)


def test_a_worker_that_only_watches_and_tidies_loads_neither_arrays_nor_engines():
    """Its main process forks the others: what it has loaded, all have, and threads of libraries do not survive a fork."""
    heavy = "print(sorted({'numpy', 'pyarrow', 'ibis', 'duckdb', 'xgboost', 'ml_pipeline.bundle'} & set(sys.modules)))"
    found = [sys.executable, "-c", f"import sys, worker.watchdog_thread; {heavy}"]
    assert subprocess.run(found, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"
