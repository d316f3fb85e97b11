"""The end of a real worker in the middle of a job, whatever else happens at that moment."""

import signal
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import psutil
import pytest

from config import Settings
from services.bootstrap import Services
from services.job_table import LEASED, Job
from tests.conftest import ServerProcess, wait_until
from tests.tcp_proxy import TcpProxy
from tests.worker.conftest import children_of, chunk_at_work, ended, seconds_to_end

pytestmark = pytest.mark.server

STUCK = "tests.worker.gets_stuck"
ROWS = 400_000


@pytest.fixture
def worker_settings(server_settings: Settings) -> Settings:
    """Chunks so small that a job of them outlives the two seconds which a worker is given."""
    return replace(server_settings, lease_seconds=60.0, rows_per_chunk=1000)


@pytest.fixture
def link(server_settings: Settings) -> Iterator[TcpProxy]:
    """Between workers and Redis."""
    with TcpProxy(urlsplit(server_settings.redis_url).port) as proxy:
        yield proxy


def check_given_back(services: Services, job: Job) -> None:
    """Nobody holds anything of the job, no attempt was counted, no worker says that it is there."""
    steps = services.store.steps(job.job_id)
    assert [step for step in steps if step.status == LEASED] == []
    assert max(step.attempts for step in steps) <= 1
    assert services.steps.live_workers(1000) == []


def stop(worker: ServerProcess) -> None:
    worker.process.send_signal(signal.SIGTERM)


def check_gone(worker: ServerProcess, children: list[int]) -> None:
    """Within ten seconds, with its processes."""
    assert seconds_to_end(worker) < 10
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in children), "the end of the pool's processes", 1)


def test_a_worker_that_is_told_to_stop_hands_its_job_on_at_once(services, start_worker, upload):
    worker = start_worker()
    job = upload(ROWS)
    chunk_at_work(services, job)
    children = children_of(worker)
    stop(worker)
    check_gone(worker, children)
    assert services.store.get(job.job_id).status == "processing"
    check_given_back(services, job)
    start_worker()
    ended(services, job)
    assert {step.attempts for step in services.store.steps(job.job_id)} == {1}


@pytest.mark.parametrize("state", ["cut", "black_hole"])
def test_a_worker_whose_redis_goes_at_the_same_moment_is_gone_in_time_all_the_same(
    services, start_worker, upload, link, state
):
    worker = start_worker(REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
    job = upload(ROWS)
    chunk_at_work(services, job)
    children = children_of(worker)
    getattr(link, state)()
    stop(worker)
    check_gone(worker, children)
    check_given_back(services, job)


def test_a_worker_that_waits_for_redis_is_gone_in_time(services, start_worker, upload, link):
    worker = start_worker(REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
    link.cut()
    wait_until(lambda: "Trying again" in worker.log.read_text(), "the loss of the connection", 20)
    stop(worker)
    check_gone(worker, children_of(worker))
    assert services.steps.live_workers(1000) == []


def test_a_worker_whose_main_thread_is_stuck_is_ended_by_force_and_gives_its_job_back(services, start_worker, upload):
    worker = start_worker("-I", STUCK)
    job = upload(ROWS)
    chunk_at_work(services, job)
    children = children_of(worker)
    stop(worker)
    check_gone(worker, children)
    check_given_back(services, job)
    assert "ended by force" in worker.log.read_text()
