"""Says what is being done and how far it is: a bar for people, JSON lines for the process that started this one.

Lines: `{"phase", "done", "of", "doing"}` whenever something moves (`of` is null where the number of steps is not known),
and one `{"outcome": {...}}` or `{"error": {"name", "message"}}` at the end. Where that is wanted, `{"asks": "promote"}`
before what cannot be taken back, which then waits for a line.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock
from typing import Any, Protocol, TextIO

from tqdm import tqdm

from ml_pipeline.errors import NotAllowedToServe

log = logging.getLogger(__name__)


class JsonLines:
    """One JSON object per line on a stream, at once and whole, whichever thread writes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._turn = Lock()

    def write(self, line: Mapping[str, Any]) -> None:
        """One line. Raises OSError when nobody reads any more."""
        text = json.dumps(line, default=str) + "\n"
        with self._turn:
            self._stream.write(text)
            self._stream.flush()


class Display(Protocol):
    """Where a stage is shown."""

    def show(self, done: int, doing: str) -> None:
        """So many steps are done, and this is under way."""

    def close(self) -> None:
        """The stage has ended."""


class Bar:
    """On a terminal."""

    def __init__(self, bar: "tqdm") -> None:
        self._bar = bar

    def show(self, done: int, doing: str) -> None:
        """Moves the bar."""
        self._bar.set_postfix_str(doing, refresh=False)
        if done > self._bar.n:
            self._bar.update(done - self._bar.n)
        else:
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the bar as it stands, without what was under way."""
        self._bar.set_postfix_str("")
        self._bar.close()


class PhaseLines:
    """As lines of one phase."""

    def __init__(self, lines: JsonLines, phase: str, steps: int | None) -> None:
        self._lines = lines
        self._phase = phase
        self._steps = steps
        self.show(0, "")

    def show(self, done: int, doing: str) -> None:
        """Writes a line."""
        self._lines.write({"phase": self._phase, "done": done, "of": self._steps, "doing": doing})

    def close(self) -> None:
        """Nothing: the next phase's first line says that this one is over."""


class Stage:
    """One stage of the walk; `advance` after each of its steps."""

    def __init__(self, display: Display | None = None) -> None:
        self._display = display
        self._done = 0
        self.facts: dict[str, object] = {}

    def advance(self, doing: str = "") -> None:
        """One step is done; `doing` names the next one."""
        self._done += 1
        self._show(doing)

    def doing(self, what: str) -> None:
        """Names the step under way without counting it as done."""
        self._show(what)

    def note(self, **facts: object) -> None:
        """Facts for the stage's closing log line, e.g. rows in and out."""
        self.facts.update(facts)

    def _show(self, doing: str) -> None:
        if self._display is not None:
            self._display.show(self._done, doing)


class Progress:
    """Opens stages. `bars=None` draws bars only on a terminal, `bars=True` always; with `lines` they are written there.

    consent: where whoever reads the lines answers questions, a line each; None: nobody is asked.
    """

    def __init__(self, bars: bool | None = None, lines: JsonLines | None = None, consent: TextIO | None = None) -> None:
        self._bars = sys.stderr.isatty() if bars is None else bars
        self._lines = lines
        self._consent = consent

    @contextmanager
    def stage(self, name: str, steps: int | None = None) -> Iterator[Stage]:
        """A named stage of `steps` steps; its seconds and facts are logged when it ends well."""
        started = time.perf_counter()
        display = self._open(name, steps)
        stage = Stage(display)
        try:
            yield stage
        finally:
            if display is not None:
                display.close()
        seconds = round(time.perf_counter() - started, 3)
        log.info("stage finished", extra={"stage": name, "seconds": seconds, **stage.facts})

    def ask_to_promote(self) -> None:
        """Comes back when whoever started this command agrees that what it has made serves. Raises NotAllowedToServe."""
        if self._lines is None or self._consent is None:
            return
        self._lines.write({"asks": "promote"})
        if not self._consent.readline():
            raise NotAllowedToServe("What was made is in the models folder and does not serve: nobody agreed to it.")

    @property
    def is_lines(self) -> bool:
        """Whether a program reads along: then nothing else may be written to stdout."""
        return self._lines is not None

    def close(self, outcome: Mapping[str, Any]) -> None:
        """What has come of it all, as the last line; people are told in words by the command itself."""
        if self._lines is not None:
            self._lines.write({"outcome": outcome})

    def _open(self, name: str, steps: int | None) -> Display | None:
        if self._lines is not None:
            return PhaseLines(self._lines, name, steps)
        return Bar(tqdm(total=steps, desc=f"{name:<22}", leave=True, dynamic_ncols=True)) if self._bars else None
