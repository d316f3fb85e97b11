"""From prepared tables to a promoted bundle and snapshot.

`python -m ml_pipeline.train --data DIR --models DIR [--as-of DATE] [--profile quick|full]`
"""

import argparse
import importlib.metadata
import json
import logging
import math
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.backtest import (
    Backtest,
    count_fits,
    fold_of,
    formula_of,
    learn,
    learn_probability,
    pooled,
    run_backtest,
    served_on,
    usual_shares,
)
from ml_pipeline.backtest_report import fit_seconds, report_backtest
from ml_pipeline.bundle import BundleMetadata, ServingPair, seal_bundle, staged_folder, versions_dir
from ml_pipeline.calibration import share_of_buyers
from ml_pipeline.candidates import LIGHTGBM, OF_EVERY_TARGET, PURCHASE, XGBOOST, name_of
from ml_pipeline.command import run_command, thread_count
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadSampleRequest, NotEnoughHistory, PipelineError
from ml_pipeline.guardrails import trained_ranges
from ml_pipeline.interval_report import learn_intervals, served_probability
from ml_pipeline.leak_checks import LeakReport, check_for_leaks
from ml_pipeline.learners import Effort, Learner
from ml_pipeline.members import Member
from ml_pipeline.metrics import score_spend
from ml_pipeline.model_card import complete_report, write_model_card
from ml_pipeline.never_bought import never_bought_prior
from ml_pipeline.plots import FOLDER as PLOTS
from ml_pipeline.plots import draw_plots
from ml_pipeline.predictor import (
    CAP_MULTIPLE,
    GOLDEN,
    GOLDEN_ROWS,
    Predictor,
    build_snapshot,
    load_predictor,
    save_golden,
)
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress, Stage
from ml_pipeline.promotion import CARD, promote
from ml_pipeline.reconcile import TOP_DOWN
from ml_pipeline.sample_ceiling import SampleTruth, find_sample_truth, sample_ceiling
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.search import search_shape
from ml_pipeline.snapshot import money_columns
from ml_pipeline.subgroups import find_regions
from ml_pipeline.targets import net_floor_report
from ml_pipeline.training_set import (
    Observations,
    UnusedFeatures,
    WindowPlan,
    build_observations,
    plan_windows,
    sample_customers,
    unused_features,
    without,
)

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
SEGMENT_QUANTILES = (0.5, 0.8)
LIBRARIES = ("xgboost", "lightgbm", "scikit-learn", "numpy", "duckdb", "ibis-framework", "matplotlib")
INTEGRATORS = (XGBOOST, LIGHTGBM)


@dataclass(frozen=True)
class Profile:
    """How much work a training does: days between observations, how many, judged windows, effort per fit."""

    name: str
    spacing_days: int
    most_days: int
    n_calibration: int
    n_selection: int
    n_report: int
    thorough: bool
    most_observations: int
    n_trials: int
    effort: Effort


def profile_of(name: str, threads: int) -> Profile:
    """`quick` trains within about a minute on the default sample, `full` looks at more days, windows and rounds."""
    if name == "quick":
        effort = Effort(
            0.1, max_rounds=300, patience=20, forest_trees=25, forest_rows=6_000, threads=threads, fit_rows=30_000
        )
        return Profile(
            name,
            30,
            13,
            n_calibration=1,
            n_selection=1,
            n_report=1,
            thorough=False,
            most_observations=150_000,
            n_trials=0,
            effort=effort,
        )
    effort = Effort(
        0.05, max_rounds=800, patience=40, forest_trees=40, forest_rows=10_000, threads=threads, fit_rows=100_000
    )
    return Profile(
        name,
        15,
        24,
        n_calibration=2,
        n_selection=2,
        n_report=2,
        thorough=True,
        most_observations=300_000,
        n_trials=7,
        effort=effort,
    )


@dataclass(frozen=True)
class TrainedMember:
    """A member of the bundle to be and what the metadata says of it. last_as_of: the newest day it learned from."""

    name: str
    target: str
    learner: Learner
    member: Member
    rounds: int
    last_as_of: date


