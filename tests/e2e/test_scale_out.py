"""Workers on other hosts, which share the job table, the queue and the object store and nothing else; and a disk that fills."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from config import ROOT, Settings
from running.ports import free_port
from services.bootstrap import build_services
from services.bulk_service import Caller
from services.job_table import DONE, READ, SCORE, WRITE, Job, Step
from services.object_store import UNFINISHED
from tests.conftest import CUSTOMERS, ListQueue, environment_of, for_servers, wait_until
from tests.services.bulk_files import upload_of
from tests.small_disk import SmallDisk, small_disk
from worker.queue import CeleryQueue

pytestmark = pytest.mark.server

ROWS_PER_CHUNK = 100
DATABASE = "scale_out"
LOCAL = Caller("local", "request-1")
ROOM_THAT_RUNS_OUT = {100_000: READ, 1_500_000: SCORE, 4_000_000: WRITE}
"""Bytes for 20,000 rows: the staged ones take 0.5 MB, the parts 2.4 MB and the result as much again."""


def rows_of(count: int) -> list[list[str]]:
    """Known customers again and again, every ninth row somebody unknown."""
    return [[CUSTOMERS[(7 * n) % len(CUSTOMERS)] if n % 9 else "nobody", f"note {n}"] for n in range(count)]


class Hosts:
    """Web and workers, each in a working directory of its own with its own VAR_DIR; only web has models."""

    def __init__(self, shared: Settings, folder: Path, toy_models: Path, namespace: SmallDisk | None = None) -> None:
        self._shared = shared
        self._folder = folder
        self._namespace = namespace
        self._processes: list[subprocess.Popen[bytes]] = []
        self._models = Path(shutil.copytree(toy_models, folder / "trained"))
        self.services = build_services(shared, CeleryQueue(shared))
        """To look at the tables with."""
        self.url = ""

    def start_web(self) -> None:
        """Does not wait for it."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "gunicorn", "-w", "1", "-b", f"127.0.0.1:{port}", "app:create_app()"]
        self._start("web", command, ROOT, MODELS_DIR=str(self._models))

    def await_web(self) -> None:
        """Until it is ready."""
        wait_until(self._is_ready, f"web's start, see {self._folder}")

    def start_worker(self, name: str) -> None:
        """As documented for any working directory; does not wait for it."""
        folder = self._folder / name
        folder.mkdir(parents=True)
        command = [str(Path(sys.executable).with_name("celery")), "-A", "worker", "worker", "-c", "1"]
        self._start(name, command, folder, MODELS_DIR=str(folder / "no_models"), PYTHONPATH=str(ROOT))

    def await_workers(self, count: int) -> set[str]:
        """What they are called in the job table, when there are so many."""

        def live() -> set[str]:
            return {worker.worker_id for worker in self.services.steps.live_workers(100)}

        wait_until(lambda: len(live()) == count, f"the start of {count} workers, see {self._folder}")
        return live()

    def upload(self, content: bytes, name: str) -> str:
        """The id of the job."""
        answer = self.sent(content, name)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["job_id"])

    def sent(self, content: bytes, name: str) -> requests.Response:
        """The answer to a file."""
        return requests.post(f"{self.url}/bulk/predict", files={"file": (name, content)}, timeout=30)

    def ended(self, job_id: str) -> Job:
        """The job, when it is over."""
        wait_until(lambda: self.services.store.get(job_id).status not in ("queued", "processing"), "the end of the job")
        return self.services.store.get(job_id)

    def chunks(self, job_id: str) -> list[Step]:
        """The chunks of a job."""
        return [step for step in self.services.store.steps(job_id) if step.kind == SCORE]

    def stopped_in(self, job_id: str) -> str:
        """The kind of the first step that is not done."""
        steps = self.services.store.steps(job_id)
        return next(kind for kind in (READ, SCORE, WRITE) if any(s.kind == kind and s.status != DONE for s in steps))

    def post(self, path: str) -> requests.Response:
        """Without a body."""
        return requests.post(f"{self.url}{path}", timeout=30)

    def downloaded(self, job_id: str) -> bytes:
        """The result."""
        answer = requests.get(f"{self.url}/bulk/download/{job_id}", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.content

    def var_dir(self, name: str) -> Path:
        """Of one of them."""
        return self._folder / name / "var"

    def end(self) -> None:
        """All of them, at once."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.services.store.close()

    def _start(self, name: str, command: list[str], folder: Path, **environ: str) -> None:
        log = self._folder / f"{name}.log"
        settings = {"OMP_NUM_THREADS": "1", "VAR_DIR": str(self.var_dir(name)), **environ}
        if self._namespace is not None:
            command = self._namespace.command(command, folder)
        with log.open("wb") as stream:
            environment = environment_of(self._shared, **settings)
            self._processes.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=stream, stderr=stream))

    def _is_ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/health/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False


@pytest.fixture
def shared(settings: Settings, tmp_path: Path, postgres_url: str, redis_url: str) -> Settings:
    """What all hosts share: an empty Postgres, an empty Redis, a folder."""
    server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
        connection.execute(sa.text(f"CREATE DATABASE {DATABASE}"))
    server.dispose()
    url = sa.make_url(postgres_url).set(database=DATABASE).render_as_string(hide_password=False)
    facts = {"database_url": url, "objects_dir": tmp_path / "shared", "rows_per_chunk": ROWS_PER_CHUNK}
    return replace(for_servers(settings, redis_url.replace("/0", "/5")), **facts)


@pytest.fixture
def undisturbed(settings: Settings, tmp_path: Path) -> Callable[..., bytes]:
    """The result of one process with one disk, a SQLite file and no queue."""

    def result(content: bytes, name: str, rows_per_chunk: int = ROWS_PER_CHUNK) -> bytes:
        alone = build_services(replace(settings, rows_per_chunk=rows_per_chunk), ListQueue(), worker_id="alone")
        path = tmp_path / "received"
        path.write_bytes(content)
        job = alone.bulk.upload(path, name, LOCAL)
        while alone.store.get(job.job_id).status in ("queued", "processing"):
            alone.runner.run(job.job_id)
        made: Any = alone.bulk.result(job.job_id, None, LOCAL)
        with alone.objects.local(made.key) as found:
            content = found.read_bytes()
        alone.store.close()
        return content

    return result


def test_workers_that_share_nothing_but_three_stores_make_one_result_together(
    shared: Settings, tmp_path: Path, toy_models: Path, undisturbed: Callable[..., bytes]
) -> None:
    hosts = Hosts(shared, tmp_path / "hosts", toy_models)
    try:
        hosts.start_web()
        for name in ("worker-1", "worker-2"):
            hosts.start_worker(name)
        hosts.await_web()
        workers = hosts.await_workers(2)
        took: set[str] = set()
        for kind, count in (("csv", 2021), ("xlsx", 1800), ("parquet", 2199)):
            content, name = upload_of(kind, rows_of(count))
            job = hosts.ended(hosts.upload(content, name))
            assert (job.status, job.rows_processed) == ("completed", count), job
            assert hosts.downloaded(job.job_id) == undisturbed(content, name), kind
            chunks = hosts.chunks(job.job_id)
            assert len(chunks) == -(-count // ROWS_PER_CHUNK)
            took |= {str(chunk.worker_id).split("/")[0] for chunk in chunks}
        assert took == workers
        for name in ("worker-1", "worker-2"):
            assert len(list((hosts.var_dir(name) / "models" / "snapshots").iterdir())) == 1, "the pair was fetched"
    finally:
        hosts.end()


def test_a_job_that_meets_a_full_disk_again_and_again_is_completed_when_there_is_space(
    shared: Settings, tmp_path: Path, toy_models: Path, undisturbed: Callable[..., bytes]
) -> None:
    with small_disk(tmp_path, "16m") as disk:
        facts = {"objects_dir": disk.mounted / "objects", "rows_per_chunk": 2000}
        hosts = Hosts(replace(shared, **facts), tmp_path / "hosts", toy_models, disk)
        try:
            hosts.start_web()
            hosts.await_web()
            content, name = upload_of("csv", rows_of(20_000))
            job_id = hosts.upload(content, name)
            free = disk.free()
            for room, step in ROOM_THAT_RUNS_OUT.items():
                filler = disk.fill(leave=room - (free - disk.free()))
                if step == READ:
                    refused = hosts.sent(content, name)
                    assert (refused.status_code, refused.json()["error"]) == (503, "StorageFull")
                    hosts.start_worker("worker-1")
                else:
                    assert hosts.post(f"/bulk/retry/{job_id}").status_code == 202
                job = hosts.ended(job_id)
                assert (job.status, job.error_name) == ("failed", "StorageFull"), job
                assert "no space left" in str(job.error_message)
                assert hosts.stopped_in(job_id) == step
                assert os.listdir(disk.path / "objects" / UNFINISHED) == []
                filler.unlink()
            disk.make_read_only()
            assert hosts.post(f"/bulk/retry/{job_id}").status_code == 202
            job = hosts.ended(job_id)
            assert (job.status, job.error_name) == ("failed", "ObjectStoreUnavailable"), job
            assert "Read-only file system" in str(job.error_message)
            disk.make_writable()
            assert hosts.post(f"/bulk/retry/{job_id}").status_code == 202
            assert hosts.ended(job_id).status == "completed"
            assert hosts.downloaded(job_id) == undisturbed(content, name, 2000)
        finally:
            hosts.end()
