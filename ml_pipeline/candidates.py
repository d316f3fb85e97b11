"""Which models are fitted for a target, and which candidates are made of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ml_pipeline.calibration import LevelCalibration, ProbabilityCalibration
from ml_pipeline.formulas import (
    Formula,
    blend_formula,
    hurdle_formula,
    member_formula,
    share_formula,
)
from ml_pipeline.learners import (
    AMOUNT,
    MONEY,
    BgNbdLearner,
    ForestLearner,
    GradientBoostingLearner,
    LassoLearner,
    Learner,
    LightGBMAmountLearner,
    LightGBMAmountOverUsualLearner,
    LightGBMBgNbdLearner,
    LightGBMLearner,
    LightGBMLogAmountLearner,
    LightGBMPurchaseLearner,
    LightGBMRateLearner,
    LightGBMSquaredLearner,
    LinearRegressionLearner,
    XGBoostLearner,
    XGBoostRateLearner,
    XGBoostSquaredLearner,
)
from ml_pipeline.schema import OTHER_TARGET, TOTAL_TARGET

RULE, MODEL, BLEND = "rule", "model", "blend"

PURCHASE = LightGBMPurchaseLearner()
FOREST, XGBOOST, LIGHTGBM = ForestLearner(), XGBoostLearner(), LightGBMLearner()
AMOUNTS, USUAL_AMOUNTS, LOG_AMOUNTS = (
    LightGBMAmountLearner(),
    LightGBMAmountOverUsualLearner(),
    LightGBMLogAmountLearner(),
)
RATE = LightGBMRateLearner()

CORRECTED: tuple[Learner, ...] = (LOG_AMOUNTS, RATE)
"""Whose numbers are also taken corrected by level."""

OF_EVERY_TARGET: tuple[Learner, ...] = (FOREST, XGBOOST, LIGHTGBM)
OF_THE_TOTAL: tuple[Learner, ...] = (*OF_EVERY_TARGET, RATE, AMOUNTS, USUAL_AMOUNTS, LOG_AMOUNTS)
BG_NBD = BgNbdLearner()
XGBOOST_SQUARED, XGBOOST_RATE = XGBoostSquaredLearner(), XGBoostRateLearner()
LIGHTGBM_SQUARED, LIGHTGBM_BG_NBD = LightGBMSquaredLearner(), LightGBMBgNbdLearner()
COMPARED: tuple[Learner, ...] = (
    LinearRegressionLearner(),
    LassoLearner(),
    BG_NBD,
    GradientBoostingLearner(),
    XGBOOST_SQUARED,
    LIGHTGBM_SQUARED,
    XGBOOST_RATE,
    LIGHTGBM_BG_NBD,
)
"""What a sceptic would try; they take part in the contest for the total where time allows."""

ALL = "all"
LEARNERS_OF_ALGORITHM: Mapping[str, tuple[Learner, ...]] = {
    "xgboost": (XGBOOST, XGBOOST_SQUARED, XGBOOST_RATE),
    "lightgbm": (LIGHTGBM, RATE, AMOUNTS, USUAL_AMOUNTS, LOG_AMOUNTS, LIGHTGBM_SQUARED, LIGHTGBM_BG_NBD),
    "random_forest": (FOREST,),
    "bg_nbd": (BG_NBD,),
}
"""Whose models take part where one algorithm is to be trained alone, beside the rules and the usual shares."""
ALGORITHMS = (*LEARNERS_OF_ALGORITHM, ALL)


@dataclass(frozen=True)
class Learned:
    """What a formula's numbers come from: rows whose windows have ended, and windows that were predicted before.

    mean: of the target over these rows; total_mean: of the total; shop_share: the target's part of all spend.
    calibration and levels (by member): None where no window was predicted before.
    """

    mean: float
    total_mean: float
    shop_share: float
    calibration: ProbabilityCalibration | None
    levels: Mapping[str, LevelCalibration | None]


@dataclass(frozen=True)
class Recipe:
    """One candidate of a target: its name, the learners whose members it needs, its formula, and of how many parts."""

    name: str
    kind: str
    needs: tuple[Learner, ...]
    formula: Callable[[Learned], Formula]
    parts: int = 1


def learners_of(target: str, thorough: bool, algorithm: str = ALL) -> tuple[Learner, ...]:
    """What is fitted for a target besides the purchase classifier; nothing for what is left beside the named ones."""
    if target == OTHER_TARGET:
        return ()
    if algorithm == BG_NBD.name:
        return (BG_NBD,) if target == TOTAL_TARGET else ()
    own = LEARNERS_OF_ALGORITHM.get(algorithm)
    return tuple(learner for learner in _every_learner(target, thorough) if own is None or learner in own)


def _every_learner(target: str, thorough: bool) -> tuple[Learner, ...]:
    if target == TOTAL_TARGET:
        return (*(COMPARED if thorough else ()), *OF_THE_TOTAL)
    return (*OF_EVERY_TARGET, RATE) if thorough else OF_EVERY_TARGET


def recipes_of(target: str, thorough: bool, algorithm: str = ALL) -> tuple[Recipe, ...]:
    """Every model and blend that takes part in the contest for a target, the plain models first.

    Of one algorithm alone: what needs no other's models; the purchase classifier is always there.
    """
    learners = learners_of(target, thorough, algorithm)
    plain = tuple(_plain(learner, target) for learner in learners if learner.kind == MONEY)
    fitted = {PURCHASE, *learners}
    return (*plain, *(recipe for recipe in _made_of_several(target, thorough) if fitted.issuperset(recipe.needs)))


def _made_of_several(target: str, thorough: bool) -> tuple[Recipe, ...]:
    """Corrected models, hurdles, shares and blends."""
    if target == TOTAL_TARGET:
        return (_calibrated_rate(TOTAL_TARGET), *_hurdles(), *_blends_of_the_total())
    share = Recipe("share_of_total", BLEND, (), lambda learned: share_formula(learned.total_mean, learned.shop_share))
    if target == OTHER_TARGET:
        return (share,)
    rates = (_plain(RATE, target), _calibrated_rate(target)) if thorough else ()
    own = (_plain(LIGHTGBM, target), _plain(XGBOOST, target), *rates)
    return (*rates[1:], share, *(_with_share(recipe, share) for recipe in own))


def member_name(learner: str, target: str) -> str:
    """The documented name of a money model: `xgboost_total_spend`, `lightgbm_grocery`."""
    return f"{learner}_{TOTAL_TARGET}_spend" if target == TOTAL_TARGET else f"{learner}_{target}"


def name_of(learner: Learner, target: str) -> str:
    """The member's name in a bundle; there is one purchase classifier."""
    return learner.name if learner.name == PURCHASE.name else member_name(learner.name, target)


