"""How the summary model learns, and how it is judged: on the same windows and with the same purge as the full models.

It sees the training rows with columns masked at random, so that any of them may be missing when it is asked: most rows as a
complete request of one of the forms would tell them, the others with each input known by chance, a chance that is itself
drawn anew per row. In each block of judged windows the models of all forms are the same; what serves a form is chosen on the
selection windows against the rules that the same information allows.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

import numpy as np
import numpy.typing as npt

from ml_pipeline.backtest import (
    NOISE_MARGIN,
    Judged,
    lead_noise,
    learn_level,
    mean_of,
    refuse_overlap,
    selection_windows,
    tells_who_buys,
    why_not,
)
from ml_pipeline.calibration import LevelCalibration
from ml_pipeline.errors import PipelineError
from ml_pipeline.features import AVG_TRANSACTION_VALUE
from ml_pipeline.learners import (
    Effort,
    Fold,
    Learner,
    LightGBMPurchaseLearner,
    LightGBMRateLearner,
    RateLearner,
    Shape,
    XGBoostRateLearner,
    fit_purchases,
    fit_values,
)
from ml_pipeline.members import Member
from ml_pipeline.metrics import MAPE_WEIGHT, explained, rmse, score
from ml_pipeline.progress import Stage
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.summary_columns import (
    SUMMARY_INPUTS,
    FloatArray,
    Matrix,
    columns_of_inputs,
    select_summary,
    summary_columns,
    with_implied,
)
from ml_pipeline.summary_forms import FORMS, BoolArray, as_form, columns_of_form, rules_of_form
from ml_pipeline.summary_members import BG_NBD, LIGHTGBM, MODEL_TYPES, PURCHASE, XGBOOST, SummaryMembers
from ml_pipeline.summary_purchases import SummaryPurchases, purchase_history, purchase_values, tells_purchases
from ml_pipeline.training_set import Observations, WindowPlan

ROWS, QUICK_ROWS = 40_000, 24_000
"""Rows that a fit sees, thorough or quick."""
ROUNDS, QUICK_ROUNDS = 150, 120
LEAST_LEARNING_RATE = 0.08
MOST_COPIES = 4
"""So often a training row is seen at most, each time with another mask."""
HALF_LIFE_DAYS = 180
"""A training row is drawn half as often when it is so many days older: the level of rows without a tenure moves with the shop."""
SHARE_OF_FORMS = 0.7
"""Of the rows: masked as complete requests of the forms, the same number each; the others by chance."""
SHAPE = Shape(leaves=8, least_rows=40, columns=0.9, penalty=5.0, tweedie_power=1.4)
RESAMPLES = 20
MEAN, ZERO = "mean", "zero"
"""The rules that need nothing to be known."""
CHOICE = (
    f"Of each form the model with the highest score (capped R² + D² + normalised Gini − {MAPE_WEIGHT:g} × decile MAPE, mean of "
    "the selection windows) serves if it beats the best rule that the same information allows: in the score by more than "
    f"{NOISE_MARGIN:g} bootstrap standard deviations ({RESAMPLES} paired resamples of customers), and in capped R² + D². Else "
    "that rule serves the form; a mean that could not be judged, since no window had ended before, stands before 0. A model's numbers are corrected by level, by what it was wrong by on the windows before, where "
    "that scores higher. A row of which too little is known for what serves gets the next in the order of scores."
)


class SummaryRateLearner(RateLearner):
    """Over the mean value of a transaction; where it is not known, over what it is on average, for 0 would be a claim."""

    def _feature_of(self, target: str) -> str:
        return AVG_TRANSACTION_VALUE

    def _where_missing(self, seen: Matrix) -> float:
        known = seen[~np.isnan(seen)].astype(np.float64)
        return float(known.mean()) if len(known) else 0.0


class SummaryXGBoostLearner(SummaryRateLearner, XGBoostRateLearner):
    """Tweedie loss."""

    name = XGBOOST


class SummaryLightGBMLearner(SummaryRateLearner, LightGBMRateLearner):
    """Tweedie loss."""

    name = LIGHTGBM


class SummaryPurchaseLearner(LightGBMPurchaseLearner):
    """Whether anything is bought."""

    name = PURCHASE


BOOSTERS: tuple[Learner, ...] = (SummaryXGBoostLearner(), SummaryLightGBMLearner(), SummaryPurchaseLearner())


@dataclass(frozen=True)
class FormContest:
    """One form: what each candidate said (n,) on the judged windows, scores on selection, and the order of what serves.

    told: of the mean only where windows had ended before. levels: of the models whose numbers are corrected by level, as the
    bundle corrects them. serves: names; the first serves, the others where too little is known for it; the last needs
    nothing. left_out: by name, why. purchase: the classifier on rows of this form; purchase_serves: whether it tells more
    than the share of buyers. advantage and noise: of the best model over the best rule, None without models.
    """

    form: str
    told: Mapping[str, Mapping[date, FloatArray]]
    levels: Mapping[str, LevelCalibration]
    scores: Mapping[str, float]
    serves: tuple[str, ...]
    best_rule: str
    advantage: float | None
    noise: float | None
    left_out: Mapping[str, str]
    purchase: Judged
    purchase_serves: bool

    @property
    def served(self) -> str:
        """What serves a complete request of the form."""
        return self.serves[0]


@dataclass(frozen=True)
class SummaryModel:
    """The outcome: a contest per form, and the members that serve, fitted on everything.

    rounds: of the boosters; unused: the inputs that boosters have not learned from, since the history is too short for them.
    """

    contests: Mapping[str, FormContest]
    members: SummaryMembers
    left_out: Mapping[str, str]
    rounds: int
    rows: int
    unused: tuple[str, ...]
    seconds: float


@dataclass
class Fitted:
    """Members fitted before one block, and why others are missing."""

    members: SummaryMembers
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What all fits share. matrix: every observation's summary (n, C); unused: columns (C,) that must not be learned from."""

    observations: Observations
    plan: WindowPlan
    targets: tuple[str, ...]
    effort: Effort
    rows: int
    rounds: int
    matrix: Matrix
    unused: BoolArray


