"""From a few numbers to answers: the summary model of a bundle, loaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.bundle import BundleMetadata, check_file
from ml_pipeline.calibration import LevelCalibration
from ml_pipeline.errors import BundleMismatch, MissingSummaryInput, UnknownModelType
from ml_pipeline.formulas import calibrated_probability
from ml_pipeline.guardrails import TrainedRanges, reached_cap
from ml_pipeline.intervals import Intervals
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, ends_in_cents, segments
from ml_pipeline.summary_columns import FloatArray, Matrix, summary_columns, with_implied
from ml_pipeline.summary_forms import FORMS, form_of
from ml_pipeline.summary_members import BG_NBD, SummaryMembers
from ml_pipeline.summary_purchases import NEEDS, tells_purchases

IntArray = npt.NDArray[np.int64]

BEST = "best"
OUTLOOK_DAYS = (30, 90, 365)
GOLDEN = "summary_golden.npz"
GOLDEN_TOLERANCE = 1e-5  # of the value, and at least one cent: other processors round differently


@dataclass(frozen=True)
class SummaryAnswers:
    """Predictions of n customers from what is known of them; the money is in cents.

    money, lower, upper: int64 (n,), spend of the next 30 days and its 80 % interval. probability: float64 (n,) of buying at
    all in them. model_used: n names, `xgboost`, `lightgbm`, `bg_nbd` or that of a rule (`rules.RULES`:
    `lifetime_rate_x_30`, `last_90_days_over_3`, `last_30_days`, `mean`, `zero`). segment: uint8 (n,), index into
    `snapshot.SEGMENTS`. extrapolated: bool (n,), outside of what was trained on.
    """

    money: IntArray
    lower: IntArray
    upper: IntArray
    probability: FloatArray
    model_used: list[str]
    segment: npt.NDArray[np.uint8]
    extrapolated: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outlook:
    """What BG/NBD expects: alive float64 (n,) in 0 … 1, expected_purchases float64 (n, 3) in OUTLOOK_DAYS.

    NaN where transactions, days since the last or days since the first are not known, or where the bundle has no BG/NBD.
    """

    alive: FloatArray
    expected_purchases: FloatArray


@dataclass(frozen=True)
class SummaryPredictor:
    """The summary model of a bundle. Opened after any fork; safe to share between threads."""

    metadata: BundleMetadata
    members: SummaryMembers
    threads: int = 1

    @property
    def model_types(self) -> tuple[str, ...]:
        """Those of `xgboost`, `lightgbm` and `bg_nbd` that may be asked for by name; BEST always works."""
        return self.members.model_types

    def predict(self, matrix: Matrix, model_type: str = BEST) -> SummaryAnswers:
        """Answers for n customers from a summary matrix (n, C), NaN where something is not known.

        best: by what is known of a row, what won on such rows. Raises MissingSummaryInput when `bg_nbd` is asked for and
        transactions, days_since_last or days_since_first of a row are not known, UnknownModelType for another name than
        BEST and those in `model_types`, ValueError for another number of columns.
        """
        content, full = self.metadata.content, self._full(matrix)
        form = form_of(full)
        used = self._used(full, form, model_type)
        predicted = self._spend(full, form, used)
        cap = content["serving"][TOTAL_TARGET]["cap"]
        money = np.rint(np.minimum(predicted, cap) * CENTS).astype(np.int64)
        probability = self._probability(full, form)
        lower, upper = ends_in_cents(*self._intervals(money / CENTS, probability, form, used))
        return SummaryAnswers(
            money=money,
            lower=lower,
            upper=upper,
            probability=probability,
            model_used=used.tolist(),
            segment=segments(money / CENTS, content["segments"]["thresholds"]),
            extrapolated=self._ranges.outside(full) | reached_cap(predicted[:, None], np.array([cap])),
        )

    def outlook(self, matrix: Matrix) -> Outlook:
        """Whether n customers still buy and how often, by BG/NBD, from a summary matrix (n, C). Raises ValueError."""
        full = self._full(matrix)
        alive, expected = np.full(len(full), np.nan), np.full((len(full), len(OUTLOOK_DAYS)), np.nan)
        told = tells_purchases(full)
        if self.members.bg_nbd and told.any():
            alive[told] = self.members.bg_nbd.alive(full[told])
            expected[told] = self.members.bg_nbd.expected(full[told], OUTLOOK_DAYS)
        return Outlook(alive, expected)

    def farthest(self, row: Matrix) -> list[dict[str, Any]]:
        """The features of one row (C,) of a summary matrix that lie farthest outside of what was trained on, as
        `TrainedRanges.farthest`; the derived ones too."""
        return self._ranges.farthest(self._full(row[None])[0])

    def _full(self, matrix: Matrix) -> Matrix:
        columns = len(summary_columns(self.metadata.targets))
        if matrix.ndim != 2 or matrix.shape[1] != columns:
            raise ValueError(f"A summary matrix of shape {matrix.shape}; the bundle needs (n, {columns}).")
        return with_implied(matrix)

    @property
    def _summary(self) -> Mapping[str, Any]:
        return dict(self.metadata.content["summary"])

    def _used(self, full: Matrix, form: npt.NDArray[np.uint8], model_type: str) -> npt.NDArray[np.object_]:
        """The name (n,) of what answers each row."""
        if model_type == BEST:
            return self._best(full, form)
        if model_type not in self.model_types:
            there = ", ".join((BEST, *self.model_types))
            raise UnknownModelType(f"model_type is {model_type!r}; this model has {there}. Ask for one of these.")
        if not self.members.can_answer(model_type, full).all():
            raise MissingSummaryInput(
                f"{model_type} needs all of {', '.join(NEEDS)}. Send them, or ask for {BEST!r}, which works without."
            )
        return np.full(len(full), model_type, dtype=object)

    def _best(self, full: Matrix, form: npt.NDArray[np.uint8]) -> npt.NDArray[np.object_]:
        """The first in its form's order that what is known of a row suffices for; the last of each order needs nothing."""
        used = np.full(len(full), None, dtype=object)
        for index, name in enumerate(FORMS):
            rows = np.flatnonzero(form == index)
            for candidate in self._summary["forms"][name]["serves"]:
                if not len(rows):
                    break
                able = self.members.can_answer(candidate, full[rows])
                used[rows[able]] = candidate
                rows = rows[~able]
        return used

    def _spend(self, full: Matrix, form: npt.NDArray[np.uint8], used: npt.NDArray[np.object_]) -> FloatArray:
        """Money (n,), ≥ 0 and not capped yet: of each model as its errors on rows of this form correct it."""
        predicted = np.zeros(len(full))
        for name in sorted(set(used)):
            rows = np.flatnonzero(used == name)
            predicted[rows] = self.members.spend(name, full[rows], self.threads)
        if not np.isfinite(predicted).all():
            raise BundleMismatch(
                f"The summary model of bundle {self.metadata.bundle_id} predicted a number that is not finite."
            )
        for index, title in enumerate(FORMS):
            for name, level in self._summary["forms"][title]["levels"].items():
                rows = np.flatnonzero((form == index) & (used == name))
                predicted[rows] = LevelCalibration.from_json(level).apply(predicted[rows])
        return np.maximum(predicted, 0.0)

    def _probability(self, full: Matrix, form: npt.NDArray[np.uint8]) -> FloatArray:
        """Of buying at all, (n,), calibrated for each form by itself."""
        told = np.zeros(len(full))
        for index, name in enumerate(FORMS):
            rows, served = np.flatnonzero(form == index), self._summary["forms"][name]["probability"]
            if not len(rows):
                continue
            if served["kind"] == "rate" or self.members.purchase is None:
                told[rows] = float(served["rate"])
            else:
                raw = self.members.purchase.predict(full[rows], self.threads)
                told[rows] = calibrated_probability(raw, served["calibration"])
        return told

    def _intervals(
        self, money: FloatArray, probability: FloatArray, form: npt.NDArray[np.uint8], used: npt.NDArray[np.object_]
    ) -> tuple[FloatArray, FloatArray]:
        """Lower and upper ends (n,), (n,), as wide as the answering model's errors on this form were."""
        lower, upper = np.zeros(len(money)), np.zeros(len(money))
        for index, name in enumerate(FORMS):
            for candidate in sorted(set(used[form == index])):
                rows = np.flatnonzero((form == index) & (used == candidate))
                learned = Intervals.from_json(self._summary["forms"][name]["intervals"][candidate])
                lower[rows], upper[rows] = learned.around(
                    money[rows], probability[rows] if learned.amounts is not None else None
                )
        return lower, upper

    @cached_property
    def _ranges(self) -> TrainedRanges:
        """What was trained on; that something is not known is never outside of it, money of which there was hardly less is."""
        targets, found = self.metadata.targets, self.metadata.content["ranges"]
        columns, least = summary_columns(targets), self._summary.get("least", {})
        ranges = {
            name: {**found[name], "low": least.get(name, found[name]["low"]), "missing": True} if found[name] else None
            for name in columns
        }
        return TrainedRanges.from_json(ranges, columns, targets)


