"""Pairs that are sealed as they should be and wrong all the same, and pairs that were damaged afterwards."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.bundle import METADATA, ServingPair, content_id, seal_bundle, staged_folder, versions_dir
from ml_pipeline.predictor import GOLDEN
from ml_pipeline.snapshot import META, snapshots_dir


def resealed(models: Path, pair: ServingPair, change: Callable[[Path, dict[str, Any]], None]) -> ServingPair:
    """Another pair with the same snapshot whose bundle is a copy, changed before it was sealed; it is not promoted.

    change: gets the folder and the content of metadata.json to change both in place.
    """
    folder = versions_dir(models) / pair.bundle_id
    content = json.loads((folder / METADATA).read_text("utf-8"))
    with staged_folder(versions_dir(models)) as staging:
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        (staging / METADATA).unlink()
        kept = {key: value for key, value in content.items() if key not in ("bundle_id", "format", "files")}
        change(staging, kept)
        bundle_id = seal_bundle(staging, models, kept)
    return ServingPair(bundle_id, remade_snapshot(models, pair.snapshot_id, bundle_id))


def remade_snapshot(models: Path, snapshot_id: str, bundle_id: str) -> str:
    """The same snapshot as if another bundle had made it."""
    parent = snapshots_dir(models)
    meta = json.loads((parent / snapshot_id / META).read_text("utf-8"))
    sealed = {**meta, "bundle_id": bundle_id}
    del sealed["snapshot_id"]
    made = content_id(date.fromisoformat(meta["as_of"]), sealed)
    shutil.copytree(parent / snapshot_id, parent / made, copy_function=os.link)  # it may be large
    (parent / made / META).unlink()
    (parent / made / META).write_text(json.dumps({"snapshot_id": made, **sealed}), "utf-8")
    return made


def with_other_golden(models: Path, pair: ServingPair) -> ServingPair:
    """A pair whose bundle does not give its golden predictions, as after a library that reads its files differently."""

    def change(folder: Path, _content: dict[str, Any]) -> None:
        with np.load(folder / GOLDEN) as golden:
            rows = {name: golden[name] for name in golden.files}
        np.savez_compressed(folder / GOLDEN, **{**rows, "money": rows["money"] + 10_000})

    return resealed(models, pair, change)


def copied(models: Path, pair: ServingPair, note: str) -> ServingPair:
    """A pair like this one by another name."""
    return resealed(models, pair, lambda _folder, content: content["trained_on"].update(note=note))


def damage(path: Path) -> bytes:
    """Changes one byte in the middle of a file, by a new file in its place; what was there before."""
    content = path.read_bytes()
    middle = len(content) // 2
    path.unlink()  # it may be a link that others have too
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    return content


def file_of(models: Path, pair: ServingPair, name: str) -> Path:
    """A file of the bundle, or of the snapshot where it has one of this name."""
    found = versions_dir(models) / pair.bundle_id / name
    return found if found.exists() else snapshots_dir(models) / pair.snapshot_id / name
