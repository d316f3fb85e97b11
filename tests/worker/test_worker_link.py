"""A real worker that loses Redis, in all the ways in which a link is lost, and that must come back or be replaced."""

import time
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from config import Settings
from tests.conftest import wait_until
from tests.tcp_proxy import TcpProxy
from tests.worker.conftest import ended, seconds_to_end

pytestmark = pytest.mark.server

DEAF = "tests.worker.goes_deaf"
NO_CHECKS = "tests.worker.checks_nothing"


@pytest.fixture
def worker_settings(server_settings: Settings) -> Settings:
    return replace(server_settings, idle_worker_seconds=1.5)


@pytest.fixture
def link(server_settings: Settings) -> Iterator[TcpProxy]:
    """Between workers and Redis."""
    with TcpProxy(urlsplit(server_settings.redis_url).port) as proxy:
        yield proxy


@pytest.mark.parametrize("state", ["cut", "black_hole", "forget"])
def test_a_worker_whose_link_was_lost_takes_messages_again_soon_after_it_is_mended(
    services, start_worker, upload, link, state
):
    worker = start_worker(REDIS_URL=f"redis://127.0.0.1:{link.port}/0", IDLE_WORKER_SECONDS="1000")
    getattr(link, state)()
    if state != "forget":
        time.sleep(3)
        link.restore()
    ended(services, upload(10), seconds=15)
    assert worker.process.poll() is None


def test_a_worker_that_consumes_nothing_any_more_says_so_and_ends_itself(services, start_worker, upload):
    worker = start_worker("-I", DEAF)
    job = upload(10)
    assert seconds_to_end(worker) < 15
    assert worker.process.returncode == 1
    assert worker.log.read_text().count("hears nothing") == 1
    assert services.steps.live_workers(1000) == []
    assert services.store.get(job.job_id).status == "queued"


def test_a_worker_that_hangs_on_a_dead_link_is_found_out(services, start_worker, upload, link):
    worker = start_worker("-I", NO_CHECKS, REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
    link.forget()
    upload(10)
    assert seconds_to_end(worker) < 20
    assert "hears nothing" in worker.log.read_text()


def test_a_worker_without_messages_or_without_redis_stays(services, start_worker, upload, link):
    worker = start_worker("-I", DEAF, REDIS_URL=f"redis://127.0.0.1:{link.port}/0")
    time.sleep(3)
    link.black_hole()
    upload(10)
    time.sleep(3)
    assert worker.process.poll() is None


def test_a_worker_with_one_long_task_and_messages_behind_it_stays(services, start_worker, upload):
    worker = start_worker()
    wait_until(lambda: "pair opened" in worker.log.read_text(), "a process that can take messages")
    jobs = [upload(400_000) for _ in range(2)]
    for job in jobs:
        ended(services, job)
    assert worker.process.poll() is None
    assert "hears nothing" not in worker.log.read_text()
    wait_until(lambda: services.steps.live_workers(5), "a heartbeat")
