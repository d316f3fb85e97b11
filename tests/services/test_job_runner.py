import json
import logging
import threading

import pytest

from services.errors import JobStoreUnavailable, LeaseLost
from services.job_runner import JobRunner
from services.job_store import NewJob, Progress
from services.logs import current_request_id
from tests.conftest import wait_until


@pytest.fixture
def job(services):
    return services.store.add(NewJob("work", "bulk", "local", "request-7"))


def runner(services, work, lease_seconds: float = 15) -> JobRunner:
    return JobRunner(services.store, "worker-1", lease_seconds, {"work": work})


def test_the_request_id_of_the_upload_is_bound_while_the_job_runs(services, job):
    seen = []
    runner(services, lambda job, lease: seen.append(current_request_id())).run(job.job_id)
    assert seen == ["request-7"]
    assert current_request_id() is None


def test_a_long_task_keeps_its_lease_by_heartbeats(services, job):
    expiries = set()

    def renewed() -> bool:
        expiries.add(services.store.get(job.job_id).lease_expires_at)
        return len(expiries) == 3

    def work(job, lease):
        wait_until(renewed, "the second heartbeat", seconds=10)
        services.store.complete(lease, "key", Progress(1, 1, 1, 0))

    runner(services, work, lease_seconds=0.2).run(job.job_id)
    assert services.store.get(job.job_id).status == "completed"


def test_the_heartbeat_ends_with_the_task(services, job):
    runner(services, lambda job, lease: None, lease_seconds=0.2).run(job.job_id)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeat")]


def test_a_lost_lease_ends_the_task_without_touching_the_job(services, job):
    def work(job, lease):
        services.store.release_worker("worker-1")
        raise LeaseLost("gone")

    runner(services, work).run(job.job_id)
    assert services.store.get(job.job_id).status == "queued"


def test_a_job_table_that_goes_away_leaves_the_job_to_the_watchdog(services, job):
    def work(job, lease):
        raise JobStoreUnavailable("away")

    runner(services, work).run(job.job_id)
    assert services.store.get(job.job_id).status == "processing"


def test_a_job_that_is_not_there_is_left_alone(services):
    runner(services, pytest.fail).run("nothing")


def test_log_lines_are_json_with_the_facts_and_the_request_id(capsys, services, job):
    from services.logs import configure_logging

    configure_logging("INFO")
    try:
        runner(services, lambda job, lease: None).run(job.job_id)
    finally:
        logging.getLogger().handlers.clear()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    begun = next(line for line in lines if line["message"] == "job begun")
    assert (begun["request_id"], begun["job_id"], begun["level"]) == ("request-7", job.job_id, "INFO")