def _plain(learner: Learner, target: str) -> Recipe:
    return Recipe(learner.name, MODEL, (learner,), lambda learned: member_formula(name_of(learner, target)))


def _calibrated_rate(target: str) -> Recipe:
    def formula(learned: Learned) -> Formula:
        name = name_of(RATE, target)
        return member_formula(name, learned.levels.get(name))

    return Recipe(f"calibrated_{RATE.name}", MODEL, (RATE,), formula)


def _with_share(own: Recipe, share: Recipe) -> Recipe:
    def formula(learned: Learned) -> Formula:
        return blend_formula("arithmetic", [own.formula(learned), share.formula(learned)])

    return Recipe(f"{own.name} + {share.name}", BLEND, own.needs, formula, parts=2)


def _hurdle(name: str, amounts: Sequence[Learner], calibrated: bool) -> Recipe:
    def formula(learned: Learned) -> Formula:
        def amount(learner: Learner) -> tuple[str, LevelCalibration | None]:
            member = name_of(learner, TOTAL_TARGET)
            return member, learned.levels.get(member) if learner is LOG_AMOUNTS else None

        return hurdle_formula(
            PURCHASE.name, [amount(learner) for learner in amounts], learned.calibration if calibrated else None
        )

    assert all(learner.kind == AMOUNT for learner in amounts)
    return Recipe(name, BLEND, (PURCHASE, *amounts), formula)


def _hurdles() -> tuple[Recipe, ...]:
    gamma, log = (AMOUNTS, USUAL_AMOUNTS), (LOG_AMOUNTS,)
    return (
        _hurdle("hurdle", gamma, calibrated=False),
        _hurdle("calibrated_hurdle", gamma, calibrated=True),
        _hurdle("log_hurdle", log, calibrated=False),
        _hurdle("calibrated_log_hurdle", log, calibrated=True),
    )


def _blends_of_the_total() -> tuple[Recipe, ...]:
    hurdle, calibrated, log, calibrated_log = _hurdles()
    rate, tweedie, other = (_plain(learner, TOTAL_TARGET) for learner in (RATE, LIGHTGBM, XGBOOST))
    calibrated_rate = _calibrated_rate(TOTAL_TARGET)
    return tuple(
        _blend(parts)
        for parts in (
            (hurdle, rate),
            (hurdle, log),
            (hurdle, tweedie),
            (hurdle, rate, other),
            (calibrated, calibrated_rate),
            (calibrated, calibrated_log),
            (calibrated, calibrated_log, calibrated_rate),
        )
    )


def _blend(parts: Sequence[Recipe]) -> Recipe:
    def formula(learned: Learned) -> Formula:
        return blend_formula("geometric", [part.formula(learned) for part in parts])

    needs = dict.fromkeys(learner for part in parts for learner in part.needs)
    return Recipe(" + ".join(part.name for part in parts), BLEND, tuple(needs), formula, parts=len(parts))
