"""Given to a worker by `-I`: its main thread never comes to an end once it is told to stop."""

import threading
from typing import Any

from celery import signals


@signals.worker_shutting_down.connect
def get_stuck(**_facts: Any) -> None:
    """As a connection can that never answers."""
    threading.Lock().acquire()
    while True:
        threading.Event().wait(3600)
