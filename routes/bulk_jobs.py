"""Jobs over HTTP, of files and of trainings: look at them, change their course, delete them."""

from typing import Any

from flask import Response
from flask_openapi3 import APIBlueprint

from routes.bulk_messages import DeleteAnswer, JobPath, JobsQuery
from routes.bulk_prediction import BULK_RESPONSES, BULK_TAG
from routes.context import caller, services
from routes.job_messages import AnyJobStatus, JobList
from routes.messages import ErrorAnswer, answer
from services.job_progress import moment_text
from services.job_table import CANCELLED, COMPLETED, FAILED, OPEN, Job

DAY_SECONDS = 86_400

jobs_api = APIBlueprint("bulk_jobs", __name__, url_prefix="/bulk", abp_tags=[BULK_TAG], abp_responses=BULK_RESPONSES)


@jobs_api.get("/status/<job_id>", summary="How far a job is", responses={200: AnyJobStatus, 404: ErrorAnswer})
def status(path: JobPath) -> Response:
    """Progress in rows, of a training in phases; when completed, what came of it; when failed, the reason."""
    return answer(AnyJobStatus, job_status(services().bulk.status(path.job_id, caller())))


@jobs_api.get("/jobs", summary="Your jobs, the newest first", responses={200: JobList})
def jobs(query: JobsQuery) -> Response:
    """Only the jobs of the caller, page by page: `next_cursor` is the `cursor` of the next page."""
    page = services().bulk.jobs(caller(), query.status, query.limit, query.cursor, query.kind)
    found = [job_status(job) for job in page.jobs]
    return answer(JobList, {"jobs": found, "count": len(found), "next_cursor": page.next_cursor})


@jobs_api.post(
    "/cancel/<job_id>",
    summary="End a job",
    responses={200: AnyJobStatus, 404: ErrorAnswer, 409: ErrorAnswer},
)
def cancel(path: JobPath) -> Response:
    """A job that waits or is under way ends at once; what is done so far stays. One that has ended: 409."""
    return answer(AnyJobStatus, job_status(services().bulk.cancel(path.job_id, caller())))


@jobs_api.post(
    "/retry/<job_id>",
    summary="Try again what failed",
    responses={202: AnyJobStatus, 404: ErrorAnswer, 409: ErrorAnswer, 429: ErrorAnswer},
)
def retry(path: JobPath) -> Response:
    """A failed or cancelled job goes on where it stopped; of a completed one, rows that were given up are done again.

    409 for a job that is under way, and where no row failed for a reason that another try could change.
    """
    return answer(AnyJobStatus, job_status(services().bulk.retry(path.job_id, caller())), 202)


@jobs_api.post(
    "/resume/<job_id>",
    summary="Go on with a cancelled job",
    responses={202: AnyJobStatus, 404: ErrorAnswer, 409: ErrorAnswer, 429: ErrorAnswer},
)
def resume(path: JobPath) -> Response:
    """The same as /bulk/retry: the job goes on where it stopped."""
    return answer(AnyJobStatus, job_status(services().bulk.retry(path.job_id, caller())), 202)


@jobs_api.delete(
    "/delete/<job_id>",
    summary="Delete a job, its upload and its results",
    responses={200: DeleteAnswer, 404: ErrorAnswer, 409: ErrorAnswer},
)
def delete(path: JobPath) -> Response:
    """A job that is being processed is not deleted: 409; cancel it first."""
    services().bulk.delete(path.job_id, caller())
    message = "The job, its upload and its results are deleted."
    return answer(DeleteAnswer, {"job_id": path.job_id, "deleted": True, "message": message})


def job_state(job: Job) -> dict[str, Any]:
    """What changes of a job while it goes on, as AnyJobState."""
    content: dict[str, Any] = {
        "job_id": job.job_id,
        "kind": job.kind,
        "status": job.status,
        "progress": services().bulk.progress(job),
    }
    if job.status == COMPLETED and job.result_key is not None:
        content["download_url"] = f"/bulk/download/{job.job_id}"
    if job.status == FAILED:
        content |= {"error": job.error_name, "message": job.error_message}
    return content


def job_status(job: Job) -> dict[str, Any]:
    """All that is told of a job, as AnyJobStatus."""
    content = job_state(job) | {
        "metadata": job.metadata,
        "created_at": moment_text(job.created_at),
        "updated_at": moment_text(job.updated_at),
        "events_url": f"/bulk/events/{job.job_id}",
    }
    if job.completed_at is not None:
        content["completed_at"] = moment_text(job.completed_at)
        content["processing_time_seconds"] = round(job.completed_at - (job.started_at or job.completed_at), 3)
    if job.status == COMPLETED:
        content["statistics"] = job.statistics
    return content | _expiry(job) | _ways_on(job) | _webhook(job)


def _expiry(job: Job) -> dict[str, str]:
    days = services().settings.retention_days
    if job.completed_at is None or not days:
        return {}
    return {"expires_at": moment_text(job.completed_at + days * DAY_SECONDS)}


def _webhook(job: Job) -> dict[str, Any]:
    state = services().bulk.webhook(job)
    return {} if state is None else {"webhook": state}


def _ways_on(job: Job) -> dict[str, str]:
    ways = {}
    if job.status in OPEN:
        ways["cancel_url"] = f"/bulk/cancel/{job.job_id}"
    if job.status in (FAILED, CANCELLED):
        ways["retry_url"] = f"/bulk/retry/{job.job_id}"
    if job.status != COMPLETED and job.rows_processed:
        ways["partial_url"] = f"/bulk/download/{job.job_id}?partial=true"
    return ways
