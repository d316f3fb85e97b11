"""From prepared tables to a promoted bundle and snapshot.

`python -m ml_pipeline.train --data DIR --models DIR [--as-of DATE] [--profile quick|full] [--algorithm NAME]
[--n-samples N] [--promote better|always|never]`
"""

import argparse
import importlib.metadata
import json
import logging
import math
import platform
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
    LearnableRows,
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
from ml_pipeline.bundle import (
    BundleMetadata,
    ServingPair,
    seal_bundle,
    staged_folder,
    versions_dir,
    write_atomically,
)
from ml_pipeline.calibration import share_of_buyers
from ml_pipeline.candidates import (
    ALGORITHMS,
    ALL,
    LEARNERS_OF_ALGORITHM,
    LIGHTGBM,
    OF_EVERY_TARGET,
    PURCHASE,
    XGBOOST,
    name_of,
)
from ml_pipeline.command import (
    add_consent_argument,
    add_engine_arguments,
    add_progress_argument,
    open_progress,
    run_command,
)
from ml_pipeline.contest import (
    BETTER,
    JUDGED,
    POLICIES,
    Incumbent,
    Verdict,
    find_incumbent,
    hold_contest,
    judge,
    save_judged,
)
from ml_pipeline.engine import engine_in
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
from ml_pipeline.refresh import add_folder_arguments, remake_snapshot
from ml_pipeline.sample_ceiling import SampleTruth, find_sample_truth, sample_ceiling
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.search import search_shape
from ml_pipeline.snapshot import money_columns
from ml_pipeline.subgroups import find_regions
from ml_pipeline.summary_members import SummaryMembers
from ml_pipeline.summary_model import count_summary_fits, learn_summary
from ml_pipeline.summary_predictor import GOLDEN as SUMMARY_GOLDEN
from ml_pipeline.summary_predictor import save_summary_golden
from ml_pipeline.summary_report import golden_rows, report_summary, summary_content
from ml_pipeline.targets import net_floor_report
from ml_pipeline.training_set import (
    Observations,
    UnusedFeatures,
    WindowPlan,
    build_observations,
    plan_windows,
    refuse_small_sample,
    sample_customers,
    unused_features,
    without,
)

log = logging.getLogger(__name__)

CONTEST = "contest.json"
SEGMENT_QUANTILES = (0.5, 0.8)
LIBRARIES = ("xgboost", "lightgbm", "scikit-learn", "numpy", "duckdb", "ibis-framework", "matplotlib")
INTEGRATORS = (XGBOOST, LIGHTGBM)


@dataclass(frozen=True)
class Profile:
    """How much work a training does: days between observations, how many, judged windows, effort per fit.

    algorithm: whose models take part, one of ALGORITHMS. n_samples: of how many customers is learned at most; None: as
    many as `most_observations` allow.
    """

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
    algorithm: str = ALL
    n_samples: int | None = None


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


@dataclass(frozen=True)
class Trained:
    """A training's bundle and snapshot, its backtest report, what became of them, and the pair that serves now, if any."""

    pair: ServingPair
    report: dict[str, Any]
    verdict: Verdict
    serving: ServingPair | None
    as_of: date

    def as_json(self) -> dict[str, Any]:
        """For the program that asked. metrics: of the served total on the report windows."""
        total = self.report["targets"][TOTAL_TARGET]["reconciled"]["all"]
        return {
            "bundle": self.pair.bundle_id,
            "snapshot": self.pair.snapshot_id,
            "promoted": self.verdict.promoted,
            "verdict": self.verdict.name,
            "reason": self.verdict.reason,
            "serving": self.serving.bundle_id if self.serving else None,
            "serving_snapshot": self.serving.snapshot_id if self.serving else None,
            "as_of": self.as_of.isoformat(),
            "contest": self.verdict.contest,
            "metrics": {name: value for name, value in total.items() if name != "windows"},
        }


