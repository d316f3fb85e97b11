"""One process at a time where several may write into one folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = ".lock"


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Within it no other process is within it for the same folder, which must exist; waits for its turn.

    The system gives the turn back when the process ends, however it ends; the lock file stays, empty.
    """
    with (folder / LOCK_FILE).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
