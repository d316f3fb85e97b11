"""The time-honest contest: every candidate predicts windows that it has not seen, beside the simple rules.

Three blocks of windows follow each other (`training_set.WindowPlan`). For each a model is fitted on rows whose label
windows had ended before the block; what predictions are wrong by is learned from earlier blocks only; the winner of a
target is chosen on the selection block alone and reported on the later report block.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ml_pipeline.calibration import (
    AS_IT_IS,
    LevelCalibration,
    ProbabilityCalibration,
    agreement,
    fit_level_calibration,
    fit_probability_calibration,
    share_of_buyers,
    trust_in_level,
)
from ml_pipeline.candidates import ALL, CORRECTED, PURCHASE, RULE, Learned, Recipe, learners_of, name_of, recipes_of
from ml_pipeline.errors import LabelOverlap, PipelineError
from ml_pipeline.formulas import Formula, Known, evaluate, rule_formula
from ml_pipeline.learners import AMOUNT, PROBABILITY, Effort, Fold, Learner, MadeOnce
from ml_pipeline.members import Matrix, Member
from ml_pipeline.metrics import MAPE_WEIGHT, explained, rmse, score
from ml_pipeline.progress import Stage
from ml_pipeline.reconcile import TOP_DOWN, Method
from ml_pipeline.reconciliation_choice import (
    ONE_NUMBER,
    ReconciliationChoice,
    ToldWindow,
    choose_reconciliation,
    method_called,
    methods_learned,
)
from ml_pipeline.rules import RULES
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.snapshot import money_columns
from ml_pipeline.training_set import Observations, WindowPlan

FloatArray = npt.NDArray[np.float64]

RESAMPLES = 40
NOISE_MARGIN = 2.0
HOLDOUT = 0.25  # of the customers, to find the number of rounds on
LEAST_ROWS = 50  # fewer rows teach a booster nothing
FEWEST_ROUNDS = 10
SELECTION_RULE = (
    f"A candidate's score is capped R² + D² + normalised Gini − {MAPE_WEIGHT:g} × decile MAPE, averaged over the selection "
    "windows (undefined counts 0); of equal scores the lower RMSE decides. Models and blends are put in order after all "
    "predictions of a window were divided by one factor: the bias of the middle one, to the power of the part of it that the "
    "shop's swings from window to window explain. Of those within one bootstrap standard deviation (of the highest one's "
    "lead over the best rule) of the highest score, the one of most parts is preferred, of equally many the highest. "
    f"It serves if it beats the best rule, predictions as they are, by more than {NOISE_MARGIN:g} such deviations "
    f"({RESAMPLES} paired resamples of customers) both in the score and in capped R² + D² alone; else the best rule serves."
)


@dataclass
class Judged:
    """One fitted model on the judged windows (origin -> its own number (n,)), and what that cost.

    left_out: why there is none, where there is none. on_report: what the report windows were predicted by; only of what
    the served total is made of.
    """

    learner: Learner
    raw: dict[date, FloatArray] = field(default_factory=dict)
    rounds: int | None = None
    seconds: float = 0.0
    left_out: str | None = None
    on_report: Member | None = None


@dataclass
class Candidate:
    """One way to predict one target: its numbers on every selection and report window (origin -> (n,)).

    recipe: None for a rule.
    """

    name: str
    kind: str
    recipe: Recipe | None = None
    predicted: dict[date, FloatArray] = field(default_factory=dict)
    left_out: str | None = None


@dataclass(frozen=True)
class Contest:
    """All candidates of one target, rules first, and which of them serves.

    models: what was fitted for it, by the member's name. advantage: the best model's score minus the best rule's; noise:
    its bootstrap standard deviation; None without models. on_report: what computes the served number on the report
    windows, before it agrees, with what had been learned before them.
    """

    target: str
    models: Mapping[str, Judged]
    candidates: tuple[Candidate, ...]
    scores: Mapping[str, float]
    served: Candidate
    best_rule: Candidate
    advantage: float | None
    noise: float | None
    on_report: Formula = field(default_factory=dict)


@dataclass(frozen=True)
class Agreement:
    """How total and parts are made to agree. serving: by the bundle, with everything that was seen behind it.

    on_report: every method as it was known before the report block; told: the report windows for it. Both are empty
    without named targets.
    """

    choice: ReconciliationChoice = ONE_NUMBER
    serving: Method = field(default_factory=lambda: {"name": TOP_DOWN})
    on_report: tuple[Method, ...] = ()
    told: Mapping[date, ToldWindow] = field(default_factory=dict)


@dataclass(frozen=True)
class Backtest:
    """The outcome: a contest per target, the served numbers after reconciliation, and the purchase classifier.

    purchase_serves: whether the classifier tells more than the plain share of buyers (`tells_who_buys`).
    """

    plan: WindowPlan
    contests: Mapping[str, Contest]
    served: Mapping[date, Mapping[str, FloatArray]]
    purchase: Judged
    purchase_serves: bool
    agreement: Agreement = field(default_factory=Agreement)

    @property
    def reconciliation(self) -> Method:
        """How the bundle makes total and parts agree, as its metadata says it (`reconcile`)."""
        return self.agreement.serving


class LearnableRows:
    """Features of rows of the observations as models may learn from them, each choice of rows made once for all learners."""

    def __init__(self, observations: Observations) -> None:
        self._all = observations.learnable(slice(None)) if observations.unused else observations.features
        self._made: list[tuple[npt.NDArray[np.int64], Matrix, MadeOnce]] = []

    def of(self, rows: npt.NDArray[np.int64]) -> tuple[Matrix, MadeOnce]:
        """The features (n, F) of ascending rows (n,), not to be written to, and what has been made of them."""
        for known, features, made in self._made:
            if np.array_equal(known, rows):
                return features, made
        is_prefix = bool(len(rows)) and int(rows[-1]) == len(rows) - 1
        features, made = self._all[: len(rows)] if is_prefix else self._all[rows], MadeOnce()
        self._made.append((rows, features, made))
        return features, made


@dataclass(frozen=True)
class Bench:
    """What all fits and judgements of one backtest share."""

    observations: Observations
    plan: WindowPlan
    targets: tuple[str, ...]
    effort: Effort
    thorough: bool
    stage: Stage
    algorithm: str = ALL

    @cached_property
    def learnable(self) -> LearnableRows:
        """What the learners of all targets share."""
        return LearnableRows(self.observations)


def run_backtest(
    observations: Observations,
    plan: WindowPlan,
    targets: Sequence[str],
    effort: Effort,
    stage: Stage,
    *,
    thorough: bool = False,
    algorithm: str = ALL,
) -> Backtest:
    """Fits and judges every candidate of every target, and the purchase classifier.

    thorough: also the models that are there for comparison. algorithm: whose models take part. `stage` advances once per fit (`count_fits`). Raises
    LabelOverlap when a fold's labels reach into a judged window.
    """
    for block in plan.blocks:
        refuse_overlap(observations, observations.ended_before(block[0]), block[0])
    bench = Bench(observations, plan, tuple(targets), effort, thorough, stage, algorithm)
    purchase = _judge(PURCHASE, TOTAL_TARGET, bench)
    contests: dict[str, Contest] = {}
    total: Mapping[date, FloatArray] = {}
    for target in money_columns(targets):
        contests[target] = _contest(target, purchase, total, bench)
        if target == TOTAL_TARGET:
            total = contests[target].served.predicted
    served, agreement = _reconciled(contests, purchase, bench)
    return Backtest(plan, contests, served, purchase, tells_who_buys(purchase, observations, plan), agreement)


def count_fits(plan: WindowPlan, targets: Sequence[str], *, thorough: bool = False, algorithm: str = ALL) -> int:
    """How often `run_backtest` advances its stage."""
    if plan.rules_only:
        return 0
    models = 1 + sum(len(learners_of(target, thorough, algorithm)) for target in money_columns(targets))
    return models * (1 + len(plan.blocks))


def refuse_overlap(observations: Observations, rows: slice, origin: date) -> None:
    """Raises LabelOverlap when any of these training rows has a label that reaches to `origin` or beyond."""
    days = observations.as_of[rows]
    if len(days) and days.max() + np.timedelta64(HORIZON_DAYS, "D") > np.datetime64(origin):
        raise LabelOverlap(
            f"Training rows as of {days.max()} have labels until {days.max() + np.timedelta64(HORIZON_DAYS - 1, 'D')}, "
            f"which reaches into the window judged from {origin}: purge rows later than {origin - timedelta(days=HORIZON_DAYS)}."
        )


def usual_shares(observations: Observations, rows: slice, targets: Sequence[str]) -> FloatArray:
    """Each part's share (targets, then other) of all spend in these rows; equal shares when nothing was spent."""
    sums = np.array([observations.spend[name][rows].sum() for name in money_columns(targets)[1:]])
    return sums / sums.sum() if sums.sum() > 0 else np.full(len(sums), 1 / len(sums))


