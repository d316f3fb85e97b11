"""Calls that are waited for until a deadline and then abandoned, in a bounded number of threads."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class NoThreadLeft(Exception):
    """As many calls as allowed are under way or have not noticed yet that they were abandoned."""


class NotInTime(Exception):
    """The deadline came first."""


class Abandonment:
    """What tells a call that nobody waits for it any more; `run` gives each call its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._actions: list[Callable[[], None]] = []

    def on_abandoned(self, action: Callable[[], None]) -> None:
        """`action` breaks off what the call waits for; at once, if it has been abandoned already."""
        with self._lock:
            if not self._is_over.is_set():
                self._actions.append(action)
                return
        action()

    def abandon(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._is_over.set()
            actions, self._actions = self._actions, []
        for action in actions:
            action()

    def sleep(self, seconds: float) -> bool:
        """Whether the call still is waited for after so many seconds, or (False) since when it is not."""
        return not self._is_over.wait(seconds)


class _Outcome(Generic[Result]):
    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.result: list[Result] = []
        self.error: BaseException | None = None


class BoundedCalls:
    """Runs each call in a daemon thread of its own, so that none holds up its caller or the end of the process."""

    def __init__(self, most: int) -> None:
        self._places = threading.BoundedSemaphore(most)

    def run(self, call: Callable[[Abandonment], Result], deadline: float) -> Result:
        """What `call` returns or raises. deadline: in seconds of time.monotonic(). Raises NoThreadLeft, NotInTime."""
        if not self._places.acquire(blocking=False):
            raise NoThreadLeft
        outcome: _Outcome[Result] = _Outcome()
        abandonment = Abandonment()
        thread = threading.Thread(target=self._run, args=(call, abandonment, outcome), name="bounded", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more threads
            self._places.release()
            raise NoThreadLeft from None
        if not outcome.is_there.wait(max(deadline - time.monotonic(), 0.0)):
            abandonment.abandon()
            raise NotInTime
        if outcome.error is not None:
            raise outcome.error
        return outcome.result[0]

    def _run(self, call: Callable[[Abandonment], Result], abandonment: Abandonment, outcome: _Outcome[Result]) -> None:
        try:
            outcome.result.append(call(abandonment))
        except Exception as error:  # noqa: BLE001 - carried over to whoever waits
            outcome.error = error
        finally:
            self._places.release()
            outcome.is_there.set()
