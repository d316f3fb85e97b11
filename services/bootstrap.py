"""Builds the parts once per process. Every part can be handed in instead; nothing is opened before its first use."""

from dataclasses import dataclass

from config import Settings
from services.bulk_job import ROWS_PER_SLICE, BulkJobs
from services.bulk_service import BULK, CONVERSION, BulkService
from services.health_service import HealthService
from services.job_runner import JobRunner
from services.job_store import JobStore
from services.model_registry import ModelRegistry
from services.model_service import ModelService
from services.object_store import ObjectStore
from services.prediction_service import PredictionService
from services.queue import JobQueue
from services.stores import open_job_store, open_object_store
from services.sum_service import SumService
from services.watchdog import Watchdog


@dataclass(frozen=True)
class Services:
    """Everything that the edges, web and worker, may call."""

    settings: Settings
    predictions: PredictionService
    sums: SumService
    models: ModelService
    bulk: BulkService
    health: HealthService
    runner: JobRunner
    watchdog: Watchdog
    objects: ObjectStore
    store: JobStore


def build_services(
    settings: Settings,
    queue: JobQueue,
    *,
    worker_id: str = "none",
    store: JobStore | None = None,
    objects: ObjectStore | None = None,
    registry: ModelRegistry | None = None,
    rows_per_slice: int = ROWS_PER_SLICE,
) -> Services:
    """The parts, wired. worker_id: whose leases these are when jobs are run here."""
    store = store or open_job_store(settings)
    objects = objects or open_object_store(settings)
    registry = registry or ModelRegistry(settings.models_dir, objects, settings.var_dir / "models")
    jobs = BulkJobs(store, objects, registry, rows_per_slice)
    return Services(
        settings=settings,
        predictions=PredictionService(registry),
        sums=SumService(registry),
        models=ModelService(registry),
        bulk=BulkService(store, objects, queue, registry, settings.max_upload_bytes),
        health=HealthService(store, objects, queue, registry),
        runner=JobRunner(store, worker_id, settings.lease_seconds, {BULK: jobs.predict, CONVERSION: jobs.convert}),
        watchdog=Watchdog(store, queue, objects),
        objects=objects,
        store=store,
    )
