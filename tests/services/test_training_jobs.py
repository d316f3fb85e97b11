"""What a worker does for trainings, sample tables and data refreshes, with commands that stand in for the pipeline's."""

import logging
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from config import Settings
from ml_pipeline.sample_data import DEFAULT_SEED as PIPELINES_SEED
from ml_pipeline.training_set import LEAST_SAMPLE
from services import training_jobs
from services.bootstrap import Services, build_services
from services.dispatcher import Dispatcher
from services.errors import InvalidRequest, JobNotFinished, JobOver, NoResultFile, TooManyJobs
from services.job_folders import JobFolders
from services.job_runner import JobRunner
from services.job_table import REFRESH, SAMPLE, TRAIN, Job
from services.training_jobs import TrainingJobs
from services.training_service import (
    DEFAULT_SEED,
    LEAST_SAMPLES,
    RefreshOptions,
    SampleOptions,
    TrainingOptions,
)
from tests.conftest import wait_until

STAND_IN = Path(__file__).with_name("stand_in_command.py")
QUICK = TrainingOptions("xgboost", n_samples=300, promote="never")
ENDLESS = TrainingOptions("xgboost", profile="full")


@pytest.fixture
def run(services, settings, queue) -> Callable[..., Job]:
    """Runs one job as a worker would, with a command that behaves in this way; the job as it then is."""

    def run(job: Job, behaviour: str = "train", memory_mb: int = 4096) -> Job:
        runner_of(services, replace(settings, training_memory_mb=memory_mb), queue, behaviour).run(
            job.job_id, "training"
        )
        return services.store.get(job.job_id)

    return run


def runner_of(services: Services, settings, queue, behaviour: str) -> JobRunner:
    commands = dict.fromkeys((TRAIN, SAMPLE, REFRESH), (sys.executable, str(STAND_IN), behaviour))
    folders = JobFolders(settings.var_dir, services.store)
    jobs = TrainingJobs(settings, folders, services.steps, services.objects, services.registry, commands)
    work = {TRAIN: jobs.train, SAMPLE: jobs.sample, REFRESH: jobs.refresh}
    return JobRunner(services.steps, Dispatcher(queue, services.steps), "w1", settings.lease_seconds, work)


@contextmanager
def under_way(services: Services, settings, queue, job: Job, behaviour: str = "train") -> Iterator[int]:
    """The process id of the job's command, while it works; the worker must have ended with the block, within 3 s."""
    runner = runner_of(services, settings, queue, behaviour)
    worker = threading.Thread(target=runner.run, args=(job.job_id, "training"))
    worker.start()
    try:
        said = wait_until(lambda: (services.store.get(job.job_id).progress or {}).get("doing"), "the backtest", 10)
        yield int(said.removeprefix("pid "))
    except BaseException:
        with suppress(JobOver):
            services.store.cancel(job.job_id)
        raise
    begun = time.monotonic()
    worker.join(10)
    assert time.monotonic() - begun < 3


def left_in(settings) -> list[Path]:
    return sorted((settings.var_dir / "pipeline").glob("*"))


# ---- trainings


def test_a_training_ends_with_what_its_command_says_has_come_of_it(services, local, run, settings):
    job = services.trainings.start(QUICK, local)
    done = run(job)
    assert (done.status, done.result_key) == ("completed", None)
    assert done.statistics.items() >= {"bundle": "b1", "promoted": False, "metrics": {"mae": 1.5, "r2": None}}.items()
    assert services.bulk.progress(done).items() >= {"phase": "done", "percentage": 100.0, "eta_seconds": 0.0}.items()
    assert left_in(settings) == []


