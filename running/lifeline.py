"""Ends the parts when whoever started them is gone, however it went (even by SIGKILL).

`Lifeline` starts this file as a small process that holds the reading end of a pipe. As long as the starter lives the
pipe is open; when it closes, every process group that is still on the list is asked to end and, after a while, made to.
A process that watches beside the parts, and not the parts themselves, because it then works for programs that know
nothing of it, for their children too, and on macOS as on Linux.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO

SECONDS_TO_END = 3.0


class Lifeline:
    """The list of process groups that must not outlive this process."""

    def __init__(self, keep_open: tuple[int, ...] = ()) -> None:
        """keep_open: descriptors the watching process inherits, e.g. a lock held until the last part is gone."""
        self._keep_open = keep_open
        self._groups: list[int] = []
        self._watcher = self._start()

    @property
    def pid(self) -> int:
        """Of the watching process."""
        return self._watcher.pid

    def add(self, group: int) -> None:
        """From now on `group` ends with this process."""
        self._groups.append(group)
        self._tell(f"+{group}")

    def remove(self, group: int) -> None:
        """`group` has ended already."""
        with suppress(ValueError):
            self._groups.remove(group)
        self._tell(f"-{group}")

    def tend(self) -> None:
        """One look: a watching process that somebody ended is replaced; the new one learns the whole list."""
        if self._watcher.poll() is not None:
            self._watcher = self._start()
            self._write("".join(f"+{group}\n" for group in self._groups))

    def close(self) -> None:
        """Ends the watching process and, through it, every group still on the list."""
        with suppress(OSError):
            self._pipe.close()
        self._watcher.wait()

    @property
    def _pipe(self) -> IO[str]:
        assert self._watcher.stdin is not None
        return self._watcher.stdin

    def _start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            pass_fds=self._keep_open,
        )

    def _tell(self, line: str) -> None:
        try:
            self._write(line + "\n")
        except OSError:
            self._watcher.wait()
            self.tend()

    def _write(self, lines: str) -> None:
        self._pipe.write(lines)
        self._pipe.flush()


def end_group(group: int, seconds: float) -> None:
    """Asks the leader of a process group to end; when it has, or after `seconds`, the rest of the group is killed."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(group, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and lives(group):
        time.sleep(0.05)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def lives(pid: int) -> bool:
    """True while the process works; one that has ended and waits to be reaped (a zombie) does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as facts:
            return facts.read().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:  # no /proc here (macOS), or gone in the meantime
        return not os.path.isdir("/proc/self")


def _watch(lines: IO[str]) -> None:
    groups: list[int] = []
    for line in lines:
        group = int(line[1:])
        if line[0] == "+":
            groups.append(group)
        elif group in groups:
            groups.remove(group)
    for group in reversed(groups):
        end_group(group, SECONDS_TO_END)


if __name__ == "__main__":
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    _watch(sys.stdin)