def train(
    engine: Backend,
    prepared: Prepared,
    models_dir: Path,
    profile: Profile,
    progress: Progress,
    truth: SampleTruth | None = None,
    policy: str = BETTER,
) -> Trained:
    """Backtests, fits all members on everything known, seals bundle and snapshot, and has them serve if they are better.

    truth: of the sample shop, if these are its tables; it is only compared with, after everything has been chosen.
    policy: one of POLICIES. Raises NotEnoughHistory when no window fits, TooFewToLearnFrom, FeatureLeak, LabelOverlap.
    """
    targets = prepared.config.target_names
    learning = _observe(engine, prepared, profile, progress)
    plan, observations = learning.plan, learning.observations
    with progress.stage("search", 1) as stage:
        search = search_shape(observations, plan, profile.effort, profile.n_trials)
        stage.advance()
    profile = replace(profile, effort=replace(profile.effort, shape=search.chosen))
    n_fits = count_fits(plan, targets, thorough=profile.thorough, algorithm=profile.algorithm)
    with progress.stage("backtest", n_fits) as stage:
        backtest = run_backtest(
            observations,
            plan,
            targets,
            profile.effort,
            stage,
            thorough=profile.thorough,
            algorithm=profile.algorithm,
        )
        regions = find_regions(engine, prepared.purchases, prepared.stores, observations, plan.report)
        report = {**report_backtest(backtest, observations, targets, regions), "leaks": learning.leaks.as_json()}
    with progress.stage("summary model", count_summary_fits(plan)) as stage:
        summary = learn_summary(observations, plan, targets, profile.effort, stage, thorough=profile.thorough)
        report["summary"] = report_summary(summary, backtest, observations, targets)
    with progress.stage("final models", len(_final_fits(backtest, targets, profile.algorithm))) as stage:
        members = _fit_final(backtest, observations, targets, profile.effort, stage, profile.algorithm)
    with progress.stage("bundle and snapshot", 2) as stage:
        stage.doing("bundle")
        known = {
            "never_bought": never_bought_prior(engine, prepared, plan.learning, targets),
            "net_floor": net_floor(engine, prepared, plan.learning, targets),
            "unused_features": [group.as_json() for group in learning.unused],
            "rules_only": learning.plan.rules_only,
            "buyers": learning.buyers,
            "algorithm": profile.algorithm,
            "summary": summary_content(summary, plan, observations, targets),
            "search": search.as_json(),
        }
        beside: dict[str, Any] = {"timings": fit_seconds(backtest)}
        if truth:
            beside["ceiling"] = _compare_with_truth(truth, engine, prepared, backtest, observations)
        bundle_id = _write_bundle(
            models_dir, prepared, profile, backtest, report, observations, members, summary.members, known, beside
        )
        stage.advance("snapshot")
        predictor = load_predictor(models_dir, bundle_id, profile.effort.threads)
        snapshot_id, n_customers = build_snapshot(engine, prepared, predictor, models_dir)
        stage.advance()
        stage.note(bundle=bundle_id, snapshot=snapshot_id, customers=n_customers)
    with progress.stage("contest", 1) as stage:
        pair = ServingPair(bundle_id, snapshot_id)
        incumbent = find_incumbent(models_dir, prepared, profile.effort.threads)
        contest = None
        if incumbent and incumbent.predictor and incumbent.pair.bundle_id != bundle_id:
            rows = observations if profile.n_samples is None else _rows_of_everyone(engine, prepared, profile, plan)
            contest = hold_contest(incumbent.predictor, incumbent.judgeable, bundle_id, backtest, rows)
            # beside the sealed content and no part of it: a bundle's id must not depend on whom it is compared with
            beside_bundle = versions_dir(models_dir) / bundle_id / CONTEST
            write_atomically(beside_bundle, json.dumps(contest, indent=1).encode())
        verdict = judge(policy, pair, prepared.as_of, incumbent, contest)
        serving = _settle(engine, prepared, models_dir, pair, incumbent, verdict, progress)
        stage.advance()
        stage.note(verdict=verdict.name, promoted=verdict.promoted)
    log.info(verdict.reason, extra={"verdict": verdict.name, "serving": serving.bundle_id if serving else None})
    return Trained(pair, report, verdict, serving, prepared.as_of)


def _rows_of_everyone(engine: Backend, prepared: Prepared, profile: Profile, plan: WindowPlan) -> Observations:
    """The report windows of all customers (or of as many as a training takes): on the few that a training was asked to
    learn from, chance would decide what serves everybody."""
    most = max(profile.most_observations // len(plan.report), 1)
    purchases, customers = sample_customers(engine, prepared.purchases, prepared.customers, most, profile.effort.seed)
    return build_observations(engine, purchases, customers, plan.report, prepared.config.target_names)


def _settle(
    engine: Backend,
    prepared: Prepared,
    models_dir: Path,
    pair: ServingPair,
    incumbent: Incumbent | None,
    verdict: Verdict,
    progress: Progress,
) -> ServingPair | None:
    """Does what the verdict says; the pair that serves then. Raises NotAllowedToServe."""
    if verdict.promoted:
        progress.ask_to_promote()
        promote(models_dir, pair)
        return pair
    if incumbent is None:
        return None
    if verdict.refresh and incumbent.predictor:
        serving, _ = remake_snapshot(engine, prepared, incumbent.predictor, models_dir, incumbent.pair, progress)
        return serving
    return incumbent.pair


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
    refuse_small_sample(profile.n_samples, buyers)
    spacing = profile.spacing_days
    if min(buyers, profile.n_samples or buyers) * profile.most_days > profile.most_observations:
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
        most = min(most, profile.n_samples or most)
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
    backtest: Backtest,
    observations: Observations,
    targets: Sequence[str],
    effort: Effort,
    stage: Stage,
    algorithm: str = ALL,
) -> list[TrainedMember]:
    """The documented members of every target, what else serves, and the classifier, on all observations.

    With the rounds that the backtest found. A model that the newest windows keep from converging is the one that was
    reported: it learns from what had ended before them.
    """
    everything, learnable = np.arange(len(observations)), LearnableRows(observations)
    members = []
    for target, learner, rounds in _final_fits(backtest, targets, algorithm):
        stage.doing(f"{target}: {learner.name}")
        try:
            member = _fit_member(learner, target, rounds, everything, observations, effort, learnable)
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
    learnable: LearnableRows | None = None,
) -> TrainedMember:
    fold = fold_of(observations, rows, learner, target, learnable)
    fitted = learner.fit(fold, observations.names, effort, target=target, rounds=rounds)
    last = observations.as_of[rows[-1]].item()
    return TrainedMember(name_of(learner, target), target, learner, fitted.member, fitted.rounds, last)