def test_the_command_is_given_what_was_asked_and_the_limits(services, settings, local, queue, monkeypatch):
    told: list[list[str]] = []

    class Refused(Exception):
        pass

    def no_child(command, folder, project):
        told.append(list(command))
        raise Refused

    monkeypatch.setattr(training_jobs, "ChildProcess", no_child)
    (settings.var_dir / "sample_truth").mkdir(parents=True)
    for options in (QUICK, TrainingOptions(), RefreshOptions(), RefreshOptions(force=True), SampleOptions(9, 4)):
        job = services.trainings.start(options, local)
        runner_of(services, settings, queue, "train").run(job.job_id, "training")
        services.bulk.delete(job.job_id, local)
    short, whole, refresh, forced, sample = ([*one[3:], ""] for one in told[:: len(told) // 5])
    assert value(short, "--algorithm", "--n-samples", "--profile", "--promote") == ["xgboost", "300", "quick", "never"]
    assert value(short, "--truth") == [str(settings.var_dir / "sample_truth")]
    assert value(whole, "--algorithm", "--profile", "--promote") == ["all", "quick", "better"]
    assert "--n-samples" not in whole
    for one in (short, refresh):
        assert value(one, "--data", "--models") == [str(settings.data_dir), str(settings.models_dir)]
        assert value(one, "--memory-mb", "--progress") == [str(settings.training_memory_mb), "json"]
        assert "--ask" in one
    assert "--ask" not in sample
    assert "--force" in forced
    assert "--force" not in refresh
    assert value(sample, "--customers", "--seed") == ["9", "4"]


def value(command: list[str], *names: str) -> list[str]:
    return [command[command.index(name) + 1] for name in names]


def test_its_phases_are_told_as_it_goes_and_a_cancelled_one_is_gone_at_once(services, settings, queue, local):
    job = services.trainings.start(ENDLESS, local)
    with under_way(services, settings, queue, job) as pid:
        progress = services.bulk.progress(services.store.get(job.job_id))
        assert (progress["phase"], progress["processed"], progress["total"]) == ("backtest", 1, 4)
        assert progress["percentage"] == 14.5
        assert progress["eta_seconds"] is None
        assert left_in(settings)
        services.bulk.cancel(job.job_id, local)
    assert not psutil.pid_exists(pid)
    assert left_in(settings) == []
    cancelled = services.bulk.status(job.job_id, local)
    assert (cancelled.status, services.bulk.progress(cancelled)["phase"]) == ("cancelled", "backtest")


@pytest.fixture
def own_models(settings, tmp_path) -> Settings:
    """With a models folder that nobody else has."""
    (tmp_path / "own_models").mkdir()
    return replace(settings, models_dir=tmp_path / "own_models")


def test_a_training_whose_model_comes_to_serve_cannot_be_cancelled_any_more(services, own_models, queue, local):
    job, models = services.trainings.start(QUICK, local), own_models.models_dir
    with under_way(services, own_models, queue, job, "promote"):
        (models / "ask").touch()
        wait_until((models / "promoted").exists, "the promotion", 5)
        with pytest.raises(JobOver, match="/model/rollback"):
            services.bulk.cancel(job.job_id, local)
        phase = services.bulk.progress(services.store.get(job.job_id))["phase"]
        (models / "go").touch()
    done = services.store.get(job.job_id)
    assert (phase, done.status, done.statistics["promoted"]) == ("publish", "completed", True)


def test_a_training_whose_worker_was_lost_while_its_model_came_to_serve_can_be_cancelled(services, local):
    job = services.trainings.start(QUICK, local)
    _, _, lease = services.steps.claim(job.job_id, "w1")
    services.steps.note_progress(lease, {"phase": "publish"})
    services.steps.release_process("w1")
    assert services.bulk.cancel(job.job_id, local).status == "cancelled"


def test_what_a_cancelled_training_has_made_never_comes_to_serve(services, own_models, queue, local):
    job, models = services.trainings.start(QUICK, local), own_models.models_dir
    with under_way(services, own_models, queue, job, "promote"):
        services.bulk.cancel(job.job_id, local)
        (models / "ask").touch()
    assert not (models / "promoted").exists()
    assert services.store.get(job.job_id).status == "cancelled"


def test_when_a_training_ends_the_next_one_is_sent_also_when_its_own_message_was_used_up(
    services, settings, queue, local
):
    first, second = (services.trainings.start(ENDLESS, local) for _ in range(2))
    with under_way(services, settings, queue, first):
        queue.sent.clear()
        runner_of(services, settings, queue, "train").run(
            second.job_id, "training"
        )  # another worker hears of it too early
        assert services.store.get(second.job_id).status == "queued"
        assert queue.sent == []
        services.bulk.cancel(first.job_id, local)
    assert queue.sent == [("training", second.job_id)]


def test_a_job_that_was_cancelled_begins_anew_when_it_is_tried_again(services, settings, queue, local, run):
    job = services.trainings.start(QUICK, local)
    services.bulk.cancel(job.job_id, local)
    assert services.bulk.retry(job.job_id, local).status == "queued"
    assert run(job).status == "completed"


# ---- what goes wrong


@pytest.mark.parametrize(
    ("behaviour", "error", "said"),
    [
        ("refuse", "MissingTables", "There is no store_sales_header."),
        ("fill_the_disk", "StorageFull", "Make room"),
        ("run_out_of_memory", "TrainingOutOfMemory", "4,096 MB are allowed"),
        ("fail_of_its_own", "TrainingCrashed", "a fault of its own"),
        ("crash", "TrainingCrashed", "ended with exit code 3"),
        ("kill_itself", "TrainingCrashed", "ended by signal 9 (most likely by the system, for want of memory)"),
    ],
)
def test_a_command_that_does_not_end_well_ends_the_job_by_name_and_at_once(
    services, local, run, settings, caplog, behaviour, error, said
):
    failed = run(services.trainings.start(QUICK, local), behaviour)
    assert (failed.status, failed.error_name) == ("failed", error)
    assert said in failed.error_message
    assert services.store.steps(failed.job_id)[0].attempts == 1
    assert left_in(settings) == []
    words = [record.last_words for record in caplog.records if record.message == "command crashed"]
    assert len(words) == (error == "TrainingCrashed")
    if behaviour in ("crash", "fail_of_its_own"):
        assert words[0][-1] in ("about to fall", "KeyError: 'inside'")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="the system tells no memory of others without /proc")
def test_a_command_that_takes_more_memory_than_it_is_given_is_ended_with_the_value_and_the_way_out(
    services, local, run
):
    failed = run(services.trainings.start(QUICK, local), "be_hungry", memory_mb=100)
    assert failed.error_name == "TrainingOutOfMemory"
    assert "MB of memory; 100 MB are allowed. Ask for fewer customers (n_samples)" in failed.error_message


def test_hosts_that_cannot_be_told_of_a_new_model_are_no_reason_to_train_again(
    services, local, settings, queue, tmp_path
):
    """The models folder is empty here, so that nothing serves and nothing can be told."""
    empty = build_services(replace(settings, models_dir=tmp_path), queue, tables=(services.store, services.steps))
    job = services.trainings.start(QUICK, local)
    runner_of(empty, settings, queue, "train").run(job.job_id, "training")
    assert services.store.get(job.job_id).status == "completed"


def test_a_job_table_that_is_away_for_a_moment_does_not_end_a_training(services, settings, queue, local, monkeypatch):
    job = services.trainings.start(ENDLESS, local)
    with under_way(services, settings, queue, job) as pid:
        services.store._database._reads.dispose()
        moved = settings.var_dir / "jobs.sqlite3"
        moved.rename(moved.with_name("away"))
        moved.write_bytes(b"no database" * 1000)
        time.sleep(1.5)
        assert psutil.pid_exists(pid)
        moved.unlink()
        moved.with_name("away").rename(moved)
        services.bulk.cancel(job.job_id, local)


# ---- sample tables


def test_sample_tables_come_as_an_archive_without_the_truth(services, local, run, tmp_path, settings):
    job = services.trainings.start(SampleOptions(9, seed=4), local)
    done = run(job, "sample")
    assert (done.status, done.statistics["customers"]) == ("completed", 9)
    result = services.bulk.result(job.job_id, None, local)
    assert (result.filename, result.media_type) == ("sample_data_9.zip", "application/zip")
    with services.objects.local(result.key) as path, zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["README.txt", "products.csv", "stores.csv"]
        assert archive.read("products.csv") == b"product_id\n9 4\n"
        assert b"9 customers, seed 4" in archive.read("README.txt")
        first = path.read_bytes()
    again = services.trainings.start(SampleOptions(9, seed=4), local)
    run(again, "sample")
    with services.objects.local(services.bulk.result(again.job_id, None, local).key) as path:
        assert path.read_bytes() == first
    assert left_in(settings) == []
    services.bulk.delete(job.job_id, local)
    assert services.objects.names(job.job_id) == []


def test_an_archive_that_nobody_waits_for_any_more_is_not_kept(services, local, run, monkeypatch):
    job = services.trainings.start(SampleOptions(9), local)
    write = training_jobs.write_archive

    def write_while_it_is_cancelled(*arguments):
        write(*arguments)
        services.bulk.cancel(job.job_id, local)

    monkeypatch.setattr(training_jobs, "write_archive", write_while_it_is_cancelled)
    assert run(job, "sample").status == "cancelled"
    assert services.objects.names(job.job_id) == []


def test_a_training_has_no_file_and_sample_tables_have_one_form(services, local, run):
    training, sample = services.trainings.start(QUICK, local), services.trainings.start(SampleOptions(9), local)
    with pytest.raises(NoResultFile, match="makes no file to download"):
        services.bulk.result(training.job_id, None, local)
    with pytest.raises(JobNotFinished):
        services.bulk.result(sample.job_id, None, local)
    run(sample, "sample")
    with pytest.raises(InvalidRequest, match="format is csv"):
        services.bulk.result(sample.job_id, "csv", local)
    for ask in (services.bulk.customers, services.bulk.partial):
        with pytest.raises(NoResultFile, match="no customers of an uploaded file"):
            ask(sample.job_id, local)


# ---- asking for one


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (TrainingOptions("catboost"), "model_type is 'catboost'; it must be one of xgboost, lightgbm"),
        (TrainingOptions("all", n_samples=99), "n_samples is 99; it must be a whole number from 100 to 10,000,000"),
        (TrainingOptions("all", profile="slow"), "profile is 'slow'"),
        (TrainingOptions("all", promote="maybe"), "promote is 'maybe'"),
        (SampleOptions(0), "n_customers is 0"),
        (SampleOptions(5, seed=-1), "seed is -1"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_the_rule(services, local, options, said):
    with pytest.raises(InvalidRequest) as refused:
        services.trainings.start(options, local)
    assert said in str(refused.value)


def test_the_bounds_are_those_of_the_pipeline():
    assert (LEAST_SAMPLES, DEFAULT_SEED) == (LEAST_SAMPLE, PIPELINES_SEED)


def test_a_caller_has_so_many_trainings_at_once_and_no_more(settings, queue, services, local):
    few = build_services(replace(settings, max_jobs_per_caller=1), queue, tables=(services.store, services.steps))
    job = few.trainings.start(QUICK, local)
    with pytest.raises(TooManyJobs):
        few.trainings.start(SampleOptions(), local)
    services.bulk.cancel(job.job_id, local)
    few.trainings.start(SampleOptions(), local)
    with pytest.raises(TooManyJobs):
        few.bulk.retry(job.job_id, local)


def test_a_queue_that_is_away_only_delays_a_training(services, queue, local):
    queue.away = True
    job = services.trainings.start(QUICK, local)
    assert (job.status, job.enqueued_at) == ("queued", None)
    queue.away = False
    assert services.steps.unsent(job.job_id)[0].kind == TRAIN


# ---- what is left behind


def test_working_folders_of_jobs_that_are_over_are_removed_and_others_stay(services, settings, local):
    folders = JobFolders(settings.var_dir, services.store)
    open_job, over = (services.trainings.start(QUICK, local) for _ in range(2))
    services.bulk.cancel(over.job_id, local)
    root = settings.var_dir / "pipeline"
    for name in (f"{open_job.job_id}-1", f"{over.job_id}-2", f"{'0' * 32}-1", "reports", "0-1"):
        (root / name).mkdir(parents=True)
    folders.tidy()
    assert [path.name for path in left_in(settings)] == sorted([f"{open_job.job_id}-1", "reports", "0-1"])


def test_an_attempt_removes_what_an_earlier_one_has_left(services, settings, local):
    job = services.trainings.start(QUICK, local)
    folders = JobFolders(settings.var_dir, services.store)
    lease = services.steps.claim(job.job_id, "w1")[2]
    (settings.var_dir / "pipeline" / f"{job.job_id}-0").mkdir(parents=True)
    with folders.of(lease) as folder:
        assert left_in(settings) == [folder]
    assert left_in(settings) == []


def test_the_log_has_no_line_above_info_for_a_training_that_goes_well(services, local, run, caplog):
    caplog.set_level(logging.INFO)
    run(services.trainings.start(QUICK, local))
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []
