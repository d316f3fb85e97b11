"""Challenger against incumbent: whether a bundle that was just trained is to serve instead of the one that does.

Both are judged on the same rows: the total before it agrees with its parts, on the report windows of the challenger's own
backtest, which has chosen nothing by them (of all customers, also where it has learned from some). Whoever is judged on a window has learned from nothing that reaches into it:

- the challenger is what its backtest fitted for the report windows;
- the incumbent is itself (its members learned from windows that had ended by its `as_of`) on windows from its `as_of` on,
  and on earlier ones what its own backtest fitted for its report windows, which lies in its bundle under `judged/`;
- windows before that are left out: there the incumbent has seen what it would be asked for.

The higher mean of `metrics.score` serves; of equal ones the incumbent stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import Backtest
from ml_pipeline.bundle import BundleMetadata, ServingPair, check_file, read_pointer, shape_checked, versions_dir
from ml_pipeline.candidates import PURCHASE
from ml_pipeline.errors import BundleMismatch, ModelError, NoServingModel
from ml_pipeline.formulas import Formula, Known, evaluate, members_of
from ml_pipeline.members import Member, load_member
from ml_pipeline.metrics import capped_r2, d2, normalised_gini, score
from ml_pipeline.predictor import Predictor, check_settings, load_predictor
from ml_pipeline.prepare import Prepared
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import snapshot_day
from ml_pipeline.training_set import Observations

FloatArray = npt.NDArray[np.float64]

JUDGED = "judged"
"""The folder in a bundle, and the key of its metadata, of what its report windows were predicted by."""

BETTER, ALWAYS, NEVER = "better", "always", "never"
POLICIES = (BETTER, ALWAYS, NEVER)
"""When a new bundle serves: if it beats the one that does, on request, or not at all."""

SHOWN = {"score": score, "capped_r2": capped_r2, "d2": d2, "normalised_gini": normalised_gini}
"""What is told of both sides; the first decides."""


@dataclass(frozen=True)
class Judgeable:
    """What can predict the total of a window: a formula and its members, and from which day on it may be asked."""

    name: str
    first_day: date
    formula: Formula
    members: Mapping[str, Member]

    def predict(self, observations: Observations, rows: slice, targets: Sequence[str], threads: int) -> FloatArray:
        """The total of these rows (n,), before it agrees with its parts."""
        features = observations.features[rows]
        own = {name: self.members[name].predict(features, threads) for name in members_of(self.formula)}
        predicted = evaluate(self.formula, Known(features, observations.names, targets, own), TOTAL_TARGET)
        if not np.isfinite(predicted).all():
            raise BundleMismatch(f"The {self.name} members predicted a number that is not finite.")
        return predicted


@dataclass(frozen=True)
class Incumbent:
    """What serves when a training ends. as_of: of its snapshot, None where that cannot be read.

    predictor: None where the bundle cannot be compared with; problem says why in a sentence, and other_shop whether it is
    because the tables are of another shop, or of this one under other settings. judgeable: what of it may be asked from
    which day on.
    """

    pair: ServingPair
    as_of: date | None
    predictor: Predictor | None
    problem: str = ""
    other_shop: bool = False
    judgeable: tuple[Judgeable, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger serves, under a name for programs and in a sentence for people.

    refresh: whether the incumbent's snapshot is to be made anew on the challenger's tables. contest: what both scored.
    """

    name: str
    promoted: bool
    reason: str
    refresh: bool = False
    contest: Mapping[str, Any] | None = None


def judged_by(backtest: Backtest) -> Judgeable:
    """What the report windows' total was predicted by."""
    served = backtest.contests[TOTAL_TARGET]
    models = {**served.models, PURCHASE.name: backtest.purchase}
    members: dict[str, Member] = {}
    for name in members_of(served.on_report):
        member = models[name].on_report
        assert member is not None, name
        members[name] = member
    return Judgeable(JUDGED, backtest.plan.report[0], served.on_report, members)


