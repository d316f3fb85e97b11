"""Real workers on a real Redis, and jobs long enough to be met in the middle."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import redis

from config import Settings
from services.bootstrap import Services, build_services
from services.bulk_service import Caller
from services.job_table import LEASED, SCORE, Job, Step
from tests.conftest import CUSTOMERS, ServerProcess, environment_of, wait_until
from worker.queue import CeleryQueue

LOCAL = Caller("local", "request-1")
ROWS = 40_000
ROWS_PER_CHUNK = 1000


@pytest.fixture
def worker_settings(server_settings: Settings) -> Settings:
    """Leases so long that a test which waits for one to run out fails; a file test may override this."""
    return replace(server_settings, lease_seconds=60.0, rows_per_chunk=ROWS_PER_CHUNK)


@pytest.fixture
def services(worker_settings: Settings) -> Iterator[Services]:
    """The web's side, on an empty queue."""
    redis.Redis.from_url(worker_settings.redis_url).flushall()
    built = build_services(worker_settings, CeleryQueue(worker_settings))
    yield built
    built.store.close()


@pytest.fixture
def start_worker(
    worker_settings: Settings, start_program: Callable[..., ServerProcess], services: Services
) -> Callable[..., ServerProcess]:
    """Starts `celery -A worker worker` with one process and more arguments, and waits until it has said that it is there."""

    def start(*arguments: str, **environ: str) -> ServerProcess:
        known = {worker.worker_id for worker in services.steps.live_workers(1000)}
        command = ["celery", "-A", "worker", "worker", "-c", "1", *arguments]
        program = start_program(command, environment_of(worker_settings, OMP_NUM_THREADS="1", **environ))
        wait_until(
            lambda: {worker.worker_id for worker in services.steps.live_workers(5)} - known,
            f"the start of a worker, see {program.log}",
        )
        return program

    return start


@pytest.fixture
def upload(services: Services, tmp_path: Path) -> Callable[[int], Job]:
    """Hands over a file of so many rows."""

    def send(rows: int) -> Job:
        path = tmp_path / "received"
        ids = [*CUSTOMERS, "nobody"]
        path.write_text("n,customer_id\n" + "".join(f"{row},{ids[row % len(ids)]}\n" for row in range(rows)))
        return services.bulk.upload(path, "customers.csv", LOCAL)

    return send


def chunk_at_work(services: Services, job: Job) -> Step:
    """A chunk that somebody is working on, as soon as there is one."""
    step: Step = wait_until(lambda: leased_chunk(services, job), "the first chunk")
    return step


def leased_chunk(services: Services, job: Job) -> Step | None:
    """A chunk that somebody is working on now."""
    steps = services.store.steps(job.job_id)
    return next((step for step in steps if (step.kind, step.status) == (SCORE, LEASED)), None)


def hold_at_work(services: Services, job: Job) -> Step:
    """Stops the pool's one process in the middle of a chunk, and says which: it cannot be done before it is killed."""

    def held() -> Step | None:
        process = psutil.Process(int(str(chunk_at_work(services, job).worker_id).rpartition("/")[2]))
        process.suspend()
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "the halt", 5)
        chunk = leased_chunk(services, job)
        if chunk is None:
            process.resume()
        return chunk

    step: Step = wait_until(held, "a chunk at work")
    return step


def kill_pool(worker: ServerProcess) -> None:
    """kill -9 of the processes of a worker's pool."""
    for child in children_of(worker):
        os.kill(child, signal.SIGKILL)


def ended(services: Services, job: Job, seconds: float = 60) -> Job:
    """The job when it is over; fails if it is not completed."""
    wait_until(lambda: services.store.get(job.job_id).status in ("completed", "failed"), "the end of the job", seconds)
    done = services.store.get(job.job_id)
    assert done.status == "completed", done
    return done


def children_of(program: ServerProcess) -> list[int]:
    """The processes of a worker's pool."""
    return [child.pid for child in psutil.Process(program.pid).children()]


def seconds_to_end(program: ServerProcess) -> float:
    """How long the program still lives, at most 20 s."""
    begun = time.monotonic()
    program.process.wait(timeout=20)
    return time.monotonic() - begun
