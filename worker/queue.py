"""The queue as the services know it, on Celery and Redis."""

import logging

import redis
from celery import Celery
from kombu.exceptions import KombuError
from redis.backoff import NoBackoff
from redis.retry import Retry

from config import Settings
from services.errors import QueueUnavailable
from worker.celery_app import TASK, build_celery

log = logging.getLogger(__name__)

PUBLISH_RETRY = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
PATIENCE = {"socket_connect_timeout": 0.5, "socket_timeout": 0.5}
"""A web request waits for the queue no longer than about a second; the watchdog sends what could not be sent."""


class CeleryQueue:
    """Sends job ids to Celery's queues; opens its connections on first use, after any fork."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._celery: Celery | None = None
        self._redis: redis.Redis | None = None

    def send(self, queue: str, job_id: str) -> None:
        """See services.queue.JobQueue."""
        if self._celery is None:
            self._celery = build_celery(self._settings, PATIENCE)
        try:
            self._celery.send_task(TASK, args=[job_id], queue=queue, retry=True, retry_policy=PUBLISH_RETRY)
        except (KombuError, redis.RedisError, OSError) as problem:
            raise _unavailable(problem) from problem

    def depth(self, queue: str) -> int:
        """See services.queue.JobQueue."""
        try:
            return int(self._client().llen(queue))  # type: ignore[arg-type]
        except redis.RedisError as problem:
            raise _unavailable(problem) from problem

    def check(self) -> None:
        """See services.queue.JobQueue."""
        try:
            self._client().ping()
        except redis.RedisError as problem:
            raise _unavailable(problem) from problem

    def _client(self) -> redis.Redis:
        if self._redis is None:
            self._redis = redis.Redis.from_url(self._settings.redis_url, retry=Retry(NoBackoff(), 0), **PATIENCE)
        return self._redis


def _unavailable(problem: Exception) -> QueueUnavailable:
    return QueueUnavailable(
        f"The queue does not answer ({type(problem).__name__}). Check that Redis runs and that REDIS_URL is right."
    )
