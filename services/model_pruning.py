"""Bundles and snapshots that nobody needs any more go: from the models folder, from what was published, from what was fetched.

Kept are the pair that serves, so many of those before it, the pairs that jobs are tied to, and what is younger than an hour, in
which whoever made or opened it may yet make it serve or tie a job to it. For an hour after a change all that served before
stay: a request that began with the old pair may still record a job for it. A process that has a pair open goes on with it.
"""

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from config import Settings
from ml_pipeline.errors import ModelError
from ml_pipeline.pointer import POINTER, Serving, read_serving
from ml_pipeline.turns import taking_turns
from services.errors import ObjectMissing
from services.job_store import JobStore
from services.model_publication import key_of, marker_of
from services.object_store import MODELS, ObjectStore
from services.shared_models import KEY, read_shared
from services.verified_files import FOLDER as VERIFIED

log = logging.getLogger(__name__)

GRACE_SECONDS = 3600.0
LEFT_BEHIND_SECONDS = 86_400.0
"""What a process was making that died before it got its name."""
STAGING = ".staging-"
VERSIONS, SNAPSHOTS = "versions", "snapshots"
NAMED_BY_CONTENT = re.compile(r"\d{8}-[0-9a-f]{12}")
"""What was made here is called so; anything else in the folders is somebody's own."""

MODEL_CACHE = "models"
"""Below VAR_DIR: pairs that were published by other hosts."""

Kept = frozenset[tuple[str, str]]
"""Halves, as (kind, name)."""


class ModelPruning:
    """Removes what nothing pins; any number of processes and hosts may do so at once.

    cache_dir: what this host has fetched. kept: how many of the pairs that served before stay.
    """

    @classmethod
    def by_settings(cls, settings: Settings, store: JobStore, objects: ObjectStore) -> "ModelPruning":
        """As they say."""
        return cls(settings.models_dir, settings.var_dir / MODEL_CACHE, store, objects, settings.models_kept)

    def __init__(self, models_dir: Path, cache_dir: Path, store: JobStore, objects: ObjectStore, kept: int) -> None:
        self._models_dir = models_dir
        self._cache_dir = cache_dir
        self._store = store
        self._objects = objects
        self._kept = kept

    def tidy(self) -> None:
        """Looks through all three. Where no pointer says what serves, nothing goes, nor from a folder that is only to be read.

        Raises what the stores raise.
        """
        if (self._models_dir / POINTER).is_file() and os.access(self._models_dir, os.W_OK):
            self._prune_models()
        if os.access(self._cache_dir, os.W_OK):
            self._prune_cache()
        self._prune_published()

    def _prune_models(self) -> None:
        with taking_turns(self._models_dir):
            serving = self._local()
            if serving is None:
                return
            kept = self._pinned() | self._of_pointer(serving, _age(self._models_dir / POINTER))
            aside = _put_aside(self._models_dir, kept)
        _remove(aside)
        _remove(_left_behind(self._models_dir))

    def _prune_cache(self) -> None:
        """What a job needs again is fetched again."""
        with taking_turns(self._cache_dir):
            aside = _put_aside(self._cache_dir, self._pinned())
        _remove(aside)
        for note in (self._cache_dir / VERIFIED).glob("*.json"):
            homes = (
                home / kind / note.stem
                for home in (self._models_dir, self._cache_dir)
                for kind in (VERSIONS, SNAPSHOTS)
            )
            if not any(home.is_dir() for home in homes):
                note.unlink(missing_ok=True)

    def _prune_published(self) -> None:
        """A marker goes before its files: without it they do not count as published."""
        pointers = [(self._local(), _age(self._models_dir / POINTER)), (read_shared(self._objects), self._age_of(KEY))]
        kept = self._pinned()
        for serving, age in pointers:
            kept |= self._of_pointer(serving, age) if serving else frozenset()
        if all(serving is None for serving, _age_of_pointer in pointers):
            return
        for kind, name in sorted(self._published() - kept):
            if self._age_of_published(kind, name) > GRACE_SECONDS:
                self._objects.delete(marker_of(kind, name))
                self._objects.delete_below(key_of(kind, name))
                log.info("published model deleted", extra={"kind": kind, "id": name})

    # ---- what stays

    def _pinned(self) -> Kept:
        return _halves_of(self._store.pinned_pairs())

    def _of_pointer(self, serving: Serving, age: float) -> Kept:
        stay = len(serving.previous) if age < GRACE_SECONDS else self._kept
        pairs = (serving.pair, *serving.previous[:stay])
        return _halves_of((pair.bundle_id, pair.snapshot_id) for pair in pairs)

    def _local(self) -> Serving | None:
        """None where there is no pointer, or a damaged one: who cannot tell what serves removes nothing."""
        try:
            return read_serving(self._models_dir)
        except ModelError:
            return None

    # ---- in the object store

    def _published(self) -> set[tuple[str, str]]:
        """Halves of which there is anything."""
        found = set()
        for kind in (SNAPSHOTS, VERSIONS):
            names = (key.split("/")[2].removesuffix(".json") for key in self._objects.names(f"{MODELS}/{kind}"))
            found |= {(kind, name) for name in names if NAMED_BY_CONTENT.fullmatch(name)}
        return found

    def _age_of_published(self, kind: str, name: str) -> float:
        """Since it was published; of half a publication, since its last file came."""
        marker = marker_of(kind, name)
        if self._objects.exists(marker):
            return self._age_of(marker)
        return self._objects.seconds_since_written(key_of(kind, name)) or 0.0

    def _age_of(self, key: str) -> float:
        try:
            with self._objects.local(key) as path:
                return _age(path)
        except ObjectMissing:
            return 0.0


