"""Files of customers over HTTP: a template, a preview, and the upload that starts a job."""

from typing import Any

from flask import Response, current_app, g
from flask_openapi3 import APIBlueprint, Tag

from routes.bulk_messages import (
    PreviewAnswer,
    PreviewQuery,
    TemplateQuery,
    UploadAnswer,
    UploadForm,
    UploadHeaders,
    UploadQuery,
)
from routes.context import caller, services
from routes.messages import EVERYWHERE, ErrorAnswer, answer
from services.bulk_service import estimated_seconds, media_type_of
from services.job_table import OPEN, Job
from services.uploads import UploadOptions

BULK_TAG = Tag(name="bulk jobs")
BULK_RESPONSES: Any = {**EVERYWHERE, 503: ErrorAnswer}
QUEUED_MESSAGE = "The file is accepted; the job is in the queue."
WAITING_MESSAGE = "The file is accepted and the job is recorded. The queue is away; the job runs when it is back."
CLOCKS_APART_SECONDS = 2.0
"""A job has the time of the database."""
REPLAYED_MESSAGE = "This file was accepted before under the same Idempotency-Key; this is the job of then."


def file_of(*formats: str) -> dict[str, Any]:
    """The documentation of an answer that is a file."""
    schema = {"type": "string", "format": "binary"}
    return {"content": {media_type_of(name).split(";")[0]: {"schema": schema} for name in formats}}


bulk_api = APIBlueprint("bulk", __name__, url_prefix="/bulk", abp_tags=[BULK_TAG], abp_responses=BULK_RESPONSES)


@bulk_api.get("/template", summary="A file to fill in", responses={200: file_of("csv", "xlsx")})
def template(query: TemplateQuery) -> Response:
    """customer_id, customer_name, notes, with five customers that exist."""
    content = services().bulk.template(query.format)
    response = current_app.response_class(content, content_type=media_type_of(query.format))
    response.headers.set("Content-Disposition", "attachment", filename=f"bulk_template.{query.format}")
    return response


@bulk_api.post(
    "/preview",
    summary="What would be read from a file",
    responses={200: PreviewAnswer, 413: ErrorAnswer, 415: ErrorAnswer},
)
def preview(form: UploadForm, query: PreviewQuery) -> Response:
    """How the file is read, its rows, duplicates and unknown ids. Nothing is kept, and no job is started."""
    return answer(PreviewAnswer, services().bulk.preview(*form.received(), query.sheet))


@bulk_api.post(
    "/predict",
    summary="Predict for a file of customers",
    responses={202: UploadAnswer, 409: ErrorAnswer, 413: ErrorAnswer, 415: ErrorAnswer, 429: ErrorAnswer},
)
def upload(form: UploadForm, query: UploadQuery, header: UploadHeaders) -> Response:
    """Takes a file, answers at once, and predicts in the background.

    With an Idempotency-Key that was used before: the same job with `Idempotency-Replayed: true`, or 409 for another file.
    """
    options = UploadOptions(query.sheet, header.idempotency_key, query.webhook_url, query.high_value_over)
    job = services().bulk.upload(*form.received(), caller(), options)
    replayed = is_replayed(job)
    content = {
        "job_id": job.job_id,
        "status": job.status,
        "metadata": job.metadata,
        "message": _message(job, replayed),
        "estimated_time_seconds": estimated_seconds(job) if job.status in OPEN else 0,
        "check_status_url": f"/bulk/status/{job.job_id}",
        "download_url": f"/bulk/download/{job.job_id}",
        "events_url": f"/bulk/events/{job.job_id}",
        "cancel_url": f"/bulk/cancel/{job.job_id}",
    }
    response = answer(UploadAnswer, content, 202)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def is_replayed(job: Job) -> bool:
    """Whether the job is one of an earlier request, under the same Idempotency-Key."""
    return job.request_id != g.request_id or job.created_at < g.began_at - CLOCKS_APART_SECONDS


def _message(job: Job, replayed: bool) -> str:
    if replayed:
        return REPLAYED_MESSAGE
    return QUEUED_MESSAGE if job.enqueued_at is not None else WAITING_MESSAGE
