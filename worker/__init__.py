"""The queue's edge. `celery -A worker worker` finds the Celery app here; it is built when asked for, not on import."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    from worker.celery_app import running_app

    return running_app()
