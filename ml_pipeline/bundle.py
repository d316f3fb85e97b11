"""The bundle: boosters in their native formats and the metadata that makes them usable, immutable and named by content.

`models/versions/<bundle_id>/` holds `metadata.json`, `members/`, `golden.npz`, the card and the backtest.
`models/current.json` is the pointer: which bundle and which snapshot serve, and which did before. It is replaced atomically.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ml_pipeline.errors import BundleMismatch, ModelError, NoServingModel, PipelineError
from ml_pipeline.features import feature_names
from ml_pipeline.pointer import POINTER as POINTER
from ml_pipeline.pointer import Serving as Serving
from ml_pipeline.pointer import ServingPair as ServingPair
from ml_pipeline.pointer import read_pointer as read_pointer
from ml_pipeline.pointer import read_serving as read_serving
from ml_pipeline.pointer import write_atomically as write_atomically
from ml_pipeline.pointer import write_pointer as write_pointer
from ml_pipeline.pointer import write_serving as write_serving

log = logging.getLogger(__name__)

FORMAT = 4
"""4: with a summary model; 3: what agrees how, and what was trained on; 2: what serves is a formula over members; 1 named one
member or rule."""
METADATA = "metadata.json"
OTHER_SHAPE = (LookupError, ValueError, TypeError, AttributeError)
"""What comes of content that another version of this code has made."""


@dataclass(frozen=True)
class BundleMetadata:
    """What a bundle says of itself; `content` is the whole of metadata.json."""

    bundle_id: str
    content: Mapping[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        """The inputs of every member, in order."""
        return tuple(self.content["features"])

    @property
    def targets(self) -> tuple[str, ...]:
        """The named targets, without total and other."""
        return tuple(self.content["targets"])

    @property
    def as_of(self) -> date:
        """The day the bundle was trained as of: nothing on or after it was seen."""
        return date.fromisoformat(self.content["as_of"])

    @property
    def currency(self) -> str:
        """Of every amount the bundle predicts."""
        return str(self.content["currency"])


def versions_dir(models_dir: Path) -> Path:
    """Where the bundles are."""
    return models_dir / "versions"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests_below(folder: Path) -> dict[str, str]:
    """Relative path -> SHA-256 of every file below the folder, in sorted order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in files}


def content_id(as_of: date, content: Mapping[str, Any]) -> str:
    """A name that follows from the content: the as_of day and twelve hex digits of its digest."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{as_of:%Y%m%d}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"


@contextmanager
def staged_folder(parent: Path) -> Iterator[Path]:
    """A folder to fill before it gets its name; removed if it was not moved away."""
    parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=parent, prefix=".staging-"))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def settle_folder(staging: Path, final: Path) -> None:
    """Gives a staged folder its final name; a folder of that name already has this very content, and counts as made now."""
    os.chmod(staging, 0o755)
    try:
        os.rename(staging, final)
    except OSError:
        if not final.is_dir():
            raise
        os.utime(final)


def seal_bundle(
    staging: Path, models_dir: Path, content: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> str:
    """Writes metadata.json into a folder that holds all other files, names it by content, returns the bundle id.

    beside: what else was measured, one JSON file per key (`timings`, `ceiling`); kept beside the content and not a part
    of it, so that the same tables and code give the same bundle id.
    """
    sealed = {**content, "format": FORMAT, "files": digests_below(staging)}
    bundle_id = content_id(date.fromisoformat(content["as_of"]), sealed)
    text = json.dumps({"bundle_id": bundle_id, **sealed}, indent=1, ensure_ascii=False, allow_nan=False)
    (staging / METADATA).write_text(text, "utf-8")
    for name, measured in (beside or {}).items():
        (staging / f"{name}.json").write_text(json.dumps(measured, indent=1), "utf-8")
    settle_folder(staging, versions_dir(models_dir) / bundle_id)
    return bundle_id


@contextmanager
def shape_checked(what: str, error: type[ModelError]) -> Iterator[None]:
    """Whatever this code stumbles over in what another version of it has made, or somebody has changed, is `error`."""
    try:
        yield
    except OSError as problem:
        why = os.strerror(problem.errno or 0)
        raise error(
            f"{what} cannot be read ({why}): let the user of this process read it, or train again."
        ) from problem
    except OTHER_SHAPE as problem:
        log.warning("another shape than this code reads", extra={"of": what}, exc_info=True)
        raise error(
            f"{what} is of another shape than this code reads ({type(problem).__name__}): train again with this code, or "
            "serve with the code that made it."
        ) from problem


def load_metadata(models_dir: Path, bundle_id: str) -> BundleMetadata:
    """The metadata of one bundle, checked against this code's features.

    Raises NoServingModel if there is no such bundle, BundleMismatch naming every feature that differs.
    """
    with shape_checked(f"Bundle {bundle_id}", BundleMismatch):
        return _read_metadata(versions_dir(models_dir) / bundle_id / METADATA, bundle_id)


def _read_metadata(path: Path, bundle_id: str) -> BundleMetadata:
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NoServingModel(f"There is no bundle {bundle_id} in {path.parent.parent}: train again.") from None
    except ValueError:
        raise BundleMismatch(f"{path} is not JSON: the bundle is damaged, train again or roll back.") from None
    check_format(content, bundle_id)
    check_features(content["features"], feature_names(content["targets"]), f"Bundle {bundle_id}")
    sealed = {key: value for key, value in content.items() if key != "bundle_id"}
    if content_id(date.fromisoformat(content["as_of"]), sealed) != bundle_id:
        raise BundleMismatch(
            f"Bundle {bundle_id} was changed after it was sealed (its metadata no longer matches its name): "
            "train again or restore it."
        )
    return BundleMetadata(bundle_id, content)


def check_format(content: Mapping[str, Any], bundle_id: str) -> None:
    """Refuses metadata of another format and metadata that lacks what every bundle has."""
    needed = ("features", "targets", "target_categories", "as_of", "currency", "spend", "members", "serving", "summary")
    missing = [key for key in needed if key not in content]
    missing += [f"the formula of {name}" for name, each in content.get("serving", {}).items() if "formula" not in each]
    if content.get("format") != FORMAT or missing:
        lacking = f", without {', '.join(missing)}" if missing else ""
        raise BundleMismatch(
            f"Bundle {bundle_id} has format {content.get('format')!r}{lacking}; this code reads format {FORMAT}: train again."
        )


def check_features(found: Sequence[str], expected: Sequence[str], what: str) -> None:
    """Raises BundleMismatch with a sentence that names each feature that is missing, unknown or out of place."""
    if tuple(found) == tuple(expected):
        return
    lost = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    problems = []
    if lost:
        problems.append(f"lacks {', '.join(lost)}, which this code builds")
    if unknown:
        problems.append(f"needs {', '.join(unknown)}, which this code does not build")
    if not problems:
        first = next(a for a, b in zip(found, expected, strict=True) if a != b)
        problems.append(f"has its features in another order (first at {first})")
    raise BundleMismatch(
        f"{what} {' and '.join(problems)}: train again with this code, or serve with the code that made it."
    )


def check_file(
    folder: Path, content: Mapping[str, Any], name: str, error: type[PipelineError] = BundleMismatch
) -> Path:
    """The path of one sealed file, after its digest has been compared.

    Raises `error` when the file is absent or has another content than when it was sealed.
    """
    path = folder / name
    sealed = content["files"].get(name)
    if sealed is None or not path.is_file() or digest_of(path) != sealed:
        raise error(f"{folder.name}/{name} is missing or differs from what was sealed: restore it or train again.")
    return path