def save_judged(staging: Path, backtest: Backtest) -> dict[str, Any]:
    """Writes what the report windows' total was predicted by into a bundle to be, and says where it is.

    Returns first_day (inclusive) from which on it may be judged, formula, and members with file and library.
    """
    judged = judged_by(backtest)
    members = {}
    (staging / JUDGED).mkdir()
    for name, member in judged.members.items():
        file = f"{JUDGED}/{name}{member.suffix}"
        member.save(staging / file)
        members[name] = {"file": file, "library": member.library}
    return {"first_day": judged.first_day.isoformat(), "formula": judged.formula, "members": members}


def find_incumbent(models_dir: Path, prepared: Prepared, threads: int) -> Incumbent | None:
    """What serves now; None where nothing does. Its bundle is loaded as serving would load it."""
    try:
        pair = read_pointer(models_dir)
    except NoServingModel:
        return None
    except BundleMismatch as problem:
        return Incumbent(ServingPair("", ""), None, None, str(problem))
    as_of = snapshot_day(models_dir, pair.snapshot_id)
    try:
        predictor = load_predictor(models_dir, pair.bundle_id, threads)
        judgeable = judgeable_of(predictor, models_dir)
    except ModelError as problem:
        return Incumbent(pair, as_of, None, str(problem))
    try:
        check_settings(predictor.metadata, prepared)
    except BundleMismatch as problem:
        return Incumbent(pair, as_of, None, str(problem), other_shop=True)
    return Incumbent(pair, as_of, predictor, judgeable=judgeable)


def hold_contest(
    incumbent: Predictor,
    judgeable: Sequence[Judgeable],
    bundle_id: str,
    backtest: Backtest,
    observations: Observations,
) -> dict[str, Any]:
    """Both sides' scores on each comparable report window of the challenger `bundle_id`, their means, what was left out.

    judgeable: of the incumbent (`judgeable_of`). observations: have the rows of the report windows; they need not be those
    that the challenger learned from. Plain JSON values; `means` is None where no window can be compared, and where the
    incumbent fails on these rows: then `problem` says how. Raises BundleMismatch where the challenger does.
    """
    targets, threads, ours = incumbent.metadata.targets, incumbent.threads, judged_by(backtest)
    in_order = _in_order_of(incumbent.metadata, observations)
    windows: list[dict[str, Any]] = []
    left_out: list[str] = []
    problem = None
    for day in backtest.plan.report:
        asked = next((each for each in judgeable if day >= each.first_day), None)
        if asked is None:
            left_out.append(day.isoformat())
            continue
        rows = observations.on(day)
        actual = observations.spend[TOTAL_TARGET][rows]
        told = ours.predict(observations, rows, targets, threads)
        try:
            theirs = asked.predict(in_order, rows, targets, threads)
        except BundleMismatch as found:
            problem = str(found)
            break
        windows.append(
            {
                "as_of": day.isoformat(),
                "rows": len(actual),
                "incumbent_by": asked.name,
                "challenger": _shown(actual, told),
                "incumbent": _shown(actual, theirs),
            }
        )
    comparable = bool(windows) and problem is None
    return {
        "challenger": {"bundle": bundle_id, "serves": backtest.contests[TOTAL_TARGET].served.name},
        "incumbent": {
            "bundle": incumbent.metadata.bundle_id,
            "serves": incumbent.metadata.content["serving"][TOTAL_TARGET]["name"],
        },
        "windows": windows,
        "left_out": left_out,
        "means": {side: _means([window[side] for window in windows]) for side in ("challenger", "incumbent")}
        if comparable
        else None,
        "problem": problem,
    }


def judgeable_of(predictor: Predictor, models_dir: Path) -> tuple[Judgeable, ...]:
    """The bundle as it serves, then what it was judged by, each with the first day that it has seen nothing of.

    Raises BundleMismatch where a file is not what was sealed, or of another shape than this code reads.
    """
    with shape_checked(f"Bundle {predictor.metadata.bundle_id}", BundleMismatch):
        return _judgeable(predictor, versions_dir(models_dir) / predictor.metadata.bundle_id)


