"""The bundles that this host has, which of them served before, and the way back to one of those."""

import datetime as dt
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.errors import ModelError
from ml_pipeline.pointer import Serving, ServingPair, read_serving
from services.errors import ServiceError, VersionUnusable
from services.job_store import JobStore
from services.model_registry import ModelRegistry

log = logging.getLogger(__name__)

HEADLINE = ("capped_r2", "d2", "normalised_gini")


@dataclass(frozen=True)
class _Found:
    """What is in the models folder and in the job table, read once per question."""

    serving: Serving | None
    answering: ServingPair | None
    snapshots: Mapping[str, list[dict[str, Any]]]
    pins: Mapping[str, int] | None

    def position(self, bundle_id: str) -> int | None:
        """The how manieth of the previous ones a bundle is, from 1; None if it is none."""
        previous = self.serving.previous if self.serving else ()
        return next((place for place, pair in enumerate(previous, 1) if pair.bundle_id == bundle_id), None)


class ModelVersions:
    """Lists bundles and rolls back."""

    def __init__(self, models_dir: Path, registry: ModelRegistry, store: JobStore) -> None:
        self._models_dir = models_dir
        self._registry = registry
        self._store = store

    def versions(self) -> dict[str, Any]:
        """Every bundle that is in the models folder or that the pointer remembers: the one that serves, those before it, the
        others, the newest first. Nothing is loaded for it."""
        found = self._found()
        names = {path.parent.name for path in self._folder("versions").glob("*/metadata.json")}
        known = [found.serving.pair, *found.serving.previous] if found.serving else []
        names |= {pair.bundle_id for pair in known}
        answering = found.answering
        return {
            "model_version": answering.bundle_id if answering else None,
            "snapshot": answering.snapshot_id if answering else None,
            "generation": found.serving.generation if found.serving else None,
            "versions": sorted((self._version(name, found) for name in names), key=_order),
        }

    def roll_back(self, bundle_id: str | None) -> dict[str, Any]:
        """Has the bundle before the one that serves serve, or the named one, in this process when this comes back.

        It is loaded and its golden predictions are made before anything changes. Raises NothingToRollBackTo, UnknownVersion,
        VersionUnusable, and NoServingModel where nothing was ever promoted.
        """
        from ml_pipeline.promotion import roll_back

        self._registry.check_now()  # of what other hosts have promoted meanwhile
        before = read_serving(self._models_dir).pair
        after = roll_back(self._models_dir, bundle_id, self._check)
        self._registry.check_now()
        facts = {"bundle": after.pair.bundle_id, "previous_bundle": before.bundle_id, "generation": after.generation}
        log.warning("rolled back", extra=facts)
        return {
            "model_version": after.pair.bundle_id,
            "snapshot": after.pair.snapshot_id,
            "as_of": self._registry.serving().as_of.isoformat(),
            "previous_model_version": before.bundle_id,
            "generation": after.generation,
        }

    def _check(self, pair: ServingPair) -> None:
        try:
            self._registry.ready(pair)
        except (ModelError, ServiceError) as problem:
            raise VersionUnusable(
                f"Bundle {pair.bundle_id} cannot serve, so nothing was changed: {problem} Name another bundle of "
                "GET /model/versions, or train again."
            ) from None

    # ---- what is there

    def _found(self) -> _Found:
        try:
            serving = read_serving(self._models_dir)
        except ModelError:
            serving = None
        try:
            answering = self._registry.serving().pair
        except ModelError:
            answering = None
        return _Found(serving, answering, self._snapshots(), self._pins())

    def _pins(self) -> Mapping[str, int] | None:
        """Jobs per bundle; None where the job table is away, which is no reason to list nothing."""
        try:
            pinned: Counter[str] = Counter()
            for (bundle_id, _snapshot_id), jobs in self._store.pinned_pairs().items():
                pinned[bundle_id] += jobs
        except ServiceError:
            return None
        return pinned

    def _snapshots(self) -> dict[str, list[dict[str, Any]]]:
        """By bundle, the latest first."""
        from ml_pipeline.snapshot import META

        by_bundle: dict[str, list[dict[str, Any]]] = {}
        for path in sorted(self._folder("snapshots").glob(f"*/{META}"), reverse=True):
            meta = _read_json(path)
            facts = {
                "snapshot": path.parent.name,
                "as_of": meta.get("as_of"),
                "customers": meta.get("n_customers"),
                "size_bytes": _size(path.parent),
            }
            by_bundle.setdefault(str(meta.get("bundle_id")), []).append(facts)
        return by_bundle

    def _version(self, bundle_id: str, found: _Found) -> dict[str, Any]:
        folder = self._folder("versions") / bundle_id
        content, snapshots = _read_json(folder / "metadata.json"), found.snapshots.get(bundle_id, [])
        answering = found.answering.snapshot_id if found.answering else None
        return {
            "bundle": bundle_id,
            "as_of": content.get("as_of"),
            "created": _created(folder / "metadata.json"),
            "profile": content.get("profile"),
            "algorithm": content.get("algorithm"),
            "serving": found.answering is not None and bundle_id == found.answering.bundle_id,
            "previous": found.position(bundle_id),
            "snapshots": [{**each, "serving": each["snapshot"] == answering} for each in snapshots],
            "pinned_by": None if found.pins is None else found.pins.get(bundle_id, 0),
            "size_bytes": _size(folder) + sum(each["size_bytes"] for each in snapshots),
            "metrics": _headline(_read_json(folder / "backtest.json")),
            "refused": self._refused(bundle_id, found),
        }

    def _refused(self, bundle_id: str, found: _Found) -> str | None:
        """Why this code cannot serve it, as far as that shows without loading it or was found when it was loaded."""
        from ml_pipeline.bundle import load_metadata
        from ml_pipeline.promotion import pairs_of

        serving = found.serving
        known = [pair for pair in (serving.pair, *serving.previous) if pair.bundle_id == bundle_id] if serving else []
        for pair in known:
            if refusal := self._registry.refusal_of(pair):
                return refusal.reason
        try:
            load_metadata(self._models_dir, bundle_id)
        except ModelError as problem:
            return str(problem)
        return None if pairs_of(self._models_dir, bundle_id) else "no complete snapshot of it is in the models folder"

    def _folder(self, kind: str) -> Path:
        return self._models_dir / kind


