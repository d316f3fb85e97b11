"""The schema of the job table, step by step, and how a process brings a database up to date before it uses it."""

from pathlib import Path

import sqlalchemy as sa

HEAD = "0003"
"""The newest step, known without loading Alembic: a database that is up to date costs one query."""
LOCK_ID = 7_305_911
"""Any number, the same everywhere: the advisory lock under which Postgres is migrated."""


def migrate(writes: sa.Engine) -> None:
    """Applies the steps that are missing. Safe to call from many processes at once: they take turns.

    `writes` begins its transactions as writers (SQLite: BEGIN IMMEDIATE), so that the lock is held before the look.
    """
    with writes.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with writes.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK_ID})
        if _revision(connection) != HEAD:
            _upgrade(connection)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
