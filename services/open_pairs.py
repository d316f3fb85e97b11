"""Pairs of bundle and snapshot, opened: for jobs as they are, for requests after a check of all that they are made of."""

import logging
import os
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from ml_pipeline.pointer import ServingPair
from services.model_publication import UNUSED_SECONDS, fetch_pair, halves, is_in
from services.object_store import ObjectStore
from services.verified_files import VerifiedFiles

if TYPE_CHECKING:
    from ml_pipeline.bundle import BundleMetadata
    from ml_pipeline.predictor import Predictor
    from ml_pipeline.snapshot import Snapshot

log = logging.getLogger(__name__)

PAIRS_KEPT_OPEN = 4
IN_USE_SECONDS = 600.0
"""After so long a folder is said to be in use once more; much less than what is young to whoever prunes."""


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
        """The predictor, one thread per prediction; its golden predictions were made anew. Raises NoServingModel or
        BundleMismatch."""
        with self._lock:
            if self._loaded is None:
                from ml_pipeline.predictor import load_predictor

                self._loaded = load_predictor(self._models_dir, self._bundle_id, threads=1)
                log.info("members loaded", extra={"bundle": self._bundle_id})
            return self._loaded


@dataclass(frozen=True)
class Model:
    """A bundle and a snapshot that fit each other, open. Of the pair that serves the members are loaded, of a job's they wait
    until somebody needs them.

    home: the models folder that they were opened in, this host's own or that of fetched pairs.
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

    @property
    def pair(self) -> ServingPair:
        """Both by name."""
        return ServingPair(self.bundle.bundle_id, self.snapshot.snapshot_id)


class OpenPairs:
    """Opens pairs on first use, after any fork, and memory-maps them; safe to share between threads.

    The pipeline is imported on first use too: a process that only passes jobs on never loads it.
    objects: where pairs are published. cache_dir: the folder of this host, on its own disk or not, for pairs that were
    published elsewhere; laid out as a models folder, without a pointer. Without either, all there is is models_dir.
    """

    def __init__(self, models_dir: Path, objects: ObjectStore | None, cache_dir: Path | None) -> None:
        self._models_dir = models_dir
        self._objects = objects
        self._cache_dir = cache_dir
        self._verified = VerifiedFiles(cache_dir)
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[str, str], Model] = OrderedDict()
        # one per bundle, however many snapshots it has; gone with the last of its pairs
        self._predictors: WeakValueDictionary[str, PredictorOnDemand] = WeakValueDictionary()

    def opened(self, bundle_id: str, snapshot_id: str) -> Model:
        """One pair: from the models folder, else from the object store.

        The first time on a host without a models folder it takes as long as it takes to copy the pair. Raises
        NoServingModel, BundleMismatch or SnapshotMismatch, and what `fetch_pair` raises.
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

    def ready(self, pair: ServingPair) -> Model:
        """The pair, fit to answer requests: its members are loaded and give their golden predictions.

        Raises as `opened` does. The arrays of the snapshot are read by `verified`, which takes longer.
        """
        model = self.opened(pair.bundle_id, pair.snapshot_id)
        model.predictor.get()
        if model.snapshot.n_customers:  # what breaks here breaks no request
            model.snapshot.columns([0])
            model.snapshot.features([0])
        return model

    def verified(self, model: Model) -> Model:
        """The same, after every file of the pair was found to have the content that was sealed; all is read, once per host.

        Raises BundleMismatch or SnapshotMismatch.
        """
        for half in halves(model.bundle.bundle_id, model.snapshot.snapshot_id):
            folder = half.below(model.home)
            self._verified.check(folder, half.sizes(folder), half.check_content)
        return model

    def keep(self, model: Model) -> None:
        """The folders of a pair that goes on answering in the place of another count as used just now: whoever prunes by the
        pointer leaves what is young."""
        for half in halves(model.bundle.bundle_id, model.snapshot.snapshot_id):
            folder = half.below(model.home)
            with suppress(OSError):  # only to be read, or gone
                if time.time() - folder.stat().st_mtime > IN_USE_SECONDS:
                    os.utime(folder)

    def forget(self, pair: ServingPair) -> None:
        """Who asks for the pair again gets it as it is on disk then; those that have it keep it as long as they need it."""
        with self._lock:
            self._open.pop((pair.bundle_id, pair.snapshot_id), None)

    def _home(self, bundle_id: str, snapshot_id: str) -> Path:
        """The folder to open a pair in, after it was fetched if need be."""
        if self._objects is None or self._cache_dir is None or is_in(self._models_dir, bundle_id, snapshot_id):
            return self._models_dir
        fetch_pair(self._objects, self._cache_dir, bundle_id, snapshot_id, UNUSED_SECONDS)
        return self._cache_dir

    def _load(self, home: Path, bundle_id: str, snapshot_id: str) -> Model:
        predictor = self._predictors.get(bundle_id) or PredictorOnDemand(home, bundle_id)
        model = _load(home, bundle_id, snapshot_id, predictor)
        self._predictors[bundle_id] = predictor
        self._open[bundle_id, snapshot_id] = model
        log.info("pair opened", extra={"bundle": bundle_id, "snapshot": snapshot_id})
        return model


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
