import json

import numpy as np
import pytest

from ml_pipeline.calibration import LevelCalibration, ProbabilityCalibration
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.features import decayed_rate_name, feature_names, spend_window_name
from ml_pipeline.formulas import (
    SHARE_DAYS,
    SHARE_PULL,
    Known,
    blend_formula,
    calibrated_probability,
    evaluate,
    geometric_mean,
    hurdle_formula,
    member_formula,
    members_of,
    rule_formula,
    share_formula,
)

TARGETS = ("grocery", "sports")
NAMES = feature_names(TARGETS)
CALIBRATION = ProbabilityCalibration(a=1.2, b=0.8, c=-0.1)
LEVELS = LevelCalibration((np.log(10.0), np.log(1000.0)), (1.0, 4.0))


def known(own=None, total=None, **columns):
    n = len(next(iter([*columns.values(), *(own or {}).values()])))
    features = np.full((n, len(NAMES)), np.nan, dtype=np.float32)
    for name, values in columns.items():
        features[:, NAMES.index(name)] = values
    asked = {name: np.array(values, dtype=float) for name, values in (own or {}).items()}
    return Known(features, NAMES, TARGETS, asked, None if total is None else np.array(total, dtype=float))


def rates(total, grocery, sports):
    names = [decayed_rate_name(SHARE_DAYS, each) for each in (None, *TARGETS)]
    return dict(zip(names, (total, grocery, sports), strict=True))


def through_json(formula):
    """As it comes out of a bundle's metadata."""
    return json.loads(json.dumps(formula, allow_nan=False))


def test_a_rule_reads_the_history_of_its_target():
    columns = {spend_window_name(90): [90.0, 9.0], spend_window_name(90, "grocery"): [30.0, np.nan]}
    formula = through_json(rule_formula("last_90_days_over_3", mean=5.0))
    assert evaluate(formula, known(**columns), "total").tolist() == [30.0, 3.0]
    assert evaluate(formula, known(**columns), "grocery").tolist() == [10.0, 0.0]
    assert evaluate(rule_formula("mean", mean=5.0), known(**columns), "total").tolist() == [5.0, 5.0]


def test_a_member_speaks_for_itself_and_never_below_zero():
    assert evaluate(member_formula("tree"), known({"tree": [3.0, -1.0]}), "total").tolist() == [3.0, 0.0]


def test_a_member_may_be_corrected_by_level():
    formula = through_json(member_formula("tree", LEVELS))
    predicted = evaluate(formula, known({"tree": [10.0, 100.0, -1.0, 1000.0]}), "total")
    assert predicted == pytest.approx([10.0, 200.0, 0.0, 4000.0])


def test_a_hurdle_is_probability_times_the_geometric_mean_of_amounts():
    own = {"buys": [0.5, 0.2], "low": [40.0, 9.0], "high": [90.0, 4.0]}
    formula = through_json(hurdle_formula("buys", [("low", None), ("high", None)], None))
    np.testing.assert_allclose(evaluate(formula, known(own), "total"), [0.5 * 60, 0.2 * 6], rtol=1e-12)


def test_a_calibrated_hurdle_corrects_the_probability_and_the_amounts_each_by_its_own():
    own = {"buys": [0.5, 0.2], "log": [10.0, 100.0]}
    formula = through_json(hurdle_formula("buys", [("log", LEVELS)], CALIBRATION))
    expected = []
    for p, amount, factor in ((0.5, 10.0, 1.0), (0.2, 100.0, 2.0)):
        logit = 1.2 * np.log(p) - 0.8 * np.log(1 - p) - 0.1
        expected.append(amount * factor / (1 + np.exp(-logit)))
    np.testing.assert_allclose(evaluate(formula, known(own), "total"), expected, rtol=1e-12)
    np.testing.assert_allclose(
        calibrated_probability(np.array([0.5, 0.2]), formula["calibration"]) * [10.0, 200.0], expected, rtol=1e-12
    )


def test_a_hurdle_without_calibration_keeps_the_classifiers_number():
    assert calibrated_probability(np.array([0.5, 0.25]), None) == pytest.approx([0.5, 0.25])


