"""A caller of the bulk API that streams: no file is ever in memory."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests

BLOCK = 1 << 20
TIMEOUT = 60.0
ENDED = ("completed", "failed", "cancelled")


class UnexpectedAnswer(Exception):
    """The service answered what it should not: here with its words."""


class Cut(Exception):
    """The answer ended before its end."""


@dataclass
class Form:
    """A multipart form with one file, as `curl -F file=@...` sends it; `sent_at`: when its last byte was handed over."""

    path: Path
    sent_at: float = 0.0

    def __post_init__(self) -> None:
        self.boundary = uuid4().hex
        disposition = f'Content-Disposition: form-data; name="file"; filename="{self.path.name}"'
        self._head = f"--{self.boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        self._tail = f"\r\n--{self.boundary}--\r\n".encode()

    def __len__(self) -> int:
        return len(self._head) + self.path.stat().st_size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        with self.path.open("rb") as stream:
            while block := stream.read(BLOCK):
                yield block
        yield self._tail
        self.sent_at = time.monotonic()


class BulkClient:
    """One caller. Every method raises requests.RequestException or Cut where the connection breaks, and
    UnexpectedAnswer with the status and the words of any other answer than the good one."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = requests.Session()

    def upload(self, form: Form, key: str | None = None) -> str:
        """The job id that a file was given; with the same key again, the same id."""
        headers = {"Content-Type": f"multipart/form-data; boundary={form.boundary}"}
        if key is not None:
            headers["Idempotency-Key"] = key
        answer = self._session.post(f"{self._url}/bulk/predict", data=form, headers=headers, timeout=TIMEOUT)
        return str(_content(answer, 202)["job_id"])

    def status(self, job_id: str) -> dict[str, Any]:
        """What /bulk/status says."""
        return _content(self._session.get(f"{self._url}/bulk/status/{job_id}", timeout=TIMEOUT), 200)

    def await_end(
        self, job_id: str, look: Callable[[dict[str, Any]], float], seconds: float = 1200.0
    ) -> dict[str, Any]:
        """The status that a job ended with. look: is shown each status, says how many seconds to wait before the next."""
        deadline = time.monotonic() + seconds
        while (status := self.status(job_id))["status"] not in ENDED:
            if time.monotonic() > deadline:
                raise UnexpectedAnswer(f"job {job_id} has not ended after {seconds:g} s: {json.dumps(status)}")
            time.sleep(look(status))
        look(status)
        return status

    def download(self, job_id: str, path: Path) -> int:
        """Writes the result to `path`; its size in bytes."""
        with self._session.get(f"{self._url}/bulk/download/{job_id}", stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code != 200:
                _content(answer, 200)
            with path.open("wb") as stream:
                for block in answer.iter_content(BLOCK):
                    stream.write(block)
            size, told = path.stat().st_size, int(answer.headers["Content-Length"])
        if size != told:
            raise Cut(f"{size:,} of {told:,} bytes of {path.name}")
        return size

    def jobs(self) -> list[str]:
        """The ids of all jobs of the caller, page by page."""
        found: list[str] = []
        query: dict[str, str] = {"limit": "100"}
        while True:
            page = _content(self._session.get(f"{self._url}/bulk/jobs", params=query, timeout=TIMEOUT), 200)
            found += [str(job["job_id"]) for job in page["jobs"]]
            if not page.get("next_cursor"):
                return found
            query["cursor"] = str(page["next_cursor"])


def _content(answer: requests.Response, expected: int) -> dict[str, Any]:
    if answer.status_code != expected:
        words = re.sub(r"\s+", " ", answer.text)[:500]
        raise UnexpectedAnswer(f"{answer.request.method} {answer.request.path_url}: {answer.status_code} {words}")
    return dict(answer.json())