def load_summary(folder: Path, metadata: BundleMetadata) -> SummaryMembers:
    """The members of the summary model of the bundle in this folder.

    Raises BundleMismatch for files that are not as they were sealed.
    """
    summary = metadata.content["summary"]
    if tuple(summary["columns"]) != summary_columns(metadata.targets):
        raise BundleMismatch(
            f"The summary model of bundle {metadata.bundle_id} reads other columns than this code makes: train again."
        )
    paths = {name: check_file(folder, metadata.content, member["file"]) for name, member in summary["members"].items()}
    return SummaryMembers.load(summary["members"], paths, summary["mean"])


def save_summary_golden(predictor: SummaryPredictor, matrix: Matrix, path: Path) -> None:
    """Writes summary rows (without ids) and their answers by every model, to be re-checked whenever the bundle is loaded."""
    answers: dict[str, Any] = _golden_answers(predictor, matrix)
    np.savez_compressed(path, matrix=matrix, **answers)


def check_summary_golden(predictor: SummaryPredictor, path: Path) -> None:
    """Raises BundleMismatch when the summary model no longer gives the answers that it gave when it was made."""
    with np.load(path, allow_pickle=False) as golden:
        answers = _golden_answers(predictor, golden["matrix"])
        wrong = [
            name
            for name, values in answers.items()
            if not np.allclose(values, golden[name], rtol=GOLDEN_TOLERANCE, atol=_least(name), equal_nan=True)
        ]
    if wrong:
        raise BundleMismatch(
            f"The summary model of bundle {predictor.metadata.bundle_id} answers its golden rows differently than when it "
            f"was made ({', '.join(wrong)}): install the versions that it was made with, or train again."
        )


def _least(name: str) -> float:
    return 1.0 if name.startswith("money") else GOLDEN_TOLERANCE


def _golden_answers(predictor: SummaryPredictor, matrix: Matrix) -> dict[str, npt.NDArray[Any]]:
    """Money by every model type where enough is known for it, probability and outlook."""
    best, outlook = predictor.predict(matrix), predictor.outlook(matrix)
    found = {"money": best.money, "probability": best.probability, "expected_purchases": outlook.expected_purchases}
    for name in predictor.model_types:
        told = tells_purchases(with_implied(matrix)) if name == BG_NBD else np.ones(len(matrix), dtype=bool)
        found[f"money_{name}"] = predictor.predict(matrix[told], name).money
    return found