def _final_fits(
    backtest: Backtest, targets: Sequence[str], algorithm: str = ALL
) -> list[tuple[str, Learner, int | None]]:
    """Target, learner and rounds of each member of the bundle to be.

    The documented ones are there in any case, and so is the plain model of an algorithm that was asked for alone.
    """
    documented = (*OF_EVERY_TARGET, *LEARNERS_OF_ALGORITHM.get(algorithm, ())[:1])
    fits: list[tuple[str, Learner, int | None]] = []
    if backtest.purchase.raw:
        fits.append((TOTAL_TARGET, PURCHASE, backtest.purchase.rounds))
    for target in (TOTAL_TARGET, *targets):
        contest = backtest.contests[target]
        serves = contest.served.recipe.needs if contest.served.recipe else ()
        fits += [
            (target, judged.learner, judged.rounds)
            for judged in contest.models.values()
            if judged.raw and (judged.learner in documented or judged.learner in serves)
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
    summary: SummaryMembers,
    known: Mapping[str, Any],
    beside: Mapping[str, Any],
) -> str:
    targets = prepared.config.target_names
    content = _metadata(prepared, profile, backtest, observations, members, known)
    with staged_folder(versions_dir(models_dir)) as staging:
        content[JUDGED] = save_judged(staging, backtest)
        (staging / "members").mkdir()
        for trained in members:
            trained.member.save(staging / content["members"][trained.name]["file"])
        summary.save(staging)
        own = {each.name: each.member for each in members}
        draft = Predictor(BundleMetadata("draft", content), own, summary_members=summary)
        golden = np.linspace(0, len(observations) - 1, min(GOLDEN_ROWS, len(observations))).astype(int)
        save_golden(draft, observations.features[golden], staging / GOLDEN)
        save_summary_golden(draft.summary, golden_rows(observations, golden, targets), staging / SUMMARY_GOLDEN)
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
            "n_samples": profile.n_samples,
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
    """The options that all training commands share."""
    add_folder_arguments(parser)
    parser.add_argument("--truth", type=Path, help="the sample shop's truth, for the ceiling (default: DATA_truth)")
    parser.add_argument("--as-of", type=date.fromisoformat, help="train as if this day (YYYY-MM-DD) were today")
    parser.add_argument("--profile", choices=("quick", "full"), default="full")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default=ALL, help="whose models take part (default: all)")
    parser.add_argument("--n-samples", type=int, metavar="N", help="learn from so many customers, drawn by a seed")
    parser.add_argument(
        "--promote",
        choices=POLICIES,
        default=BETTER,
        help="when the new bundle serves: if it beats the one that does on the same windows (default), always, never",
    )
    add_engine_arguments(parser)
    add_progress_argument(parser)
    add_consent_argument(parser)


def prepare_and_train(options: argparse.Namespace, progress: Progress) -> Trained:
    """Prepares the tables and trains on them, in an engine of its own."""
    profile = replace(
        profile_of(options.profile, options.threads), algorithm=options.algorithm, n_samples=options.n_samples
    )
    with engine_in(options.work, options.threads, options.memory_mb) as engine:
        prepared = prepare_dataset(engine, options.data, options.work, options.as_of, progress)
        truth = find_sample_truth(options.data, options.truth)
        return train(engine, prepared, options.models, profile, progress, truth, options.promote)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m ml_pipeline.train`."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.train", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    progress = open_progress(options)
    progress.close(prepare_and_train(options, progress).as_json())
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