def _judgeable(predictor: Predictor, folder: Path) -> tuple[Judgeable, ...]:
    metadata, content = predictor.metadata, predictor.metadata.content
    final = Judgeable("final", metadata.as_of, content["serving"][TOTAL_TARGET]["formula"], predictor.members)
    judged = content.get(JUDGED)
    if judged is None:
        return (final,)
    fitted = {
        name: load_member(each["library"], check_file(folder, content, each["file"]))
        for name, each in judged["members"].items()
    }
    return final, Judgeable(JUDGED, date.fromisoformat(judged["first_day"]), judged["formula"], fitted)


def _in_order_of(metadata: BundleMetadata, observations: Observations) -> Observations:
    """The observations with their features as the bundle has them: dataset.toml may name the targets in another order."""
    if metadata.features == observations.names:
        return observations
    columns = [observations.names.index(name) for name in metadata.features]
    return replace(observations, features=observations.features[:, columns], names=metadata.features)


def _shown(actual: FloatArray, predicted: FloatArray) -> dict[str, float | None]:
    return {name: metric(actual, predicted) for name, metric in SHOWN.items()}


def _means(scored: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in SHOWN:
        defined = [value for each in scored if (value := each[name]) is not None]
        found[name] = float(np.mean(defined)) if defined else None
    return found


def judge(
    policy: str,
    pair: ServingPair,
    as_of: date,
    incumbent: Incumbent | None,
    contest: Mapping[str, Any] | None,
) -> Verdict:
    """What becomes of the challenger `pair`, whose tables are as of `as_of`; `policy` is one of POLICIES.

    Tables that end before those that serve never change over by themselves, whatever they score: what has been sold
    since would no longer be known.
    """
    found = _judge_merits(pair, as_of, incumbent, contest)
    if pair == (incumbent.pair if incumbent else None):
        return found
    if policy == ALWAYS and not found.promoted:
        return Verdict("asked", True, f"It was asked to serve in any case. {found.reason}", contest=contest)
    if policy == NEVER:
        return Verdict("not_asked", False, f"It was asked not to serve. {found.reason}", contest=contest)
    return found


def _judge_merits(
    pair: ServingPair, as_of: date, incumbent: Incumbent | None, contest: Mapping[str, Any] | None
) -> Verdict:
    if incumbent is None:
        return Verdict("first", True, "No other bundle has served in this folder.")
    if incumbent.predictor is None:
        name = "other_shop" if incumbent.other_shop else "unreadable"
        return Verdict(name, True, f"What served cannot be compared with. {incumbent.problem}")
    if incumbent.as_of is not None and as_of < incumbent.as_of:
        reason = (
            f"The tables are as of {as_of}, what serves is as of {incumbent.as_of}: a change back in time is made on "
            "request only (--promote always)."
        )
        return Verdict("older_tables", False, reason, contest=contest)
    newer = incumbent.as_of is None or as_of > incumbent.as_of
    if pair.bundle_id == incumbent.pair.bundle_id:
        changes = pair != incumbent.pair
        reason = "Training gave the very bundle that serves" + (", with a new snapshot." if changes else ".")
        return Verdict("same_bundle", changes, reason)
    if contest is not None and contest["problem"]:
        reason = f"What served fails on these tables. {contest['problem']}"
        return Verdict("unreadable", True, reason, contest=contest)
    if contest is None or contest["means"] is None:
        reason = (
            f"No report window comes after what bundle {incumbent.pair.bundle_id} has seen; --promote always decides."
        )
        return Verdict("no_common_window", False, reason, newer, contest)
    return _by_score(incumbent.pair.bundle_id, newer, contest)


def _by_score(incumbent: str, newer: bool, contest: Mapping[str, Any]) -> Verdict:
    ours, theirs = (contest["means"][side]["score"] for side in ("challenger", "incumbent"))
    n_windows = len(contest["windows"])
    windows = "window" if n_windows == 1 else "windows"
    scores = f"scored {ours:.4f} on {n_windows} common report {windows}, bundle {incumbent} {theirs:.4f}"
    if ours > theirs:
        return Verdict("better", True, f"It {scores}.", contest=contest)
    stays = "its snapshot is made anew on these tables" if newer else "it stays as it is"
    return Verdict("not_better", False, f"It {scores}, which goes on serving: {stays}.", newer, contest)