# Fitting


def labels_of(observations: Observations, learner: Learner, target: str) -> FloatArray:
    """What a learner learns (n,): bought or not, or money of the target."""
    return observations.bought if learner.kind == PROBABILITY else observations.spend[target]


def fold_of(
    observations: Observations,
    rows: npt.NDArray[np.int64],
    learner: Learner,
    target: str,
    learnable: LearnableRows | None = None,
) -> Fold:
    """The ascending rows as a learner wants them: an amount is learned from those who bought.

    learnable: shared by folds that are made of the same rows.
    """
    labels = labels_of(observations, learner, target)
    if learner.kind == AMOUNT:
        rows = rows[labels[rows] > 0]
    days = observations.as_of[rows]
    latest = days == days.max() if len(days) else np.zeros(0, dtype=bool)
    past = observations.features[rows] if learner.reads_past and observations.unused else None
    features, made = (learnable or LearnableRows(observations)).of(rows)
    return Fold(features, labels[rows], latest, past, made)


def why_not(fold: Fold, learner: Learner) -> str | None:
    """Why there is nothing to learn from a fold; None where there is."""
    if len(fold.labels) < LEAST_ROWS:
        return f"{len(fold.labels):,} rows to learn from, it takes {LEAST_ROWS}"
    if fold.labels.max() <= 0:
        return "nothing was bought"
    if learner.kind == PROBABILITY and fold.labels.min() > 0:
        return "everybody bought"
    return None


