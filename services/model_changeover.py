"""Which pair answers requests in this process, and how another takes its place without anybody waiting for it.

A thread looks at the pointer. When it names another pair, the thread opens that, has its members give their golden predictions,
reads all of its files, and only then puts it in the place of the old one, which goes on answering meanwhile. Requests take
the pair once and keep it to their end. A pair that fails is refused: the old one stays, and /health says so.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.errors import BundleMismatch, ModelError
from ml_pipeline.pointer import POINTER, Serving, ServingPair, read_serving
from services.errors import ServiceError
from services.model_publication import halves
from services.open_pairs import Model, OpenPairs

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""Between two looks at the pointer; one costs a stat."""
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 60.0, 3600.0
"""A refused pair whose files stay as they are is tried again after so long, then after twice as long, and so on."""

State = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Refusal:
    """Why a pair, or the pointer itself (pair None), cannot be used."""

    pair: ServingPair | None
    error: type[ModelError]
    reason: str

    @property
    def sentence(self) -> str:
        """For /health."""
        what = f"bundle {self.pair.bundle_id}" if self.pair else "the pointer"
        return f"{what} was refused: {self.reason}"

    def as_error(self) -> ModelError:
        """For a request that nothing else can answer."""
        return self.error(self.reason)


@dataclass
class _Trial:
    """When the pair that the pointer names is to be tried again."""

    state: State
    at: float
    wait: float = RETRY_SECONDS


