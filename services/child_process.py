"""A command of ours in a process of its own: heard while it works, ended with whoever started it, held to its memory.

What it writes to its standard output are lines of JSON objects, which are news; anything else that it says goes to the log.
It runs in a process group of its own, and at a lower priority than those who answer requests. `running.lifeline` watches
beside it: when this process is gone, however it went (even by SIGKILL), the group is ended, on macOS as on Linux.
"""

import json
import logging
import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from config import bare_environment
from running.lifeline import Lifeline, end_group, lives

log = logging.getLogger(__name__)

NICENESS = 10
LEAST_URGENT = 19
SECONDS_TO_END = 1.5
"""Between the request to end and the end by force."""
SECONDS_TO_CLOSE = 10.0
"""Between the end of its output and its own."""
LAST_WORDS = 20
"""So many lines of what it said to its standard error are kept."""
PROC = Path("/proc")
MB = 1024 * 1024


class ChildProcess:
    """One run of a command. Use it in a `with` block, which leaves no process behind, whatever way it ends."""

    def __init__(self, command: Sequence[str], folder: Path, project: Path) -> None:
        """folder: where it runs and where its temporary files go. project: the root that modules are imported from. Of the
        environment it gets where programs and libraries are, and nothing that is secret."""
        self._news: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._has_ended = False
        self._lifeline = Lifeline()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env={**bare_environment(), "PYTHONPATH": str(project), "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._lifeline.add(self._process.pid)
        with suppress(OSError):  # it may have ended already
            os.setpriority(os.PRIO_PROCESS, self._process.pid, min(os.nice(0) + NICENESS, LEAST_URGENT))
        self._listeners = [
            self._listen(self._process.stdout, self._hear),
            self._listen(self._process.stderr, self._note),
        ]

    @property
    def pid(self) -> int:
        """Of the process, and of its group."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def is_at_work(self) -> bool:
        """Whether it has more to say."""
        return self._listeners[0].is_alive() and lives(self.pid)

    def news(self, seconds: float) -> Iterator[dict[str, Any]]:
        """What it has said since the last time; waits for up to so long for the first of it."""
        with suppress(queue.Empty):
            yield self._news.get(timeout=seconds)
            while True:
                yield self._news.get_nowait()

    def agree(self) -> None:
        """To what it asks."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it has ended meanwhile
            self._process.stdin.write("yes\n")
            self._process.stdin.flush()

    def exit_code(self) -> int:
        """What it ended with, once it has nothing more to say; below 0: the signal that ended it. Its other processes are
        ended too, and so is one that goes on in silence."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_CLOSE)
        self._end()
        return int(self._process.returncode)

    def last_words(self) -> list[str]:
        """The last lines that it wrote to its standard error."""
        return list(self._last_words)

    def memory_bytes(self) -> int | None:
        """What the processes of its group hold in memory that the system cannot take back by itself (code and files that are
        mapped do not count); None where the system does not tell, as on macOS."""
        if not PROC.is_dir():
            return None
        return sum(_held_bytes(process) for process in PROC.iterdir() if process.name.isdigit() and self._owns(process))

    def _owns(self, process: Path) -> bool:
        return int(process.name) == self.pid or _group_of(process) == self.pid

    def _end(self) -> None:
        """Asks it to end, then makes it and whatever it has started. Once: its number may be another's later."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._process.returncode is None:
            end_group(self.pid, SECONDS_TO_END)
            self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        for listener in self._listeners:
            listener.join(SECONDS_TO_END)
        self._lifeline.remove(self.pid)
        self._lifeline.close()

    def _listen(self, stream: IO[str] | None, hear: Callable[[str], None]) -> threading.Thread:
        def listen() -> None:
            assert stream is not None
            with stream:
                for line in stream:
                    hear(line.rstrip("\n"))

        thread = threading.Thread(target=listen, name=f"child-{self._process.pid}", daemon=True)
        thread.start()
        return thread

    def _hear(self, line: str) -> None:
        said = _news_of(line)
        if said is None:
            self._note(line)
        else:
            self._news.put(said)

    def _note(self, line: str) -> None:
        if line.strip():
            self._last_words.append(line)
            log.info("command said", extra={"line": line, "child": self._process.pid})


def _news_of(line: str) -> dict[str, Any] | None:
    """The JSON object of a line, with null for NaN and infinities, which the job table does not take; None for other lines."""
    try:
        said = json.loads(line, parse_constant=lambda _name: None)
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _group_of(process: Path) -> int | None:
    """Of a folder of /proc; None if it is gone."""
    try:
        facts = (process / "stat").read_bytes()
    except OSError:
        return None
    return int(facts.rpartition(b")")[2].split()[2])


def _held_bytes(process: Path) -> int:
    """Anonymous and shared memory of a process; 0 if it is gone."""
    try:
        facts = (process / "status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return 0
    sizes = dict(line.split(":", 1) for line in facts if line.startswith(("RssAnon:", "RssShmem:")))
    return sum(int(size.split()[0]) * 1024 for size in sizes.values())
