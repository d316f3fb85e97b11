"""Thousands of damaged files, read by the pipeline's readers or sent to a running service. It prints what became of them.

`python -m benchmarks.fuzz_uploads [--files 2000] [--first 0]` reads them in processes that are watched: each file must be
read or refused by a named error; no process may crash, take too long or take too much memory.
`python -m benchmarks.fuzz_uploads --serve` starts a service of its own with two workers (Linux) and uploads them: no answer
may be a 5xx, every job must end, no process of the service may take too much memory.
`python -m benchmarks.fuzz_uploads --url http://127.0.0.1:5000` uploads them to a service that runs; nobody looks at its memory.
The exit code is 1 if anything of this did not hold. A file is a function of its number: a fault can be looked at again.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import requests

from benchmarks.bulk_memory import watched
from benchmarks.fuzz_files import mutated
from benchmarks.service_under_test import ServiceUnderTest
from ml_pipeline.customer_files import ids_of, open_rows
from ml_pipeline.errors import CustomerFileError
from tests.ml_pipeline.toy_models import write_toy_pair

MEMORY_LIMIT_MB = 1536
FILE_SECONDS = 60.0
JOBS_SECONDS = 900.0
ROWS_PER_CHUNK = 25
AT_ONCE = 2
CUSTOMERS = [f"C{number:05}" for number in range(40)]
SETTINGS = {"FLASK_ENV": "testing", "ALLOW_ANONYMOUS": "1", "ROWS_PER_CHUNK": "25", "MAX_JOBS_PER_CALLER": "100000"}
ENDED = ("completed", "failed", "cancelled")
READ, UNNAMED, CRASHED, TOO_SLOW, STUCK = "read", "unnamed", "crashed", "too slow", "stuck"


@dataclass
class Outcomes:
    """What became of the files, by the name of the seed; faults: the numbers of those of which something else became than may."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[tuple[int, str]] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, -1)
    memory_mb: int = 0

    def add(self, number: int, outcome: str, seconds: float = 0.0, fault: str | None = None) -> None:
        """One more file; fault: what is wrong with its outcome."""
        self.counts[mutated(number)[0], outcome] += 1
        self.slowest = max(self.slowest, (seconds, number))
        if fault is not None:
            self.faults.append((number, fault))

    @property
    def held(self) -> bool:
        """Whether nothing went wrong."""
        return not self.faults and self.memory_mb <= MEMORY_LIMIT_MB


# ---- the readers alone


def read_files(numbers: Sequence[int]) -> Outcomes:
    """Reads the files, AT_ONCE at a time, in processes that may crash."""
    outcomes = Outcomes()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda part: _read_part(list(numbers[part::AT_ONCE]), outcomes), range(AT_ONCE)):
            pass
    return outcomes


def _read_part(numbers: list[int], outcomes: Outcomes) -> None:
    while numbers:
        done = _read_until_crash(numbers, outcomes)
        numbers = numbers[done:]


