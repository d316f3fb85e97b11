"""Builds the parts once per process. Every part can be handed in instead; nothing is opened before its first use."""

from collections.abc import Mapping
from dataclasses import dataclass

from config import Settings
from services.bulk_job import BulkJobs
from services.bulk_service import BulkService
from services.customer_value import CustomerValues
from services.dispatcher import Dispatcher
from services.health_service import HealthService
from services.insights import Insights
from services.job_folders import JobFolders
from services.job_runner import JobRunner, Work
from services.job_store import JobStore
from services.job_table import CONVERT, NOTIFY, READ, REFRESH, SAMPLE, SCORE, TRAIN, WRITE
from services.language_model import LanguageModel
from services.model_pruning import MODEL_CACHE, ModelPruning
from services.model_registry import ModelRegistry
from services.model_service import ModelService
from services.model_versions import ModelVersions
from services.object_store import ObjectStore
from services.prediction_service import PredictionService
from services.queue import JobQueue
from services.retention import Retention
from services.segment_insight import SegmentInsights
from services.step_store import StepStore
from services.stores import open_job_tables, open_object_store
from services.sum_service import SumService
from services.training_jobs import TrainingJobs
from services.training_service import TrainingService
from services.uploads import UploadLimits
from services.watchdog import Tidy, Watchdog
from services.webhooks import Webhooks


@dataclass(frozen=True)
class Services:
    """Everything that the edges, web and worker, may call."""

    settings: Settings
    predictions: PredictionService
    sums: SumService
    values: CustomerValues
    insights: SegmentInsights
    models: ModelService
    versions: ModelVersions
    bulk: BulkService
    trainings: TrainingService
    health: HealthService
    runner: JobRunner
    watchdog: Watchdog
    objects: ObjectStore
    registry: ModelRegistry
    store: JobStore
    steps: StepStore


def build_services(
    settings: Settings,
    queue: JobQueue,
    *,
    worker_id: str = "none",
    tables: tuple[JobStore, StepStore] | None = None,
    objects: ObjectStore | None = None,
    registry: ModelRegistry | None = None,
    language_model: LanguageModel | None = None,
) -> Services:
    """The parts, wired. worker_id: whose leases these are when jobs are run here."""
    store, steps = tables or open_job_tables(settings)
    objects = objects or open_object_store(settings)
    registry = registry or ModelRegistry(
        settings.models_dir, objects, settings.var_dir / MODEL_CACHE, is_shared=_is_shared(settings)
    )
    dispatcher = Dispatcher(queue, steps)
    webhooks = Webhooks(settings, steps)
    limits = UploadLimits(settings.max_upload_bytes, settings.max_rows, settings.max_columns)
    jobs = BulkJobs(store, steps, objects, registry, dispatcher, limits, settings.rows_per_chunk)
    insights = Insights(language_model or LanguageModel(settings))
    bulk = BulkService(store, objects, dispatcher, registry, webhooks, limits, settings.max_jobs_per_caller)
    folders = JobFolders(settings.var_dir, store)
    trainings = TrainingJobs(settings, folders, steps, objects, registry)
    pruning = ModelPruning.by_settings(settings, store, objects)
    tidying: list[Tidy] = [Retention(store, objects, settings.retention_days), folders, pruning]
    return Services(
        settings=settings,
        predictions=PredictionService(registry),
        sums=SumService(registry),
        values=CustomerValues(registry, insights),
        insights=SegmentInsights(registry, bulk, insights),
        models=ModelService(registry),
        versions=ModelVersions(settings.models_dir, registry, store),
        bulk=bulk,
        health=HealthService(steps, objects, queue, registry),
        trainings=TrainingService(store, dispatcher, settings.max_jobs_per_caller),
        runner=JobRunner(steps, dispatcher, worker_id, settings.lease_seconds, _work(jobs, trainings, webhooks)),
        watchdog=Watchdog(steps, queue, dispatcher, tidying),
        objects=objects,
        registry=registry,
        store=store,
        steps=steps,
    )


def _is_shared(settings: Settings) -> bool:
    """Whether other hosts may have the same object store: one below VAR_DIR is this host's alone."""
    return not settings.objects_dir.is_relative_to(settings.var_dir)


def _work(jobs: BulkJobs, trainings: TrainingJobs, webhooks: Webhooks) -> Mapping[str, Work]:
    """What is done for each kind of step."""
    return {
        READ: jobs.read,
        SCORE: jobs.score,
        WRITE: jobs.write,
        CONVERT: jobs.convert,
        NOTIFY: webhooks.deliver,
        TRAIN: trainings.train,
        SAMPLE: trainings.sample,
        REFRESH: trainings.refresh,
    }
