"""A real service for the tests: `python run.py` in folders of its own, with its lines, its parts and their processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from running.ports import free_port

PROJECT = Path(__file__).resolve().parents[2]
CUSTOMERS = 400


def make_tables(data_dir: Path) -> None:
    """The sample shop, small."""
    made = ("--into", str(data_dir), "--truth", f"{data_dir}_truth", "--customers", str(CUSTOMERS))
    command = [sys.executable, "-m", "ml_pipeline.sample_data", *made]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)


def settings(folder: Path, **others: str) -> dict[str, str]:
    """An environment with folders and a port of its own, and leases short enough for a test."""
    return {
        **{name: value for name, value in os.environ.items() if name not in ("REDIS_URL", "DATABASE_URL")},
        "DATA_DIR": str(folder / "tables"),
        "MODELS_DIR": str(folder / "models"),
        "VAR_DIR": str(folder / "var"),
        "PORT": str(free_port()),
        "REDIS_URL": "",
        "DATABASE_URL": "",
        "LEASE_SECONDS": "4",
        "WATCHDOG_SECONDS": "1",
        "TMPDIR": str(folder),  # whoever is killed leaves something
        **others,
    }


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """The first true answer of `condition`; fails with its last one when the time is over."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s; last answer: {answer!r}"
        time.sleep(0.05)
    return answer


class Service:
    """`python run.py` as a person starts it; everything it says goes to a file."""

    def __init__(self, folder: Path, **others: str) -> None:
        self.folder = folder
        self.environment = settings(folder, **others)
        self.url = f"http://127.0.0.1:{self.environment['PORT']}"
        self._said = folder / "said.log"
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [sys.executable, "run.py"], cwd=PROJECT, env=self.environment, stdout=said, stderr=subprocess.STDOUT
            )

    @property
    def lines(self) -> list[str]:
        """Everything said so far, by run.py and by its parts."""
        return self._said.read_text("utf-8").splitlines()

    def await_welcome(self, seconds: float = 90.0) -> None:
        """Until the three commands stand there."""

        def welcomed() -> bool:
            assert self.process.poll() is None, "run.py ended:\n" + "\n".join(self.lines[-30:])
            return len(self.commands) == 3

        until(welcomed, seconds)

    @property
    def commands(self) -> list[str]:
        """The curl lines that it printed, to be run as they stand."""
        return [line.strip() for line in self.lines if line.strip().startswith("curl ")]

    def starts(self, part: str) -> list[int]:
        """Process ids of a part, one for each start so far."""
        facts = [json.loads(line) for line in self.lines if line.startswith("{") and '"part started"' in line]
        return [fact["pid"] for fact in facts if fact["part"] == part]

    def kill(self, part: str) -> None:
        """kill -9 of a part; returns when another plays it."""
        before = self.starts(part)
        os.kill(before[-1], signal.SIGKILL)
        until(lambda: len(self.starts(part)) > len(before), 10)

    def upload(self, path: Path) -> dict[str, Any]:
        """The 202 answer to a file."""
        with path.open("rb") as file:
            answer = requests.post(f"{self.url}/bulk/predict", files={"file": (path.name, file)}, timeout=30)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    def status(self, job_id: str) -> dict[str, Any]:
        """Of a job."""
        return dict(requests.get(f"{self.url}/bulk/status/{job_id}", timeout=30).json())

    def await_job(self, job_id: str, seconds: float = 60.0) -> dict[str, Any]:
        """The last status of a job."""
        status: dict[str, Any] = until(
            lambda: (s := self.status(job_id))["status"] not in ("queued", "processing") and s, seconds
        )
        return status

    def download(self, job_id: str, path: Path) -> Path:
        """The result file, written to `path`."""
        answer = requests.get(f"{self.url}/bulk/download/{job_id}", timeout=60)
        assert answer.status_code == 200, answer.text
        path.write_bytes(answer.content)
        return path

    def customer_ids(self) -> list[str]:
        """Customers that exist, from the template."""
        text = requests.get(f"{self.url}/bulk/template?format=csv", timeout=10).text
        return [line.split(",")[0].strip('"') for line in text.lstrip("\ufeff").splitlines()[1:]]

    def end(self, name: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to end, as Ctrl-C or `kill` do; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(name)
        return self.process.wait(30)


def left_behind(sessions: list[int]) -> list[str]:
    """Processes, other than dead ones waiting to be reaped, of the sessions that the parts were given."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "sid=,stat=,pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^\s*(\d+)\s+(\S+)\s+(.*)$", listed, re.MULTILINE)
    return [rest for session, state, rest in found if int(session) in sessions and not state.startswith("Z")]
