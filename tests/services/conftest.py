"""The job table on both databases that it may be in; and for bulk jobs: services that cut files into small chunks, an upload, and one step at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from services import job_runner
from services.bootstrap import Services, build_services
from services.bulk_service import Caller
from services.database import open_engine
from services.job_table import Job
from services.uploads import UploadOptions
from tests.services.job_tables import TABLES, Bench, Clock

SMALL_CHUNK = 7


def patient(services: Services) -> Services:
    """Its runner stays with a job to the end, however slow the machine is."""
    services.runner._seconds_per_message = 600.0
    return services


@pytest.fixture
def services(services: Services) -> Services:
    return patient(services)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """An empty job table on SQLite, then on Postgres."""
    if request.param == "sqlite":
        clock = Clock(open_engine(f"sqlite:///{tmp_path / 'jobs.sqlite3'}"))
    else:
        engine = open_engine(request.getfixturevalue("postgres_url"))
        with engine.begin() as connection:
            for table in TABLES:
                connection.execute(sa.text(f"DROP TABLE IF EXISTS {table} CASCADE"))
        clock = Clock(engine)
    yield Bench(clock)
    clock.close()


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
    return patient(build_services(small, queue, worker_id="worker-7", tables=(services.store, services.steps)))


@pytest.fixture
def no_waits(monkeypatch) -> tuple[float, ...]:
    """A step that is put off since the object store was away can be claimed again at once."""
    waits = (0.0,) * len(job_runner.AWAY_WAITS_SECONDS)
    monkeypatch.setattr(job_runner, "AWAY_WAITS_SECONDS", waits)
    return waits


@pytest.fixture
def one_step(chunked, monkeypatch) -> Callable[[str], None]:
    """Does the next step of a job that can be claimed, in small chunks, and no other."""
    monkeypatch.setattr(chunked.runner, "_seconds_per_message", -1.0)
    return chunked.runner.run
