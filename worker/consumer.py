"""What a worker hears its messages with: one connection, that it tries again every few seconds when it is lost."""

from functools import partial
from typing import Any

from celery.worker.consumer import Consumer
from kombu import Connection

LONGEST_WAIT_SECONDS = 5.0
"""Between two attempts to connect. Celery's own waits grow to half a minute."""
ALONE = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}


class LoneConsumer(Consumer):  # type: ignore[misc]
    """A consumer that talks to no other worker: heartbeat rows and leases say all that workers need to know of each other.

    Talking costs a second at each start and each reconnect, and two more connections that can be lost half-way.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options, **ALONE)

    def ensure_connected(self, conn: Connection) -> Connection:
        """The connection, as soon as there is one."""
        conn.ensure_connection = partial(conn.ensure_connection, interval_max=LONGEST_WAIT_SECONDS)  # type: ignore[method-assign]
        return super().ensure_connected(conn)