def _judge(learner: Learner, target: str, bench: Bench) -> Judged:
    """Rounds by early stopping on other customers, then one fit per block; nothing where a fold holds nothing to learn."""
    judged = Judged(learner, left_out=bench.plan.rules_only)
    if judged.left_out:
        return judged
    started = time.perf_counter()
    doing = f"{target}: {learner.name}"
    bench.stage.doing(doing)
    try:
        _fit_all(judged, target, bench, doing)
    except PipelineError as problem:
        judged.raw.clear()
        judged.on_report = None
        judged.left_out = str(problem)
    judged.seconds = round(time.perf_counter() - started, 2)
    return judged


def _fit_all(judged: Judged, target: str, bench: Bench, doing: str) -> None:
    observations, learner = bench.observations, judged.learner
    folds = [
        fold_of(observations, np.arange(observations.ended_before(block[0]).stop), learner, target, bench.learnable)
        for block in bench.plan.blocks
    ]
    judged.left_out = next((reason for fold in folds if (reason := why_not(fold, learner))), None)
    if not judged.left_out and learner.stops_early:
        judged.rounds = _find_rounds(learner, target, bench)
    bench.stage.advance(doing)
    for block, fold in zip(bench.plan.blocks, folds, strict=True):
        if not judged.left_out:
            fitted = learner.fit(fold, observations.names, bench.effort, target=target, rounds=judged.rounds)
            if target == TOTAL_TARGET and block == bench.plan.report:
                judged.on_report = fitted.member
            for day in block:
                features = observations.features[observations.on(day)]
                judged.raw[day] = np.maximum(fitted.member.predict(features, bench.effort.threads), 0.0)
        bench.stage.advance(doing)


