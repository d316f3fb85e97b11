"""A real worker on a real Redis, killed, stopped and robbed of its queue."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest
import redis

from services.bootstrap import Services, build_services
from services.bulk_service import Caller
from services.job_store import Job
from tests.conftest import CUSTOMERS, ServerProcess, environment_of, wait_until
from worker.celery_app import QUEUES
from worker.queue import CeleryQueue

pytestmark = pytest.mark.server

ROWS = 400_000
LOCAL = Caller("local", "request-1")


@pytest.fixture
def services(server_settings):
    redis.Redis.from_url(server_settings.redis_url).flushall()
    built = build_services(server_settings, CeleryQueue(server_settings))
    yield built
    built.store.close()


@pytest.fixture
def start_worker(server_settings, start_program, services) -> Callable[[], ServerProcess]:
    def start() -> ServerProcess:
        known = {worker.worker_id for worker in services.store.live_workers(1000)}
        program = start_program(["celery", "-A", "worker", "worker", "-c", "1"], environment_of(server_settings))
        wait_until(
            lambda: {worker.worker_id for worker in services.store.live_workers(5)} - known,
            f"the start of a worker, see {program.log}",
        )
        return program

    return start


@pytest.fixture
def upload(services, tmp_path) -> Callable[[int], Job]:
    def send(rows: int) -> Job:
        path = tmp_path / "received"
        ids = [*CUSTOMERS, "nobody"]
        path.write_text("n,customer_id\n" + "".join(f"{row},{ids[row % len(ids)]}\n" for row in range(rows)))
        return services.bulk.upload(path, "customers.csv", LOCAL)

    return send


def in_the_middle(services: Services, job: Job) -> bool:
    seen = services.store.get(job.job_id)
    return seen.status == "processing" and seen.rows_processed > 0


def ended(services: Services, job: Job) -> Job:
    """The job when it is over; fails if it is not completed."""
    wait_until(lambda: services.store.get(job.job_id).status in ("completed", "failed"), "the end of the job")
    done = services.store.get(job.job_id)
    assert done.status == "completed", done
    return done


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


def children_of(program: ServerProcess) -> list[int]:
    return [child.pid for child in psutil.Process(program.pid).children()]


def test_a_worker_does_a_job_and_its_conversion_and_its_parent_stays_light(services, start_worker, upload):
    worker = start_worker()
    job = upload(1000)
    ended(services, job)
    check_result(services, job, 1000)
    services.bulk.result(job.job_id, "parquet", LOCAL)
    wait_until(lambda: hasattr(services.bulk.result(job.job_id, "parquet", LOCAL), "key"), "the conversion")
    loaded = Path(f"/proc/{worker.pid}/maps")
    if loaded.exists():
        assert not [name for name in ("duckdb", "xgboost", "lightgbm", "pyarrow") if name in loaded.read_text()]
    assert '"request_id": "request-1"' in worker.log.read_text()


def test_a_pool_process_killed_in_the_middle_of_a_job_loses_nothing(services, start_worker, upload):
    worker = start_worker()
    job = upload(ROWS)
    wait_until(lambda: in_the_middle(services, job), "the first progress")
    for child in children_of(worker):
        os.kill(child, signal.SIGKILL)
    assert ended(services, job).attempts >= 2
    check_result(services, job, ROWS)


def test_a_worker_killed_in_the_middle_of_a_job_loses_nothing(services, start_worker, upload):
    worker = start_worker()
    job = upload(ROWS)
    wait_until(lambda: in_the_middle(services, job), "the first progress")
    for pid in (worker.pid, *children_of(worker)):
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    start_worker()
    assert ended(services, job).attempts >= 2
    check_result(services, job, ROWS)


def test_a_worker_that_is_told_to_stop_hands_its_job_on_at_once(services, start_worker, upload):
    worker = start_worker()
    job = upload(3 * ROWS)
    wait_until(lambda: in_the_middle(services, job), "the first progress")
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(timeout=20)
    handed_on = services.store.get(job.job_id)
    assert handed_on.status == "completed" or (handed_on.status, handed_on.attempts) == ("queued", 0)
    assert [one.pid for one in services.store.live_workers(1000)] == []
    start_worker()
    ended(services, job)
    check_result(services, job, 3 * ROWS)


def test_an_emptied_queue_loses_no_job(services, start_worker, upload, server_settings, monkeypatch):
    jobs = [upload(1000) for _ in range(3)]
    redis.Redis.from_url(server_settings.redis_url).flushall()
    start_worker()
    for job in jobs:
        ended(services, job)
        check_result(services, job, 1000)


def test_a_message_delivered_many_times_runs_the_job_once(services, start_worker, upload, server_settings):
    job = upload(1000)
    for _ in range(5):
        CeleryQueue(server_settings).send("bulk", job.job_id)
    start_worker()
    done = ended(services, job)
    wait_until(lambda: CeleryQueue(server_settings).depth("bulk") == 0, "the end of the messages")
    assert (done.attempts, done.fence) == (1, 1)
    assert services.store.get(job.job_id) == done


def test_each_queue_has_its_own_messages(server_settings, services):
    queue = CeleryQueue(server_settings)
    for count, name in enumerate(QUEUES, start=1):
        for _ in range(count):
            queue.send(name, "no-such-job")
    assert [queue.depth(name) for name in QUEUES] == [1, 2, 3]


def test_messages_carry_ids_only(server_settings, services, upload):
    upload(10)
    raw = redis.Redis.from_url(server_settings.redis_url).lrange("bulk", 0, -1)[0]
    assert len(raw) < 2000
    assert b"customers.csv" not in raw


def test_an_upload_while_redis_is_away_runs_when_it_is_back(server_settings, services, tmp_path, start_worker):
    away = replace(server_settings, redis_url="redis://127.0.0.1:1/0")
    built = build_services(away, CeleryQueue(away), store=services.store, objects=services.objects)
    path = tmp_path / "received"
    path.write_text("customer_id\nC00001\n")
    job = built.bulk.upload(path, "a.csv", LOCAL)
    assert (job.status, job.enqueued_at) == ("queued", None)
    assert built.health.report()["queue"]["error"] == "QueueUnavailable"
    start_worker()
    ended(services, job)


def test_the_documented_command_says_what_is_wrong_with_the_configuration(start_program, settings):
    environ = environment_of(settings, PORT="no-port")
    program = start_program(["celery", "-A", "worker", "worker"], environ)
    assert program.process.wait(timeout=60) != 0
    assert "PORT is 'no-port'" in program.log.read_text()
