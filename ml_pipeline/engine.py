"""The engine that features are built on: Ibis expressions run by DuckDB in this process."""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ibis
from ibis.backends.duckdb import Backend

from ml_pipeline.turns import LOCK_FILE, taking_turns

ENGINE_PREFIX = "engine-"
ENGINE_SHARE = 0.5
"""Of a command's memory: matrices and boosters need the rest."""


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


@contextmanager
def engine_in(parent: Path, threads: int | None = None, memory_mb: int | None = None) -> Iterator[Backend]:
    """An engine in a folder of its own below `parent`, which goes when the work is over.

    memory_mb: of the whole command; the engine takes half of it. The folders of processes that were killed go first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with taking_turns(parent):
        _sweep(parent)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=ENGINE_PREFIX))
        held = (folder / LOCK_FILE).open("w")
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with held:
            engine = open_engine(folder, threads, f"{int(memory_mb * ENGINE_SHARE)}MB" if memory_mb else None)
            try:
                yield engine
            finally:
                engine.disconnect()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Takes away the folders of engines whose process is gone: nobody holds their lock."""
    for folder in parent.glob(f"{ENGINE_PREFIX}*"):
        try:
            with (folder / LOCK_FILE).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # held by a process at work, or no folder of an engine