def test_a_share_is_the_customers_usual_mix_pulled_to_the_shops():
    columns = rates(total=[100.0, 0.0, np.nan], grocery=[30.0, 0.0, np.nan], sports=[20.0, 0.0, np.nan])
    formula = through_json(share_formula(mean=50.0, shop_share=0.4))
    pull = SHARE_PULL * 50.0
    share = evaluate(formula, known(total=[10.0, 10.0, 10.0], **columns), "grocery")
    np.testing.assert_allclose(share, [10 * (30 + 0.4 * pull) / (100 + pull), 4.0, 4.0], rtol=1e-12)
    other = evaluate(formula, known(total=[10.0, 10.0, 10.0], **columns), "other")
    np.testing.assert_allclose(other, [10 * (50 + 0.4 * pull) / (100 + pull), 4.0, 4.0], rtol=1e-12)


def test_a_share_of_a_shop_where_nothing_was_spent_is_the_shops_own():
    columns = rates(total=[0.0], grocery=[0.0], sports=[0.0])
    assert evaluate(share_formula(0.0, 0.4), known(total=[10.0], **columns), "grocery").tolist() == [4.0]


def test_a_part_never_exceeds_the_total_it_is_a_share_of():
    columns = rates(total=[5.0], grocery=[50.0], sports=[0.0])
    assert evaluate(share_formula(1.0, 1.0), known(total=[10.0], **columns), "grocery") <= 10.0
    assert evaluate(share_formula(1.0, 0.0), known(total=[10.0], **columns), "other").tolist() == [0.0]


def test_a_share_that_is_asked_for_before_the_total_says_so():
    columns = rates(total=[1.0], grocery=[1.0], sports=[0.0])
    with pytest.raises(ValueError, match="share of grocery was asked for before the total"):
        evaluate(share_formula(1.0, 0.5), known(**columns), "grocery")


def test_a_blend_is_the_mean_that_it_names():
    own = {"one": [4.0, 0.0, 8.0], "two": [9.0, 6.0, 27.0], "three": [1.0, 3.0, 1.0]}
    pair = [member_formula("one"), member_formula("two")]
    assert evaluate(blend_formula("geometric", pair), known(own), "total") == pytest.approx([6.0, 0.0, 6 * 6**0.5])
    assert evaluate(blend_formula("arithmetic", pair), known(own), "total").tolist() == [6.5, 3.0, 17.5]
    three = [*pair, member_formula("three")]
    assert evaluate(blend_formula("geometric", three), known(own), "total")[2] == pytest.approx(6.0)


def test_blends_nest():
    own = {"one": [4.0], "two": [9.0], "buys": [0.5], "amount": [20.0]}
    inner = blend_formula("geometric", [member_formula("one"), member_formula("two")])
    outer = blend_formula("arithmetic", [inner, hurdle_formula("buys", [("amount", None)], None)])
    assert evaluate(through_json(outer), known(own), "total") == pytest.approx([8.0])


def test_one_part_alone_stays_bit_for_bit():
    part = np.random.default_rng(0).lognormal(3, 2, 1000)
    np.testing.assert_array_equal(geometric_mean([part]), part)


def test_a_formula_names_every_member_that_it_needs_once():
    hurdle = hurdle_formula("buys", [("low", None), ("high", None)], None)
    formula = blend_formula("geometric", [hurdle, member_formula("rate"), blend_formula("arithmetic", [hurdle])])
    assert members_of(formula) == ("buys", "low", "high", "rate")
    assert members_of(rule_formula("zero", 0.0)) == members_of(share_formula(1.0, 0.5)) == ()


def test_a_formula_asks_for_no_member_that_it_does_not_name():
    """Members that are missing are noticed, not counted as 0."""
    own = {"buys": [0.5], "low": [1.0]}
    with pytest.raises(KeyError, match="high"):
        evaluate(hurdle_formula("buys", [("low", None), ("high", None)], None), known(own), "total")


def test_a_kind_that_this_code_does_not_know_is_refused_by_name():
    with pytest.raises(BundleMismatch, match="serves grocery by 'median', which this code does not know: train again"):
        evaluate({"kind": "median", "parts": []}, known({"x": [1.0]}), "grocery")
