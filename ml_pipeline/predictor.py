"""From a bundle and features to answers: members or rules, the parts made to agree, interval, probability, segment."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.bundle import BundleMetadata, check_file, load_metadata, shape_checked, versions_dir
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.features import IS_COLD_START, build_features, read_matrix
from ml_pipeline.formulas import Known, calibrated_probability, evaluate, members_of
from ml_pipeline.guardrails import TrainedRanges, reached_cap, within_cap
from ml_pipeline.intervals import Intervals, interval_ends
from ml_pipeline.members import Matrix, Member, load_member
from ml_pipeline.prepare import Prepared
from ml_pipeline.reconcile import reconcile, to_cents
from ml_pipeline.registration import REGISTRATION_AGES, registration_ages
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import (
    CENTS,
    NEVER_BOUGHT,
    ONE_PURCHASE,
    Answers,
    ends_in_cents,
    money_columns,
    segments,
    write_snapshot,
)
from ml_pipeline.summary_members import SummaryMembers
from ml_pipeline.summary_predictor import GOLDEN as SUMMARY_GOLDEN
from ml_pipeline.summary_predictor import SummaryPredictor, check_summary_golden, load_summary
from ml_pipeline.sums import SumIntervals

FloatArray = npt.NDArray[np.float64]

GOLDEN = "golden.npz"
GOLDEN_ROWS = 64
GOLDEN_TOLERANCE = 1e-5  # of the value, and at least one cent: other processors round differently
CAP_MULTIPLE = 2.0  # of the largest 30-day spend in the training rows


@dataclass(frozen=True)
class Predictor:
    """A loaded bundle. Opened after any fork; safe to share between threads."""

    metadata: BundleMetadata
    members: Mapping[str, Member]
    threads: int = 1
    summary_members: SummaryMembers = field(default_factory=SummaryMembers)

    @property
    def summary(self) -> SummaryPredictor:
        """What answers where only a few numbers are known of a customer."""
        return SummaryPredictor(self.metadata, self.summary_members, self.threads)

    @property
    def raw_names(self) -> tuple[str, ...]:
        """The money boosters that integrators may use alone, in the bundle's order."""
        return tuple(name for name, member in self.metadata.content["members"].items() if member["integrators"])

    @property
    def ranges(self) -> TrainedRanges:
        """What was trained on, per feature."""
        return TrainedRanges.from_json(self.metadata.content["ranges"], self.metadata.features, self.metadata.targets)

    def predict(self, features: Matrix) -> Answers:
        """Answers for n customers that bought before `as_of`, from float32 features (n, F) in the bundle's order.

        Raises ValueError when the number of columns is another than the bundle's.
        """
        if features.ndim != 2 or features.shape[1] != len(self.metadata.features):
            raise ValueError(
                f"Features of shape {features.shape}; the bundle needs (n, {len(self.metadata.features)})."
            )
        content, names = self.metadata.content, self.metadata.features
        own = {name: self.members[name].predict(features, self.threads) for name in self.needed_members()}
        served = self.served(Known(features, names, self.metadata.targets, own))
        agreed = reconcile(
            content["reconciliation"], served[:, 0], served[:, 1:], usual_shares=np.array(content["usual_shares"])
        )
        caps = np.array([content["serving"][name]["cap"] for name in money_columns(self.metadata.targets)])
        agreed = within_cap(agreed, caps[0])
        money = to_cents(agreed[:, 0], agreed[:, 1:])
        probability = self._probability(features, own)
        lower, upper = self._intervals(money / CENTS, probability)
        return Answers(
            money=money,
            lower=lower,
            upper=upper,
            probability=probability,
            segment=segments(money[:, 0] / CENTS, content["segments"]["thresholds"]),
            cold_start_reason=np.where(features[:, names.index(IS_COLD_START)] > 0, ONE_PURCHASE, 0).astype(np.uint8),
            extrapolated=self.ranges.outside(features)
            | reached_cap(served, caps)
            | reached_cap(agreed[:, :1], caps[:1]),
            variance=self._variance(money / CENTS),
            raw=np.column_stack([own[name] for name in self.raw_names])
            if self.raw_names
            else np.zeros((len(features), 0)),
        )

    def predict_never_bought(self, ages: npt.NDArray[np.uint8]) -> Answers:
        """Answers for known customers without a purchase before `as_of`, by registration age (n,): what such customers
        spent in the training data (`never_bought`)."""
        content = self.metadata.content
        of_ages = [content["never_bought"]["ages"][name] for name in REGISTRATION_AGES]

        def money_of(what: str) -> FloatArray:
            columns = money_columns(self.metadata.targets)
            return np.array([[age[what][name] for name in columns] for age in of_ages])

        spend = money_of("spend")
        money = to_cents(spend[:, 0], spend[:, 1:])
        _, upper = ends_in_cents(0.0, money_of("upper"))
        # net spend of a part can exceed the total's, where more of another part came back than was bought
        upper = np.maximum(np.minimum(upper, upper[:, :1]), money)
        return Answers(
            money=money[ages],
            lower=np.zeros_like(money)[ages],
            upper=upper[ages],
            probability=np.array([age["probability"] for age in of_ages], dtype=np.float64)[ages],
            segment=segments(money[:, 0] / CENTS, content["segments"]["thresholds"])[ages],
            cold_start_reason=np.full(len(ages), NEVER_BOUGHT, dtype=np.uint8),
            extrapolated=np.zeros(len(ages), dtype=bool),
            variance=money_of("variance")[ages],
            raw=np.full((len(ages), len(self.raw_names)), np.nan),
        )

    def needed_members(self) -> list[str]:
        """The names of the members that answers are made of: for integrators, of what serves, for the probability."""
        content = self.metadata.content
        served = [name for serving in content["serving"].values() for name in members_of(serving["formula"])]
        probability = content["probability"]
        needed = [*self.raw_names, *served, *([probability["member"]] if probability["kind"] == "model" else [])]
        return list(dict.fromkeys(needed))

    def served(self, known: Known) -> FloatArray:
        """What serves for total, targets and other before they are made to agree, (n, 2 + targets), within [0, cap]."""
        total = self._served(known, TOTAL_TARGET)
        known = replace(known, total=total)
        parts = [self._served(known, name) for name in money_columns(self.metadata.targets)[1:]]
        return np.column_stack([total, *parts])

    def _served(self, known: Known, target: str) -> FloatArray:
        serving = self.metadata.content["serving"][target]
        predicted = evaluate(serving["formula"], known, target)
        if not np.isfinite(predicted).all():
            raise BundleMismatch(
                f"{serving['name']} of bundle {self.metadata.bundle_id} predicted a number that is not finite."
            )
        return np.clip(predicted, 0.0, serving["cap"])

    def _intervals(
        self, money: FloatArray, probability: FloatArray
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        learned = self.metadata.content["intervals"]
        intervals = {name: Intervals.from_json(learned[name]) for name in money_columns(self.metadata.targets)}
        return ends_in_cents(*interval_ends(intervals, money, probability))

    def _variance(self, money: FloatArray) -> FloatArray:
        """Of each customer's own error, for sums over many, (n, 2 + targets)."""
        learned = self.metadata.content["sums"]
        columns = [
            SumIntervals.from_json(learned[name]).variance(money[:, index])
            for index, name in enumerate(money_columns(self.metadata.targets))
        ]
        return np.column_stack(columns)

    def _probability(self, features: Matrix, own: Mapping[str, FloatArray]) -> FloatArray:
        probability = self.metadata.content["probability"]
        if probability["kind"] == "rate":
            return np.full(len(features), float(probability["rate"]))
        return calibrated_probability(own[probability["member"]], probability["calibration"])


def load_predictor(models_dir: Path, bundle_id: str, threads: int = 1) -> Predictor:
    """Loads a bundle's members and re-checks its golden predictions.

    Raises NoServingModel, or BundleMismatch when features, files or golden predictions differ from what was sealed, or the
    bundle is of another shape than this code reads.
    """
    metadata = load_metadata(models_dir, bundle_id)
    with shape_checked(f"Bundle {bundle_id}", BundleMismatch):
        return _loaded(models_dir, metadata, threads)


def _loaded(models_dir: Path, metadata: BundleMetadata, threads: int) -> Predictor:
    folder = versions_dir(models_dir) / metadata.bundle_id
    members = {
        name: load_member(member["library"], check_file(folder, metadata.content, member["file"]))
        for name, member in metadata.content["members"].items()
    }
    predictor = Predictor(metadata, members, threads, load_summary(folder, metadata))
    check_golden(predictor, check_file(folder, metadata.content, GOLDEN))
    check_summary_golden(predictor.summary, check_file(folder, metadata.content, SUMMARY_GOLDEN))
    return predictor


def save_golden(predictor: Predictor, features: Matrix, path: Path) -> None:
    """Writes feature rows (without ids) and their answers, to be re-checked whenever the bundle is loaded."""
    answers = predictor.predict(features)
    np.savez_compressed(path, features=features, money=answers.money, probability=answers.probability)


def check_golden(predictor: Predictor, path: Path) -> None:
    """Raises BundleMismatch when the bundle no longer gives the answers that it gave when it was made."""
    with np.load(path, allow_pickle=False) as golden:
        answers = predictor.predict(golden["features"])
        allowed = np.maximum(GOLDEN_TOLERANCE * golden["money"], 1)
        wrong = np.abs(answers.money - golden["money"]) > allowed
        far = np.abs(answers.probability - golden["probability"]) > GOLDEN_TOLERANCE
    if wrong.any() or far.any():
        made_with = json.dumps(predictor.metadata.content["libraries"])
        raise BundleMismatch(
            f"Bundle {predictor.metadata.bundle_id} answers {int(wrong.any(axis=1).sum() + far.sum())} of "
            f"{len(wrong)} golden rows differently than when it was made (with {made_with}): "
            "install those versions or train again."
        )


def joined(first: Answers, second: Answers) -> Answers:
    """The answers of two groups of customers, one behind the other."""
    return Answers(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in Answers.__annotations__))


