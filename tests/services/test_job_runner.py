import json
import logging
import threading

import pytest

from services.dispatcher import Dispatcher
from services.errors import JobStoreUnavailable, LeaseLost, StorageFull
from services.job_runner import JobRunner
from services.job_table import NOTIFY, READ, SCORE, WRITE
from services.logs import current_request_id
from tests.conftest import ListQueue, wait_until
from tests.services.job_tables import Bench, Clock, new_job


@pytest.fixture
def messages() -> ListQueue:
    return ListQueue()


def runner(bench: Bench, messages: ListQueue, work, lease_seconds: float = 15, **options) -> JobRunner:
    return JobRunner(
        bench.steps, Dispatcher(messages, bench.steps), "w1", lease_seconds, {READ: work, SCORE: work}, **options
    )


@pytest.fixture
def bench(tmp_path) -> Bench:
    from services.database import open_engine

    clock = Clock(open_engine(f"sqlite:///{tmp_path / 'jobs.sqlite3'}"))
    yield Bench(clock)
    clock.close()


@pytest.fixture
def job(bench):
    return bench.store.add(new_job(request_id="request-7"))


def test_the_request_id_of_the_upload_is_bound_while_the_job_runs(bench, messages, job):
    seen = []
    runner(bench, messages, lambda job, step, lease: seen.append(current_request_id())).run(job.job_id)
    assert seen == ["request-7"]
    assert current_request_id() is None


def test_one_message_brings_a_small_job_as_far_as_it_goes(bench, messages):
    job_id = bench.staged(1, 2, 3)
    done = []

    def work(job, step, lease):
        done.append(step.number)
        bench.steps.commit(lease, "part", step.rows)
        if step.number == 3:
            bench.store.cancel(job_id)  # so that the writing, which this runner has no work for, is not claimed

    runner(bench, messages, work).run(job_id)
    assert done == [1, 2, 3]
    assert messages.sent == []


def test_after_its_time_a_worker_leaves_the_rest_to_messages(bench, messages):
    job_id = bench.staged(1, 2, 3)
    runner(
        bench,
        messages,
        lambda job, step, lease: bench.steps.commit(lease, "part", step.rows),
        seconds_per_message=0,
    ).run(job_id)
    assert bench.store.get(job_id).rows_processed == 1
    assert messages.sent == [("bulk", job_id), ("bulk", job_id)]


def test_a_worker_that_scores_leaves_the_webhook_to_whoever_finishes(bench, messages):
    job_id = bench.scored(1, parameters={"webhook_url": "https://hooks.example.com/x"})
    done = []

    def work(job, step, lease):
        done.append(step.kind)
        if step.kind == WRITE:
            bench.steps.complete(lease, "result")
        else:
            bench.steps.finish(lease)

    both = JobRunner(bench.steps, Dispatcher(messages, bench.steps), "w1", 15, {WRITE: work, NOTIFY: work})
    both.run(job_id, "bulk")
    assert (done, messages.sent) == ([WRITE], [("finishing", job_id)])
    both.run(job_id, "bulk")  # a message that was left over
    assert done == [WRITE]
    both.run(job_id, "finishing")
    assert done == [WRITE, NOTIFY]


def test_a_long_step_keeps_its_lease_by_heartbeats(bench, messages, job):
    expiries = set()

    def renewed() -> bool:
        expiries.add(bench.store.steps(job.job_id)[0].lease_expires_at)
        return len(expiries) == 3

    def work(job, step, lease):
        wait_until(renewed, "the second heartbeat", seconds=10)
        bench.store.cancel(job.job_id)

    runner(bench, messages, work, lease_seconds=0.2).run(job.job_id)
    assert len(expiries) == 3


def test_the_heartbeat_ends_with_the_step(bench, messages, job):
    runner(bench, messages, lambda job, step, lease: bench.store.cancel(job.job_id), 0.2).run(job.job_id)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("heartbeat")]


def test_a_lost_lease_ends_the_work_without_touching_the_job(bench, messages, job):
    def work(job, step, lease):
        bench.store.cancel(job.job_id)
        raise LeaseLost("gone")

    runner(bench, messages, work).run(job.job_id)
    assert bench.store.get(job.job_id).error_name is None


def test_a_named_error_ends_the_job_with_it_also_when_the_lease_is_lost_by_then(bench, messages, job):
    def work(job, step, lease):
        raise StorageFull("no space left")

    runner(bench, messages, work).run(job.job_id)
    ended = bench.store.get(job.job_id)
    assert (ended.status, ended.error_name, ended.error_message) == ("failed", "StorageFull", "no space left")

    def too_late(job, step, lease):
        bench.store.cancel(job.job_id)
        raise StorageFull("no space left")

    other = bench.store.add(new_job())
    runner(bench, messages, too_late).run(other.job_id)
    assert bench.store.get(other.job_id).status == "cancelled"


def test_a_chunk_that_meets_an_internal_error_every_time_is_given_up_and_named_by_its_rows(bench, messages):
    job_id = bench.staged(10, 5)

    def work(job, step, lease):
        if step.number == 2:
            raise ZeroDivisionError("poison")
        bench.steps.commit(lease, "part", step.rows)

    runner(bench, messages, work).run(job_id)
    (poison,) = [step for step in bench.store.steps(job_id) if step.status == "given_up"]
    assert (poison.number, poison.attempts, poison.error_name) == (2, 2, "ChunkGivenUp")
    assert "Rows 11 to 15 below the header" in poison.error_message
    assert "poison" not in poison.error_message


def test_a_job_table_that_goes_away_leaves_the_step_to_the_watchdog(bench, messages, job):
    def work(job, step, lease):
        raise JobStoreUnavailable("away")

    runner(bench, messages, work).run(job.job_id)
    assert bench.statuses(job.job_id) == {(READ, 0): "leased"}


def test_a_job_that_is_not_there_is_left_alone(bench, messages):
    runner(bench, messages, pytest.fail).run("nothing")


def test_log_lines_are_json_with_the_facts_and_the_request_id(capsys, bench, messages, job):
    from services.logs import configure_logging

    configure_logging("INFO")
    try:
        runner(bench, messages, lambda job, step, lease: bench.store.cancel(job.job_id)).run(job.job_id)
    finally:
        logging.getLogger().handlers.clear()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    begun = next(line for line in lines if line["message"] == "step begun")
    assert (begun["request_id"], begun["job_id"], begun["step"]) == ("request-7", job.job_id, "read")
