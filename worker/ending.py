"""The end of a worker: in good order if that goes quickly, in any case within ten seconds."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue

log = logging.getLogger(__name__)

GRACE_SECONDS = 7.0
"""So long Celery may take: two seconds for tasks to end, then the pool's processes and the connections."""
RELEASE_SECONDS = 1.5
"""So long the job table may take where Celery took too long."""
EXIT_STATUS = 1


class Ending:
    """Ends this process by force where it does not end by itself: a main thread can be stuck in a connection for ever."""

    def __init__(self, pool_pids: Callable[[], Iterable[int]], release: Callable[[], None]) -> None:
        self._pool_pids = pool_pids
        self._release = release
        self._asked: SimpleQueue[None] = (
            SimpleQueue()
        )  # of all ways to wake a thread, one that a signal handler may use
        self.has_begun = False

    def watch(self) -> None:
        """Starts to wait for the beginning of the end; called once, in the main process."""
        threading.Thread(target=self._enforce, name="ending", daemon=True).start()

    def begin(self) -> None:
        """From now on the time runs. May be called again, and from a signal handler."""
        self.has_begun = True
        self._asked.put(None)

    def _enforce(self) -> None:
        self._asked.get()
        time.sleep(GRACE_SECONDS)
        for pid in self._pool_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        last_words = threading.Thread(target=self._say_and_release, name="release", daemon=True)
        last_words.start()
        last_words.join(RELEASE_SECONDS)
        os._exit(EXIT_STATUS)

    def _say_and_release(self) -> None:
        """In a thread that nobody has to wait for: the log may be blocked as well as the job table."""
        log.error("worker did not end by itself and is ended by force", extra={"seconds": GRACE_SECONDS})
        self._release()
