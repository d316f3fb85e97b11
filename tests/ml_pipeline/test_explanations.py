"""Reasons in money: they add up to what is answered, whatever serves and however the parts are made to agree."""

from dataclasses import replace

import numpy as np
import pytest

from ml_pipeline.attribution import Contributions, of_contributions
from ml_pipeline.bundle import BundleMetadata
from ml_pipeline.calibration import LevelCalibration, ProbabilityCalibration
from ml_pipeline.candidates import COMPARED, OF_THE_TOTAL, PURCHASE, name_of
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.explanations import agree, attributed, explain
from ml_pipeline.formulas import (
    Known,
    Reasons,
    attribute,
    blend_formula,
    evaluate,
    hurdle_formula,
    member_formula,
    rule_formula,
    share_formula,
)
from ml_pipeline.learners import AMOUNT, PROBABILITY, Effort, Fold
from ml_pipeline.reconcile import PLAIN_METHODS, fit_mint
from ml_pipeline.rules import RULES
from ml_pipeline.schema import OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.snapshot import money_columns

EFFORT = Effort(learning_rate=0.2, max_rounds=15, patience=5, forest_trees=4, forest_rows=500, threads=1)
LEVELS = LevelCalibration((np.log(10.0), np.log(100.0), np.log(1000.0)), (0.8, 1.3, 1.0))
CALIBRATION = ProbabilityCalibration(a=1.3, b=0.8, c=-0.2)
NO_CAP = 1e12
CENT = 0.01 + 1e-9


@pytest.fixture(scope="module")
def buyers(trained_shop):
    """Features (n, F) of all customers that bought."""
    features = trained_shop.snapshot.features(range(trained_shop.snapshot.n_customers))
    return np.ascontiguousarray(features[~np.isnan(features).all(axis=1)])


@pytest.fixture(scope="module")
def own_models(trained_shop, buyers):
    """One small model of every learner, by its name in a bundle, learned from made-up spend that depends on the features."""
    names = trained_shop.predictor.metadata.features
    rng = np.random.default_rng(11)
    rate = np.nan_to_num(buyers[:, names.index("ew_spend_rate_120d")])
    spend = (rate + 5) * rng.gamma(1.0, 1.0, len(buyers)) * (rng.random(len(buyers)) < 0.6)
    members = {}
    for learner in (PURCHASE, *OF_THE_TOTAL, *COMPARED):
        rows = spend > 0 if learner.kind == AMOUNT else np.ones(len(spend), dtype=bool)
        labels = (spend > 0).astype(float) if learner.kind == PROBABILITY else spend[rows]
        fitted = learner.fit(Fold(buyers[rows], labels), names, EFFORT, rounds=15)
        members[name_of(learner, TOTAL_TARGET)] = fitted.member
    return members


def hurdle(amounts, calibrated):
    return hurdle_formula(PURCHASE.name, amounts, CALIBRATION if calibrated else None)


def total_formulas(own_models):
    """Every kind of formula that may serve the total."""
    rate, tweedie = member_formula("lightgbm_rate_total_spend"), member_formula("xgboost_total_spend")
    amounts = [("lightgbm_amount_total_spend", None), ("lightgbm_amount_over_usual_total_spend", None)]
    log_hurdle = hurdle([("lightgbm_log_amount_total_spend", LEVELS)], calibrated=True)
    plain = {
        f"member {name}": member_formula(name) for name in own_models if name != PURCHASE.name and "amount" not in name
    }
    return {
        **plain,
        **{f"rule {rule.name}": rule_formula(rule.name, 60.0) for rule in RULES},
        "rate by level": member_formula("lightgbm_rate_total_spend", LEVELS),
        "line by level": member_formula("linear_regression_total_spend", LEVELS),
        "hurdle": hurdle(amounts, calibrated=False),
        "calibrated hurdle": hurdle(amounts, calibrated=True),
        "log hurdle": log_hurdle,
        "geometric": blend_formula("geometric", [hurdle(amounts, calibrated=True), rate, tweedie]),
        "geometric with zeros": blend_formula("geometric", [rate, rule_formula("last_30_days", 60.0), tweedie]),
        "arithmetic": blend_formula("arithmetic", [rate, rule_formula("last_30_days", 60.0)]),
        "nested": blend_formula("arithmetic", [blend_formula("geometric", [log_hurdle, tweedie]), rate]),
    }


