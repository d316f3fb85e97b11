"""The tasks: find the services of this process, hand over the id."""

from celery import Celery, Task

from worker.celery_app import TASK


def run_job(task: Task, job_id: str) -> None:
    """Works on the job as far as the queue goes that named it; what is taken or over is left alone."""
    from worker.process import services

    services().runner.run(job_id, task.request.delivery_info.get("routing_key"))


def register(app: Celery) -> None:
    """Makes the tasks known to the app."""
    app.task(run_job, name=TASK, bind=True)
