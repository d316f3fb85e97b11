"""Which folders had the content that was sealed when all of it was last read, so that one process of a host reads for all.

A snapshot of a million customers is more than half a gigabyte: two seconds of reading and reckoning. What was found is kept
beside the models that this host has fetched; a file that was replaced or changed since counts as unread.
"""

import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from ml_pipeline.turns import taking_turns

FOLDER = "verified"


class VerifiedFiles:
    """What is known of this host's folders; without a place to keep it, each process reads for itself."""

    def __init__(self, home: Path | None) -> None:
        self._folder = None if home is None else home / FOLDER

    def check(self, folder: Path, names: Iterable[str], read: Callable[[Path], None]) -> None:
        """Calls `read` with the folder unless these files of it were read before and are the same; raises what it raises.

        One process of a host reads at a time; those that wait for it find that it is done.
        """
        if self._folder is None or not _is_made(self._folder):
            read(folder)
            return
        with taking_turns(self._folder):
            note, found = self._folder / f"{folder.name}.json", state_of(folder, names)
            if _noted(note) == found:
                return
            note.unlink(missing_ok=True)
            read(folder)
            with suppress(OSError):  # without a note the next one reads too
                note.write_text(json.dumps(found), "utf-8")


def state_of(folder: Path, names: Iterable[str]) -> list[list[str | int]]:
    """What tells that a file was replaced or changed, of each name in order. Raises FileNotFoundError."""
    states: list[list[str | int]] = [[str(folder)]]
    for name in sorted(names):
        found = os.stat(folder / name)
        states.append([name, found.st_ino, found.st_size, found.st_mtime_ns])
    return states


def _noted(note: Path) -> object:
    try:
        return json.loads(note.read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _is_made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