class ModelChangeover:
    """The pair that serves in this process. Nothing is opened, and no thread started, before the first request (after any
    fork); safe to share between threads.

    before_look: called before each look at the pointer; after_look: after it, with the pointer, if its pair serves.
    """

    def __init__(
        self,
        models_dir: Path,
        pairs: OpenPairs,
        before_look: Callable[[], None] = lambda: None,
        after_look: Callable[[Serving], None] = lambda serving: None,
    ) -> None:
        self._models_dir = models_dir
        self._pairs = pairs
        self._before_look, self._after_look = before_look, after_look
        self._model: Model | None = None
        self._to_verify: Model | None = None
        self._wanted: Serving | None = None
        self._refused: dict[ServingPair | None, Refusal] = {}
        self._seen: tuple[int, ...] | None = None
        self._trial: _Trial | None = None
        self._turn = threading.Lock()  # one change at a time
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._over.set)

    def serving(self) -> Model:
        """The pair that answers now; the first call in a process opens it. Raises what is wrong with it if no other can
        serve: NoServingModel, BundleMismatch or SnapshotMismatch."""
        self.start()
        model = self._model
        return model if model is not None else self._first()

    def start(self) -> None:
        """Has a thread open the pair and follow the pointer from now on; it ends with this object or its process."""
        thread = self._thread
        if thread is None or not thread.is_alive():  # never begun, or left behind by a fork
            with self._turn:
                if self._thread is thread:
                    arguments = (weakref.ref(self), self._over)
                    self._thread = threading.Thread(target=_follow, args=arguments, name="models", daemon=True)
                    self._thread.start()

    def check_now(self) -> None:
        """Comes back when the pair that the pointer names now serves, or was refused."""
        with self._turn:
            self._before_look()
            self._look()
        self._verify()
        wanted, model = self._wanted, self._model
        if wanted is None or model is None:
            return
        if model.pair == wanted.pair:
            self._after_look(wanted)
        else:
            self._pairs.keep(model)

    def refusals(self) -> list[Refusal]:
        """What is wrong with the pointer, or with the pair that it names, while another serves."""
        wanted, refused = self._wanted, self._refused
        named = (None,) if wanted is None else (None, wanted.pair)
        return [refused[pair] for pair in named if pair in refused]

    def refusal_of(self, pair: ServingPair) -> Refusal | None:
        """Why this pair was refused, if it was lately."""
        return self._refused.get(pair)

    def _first(self) -> Model:
        with self._turn:
            if self._model is None:
                self._before_look()
                self._look()
            if self._model is None:
                raise (self.refusals() or [*self._refused.values()])[0].as_error()
            return self._model

    # ---- the pointer

    def _look(self) -> None:
        """Changes over if the pointer was replaced, or what was wrong with its pair may have been put right."""
        seen = self._pointer_identity()
        if seen == self._seen and not self._is_to_be_tried_again():
            return
        if seen != self._seen:
            self._refused, self._trial = {}, None
        self._seen = seen
        wanted = self._read_pointer()
        if wanted is None:
            return
        self._wanted = wanted
        if self._model is None or self._model.pair != wanted.pair:
            self._change_over(wanted)

    def _read_pointer(self) -> Serving | None:
        try:
            return read_serving(self._models_dir)
        except ModelError as problem:
            self._refuse(Refusal(None, type(problem), str(problem)))
        return None

    def _pointer_identity(self) -> tuple[int, ...]:
        return _identity(self._models_dir / POINTER)

    def _is_to_be_tried_again(self) -> bool:
        trial, wanted = self._trial, self._wanted
        if trial is None or wanted is None:
            return False
        return time.monotonic() >= trial.at or self._state_of(wanted.pair) != trial.state

    def _state_of(self, pair: ServingPair) -> State:
        """What tells that a file of a pair was replaced or changed."""
        folders = [half.below(self._models_dir) for half in halves(pair.bundle_id, pair.snapshot_id)]
        return tuple(_identity(path) for folder in folders for path in [folder, *sorted(folder.rglob("*"))])

    # ---- the pair

    def _change_over(self, wanted: Serving) -> None:
        """To the pair that is wanted; where nothing serves yet, else to the newest before it that can."""
        for pair in (wanted.pair, *(() if self._model else wanted.previous)):
            if self._use(pair, wanted):
                break
        refused = wanted.pair in self._refused
        wait = RETRY_SECONDS if self._trial is None else min(2 * self._trial.wait, LONGEST_RETRY_SECONDS)
        self._trial = _Trial(self._state_of(wanted.pair), time.monotonic() + wait, wait) if refused else None

    def _use(self, pair: ServingPair, wanted: Serving) -> bool:
        """Whether the pair serves now. The first of a process, for which requests wait, is read whole when it serves."""
        began, old = time.monotonic(), self._model
        model = self._tried(pair, lambda: self._pairs.ready(pair))
        if model is not None and old is not None:
            ready = model
            model = self._tried(pair, lambda: self._pairs.verified(ready))
        if model is None:
            return False
        self._model, self._to_verify = model, model if old is None else None
        self._refused.pop(pair, None)
        if old is not None:
            self._pairs.forget(old.pair)  # its members go with the last request that has it
        log.info(
            "changed over" if old else "pair serves",
            extra={
                "bundle": pair.bundle_id,
                "snapshot": pair.snapshot_id,
                "generation": wanted.generation,
                "seconds": round(time.monotonic() - began, 3),
                "seconds_since_pointer": _seconds_since(self._models_dir / POINTER),
                "previous_bundle": old.version if old else None,
                "pid": os.getpid(),
            },
        )
        return True

    def _tried(self, pair: ServingPair, attempt: Callable[[], Model]) -> Model | None:
        try:
            return attempt()
        except ModelError as problem:
            self._refuse(Refusal(pair, type(problem), str(problem)))
        except ServiceError as problem:
            self._refuse(Refusal(pair, BundleMismatch, str(problem)))
        except Exception as problem:
            log.exception("pair met an internal error")
            what = f"bundle {pair.bundle_id} or its snapshot {pair.snapshot_id} could not be opened ({type(problem).__name__})"
            self._refuse(Refusal(pair, BundleMismatch, f"{what}; the log has the cause. Train again or roll back."))
        self._pairs.forget(pair)
        return None

    def _refuse(self, refusal: Refusal) -> None:
        self._refused[refusal.pair] = refusal
        facts = {"bundle": refusal.pair.bundle_id, "snapshot": refusal.pair.snapshot_id} if refusal.pair else {}
        log.error(
            "refused", extra={**facts, "pid": os.getpid(), "error": refusal.error.__name__, "reason": refusal.reason}
        )

    def _verify(self) -> None:
        """Reads all of the pair that a process began with; one that is damaged makes way for the newest before it that can
        serve. Requests are answered meanwhile: what they could get of it was checked, all but the arrays of the snapshot."""
        model, self._to_verify = self._to_verify, None
        if model is None or self._tried(model.pair, lambda: self._pairs.verified(model)) is not None:
            return
        with self._turn:
            wanted = self._wanted
            if self._model is not model or wanted is None:
                return
            self._model = None
            any(self._use(pair, wanted) for pair in wanted.previous if pair not in self._refused)
            self._trial = _Trial(self._state_of(wanted.pair), time.monotonic() + RETRY_SECONDS)


def _follow(following: "weakref.ref[ModelChangeover]", over: threading.Event) -> None:
    """The thread; it holds the object only while it looks."""
    while not over.is_set():
        _look_once(following)
        over.wait(LOOK_SECONDS)


def _look_once(following: "weakref.ref[ModelChangeover]") -> None:
    changeover = following()
    if changeover is not None:
        try:
            changeover.check_now()
        except Exception:
            log.exception("the models could not be looked at")


def _identity(path: Path) -> tuple[int, ...]:
    """Differs when the file was replaced or changed; empty when there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _seconds_since(path: Path) -> float | None:
    """Since a file was written."""
    try:
        return round(time.time() - path.stat().st_mtime, 3)
    except OSError:
        return None
