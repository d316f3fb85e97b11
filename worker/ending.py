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

CUT_OFF_SECONDS = 3.0
"""When tasks have had their two seconds, whatever Celery is at: the pool is killed, and what it held is given back."""
END_SECONDS = 7.0
"""So long Celery may take for the rest, its connections above all."""
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
        time.sleep(CUT_OFF_SECONDS)
        for pid in self._pool_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._in_the_background(self._release)
        time.sleep(END_SECONDS - CUT_OFF_SECONDS)
        self._in_the_background(lambda: log.error("worker did not end by itself and is ended by force"))
        os._exit(EXIT_STATUS)

    def _in_the_background(self, action: Callable[[], None]) -> None:
        """Nobody waits long for it: the log may be blocked as well as the job table."""
        thread = threading.Thread(target=action, name="ending-action", daemon=True)
        thread.start()
        thread.join(0.5)
