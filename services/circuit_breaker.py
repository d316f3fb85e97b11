"""A circuit breaker (M. Nygard, Release It!): what failed several times in a row is left alone for a while, then tried once.

Written here since pybreaker holds one lock through the whole of a guarded call: eight requests would ask one after the other,
each longer than its budget.
"""

import threading
import time
from collections.abc import Callable


class CircuitBreaker:
    """Closed at first: all may call. After `failures_allowed` failures in a row it is open: none may call for `rest_seconds`.

    Then one caller may try, and the others still may not: its success closes the breaker, its failure opens it again. Whoever
    was let in reports once, by `succeeded` or `failed`. Safe from any thread.
    """

    def __init__(self, failures_allowed: int, rest_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures_allowed = failures_allowed
        self._rest_seconds = rest_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._opens_until: float | None = None
        self._is_tried = False

    def lets_in(self) -> bool:
        """Whether this caller may call now; if so, it must report how that went."""
        with self._lock:
            if self._opens_until is None:
                return True
            if self._is_tried or self._clock() < self._opens_until:
                return False
            self._is_tried = True
            return True

    def succeeded(self) -> None:
        """The call went well."""
        with self._lock:
            self._failures = 0
            self._opens_until = None
            self._is_tried = False

    def failed(self, rest_seconds: float = 0.0) -> None:
        """The call failed. rest_seconds: so long the other side wants to be left alone, which opens the breaker at once."""
        with self._lock:
            self._failures += 1
            if rest_seconds > 0 or self._is_tried or self._failures >= self._failures_allowed:
                rest = max(rest_seconds, self._rest_seconds)
                self._opens_until = max(self._opens_until or 0.0, self._clock() + rest)
            self._is_tried = False

    @property
    def is_open(self) -> bool:
        """Whether callers are kept away, or one of them tries."""
        with self._lock:
            return self._opens_until is not None
