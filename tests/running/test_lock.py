"""One run per folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from running.lock import AlreadyRunning, RunLock

PROJECT = Path(__file__).resolve().parents[2]

HOLDER = """
import subprocess, sys, time
from pathlib import Path
from running.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.take()
if sys.argv[2:]:
    subprocess.Popen(["sleep", sys.argv[2]], pass_fds=(lock.descriptor,), stdout=subprocess.DEVNULL)
print("taken", flush=True)
time.sleep(600)
"""


def hold(path: Path, *heir_sleeps: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", HOLDER, str(path), *heir_sleeps]
    holder = subprocess.Popen(command, cwd=PROJECT, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"taken\n"
    return holder


def test_a_second_run_is_refused_with_the_process_id_of_the_first(tmp_path: Path) -> None:
    holder = hold(tmp_path / "run.lock")
    with pytest.raises(AlreadyRunning, match=f"^{holder.pid}$"):
        RunLock(tmp_path / "run.lock").take()
    holder.kill()
    holder.wait()


def test_the_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    holder = hold(tmp_path / "run.lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lock = RunLock(tmp_path / "run.lock")
    lock.take(patience_seconds=0)
    assert (tmp_path / "run.lock").read_text() == f"{os.getpid()}\n"
    lock.release()


def test_the_next_run_waits_for_the_parts_of_a_killed_one(tmp_path: Path) -> None:
    holder = hold(tmp_path / "run.lock", "0.5")  # the heir of the lock lives half a second longer
    holder.kill()
    holder.wait()
    lock = RunLock(tmp_path / "run.lock")
    with pytest.raises(AlreadyRunning):
        lock.take(patience_seconds=0)
    lock.take(patience_seconds=8)
    lock.release()