def _find_rounds(learner: Learner, target: str, bench: Bench) -> int:
    """How many rounds serve customers best who were not learned from, on the windows before all judged ones."""
    observations = bench.observations
    rows = np.arange(observations.ended_before(bench.plan.calibration[0]).stop)
    held_out = hold_out(observations, rows, bench.effort.seed)
    training = fold_of(observations, rows[~held_out], learner, target, bench.learnable)
    validation = fold_of(observations, rows[held_out], learner, target, bench.learnable)
    if why_not(training, learner) or why_not(validation, learner):
        return FEWEST_ROUNDS
    fitted = learner.fit(training, observations.names, bench.effort, target=target, validation=validation)
    return max(fitted.rounds, FEWEST_ROUNDS)


def hold_out(observations: Observations, rows: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.bool_]:
    """Which of these rows (n,) belong to the quarter of the customers that is held out; all rows of one stay together."""
    customers, customer = np.unique(observations.customer_id[rows], return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(customers))
    return order[customer] < HOLDOUT * len(customers)


# From models to candidates


def learn(
    target: str,
    models: Mapping[str, Judged],
    purchase: Judged,
    rows: slice,
    days: Sequence[date],
    observations: Observations,
) -> Learned:
    """What formulas need to know of a target: from `rows`, and from how the models did on the judged `days`."""
    parts = [name for name in observations.spend if name != TOTAL_TARGET]
    share = usual_shares(observations, rows, [name for name in parts if name != OTHER_TARGET])
    return Learned(
        mean=_mean(observations.spend[target][rows]),
        total_mean=_mean(observations.spend[TOTAL_TARGET][rows]),
        shop_share=float(share[parts.index(target)]) if target in parts else 1.0,
        calibration=learn_probability(observations, purchase, days, rows),
        levels={
            name: learn_level(judged, target, days, observations, rows)
            for name, judged in models.items()
            if judged.learner in CORRECTED
        },
    )


def _mean(labels: FloatArray) -> float:
    """0 where no window has ended yet."""
    return float(labels.mean()) if len(labels) else 0.0


def learn_probability(
    observations: Observations, purchase: Judged, days: Sequence[date], rows: slice
) -> ProbabilityCalibration | None:
    """How the classifier's number becomes a probability, from judged `days`; None without any.

    How far their level counts is told by how much the share of buyers swings from window to window up to then.
    """
    if not days or not purchase.raw:
        return None
    return fit_probability_calibration(
        np.concatenate([purchase.raw[day] for day in days]),
        pooled(observations.bought, days, observations),
        _trust(observations.bought, observations, rows, days, purchase),
    )


def learn_level(
    judged: Judged, target: str, days: Sequence[date], observations: Observations, rows: slice
) -> LevelCalibration | None:
    """An amount is corrected for those who bought, all the way; other money for everybody, as far as the level is trusted."""
    if not days or not judged.raw:
        return None
    actual = pooled(observations.spend[target], days, observations)
    predicted = np.concatenate([judged.raw[day] for day in days])
    if judged.learner.kind == AMOUNT:
        return fit_level_calibration(predicted[actual > 0], actual[actual > 0])
    return fit_level_calibration(
        predicted, actual, _trust(observations.spend[target], observations, rows, days, judged)
    )


def tells_who_buys(purchase: Judged, observations: Observations, plan: WindowPlan) -> bool:
    """Whether the calibrated classifier beats the share of buyers on the selection windows, by log loss and beyond noise.

    By more than two standard errors of the mean difference per row.
    """
    if not purchase.raw:
        return False
    block = plan.selection
    rows, earlier = observations.ended_before(block[0]), plan.before(block)
    calibration = learn_probability(observations, purchase, earlier, rows) or AS_IT_IS
    bought = pooled(observations.bought, block, observations)
    told = calibration.apply(np.concatenate([purchase.raw[day] for day in block]))
    rate = share_of_buyers(pooled(observations.bought, earlier, observations))

    def loss(probability: FloatArray | float) -> FloatArray:
        return -(bought * np.log(probability) + (1 - bought) * np.log1p(-probability))

    gained = loss(rate) - loss(told)
    return bool(gained.mean() > NOISE_MARGIN * gained.std() / np.sqrt(len(gained)))


