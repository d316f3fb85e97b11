"""Starts the parts in order, brings back what dies, and stops all of them in reverse order."""

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from running.lifeline import Lifeline

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 0.1


class PartDidNotStart(Exception):
    """A part ended, or did not answer in time, before it was ready for the first time."""


@dataclass(frozen=True)
class Part:
    """One program of the service.

    environment: added to the one of this process. is_ready: asked again and again after a start, until it says yes.
    remedy: called when the part ends before it is ready for the first time; True = it is worth one more try.
    words: where a person reads what the program said. stop_seconds: how long it may take to end after SIGTERM before its whole process group is killed.
    """

    name: str
    command: Sequence[str]
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    is_ready: Callable[[], bool] = lambda: True
    remedy: Callable[[], bool] = lambda: False
    words: str = "above"
    ready_seconds: float = 30.0
    stop_seconds: float = 3.0


@dataclass(frozen=True)
class Backoff:
    """How long to wait before a dead part is started again: doubling, with a ceiling, forgiven after a long life."""

    first_seconds: float = 0.5
    ceiling_seconds: float = 30.0
    forgiven_after_seconds: float = 60.0

    def wait_seconds(self, deaths_in_a_row: int) -> float:
        """Before the next start, after `deaths_in_a_row` (from 1) deaths."""
        return min(self.first_seconds * 2.0 ** min(deaths_in_a_row - 1, 20), self.ceiling_seconds)


class _Running:
    """A part and the process that plays it at the moment, if any."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_again_at: float | None = None
        self.deaths_in_a_row = 0


class Supervisor:
    """Holds the parts; use from one thread. Every part leads its own process group, so a Ctrl-C meets only us."""

    def __init__(self, parts: Sequence[Part], lifeline: Lifeline, backoff: Backoff | None = None) -> None:
        self._running = [_Running(part) for part in parts]
        self._lifeline = lifeline
        self._backoff = backoff or Backoff()

    def start(self, stop: Event) -> None:
        """Starts every part and waits until it is ready before the next; returns early when `stop` is set.

        Raises PartDidNotStart with the name of the part and what happened to it.
        """
        for running in self._running:
            if stop.is_set():
                return
            self._launch(running)
            self._await_ready(running, stop)

    def watch(self, stop: Event) -> None:
        """Brings back what dies, until `stop` is set."""
        while not stop.wait(LOOK_EVERY_SECONDS):
            self.tend()

    def tend(self) -> None:
        """One look at every part: notes deaths, starts again what is due."""
        self._lifeline.tend()
        for running in self._running:
            if running.process is not None and running.process.poll() is not None:
                self._note_death(running)
            if running.start_again_at is not None and time.monotonic() >= running.start_again_at:
                self._launch(running)

    def stop(self) -> None:
        """Ends every part, the last started first; none is left when it returns."""
        for running in reversed(self._running):
            running.start_again_at = None
            if running.process is not None:
                self._end(running.process, running.part)
                running.process = None

    def pids(self) -> dict[str, int]:
        """Name of every part that runs at the moment → its process id."""
        return {
            running.part.name: running.process.pid
            for running in self._running
            if running.process is not None and running.process.poll() is None
        }

    def _launch(self, running: _Running) -> None:
        part = running.part
        running.start_again_at = None
        running.started_at = time.monotonic()
        running.process = subprocess.Popen(
            list(part.command),
            cwd=part.folder,
            env={**os.environ, **part.environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._lifeline.add(running.process.pid)
        log.info("part started", extra={"part": part.name, "pid": running.process.pid})

    def _await_ready(self, running: _Running, stop: Event) -> None:
        part, may_try_again = running.part, True
        deadline = time.monotonic() + part.ready_seconds
        while not part.is_ready():
            assert running.process is not None
            if (code := running.process.poll()) is not None:
                if not (may_try_again and part.remedy()):
                    raise PartDidNotStart(
                        f"{part.name} ended at once ({ending(code)}); its own words are {part.words}."
                    )
                may_try_again = False
                self._note_death(running)
                self._launch(running)
            if time.monotonic() > deadline:
                raise PartDidNotStart(
                    f"{part.name} did not answer within {part.ready_seconds:g} s; its own words are {part.words}."
                )
            if stop.wait(LOOK_EVERY_SECONDS):
                return

    def _note_death(self, running: _Running) -> None:
        process, now = running.process, time.monotonic()
        assert process is not None
        kill_group(process.pid)  # what it left behind holds its port and its tasks
        self._lifeline.remove(process.pid)
        if now - running.started_at > self._backoff.forgiven_after_seconds:
            running.deaths_in_a_row = 0
        running.deaths_in_a_row += 1
        wait = self._backoff.wait_seconds(running.deaths_in_a_row)
        running.process = None
        running.start_again_at = now + wait
        facts = {"part": running.part.name, "ended": ending(process.returncode), "start_again_in_seconds": wait}
        log.warning("part ended and will be started again", extra=facts)

    def _end(self, process: "subprocess.Popen[bytes]", part: Part) -> None:
        code = end_process(process, part.stop_seconds)
        self._lifeline.remove(process.pid)
        log.info("part stopped", extra={"part": part.name, "ended": ending(code)})


def end_process(process: "subprocess.Popen[bytes]", seconds: float) -> int:
    """Asks a process that leads a group to end; after `seconds` the group is killed. Returns its exit code."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
    kill_group(process.pid)
    return process.wait()


def kill_group(group: int) -> None:
    """SIGKILL to what is left of a process group, if anything is."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def ending(code: int) -> str:
    """How a process ended, in words; `code` as subprocess gives it (negative = signal)."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"
