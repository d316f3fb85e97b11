"""Parts of the tests of bulk jobs: services that cut files into small chunks, an upload, and one step at a time."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from services.bootstrap import Services, build_services
from services.bulk_service import Caller
from services.job_table import Job
from services.uploads import UploadOptions

SMALL_CHUNK = 7


@pytest.fixture
def upload(services, tmp_path: Path, local: Caller) -> Callable[..., Job]:
    def send(
        content: str | bytes,
        name: str = "customers.csv",
        caller: Caller = local,
        options: UploadOptions | None = None,
        to: Services = services,
    ) -> Job:
        path = tmp_path / "received"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return to.bulk.upload(path, name, caller, options or UploadOptions())

    return send


@pytest.fixture
def chunked(settings, queue, services) -> Services:
    """The same service with a worker of its own that cuts files into chunks of seven rows."""
    small = replace(settings, rows_per_chunk=SMALL_CHUNK)
    return build_services(small, queue, worker_id="worker-7", tables=(services.store, services.steps))


@pytest.fixture
def one_step(chunked, monkeypatch) -> Callable[[str], None]:
    """Does the next step of a job that can be claimed, in small chunks, and no other."""
    monkeypatch.setattr(chunked.runner, "_seconds_per_message", -1.0)
    return chunked.runner.run
