"""Predictions over HTTP, one or many."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.messages import (
    EVERYWHERE,
    BatchAnswer,
    BatchQuery,
    BatchRequest,
    ErrorAnswer,
    PredictionAnswer,
    PredictQuery,
    PredictRequest,
    answer,
)

prediction_api = APIBlueprint(
    "prediction",
    __name__,
    abp_tags=[Tag(name="prediction")],
    abp_responses={**EVERYWHERE, 413: ErrorAnswer, 415: ErrorAnswer, 503: ErrorAnswer},
)


@prediction_api.post(
    "/predict", summary="One customer's next 30 days", responses={200: PredictionAnswer, 404: ErrorAnswer}
)
def predict(body: PredictRequest, query: PredictQuery) -> Response:
    """What a known customer will spend in the 30 days from `as_of` on, in total and per category; with `explain`, why."""
    return answer(PredictionAnswer, services().predictions.predict(body.as_sent(), query.explain))


@prediction_api.post("/predict/batch", summary="Many customers at once", responses={200: BatchAnswer})
def predict_batch(body: BatchRequest, query: BatchQuery) -> Response:
    """One entry per id in the order of the request; an id that is not known has an error in its place."""
    return answer(BatchAnswer, services().predictions.predict_batch(body.root, query.explain))
