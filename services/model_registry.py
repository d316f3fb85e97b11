"""Which bundle and snapshot serve: follows the pointer, keeps pairs open, gives jobs the pair that they began with.

The pointer and what is trained are in the models folder; a pair that a job on another host needs is published in the
object store and fetched from there (model_publication.py).
"""

import json
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from services.model_publication import fetch_pair, is_in, publish_pair
from services.object_store import ObjectStore

if TYPE_CHECKING:
    from ml_pipeline.bundle import BundleMetadata
    from ml_pipeline.predictor import Predictor
    from ml_pipeline.snapshot import Snapshot

log = logging.getLogger(__name__)

PAIRS_KEPT_OPEN = 4
POINTER = "current.json"


class PredictorOnDemand:
    """A bundle's members, loaded when they are first needed, after any fork, and once; safe to share between threads."""

    def __init__(self, models_dir: Path, bundle_id: str) -> None:
        self._models_dir, self._bundle_id = models_dir, bundle_id
        self._lock = threading.Lock()
        self._loaded: Predictor | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the members are in memory."""
        return self._loaded is not None

    def get(self) -> "Predictor":
        """The predictor, one thread per prediction. Raises NoServingModel or BundleMismatch."""
        with self._lock:
            if self._loaded is None:
                from ml_pipeline.predictor import load_predictor

                self._loaded = load_predictor(self._models_dir, self._bundle_id, threads=1)
                log.info("members loaded", extra={"bundle": self._bundle_id})
            return self._loaded


@dataclass(frozen=True)
class Model:
    """A bundle and a snapshot that fit each other, open; the members wait until somebody asks for reasons.

    home: the models folder that they were opened in, the registry's own or that of fetched pairs.
    """

    bundle: "BundleMetadata"
    snapshot: "Snapshot"
    predictor: PredictorOnDemand = field(repr=False, compare=False)
    home: Path = field(repr=False, compare=False)

    @property
    def version(self) -> str:
        """What answers call `model_version`."""
        return self.bundle.bundle_id

    @property
    def as_of(self) -> date:
        """The first day of the predicted 30."""
        return self.snapshot.as_of


class ModelRegistry:
    """Opens pairs on first use, after any fork, and memory-maps them; safe to share between threads.

    The pipeline is imported on first use too: a process that only passes jobs on never loads it.
    objects: where pairs are published. cache_dir: the folder of this host, on its own disk or not, for pairs that were
    published elsewhere; laid out as a models folder, without a pointer. Without either, all there is is models_dir.
    """

    def __init__(self, models_dir: Path, objects: ObjectStore | None = None, cache_dir: Path | None = None) -> None:
        self._models_dir = models_dir
        self._objects = objects
        self._cache_dir = cache_dir
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self._open: OrderedDict[tuple[str, str], Model] = OrderedDict()
        # one per bundle, however many snapshots it has; gone with the last of its pairs
        self._predictors: WeakValueDictionary[str, PredictorOnDemand] = WeakValueDictionary()
        self._serving: tuple[tuple[int, ...], Model] | None = None

    def serving(self) -> Model:
        """The pair that the pointer names now. Raises NoServingModel, BundleMismatch or SnapshotMismatch.

        The pointer is looked at on every call; the pair is loaded again only when the file was replaced.
        """
        seen = self._pointer_identity()
        serving = self._serving
        if serving is not None and serving[0] == seen:
            return serving[1]
        from ml_pipeline.bundle import read_pointer

        pair = read_pointer(self._models_dir)
        model = self.pair(pair.bundle_id, pair.snapshot_id)
        if seen:
            self._serving = (seen, model)
        return model

    def pair(self, bundle_id: str, snapshot_id: str) -> Model:
        """One pair by name, for a job that is tied to it: from the models folder, else from the object store.

        The first time on a host without a models folder it takes as long as it takes to copy the pair. Raises as `serving`
        does, NoServingModel also when the pair is nowhere, and what `fetch_pair` raises.
        """
        with self._lock:
            found = self._open.get((bundle_id, snapshot_id))
        home = found.home if found else self._home(bundle_id, snapshot_id)  # others do not wait while a pair is fetched
        with self._lock:
            model = self._open.get((bundle_id, snapshot_id)) or self._load(home, bundle_id, snapshot_id)
            self._open.move_to_end((bundle_id, snapshot_id))
            while len(self._open) > PAIRS_KEPT_OPEN:
                self._open.popitem(last=False)
            return model

    def publish(self, model: Model) -> None:
        """Makes a pair available to workers on other hosts; two look-ups when it is already, so that each upload may ask.

        Raises what `publish_pair` raises.
        """
        if self._objects is not None and model.home == self._models_dir:
            with self._publishing:
                publish_pair(self._objects, self._models_dir, model.bundle.bundle_id, model.snapshot.snapshot_id)

    def announce(self) -> None:
        """Tells other hosts which pair serves here, after a training. Raises what `publish` raises."""
        self.publish(self.serving())

    def backtest(self, bundle: "BundleMetadata") -> Mapping[str, Any]:
        """How good the bundle was on past days that it had not seen, beside the simple rules; as it was sealed.

        Raises BundleMismatch when the file is absent or has another content.
        """
        from ml_pipeline.bundle import check_file, versions_dir

        path = check_file(versions_dir(self._models_dir) / bundle.bundle_id, bundle.content, "backtest.json")
        return dict(json.loads(path.read_text("utf-8")))

    def _home(self, bundle_id: str, snapshot_id: str) -> Path:
        """The folder to open a pair in, after it was fetched if need be."""
        if self._objects is None or self._cache_dir is None or is_in(self._models_dir, bundle_id, snapshot_id):
            return self._models_dir
        fetch_pair(self._objects, self._cache_dir, bundle_id, snapshot_id)
        return self._cache_dir

    def _load(self, home: Path, bundle_id: str, snapshot_id: str) -> Model:
        predictor = self._predictors.get(bundle_id) or PredictorOnDemand(home, bundle_id)
        model = _load(home, bundle_id, snapshot_id, predictor)
        self._predictors[bundle_id] = predictor
        self._open[bundle_id, snapshot_id] = model
        log.info("pair opened", extra={"bundle": bundle_id, "snapshot": snapshot_id})
        return model

    def _pointer_identity(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._models_dir / POINTER)
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size


def _load(models_dir: Path, bundle_id: str, snapshot_id: str, predictor: PredictorOnDemand) -> Model:
    from ml_pipeline.bundle import load_metadata
    from ml_pipeline.errors import SnapshotMismatch
    from ml_pipeline.snapshot import load_snapshot

    bundle, snapshot = load_metadata(models_dir, bundle_id), load_snapshot(models_dir, snapshot_id)
    if snapshot.bundle_id != bundle_id:
        raise SnapshotMismatch(
            f"Snapshot {snapshot_id} was made by bundle {snapshot.bundle_id}, not by {bundle_id}: rebuild the snapshot."
        )
    return Model(bundle, snapshot, predictor, models_dir)