def train(
    engine: Backend,
    prepared: Prepared,
    models_dir: Path,
    profile: Profile,
    progress: Progress,
    truth: SampleTruth | None = None,
) -> tuple[ServingPair, dict[str, Any]]:
    """Backtests, fits all members on everything known, seals bundle and snapshot, promotes the pair.

    truth: of the sample shop, if these are its tables; it is only compared with, after everything has been chosen.
    Returns the pair and the backtest report. Raises NotEnoughHistory when no window fits, FeatureLeak, LabelOverlap.
    """
    targets = prepared.config.target_names
    learning = _observe(engine, prepared, profile, progress)
    plan, observations = learning.plan, learning.observations
    search = search_shape(observations, plan, profile.effort, profile.n_trials)
    profile = replace(profile, effort=replace(profile.effort, shape=search.chosen))
    with progress.stage("backtest", count_fits(plan, targets, thorough=profile.thorough)) as stage:
        backtest = run_backtest(observations, plan, targets, profile.effort, stage, thorough=profile.thorough)
        regions = find_regions(engine, prepared.purchases, prepared.stores, observations, plan.report)
        report = {**report_backtest(backtest, observations, targets, regions), "leaks": learning.leaks.as_json()}
    with progress.stage("final models", len(_final_fits(backtest, targets))) as stage:
        members = _fit_final(backtest, observations, targets, profile.effort, stage)
    with progress.stage("bundle and snapshot", 3) as stage:
        stage.doing("bundle")
        known = {
            "never_bought": never_bought_prior(engine, prepared, plan.learning, targets),
            "net_floor": net_floor(engine, prepared, plan.learning, targets),
            "unused_features": [group.as_json() for group in learning.unused],
            "rules_only": learning.plan.rules_only,
            "buyers": learning.buyers,
            "search": search.as_json(),
        }
        beside: dict[str, Any] = {"timings": fit_seconds(backtest)}
        if truth:
            beside["ceiling"] = _compare_with_truth(truth, engine, prepared, backtest, observations)
        bundle_id = _write_bundle(models_dir, prepared, profile, backtest, report, observations, members, known, beside)
        stage.advance("snapshot")
        predictor = load_predictor(models_dir, bundle_id, profile.effort.threads)
        snapshot_id, n_customers = build_snapshot(engine, prepared, predictor, models_dir)
        stage.advance("promotion")
        pair = ServingPair(bundle_id, snapshot_id)
        promote(models_dir, pair)
        stage.advance()
        stage.note(bundle=bundle_id, snapshot=snapshot_id, customers=n_customers)
    return pair, report


@dataclass(frozen=True)
class Learning:
    """What a training learns from. unused: features that are blanked out; buyers: how many the shop has in all."""

    plan: WindowPlan
    observations: Observations
    leaks: LeakReport
    unused: tuple[UnusedFeatures, ...]
    buyers: int


