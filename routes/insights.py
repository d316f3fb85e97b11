"""Insights into many customers, over HTTP."""

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.context import caller, services
from routes.insight_messages import GroupAnswer, GroupRequest
from routes.messages import EVERYWHERE, ErrorAnswer, answer

insights_api = APIBlueprint(
    "insights",
    __name__,
    abp_tags=[Tag(name="prediction")],
    abp_responses={**EVERYWHERE, 413: ErrorAnswer, 415: ErrorAnswer, 503: ErrorAnswer},
)


@insights_api.post(
    "/insights/segment",
    summary="What stands out in many customers",
    responses={200: GroupAnswer, 404: ErrorAnswer, 409: ErrorAnswer},
)
def segment_insight(body: GroupRequest) -> Response:
    """What a list of customers, a segment, everyone or a completed bulk job comes to, in words, and what to do first.

    404 where nobody of them is known (NoCustomers) or the job is none of yours; 409 while a job is not completed. The insight is
    worded by a language model where one is configured, else or whenever that fails by rules.
    """
    return answer(GroupAnswer, services().insights.of(body.as_sent(), caller()))
