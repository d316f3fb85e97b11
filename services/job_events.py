"""The events of a job as it goes on, for callers who would rather be told than ask.

A stream holds a thread of the web server, so it is bounded twice: it ends by itself after a while, and only so many are open
in one process at a time. A client that connects again names the last event that it saw and goes on from there.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from services.errors import ServiceError
from services.job_table import OPEN, Job

LOOK_SECONDS = 0.5
HEARTBEAT_SECONDS = 2.0
"""The longest silence: a client that has gone is only noticed by writing to it."""
STREAM_SECONDS = 20.0
PROGRESS = "progress"


@dataclass(frozen=True)
class Event:
    """name: progress, or the status that the job ended with. number: grows within a job, over all connections and processes."""

    name: str
    number: int
    content: dict[str, Any]

    @property
    def is_last(self) -> bool:
        """Whether the job has ended."""
        return self.name != PROGRESS


class StreamSlots:
    """How many streams a process may still open."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._taken = 0

    def take(self) -> bool:
        """Takes a slot if one is free; it must be given back."""
        with self._lock:
            if self._taken >= self._limit():
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        """The stream has ended."""
        with self._lock:
            self._taken -= 1


def event_of(job: Job, content: dict[str, Any], after: int = 0) -> Event:
    """What there is to say of a job now, numbered above `after`."""
    name = PROGRESS if job.status in OPEN else job.status
    number = _milliseconds(job.updated_at) if job.status in OPEN else _last_number(job)
    return Event(name, max(after + 1, number), content)


def has_been_told(job: Job, seen: int) -> bool:
    """Whether the job has ended, and the event of this number was the one that said so."""
    return job.status not in OPEN and seen >= _last_number(job)


def events_of(
    look: Callable[[], Job],
    describe: Callable[[Job], dict[str, Any]],
    after: int = 0,
    is_stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Event | None]:
    """An event at once and at each change of the job, None now and then in between.

    Ends after the event of the job's end, after STREAM_SECONDS, when the process is to stop, and where the job cannot be looked
    at any more (deleted, or the table is away): a client that connects again is told why.
    """
    began = spoke = clock()
    changed_at = None
    while True:
        try:
            job = look()
            event = event_of(job, describe(job), after) if job.updated_at != changed_at else None
        except ServiceError:
            return
        if event is not None:
            after, changed_at, spoke = event.number, job.updated_at, clock()
            yield event
            if event.is_last:
                return
        elif clock() - spoke >= HEARTBEAT_SECONDS:
            spoke = clock()
            yield None
        if is_stopping() or clock() - began >= STREAM_SECONDS:
            return
        sleep(LOOK_SECONDS)


def _last_number(job: Job) -> int:
    """Above the number of everything that was said before the end."""
    return _milliseconds(job.updated_at if job.completed_at is None else job.completed_at) + 1


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
