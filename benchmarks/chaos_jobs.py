"""Callers who do not give up: each uploads, waits and downloads through every disturbance, and compares with the undisturbed."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import python_calamine
import requests

from benchmarks.bulk_client import ENDED, BulkClient, Cut, Form, UnexpectedAnswer
from benchmarks.chaos_uploads import Upload

PAUSE_SECONDS = 0.2
AWAY = "503"
Answer = TypeVar("Answer")
TOLD_ALIKE = ("progress", "statistics", "metadata")
OF_THE_MOMENT = ("rows_per_second", "eta_seconds")


@dataclass
class Outcome:
    """How one job went. verdict: "" while it runs; "identical", "cells identical", else what is wrong."""

    upload: Upload
    key: str
    job_id: str = ""
    seconds: float = 0.0
    verdict: str = ""
    broken: int = 0
    away: int = 0

    @property
    def is_right(self) -> bool:
        """Whether the result is what it would have been."""
        return self.verdict in ("identical", "cells identical")


@dataclass(frozen=True)
class Undisturbed:
    """What an upload gives when nothing happens: the file, and what the status says of it."""

    result: Path
    told: dict[str, Any]


@dataclass
class Callers:
    """So many at a time take uploads in turns. deadline: asked by those who wait; true when waiting is over."""

    url: str
    folder: Path
    uploads: list[Upload]
    undisturbed: dict[Path, Undisturbed] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    over: Callable[[], bool] = lambda: False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run_undisturbed(self, at_a_time: int) -> None:
        """Every upload once, with nothing in the way."""
        self._run(iter(self.uploads), at_a_time, "undisturbed", self._keep)

    def run_disturbed(self, uploads: Iterator[Upload], at_a_time: int) -> None:
        """Uploads as long as there are any; each result is compared."""
        self._run(uploads, at_a_time, "disturbed", self._compare)

    @property
    def finished(self) -> int:
        """Jobs with a verdict."""
        return sum(bool(outcome.verdict) for outcome in self.outcomes)

    def _run(
        self, uploads: Iterator[Upload], at_a_time: int, name: str, judge: Callable[[Outcome, Path, Any], None]
    ) -> None:
        def work() -> None:
            while (outcome := self._next(uploads, name)) is not None:
                self._do(outcome, judge)

        threads = [threading.Thread(target=work, name=f"caller-{number}") for number in range(at_a_time)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _next(self, uploads: Iterator[Upload], name: str) -> Outcome | None:
        with self._lock:
            upload = next(uploads, None)
            if upload is None:
                return None
            outcome = Outcome(upload, f"{name}-{len(self.outcomes)}")
            self.outcomes.append(outcome)
            return outcome

    def _do(self, outcome: Outcome, judge: Callable[[Outcome, Path, Any], None]) -> None:
        started, client = time.monotonic(), BulkClient(self.url)
        result = self.folder / f"{outcome.key}.{outcome.upload.format}"
        try:
            outcome.job_id = self._insist(outcome, lambda: client.upload(Form(outcome.upload.path), outcome.key))
            status = self._await_end(outcome, client)
            self._insist(outcome, lambda: client.download(outcome.job_id, result))
            judge(outcome, result, status)
        except UnexpectedAnswer as problem:
            outcome.verdict = str(problem)
        outcome.seconds = time.monotonic() - started

    def _await_end(self, outcome: Outcome, client: BulkClient) -> dict[str, Any]:
        while (status := self._insist(outcome, lambda: client.status(outcome.job_id)))["status"] not in ENDED:
            if self.over():
                raise UnexpectedAnswer(f"stuck: {status['status']}, {status['progress']}")
            time.sleep(PAUSE_SECONDS)
        if status["status"] != "completed":
            raise UnexpectedAnswer(f"{status['status']}: {status.get('error')} {status.get('message')}")
        return status

    def _insist(self, outcome: Outcome, ask: Callable[[], Answer]) -> Answer:
        """Asks until there is an answer: again where the connection broke, or where a part of the service was away."""
        while True:
            try:
                return ask()
            except (requests.RequestException, Cut) as problem:
                outcome.broken, reason = outcome.broken + 1, str(problem)
            except UnexpectedAnswer as problem:
                if f": {AWAY} " not in str(problem):
                    raise
                outcome.away, reason = outcome.away + 1, str(problem)
            if self.over():
                raise UnexpectedAnswer(f"no answer before the end: {reason}")
            time.sleep(PAUSE_SECONDS)

    def _keep(self, outcome: Outcome, result: Path, status: dict[str, Any]) -> None:
        progress, rows = status["progress"], outcome.upload.rows
        expected = (rows, rows, rows - outcome.upload.unknown, outcome.upload.unknown)
        told = (progress["total"], progress["processed"], progress["successful"], progress["failed"])
        outcome.verdict = "identical" if told == expected else f"rows are told as {told}, they are {expected}"
        self.undisturbed[outcome.upload.path] = Undisturbed(result, _told(status))

    def _compare(self, outcome: Outcome, result: Path, status: dict[str, Any]) -> None:
        before = self.undisturbed[outcome.upload.path]
        different = [name for name, told in _told(status).items() if told != before.told[name]]
        if different:
            outcome.verdict = f"status tells other {' and '.join(different)} than undisturbed"
        else:
            outcome.verdict = difference(before.result, result)
        if outcome.is_right:
            with suppress(FileNotFoundError):
                result.unlink()


def _told(status: dict[str, Any]) -> dict[str, Any]:
    told = {name: status.get(name) for name in TOLD_ALIKE}
    told["progress"] = {name: value for name, value in status["progress"].items() if name not in OF_THE_MOMENT}
    return told


def difference(before: Path, after: Path) -> str:
    """ "identical" byte by byte; of workbooks also "cells identical"; else where they differ first."""
    if _digest(before) == _digest(after):
        return "identical"
    if before.suffix == ".xlsx":
        return _difference_of_cells(before, after) or "cells identical"
    return f"{after.name} differs from {before.name}: {after.stat().st_size:,} and {before.stat().st_size:,} bytes"


def _difference_of_cells(before: Path, after: Path) -> str:
    """Empty where every cell of every sheet has the same value and type."""
    old, new = python_calamine.load_workbook(str(before)), python_calamine.load_workbook(str(after))
    if old.sheet_names != new.sheet_names:
        return f"{after.name} has the sheets {new.sheet_names}, not {old.sheet_names}"
    for name in old.sheet_names:
        rows, others = (book.get_sheet_by_name(name).to_python() for book in (old, new))
        if len(rows) != len(others):
            return f"{after.name}, {name}: {len(others):,} rows, not {len(rows):,}"
        for number, (row, other) in enumerate(zip(rows, others, strict=True), 1):
            if row != other or list(map(type, row)) != list(map(type, other)):
                return f"{after.name}, {name}, row {number}: {other}, not {row}"
    return ""


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
