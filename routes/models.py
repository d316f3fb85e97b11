"""Which model serves, over HTTP."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.messages import EVERYWHERE, ErrorAnswer, ModelInfo, ModelPerformance, answer
from routes.model_messages import ModelVersions, RollbackAnswer, RollbackRequest

models_api = APIBlueprint(
    "models", __name__, abp_tags=[Tag(name="model")], abp_responses={**EVERYWHERE, 503: ErrorAnswer}
)


@models_api.get("/model/info", summary="What is loaded", responses={200: ModelInfo})
def model_info() -> Response:
    """Bundle and snapshot, the features in order, and what each target is served by."""
    return answer(ModelInfo, services().models.info())


@models_api.get("/model/performance", summary="How good it was", responses={200: ModelPerformance})
def model_performance() -> Response:
    """The backtest on days that the model had not seen, beside the simple rules."""
    return answer(ModelPerformance, services().models.performance())


@models_api.get("/model/versions", summary="Which models there are", responses={200: ModelVersions})
def model_versions() -> Response:
    """Every bundle in the models folder or remembered by its pointer: what serves, what did before, and how good each is."""
    return answer(ModelVersions, services().versions.versions())


@models_api.post(
    "/model/rollback",
    summary="Back to an earlier model",
    responses={200: RollbackAnswer, 404: ErrorAnswer, 409: ErrorAnswer, 415: ErrorAnswer, 413: ErrorAnswer},
)
def roll_back(body: RollbackRequest) -> Response:
    """Has the model before this one serve, or the named one; it is loaded and checked before anything changes.

    The process that answers has changed over already, the others do within seconds; no request waits or fails meanwhile.
    """
    return answer(RollbackAnswer, services().versions.roll_back(body.bundle))
