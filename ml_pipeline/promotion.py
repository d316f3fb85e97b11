"""Makes a pair serve: the pointer, and the copies for integrators under their documented names."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.bundle import (
    METADATA,
    Serving,
    ServingPair,
    read_serving,
    versions_dir,
    write_atomically,
    write_pointer,
    write_serving,
)
from ml_pipeline.errors import BundleMismatch, NoServingModel, NothingToRollBackTo, UnknownVersion
from ml_pipeline.model_card import beside_card
from ml_pipeline.plots import FOLDER as PLOTS
from ml_pipeline.snapshot import META, snapshots_dir
from ml_pipeline.turns import taking_turns

ENHANCED_METADATA = "model_metadata_enhanced.json"
CARD = "MODEL_CARD.md"


def promote(models_dir: Path, pair: ServingPair) -> Serving:
    """Makes the pair serve and lays out the copies for integrators under their documented names; returns the new pointer.

    One at a time per models folder, so that copies and pointer are of one bundle when two trainings end together.
    Copies of the promotion before that this one does not have go; nothing else in the folder is touched.
    """
    with taking_turns(models_dir):
        _lay_out(models_dir, pair)
        return write_pointer(models_dir, pair)


def roll_back(
    models_dir: Path, bundle_id: str | None = None, check: Callable[[ServingPair], object] = lambda pair: None
) -> Serving:
    """Makes an earlier pair serve: the first of the previous ones that is complete, or the named bundle's; the new pointer.

    A named bundle may be any that stands in the folder with a snapshot of its own, also one that never served. Once more
    goes further back. check: is asked for its consent by an error, before anything changes.
    Raises NothingToRollBackTo, UnknownVersion, what `read_serving` raises, and what `check` raises.
    """
    with taking_turns(models_dir):
        serving = read_serving(models_dir)
        pair = _first_complete(models_dir, serving) if bundle_id is None else _pair_of(models_dir, serving, bundle_id)
        check(pair)
        _lay_out(models_dir, pair)
        after = serving.rolled_back(pair)
        write_serving(models_dir, after)
        return after


def follow(models_dir: Path, serving: Serving) -> bool:
    """Takes over the pointer of another models folder, whose pair must be in this one; whether that is news.

    A pointer of the same or a higher rank stays as it is. Raises PointerUnreadable.
    """
    with taking_turns(models_dir):
        try:
            if read_serving(models_dir).rank >= serving.rank:
                return False
        except (NoServingModel, BundleMismatch):
            pass
        _lay_out(models_dir, serving.pair)
        write_serving(models_dir, serving)
        return True


def is_complete(models_dir: Path, pair: ServingPair) -> bool:
    """Whether both folders of a pair have every file that was sealed, whatever is in them."""
    folders = (
        (versions_dir(models_dir) / pair.bundle_id, METADATA),
        (snapshots_dir(models_dir) / pair.snapshot_id, META),
    )
    return all(_has_all_files(folder, metadata) for folder, metadata in folders)


def _has_all_files(folder: Path, metadata: str) -> bool:
    try:
        files = json.loads((folder / metadata).read_text("utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all((folder / name).is_file() for name in files)


def pairs_of(models_dir: Path, bundle_id: str) -> list[ServingPair]:
    """The bundle with each complete snapshot that was made by it, the latest as_of first; of one day, the last made first."""
    found = [meta.parent for meta in snapshots_dir(models_dir).glob(f"*/{META}")]
    made = [folder for folder in found if made_by(models_dir, folder.name) == bundle_id]
    made.sort(key=lambda folder: (folder.name[:8], (folder / META).stat().st_mtime), reverse=True)
    pairs = [ServingPair(bundle_id, folder.name) for folder in made]
    return [pair for pair in pairs if is_complete(models_dir, pair)]


def made_by(models_dir: Path, snapshot_id: str) -> str | None:
    """The bundle that made a snapshot; None where nobody can tell."""
    try:
        return str(json.loads((snapshots_dir(models_dir) / snapshot_id / META).read_text("utf-8"))["bundle_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _first_complete(models_dir: Path, serving: Serving) -> ServingPair:
    for pair in serving.previous:
        if is_complete(models_dir, pair):
            return pair
    raise NothingToRollBackTo(
        f"Bundle {serving.pair.bundle_id} serves, and none that did before is left in the models folder "
        f"({len(serving.previous)} known by name). Train again, or restore a bundle and its snapshot."
    )


def _pair_of(models_dir: Path, serving: Serving, bundle_id: str) -> ServingPair:
    if bundle_id == serving.pair.bundle_id:
        raise NothingToRollBackTo(
            f"Bundle {bundle_id} serves already. Name another one, or none for the one before it."
        )
    known = [pair for pair in serving.previous if pair.bundle_id == bundle_id and is_complete(models_dir, pair)]
    found = known or pairs_of(models_dir, bundle_id)
    if not found:
        raise UnknownVersion(
            f"There is no bundle {bundle_id[:64]!r} with a snapshot of its own in the models folder. "
            "GET /model/versions lists those that are."
        )
    return found[0]


def _lay_out(models_dir: Path, pair: ServingPair) -> None:
    folder = versions_dir(models_dir) / pair.bundle_id
    content = json.loads((folder / "metadata.json").read_text("utf-8"))
    offered = {name: each for name, each in content["members"].items() if each["integrators"]}
    copies = {Path(each["file"]).name: (folder / each["file"]).read_bytes() for each in offered.values()}
    copies |= {name: (folder / name).read_bytes() for name in content["files"] if Path(name).parts[0] == PLOTS}
    copies[CARD] = (folder / CARD).read_bytes() + beside_card(
        **{name: _read_json(folder / f"{name}.json") for name in ("timings", "ceiling")}
    ).encode()
    copies[ENHANCED_METADATA] = json.dumps(_for_integrators(content, offered), indent=1, ensure_ascii=False).encode()
    stale = _laid_out(models_dir) - set(copies)
    (models_dir / PLOTS).mkdir(exist_ok=True)
    for name, body in copies.items():
        write_atomically(models_dir / name, body)
    for name in stale:
        (models_dir / name).unlink(missing_ok=True)


def _read_json(path: Path) -> Any:
    """None where there is no such file."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _laid_out(models_dir: Path) -> set[str]:
    """The names of the boosters and plots that the last promotion copied, as its metadata lists them."""
    try:
        content = json.loads((models_dir / ENHANCED_METADATA).read_text("utf-8"))
        boosters = {Path(each["file"]).name for each in content["models"].values()}
        return boosters | {f"{PLOTS}/{Path(name).name}" for name in content.get("plots", ())}
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return set()


def _for_integrators(content: Mapping[str, Any], offered: Mapping[str, Any]) -> dict[str, Any]:
    """What a program needs that runs a booster by itself: the inputs in order, and each file's target."""
    return {
        "bundle_id": content["bundle_id"],
        "as_of": content["as_of"],
        "currency": content["currency"],
        "horizon_days": content["horizon_days"],
        "targets": content["targets"],
        "features": content["features"],
        "input": "float32 in the order of `features`, NaN = missing; the output is money, no margin needed",
        "models": {
            name: {"file": Path(each["file"]).name, "library": each["library"], "target": each["target"]}
            for name, each in offered.items()
        },
        "served": {name: each["name"] for name, each in content["serving"].items()},
        "plots": sorted(name for name in content["files"] if Path(name).parts[0] == PLOTS),
        "libraries": content["libraries"],
    }
