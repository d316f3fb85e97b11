"""Makes a pair serve: the pointer, and the copies for integrators under their documented names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.bundle import ServingPair, versions_dir, write_atomically, write_pointer
from ml_pipeline.model_card import beside_card
from ml_pipeline.plots import FOLDER as PLOTS
from ml_pipeline.turns import taking_turns

ENHANCED_METADATA = "model_metadata_enhanced.json"
CARD = "MODEL_CARD.md"


def promote(models_dir: Path, pair: ServingPair) -> None:
    """Makes the pair serve and lays out the copies for integrators under their documented names.

    One at a time per models folder, so that copies and pointer are of one bundle when two trainings end together.
    Copies of the promotion before that this one does not have go; nothing else in the folder is touched.
    """
    with taking_turns(models_dir):
        _lay_out(models_dir, pair)
        write_pointer(models_dir, pair)


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