TOTAL_FORMULAS = (
    *(f"member {name_of(learner, TOTAL_TARGET)}" for learner in (*OF_THE_TOTAL, *COMPARED) if learner.kind != AMOUNT),
    *(f"rule {rule.name}" for rule in RULES),
    "rate by level",
    "line by level",
    "hurdle",
    "calibrated hurdle",
    "log hurdle",
    "geometric",
    "geometric with zeros",
    "arithmetic",
    "nested",
)


def serving(predictor, own_models, formulas, method=None):
    """A predictor that serves these formulas, without a cap, and makes them agree by the method."""
    content = predictor.metadata.content
    entries = {
        name: {**content["serving"][name], "formula": formulas[name], "cap": NO_CAP}
        for name in money_columns(predictor.metadata.targets)
    }
    changed = {**content, "serving": entries, "reconciliation": method or content["reconciliation"]}
    return replace(
        predictor,
        metadata=BundleMetadata("made-up", changed),
        members={**predictor.members, **own_models},
    )


def part_formulas(predictor):
    """A different kind for each part."""
    shares = share_formula(200.0, 0.3)
    kinds = [
        blend_formula("arithmetic", [member_formula("lightgbm_rate_total_spend", LEVELS), shares]),
        shares,
        rule_formula("lifetime_rate_x_30", 30.0),
    ]
    parts = dict(zip(predictor.metadata.targets, kinds, strict=True))
    return {**parts, OTHER_TARGET: share_formula(200.0, 0.2)}


def mint(predictor, n=300):
    rng = np.random.default_rng(2)
    parts = rng.gamma(1.0, 30.0, (n, len(predictor.metadata.targets) + 1))
    predicted = np.column_stack([parts.sum(axis=1) * rng.lognormal(0, 0.1, n), parts])
    return fit_mint(predicted, predicted * rng.lognormal(0, 0.5, predicted.shape))


def assert_explained(predictor, features, found=None):
    """Adds up to the answer, and nothing but rounding is left without a reason."""
    found = found or explain(predictor, features)
    answered = predictor.predict(features).money / 100
    np.testing.assert_array_equal(found.money, answered)
    total = found.baseline + found.contributions.sum(axis=2) + found.adjustment
    np.testing.assert_allclose(total, found.money, atol=1e-6)
    allowed = CENT + 3e-6 * np.maximum(found.money, found.baseline)  # XGBoost keeps 7 digits
    np.testing.assert_array_less(np.abs(found.adjustment), np.broadcast_to(allowed, found.adjustment.shape))
    assert np.isfinite(found.contributions).all()
    assert found.baseline[0] == pytest.approx(found.baseline[1:].sum())
    return found


def test_the_reasons_of_all_customers_add_up_to_what_the_snapshot_answers(trained_shop, buyers):
    found = assert_explained(trained_shop.predictor, buyers)
    moved = np.abs(found.money - found.baseline)
    attributed_mostly = np.abs(found.adjustment) <= 0.1 * moved
    assert (attributed_mostly.mean(axis=0) >= 0.95).all()
    assert (np.abs(found.contributions).sum(axis=2) > 0).all()


@pytest.mark.parametrize("name", TOTAL_FORMULAS)
def test_the_reasons_add_up_whatever_serves_the_total(trained_shop, buyers, own_models, name):
    formula = total_formulas(own_models)[name]
    parts = part_formulas(trained_shop.predictor)
    predictor = serving(trained_shop.predictor, own_models, {TOTAL_TARGET: formula, **parts})
    assert_explained(predictor, buyers)


def test_every_kind_of_formula_for_the_total_is_listed(own_models):
    assert set(TOTAL_FORMULAS) == set(total_formulas(own_models))


@pytest.mark.parametrize("target", ["electronics", OTHER_TARGET])
@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_the_reasons_add_up_whatever_rule_serves_a_part(trained_shop, buyers, own_models, rule, target):
    formulas = part_formulas(trained_shop.predictor) | {target: rule_formula(rule, 25.0)}
    total = member_formula("xgboost_total_spend")
    assert_explained(serving(trained_shop.predictor, own_models, {TOTAL_TARGET: total, **formulas}), buyers)


