"""A real worker on a real Redis, killed, stopped and robbed of its queue."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import redis

from config import Settings
from services.bootstrap import Services, build_services
from services.job_table import DONE, GIVEN_UP, SCORE, Job
from tests.conftest import CUSTOMERS, environment_of, wait_until
from tests.worker.conftest import LOCAL, ROWS, children_of, ended, hold_at_work, kill_pool, leased_chunk
from worker.celery_app import QUEUES
from worker.queue import CeleryQueue

pytestmark = pytest.mark.server


def check_result(services: Services, job: Job, rows: int) -> None:
    """Every row is there once, in order, with its own customer's prediction."""
    done = services.store.get(job.job_id)
    result = services.bulk.result(job.job_id, None, LOCAL)
    with services.objects.local(result.key) as path:
        read = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types={"customer_id": pa.string()}))
    ids = [*CUSTOMERS, "nobody"]
    asked = [ids[number % len(ids)] for number in range(rows)]
    assert read.column("n").to_pylist() == list(range(rows))
    assert read.column("customer_id").to_pylist() == asked
    spend: dict[str, float | None] = {"nobody": None}
    for one in CUSTOMERS:
        spend[one] = services.predictions.predict({"customer_id": one})["predicted_30d_spend"]["total"]
    assert read.column("predicted_total_spend").to_pylist() == [spend[one] for one in asked]
    failed = asked.count("nobody")
    assert (done.rows_total, done.rows_processed, done.rows_successful, done.rows_failed) == (
        rows,
        rows,
        rows - failed,
        failed,
    )
    assert done.statistics["distinct_customers"] == len(CUSTOMERS)


def attempts(services: Services, job: Job, number: int) -> int:
    """Of one chunk."""
    (chunk,) = [step for step in services.store.steps(job.job_id) if (step.kind, step.number) == (SCORE, number)]
    return chunk.attempts


# ---- what a worker does


def test_a_worker_does_a_job_and_its_conversion_and_its_parent_stays_light(services, start_worker, upload):
    worker = start_worker()
    assert [list(one.queues) for one in services.steps.live_workers(100)] == [sorted(QUEUES)]
    job = upload(1000)
    ended(services, job)
    check_result(services, job, 1000)
    services.bulk.result(job.job_id, "parquet", LOCAL)
    wait_until(lambda: hasattr(services.bulk.result(job.job_id, "parquet", LOCAL), "key"), "the conversion")
    loaded = Path(f"/proc/{worker.pid}/maps")
    if loaded.exists():
        assert not [name for name in ("duckdb", "xgboost", "lightgbm", "pyarrow") if name in loaded.read_text()]
    assert '"request_id": "request-1"' in worker.log.read_text()


def test_a_worker_says_which_queues_it_consumes_and_leaves_the_others_alone(services, start_worker, upload):
    start_worker("-Q", "training,finishing")
    job = upload(10)
    start_worker("-Q", "bulk")
    ended(services, job)
    told = sorted(list(one.queues) for one in services.steps.live_workers(100))
    assert told == [["bulk"], ["finishing", "training"]]
    (step, *_others) = services.store.steps(job.job_id)
    (consumer,) = [one for one in services.steps.live_workers(100) if list(one.queues) == ["bulk"]]
    assert str(step.worker_id).startswith(f"{consumer.worker_id}/")


# ---- what is killed


def test_the_chunk_of_a_killed_pool_process_is_taken_up_at_once(services, start_worker, upload, worker_settings):
    worker = start_worker()
    job = upload(ROWS)
    chunk = hold_at_work(services, job)
    kill_pool(worker)
    ended(services, job, seconds=worker_settings.lease_seconds / 2)
    assert attempts(services, job, chunk.number) == 2
    check_result(services, job, ROWS)


def test_a_chunk_that_kills_its_process_each_time_is_given_up_alone(services, start_worker, upload, worker_settings):
    worker = start_worker(MAX_ATTEMPTS="2")
    job = upload(ROWS)
    poison = hold_at_work(services, job).number
    kill_pool(worker)
    wait_until(lambda: leased_chunk(services, job) is None, "the end of its lease", worker_settings.lease_seconds / 2)
    assert hold_at_work(services, job).number == poison
    kill_pool(worker)
    done = ended(services, job, seconds=worker_settings.lease_seconds / 2)
    chunks = [step for step in services.store.steps(job.job_id) if step.kind == SCORE]
    assert [step.number for step in chunks if step.status == GIVEN_UP] == [poison]
    assert {step.status for step in chunks if step.number != poison} == {DONE}
    assert done.rows_processed == ROWS


def test_a_worker_killed_in_the_middle_of_a_job_loses_nothing(services, start_worker, upload):
    worker = start_worker(LEASE_SECONDS="3")
    job = upload(ROWS)
    chunk = hold_at_work(services, job)
    for pid in (worker.pid, *children_of(worker)):
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    start_worker(LEASE_SECONDS="3")
    ended(services, job)
    assert attempts(services, job, chunk.number) == 2
    check_result(services, job, ROWS)


# ---- what the queue loses or doubles


def test_jobs_whose_messages_were_lost_or_doubled_or_never_sent_are_done_once(
    services, start_worker, upload, worker_settings, tmp_path
):
    jobs = [upload(1000) for _ in range(3)]
    redis.Redis.from_url(worker_settings.redis_url).flushall()
    doubled = upload(1000)
    for _ in range(5):
        CeleryQueue(worker_settings).send("bulk", doubled.job_id)
    unsent = upload_without_redis(services, worker_settings, tmp_path)
    start_worker()
    for job in (*jobs, doubled):
        ended(services, job)
        check_result(services, job, 1000)
    ended(services, unsent)
    wait_until(lambda: CeleryQueue(worker_settings).depth("bulk") == 0, "the end of the messages")
    for job in (*jobs, doubled, unsent):
        assert {step.attempts for step in services.store.steps(job.job_id)} == {1}


def upload_without_redis(services: Services, settings: Settings, folder: Path) -> Job:
    away = replace(settings, redis_url="redis://127.0.0.1:1/0")
    built = build_services(away, CeleryQueue(away), tables=(services.store, services.steps), objects=services.objects)
    path = folder / "received-too"
    path.write_text("customer_id\nC00001\n")
    job = built.bulk.upload(path, "a.csv", LOCAL)
    assert (job.status, job.enqueued_at) == ("queued", None)
    assert built.health.report()["queue"]["error"] == "QueueUnavailable"
    return job


def test_each_queue_has_its_own_messages(worker_settings, services):
    queue = CeleryQueue(worker_settings)
    for count, name in enumerate(QUEUES, start=1):
        for _ in range(count):
            queue.send(name, "no-such-job")
    assert [queue.depth(name) for name in QUEUES] == [1, 2, 3]


def test_messages_carry_ids_only(worker_settings, services, upload):
    upload(10)
    raw = redis.Redis.from_url(worker_settings.redis_url).lrange("bulk", 0, -1)[0]
    assert len(raw) < 2000
    assert b"customers.csv" not in raw


def test_the_documented_command_says_what_is_wrong_with_the_configuration(start_program, settings):
    environ = environment_of(settings, PORT="no-port")
    program = start_program(["celery", "-A", "worker", "worker"], environ)
    assert program.process.wait(timeout=60) != 0
    assert "PORT is 'no-port'" in program.log.read_text()
