"""Says how the service is: what answers, what does not and why, and how old its knowledge is."""

import datetime as dt
import logging
from collections.abc import Callable
from typing import Any

from ml_pipeline.errors import PipelineError
from ml_pipeline.schema import HORIZON_DAYS
from services.errors import ServiceError
from services.model_registry import ModelRegistry
from services.object_store import ObjectStore
from services.queue import JobQueue
from services.step_store import StepStore

log = logging.getLogger(__name__)

OK = "ok"
DEGRADED = "degraded"
UNAVAILABLE = "unavailable"
WORKER_SECONDS = 15.0
"""A worker that has not been heard of for so long does not count."""
NO_WORKER = (
    "no worker has been heard of in the last 15 seconds; jobs wait until one is started: celery -A worker worker"
)


class HealthService:
    """Asks every part. Predictions need bundle and snapshot only; all else being away makes the service degraded."""

    def __init__(self, steps: StepStore, objects: ObjectStore, queue: JobQueue, registry: ModelRegistry) -> None:
        self._steps = steps
        self._objects = objects
        self._queue = queue
        self._registry = registry

    def report(self) -> dict[str, Any]:
        """The whole report; `status` is unavailable when no prediction can be made, degraded when jobs cannot run."""
        model, facts = self._model()
        parts = {
            "model": model,
            "queue": _asked(self._queue.check),
            "workers": self._workers(),
            "job_store": _asked(lambda: self._steps.live_workers(0)),
            "object_store": _asked(self._objects.check),
        }
        away = [name for name, part in parts.items() if part["status"] != OK]
        status = OK if not away else UNAVAILABLE if model["status"] == UNAVAILABLE else DEGRADED
        return {"status": status, "degraded": away, **facts, **parts}

    def can_predict(self) -> dict[str, Any]:
        """Whether bundle and snapshot can serve: status ok, degraded (others than those that should) or unavailable, and why."""
        model, facts = self._model()
        return {**model, **facts}

    def _model(self) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            model = self._registry.serving()
        except PipelineError as problem:
            return {"status": UNAVAILABLE, "error": type(problem).__name__, "message": str(problem)}, {}
        age = (dt.datetime.now(dt.UTC).date() - model.as_of).days
        facts: dict[str, Any] = {
            "model_version": model.version,
            "as_of": model.as_of.isoformat(),
            "as_of_age_days": age,
        }
        facts["warnings"] = [_old(model.as_of, age)] if age >= HORIZON_DAYS else []
        part: dict[str, Any] = {"status": OK, "customers": model.snapshot.n_customers}
        return self._told_of_others(part, facts), facts

    def _told_of_others(self, part: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
        """With why another model than the one that serves should, where that is so."""
        refusals = self._registry.refusals()
        facts["warnings"] += [refusal.sentence for refusal in refusals]
        if refusals:
            part |= {"status": DEGRADED, "error": refusals[0].error.__name__, "message": refusals[0].sentence}
        if problem := self._registry.sharing_problem():
            sentence = f"models cannot be exchanged with other hosts: {problem}"
            facts["warnings"].append(sentence)
            part = {"error": "ModelsNotShared", "message": sentence, **part, "status": DEGRADED}
        return part

    def _workers(self) -> dict[str, Any]:
        try:
            live = self._steps.live_workers(WORKER_SECONDS)
        except ServiceError as problem:
            return _away(problem)
        if not live:
            return {"status": UNAVAILABLE, "count": 0, "message": NO_WORKER}
        return {"status": OK, "count": len(live), "queues": sorted({name for one in live for name in one.queues})}


def _old(as_of: dt.date, age: int) -> str:
    return (
        f"as_of is {as_of.isoformat()}, {age} days ago: the {HORIZON_DAYS} days that are predicted are over. "
        "Bring newer tables and train again."
    )


def _asked(question: Callable[[], object]) -> dict[str, Any]:
    try:
        question()
    except ServiceError as problem:
        return _away(problem)
    return {"status": OK}


def _away(problem: ServiceError) -> dict[str, Any]:
    return {"status": UNAVAILABLE, "error": type(problem).__name__, "message": str(problem)}