@pytest.mark.parametrize("method", [*(each["name"] for each in PLAIN_METHODS), "mint"])
@pytest.mark.parametrize("parts", ["various", "last 30 days", "last 30 days against 0", "nothing"])
def test_the_reasons_add_up_however_the_parts_are_made_to_agree(trained_shop, buyers, own_models, method, parts):
    """Also of customers all of whose parts are 0, where the parts' baselines are 0, and where all always are."""
    predictor = trained_shop.predictor
    rule = {
        "last 30 days": rule_formula("last_30_days", 30.0),
        "last 30 days against 0": rule_formula("last_30_days", 0.0),
        "nothing": rule_formula("zero", 0.0),
    }
    formulas = part_formulas(predictor)
    if parts != "various":
        formulas = dict.fromkeys(formulas, rule[parts])
    formulas[TOTAL_TARGET] = member_formula("xgboost_total_spend")
    learned = mint(predictor) if method == "mint" else {"name": method}
    assert_explained(serving(predictor, own_models, formulas, learned), buyers)


@pytest.mark.parametrize("method", [*(each["name"] for each in PLAIN_METHODS), "mint"])
def test_what_is_no_reason_of_anybody_can_be_shuffled(trained_shop, buyers, own_models, method):
    predictor = trained_shop.predictor
    formulas = {TOTAL_TARGET: member_formula("lasso_total_spend"), **part_formulas(predictor)}
    predictor = serving(predictor, own_models, formulas, mint(predictor) if method == "mint" else {"name": method})
    found = explain(predictor, buyers)
    silent = (found.contributions == 0).all(axis=(0, 1))
    varying = np.array([len(np.unique(column[~np.isnan(column)])) > 1 for column in buyers.T])
    assert (silent & varying).sum() > 10
    shuffled = buyers.copy()
    shuffled[:, silent] = np.random.default_rng(4).permutation(buyers)[:, silent]
    np.testing.assert_array_equal(predictor.predict(shuffled).money, predictor.predict(buyers).money)


def test_what_is_no_reason_of_anybody_in_the_trained_shop_can_be_shuffled(trained_shop, buyers):
    found = explain(trained_shop.predictor, buyers)
    silent = (found.contributions == 0).all(axis=(0, 1))
    shuffled = buyers.copy()
    shuffled[:, silent] = np.random.default_rng(4).permutation(buyers)[:, silent]
    np.testing.assert_array_equal(
        trained_shop.predictor.predict(shuffled).money, trained_shop.predictor.predict(buyers).money
    )


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
@pytest.mark.parametrize("target", [TOTAL_TARGET, "grocery", OTHER_TARGET])
def test_a_rule_has_reasons_exactly_in_the_columns_that_change_it(trained_shop, buyers, rule, target):
    names, targets = trained_shop.predictor.metadata.features, trained_shop.predictor.metadata.targets
    formula = rule_formula(rule, 25.0)
    found = attribute(formula, Reasons(buyers, names, targets, {}), target)
    reasons = {names[index] for index in np.flatnonzero((found.logs != 0).any(axis=0))}
    before = evaluate(formula, Known(buyers, names, targets, {}), target)
    changing = set()
    for index, name in enumerate(names):
        changed = buyers.copy()
        changed[:, index] = np.nan_to_num(changed[:, index]) * 3 + 50
        if (evaluate(formula, Known(changed, names, targets, {}), target) != before).any():
            changing.add(name)
    assert reasons == changing


@pytest.mark.parametrize("method", ["top_down", "mint"])
def test_a_customer_alone_has_the_reasons_that_he_has_among_all(trained_shop, buyers, own_models, method):
    predictor = trained_shop.predictor
    formulas = {TOTAL_TARGET: total_formulas(own_models)["nested"], **part_formulas(predictor)}
    predictor = serving(predictor, own_models, formulas, mint(predictor) if method == "mint" else {"name": method})
    found = explain(predictor, buyers)
    for row in (0, 7, len(buyers) - 1):
        alone = explain(predictor, buyers[row : row + 1])
        np.testing.assert_array_equal(alone.contributions[0], found.contributions[row])
        np.testing.assert_array_equal(alone.adjustment[0], found.adjustment[row])
        np.testing.assert_array_equal(alone.baseline, found.baseline)


def test_more_customers_than_are_taken_at_once_are_explained(trained_shop, buyers, monkeypatch):
    at_once = explain(trained_shop.predictor, buyers)
    monkeypatch.setattr("ml_pipeline.explanations.ROWS_AT_ONCE", 100)
    np.testing.assert_array_equal(explain(trained_shop.predictor, buyers).contributions, at_once.contributions)


def test_nobody_is_explained_as_nobody(trained_shop, buyers):
    found = explain(trained_shop.predictor, buyers[:0])
    assert found.contributions.shape == (0, 5, buyers.shape[1])
    np.testing.assert_array_equal(found.baseline, explain(trained_shop.predictor, buyers[:1]).baseline)


