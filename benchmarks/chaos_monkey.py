"""Disturbs a running service, from a seeded deck of disturbances: kill -9, an empty Redis, a cut link, a worker that is stopped
for longer than its lease."""

import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa

from benchmarks.service_under_test import REDIS, WEB, ServiceUnderTest
from running.embedded_redis import DATA_NAMES

WORKER, POOL_PROCESS, WEB_PROCESS, QUEUE = "worker", "worker's pool process", "web's process", "Redis"
WEB_MASTER, EMPTY_QUEUE = "web", "Redis, which came back empty"
CUT, BLACK_HOLE = "link cut", "link black-holed"
CHUNK_TWICE, OTHER_TWICE = "a chunk handed to two workers", "a reading or a putting together handed to two workers"
CHUNK = "score"
KILLS = (WORKER, POOL_PROCESS, WEB_MASTER, WEB_PROCESS, QUEUE, EMPTY_QUEUE)
VICTIM_SECONDS = 15.0
HAND_OUT_SECONDS = 10.0
"""So long a worker is stopped at most; another has the step within some seconds of the lease's end, or never."""
LOOK_SECONDS = 0.02
PUT_BACK = 4
HELD = "SELECT job_id, kind, number, fence, worker_id FROM steps WHERE status = 'leased'"
FENCE = "SELECT fence FROM steps WHERE job_id = :job_id AND kind = :kind AND number = :number"

WORKER_ID = re.compile(r":(\d+)(/\d+)?$")
"""The host, the worker's main process and, behind a slash, the one of its pool."""

Row = dict[str, object]
Found = TypeVar("Found", bound=list[Any])


class NoVictim(Exception):
    """What was to be disturbed did not appear in time."""


@dataclass
class Deeds:
    """What was done, by disturbance, and what could not be done, with the reason."""

    done: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Processes that were killed with -9."""
        return sum(self.done[name] for name in KILLS)


class Monkey:
    """Works through a deck in an order of chance. gap_seconds: between two disturbances, on average."""

    def __init__(
        self,
        service: ServiceUnderTest,
        seed: int,
        gap_seconds: float,
        lease_seconds: float,
        say: Callable[[str], None] = lambda words: None,
    ) -> None:
        self.deeds = Deeds()
        self._say = say
        self._service = service
        self._chance = random.Random(seed)
        self._gap_seconds = gap_seconds
        self._lease_seconds = lease_seconds
        self._engine = sa.create_engine(service.database_url)
        self._ways: dict[str, Callable[[], None]] = {
            WORKER: lambda: _kill(self._some_process(self._service.worker_names, leader=True)),
            POOL_PROCESS: lambda: _kill(self._some_process(self._service.worker_names, leader=False)),
            WEB_MASTER: lambda: _kill(self._some_process((WEB,), leader=True)),
            WEB_PROCESS: lambda: _kill(self._some_process((WEB,), leader=False)),
            QUEUE: lambda: _kill(self._some_process((REDIS,), leader=True)),
            EMPTY_QUEUE: self._empty_queue,
            CUT: lambda: self._disturb_link(self._service.link.cut),
            BLACK_HOLE: lambda: self._disturb_link(self._service.link.black_hole),
            CHUNK_TWICE: lambda: self._hand_out_twice(lambda kind: kind == CHUNK),
            OTHER_TWICE: lambda: self._hand_out_twice(lambda kind: kind != CHUNK),
        }

    def work_through(self, deck: Counter[str], over: Callable[[], bool]) -> None:
        """Every disturbance of the deck, each while a job is worked on; ends early when it is over.

        One that could not be done goes below the deck again, a few times: a worker that is stopped while it holds SQLite's
        lock, for example, keeps others from taking its step.
        """
        cards = list(deck.elements())
        self._chance.shuffle(cards)
        put_back: Counter[str] = Counter()
        while cards:
            time.sleep(self._chance.uniform(0.5, 1.5) * self._gap_seconds)
            if over():
                return
            card = cards.pop(0)
            try:
                self._await_work()
                self._ways[card]()
                self.deeds.done[card] += 1
                self._say(card)
            except NoVictim as problem:
                self._say(f"missed: {card}: {problem}")
                put_back[card] += 1
                if put_back[card] <= PUT_BACK:
                    cards.append(card)
                else:
                    self.deeds.missed.append(f"{card}: {problem}")

    def close(self) -> None:
        """Closes its connections."""
        self._engine.dispose()

    def _await_work(self) -> None:
        _first(lambda: self._rows(HELD), "no step was worked on")

    def _some_process(self, parts: tuple[str, ...], leader: bool) -> int:
        """A living process of one of the parts: its leader, or one of those below it."""

        def candidates() -> list[int]:
            families = [self._service.processes(part) for part in parts]
            return [pid for family in families for pid in (family[:1] if leader else family[1:])]

        return self._chance.choice(_first(candidates, f"no process of {' or '.join(parts)}"))

    def _empty_queue(self) -> None:
        _kill(self._some_process((REDIS,), leader=True))
        for name in DATA_NAMES:
            path = self._service.redis.folder / name
            with suppress(FileNotFoundError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _disturb_link(self, disturb: Callable[[], None]) -> None:
        disturb()
        try:
            time.sleep(self._chance.uniform(0.5, 2.0) * self._lease_seconds)
        finally:
            self._service.link.restore()

    def _hand_out_twice(self, is_wanted: Callable[[object], bool]) -> None:
        """Stops a worker in the middle of a step of that kind until another has the step too, then lets it go on."""
        deadline = time.monotonic() + 4 * HAND_OUT_SECONDS
        while time.monotonic() < deadline:
            held = _first(lambda: [each for each in self._holders() if is_wanted(each[0]["kind"])], "nobody held one")
            step, family = self._chance.choice(held)
            with _stopped(family):
                if step not in self._rows(HELD):
                    continue  # it was quicker
                self._await_another_hand(step)
            if self._fence(step) > int(str(step["fence"])):
                return
        raise NoVictim("none was handed to another worker")

    def _holders(self) -> list[tuple[Row, list[int]]]:
        """The steps that are worked on, each with the processes of the worker that does."""
        families = [self._service.processes(name) for name in self._service.worker_names]
        by_leader = {family[0]: family for family in families if family}
        held = [(step, WORKER_ID.search(str(step["worker_id"]))) for step in self._rows(HELD)]
        return [(step, by_leader[pid]) for step, name in held if name and (pid := int(name[1])) in by_leader]

    def _await_another_hand(self, step: Row) -> None:
        """A stopped worker may hold the database's lock: then nobody gets the step, and this returns all the same."""
        limit = time.monotonic() + HAND_OUT_SECONDS
        while self._fence(step) == step["fence"] and time.monotonic() < limit:
            time.sleep(LOOK_SECONDS)

    def _fence(self, step: Row) -> int:
        """Of the step now; 0 when it is gone."""
        found = self._rows(FENCE, **{name: step[name] for name in ("job_id", "kind", "number")})
        return int(str(found[0]["fence"])) if found else 0

    def _rows(self, query: str, **values: object) -> list[Row]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]


def _first(find: Callable[[], Found], otherwise: str) -> Found:
    """The first answer that is not empty. Raises NoVictim."""
    deadline = time.monotonic() + VICTIM_SECONDS
    while not (found := find()):
        if time.monotonic() > deadline:
            raise NoVictim(otherwise)
        time.sleep(LOOK_SECONDS)
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        raise NoVictim("it was gone already") from None


@contextmanager
def _stopped(family: list[int]) -> Iterator[None]:
    """The worker's process and those below it stand still, the latter first: it is they who work."""
    for pid in reversed(family):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
