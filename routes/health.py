"""What is here, and how it is."""

from flask import Response, current_app
from flask_openapi3 import APIBlueprint, Tag

from config import VERSION
from routes.context import services
from routes.messages import EVERYWHERE, Health, Index, Live, Ready, answer

NAME = "customer-spend-api"
health_api = APIBlueprint("health", __name__, abp_tags=[Tag(name="health")], abp_responses=dict(EVERYWHERE))


@health_api.get("/", summary="What is here", responses={200: Index})
def index() -> Response:
    """Name, version and every endpoint."""
    paths = current_app.paths  # type: ignore[attr-defined]
    endpoints = {
        f"{method.upper()} {path}": operation.summary
        for path, item in paths.items()
        for method in ("get", "post", "delete")
        if (operation := getattr(item, method)) is not None
    }
    content = {"name": NAME, "version": VERSION, "docs": "/docs", "openapi": "/openapi.json", "endpoints": endpoints}
    return answer(Index, content)


@health_api.get("/health", summary="How every part is", responses={200: Health, 503: Health})
def health() -> Response:
    """ok, degraded (predictions are made, jobs may wait) or unavailable (503), and each part with ok or why not."""
    report = services().health.report()
    return answer(Health, {"version": VERSION, **report}, 503 if report["status"] == "unavailable" else 200)


@health_api.get("/health/live", summary="Whether the process answers", responses={200: Live})
def live() -> Response:
    """For a supervisor: anything but 200 means restart."""
    return answer(Live, {"status": "ok"})


@health_api.get("/health/ready", summary="Whether predictions can be made", responses={200: Ready, 503: Ready})
def ready() -> Response:
    """For a load balancer: 503 only when bundle or snapshot cannot serve."""
    state = services().health.can_predict()
    return answer(Ready, state, 503 if state["status"] == "unavailable" else 200)
