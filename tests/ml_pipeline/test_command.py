import errno
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ml_pipeline.command import LEAST_MEMORY_MB, memory_size, run_command, thread_count
from ml_pipeline.errors import NotEnoughHistory


@pytest.fixture(autouse=True)
def logs_stay_as_they_are():
    """A command takes over the logs of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def raising(error):
    def main(_arguments):
        raise error

    return main


class OutOfMemoryException(Exception):
    """As DuckDB names its own."""


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (NotEnoughHistory("40 days"), "NotEnoughHistory", "40 days"),
        (PermissionError(13, "Permission denied", "/models"), "PermissionError", "/models: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "StorageFull",
            "The disk is full (No space left on device). Make",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded", "/models"), "StorageFull", "/models: The disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), "OSError", "Read-only file system; check"),
        (MemoryError(), "OutOfMemory", "--memory-mb"),
        (OutOfMemoryException("could not allocate"), "OutOfMemory", "--memory-mb"),
    ],
)
def test_what_is_refused_is_a_line_for_a_program_and_a_sentence_for_people(capsys, error, name, message):
    assert run_command(raising(error), ["--progress", "json"]) == 2
    told = capsys.readouterr()
    line = json.loads(told.out)["error"]
    assert (line["name"], message in line["message"]) == (name, True)
    assert f"{name}: " in told.err
    assert run_command(raising(error), ["--data", "x"]) == 2
    assert capsys.readouterr().out == ""


def test_a_fault_of_our_own_is_told_without_its_text(capsys):
    with pytest.raises(KeyError):
        run_command(raising(KeyError("c1@example.org")), ["--progress=json"])
    told = capsys.readouterr().out
    assert json.loads(told)["error"]["name"] == "CommandFailed"
    assert "KeyError" in told
    assert "c1@example.org" not in told


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x", "", "٣"])
def test_only_whole_numbers_are_threads_or_megabytes(text):
    for read in (thread_count, memory_size):
        with pytest.raises(Exception, match="give a whole number from"):
            read(text)
    assert (thread_count("1"), memory_size(str(LEAST_MEMORY_MB))) == (1, LEAST_MEMORY_MB)


def test_sigterm_closes_what_is_open_and_leaves_the_signal_as_it_was():
    closed = []

    def main(_arguments):
        try:
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
            time.sleep(10)
        finally:
            closed.append(True)

    before = signal.getsignal(signal.SIGTERM)
    assert run_command(main, []) == 143
    assert closed == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_command_whose_reader_is_gone_ends_instead_of_working_on(tmp_path):
    """The program that started it was killed: nobody will ever look at what it makes."""
    command = [sys.executable, "-m", "ml_pipeline.sample_data", "--into", tmp_path / "t", "--progress", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "BrokenPipeError" in said
    assert not (tmp_path / "t").exists()
