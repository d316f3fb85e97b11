"""Bulk jobs over HTTP: upload, watch, download, delete."""

import datetime as dt
from typing import Any

from flask import Response, current_app, send_file
from flask_openapi3 import APIBlueprint, Tag

from routes.context import caller, services
from routes.messages import (
    EVERYWHERE,
    ConversionAnswer,
    DeleteAnswer,
    DownloadQuery,
    ErrorAnswer,
    JobList,
    JobPath,
    JobsQuery,
    JobStatus,
    TemplateQuery,
    UploadAnswer,
    UploadForm,
    answer,
)
from services.bulk_service import ConversionUnderWay, estimated_seconds, media_type_of
from services.job_store import COMPLETED, FAILED, Job

RETRY_SECONDS = 2
QUEUED_MESSAGE = "The file is accepted; the job is in the queue."
WAITING_MESSAGE = "The file is accepted and the job is recorded. The queue is away; the job runs when it is back."


def _file_of(*formats: str) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"}
    return {"content": {media_type_of(name).split(";")[0]: {"schema": schema} for name in formats}}


bulk_api = APIBlueprint(
    "bulk",
    __name__,
    url_prefix="/bulk",
    abp_tags=[Tag(name="bulk jobs")],
    abp_responses={**EVERYWHERE, 503: ErrorAnswer},
)


@bulk_api.get("/template", summary="A file to fill in", responses={200: _file_of("csv", "xlsx")})
def template(query: TemplateQuery) -> Response:
    """customer_id, customer_name, notes, with five customers that exist."""
    content = services().bulk.template(query.format)
    response = current_app.response_class(content, content_type=media_type_of(query.format))
    response.headers.set("Content-Disposition", "attachment", filename=f"bulk_template.{query.format}")
    return response


@bulk_api.post(
    "/predict",
    summary="Predict for a file of customers",
    responses={202: UploadAnswer, 413: ErrorAnswer, 415: ErrorAnswer},
)
def upload(form: UploadForm) -> Response:
    """Takes a CSV or XLSX file, answers at once, and predicts in the background."""
    job = services().bulk.upload(*form.received(), caller())
    content = {
        "job_id": job.job_id,
        "status": job.status,
        "metadata": job.metadata,
        "message": QUEUED_MESSAGE if job.enqueued_at is not None else WAITING_MESSAGE,
        "estimated_time_seconds": estimated_seconds(job),
        "check_status_url": f"/bulk/status/{job.job_id}",
        "download_url": f"/bulk/download/{job.job_id}",
    }
    return answer(UploadAnswer, content, 202)


@bulk_api.get("/status/<job_id>", summary="How far a job is", responses={200: JobStatus, 404: ErrorAnswer})
def status(path: JobPath) -> Response:
    """Progress in rows; when completed, statistics over distinct customers; when failed, the reason."""
    return answer(JobStatus, _status(services().bulk.status(path.job_id, caller())))


@bulk_api.get(
    "/download/<job_id>",
    summary="The result of a job",
    responses={
        200: _file_of("csv", "xlsx", "parquet"),
        202: ConversionAnswer,
        404: ErrorAnswer,
        409: ErrorAnswer,
    },
)
def download(path: JobPath, query: DownloadQuery) -> Response:
    """The uploaded rows with the predictions beside them. A format other than the upload's: 202, ask again, the file."""
    result = services().bulk.result(path.job_id, query.format, caller())
    if isinstance(result, ConversionUnderWay):
        return _under_way(result)
    with services().objects.local(result.key) as file:
        return send_file(file, result.media_type, as_attachment=True, download_name=result.filename, max_age=0)


@bulk_api.get("/jobs", summary="Your jobs, the newest first", responses={200: JobList})
def jobs(query: JobsQuery) -> Response:
    """Only the jobs of the caller."""
    found = [_status(job) for job in services().bulk.jobs(caller(), query.status, query.limit)]
    return answer(JobList, {"jobs": found, "count": len(found)})


@bulk_api.delete(
    "/delete/<job_id>",
    summary="Delete a job, its upload and its results",
    responses={200: DeleteAnswer, 404: ErrorAnswer, 409: ErrorAnswer},
)
def delete(path: JobPath) -> Response:
    """A job that is being processed is not deleted: 409."""
    services().bulk.delete(path.job_id, caller())
    message = "The job, its upload and its results are deleted."
    return answer(DeleteAnswer, {"job_id": path.job_id, "deleted": True, "message": message})


def _under_way(conversion: ConversionUnderWay) -> Response:
    message = f"The result is being made as {conversion.format}; ask again in {RETRY_SECONDS} seconds."
    content = {"job_id": conversion.job_id, "format": conversion.format, "status": "processing", "message": message}
    response = answer(ConversionAnswer, content, 202)
    response.headers["Retry-After"] = str(RETRY_SECONDS)
    return response


def _status(job: Job) -> dict[str, Any]:
    content: dict[str, Any] = {
        "job_id": job.job_id,
        "status": job.status,
        "progress": {
            "total": job.rows_total,
            "processed": job.rows_processed,
            "successful": job.rows_successful,
            "failed": job.rows_failed,
            "percentage": round(100 * job.rows_processed / job.rows_total, 1) if job.rows_total else 0.0,
        },
        "metadata": job.metadata,
        "created_at": _iso(job.created_at),
        "updated_at": _iso(job.updated_at),
    }
    if job.completed_at is not None:
        content["completed_at"] = _iso(job.completed_at)
        content["processing_time_seconds"] = round(job.completed_at - (job.started_at or job.completed_at), 3)
    if job.status == COMPLETED:
        content |= {"statistics": job.statistics, "download_url": f"/bulk/download/{job.job_id}"}
    if job.status == FAILED:
        content |= {"error": job.error_name, "message": job.error_message}
    return content


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat(timespec="milliseconds")