def _trust(
    labels: FloatArray, observations: Observations, rows: slice, days: Sequence[date], judged: Judged | None = None
) -> float:
    """How far the level of labels on `days` is believed.

    Told by how their mean swings from window to window up to then, and by how far the errors of a model on them agree.
    """
    last = max(days)
    past = sorted({*np.unique(observations.as_of[rows]).tolist(), *days})
    steps = [day for day in past if (last - day).days % HORIZON_DAYS == 0 and day <= last]
    trust = trust_in_level([float(labels[observations.on(day)].mean()) for day in steps], len(days))
    if judged is None:
        return trust
    told = [float(judged.raw[day].mean()) for day in days]
    return trust * agreement(told, [float(labels[observations.on(day)].mean()) for day in days])


def _contest(target: str, purchase: Judged, total: Mapping[date, FloatArray], bench: Bench) -> Contest:
    plan, learners = bench.plan, learners_of(target, bench.thorough, bench.algorithm)
    recipes = () if plan.rules_only else recipes_of(target, bench.thorough, bench.algorithm)
    models = {name_of(learner, target): _judge(learner, target, bench) for learner in learners if recipes}
    candidates = [
        *(Candidate(rule.name, RULE, left_out=_unlearned(rule.name, bench)) for rule in RULES),
        *(Candidate(recipe.name, recipe.kind, recipe) for recipe in recipes),
    ]
    for block in (bench.plan.selection, bench.plan.report):
        rows, days = bench.observations.ended_before(block[0]), bench.plan.before(block)
        learned = learn(target, models, purchase, rows, days, bench.observations)
        for candidate in candidates:
            _predict(candidate, target, {**models, PURCHASE.name: purchase}, learned, block, total, bench)
    contest = _choose(target, models, candidates, bench)
    _forget_others(contest)
    return replace(contest, on_report=formula_of(contest.served, learned))


def _forget_others(contest: Contest) -> None:
    """Keeps of the models that the report windows were predicted by only those that the served number is made of."""
    needed = contest.served.recipe.needs if contest.served.recipe else ()
    for judged in contest.models.values():
        if judged.learner not in needed:
            judged.on_report = None


def _unlearned(rule: str, bench: Bench) -> str | None:
    """Why a rule cannot be judged; None where it can: the mean is one of windows that ended before it is judged."""
    if rule != "mean" or bench.observations.ended_before(bench.plan.selection[0]).stop:
        return None
    return "no window had ended before the one to select on"


def _predict(
    candidate: Candidate,
    target: str,
    models: Mapping[str, Judged],
    learned: Learned,
    block: Sequence[date],
    total: Mapping[date, FloatArray],
    bench: Bench,
) -> None:
    needed = [models[name_of(learner, target)] for learner in candidate.recipe.needs] if candidate.recipe else []
    missing = (f"{each.learner.name}: {each.left_out}" for each in needed if not each.raw)
    candidate.left_out = candidate.left_out or next(missing, None)
    if candidate.left_out:
        return
    formula = formula_of(candidate, learned)
    for day in block:
        known = Known(
            features=bench.observations.features[bench.observations.on(day)],
            names=bench.observations.names,
            targets=bench.targets,
            own={name: judged.raw[day] for name, judged in models.items() if judged.raw},
            total=total.get(day),
        )
        candidate.predicted[day] = evaluate(formula, known, target)


def formula_of(candidate: Candidate, learned: Learned) -> Formula:
    """What computes a candidate's number, with everything in it that was learned."""
    return candidate.recipe.formula(learned) if candidate.recipe else rule_formula(candidate.name, learned.mean)


# From candidates to numbers that agree