def build_snapshot(engine: Backend, prepared: Prepared, predictor: Predictor, models_dir: Path) -> tuple[str, int]:
    """Features and answers of every known customer as of `prepared.as_of`; returns the snapshot's id and its size.

    Raises BundleMismatch when the tables' settings are not those that the bundle was trained with.
    """
    check_settings(predictor.metadata, prepared)
    targets, names = predictor.metadata.targets, predictor.metadata.features
    features = build_features(prepared.purchases, prepared.customers, [prepared.as_of], targets)
    buyers = read_matrix(engine, features, names)
    never, ages = _never_bought(engine, prepared, buyers.customer_id)
    answers = joined(predictor.predict(buyers.features), predictor.predict_never_bought(ages))
    unseen = np.full((len(never), len(names)), np.nan, dtype=np.float32)
    snapshot_id = write_snapshot(
        models_dir,
        as_of=prepared.as_of,
        bundle_id=predictor.metadata.bundle_id,
        currency=predictor.metadata.currency,
        targets=targets,
        raw_names=predictor.raw_names,
        customer_ids=[*buyers.customer_id.tolist(), *never.tolist()],
        features=np.concatenate([buyers.features, unseen]),
        answers=answers,
    )
    return snapshot_id, len(buyers.customer_id) + len(never)


