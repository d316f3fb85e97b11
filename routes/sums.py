"""Sums over many customers, over HTTP."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.messages import EVERYWHERE, ErrorAnswer, SumAnswer, SumRequest, answer

sums_api = APIBlueprint(
    "sums",
    __name__,
    abp_tags=[Tag(name="prediction")],
    abp_responses={**EVERYWHERE, 413: ErrorAnswer, 415: ErrorAnswer, 503: ErrorAnswer},
)


@sums_api.post("/predict/sum", summary="Many customers' next 30 days together", responses={200: SumAnswer})
def predict_sum(body: SumRequest) -> Response:
    """What a list of customers, a segment or everyone will spend together, with an interval of the sum.

    The interval is not the sum of the customers' own: their errors partly cancel out, and partly move together.
    """
    return answer(SumAnswer, services().sums.sum(body.as_sent()))