def learn_summary(
    observations: Observations,
    plan: WindowPlan,
    targets: Sequence[str],
    effort: Effort,
    stage: Stage,
    *,
    thorough: bool = False,
) -> SummaryModel:
    """Judges the summary model on the plan's windows and fits it on everything; `stage` advances `count_summary_fits` times.

    Raises LabelOverlap when a fold's labels reach into a judged window.
    """
    started = time.perf_counter()
    bench = _bench(observations, plan, targets, effort, thorough)
    fitted = {}
    for block in plan.blocks:
        stage.doing(f"for windows from {block[0]}")
        refuse_overlap(observations, observations.ended_before(block[0]), block[0])
        fitted[block] = _fit(np.arange(observations.ended_before(block[0]).stop), bench)
        stage.advance()
    stage.doing("on everything")
    final = _fit(np.arange(len(observations)), bench)
    stage.advance()
    left_out = {name: reason for each in (final, *fitted.values()) for name, reason in each.left_out.items()}
    contests = {form: _contest(form, fitted, left_out, bench) for form in FORMS}
    return SummaryModel(
        contests=contests,
        members=final.members.without(left_out),
        left_out=left_out,
        rounds=bench.rounds,
        rows=bench.rows,
        unused=_unused(observations, targets),
        seconds=round(time.perf_counter() - started, 2),
    )


def count_summary_fits(plan: WindowPlan) -> int:
    """How often `learn_summary` advances its stage."""
    return len(plan.blocks) + 1


def _bench(
    observations: Observations,
    plan: WindowPlan,
    targets: Sequence[str],
    effort: Effort,
    thorough: bool,
) -> Bench:
    rows, rounds = (ROWS, ROUNDS) if thorough else (QUICK_ROWS, QUICK_ROUNDS)
    own = replace(effort, learning_rate=max(effort.learning_rate, LEAST_LEARNING_RATE), fit_rows=None)
    return Bench(
        observations,
        plan,
        tuple(targets),
        own,
        rows,
        min(rounds, effort.max_rounds),
        select_summary(observations.features, observations.names, targets),
        np.array([name in observations.unused for name in summary_columns(targets)]),
    )


def _unused(observations: Observations, targets: Sequence[str]) -> tuple[str, ...]:
    """The inputs none of whose columns may be learned from."""
    return tuple(
        name
        for name in SUMMARY_INPUTS
        if (columns := columns_of_inputs([name], targets)) and set(columns) <= set(observations.unused)
    )


# Fitting


def _fit(rows: npt.NDArray[np.int64], bench: Bench) -> Fitted:
    """Every member, learned from these rows; those that cannot be have a reason instead."""
    spend = bench.observations.spend[TOTAL_TARGET][rows]
    mean = float(spend.mean()) if len(rows) else 0.0
    if bench.plan.rules_only:
        return Fitted(SummaryMembers(mean), dict.fromkeys(MODEL_TYPES, bench.plan.rules_only))
    left_out: dict[str, str] = {}
    boosters = _fit_boosters(rows, bench, left_out)
    purchase = boosters.pop(PURCHASE, None)
    purchases = _fit_bg_nbd(rows, bench, left_out)
    return Fitted(SummaryMembers(mean, boosters, purchase, purchases), left_out)


