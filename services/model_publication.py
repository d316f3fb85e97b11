"""Pairs of bundle and snapshot in the object store, for workers on hosts that have no models folder.

A job is tied to the pair that served at its upload. Both are immutable and named by their content, so that a pair is
published once and fetched once per host. Keys, with `versions` for bundles and `snapshots`, as in the models folder:

    models/versions/<id>/<file>    every sealed file
    models/versions/<id>.json      last: that all of them are there, with their sizes and the digest of the metadata
"""

import json
import logging
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_pipeline.turns import taking_turns
from services.errors import ObjectMissing
from services.object_store import MODELS, ObjectStore, link_or_copy, named_failures

if TYPE_CHECKING:
    from ml_pipeline.errors import ModelError

log = logging.getLogger(__name__)

UNUSED_SECONDS = 30 * 86_400.0
"""A fetched pair that no process has opened for so long is removed when the next one is fetched."""
FETCHED = "the models that this host has fetched"
FETCHED_ROOM = "Make room on the disk of VAR_DIR"


def key_of(kind: str, name: str) -> str:
    """Where the files of a half are in the object store; kind: `versions` or `snapshots`."""
    return f"{MODELS}/{kind}/{name}"


def marker_of(kind: str, name: str) -> str:
    """The key of what says that all of its files are there."""
    return f"{key_of(kind, name)}.json"


@dataclass(frozen=True)
class SealedFolder:
    """One half of a pair: a folder whose metadata file names all others with their digests."""

    kind: str
    name: str
    metadata: str
    error: "type[ModelError]"

    @property
    def key(self) -> str:
        """Where its files are in the object store."""
        return key_of(self.kind, self.name)

    @property
    def marker(self) -> str:
        """The key of what says that all files are there."""
        return marker_of(self.kind, self.name)

    def below(self, models_dir: Path) -> Path:
        """Where it is in a models folder."""
        return models_dir / self.kind / self.name

    def digests(self, folder: Path) -> dict[str, str]:
        """What is sealed: name -> SHA-256. Raises the half's own error when its metadata cannot be read."""
        try:
            files: dict[str, str] = json.loads((folder / self.metadata).read_text("utf-8"))["files"]
        except (FileNotFoundError, ValueError, KeyError) as problem:
            raise self._damaged(self.metadata, type(problem).__name__) from None
        return files

    def sizes(self, folder: Path) -> dict[str, int]:
        """Bytes of every sealed file and of the metadata. Raises the half's own error when one is missing."""
        try:
            return {name: (folder / name).stat().st_size for name in (self.metadata, *self.digests(folder))}
        except FileNotFoundError as problem:
            raise self._damaged(Path(str(problem.filename)).name, "it is missing") from None

    def statement(self, folder: Path) -> dict[str, Any]:
        """The content of the marker. Raises the half's own error when a sealed file is missing."""
        from ml_pipeline.bundle import digest_of

        return {"files": self.sizes(folder), "metadata_sha256": digest_of(folder / self.metadata)}

    def check_fetched(self, folder: Path, published: dict[str, Any]) -> None:
        """Raises the half's own error unless all sealed files are there with the content that was sealed."""
        self._check(folder, {self.metadata: published["metadata_sha256"]})
        self.check_content(folder)

    def check_content(self, folder: Path) -> None:
        """Raises the half's own error unless the sealed files have the content that the metadata names; reads all of them."""
        self._check(folder, self.digests(folder))

    def _check(self, folder: Path, sealed: dict[str, str]) -> None:
        from ml_pipeline.bundle import digest_of

        for name, digest in sealed.items():
            try:
                found = digest_of(folder / name)
            except FileNotFoundError:
                raise self._damaged(name, "it is missing") from None
            if found != digest:
                raise self._damaged(name, "another content than what was sealed")

    def _damaged(self, name: str, why: str) -> "ModelError":
        return self.error(
            f"{self.kind}/{self.name}/{name} cannot be used ({why}). Where it was published, delete {self.marker} from the "
            "object store: the next upload publishes it again. Where it was trained, restore it or train again."
        )