def _order(version: Mapping[str, Any]) -> tuple[bool, float, str]:
    place = version["previous"]
    rest = -dt.datetime.fromisoformat(version["created"]).timestamp() if version["created"] else 0.0
    return not version["serving"], place if place is not None else 1e3, f"{rest:020.3f}"


def _headline(backtest: Mapping[str, Any]) -> dict[str, Any] | None:
    """The figures of the total on the windows that nothing was chosen by, beside those of the best rule on the same rows."""
    try:
        total = backtest["targets"]["total"]
        of = {each["name"]: each["metrics"]["all"] for each in total["candidates"]}
        served = total["reconciled"]["all"] if total.get("reconciled") else of[total["served"]]
        figures = {
            name: {"served": served.get(name), "best_rule": of[total["best_rule"]].get(name)} for name in HEADLINE
        }
    except (KeyError, TypeError):
        return None
    return {"served": total["served"], "best_rule": total["best_rule"], **figures}


def _created(path: Path) -> str | None:
    try:
        written = path.stat().st_mtime
    except OSError:
        return None
    return dt.datetime.fromtimestamp(written, dt.UTC).isoformat(timespec="seconds")


def _size(folder: Path) -> int:
    return sum(_sizes(folder.rglob("*")))


def _sizes(paths: Iterable[Path]) -> Iterable[int]:
    for path in paths:
        try:
            yield path.stat().st_size if path.is_file() else 0
        except OSError:  # gone just now
            continue


def _read_json(path: Path) -> dict[str, Any]:
    """Empty where there is none, or something else."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
