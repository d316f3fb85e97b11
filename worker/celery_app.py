"""The Celery app: three queues on Redis, ids only, acknowledged early. Redelivery is the job table's business."""

from functools import cache
from typing import Any

from celery import Celery
from kombu import Exchange, Queue

from config import Settings, load_settings
from services.job_table import BULK_QUEUE, FINISHING_QUEUE, TRAINING_QUEUE

QUEUES = (BULK_QUEUE, FINISHING_QUEUE, TRAINING_QUEUE)
TASK = "run_job"
TRANSPORT = {"socket_connect_timeout": 2, "socket_timeout": 3, "socket_keepalive": True, "health_check_interval": 4}
"""Of a consumer: it asks every second, takes a connection for dead 5 to 9 seconds after the last answer, and needs
another socket_timeout to be rid of it."""


def build_celery(settings: Settings, transport: dict[str, Any] = TRANSPORT) -> Celery:
    """A Celery app that publishes to, and consumes from, the queues of these settings.

    Messages are acknowledged before they run: leases in the job table bring back what a crash cuts off, and two
    mechanisms of redelivery would run things twice. A worker takes no message before it has a process free for it.
    """
    app = Celery("worker", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        task_queues=[Queue(name, Exchange(name), routing_key=name) for name in QUEUES],
        task_default_queue=QUEUES[0],
        task_create_missing_queues=False,
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_consumer="worker.consumer:LoneConsumer",
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_soft_shutdown_timeout=2.0,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=transport,
    )
    return app


@cache
def running_app() -> Celery:
    """The app of this process, from the environment; what `celery -A worker` serves."""
    settings = load_settings()
    app = build_celery(settings)
    app.set_current()
    from worker import lifecycle, tasks  # the tasks and the signal handlers that make a worker of the app

    lifecycle.attach(app, settings)
    tasks.register(app)
    return app
