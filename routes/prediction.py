"""Predictions over HTTP, one or many."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.messages import EVERYWHERE, ErrorAnswer, answer
from routes.prediction_messages import (
    BatchAnswer,
    BatchQuery,
    BatchRequest,
    PredictAnswer,
    PredictQuery,
    PredictRequest,
)

prediction_api = APIBlueprint(
    "prediction",
    __name__,
    abp_tags=[Tag(name="prediction")],
    abp_responses={**EVERYWHERE, 413: ErrorAnswer, 415: ErrorAnswer, 503: ErrorAnswer},
)


@prediction_api.post(
    "/predict", summary="One customer's next 30 days", responses={200: PredictAnswer, 404: ErrorAnswer}
)
def predict(body: PredictRequest, query: PredictQuery) -> Response:
    """What a customer will spend in the 30 days from `as_of` on. Describe him or her in one of three ways:

    by `customer_id`, where the purchases were in the tables; by `transactions`, all that was bought; or by a summary, any of
    its numbers. Transactions win over an id, and so does a summary; transactions and a summary together are refused.
    """
    return answer(PredictAnswer, services().predictions.predict(body.root, query.explain, query.options))


@prediction_api.post("/predict/batch", summary="Many customers at once", responses={200: BatchAnswer})
def predict_batch(body: BatchRequest, query: BatchQuery) -> Response:
    """One answer per entry in the order of the request; one that cannot be answered has an error in its place."""
    return answer(BatchAnswer, services().predictions.predict_batch(body.root, query.explain, query.options))
