import numpy as np
import pytest

from ml_pipeline.calibration import LevelCalibration, ProbabilityCalibration
from ml_pipeline.candidates import (
    ALGORITHMS,
    BLEND,
    COMPARED,
    LEARNERS_OF_ALGORITHM,
    MODEL,
    OF_EVERY_TARGET,
    OF_THE_TOTAL,
    PURCHASE,
    Learned,
    learners_of,
    member_name,
    name_of,
    recipes_of,
)
from ml_pipeline.features import feature_names
from ml_pipeline.formulas import Known, evaluate, members_of
from ml_pipeline.learners import AMOUNT, MONEY, PROBABILITY

TARGETS = ("total", "grocery", "other")
EVERY_CONTEST = [(target, thorough) for target in TARGETS for thorough in (False, True)]
LEARNED = Learned(
    mean=40.0, total_mean=100.0, shop_share=0.4, calibration=ProbabilityCalibration(1.1, 0.9, 0.0), levels={}
)


@pytest.mark.parametrize(("target", "thorough"), EVERY_CONTEST)
def test_every_recipe_needs_what_its_formula_names_and_only_what_is_fitted(target, thorough):
    fitted = {PURCHASE, *learners_of(target, thorough)}
    for recipe in recipes_of(target, thorough):
        needed = {name_of(learner, target) for learner in recipe.needs}
        assert needed == set(members_of(recipe.formula(LEARNED))), recipe.name
        assert set(recipe.needs) <= fitted, recipe.name


@pytest.mark.parametrize(("target", "thorough"), EVERY_CONTEST)
def test_no_two_candidates_or_members_of_a_target_share_a_name(target, thorough):
    recipes = [recipe.name for recipe in recipes_of(target, thorough)]
    members = [name_of(learner, target) for learner in (PURCHASE, *learners_of(target, thorough))]
    assert len(set(recipes)) == len(recipes)
    assert len(set(members)) == len(members)


@pytest.mark.parametrize(("target", "thorough"), EVERY_CONTEST)
def test_every_candidate_gives_money_from_what_it_needs_alone(target, thorough):
    names = feature_names(("grocery",))
    features = np.ones((3, len(names)), dtype=np.float32)
    for recipe in recipes_of(target, thorough):
        own = {name_of(learner, target): np.array([0.2, 0.5, 0.9]) for learner in recipe.needs}
        known = Known(features, names, ("grocery",), own, None if target == "total" else np.full(3, 50.0))
        predicted = evaluate(recipe.formula(LEARNED), known, target)
        assert predicted.shape == (3,), recipe.name
        assert (predicted > 0).all(), recipe.name


def test_all_that_is_fitted_for_a_target_takes_part_in_its_contest():
    for target, thorough in EVERY_CONTEST:
        used = {learner for recipe in recipes_of(target, thorough) for learner in recipe.needs}
        assert used - {PURCHASE} == set(learners_of(target, thorough)), (target, thorough)


def test_plain_models_stand_before_blends_and_only_money_is_a_plain_model():
    for target, thorough in EVERY_CONTEST:
        kinds = [recipe.kind for recipe in recipes_of(target, thorough)]
        assert kinds == sorted(kinds, key=[MODEL, BLEND].index)
        plain = [recipe.needs for recipe in recipes_of(target, thorough) if recipe.kind == MODEL]
        assert all(len(needs) == 1 and needs[0].kind == MONEY for needs in plain)


def test_the_three_documented_learners_are_fitted_for_total_and_each_target_and_never_for_the_rest():
    for thorough in (False, True):
        for target in ("total", "grocery"):
            assert set(OF_EVERY_TARGET) <= set(learners_of(target, thorough))
        assert learners_of("other", thorough) == ()


def test_what_a_sceptic_would_try_takes_part_where_there_is_time():
    names = {learner.name for learner in COMPARED}
    assert names >= {"linear_regression", "lasso", "bg_nbd", "gradient_boosting", "xgboost_squared", "lightgbm_squared"}
    assert set(COMPARED) <= set(learners_of("total", thorough=True))
    assert not set(COMPARED) & set(learners_of("total", thorough=False))
    assert {learner.kind for learner in OF_THE_TOTAL} == {MONEY, AMOUNT}
    assert PURCHASE.kind == PROBABILITY


def test_only_amounts_modelled_as_logarithms_are_corrected_by_level_and_only_calibrated_hurdles_calibrate():
    levels = LevelCalibration((1.0,), (2.0,))
    log_member = "lightgbm_log_amount_total_spend"
    learned = Learned(
        40.0, 100.0, 0.4, LEARNED.calibration, dict.fromkeys((log_member, "lightgbm_amount_total_spend"), levels)
    )
    formulas = {recipe.name: recipe.formula(learned) for recipe in recipes_of("total", thorough=False)}
    for name in ("hurdle", "calibrated_hurdle", "log_hurdle", "calibrated_log_hurdle"):
        corrected = {amount["name"] for amount in formulas[name]["amounts"] if amount["levels"]}
        assert corrected == ({log_member} if "log" in name else set()), name
        assert (formulas[name]["calibration"] is not None) == name.startswith("calibrated"), name


def test_members_bear_the_documented_names():
    assert member_name("xgboost", "total") == "xgboost_total_spend"
    assert member_name("lightgbm", "grocery") == "lightgbm_grocery"
    assert name_of(PURCHASE, "total") == name_of(PURCHASE, "grocery") == "lightgbm_purchase"


@pytest.mark.parametrize("algorithm", list(LEARNERS_OF_ALGORITHM))
@pytest.mark.parametrize(("target", "thorough"), EVERY_CONTEST)
def test_of_one_algorithm_alone_takes_part_what_needs_no_other(target, thorough, algorithm):
    own = {PURCHASE, *LEARNERS_OF_ALGORITHM[algorithm]}
    learners, recipes = learners_of(target, thorough, algorithm), recipes_of(target, thorough, algorithm)
    assert set(learners) <= own
    assert {learner for recipe in recipes for learner in recipe.needs} <= {PURCHASE, *learners}
    among_all = {recipe.name for recipe in recipes_of(target, True)}
    assert {recipe.name for recipe in recipes} <= among_all
    assert ("share_of_total" in {recipe.name for recipe in recipes}) == (target != "total")
    plain = LEARNERS_OF_ALGORITHM[algorithm][0]
    assert (plain in learners) == (target == "total" or (target != "other" and algorithm != "bg_nbd"))


def test_every_learner_of_a_documented_algorithm_is_of_one_algorithm_alone():
    learners = [learner for own in LEARNERS_OF_ALGORITHM.values() for learner in own]
    assert len(set(learners)) == len(learners)
    assert set(OF_THE_TOTAL) <= set(learners)
    assert ALGORITHMS == ("xgboost", "lightgbm", "random_forest", "bg_nbd", "all")
