"""What is kept for how long: jobs that ended long ago go with all their files, and files without a job go too."""

import logging

from services.errors import JobInProgress, UnknownJob
from services.job_keys import clear_chunks
from services.job_store import JobStore
from services.object_store import ObjectStore

log = logging.getLogger(__name__)

SECONDS_PER_DAY = 86_400.0
ORPHAN_SECONDS = 3600.0
"""A job is recorded after its file is stored, and deleted before: files without a job may just be between the two."""

UNFINISHED_SECONDS = 86_400.0
LEFT_BEHIND_SECONDS = 86_400.0
"""Whoever completed a job removes its chunks; he may die in between, or another come too late with a part. For so long after
that somebody looks."""
IDS_PER_QUESTION = 500


class Retention:
    """Removes what is older than it is to be; any number of processes may do so at once."""

    def __init__(self, store: JobStore, objects: ObjectStore, days: float) -> None:
        self._store = store
        self._objects = objects
        self._days = days

    def tidy(self) -> None:
        """Removes jobs whose time is over (0 days: never), files without a job, chunks and parts of which the result is made, and
        what was being written when a process died.

        Raises what the stores raise.
        """
        if self._days > 0:
            for job_id in self._store.ended_before(self._days * SECONDS_PER_DAY):
                self._remove(job_id)
        self._remove_orphans()
        for job_id in self._store.done_with_all_rows(LEFT_BEHIND_SECONDS):
            clear_chunks(self._objects, job_id)
        self._objects.forget_unfinished(UNFINISHED_SECONDS)

    def _remove(self, job_id: str) -> None:
        try:
            self._store.delete(job_id)
        except (JobInProgress, UnknownJob):  # its result is being converted, or another was quicker
            return
        self._objects.delete_below(job_id)
        log.info("job deleted after its time", extra={"job_id": job_id, "retention_days": self._days})

    def _remove_orphans(self) -> None:
        """Only of folders that are no job's are the files looked at: there may be many kept ones, on a slow disk."""
        folders = self._objects.folders()
        for start in range(0, len(folders), IDS_PER_QUESTION):
            asked = folders[start : start + IDS_PER_QUESTION]
            for job_id in sorted(set(asked) - self._store.known(asked)):
                if (self._objects.seconds_since_written(job_id) or 0.0) > ORPHAN_SECONDS:
                    self._objects.delete_below(job_id)
                    log.info("files without a job deleted", extra={"job_id": job_id})
