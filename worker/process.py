"""The services of one pool process, built after the fork and once."""

from functools import cache

from config import load_settings
from services.bootstrap import Services, build_services
from worker.identity import process_id
from worker.queue import CeleryQueue


@cache
def services() -> Services:
    """The parts of this pool process; its leases are in its own name, below the worker's."""
    settings = load_settings()
    return build_services(settings, CeleryQueue(settings), worker_id=process_id())
