"""One run per folder: a lock that the operating system gives back when its last holder is gone."""

import fcntl
import os
import time
from pathlib import Path

from running.lifeline import lives

LOOK_EVERY_SECONDS = 0.1


class AlreadyRunning(Exception):
    """Another run holds the folder."""


class RunLock:
    """The lock file of a folder; it holds the process id of the run, for people and for the message of a second run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = -1

    @property
    def descriptor(self) -> int:
        """For a process that must keep the lock after this one is gone."""
        return self._file

    def take(self, patience_seconds: float = 8.0) -> None:
        """Takes the lock; waits only while the parts of a run that has died are still being ended.

        Raises AlreadyRunning with the process id of the other run.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + patience_seconds
        while not self._try():
            holder = os.pread(self._file, 32, 0).decode().strip()
            if (holder.isdigit() and lives(int(holder))) or time.monotonic() > deadline:
                self.release()
                raise AlreadyRunning(holder)
            time.sleep(LOOK_EVERY_SECONDS)
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Gives it back; the file stays, empty of meaning."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _try(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
