"""Commands as children: what they say is heard, what they hold is known, and they never outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from config import ROOT
from services.child_process import MB, NICENESS, ChildProcess
from tests.conftest import wait_until

STAND_IN = Path(__file__).with_name("stand_in_command.py")
STARTER = """
import sys, time
from pathlib import Path
from services.child_process import ChildProcess
with ChildProcess(sys.argv[2:], Path(sys.argv[1]), Path.cwd()) as child:
    while child.is_at_work():
        for news in child.news(1.0):
            print(child.pid, *news["others"], flush=True)
"""
needs_proc = pytest.mark.skipif(not Path("/proc").is_dir(), reason="the system tells no memory of others without /proc")


def command(behaviour: str) -> list[str]:
    return [sys.executable, str(STAND_IN), behaviour]


def all_news(child: ChildProcess) -> list[dict]:
    said = []
    while child.is_at_work():
        said += child.news(0.1)
    child.exit_code()
    return said + list(child.news(0.0))


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_command_says_is_heard_and_it_knows_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "secret")
    with ChildProcess(command("tell_about_itself"), tmp_path, ROOT) as child:
        (about,) = all_news(child)
        assert child.exit_code() == 0
    assert "GROQ_API_KEY" not in about["environment"]
    assert about["tmpdir"] == about["folder"] == str(tmp_path)
    assert about["niceness"] == min(os.nice(0) + NICENESS, 19)
    assert about["group"] == child.pid != os.getpgrp()
    assert sorted(child.last_words()) == ["[1, 2]", "a warning", "plain words"]


@pytest.mark.parametrize(("behaviour", "code"), [("crash", 3), ("kill_itself", -9), ("refuse", 2)])
def test_the_way_it_ended_is_known(tmp_path, behaviour, code):
    with ChildProcess(command(behaviour), tmp_path, ROOT) as child:
        all_news(child)
        assert child.exit_code() == code


def test_one_that_hears_of_no_end_is_ended_with_all_that_it_has_started(tmp_path):
    with ChildProcess(command("be_stubborn"), tmp_path, ROOT) as child:
        (news,) = list(child.news(10.0))[:1]
        pids = [child.pid, *news["others"]]
        assert all(map(lives, pids))
        begun = time.monotonic()
    assert time.monotonic() - begun < 3
    assert not any(map(lives, pids))


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    leave = "import subprocess, sys; print('{\"left\": %d}' % subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)"
    with ChildProcess([sys.executable, "-c", leave], tmp_path, ROOT) as child:
        left = next(iter(child.news(10.0)))["left"]
        wait_until(lambda: not child.is_at_work(), "the end of the command", 5)
        assert child.exit_code() == 0
        wait_until(lambda: not lives(left), "the end of what it left", 2)


def test_it_ends_with_whoever_started_it_however_that_went(tmp_path):
    arguments = [sys.executable, "-c", STARTER, str(tmp_path), *command("be_stubborn")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(lives, pids))
        starter.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(lives, pids)), "the end of the command", 6)


@needs_proc
def test_the_memory_of_all_its_processes_counts(tmp_path):
    with ChildProcess(command("be_hungry"), tmp_path, ROOT) as child:
        wait_until(lambda: (child.memory_bytes() or 0) > 150 * MB, "the memory", 20)
    assert child.memory_bytes() == 0
