"""The bundle: boosters in their native formats and the metadata that makes them usable, immutable and named by content.

`models/versions/<bundle_id>/` holds `metadata.json`, `members/`, `golden.npz`, the card and the backtest.
`models/current.json` is the pointer: which bundle and which snapshot serve, and which did before. It is replaced atomically.
"""

import hashlib
import json
import os
import re
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

FORMAT = 4
"""4: with a summary model; 3: what agrees how, and what was trained on; 2: what serves is a formula over members; 1 named one
member or rule."""
POINTER = "current.json"
METADATA = "metadata.json"
PREVIOUS_KEPT = 10
IS_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ServingPair:
    """The bundle and the snapshot that answer requests."""

    bundle_id: str
    snapshot_id: str


@dataclass(frozen=True)
class Serving:
    """What the pointer says: the pair that serves, the how manieth it is, and those that did before.

    generation: grows with every change of the pointer; 0 for a pointer of a version that did not count them.
    previous: at most PREVIOUS_KEPT, without `pair`; the one to fall back on first comes first.
    """

    pair: ServingPair
    generation: int = 0
    previous: tuple[ServingPair, ...] = ()

    @property
    def rank(self) -> tuple[int, str, str, str]:
        """Of two pointers the one of the higher rank holds: the later generation; of two that are of one generation, made on
        two hosts at once, the later as_of (with which the ids of snapshots begin), then the ids, so that all hosts agree."""
        return self.generation, self.pair.snapshot_id[:8], self.pair.bundle_id, self.pair.snapshot_id

    def after(self, pair: ServingPair) -> "Serving":
        """What the pointer says after `pair` was promoted: the pair that served until then is the first to fall back on."""
        return self._next(pair, (self.pair, *self.previous))

    def rolled_back(self, pair: ServingPair) -> "Serving":
        """What the pointer says after it went back to `pair`: what is left goes further back, those that were left last come last."""
        order = [self.pair, *self.previous]
        at = order.index(pair) if pair in order else 0
        return self._next(pair, (*order[at + 1 :], *order[1:at], *order[:1]))

    def _next(self, pair: ServingPair, others: Sequence[ServingPair]) -> "Serving":
        kept = tuple(dict.fromkeys(other for other in others if other != pair))
        return Serving(pair, self.generation + 1, kept[:PREVIOUS_KEPT])

    def as_json(self) -> bytes:
        """The content of the pointer file."""
        previous = [_pair_as_json(pair) for pair in self.previous]
        return json.dumps(
            {**_pair_as_json(self.pair), "generation": self.generation, "previous": previous}, indent=1
        ).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Serving":
        """Reads `as_json`, and pointers of a bundle and a snapshot alone. Raises ValueError, KeyError or TypeError."""
        pointer = json.loads(content)
        pair = _pair_from_json(pointer)
        generation, previous = pointer.get("generation", 0), pointer.get("previous", [])
        if type(generation) is not int or generation < 0 or not isinstance(previous, list):
            raise TypeError("generation and previous are a number and a list")
        return cls(pair, generation, tuple(_pair_from_json(each) for each in previous))


def _pair_as_json(pair: ServingPair) -> dict[str, str]:
    return {"bundle": pair.bundle_id, "snapshot": pair.snapshot_id}


def _pair_from_json(content: Mapping[str, Any]) -> ServingPair:
    pair = ServingPair(content["bundle"], content["snapshot"])
    if not all(isinstance(name, str) and IS_NAME.fullmatch(name) for name in (pair.bundle_id, pair.snapshot_id)):
        raise TypeError("an id is no name of a folder")
    return pair


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


def read_pointer(models_dir: Path) -> ServingPair:
    """Which pair serves. Raises as `read_serving` does."""
    return read_serving(models_dir).pair


def read_serving(models_dir: Path) -> Serving:
    """All that the pointer says.

    Raises NoServingModel when none has been promoted yet, BundleMismatch when the pointer is damaged.
    """
    path = models_dir / POINTER
    try:
        return Serving.from_json(path.read_bytes())
    except FileNotFoundError:
        raise NoServingModel(
            f"There is no {POINTER} in {models_dir}: no model has been trained and promoted there. "
            "Run `python ml_pipeline/run_pipeline.py` (or `make train`) first."
        ) from None
    except (ValueError, KeyError, TypeError) as problem:
        raise BundleMismatch(
            f"{path} is not a pointer to a bundle and a snapshot ({type(problem).__name__}). "
            "Train again or restore the file."
        ) from None


def write_pointer(models_dir: Path, pair: ServingPair) -> Serving:
    """Makes the pair serve, atomically: readers see the old pointer or the new one. What it says now comes back.

    The generation is one more than that of the pointer before, whose pair becomes the newest of the previous ones; a
    damaged pointer is replaced as if there were none. Whoever may not be alone takes turns (turns.py).
    """
    try:
        serving = read_serving(models_dir).after(pair)
    except ModelError:
        serving = Serving(pair, 1)
    write_serving(models_dir, serving)
    return serving


def write_serving(models_dir: Path, serving: Serving) -> None:
    """Replaces the pointer as a whole, atomically."""
    write_atomically(models_dir / POINTER, serving.as_json())


def write_atomically(path: Path, content: bytes) -> None:
    """The file appears whole or not at all, and is on disk when this returns."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


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
    """Gives a staged folder its final name; a folder of that name already has this very content."""
    os.chmod(staging, 0o755)
    try:
        os.rename(staging, final)
    except OSError:
        if not final.is_dir():
            raise


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


def load_metadata(models_dir: Path, bundle_id: str) -> BundleMetadata:
    """The metadata of one bundle, checked against this code's features.

    Raises NoServingModel if there is no such bundle, BundleMismatch naming every feature that differs.
    """
    path = versions_dir(models_dir) / bundle_id / METADATA
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise NoServingModel(f"There is no bundle {bundle_id} in {versions_dir(models_dir)}: train again.") from None
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
    needed = ("features", "targets", "as_of", "currency", "members", "serving", "summary")
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