def _halves_of(pairs: Iterable[tuple[str, str]]) -> Kept:
    return frozenset(half for bundle, snapshot in pairs for half in ((VERSIONS, bundle), (SNAPSHOTS, snapshot)))


def _young(found: Iterable[Path]) -> Kept:
    """What was made or fetched lately, and the bundles that such snapshots were made by."""
    young = [path for path in found if _age(path) < GRACE_SECONDS]
    makers = [_maker(path) for path in young if path.parent.name == SNAPSHOTS]
    return frozenset([*((path.parent.name, path.name) for path in young), *((VERSIONS, maker) for maker in makers)])


def _maker(snapshot: Path) -> str:
    """The bundle that made a snapshot; empty where nobody can tell."""
    try:
        return str(json.loads((snapshot / "meta.json").read_text("utf-8"))["bundle_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _named(models_dir: Path) -> Iterator[Path]:
    for kind in (SNAPSHOTS, VERSIONS):  # no snapshot is left without the bundle that made it
        for path in sorted((models_dir / kind).glob("*")):
            if NAMED_BY_CONTENT.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                yield path


def _put_aside(models_dir: Path, kept: Kept) -> list[Path]:
    """Takes the name from each folder that is neither kept nor young, so that nobody finds half of it; where they are now."""
    found = list(_named(models_dir))  # once: what somebody finishes from now on was not looked at
    staying, aside = kept | _young(found), []
    for path in found:
        if (path.parent.name, path.name) not in staying:
            aside.append(path.with_name(f"{STAGING}{path.name}-{uuid.uuid4().hex}"))
            os.rename(path, aside[-1])
            log.info("model deleted", extra={"kind": path.parent.name, "id": path.name})
    return aside


def _left_behind(models_dir: Path) -> list[Path]:
    """Folders that were being made, or removed, by a process that died."""
    staged = [path for kind in (SNAPSHOTS, VERSIONS) for path in (models_dir / kind).glob(f"{STAGING}*")]
    return [path for path in staged if _age(path) > LEFT_BEHIND_SECONDS]


def _remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _age(path: Path) -> float:
    """Seconds since a file was written or a folder changed; 0 where it is gone."""
    with suppress(OSError):
        return max(0.0, time.time() - path.stat().st_mtime)
    return 0.0
