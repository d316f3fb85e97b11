"""The events of a bulk job over HTTP: server-sent events, as the HTML standard has them (section 9.2)."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from flask import Response, current_app, stream_with_context
from flask_openapi3 import APIBlueprint

from routes.bulk_jobs import job_state
from routes.bulk_messages import JobPath, LastEventHeaders
from routes.bulk_prediction import BULK_RESPONSES, BULK_TAG
from routes.context import caller, event_slots, is_stopping, services
from routes.job_messages import AnyJobState
from routes.messages import ErrorAnswer
from services.job_events import Event, event_of, events_of, has_been_told
from services.job_table import Job

MEDIA_TYPE = "text/event-stream"
RECONNECT_MILLISECONDS = 500
POLL_MILLISECONDS = 3000
"""What a client waits that found all streams taken: it polls, by the same code and the same address."""
STREAM: Any = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}

events_api = APIBlueprint(
    "bulk_events", __name__, url_prefix="/bulk", abp_tags=[BULK_TAG], abp_responses=BULK_RESPONSES
)


@events_api.get(
    "/events/<job_id>",
    summary="The progress of a job as it happens",
    responses={200: STREAM, 204: {"description": "The end of the job was told already"}, 404: ErrorAnswer},
)
def events(path: JobPath, header: LastEventHeaders) -> Response:
    """Server-sent events: `progress` at each change, then `completed`, `failed` or `cancelled`.

    The stream ends after about 20 seconds; an EventSource connects again by itself and goes on. When too many streams are open,
    it has the state of now only, and asks to come again in 3 seconds.
    """
    who, seen, bulk = caller(), header.seen(), services().bulk
    job = bulk.status(path.job_id, who)
    if has_been_told(job, seen):
        return Response(status=204)
    slots = event_slots()
    if not slots.take():
        return _stream([event_of(job, _content(job), seen)], POLL_MILLISECONDS)
    going_on = events_of(lambda: bulk.status(path.job_id, who), _content, seen, is_stopping())
    response = _stream(going_on, RECONNECT_MILLISECONDS)
    response.call_on_close(slots.give_back)
    return response


def _content(job: Job) -> dict[str, Any]:
    return AnyJobState.model_validate(job_state(job)).root.model_dump(exclude_unset=True)


def _stream(happened: Iterable[Event | None], retry_milliseconds: int) -> Response:
    text = stream_with_context(_as_text(happened, retry_milliseconds))
    response = current_app.response_class(text, mimetype=MEDIA_TYPE)
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response


def _as_text(happened: Iterable[Event | None], retry_milliseconds: int) -> Iterator[str]:
    yield f"retry: {retry_milliseconds}\n\n"
    is_over = False
    for event in happened:
        is_over = event is not None and event.is_last
        yield ": nothing new\n\n" if event is None else _event_text(event)
    if not is_over:
        yield ": this stream ends here; connect again to go on\n\n"


def _event_text(event: Event) -> str:
    return f"event: {event.name}\nid: {event.number}\ndata: {json.dumps(event.content, ensure_ascii=False)}\n\n"
