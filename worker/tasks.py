"""The tasks: find the services of this process, hand over the id."""

from celery import Celery

from worker.celery_app import TASK


def run_job(job_id: str) -> None:
    """Runs one job if it can be claimed; a job that is taken or over is left alone."""
    from worker.process import services

    services().runner.run(job_id)


def register(app: Celery) -> None:
    """Makes the tasks known to the app."""
    app.task(run_job, name=TASK)
