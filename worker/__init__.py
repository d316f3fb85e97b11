"""The queue's edge. `celery -A worker worker` finds the Celery app here; it is built when asked for, not on import."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celery import Celery

    app: Celery

# The celery command puts the working directory on the path for the import of this package and takes it away again; the
# rooms beside it are imported later.
sys.path.append(str(Path(__file__).resolve().parent.parent))


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'worker' has no attribute {name!r}")
    from worker.celery_app import running_app

    return running_app()
