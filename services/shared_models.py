"""The pointer that several hosts share: in the object store, beside the pairs that it names.

A host that has promoted announces its pair, the others take it over into their own models folders. The later generation holds;
of two of one generation `Serving.rank` decides, alike on all hosts.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from ml_pipeline.errors import ModelError, PipelineError
from ml_pipeline.pointer import Serving, read_serving
from services.errors import ObjectMissing, ServiceError
from services.model_publication import fetch_pair, is_in, publish_pair
from services.object_store import MODELS, ObjectStore

log = logging.getLogger(__name__)

KEY = f"{MODELS}/current.json"
LOOK_SECONDS = 2.0
READING = "the pointer in the object store"
RETRY_SECONDS = 60.0
"""A pair that could not be taken over, or published, is tried again after so long; another one at once."""


class SharedModels:
    """One models folder and the object store that it shares with others. One thread at a time."""

    def __init__(self, objects: ObjectStore, models_dir: Path) -> None:
        self._objects = objects
        self._models_dir = models_dir
        self._look_at = 0.0
        self._theirs: Serving | None = None
        self._is_known = False
        self._failed: tuple[object, float] | None = None
        self.problem: str | None = None
        """Why the last exchange failed, in words; None if it did not."""

    def look(self) -> None:
        """Takes over what the others serve by now, if that is news for this host; now and then. Raises nothing."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._guarded(READING, self._take_over_news, retry_seconds=0.0)

    def look_at_once(self) -> None:
        """The next `look` does not wait."""
        self._look_at = 0.0

    def tell(self, ours: Serving) -> None:
        """Announces this host's pair, if that is news for the others as they were seen last. Raises nothing."""
        if self._is_known and (self._theirs is None or ours.rank > self._theirs.rank):
            self._guarded(ours.rank, self.announce)

    def announce(self) -> bool:
        """Publishes this host's pair and then its pointer, unless the others have it, or a later one; whether they have it now.

        Raises what `publish_pair` raises.
        """
        ours, self._theirs = self._local(), read_shared(self._objects)
        if ours is None:
            return False
        if self._theirs is not None and self._theirs.rank >= ours.rank:
            return self._theirs.pair == ours.pair
        publish_pair(self._objects, self._models_dir, ours.pair.bundle_id, ours.pair.snapshot_id)
        with self._objects.create(KEY) as path:
            path.write_bytes(ours.as_json())
        self._theirs = ours
        _say("pointer announced to other hosts", ours)
        return True

    def _take_over_news(self) -> None:
        self._is_known = False  # should the next line fail
        theirs, ours = read_shared(self._objects), self._local()
        self._theirs, self._is_known = theirs, True
        if theirs is not None and (ours is None or theirs.rank > ours.rank):
            self._guarded(theirs.rank, lambda: self._take_over(theirs))

    def _take_over(self, theirs: Serving) -> None:
        """Fetches their pair into the models folder and points to it."""
        from ml_pipeline.promotion import follow

        bundle_id, snapshot_id = theirs.pair.bundle_id, theirs.pair.snapshot_id
        self._models_dir.mkdir(parents=True, exist_ok=True)
        if not is_in(self._models_dir, bundle_id, snapshot_id):
            fetch_pair(self._objects, self._models_dir, bundle_id, snapshot_id)
        if follow(self._models_dir, theirs):
            _say("pointer taken over from another host", theirs)

    def _local(self) -> Serving | None:
        try:
            return read_serving(self._models_dir)
        except ModelError:
            return None

    def _guarded(self, what: object, attempt: Callable[[], object], retry_seconds: float = RETRY_SECONDS) -> None:
        """What goes wrong is said once, and tried again later."""
        if self._failed is not None and self._failed[0] == what and time.monotonic() < self._failed[1]:
            return
        try:
            attempt()
        except (ServiceError, PipelineError, OSError) as problem:
            reason = os.strerror(problem.errno or 0) if isinstance(problem, OSError) else str(problem)
            if reason != self.problem:
                facts = {"error": type(problem).__name__, "reason": reason}
                log.error("the models cannot be shared with other hosts", extra=facts)
            self.problem, self._failed = reason, (what, time.monotonic() + retry_seconds)
        else:
            if what != READING or (self._failed is not None and self._failed[0] == READING):
                self.problem = self._failed = None


def _say(what: str, serving: Serving) -> None:
    pair = serving.pair
    log.info(what, extra={"bundle": pair.bundle_id, "snapshot": pair.snapshot_id, "generation": serving.generation})


def read_shared(objects: ObjectStore) -> Serving | None:
    """The pointer in the object store; None where there is none, or what is there is no pointer."""
    try:
        with objects.local(KEY) as path:
            content = path.read_bytes()
    except ObjectMissing:
        return None
    try:
        return Serving.from_json(content)
    except (ValueError, KeyError, TypeError):
        log.warning("the pointer in the object store is damaged and counts as absent", extra={"key": KEY})
        return None
