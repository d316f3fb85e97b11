"""Engines that describe raw histories: few per process, each planned once and used by one request at a time."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ibis.backends.duckdb import Backend

    from ml_pipeline.history import HistoryFeatures

log = logging.getLogger(__name__)

MOST_ENGINES = 2
"""Per process; whoever finds all in use waits. A read takes tens of milliseconds of one core."""
ENGINE_MEMORY = "512MB"


@dataclass(frozen=True)
class _Engine:
    targets: tuple[str, ...]
    backend: "Backend"
    features: "HistoryFeatures"


class HistoryEngines:
    """Lends engines; none is opened before it is first asked for, so after any fork. Safe to share between threads."""

    def __init__(self, most: int = MOST_ENGINES) -> None:
        self._lent = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Engine] = []

    @contextmanager
    def borrow(self, targets: Sequence[str]) -> "Iterator[HistoryFeatures]":
        """Features of histories for a shop with these targets, to this thread alone; waits for an engine if need be.

        An engine in whose hands anything went wrong is not lent again.
        """
        with self._lent:
            engine = self._take(tuple(targets))
            try:
                yield engine.features
            except BaseException:
                engine.backend.disconnect()
                raise
            with self._lock:
                self._idle.append(engine)

    def _take(self, targets: tuple[str, ...]) -> _Engine:
        with self._lock:
            for engine in self._idle:
                if engine.targets == targets:
                    self._idle.remove(engine)
                    return engine
            others = self._idle  # of a model that served before
            self._idle = []
        for engine in others:
            engine.backend.disconnect()
        return _open(targets)


def _open(targets: tuple[str, ...]) -> _Engine:
    from ml_pipeline.engine import open_engine
    from ml_pipeline.history import HistoryFeatures

    started = time.perf_counter()
    backend = open_engine(threads=1, memory_limit=ENGINE_MEMORY)
    backend.con.execute("SET temp_directory = ''")  # histories are small, and what was bought does not go to a disk
    engine = _Engine(targets, backend, HistoryFeatures(backend, targets))
    log.info("engine of raw histories opened", extra={"seconds": round(time.perf_counter() - started, 3)})
    return engine