def _fit_boosters(rows: npt.NDArray[np.int64], bench: Bench, left_out: dict[str, str]) -> dict[str, Member]:
    drawn, copies = draw_summary_rows(bench.observations.as_of[rows], bench.rows, bench.effort.seed)
    drawn = rows[drawn]
    masked = mask_at_random(bench.matrix[drawn], bench.targets, bench.effort.seed)
    masked[:, bench.unused] = np.nan
    effort = replace(bench.effort, shape=replace(SHAPE, least_rows=SHAPE.least_rows * copies))
    boosters = {}
    for learner in BOOSTERS:
        labels = bench.observations.bought if learner.name == PURCHASE else bench.observations.spend[TOTAL_TARGET]
        fold = Fold(masked, labels[drawn])
        reason = why_not(Fold(bench.matrix[rows], labels[rows]), learner) or why_not(fold, learner)
        if reason:
            left_out[learner.name] = reason
        else:
            names = summary_columns(bench.targets)
            boosters[learner.name] = learner.fit(fold, names, effort, rounds=bench.rounds).member
    return boosters


def _fit_bg_nbd(rows: npt.NDArray[np.int64], bench: Bench, left_out: dict[str, str]) -> SummaryPurchases | None:
    """On the newest of these rows, where every customer is once; with a ridge where the data leave it open."""
    days = bench.observations.as_of[rows]
    newest = with_implied(bench.matrix[rows[days == days.max()]]) if len(rows) else bench.matrix[:0]
    newest = newest[tells_purchases(newest)]
    try:
        return SummaryPurchases(
            fit_purchases(*purchase_history(newest)),
            fit_values(*purchase_values(newest)),
        )
    except PipelineError as problem:
        left_out[BG_NBD] = str(problem)
        return None


