"""The pointer: which bundle and which snapshot serve, and which did before. One small file, replaced atomically.

Light to import, for those that only want to know which.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.errors import BundleMismatch, NoServingModel, PointerUnreadable

POINTER = "current.json"
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


def read_pointer(models_dir: Path) -> ServingPair:
    """Which pair serves. Raises as `read_serving` does."""
    return read_serving(models_dir).pair


def read_serving(models_dir: Path) -> Serving:
    """All that the pointer says.

    Raises NoServingModel when none has been promoted yet, BundleMismatch when the pointer is damaged, PointerUnreadable when
    the system does not let it be read.
    """
    path = models_dir / POINTER
    try:
        return Serving.from_json(path.read_bytes())
    except FileNotFoundError:
        raise NoServingModel(
            f"There is no {POINTER} in {models_dir}: no model has been trained and promoted there. "
            "Run `python ml_pipeline/run_pipeline.py` (or `make train`) first."
        ) from None
    except OSError as problem:
        raise PointerUnreadable(
            f"{path} cannot be read ({os.strerror(problem.errno or 0)}): let the user of this process read it."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise BundleMismatch(
            f"{path} is not a pointer to a bundle and a snapshot ({type(problem).__name__}). "
            "Train again or restore the file."
        ) from None


def write_pointer(models_dir: Path, pair: ServingPair) -> Serving:
    """Makes the pair serve, atomically: readers see the old pointer or the new one. What it says now comes back.

    The generation is one more than that of the pointer before, whose pair becomes the newest of the previous ones; a
    damaged pointer is replaced as if there were none. Whoever may not be alone takes turns (turns.py). Raises PointerUnreadable.
    """
    try:
        serving = read_serving(models_dir).after(pair)
    except (NoServingModel, BundleMismatch):
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
