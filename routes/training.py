"""Trainings, sample tables and data refreshes over HTTP: each is a job, watched as all others (bulk_jobs.py)."""

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint, Tag

from routes.bulk_messages import UploadHeaders
from routes.bulk_prediction import is_replayed
from routes.context import caller, services
from routes.messages import EVERYWHERE, ErrorAnswer, answer
from routes.training_messages import RefreshQuery, SampleQuery, TrainingStarted, TrainPath, TrainQuery
from services.job_table import SAMPLE_DATA, Job
from services.training_service import Options

RESPONSES: Any = {
    **EVERYWHERE,
    202: TrainingStarted,
    409: ErrorAnswer,
    429: ErrorAnswer,
    503: ErrorAnswer,
}
QUEUED_MESSAGE = "The job is in the queue."
WAITING_MESSAGE = "The job is recorded. The queue is away; the job runs when it is back."
REPLAYED_MESSAGE = "This was asked for before under the same Idempotency-Key; this is the job of then."

training_api = APIBlueprint("training", __name__, abp_tags=[Tag(name="training and data")], abp_responses=RESPONSES)


@training_api.post("/train/<model_type>", summary="Learn from the tables anew")
def train(path: TrainPath, query: TrainQuery, header: UploadHeaders) -> Response:
    """Trains the models of one algorithm, or of all, for every target, judges them on days they have not seen, and lets them
    serve if they beat what serves. One training at a time is under way; others wait for their turn."""
    return _started(query.options(path.model_type), header)


@training_api.post("/generate-sample-data", summary="Tables of a shop that does not exist")
def generate_sample_data(query: SampleQuery, header: UploadHeaders) -> Response:
    """A zip of CSV files to download. The tables that serve are not touched."""
    return _started(query.options, header)


@training_api.post("/data/refresh", summary="Read the tables anew")
def refresh_data(query: RefreshQuery, header: UploadHeaders) -> Response:
    """Describes every customer by the tables as they are now, with the model that serves: a later `as_of`, no training."""
    return _started(query.options, header)


def _started(options: Options, header: UploadHeaders) -> Response:
    job = services().trainings.start(options, caller(), header.idempotency_key)
    replayed = is_replayed(job)
    content = {
        "job_id": job.job_id,
        "kind": job.kind,
        "status": job.status,
        "metadata": job.metadata,
        "message": REPLAYED_MESSAGE if replayed else _message(job),
        "check_status_url": f"/bulk/status/{job.job_id}",
        "events_url": f"/bulk/events/{job.job_id}",
        "cancel_url": f"/bulk/cancel/{job.job_id}",
    }
    if job.kind == SAMPLE_DATA:
        content["download_url"] = f"/bulk/download/{job.job_id}"
    response = answer(TrainingStarted, content, 202)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _message(job: Job) -> str:
    return QUEUED_MESSAGE if job.enqueued_at is not None else WAITING_MESSAGE