def _reconciled(
    contests: Mapping[str, Contest], purchase: Judged, bench: Bench
) -> tuple[dict[date, dict[str, FloatArray]], Agreement]:
    """What serves on the selection and report windows, made to agree; each block by what was learned before it."""
    plan = bench.plan
    told = {
        day: window
        for block in plan.blocks
        for day, window in _told(_served_before(block, contests, purchase, bench), block, bench).items()
    }
    learned = {
        block: methods_learned([told[day] for day in days])
        for block, days in ((plan.selection, plan.calibration), (plan.report, plan.before(plan.report)))
    }
    agreement = Agreement()
    if bench.targets:
        choice = choose_reconciliation(
            learned[plan.selection], [told[day] for day in plan.selection], bench.effort.seed
        )
        agreement = Agreement(
            choice,
            serving=method_called(choice.name, methods_learned([told[day] for day in plan.origins])),
            on_report=learned[plan.report],
            told={day: told[day] for day in plan.report},
        )
    served = {
        day: _by_target(told[day].agreed(method_called(agreement.choice.name, methods)), contests)
        for block, methods in learned.items()
        for day in block
    }
    return served, agreement


def _by_target(agreed: FloatArray, targets: Iterable[str]) -> dict[str, FloatArray]:
    return dict(zip(targets, np.ascontiguousarray(agreed.T), strict=True))


def _served_before(
    block: Sequence[date], contests: Mapping[str, Contest], purchase: Judged, bench: Bench
) -> Mapping[str, Mapping[date, FloatArray]]:
    """What serves, before it agrees, on the windows of a block, per target.

    On the calibration block, before which nothing was judged, by formulas that have learned nothing from errors.
    """
    if block != bench.plan.calibration:
        return {target: contest.served.predicted for target, contest in contests.items()}
    rows = bench.observations.ended_before(block[0])
    told: dict[str, Mapping[date, FloatArray]] = {}
    for target, contest in contests.items():
        served = replace(contest.served, predicted={})
        learned = learn(target, contest.models, purchase, rows, (), bench.observations)
        models = {**contest.models, PURCHASE.name: purchase}
        _predict(served, target, models, learned, block, told.get(TOTAL_TARGET, {}), bench)
        told[target] = served.predicted
    return told


def _told(
    predicted: Mapping[str, Mapping[date, FloatArray]], block: Sequence[date], bench: Bench
) -> dict[date, ToldWindow]:
    """The windows of a block with what is predicted per target, none below 0, and what came."""
    observations = bench.observations
    shares = usual_shares(observations, observations.ended_before(block[0]), bench.targets)
    customers = np.unique(observations.customer_id)
    return {
        day: ToldWindow(
            predicted=np.column_stack([np.maximum(each[day], 0.0) for each in predicted.values()]),
            actual=np.column_stack([observations.spend[target][observations.on(day)] for target in predicted]),
            customer=np.searchsorted(customers, observations.customer_id[observations.on(day)]),
            usual_shares=shares,
        )
        for day in block
    }


# Choosing


def _choose(target: str, models: Mapping[str, Judged], candidates: Sequence[Candidate], bench: Bench) -> Contest:
    judged = [candidate for candidate in candidates if candidate.predicted]
    windows = selection_windows({each.name: each.predicted for each in judged}, target, bench.plan, bench.observations)
    seed = bench.effort.seed
    scores = {candidate.name: mean_of(windows, candidate.name, score) for candidate in judged}

    def rank(candidate: Candidate) -> tuple[float, float]:
        """Where everybody spends the same no score is defined, and the first rule (zero) must not win by its place."""
        return scores[candidate.name], -mean_of(windows, candidate.name, rmse)

    rule = max((c for c in judged if c.kind == RULE), key=rank)
    own = [c for c in judged if c.recipe]
    if not own:
        return Contest(target, models, tuple(candidates), scores, rule, rule, None, None)
    calm = _without_shocks(windows, [c.name for c in own], target, bench)
    order = {c.name: (mean_of(calm, c.name, score), -mean_of(calm, c.name, rmse)) for c in own}
    highest = max(own, key=lambda candidate: order[candidate.name])
    near = order[highest.name][0] - lead_noise(calm, highest.name, rule.name, score, seed)
    preferred = max(
        (c for c in own if order[c.name][0] >= near),
        key=lambda candidate: (candidate.recipe.parts if candidate.recipe else 0, *order[candidate.name]),
    )
    advantage = scores[preferred.name] - scores[rule.name]
    noise = lead_noise(windows, preferred.name, rule.name, score, seed)
    explains = mean_of(windows, preferred.name, explained) - mean_of(windows, rule.name, explained)
    beaten = advantage > NOISE_MARGIN * noise and explains > NOISE_MARGIN * lead_noise(
        windows, preferred.name, rule.name, explained, seed
    )
    served = preferred if beaten else rule
    return Contest(target, models, tuple(candidates), scores, served, rule, advantage, noise)