def test_what_the_cap_cuts_off_is_the_adjustment(trained_shop, buyers, own_models):
    formulas = {TOTAL_TARGET: member_formula("xgboost_total_spend"), **part_formulas(trained_shop.predictor)}
    free = serving(trained_shop.predictor, own_models, formulas)
    before = explain(free, buyers)
    cap = float(np.median(before.money[:, 0]))
    entries = {name: {**each, "cap": cap} for name, each in free.metadata.content["serving"].items()}
    capped = replace(free, metadata=BundleMetadata("capped", {**free.metadata.content, "serving": entries}))
    found = explain(capped, buyers)
    np.testing.assert_array_equal(found.contributions, before.contributions)
    over = before.money[:, 0] > cap
    np.testing.assert_allclose(found.adjustment[over, 0], cap - before.money[over, 0], rtol=1e-5, atol=0.02)


def test_a_customer_at_the_shops_mix_has_no_reason_in_it(trained_shop, buyers):
    """And one who buys more of a target than the shop has half of it for its rate, half for the rate of everything."""
    names, targets = trained_shop.predictor.metadata.features, trained_shop.predictor.metadata.targets
    features = np.zeros((2, len(names)), dtype=np.float32)
    rate, own = (names.index(name) for name in ("ew_spend_rate_120d", "ew_spend_rate_120d_grocery"))
    features[:, rate] = 100
    features[:, own] = (30, 60)
    whole = of_contributions(Contributions("log", float(np.log(100.0)), np.zeros((2, len(names)))))
    found = attribute(share_formula(80.0, 0.3), Reasons(features, names, targets, {}, whole), "grocery")
    np.testing.assert_allclose(found.value, [30.0, 100 * (60 + 0.3 * 40) / 140])
    np.testing.assert_allclose(found.logs[0], 0, atol=1e-7)
    assert found.logs[1, own] == found.logs[1, rate] == pytest.approx(np.log(72 / 140 / 0.3) / 2)


def test_the_baseline_is_what_the_models_say_of_someone_usual(trained_shop, buyers):
    """Not a customer's: it does not move with who is asked for, and it is of the size of what is answered."""
    found = explain(trained_shop.predictor, buyers)
    assert (found.baseline > found.money.min(axis=0)).all()
    assert (found.baseline < found.money.max(axis=0)).all()
    np.testing.assert_array_equal(found.baseline, explain(trained_shop.predictor, buyers[-5:]).baseline)


def test_reasons_before_agreement_are_those_of_each_number_alone(trained_shop, buyers):
    told = attributed(trained_shop.predictor, buyers)
    content = trained_shop.predictor.metadata.content
    own = {
        name: trained_shop.predictor.members[name].predict(buyers) for name in trained_shop.predictor.needed_members()
    }
    served = trained_shop.predictor.served(
        Known(buyers, trained_shop.predictor.metadata.features, trained_shop.predictor.metadata.targets, own)
    )
    np.testing.assert_allclose(np.column_stack([each.value for each in told]), served, rtol=1e-5, atol=1e-6)
    agreed = agree({"name": "top_down"}, told, np.array(content["usual_shares"]))
    np.testing.assert_array_equal(agreed.contributions[0], told[0].money)


def test_a_reconciliation_that_this_code_does_not_know_is_refused_by_name(trained_shop, buyers):
    told = attributed(trained_shop.predictor, buyers[:2])
    shares = np.array(trained_shop.predictor.metadata.content["usual_shares"])
    with pytest.raises(BundleMismatch, match="'middle_out'"):
        agree({"name": "middle_out"}, told, shares)


def test_a_kind_of_formula_that_this_code_does_not_know_is_refused_by_name(trained_shop, buyers):
    names, targets = trained_shop.predictor.metadata.features, trained_shop.predictor.metadata.targets
    with pytest.raises(BundleMismatch, match="serves grocery by 'median'"):
        attribute({"kind": "median"}, Reasons(buyers, names, targets, {}), "grocery")


def test_a_share_is_not_explained_before_the_total_is(trained_shop, buyers):
    names, targets = trained_shop.predictor.metadata.features, trained_shop.predictor.metadata.targets
    with pytest.raises(ValueError, match="share of grocery was asked for before the total"):
        attribute(share_formula(80.0, 0.3), Reasons(buyers, names, targets, {}), "grocery")


def test_features_of_another_width_are_refused(trained_shop):
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        explain(trained_shop.predictor, np.zeros((1, 3), dtype=np.float32))
