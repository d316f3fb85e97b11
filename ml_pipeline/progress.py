"""Says what is being done and how far it is: a bar for people, a log line for machines."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

log = logging.getLogger(__name__)


class Stage:
    """One stage of the walk; `advance` after each of its steps."""

    def __init__(self, bar: "tqdm | None") -> None:
        self._bar = bar
        self.facts: dict[str, object] = {}

    def advance(self, doing: str = "") -> None:
        """One step is done; `doing` names the next one."""
        if self._bar is not None:
            self._bar.set_postfix_str(doing, refresh=False)
            self._bar.update(1)

    def doing(self, what: str) -> None:
        """Names the step under way without counting it as done."""
        if self._bar is not None:
            self._bar.set_postfix_str(what)

    def note(self, **facts: object) -> None:
        """Facts for the stage's closing log line, e.g. rows in and out."""
        self.facts.update(facts)


class Progress:
    """Opens stages. `bars=None` draws bars only on a terminal; `bars=True` always."""

    def __init__(self, bars: bool | None = None) -> None:
        self._bars = sys.stderr.isatty() if bars is None else bars

    @contextmanager
    def stage(self, name: str, steps: int | None = None) -> Iterator[Stage]:
        """A named stage of `steps` steps; its seconds and facts are logged when it ends well."""
        started = time.perf_counter()
        bar = tqdm(total=steps, desc=f"{name:<22}", leave=True, dynamic_ncols=True) if self._bars else None
        stage = Stage(bar)
        try:
            yield stage
        finally:
            if bar is not None:
                bar.set_postfix_str("")
                bar.close()
        seconds = round(time.perf_counter() - started, 3)
        log.info("stage finished", extra={"stage": name, "seconds": seconds, **stage.facts})
