"""Opens the stores that the settings name. Light to import: a process that only passes jobs on needs nothing else."""

from config import Settings
from services.database import Database, open_engine
from services.job_store import JobStore
from services.object_store import FolderStore, ObjectStore
from services.step_store import StepStore


def open_job_tables(settings: Settings, pooled: bool = True) -> tuple[JobStore, StepStore]:
    """Both sides of the job table; pooled=False for a process that still forks. Nothing is connected before its first use."""
    database = Database(open_engine(settings.database_url, pooled))
    return JobStore(database), StepStore(database, settings.lease_seconds, settings.max_attempts)


def open_object_store(settings: Settings) -> ObjectStore:
    """Uploads, results and published models."""
    return FolderStore(settings.objects_dir)
