"""The services of one pool process, built after the fork and once."""

import threading
from contextlib import suppress
from functools import cache

from celery import current_app

from config import load_settings
from ml_pipeline.errors import PipelineError
from services.bootstrap import Services, build_services
from services.job_table import BULK_QUEUE
from worker.identity import process_id
from worker.queue import CeleryQueue


@cache
def services() -> Services:
    """The parts of this pool process; its leases are in its own name, below the worker's."""
    settings = load_settings()
    built = build_services(settings, CeleryQueue(settings), worker_id=process_id())
    if BULK_QUEUE in current_app.amqp.queues.consume_from:  # steps of no other queue use a pair
        # beside the start, which must not take long: Celery ends processes that are not up in four seconds
        threading.Thread(target=_open_serving_pair, args=(built,), name="opening", daemon=True).start()
    return built


def _open_serving_pair(built: Services) -> None:
    """So that the first job finds the pair open; a host without models fetches those of its jobs."""
    with suppress(PipelineError):
        built.registry.open_ahead()
