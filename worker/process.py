"""The services of one worker process, built after the fork and once."""

from functools import cache

from config import load_settings
from services.bootstrap import Services, build_services
from worker.identity import worker_id
from worker.queue import CeleryQueue


@cache
def services() -> Services:
    """The parts of this pool process; its leases are in the name of the worker that it belongs to."""
    settings = load_settings()
    return build_services(settings, CeleryQueue(settings), worker_id=worker_id())