def halves(bundle_id: str, snapshot_id: str) -> tuple[SealedFolder, SealedFolder]:
    """Bundle and snapshot of a pair."""
    from ml_pipeline.bundle import METADATA
    from ml_pipeline.errors import BundleMismatch, SnapshotMismatch
    from ml_pipeline.snapshot import META

    return (
        SealedFolder("versions", bundle_id, METADATA, BundleMismatch),
        SealedFolder("snapshots", snapshot_id, META, SnapshotMismatch),
    )


def is_in(models_dir: Path, bundle_id: str, snapshot_id: str) -> bool:
    """Whether a models folder has both halves of a pair."""
    return all((half.below(models_dir) / half.metadata).is_file() for half in halves(bundle_id, snapshot_id))


def publish_pair(objects: ObjectStore, models_dir: Path, bundle_id: str, snapshot_id: str) -> None:
    """Puts a pair into the object store unless it is there. Any number of processes may do so at once.

    On the same disk the files are linked, not copied. Raises what the object store raises, and BundleMismatch or
    SnapshotMismatch when a sealed file is missing.
    """
    for half in halves(bundle_id, snapshot_id):
        if objects.exists(half.marker):
            continue
        folder = half.below(models_dir)
        statement = half.statement(folder)
        for name in statement["files"]:
            objects.adopt(f"{half.key}/{name}", folder / name)
        with objects.create(half.marker) as path:
            path.write_text(json.dumps(statement, indent=1), "utf-8")
        _say("model published", half, statement)


def fetch_pair(
    objects: ObjectStore, folder: Path, bundle_id: str, snapshot_id: str, unused_seconds: float | None = None
) -> None:
    """Makes a published pair a part of `folder`, which is laid out as a models folder; each half whole or not at all.

    unused_seconds: where nobody but this function writes into the folder, pairs that were not fetched again for so long, and
    what processes that died have left, make room for what is fetched. One process of a host fetches, others wait for it. Raises NoServingModel when the pair is not published,
    BundleMismatch or SnapshotMismatch when what was published is damaged, what the object store raises, and StorageFull
    when there is no space in `folder`.
    """
    with named_failures(FETCHED, FETCHED_ROOM):
        folder.mkdir(parents=True, exist_ok=True)
        with taking_turns(folder):
            for half in halves(bundle_id, snapshot_id):
                if not half.below(folder).is_dir():
                    if unused_seconds is not None:
                        _remove_unused(folder / half.kind, unused_seconds)
                    _fetch(objects, half, folder)
                os.utime(half.below(folder))  # it is in use


def _fetch(objects: ObjectStore, half: SealedFolder, cache_dir: Path) -> None:
    from ml_pipeline.bundle import settle_folder, staged_folder

    published = _read_marker(objects, half)
    final = half.below(cache_dir)
    with staged_folder(final.parent) as staging:
        for name in published["files"]:
            with objects.local(f"{half.key}/{name}") as source:  # no name that leads out of the folder is a key
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(source, staging / name)
        half.check_fetched(staging, published)
        settle_folder(staging, final)
    _say("model fetched", half, published)


def _say(what: str, half: SealedFolder, published: dict[str, Any]) -> None:
    log.info(what, extra={"kind": half.kind, "id": half.name, "bytes": sum(published["files"].values())})


def _read_marker(objects: ObjectStore, half: SealedFolder) -> dict[str, Any]:
    from ml_pipeline.errors import NoServingModel

    try:
        with objects.local(half.marker) as path:
            marker: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ObjectMissing:
        raise NoServingModel(
            f"{half.kind}/{half.name} is neither in the models folder of this host (MODELS_DIR) nor published in the object "
            "store (OBJECTS_DIR): it was deleted. If a job is tied to it, upload its file again to work with the model that "
            "serves now; if it should serve, restore it, roll back or train again."
        ) from None
    return marker


def _remove_unused(folder: Path, unused_seconds: float) -> None:
    """Pairs that nobody opened for long, and what a process that died was fetching: nobody else fetches now."""
    cutoff = time.time() - unused_seconds
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name.startswith(".") or path.stat().st_mtime < cutoff:
            shutil.rmtree(path, ignore_errors=True)
