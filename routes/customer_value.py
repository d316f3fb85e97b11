"""A customer's value from six numbers, over HTTP."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import services
from routes.insight_messages import ValueAnswer, ValueRequest
from routes.messages import EVERYWHERE, ErrorAnswer, answer

value_api = APIBlueprint(
    "customer_value",
    __name__,
    abp_tags=[Tag(name="prediction")],
    abp_responses={**EVERYWHERE, 413: ErrorAnswer, 415: ErrorAnswer, 503: ErrorAnswer},
)


@value_api.post("/predict_customer_value", summary="A customer's value from six numbers", responses={200: ValueAnswer})
def predict_customer_value(body: ValueRequest) -> Response:
    """Predicted spend, chance of a purchase, segment, an insight and what to do, of a customer known or not.

    The insight is worded by a language model where one is configured, else or whenever that fails by rules.
    """
    return answer(ValueAnswer, services().values.predict(body.as_sent()))