def draw_summary_rows(as_of: npt.NDArray[np.datetime64], wanted: int, seed: int) -> tuple[npt.NDArray[np.int64], int]:
    """Positions to learn from, ascending, and how often each one is in them: about `wanted` in all, rather newer ones."""
    if len(as_of) <= wanted:
        copies = min(max(wanted // max(len(as_of), 1), 1), MOST_COPIES)
        return np.repeat(np.arange(len(as_of)), copies), copies
    age = (as_of.max() - as_of).astype("timedelta64[D]").astype(np.float64)
    weight = 0.5 ** (age / HALF_LIFE_DAYS)
    # the smallest of exponential waits whose rates are the weights: a draw without replacement (Efraimidis & Spirakis 2006)
    waits = np.random.default_rng(seed).exponential(size=len(as_of)) / weight
    return np.sort(np.argpartition(waits, wanted)[:wanted]), 1


def mask_at_random(matrix: Matrix, targets: Sequence[str], seed: int) -> Matrix:
    """Training rows (n, C) of which only part is known, and what that implies; the rest is NaN.

    The columns of the dominant category are one input: known together or not at all.
    """
    known = random_masks(len(matrix), targets, seed)
    return with_implied(np.where(known, matrix, np.float32(np.nan)))


def random_masks(n: int, targets: Sequence[str], seed: int) -> BoolArray:
    """What is known of each of n rows, (n, C): SHARE_OF_FORMS of them as one of the forms, the others by chance.

    Of these each input is known with a probability of the row's own, drawn evenly from 0 to 1.
    """
    rng = np.random.default_rng(seed)
    inputs = [name for name in SUMMARY_INPUTS if columns_of_inputs([name], targets)]
    told = rng.random((n, len(inputs))) < rng.random((n, 1))
    widths = [len(columns_of_inputs([name], targets)) for name in inputs]
    known = np.repeat(told, widths, axis=1)
    whole, form = rng.random(n) < SHARE_OF_FORMS, rng.integers(0, len(FORMS), n)
    for index, name in enumerate(FORMS):
        known[whole & (form == index)] = columns_of_form(name, targets)
    return known


# Judging


def _contest(
    form: str, fitted: Mapping[tuple[date, ...], Fitted], never: Mapping[str, str], bench: Bench
) -> FormContest:
    """never: what is left out of all forms, and why."""
    left_out = {**never, **_too_little(form, bench)}
    names = [name for name in (*rules_of_form(form), *MODEL_TYPES) if name not in left_out]
    told: dict[str, dict[date, FloatArray]] = {name: {} for name in names}
    raw: dict[date, FloatArray] = {}
    for block, before in fitted.items():
        sayable = [name for name in names if name != MEAN or bench.observations.ended_before(block[0]).stop]
        for day in block:
            matrix = with_implied(as_form(bench.matrix[bench.observations.on(day)], form, bench.targets))
            for name in sayable:
                told[name][day] = before.members.spend(name, matrix, bench.effort.threads)
            if before.members.purchase and PURCHASE not in left_out:
                raw[day] = before.members.purchase.predict(matrix, bench.effort.threads)
    purchase = Judged(BOOSTERS[-1], raw, left_out=left_out.get(PURCHASE))
    corrected = {name: _corrected(told[name], bench) for name in names if name in MODEL_TYPES}
    levels = {name: each[1] for name, each in corrected.items() if each is not None}
    told |= {name: each[0] for name, each in corrected.items() if each is not None}
    return _choose(form, told, levels, left_out, purchase, bench)


def _corrected(told: Mapping[date, FloatArray], bench: Bench) -> tuple[dict[date, FloatArray], LevelCalibration] | None:
    """A model's numbers corrected by what it was wrong by on the windows before, and how the bundle corrects them.

    None where its numbers as they are score as high on the selection windows, or nothing was judged before these.
    """
    observations, plan = bench.observations, bench.plan
    judged = Judged(BOOSTERS[0], dict(told))  # whoever said it: what counts of the learner is that it speaks of money

    def level(days: Sequence[date], rows: slice) -> LevelCalibration | None:
        return learn_level(judged, TOTAL_TARGET, days, observations, rows)

    found: dict[date, FloatArray] = {}
    for block in (plan.selection, plan.report):
        learned = level(plan.before(block), observations.ended_before(block[0]))
        if learned is None:
            return None
        found |= {day: learned.apply(told[day]) for day in block}
    served = level(plan.origins, slice(0, len(observations)))

    def mean_score(numbers: Mapping[date, FloatArray]) -> float:
        spend = observations.spend[TOTAL_TARGET]
        return float(np.mean([score(spend[observations.on(day)], numbers[day]) for day in plan.selection]))

    return (found, served) if served and mean_score(found) > mean_score(told) else None


def _too_little(form: str, bench: Bench) -> dict[str, str]:
    """Candidates that a complete request of the form tells too little for."""
    return {} if _allows_bg_nbd(form, bench) else {BG_NBD: "this form does not tell the days since the first purchase"}


def _allows_bg_nbd(form: str, bench: Bench) -> bool:
    kept = columns_of_form(form, bench.targets)
    return bool(tells_purchases(np.where(kept, np.float32(1), np.float32(np.nan))[None, :])[0])


def _choose(
    form: str,
    told: Mapping[str, Mapping[date, FloatArray]],
    levels: Mapping[str, LevelCalibration],
    left_out: Mapping[str, str],
    purchase: Judged,
    bench: Bench,
) -> FormContest:
    judged = {name: by_day for name, by_day in told.items() if set(by_day) >= set(bench.plan.selection)}
    windows = selection_windows(judged, TOTAL_TARGET, bench.plan, bench.observations)
    scores = {name: mean_of(windows, name, score) for name in judged}

    def by_rank(names: Sequence[str]) -> list[str]:
        """The highest score first; where no score is defined the lowest error."""
        return sorted(names, key=lambda name: (-scores[name], mean_of(windows, name, rmse)))

    rules = _with_the_mean(by_rank([name for name in judged if name not in MODEL_TYPES]), told)
    models = by_rank([name for name in judged if name in MODEL_TYPES])
    advantage = noise = None
    beaten = False
    if models:
        best, rule = models[0], rules[0]
        advantage = scores[best] - scores[rule]  # where models take part, windows had ended before: the mean was judged
        noise = lead_noise(windows, best, rule, score, bench.effort.seed, RESAMPLES)
        explains_more = mean_of(windows, best, explained) > mean_of(windows, rule, explained)
        beaten = advantage > NOISE_MARGIN * noise and explains_more
    return FormContest(
        form=form,
        told=told,
        levels=levels,
        scores=scores,
        serves=tuple(_with_a_last([*(models if beaten else ()), *rules])),
        best_rule=rules[0],
        advantage=advantage,
        noise=noise,
        left_out=left_out,
        purchase=purchase,
        purchase_serves=tells_who_buys(purchase, bench.observations, bench.plan),
    )


def _with_the_mean(rules: list[str], told: Mapping[str, object]) -> list[str]:
    """Where no window had ended before the one to select on, the mean could not be judged: it stands before saying 0 to
    everybody, unless that scored higher than what knows something."""
    unjudged = MEAN in told and MEAN not in rules
    return [*rules[:-1], MEAN, ZERO] if unjudged and rules[-1] == ZERO else rules


def _with_a_last(names: Sequence[str]) -> list[str]:
    """The order up to the first that needs nothing to be known: what comes behind it never answers."""
    needless = (XGBOOST, LIGHTGBM, MEAN, ZERO)
    end = next((place for place, name in enumerate(names) if name in needless), len(names) - 1)
    return list(names[: end + 1])
