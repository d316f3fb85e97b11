"""The snapshot: every customer's features and predictions at one `as_of`, computed once, immutable, memory-mapped.

`models/snapshots/<snapshot_id>/` holds `meta.json` and plain `.npy` files whose rows are customers in the byte order of
their ids, so that a look-up is a binary search and all processes share the pages.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.bundle import content_id, digests_below, settle_folder, shape_checked, staged_folder
from ml_pipeline.errors import NoServingModel, SnapshotMismatch

FORMAT = 2
"""2: with the variance of each customer's error and whether he lies outside of what was trained on."""
META = "meta.json"
CENTS = 100
SEGMENTS = ("Low Value", "Medium Value", "High Value")
COLD_STARTS = (None, "never_bought", "one_purchase")
"""Why little is known of a customer; None where he bought more than once."""
NEVER_BOUGHT, ONE_PURCHASE = 1, 2
_NOT_SHOWN = ("variance", "raw")

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """Predictions of n customers, ready to be shown; the money is in cents, so that parts add up exactly.

    money, lower, upper: int64 (n, 2 + targets), columns as `money_columns`; named parts + other == total in `money`.
    probability: float64 (n,) of buying at all in the horizon. segment: uint8 (n,), index into SEGMENTS.
    cold_start_reason: uint8 (n,), index into COLD_STARTS. extrapolated: bool (n,), outside of what was trained on.
    variance: float64 (n, 2 + targets), of a customer's own error in units of the currency squared, for sums over many.
    raw: float64 (n, boosters), each money booster's own number.
    """

    money: IntArray
    lower: IntArray
    upper: IntArray
    probability: FloatArray
    segment: npt.NDArray[np.uint8]
    cold_start_reason: npt.NDArray[np.uint8]
    extrapolated: npt.NDArray[np.bool_]
    variance: FloatArray
    raw: FloatArray

    @property
    def cold_start(self) -> npt.NDArray[np.bool_]:
        """Whether fewer than two purchases were seen, (n,)."""
        return self.cold_start_reason > 0


