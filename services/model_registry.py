"""Which bundle and snapshot serve: follows the pointer, keeps pairs open, gives jobs the pair that they began with.

The pointer and what is trained are in the models folder; a pair that a job on another host needs is published in the
object store and fetched from there (model_publication.py), and where hosts share a store they share the pointer too
(shared_models.py).
"""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.pointer import ServingPair, read_pointer
from services.model_changeover import ModelChangeover, Refusal
from services.model_publication import publish_pair
from services.object_store import ObjectStore
from services.open_pairs import Model, OpenPairs
from services.shared_models import SharedModels

__all__ = ["Model", "ModelRegistry"]


class ModelRegistry:
    """Opens pairs on first use, after any fork, and memory-maps them; safe to share between threads.

    The pipeline is imported on first use too: a process that only passes jobs on never loads it.
    objects: where pairs are published. cache_dir: the folder of this host, on its own disk or not, for pairs that were
    published elsewhere; laid out as a models folder, without a pointer. Without either, all there is is models_dir.
    is_shared: other hosts have the same object store, and all are to serve the same.
    """

    def __init__(
        self,
        models_dir: Path,
        objects: ObjectStore | None = None,
        cache_dir: Path | None = None,
        is_shared: bool = False,
    ) -> None:
        self._models_dir = models_dir
        self._objects = objects
        self._pairs = OpenPairs(models_dir, objects, cache_dir)
        self._shared = SharedModels(objects, models_dir) if is_shared and objects is not None else None
        exchange = (self._shared.look, self._shared.tell) if self._shared else ()
        self._changeover = ModelChangeover(models_dir, self._pairs, *exchange)
        self._publishing = threading.Lock()

    def serving(self) -> Model:
        """The pair that answers requests now. Raises NoServingModel, BundleMismatch or SnapshotMismatch when there is none.

        It takes as long as opening the pair in the first call of a process, and no time from then on: another pair is made
        ready by a thread, which has it answer a moment after the pointer was replaced (`check_now` waits for that). A request
        calls this once, so that all of its answer is of one model.
        """
        return self._changeover.serving()

    def start(self) -> None:
        """Opens the pair in a thread, so that the first request need not. Only after any fork."""
        self._changeover.start()

    def check_now(self) -> None:
        """Comes back when the pair that the pointer names now serves in this process, or was refused; where hosts share a
        store, the pointer of the latest promotion on any of them. Raises nothing of what may be wrong with a pair."""
        if self._shared is not None:
            self._shared.look_at_once()
        self._changeover.check_now()

    def refusals(self) -> list[Refusal]:
        """Why the pair that the pointer names does not serve, where another does."""
        return self._changeover.refusals()

    def refusal_of(self, pair: ServingPair) -> Refusal | None:
        """Why this pair was refused by this process, if it was since the pointer was replaced."""
        return self._changeover.refusal_of(pair)

    def sharing_problem(self) -> str | None:
        """Why models cannot be exchanged with other hosts; None where they can or need not be."""
        return self._shared.problem if self._shared else None

    def ready(self, pair: ServingPair) -> Model:
        """A pair that could serve: opened, its golden predictions made anew, all of its files read and found as sealed.

        Raises NoServingModel, BundleMismatch or SnapshotMismatch.
        """
        return self._pairs.verified(self._pairs.ready(pair))

    def pair(self, bundle_id: str, snapshot_id: str) -> Model:
        """One pair by name, for a job that is tied to it: from the models folder, else from the object store.

        The first time on a host without a models folder it takes as long as it takes to copy the pair. Raises as `serving`
        does, NoServingModel also when the pair is nowhere, and what `fetch_pair` raises.
        """
        return self._pairs.opened(bundle_id, snapshot_id)

    def open_ahead(self) -> None:
        """Opens the pair that the pointer names as a job would, without its members. Raises as `serving` does."""
        pair = read_pointer(self._models_dir)
        self._pairs.opened(pair.bundle_id, pair.snapshot_id)

    def publish(self, model: Model) -> None:
        """Makes a pair available to workers on other hosts; two look-ups when it is already, so that each upload may ask.

        Raises what `publish_pair` raises.
        """
        if self._objects is not None and model.home == self._models_dir:
            with self._publishing:
                publish_pair(self._objects, self._models_dir, model.bundle.bundle_id, model.snapshot.snapshot_id)

    def catch_up(self) -> None:
        """Before a training: takes over what another host has promoted since, so that the new model is compared with that.

        Opens nothing, raises nothing; nothing to do where hosts share no store.
        """
        if self._shared is not None:
            self._shared.look_at_once()
            self._shared.look()

    def announce(self) -> bool:
        """Tells other hosts which pair this one's pointer names, once it serves here; whether they know it now.

        Where hosts share no store there is nobody to tell: False. Raises what `publish_pair` raises.
        """
        if self._shared is None:
            return False
        self.check_now()
        return not self.refusals() and self._shared.announce()

    def backtest(self, model: Model) -> Mapping[str, Any]:
        """How good its bundle was on past days that it had not seen, beside the simple rules; as it was sealed.

        Raises BundleMismatch when the file is absent or has another content.
        """
        from ml_pipeline.bundle import check_file, versions_dir

        folder = versions_dir(model.home) / model.bundle.bundle_id
        path = check_file(folder, model.bundle.content, "backtest.json")
        return dict(json.loads(path.read_text("utf-8")))
