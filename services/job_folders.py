"""Folders of this host that jobs work in: one for each attempt at a step, gone when it ends.

They stand in `pipeline/` below VAR_DIR, called `<job_id>-<fence>`. What a killed worker leaves there goes with the next attempt
on this host, or when somebody tidies up. Light to import: the watchdog does the latter.
"""

import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.errors import UnknownJob
from services.job_store import JobStore
from services.job_table import OPEN, Lease
from services.object_store import named_failures

log = logging.getLogger(__name__)

NAME = re.compile(r"([0-9a-f]{32})-\d+")
KEPT = "the working files of trainings"
ROOM = "Make room on the disk of VAR_DIR"


class JobFolders:
    """The working folders of jobs, and their end."""

    def __init__(self, var_dir: Path, store: JobStore) -> None:
        self._root = var_dir / "pipeline"
        self._store = store

    @contextmanager
    def of(self, lease: Lease) -> Iterator[Path]:
        """An empty folder for whoever holds the step, removed when the block ends, with those of earlier attempts.

        Raises StorageFull or ObjectStoreUnavailable where it cannot be made.
        """
        self._remove_earlier(lease)
        folder = self._root / f"{lease.job_id}-{lease.fence}"
        with named_failures(KEPT, ROOM):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """Removes the folders of jobs that are over or not there any more. Raises JobStoreUnavailable."""
        for folder, job_id in self._folders():
            if not self._is_open(job_id):
                shutil.rmtree(folder, ignore_errors=True)
                log.info("working folder removed", extra={"job_id": job_id})

    def _remove_earlier(self, lease: Lease) -> None:
        for folder, job_id in self._folders():
            if job_id == lease.job_id and int(folder.name.rpartition("-")[2]) < lease.fence:
                shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[tuple[Path, str]]:
        """Each with the id of its job; what else stands there is a person's."""
        if not self._root.is_dir():
            return []
        found = [(path, NAME.fullmatch(path.name)) for path in sorted(self._root.iterdir())]
        return [(path, match[1]) for path, match in found if match and path.is_dir()]

    def _is_open(self, job_id: str) -> bool:
        try:
            return self._store.get(job_id).status in OPEN
        except UnknownJob:
            return False
