"""Which model serves, over HTTP."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.messages import EVERYWHERE, ErrorAnswer, ModelInfo, ModelPerformance, answer

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