@dataclass(frozen=True)
class SelectionWindow:
    """What came (n,) on one selection window, what each candidate said (n,), by name, and who the customers are (n,).

    customer: a number per customer that is the same in all windows.
    """

    actual: FloatArray
    of: Mapping[str, FloatArray]
    customer: npt.NDArray[np.int64]


Metric = Callable[[FloatArray, FloatArray], float]


def selection_windows(
    told: Mapping[str, Mapping[date, FloatArray]], target: str, plan: WindowPlan, observations: Observations
) -> list[SelectionWindow]:
    """What came of a target on the selection windows, and what each candidate said there. told: name -> day -> (n,)."""
    ids = [observations.customer_id[observations.on(day)] for day in plan.selection]
    customers = np.unique(np.concatenate(ids))
    return [
        SelectionWindow(
            observations.spend[target][observations.on(day)],
            {name: by_day[day] for name, by_day in told.items()},
            np.searchsorted(customers, own),
        )
        for day, own in zip(plan.selection, ids, strict=True)
    ]


def _without_shocks(
    windows: Sequence[SelectionWindow], names: Sequence[str], target: str, bench: Bench
) -> list[SelectionWindow]:
    """The windows without as much of their level as nobody could know, to put models and blends in order.

    All predictions of a window are divided by one factor: the bias of the middle one of `names`, to the power of the part
    of it that the shop's swings explain. Without it the one would win whose own mistake happens to point the way that the
    window went.
    """
    observations, days = bench.observations, bench.plan.selection
    last = max(bench.plan.before(days))
    swing = 1 - _trust(observations.spend[target], observations, observations.ended_before(days[0]), [last])
    calm = []
    for window in windows:
        total = float(window.actual.sum())
        middle = float(np.median([window.of[name].sum() for name in names])) / total if total > 0 else 1.0
        shock = middle**swing if middle > 0 else 1.0
        calm.append(replace(window, of={name: predicted / shock for name, predicted in window.of.items()}))
    return calm


def mean_of(windows: Sequence[SelectionWindow], name: str, metric: Metric) -> float:
    """A candidate's metric, as the mean over windows."""
    return float(np.mean([metric(window.actual, window.of[name]) for window in windows]))


def lead_noise(
    windows: Sequence[SelectionWindow], one: str, other: str, metric: Metric, seed: int, resamples: int = RESAMPLES
) -> float:
    """Standard deviation of the difference of a metric, as the mean over windows, when customers are drawn anew.

    Paired bootstrap (Efron & Tibshirani 1993, chapter 16): both candidates are judged on the same draw, and a customer
    who is drawn twice counts twice in every window.
    """
    rng = np.random.default_rng(seed)
    n = 1 + max(int(window.customer.max()) for window in windows)
    differences = []
    for _ in range(resamples):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        gained = []
        for window in windows:
            rows = np.repeat(np.arange(len(window.actual)), times[window.customer])
            if len(rows):
                actual = window.actual[rows]
                gained.append(metric(actual, window.of[one][rows]) - metric(actual, window.of[other][rows]))
        differences.append(float(np.mean(gained)) if gained else 0.0)
    return float(np.std(differences, ddof=1))


def pooled(labels: FloatArray, days: Sequence[date], observations: Observations) -> FloatArray:
    """Labels (n,) of several windows, one behind the other."""
    return np.concatenate([labels[observations.on(day)] for day in days])


def served_on(backtest: Backtest, days: Sequence[date], target: str) -> FloatArray:
    """Served, reconciled predictions (n,) of several windows, one behind the other."""
    return np.concatenate([backtest.served[day][target] for day in days])
