"""Workbooks and Parquet files, read by a process of its own, which a hostile file may end without ending this one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from ml_pipeline import errors
from ml_pipeline.errors import CustomerFileError, ReaderLost, TooLargeToOpen
from ml_pipeline.reader_process import BATCH, too_large
from ml_pipeline.reading_cost import is_cheap

MEMORY_BYTES = 1_408 << 20
"""Private memory of the process; code and shared libraries come on top."""
CHEAP_MEMORY_BYTES = 512 << 20
"""Of one that reads a small file: several may be at it at the same time, while their senders wait."""
ENDED_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE}
"""Signals by which someone ends a process; by all others, the kernel ends it for what it does."""
GRACE_SECONDS = 5
KEPT_VARIABLES = {"PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "TMPDIR", "TZ", "VIRTUAL_ENV"}


class IsolatedRows:
    """A file that another process is reading: first what was found on opening it, then its rows. Use it in a `with` block."""

    def __init__(
        self,
        path: Path,
        file_format: str,
        saw: Callable[[int], None],
        *,
        columns_limit: int,
        sheet: str | None = None,
        rows_per_chunk: int = 0,
    ) -> None:
        """rows_per_chunk 0: only the description."""
        self._saw = saw
        self._memory = CHEAP_MEMORY_BYTES if is_cheap(path) else MEMORY_BYTES
        request = {
            "path": str(path.resolve()),
            "format": file_format,
            "sheet": sheet,
            "rows_per_chunk": rows_per_chunk,
            "columns_limit": columns_limit,
            "memory": self._memory,
            "parent": os.getpid(),
        }
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "ml_pipeline.reader_process", json.dumps(request)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        assert self._process.stdout is not None
        self._output: IO[bytes] = self._process.stdout

    @property
    def process_id(self) -> int:
        """Of the process that reads."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._output.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def opened(self) -> Mapping[str, Any]:
        """header; for a workbook sheet and sheets; for Parquet rows. Raises a CustomerFileError, ReaderLost."""
        while True:
            news = self._frame()
            if isinstance(news, dict) and "opened" in news:
                return dict(news["opened"])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, once `opened` has answered. Raises a CustomerFileError, ReaderLost."""
        while True:
            frame = self._frame()
            if isinstance(frame, pa.RecordBatch):
                yield frame
            elif "done" in frame:
                return

    def _frame(self) -> pa.RecordBatch | dict[str, Any]:
        head = self._output.read(9)
        payload = self._output.read(int.from_bytes(head[1:], "big")) if len(head) == 9 else b""
        if len(head) < 9 or len(payload) < int.from_bytes(head[1:], "big"):
            raise self._ending()
        if head[:1] == BATCH:
            with pa.ipc.open_stream(payload) as stream:
                return stream.read_next_batch()
        news: dict[str, Any] = json.loads(payload)
        if "error" in news:
            raise _error_named(news["error"])(news["message"])
        if "fault" in news:
            raise ReaderLost(f"The process that read the file met an error of its own: {news['fault']}.")
        if "saw" in news:
            self._saw(news["saw"])
        return news

    def _ending(self) -> Exception:
        """Why the process ended in the middle of its work."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        if code < 0 and -code not in ENDED_FROM_OUTSIDE:
            return TooLargeToOpen(too_large(self._memory))
        return ReaderLost(f"The process that read the file was ended before it was done (exit code {code}).")


def _error_named(name: str) -> type[CustomerFileError]:
    found = getattr(errors, name)
    assert issubclass(found, CustomerFileError)
    return found


def _environment() -> dict[str, str]:
    """Nothing of this process but where programs and libraries are: a file that gets hold of the reader finds no secret."""
    kept = {name: value for name, value in os.environ.items() if name in KEPT_VARIABLES}
    package = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": package, "OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
