"""The tasks: find the services of this process, hand over the id."""

from celery import shared_task

from worker.celery_app import TASK


@shared_task(name=TASK)
def run_job(job_id: str) -> None:
    """Runs one job that this worker can claim; a job that is taken or over is left alone."""
    from worker.process import services

    services().runner.run(job_id)