def ends_in_cents(lower: npt.ArrayLike, upper: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Both ends of intervals of money in cents, rounded outwards; a millionth of a cent is rounding error."""
    floor, ceiling = np.floor(np.asarray(lower) * CENTS + 1e-6), np.ceil(np.asarray(upper) * CENTS - 1e-6)
    return floor.astype(np.int64), ceiling.astype(np.int64)


def segments(total: FloatArray, thresholds: Sequence[float]) -> npt.NDArray[np.uint8]:
    """0 low, 1 medium, 2 high: how many of the two thresholds the predicted total (n,) exceeds.

    Exceeds, not reaches: where half of the customers are predicted 0, or all alike, a threshold is that very number.
    """
    return np.searchsorted(np.array(thresholds), total, side="left").astype(np.uint8)


def money_columns(targets: Sequence[str]) -> tuple[str, ...]:
    """What the columns of money are, in order."""
    return ("total", *targets, "other")


def result_columns(targets: Sequence[str]) -> tuple[str, ...]:
    """The columns that a result file adds to the uploaded ones, in order."""
    spend = tuple(f"predicted_{name}_spend" for name in money_columns(targets))
    return (
        *spend,
        "predicted_total_spend_lower",
        "predicted_total_spend_upper",
        "purchase_probability_30d",
        "segment",
        "currency",
        "model_version",
        "status",
        "error",
    )


def shown_columns(targets: Sequence[str], answers: Answers) -> dict[str, npt.NDArray[Any]]:
    """Answers (n,) as they are shown, by name; money in units of the currency, to two decimals.

    `predicted_<x>_spend`, `…_lower`, `…_upper` for total, each target and other; `purchase_probability_30d`,
    `segment` (text), `cold_start` (bool), `cold_start_reason` (text or None) and `extrapolated` (bool).
    """
    columns: dict[str, npt.NDArray[Any]] = {}
    for index, name in enumerate(money_columns(targets)):
        columns[f"predicted_{name}_spend"] = answers.money[:, index] / CENTS
        columns[f"predicted_{name}_spend_lower"] = answers.lower[:, index] / CENTS
        columns[f"predicted_{name}_spend_upper"] = answers.upper[:, index] / CENTS
    columns["purchase_probability_30d"] = np.round(answers.probability, 4)
    columns["segment"] = np.array(SEGMENTS)[answers.segment]
    columns["cold_start"] = answers.cold_start
    columns["cold_start_reason"] = np.array(COLD_STARTS, dtype=object)[answers.cold_start_reason]
    columns["extrapolated"] = answers.extrapolated
    return columns


def snapshots_dir(models_dir: Path) -> Path:
    """Where the snapshots are."""
    return models_dir / "snapshots"


def encode_ids(customer_ids: Iterable[str]) -> npt.NDArray[np.bytes_]:
    """Ids as fixed-width UTF-8, the form they are sorted and searched in."""
    return np.array([identity.encode() for identity in customer_ids], dtype=np.bytes_)


def write_snapshot(
    models_dir: Path,
    *,
    as_of: date,
    bundle_id: str,
    currency: str,
    targets: Sequence[str],
    raw_names: Sequence[str],
    customer_ids: Sequence[str],
    features: npt.NDArray[np.float32],
    answers: Answers,
) -> str:
    """Writes one snapshot whole or not at all and returns its id.

    customer_ids: n distinct ids in any order; features: float32 (n, F), NaN rows for customers that never bought.
    Raises ValueError on a repeated id.
    """
    encoded = encode_ids(customer_ids)
    order = np.argsort(encoded, kind="stable")
    encoded = encoded[order]
    if len(encoded) > 1 and bool((encoded[1:] == encoded[:-1]).any()):
        raise ValueError("A customer id occurs twice in the snapshot.")
    parent = snapshots_dir(models_dir)
    with staged_folder(parent) as staging:
        np.save(staging / "customer_id.npy", encoded)
        np.save(staging / "features.npy", np.ascontiguousarray(features[order], dtype=np.float32))
        for name in Answers.__annotations__:
            np.save(staging / f"{name}.npy", np.ascontiguousarray(getattr(answers, name)[order]))
        meta = {
            "format": FORMAT,
            "as_of": as_of.isoformat(),
            "bundle_id": bundle_id,
            "currency": currency,
            "targets": list(targets),
            "raw": list(raw_names),
            "n_customers": len(encoded),
            "files": digests_below(staging),
        }
        snapshot_id = content_id(as_of, meta)
        (staging / META).write_text(json.dumps({"snapshot_id": snapshot_id, **meta}, indent=1), "utf-8")
        settle_folder(staging, parent / snapshot_id)
    return snapshot_id


class Snapshot:
    """A memory-mapped snapshot; cheap to open, safe to share between threads and to use after a fork."""

    def __init__(self, folder: Path, meta: Mapping[str, Any]) -> None:
        self.snapshot_id = str(meta["snapshot_id"])
        self.bundle_id = str(meta["bundle_id"])
        self.as_of = date.fromisoformat(meta["as_of"])
        self.currency = str(meta["currency"])
        self.targets: tuple[str, ...] = tuple(meta["targets"])
        self.n_customers = int(meta["n_customers"])
        self._raw_names: tuple[str, ...] = tuple(meta["raw"])
        self._ids = self._map(folder, "customer_id")
        self._features = self._map(folder, "features")
        self._money, self._lower, self._upper = (self._map(folder, name) for name in ("money", "lower", "upper"))
        self._probability = self._map(folder, "probability")
        self._segment = self._map(folder, "segment")
        self._cold_start_reason = self._map(folder, "cold_start_reason")
        self._extrapolated = self._map(folder, "extrapolated")
        self._variance = self._map(folder, "variance")
        self._raw = self._map(folder, "raw")

    def _map(self, folder: Path, name: str) -> npt.NDArray[Any]:
        try:
            mapped = np.load(folder / f"{name}.npy", mmap_mode="r" if self.n_customers else None)
        except (OSError, ValueError):
            raise SnapshotMismatch(f"{folder / name}.npy is missing or damaged: rebuild the snapshot.") from None
        if len(mapped) != self.n_customers:
            raise SnapshotMismatch(
                f"{folder / name}.npy has {len(mapped)} rows, the snapshot says {self.n_customers}: rebuild the snapshot."
            )
        # a plain ndarray over the same pages: the memmap subclass costs a Python call per slice
        return mapped.view(np.ndarray) if isinstance(mapped, np.memmap) else mapped

    def positions(self, customer_ids: Sequence[str]) -> IntArray:
        """Row of each id, int64 (n,); -1 where the id is unknown."""
        if not self.n_customers or not len(customer_ids):
            return np.full(len(customer_ids), -1, dtype=np.int64)
        wanted = encode_ids(customer_ids)
        found = np.minimum(np.searchsorted(self._ids, wanted), self.n_customers - 1)
        # a fixed-width array drops trailing NULs: an id that carries one is nobody's
        known = (self._ids[found] == wanted) & np.array(["\0" not in identity for identity in customer_ids])
        return np.where(known, found, -1)

    def customer_ids(self, positions: npt.ArrayLike) -> list[str]:
        """The ids at these rows."""
        return [identity.decode() for identity in self._ids[np.asarray(positions, dtype=np.int64)]]

    def features(self, positions: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The features that the predictions were made from, float32 (n, F); NaN rows for customers that never bought."""
        return self._features[np.asarray(positions, dtype=np.int64)]

    def columns(self, positions: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
        """The answers at these rows by name: `shown_columns`."""
        rows = np.asarray(positions, dtype=np.int64)
        shown = {name: getattr(self, f"_{name}")[rows] for name in Answers.__annotations__ if name not in _NOT_SHOWN}
        return shown_columns(self.targets, Answers(**shown, variance=self._variance[:0], raw=self._raw[:0]))

    def money(self, positions: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Predicted money in units of the currency and the variance of each one's own error, (n, 2 + targets) each."""
        rows = np.asarray(positions, dtype=np.int64)
        return self._money[rows] / CENTS, self._variance[rows]

    def ends(self, positions: npt.ArrayLike) -> tuple[IntArray, IntArray]:
        """Lower and upper ends of the intervals at these rows, in cents, (n, 2 + targets) each."""
        rows = np.asarray(positions, dtype=np.int64)
        return self._lower[rows], self._upper[rows]

    def probability(self, positions: npt.ArrayLike) -> FloatArray:
        """The probability of buying at all in the horizon at these rows, (n,)."""
        return self._probability[np.asarray(positions, dtype=np.int64)]

    def in_segment(self, segment: str) -> IntArray:
        """The rows of one of SEGMENTS, in order. Raises ValueError for any other name."""
        return np.flatnonzero(self._segment == SEGMENTS.index(segment))

    def raw(self, positions: npt.ArrayLike) -> dict[str, FloatArray]:
        """Each money booster's own number at these rows, by member name; NaN for customers that never bought."""
        own = self._raw[np.asarray(positions, dtype=np.int64)]
        return {name: own[:, index] for index, name in enumerate(self._raw_names)}


def load_snapshot(models_dir: Path, snapshot_id: str) -> Snapshot:
    """Opens a snapshot by memory-mapping it.

    Raises NoServingModel if there is none of this id, SnapshotMismatch if it is damaged or of another format.
    """
    with shape_checked(f"Snapshot {snapshot_id}", SnapshotMismatch):
        return _opened(snapshots_dir(models_dir) / snapshot_id, snapshot_id)


def _opened(folder: Path, snapshot_id: str) -> Snapshot:
    try:
        meta = json.loads((folder / META).read_text("utf-8"))
    except FileNotFoundError:
        raise NoServingModel(f"There is no snapshot {snapshot_id} in {folder.parent}: train again.") from None
    except ValueError:
        raise SnapshotMismatch(f"{folder / META} is not JSON: the snapshot is damaged, rebuild it.") from None
    sealed = {key: value for key, value in meta.items() if key != "snapshot_id"}
    if meta.get("format") != FORMAT or content_id(date.fromisoformat(meta["as_of"]), sealed) != snapshot_id:
        raise SnapshotMismatch(
            f"Snapshot {snapshot_id} has another format or was changed after it was made: rebuild it."
        )
    return Snapshot(folder, meta)


def snapshot_day(models_dir: Path, snapshot_id: str) -> date | None:
    """The as_of of a snapshot; None where it is away or damaged."""
    try:
        return load_snapshot(models_dir, snapshot_id).as_of
    except (NoServingModel, SnapshotMismatch):
        return None
