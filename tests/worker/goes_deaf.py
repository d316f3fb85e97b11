"""Given to a worker by `-I`: alive, with a heartbeat, but after its start it consumes nothing."""

from typing import Any

from celery import signals


@signals.worker_ready.connect
def go_deaf(sender: Any, **_facts: Any) -> None:
    """As workers were seen to be after a reconnect (celery#8030, celery#10205)."""
    sender.task_consumer.cancel()