def _read_until_crash(numbers: list[int], outcomes: Outcomes) -> int:
    """How many files are dealt with, the one at which the process ended included."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_read_all, args=(theirs, numbers), daemon=True)
    process.start()
    theirs.close()
    for done, number in enumerate(numbers, 1):
        try:
            if not ours.poll(FILE_SECONDS):
                outcomes.add(number, TOO_SLOW, FILE_SECONDS, TOO_SLOW)
                process.kill()
                return done
            outcome, seconds, fault, memory_mb = ours.recv()
        except EOFError:
            process.join()
            outcomes.add(number, CRASHED, fault=f"{CRASHED} (exit code {process.exitcode})")
            return done
        outcomes.add(number, outcome, seconds, fault)
        outcomes.memory_mb = max(outcomes.memory_mb, memory_mb)
    process.join()
    return len(numbers)


def _read_all(pipe: Connection, numbers: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "upload"
        for number in numbers:
            name, content = mutated(number)
            path.write_bytes(content)
            begun = time.monotonic()
            outcome, fault = _read(path, name)
            pipe.send((outcome, time.monotonic() - begun, fault, _peak_mb()))


def _read(path: Path, name: str) -> tuple[str, str | None]:
    try:
        shape, batches = open_rows(path, name, ROWS_PER_CHUNK)
        for batch in batches:
            ids_of(batch, shape)
    except CustomerFileError as problem:
        return type(problem).__name__, None
    except Exception as problem:  # noqa: BLE001 - what else a reader may raise is what is looked for
        return UNNAMED, f"{type(problem).__name__}: {problem}"[:200]
    return READ, None


def _peak_mb() -> int:
    """Of this process and of the largest of those that it started. (To its own ru_maxrss, Linux counts whom it was forked from.)"""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    own = next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), _maxrss(resource.RUSAGE_SELF))
    return max(own, _maxrss(resource.RUSAGE_CHILDREN)) >> 10


def _maxrss(whose: int) -> int:
    return resource.getrusage(whose).ru_maxrss


# ---- a running service


def upload_files(url: str, numbers: Sequence[int]) -> Outcomes:
    """Uploads the files, AT_ONCE at a time, and waits for all jobs to end."""
    outcomes = Outcomes()
    jobs: dict[str, int] = {}
    with requests.Session() as session, ThreadPoolExecutor(AT_ONCE) as pool:
        for number, answer in zip(numbers, pool.map(lambda one: _upload(session, url, one), numbers), strict=True):
            fault = f"{answer.status_code} {answer.text[:150]}" if answer.status_code >= 500 else None
            if answer.status_code == 202:
                jobs[str(answer.json()["job_id"])] = number
            else:
                name = answer.json().get("error", "?") if "json" in answer.headers.get("Content-Type", "") else "?"
                outcomes.add(number, f"{answer.status_code} {name}", answer.elapsed.total_seconds(), fault)
        for job_id, status in _ends(session, url, list(jobs)):
            error = status.get("error")
            told = error.get("error", "?") if isinstance(error, dict) else str(error or "").partition(":")[0]
            fault = STUCK if status["status"] not in ENDED else None
            outcomes.add(jobs[job_id], f"202 {status['status']} {told}".strip(), fault=fault)
    return outcomes


def _upload(session: requests.Session, url: str, number: int) -> requests.Response:
    name, content = mutated(number)
    while True:
        answer = session.post(f"{url}/bulk/predict", files={"file": (name, content)}, timeout=FILE_SECONDS)
        if answer.status_code != 429:
            return answer
        time.sleep(float(answer.headers.get("Retry-After", 1)))


def _ends(session: requests.Session, url: str, jobs: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Each job with the status in which it ended, or was when time was up."""
    deadline = time.monotonic() + JOBS_SECONDS
    for job_id in jobs:
        while True:
            status = session.get(f"{url}/bulk/status/{job_id}", timeout=FILE_SECONDS).json()
            if status["status"] in ENDED or time.monotonic() > deadline:
                yield job_id, status
                break
            time.sleep(0.2)


def serve_and_upload(numbers: Sequence[int]) -> Outcomes:
    """Uploads the files to a service of our own, whose memory is watched."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        write_toy_pair(Path(folder) / "models", CUSTOMERS)
        service = ServiceUnderTest(Path(folder) / "service", Path(folder) / "models", SETTINGS)
        with service.running(), watched(service) as memory:
            outcomes = upload_files(service.url, numbers)
        outcomes.memory_mb = max(memory.resident.values()) >> 20
    return outcomes


# ---- what is printed


def report(outcomes: Outcomes, seconds: float) -> str:
    """The table of outcomes by seed, then what went wrong."""
    seeds = sorted({seed for seed, _outcome in outcomes.counts})
    kinds = Counter[str]()
    for (_seed, outcome), count in outcomes.counts.items():
        kinds[outcome] += count
    lines = [f"{'outcome':32}{'all':>7}" + "".join(f"{seed:>17}" for seed in seeds)]
    lines += [
        f"{kind[:31]:32}{count:7}" + "".join(f"{outcomes.counts[seed, kind]:17}" for seed in seeds)
        for kind, count in kinds.most_common()
    ]
    lines.append(
        f"{kinds.total():,} files in {seconds:.0f} s; slowest {outcomes.slowest[0]:.1f} s (file {outcomes.slowest[1]}); "
        f"largest process {outcomes.memory_mb:,} MB (limit {MEMORY_LIMIT_MB:,} MB); faults: {len(outcomes.faults)}"
    )
    return "\n".join([*lines, *(f"  file {number}: {fault}" for number, fault in outcomes.faults[:50])])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000, help="how many files")
    parser.add_argument("--first", type=int, default=0, help="the number of the first")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="the running service that they are sent to; default: only the readers")
    where.add_argument("--serve", action="store_true", help="start a service, send them to it and watch its memory")
    options = parser.parse_args(arguments)
    numbers = range(options.first, options.first + options.files)
    begun = time.monotonic()
    if options.serve:
        outcomes = serve_and_upload(numbers)
    else:
        outcomes = upload_files(options.url, numbers) if options.url else read_files(numbers)
    sys.stdout.write(report(outcomes, time.monotonic() - begun) + "\n")
    return 0 if outcomes.held else 1


if __name__ == "__main__":
    raise SystemExit(main())
