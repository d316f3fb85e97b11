"""The engine that features are built on: Ibis expressions run by DuckDB in this process."""

from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend


def open_engine(work_dir: Path | None = None, threads: int | None = None, memory_limit: str | None = None) -> Backend:
    """A fresh DuckDB behind Ibis; open one per thread, after any fork.

    work_dir: where tables larger than memory spill and where the database file lives; in memory when None.
    threads: None leaves DuckDB's default (all cores). memory_limit: as DuckDB writes it, e.g. "4GB".
    """
    settings: dict[str, object] = {"preserve_insertion_order": False}
    if threads is not None:
        settings["threads"] = threads
    if memory_limit is not None:
        settings["memory_limit"] = memory_limit
    if work_dir is None:
        return ibis.duckdb.connect(**settings)
    work_dir.mkdir(parents=True, exist_ok=True)
    settings["temp_directory"] = str(work_dir / "spill")
    database = work_dir / "engine.duckdb"
    for stale in (database, database.with_suffix(".duckdb.wal")):
        stale.unlink(missing_ok=True)
    return ibis.duckdb.connect(str(database), **settings)
