"""Trainings on real workers and a real Redis: one at a time, cancelled at once, and gone with the worker that is killed."""

import os
import signal
from itertools import pairwise

import psutil
import pytest

from config import Settings
from services.bootstrap import Services
from services.job_table import Job
from services.training_service import TrainingOptions
from tests.conftest import wait_until
from tests.worker.conftest import LOCAL, children_of, ended

pytestmark = pytest.mark.server

TRAINER = ("-Q", "training", "-I", "tests.worker.trains_nothing")
SHORT = TrainingOptions("xgboost", profile="quick")
ENDLESS = TrainingOptions("xgboost", profile="full")


@pytest.fixture
def worker_settings(server_settings: Settings) -> Settings:
    """Leases of three seconds."""
    return server_settings


def command_of(services: Services, job: Job) -> int:
    """The process id of the job's command, as soon as it says so."""
    told = wait_until(lambda: (services.store.get(job.job_id).progress or {}).get("doing"), "the command", 20)
    return int(told.removeprefix("pid "))


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def one_step(services: Services, job: Job) -> tuple[str, int]:
    """The status and the attempts of the job's one step."""
    (step,) = services.store.steps(job.job_id)
    return step.status, step.attempts


def another_command(services: Services, job: Job, before: int) -> int:
    """The process id of the command of a later attempt."""
    found: int = wait_until(lambda: (pid := command_of(services, job)) != before and pid, "another attempt", 15)
    return found


def folders(settings: Settings) -> list[str]:
    return [path.name for path in (settings.var_dir / "pipeline").iterdir()]


def test_a_training_goes_with_its_job_with_its_process_and_with_its_worker(services, start_worker, worker_settings):
    worker = start_worker(*TRAINER)
    cancelled, job = (services.trainings.start(ENDLESS, LOCAL) for _ in range(2))
    first = command_of(services, cancelled)
    assert services.store.get(job.job_id).status == "queued"
    services.bulk.cancel(cancelled.job_id, LOCAL)
    wait_until(lambda: gone(first), "the end of the cancelled command", 3)

    second = command_of(services, job)
    for child in children_of(worker):
        os.kill(child, signal.SIGKILL)
    wait_until(lambda: gone(second), "the end of the command whose worker process was killed", 6)
    third = another_command(services, job, second)
    assert one_step(services, job) == ("leased", 2)
    assert folders(worker_settings) == [f"{job.job_id}-2"]

    worker.process.terminate()
    assert worker.process.wait(10) is not None
    wait_until(lambda: gone(third), "the end of the command whose worker was stopped", 5)
    assert one_step(services, job) == ("waiting", 1)  # given back, and not counted


def test_trainings_are_done_one_by_one_in_their_order_and_a_killed_worker_loses_none(services, start_worker):
    workers = [start_worker(*TRAINER) for _ in range(2)]
    jobs = [services.trainings.start(SHORT, LOCAL) for _ in range(3)]
    done = [ended(services, job, 20).statistics for job in jobs]
    assert all(before["ended"] <= after["began"] for before, after in pairwise(done))
    assert [one_step(services, job) for job in jobs] == [("done", 1)] * 3

    job = services.trainings.start(ENDLESS, LOCAL)
    first = command_of(services, job)
    pool_process = psutil.Process(first).parent()
    (worker,) = [one for one in workers if pool_process.pid in children_of(one)]
    worker.process.kill()
    pool_process.kill()
    wait_until(lambda: gone(first), "the end of the command whose worker was killed", 6)
    second = another_command(services, job, first)
    assert one_step(services, job) == ("leased", 2)
    services.bulk.cancel(job.job_id, LOCAL)
    wait_until(lambda: gone(second), "the end of the command", 3)
