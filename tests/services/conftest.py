"""The job table on both databases that it may be in."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.database import open_engine
from tests.services.job_tables import TABLES, Bench, Clock


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
