"""What the services need of a queue. The queue is a hint: a message only says that a job may be ready to be claimed."""

from typing import Protocol


class JobQueue(Protocol):
    """A queue by name that carries job ids."""

    def send(self, queue: str, job_id: str) -> None:
        """Hands the id to whoever consumes the queue, within about a second. Raises QueueUnavailable."""

    def depth(self, queue: str) -> int:
        """How many messages wait. Raises QueueUnavailable."""

    def check(self) -> None:
        """Raises QueueUnavailable unless the queue answers."""
