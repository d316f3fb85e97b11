"""The database behind the job table: SQLite in one file, or Postgres, behind the same few lines of SQL."""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError

from services.errors import JobStoreUnavailable
from services.migrations import migrate

log = logging.getLogger(__name__)

BUSY_SECONDS = 10
POSTGRES_PATIENCE = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "options": "-c idle_in_transaction_session_timeout=10s -c lock_timeout=15s",
}
"""In the words of libpq: a server that is gone is noticed in seconds, not when TCP gives up. And it takes back the locks of
a process that froze in the middle of a transaction, before others that wait for them give up."""


def open_engine(url: str, pooled: bool = True) -> sa.Engine:
    """An engine for this process; open it after any fork.

    What is written stays out of its errors, and so of the log: file names and headers may be personal.
    pooled=False closes each connection at once, for a process that still forks children.
    """
    pool = {} if pooled else {"poolclass": sa.NullPool}
    if sa.make_url(url).get_backend_name() != "sqlite":
        patience = {"pool_pre_ping": True, "connect_args": POSTGRES_PATIENCE}
        return sa.create_engine(url, hide_parameters=True, **patience, **pool)
    database = sa.make_url(url).database
    if database is not None:
        Path(database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, hide_parameters=True, connect_args={"timeout": BUSY_SECONDS}, **pool)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver begins no transactions of its own: _begin_sqlite does
    connection.execute("PRAGMA foreign_keys=ON")
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:  # the switch to WAL does not wait for the busy timeout
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _begin_sqlite(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


class Database:
    """Transactions on a database that is brought up to date before its first use."""

    def __init__(self, engine: sa.Engine) -> None:
        self._reads = engine
        self._writes = engine.execution_options(writes=True)
        self._migrated = False

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only looks. Raises JobStoreUnavailable."""
        with _named_failures(self._reads):
            self._bring_up_to_date()
            with self._reads.connect() as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that holds the right to write from its beginning. Raises JobStoreUnavailable."""
        with _named_failures(self._reads):
            self._bring_up_to_date()
            with self._writes.begin() as connection:
                yield connection

    def now(self, connection: sa.Connection) -> float:
        """Seconds since 1970 by one clock: the database server's, where several hosts share it."""
        if connection.dialect.name == "postgresql":
            return float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return time.time()

    def _bring_up_to_date(self) -> None:
        if not self._migrated:
            migrate(self._writes)
            self._migrated = True

    def close(self) -> None:
        """Closes the connections that are open."""
        self._reads.dispose()


@contextmanager
def _named_failures(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as problem:
        raise _unavailable(engine, problem) from problem
    except DBAPIError as problem:
        if problem.connection_invalidated or type(problem) is DatabaseError:  # SQLite: not, or no longer, a database
            raise _unavailable(engine, problem) from problem
        raise


def _unavailable(engine: sa.Engine, problem: DBAPIError) -> JobStoreUnavailable:
    log.warning(
        "database unavailable",
        extra={"reason": str(problem.orig), "url": engine.url.render_as_string(hide_password=True)},
    )
    return JobStoreUnavailable(
        f"The database of the jobs ({engine.dialect.name}) does not answer ({type(problem.orig).__name__}). "
        "Check that it runs, that it can be written to and that DATABASE_URL is right, then try again."
    )