def _observe(engine: Backend, prepared: Prepared, profile: Profile, progress: Progress) -> Learning:
    """Observations for the profile's days, of a sample of customers where there are too many, checked for leaks."""
    targets = prepared.config.target_names
    first_day, buyers = _first_day_and_buyers(engine, prepared)
    spacing = profile.spacing_days
    if buyers * profile.most_days > profile.most_observations:
        spacing = max(spacing, HORIZON_DAYS)
    plan = plan_windows(
        first_day,
        prepared.as_of,
        spacing_days=spacing,
        most_days=profile.most_days * profile.spacing_days // spacing,
        n_calibration=profile.n_calibration,
        n_selection=profile.n_selection,
        n_report=profile.n_report,
    )
    with progress.stage("features", 2) as stage:
        stage.doing(f"{len(plan.learning)} days")
        most = max(profile.most_observations // len(plan.learning), 1)
        purchases, customers = sample_customers(
            engine, prepared.purchases, prepared.customers, most, profile.effort.seed
        )
        observations = build_observations(engine, purchases, customers, plan.learning, targets)
        stage.advance("leak checks")
        leaks = check_for_leaks(engine, purchases, customers, observations, plan, targets)
        stage.advance()
        stage.note(observations=len(observations), as_of_days=len(plan.learning), features=len(observations.names))
    unused = unused_features(first_day, plan, targets)
    return Learning(plan, without(observations, unused), leaks, unused, buyers)


def _first_day_and_buyers(engine: Backend, prepared: Prepared) -> tuple[date, int]:
    bought = prepared.purchases.filter(prepared.purchases.spend_units > 0)
    # who took back all that he bought is described by nothing; the first day must have somebody who stays
    first_day = bought.day.min(where=bought.cancelled_on.isnull())
    facts = engine.execute(bought.aggregate(day=first_day, buyers=bought.customer_id.nunique()))
    first = facts["day"][0]
    if first is None or first != first:
        raise NotEnoughHistory(
            f"There is no valid purchase before {prepared.as_of}: nothing to learn from. "
            "The data report says which rows were set aside and why."
        )
    return date.fromisoformat(str(first)[:10]), int(facts["buyers"][0])


def _compare_with_truth(
    truth: SampleTruth, engine: Backend, prepared: Prepared, backtest: Backtest, observations: Observations
) -> dict[str, Any] | None:
    """The served total beside the sample's ceiling and oracle on the same rows of the report windows.

    None, with a warning, where the truth turns out to be that of other tables.
    """
    days = backtest.plan.report
    try:
        if prepared.last_day > truth.shop.last_day:
            raise BadSampleRequest(f"the truth in {truth.folder} ends on {truth.shop.last_day}, these tables later.")
        ceiling = sample_ceiling(truth, engine, prepared, days)
    except BadSampleRequest as problem:
        log.warning("no ceiling: %s", problem)
        return None
    served = []
    for day in ceiling.days:
        rows = observations.on(day.as_of)
        own = dict(zip(observations.customer_id[rows], backtest.served[day.as_of][TOTAL_TARGET], strict=True))
        shared = np.array([customer in own for customer in day.customer_id])
        predicted = np.array([own[customer] for customer in day.customer_id[shared]])
        served.append(score_spend(day.actual[TOTAL_TARGET][shared], predicted))
    by_metric = {name: [scores[name] for scores in served] for name in served[0]}
    means = {
        name: None if None in values else float(np.mean(np.array(values, float))) for name, values in by_metric.items()
    }
    return {"days": [day.isoformat() for day in days], "served": means, **ceiling.scores(TOTAL_TARGET)}


def _fit_final(
    backtest: Backtest, observations: Observations, targets: Sequence[str], effort: Effort, stage: Stage
) -> list[TrainedMember]:
    """The documented members of every target, what else serves, and the classifier, on all observations.

    With the rounds that the backtest found. A model that the newest windows keep from converging is the one that was
    reported: it learns from what had ended before them.
    """
    everything = np.arange(len(observations))
    members = []
    for target, learner, rounds in _final_fits(backtest, targets):
        stage.doing(f"{target}: {learner.name}")
        try:
            member = _fit_member(learner, target, rounds, everything, observations, effort)
        except PipelineError as problem:
            log.warning("fitted without the newest windows", extra={"member": learner.name, "why": str(problem)})
            as_reported = everything[observations.ended_before(backtest.plan.report[0])]
            member = _fit_member(learner, target, rounds, as_reported, observations, effort)
        members.append(member)
        stage.advance()
    return members


def _fit_member(
    learner: Learner,
    target: str,
    rounds: int | None,
    rows: npt.NDArray[np.int64],
    observations: Observations,
    effort: Effort,
) -> TrainedMember:
    fold = fold_of(observations, rows, learner, target)
    fitted = learner.fit(fold, observations.names, effort, target=target, rounds=rounds)
    last = observations.as_of[rows[-1]].item()
    return TrainedMember(name_of(learner, target), target, learner, fitted.member, fitted.rounds, last)


def _final_fits(backtest: Backtest, targets: Sequence[str]) -> list[tuple[str, Learner, int | None]]:
    """Target, learner and rounds of each member of the bundle to be."""
    fits: list[tuple[str, Learner, int | None]] = []
    if backtest.purchase.raw:
        fits.append((TOTAL_TARGET, PURCHASE, backtest.purchase.rounds))
    for target in (TOTAL_TARGET, *targets):
        contest = backtest.contests[target]
        serves = contest.served.recipe.needs if contest.served.recipe else ()
        fits += [
            (target, judged.learner, judged.rounds)
            for judged in contest.models.values()
            if judged.raw and (judged.learner in OF_EVERY_TARGET or judged.learner in serves)
        ]
    return fits


def net_floor(
    engine: Backend, prepared: Prepared, days: Sequence[date], targets: Sequence[str]
) -> dict[str, dict[str, float]] | None:
    """How often and how much the floor at 0 took from the labels, per target; None where returns are not subtracted."""
    if prepared.config.spend != "net":
        return None
    rows = engine.to_pyarrow(net_floor_report(prepared.purchases, days, targets)).to_pylist()
    by_target = {row.pop("target"): row for row in rows}
    return {name: by_target[name] for name in money_columns(targets)}


def _write_bundle(
    models_dir: Path,
    prepared: Prepared,
    profile: Profile,
    backtest: Backtest,
    report: Mapping[str, Any],
    observations: Observations,
    members: Sequence[TrainedMember],
    known: Mapping[str, Any],
    beside: Mapping[str, Any],
) -> str:
    targets = prepared.config.target_names
    content = _metadata(prepared, profile, backtest, observations, members, known)
    with staged_folder(versions_dir(models_dir)) as staging:
        (staging / "members").mkdir()
        for trained in members:
            trained.member.save(staging / content["members"][trained.name]["file"])
        draft = Predictor(BundleMetadata("draft", content), {each.name: each.member for each in members})
        golden = np.linspace(0, len(observations) - 1, min(GOLDEN_ROWS, len(observations))).astype(int)
        save_golden(draft, observations.features[golden], staging / GOLDEN)
        performance = complete_report(report, content, prepared.report)
        (staging / "backtest.json").write_text(json.dumps(performance, indent=1, allow_nan=False), "utf-8")
        (staging / "data_report.json").write_text(json.dumps(prepared.report, indent=1, default=str), "utf-8")
        (staging / PLOTS).mkdir()
        for name, picture in draw_plots(performance, content["currency"]).items():
            (staging / name).write_bytes(picture)
        write_model_card(staging / CARD, content, performance, targets)
        return seal_bundle(staging, models_dir, content, beside)


def _metadata(
    prepared: Prepared,
    profile: Profile,
    backtest: Backtest,
    observations: Observations,
    members: Sequence[TrainedMember],
    known: Mapping[str, Any],
) -> dict[str, Any]:
    targets, plan = prepared.config.target_names, backtest.plan
    everything = slice(0, len(observations))
    days = (*plan.selection, *plan.report)
    probability = served_probability(backtest, observations, days, plan.origins, everything)
    learned = learn_intervals(backtest, observations, targets, days, probability)
    return {
        "as_of": prepared.as_of.isoformat(),
        "currency": prepared.config.currency,
        "spend": prepared.config.spend,
        "timezone": prepared.config.timezone,
        "dayfirst": prepared.config.dayfirst,
        "horizon_days": HORIZON_DAYS,
        "profile": profile.name,
        "targets": list(targets),
        "target_categories": {name: list(categories) for name, categories in prepared.config.targets.items()},
        "features": list(observations.names),
        "trained_on": {
            "as_of": prepared.as_of.isoformat(),
            "first_as_of": plan.learning[0].isoformat(),
            "last_as_of": plan.learning[-1].isoformat(),
            "as_of_days": len(plan.learning),
            "observations": len(observations),
            "customers": len(np.unique(observations.customer_id)),
            "seed": profile.effort.seed,
        },
        "libraries": {
            "python": platform.python_version(),
            **{name: _version(name) for name in LIBRARIES},
        },
        "members": {
            trained.name: {
                "file": f"members/{trained.name}{trained.member.suffix}",
                "library": trained.member.library,
                "target": trained.target,
                "kind": trained.learner.kind,
                "rounds": trained.rounds,
                "last_as_of": trained.last_as_of.isoformat(),
                "integrators": trained.learner in INTEGRATORS,
            }
            for trained in members
        },
        "serving": _serving(backtest, observations),
        "usual_shares": usual_shares(observations, everything, targets).tolist(),
        "reconciliation": backtest.reconciliation,
        "ranges": trained_ranges(observations.learnable(everything), observations.names),
        "intervals": {name: each.as_json() for name, each in learned.of_one.items()},
        "sums": {name: each.as_json() for name, each in learned.of_sums.items()},
        "probability": _probability(backtest, observations, members),
        "segments": {
            "quantiles": list(SEGMENT_QUANTILES),
            "thresholds": _segment_thresholds(backtest, observations, served_on(backtest, days, TOTAL_TARGET)),
        },
        **known,
    }


def _version(name: str) -> str | None:
    """Of an installed package; xgboost has a second name without CUDA."""
    for candidate in (name, f"{name}-cpu"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _serving(backtest: Backtest, observations: Observations) -> dict[str, Any]:
    """Per target the candidate that serves and its formula, learned anew on everything that has been seen."""
    everything = slice(0, len(observations))
    served = {}
    for target, contest in backtest.contests.items():
        learned = learn(target, contest.models, backtest.purchase, everything, backtest.plan.origins, observations)
        served[target] = {
            "kind": contest.served.kind,
            "name": contest.served.name,
            "formula": formula_of(contest.served, learned),
            "cap": CAP_MULTIPLE * float(observations.spend[target].max()),
            "cap_multiple": CAP_MULTIPLE,
        }
    return served


def _segment_thresholds(backtest: Backtest, observations: Observations, judged: npt.NDArray[np.float64]) -> list[float]:
    """Quantiles of the judged predictions; where a constant serves and stays as it is, nobody is above it."""
    constants = {"zero": 0.0, "mean": float(observations.spend[TOTAL_TARGET].mean())}
    served = backtest.contests[TOTAL_TARGET].served.name
    if served in constants and backtest.reconciliation["name"] == TOP_DOWN:
        return [math.ceil(constants[served] * 100) / 100] * len(SEGMENT_QUANTILES)
    return np.quantile(judged, SEGMENT_QUANTILES).tolist()


def _probability(backtest: Backtest, observations: Observations, members: Sequence[TrainedMember]) -> dict[str, Any]:
    days, everything = backtest.plan.origins, slice(0, len(observations))
    if not backtest.purchase_serves or all(each.learner is not PURCHASE for each in members):
        return {"kind": "rate", "rate": share_of_buyers(pooled(observations.bought, days, observations))}
    calibration = learn_probability(observations, backtest.purchase, days, everything)
    return {
        "kind": "model",
        "member": PURCHASE.name,
        "calibration": calibration.as_json() if calibration else None,
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that all training commands share; relative defaults are those of the repository."""
    parser.add_argument("--data", type=Path, default=ROOT / "pymind_dataset", help="folder of the tables")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="where bundles and snapshots go")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "pipeline", help="reports, quarantine, spill files")
    parser.add_argument("--truth", type=Path, help="the sample shop's truth, for the ceiling (default: DATA_truth)")
    parser.add_argument("--as-of", type=date.fromisoformat, help="train as if this day (YYYY-MM-DD) were today")
    parser.add_argument("--profile", choices=("quick", "full"), default="full")
    parser.add_argument("--threads", type=thread_count, default=os.cpu_count() or 1)


def prepare_and_train(options: argparse.Namespace, progress: Progress) -> tuple[ServingPair, dict[str, Any]]:
    """Prepares the tables and trains on them, in an engine of its own."""
    options.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="engine-") as engine_dir:
        engine = open_engine(Path(engine_dir), threads=options.threads)
        try:
            prepared = prepare_dataset(engine, options.data, options.work, options.as_of, progress)
            profile, truth = (
                profile_of(options.profile, options.threads),
                find_sample_truth(options.data, options.truth),
            )
            return train(engine, prepared, options.models, profile, progress, truth)
        finally:
            engine.disconnect()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m ml_pipeline.train`."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.train", description=__doc__)
    add_arguments(parser)
    prepare_and_train(parser.parse_args(arguments), Progress())
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