def _never_bought(
    engine: Backend, prepared: Prepared, buyers: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.str_], npt.NDArray[np.uint8]]:
    """Ids (n,) of the known customers of whom no purchase stands, ascending, and their registration ages (n,).

    So are those who took back all that they bought, or only ever brought something back.
    """
    since = prepared.customers.customer_since.epoch_days().cast("float64")
    known = engine.to_pyarrow(prepared.customers.select("customer_id", since=since))
    ids = known["customer_id"].to_numpy(zero_copy_only=False).astype(str)
    days = (prepared.as_of - date(1970, 1, 1)).days - known["since"].to_numpy(zero_copy_only=False).astype(np.float64)
    never = np.flatnonzero(~np.isin(ids, buyers))
    never = never[np.argsort(ids[never])]
    return ids[never], registration_ages(days[never])


def check_settings(metadata: BundleMetadata, prepared: Prepared) -> None:
    """Raises BundleMismatch naming each setting of the tables that differs from what the bundle learned from."""
    theirs = {
        "targets": {name: sorted(categories) for name, categories in prepared.config.targets.items()},
        "currency": prepared.config.currency,
        "spend": prepared.config.spend,
    }
    ours = {
        "targets": {name: sorted(categories) for name, categories in metadata.content["target_categories"].items()},
        "currency": metadata.currency,
        "spend": metadata.content["spend"],
    }
    different = [f"{key} = {theirs[key]!r} (bundle: {ours[key]!r})" for key in ours if theirs[key] != ours[key]]
    if different:
        raise BundleMismatch(
            f"Bundle {metadata.bundle_id} was trained with other settings than dataset.toml has now: {'; '.join(different)}. "
            "Train again, or use the tables' own bundle."
        )
