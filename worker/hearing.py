"""Whether a worker still hears of its messages. One that lost its connection can be alive and consume nothing for ever."""

import time
from collections.abc import Callable


class Hearing:
    """Adds up for how long messages waited, look after look, while the worker took none and worked on nothing.

    A worker without work takes a waiting message within a moment, so that much less than `patience_seconds` says it all.
    Time counts only as far as looks are close together: while the machine slept, nobody could hear anything.
    """

    def __init__(
        self, patience_seconds: float, look_every_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience_seconds = patience_seconds
        self._longest_gap_seconds = 2 * look_every_seconds
        self._clock = clock
        self._looked_at = clock()
        self._deaf_seconds = 0.0
        self._heard = False

    def hear(self) -> None:
        """A message was taken."""
        self._heard = True

    def is_deaf(self, messages_wait: bool, works: bool) -> bool:
        """One look. works: whether the worker holds anything to work on."""
        now = self._clock()
        passed = min(now - self._looked_at, self._longest_gap_seconds)
        self._looked_at = now
        heard, self._heard = self._heard, False
        if heard or works or not messages_wait:
            self._deaf_seconds = 0.0
        else:
            self._deaf_seconds += passed
        return self._deaf_seconds > self._patience_seconds
