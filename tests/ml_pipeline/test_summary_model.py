from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from ml_pipeline.bundle import BundleMetadata
from ml_pipeline.errors import LabelOverlap
from ml_pipeline.features import feature_names
from ml_pipeline.learners import Effort
from ml_pipeline.progress import Stage
from ml_pipeline.summary_card import summary_verdict
from ml_pipeline.summary_columns import COLUMN_OF_INPUT, select_summary, summary_columns, with_implied
from ml_pipeline.summary_forms import FORMS, SEVEN, SIX, as_form, columns_of_form, rules_of_form
from ml_pipeline.summary_members import MODEL_TYPES
from ml_pipeline.summary_model import (
    MOST_COPIES,
    SHARE_OF_FORMS,
    count_summary_fits,
    draw_summary_rows,
    learn_summary,
    mask_at_random,
    random_masks,
)
from ml_pipeline.summary_predictor import SummaryPredictor
from ml_pipeline.summary_report import report_form, summary_content
from ml_pipeline.training_set import TENURE_FEATURES, Observations, UnusedFeatures, plan_windows, without

TARGETS = ("grocery", "sports")
NAMES = feature_names(TARGETS)
SERVING = date(2025, 12, 28)
PLAN = plan_windows(
    SERVING - timedelta(days=240), SERVING, spacing_days=30, most_days=8, n_calibration=1, n_selection=1, n_report=1
)
EFFORT = Effort(learning_rate=0.15, max_rounds=40, patience=5, forest_trees=5, forest_rows=500, threads=1)


def shop(rate, n_customers=400, seed=2, value=30.0):
    """Customers who buy on a day with a probability of their own, as observations with all summary columns."""
    rng = np.random.default_rng(seed)
    first_day = min(PLAN.learning) - timedelta(days=30)
    days = (SERVING - first_day).days
    bought = rng.random((n_customers, days)) < rate(rng, n_customers)[:, None]
    bought[:, rng.integers(0, 30)] = True
    amount = np.where(bought, rng.gamma(4.0, value / 4, bought.shape), 0.0)
    blocks = [rows_at(bought, amount, (day - first_day).days) for day in PLAN.learning]
    spend = np.concatenate([each[1] for each in blocks])
    return Observations(
        as_of=np.repeat(np.array(PLAN.learning, dtype="datetime64[D]"), n_customers),
        customer_id=np.tile(np.arange(n_customers).astype(str), len(PLAN.learning)),
        features=np.concatenate([each[0] for each in blocks]).astype(np.float32),
        names=NAMES,
        spend={"total": spend, "grocery": spend, "sports": spend * 0, "other": spend * 0},
        bought=(spend > 0).astype(float),
    )


def rows_at(bought, amount, day):
    """Features and label of everybody on a day, counted in days since the first one."""
    past, paid = bought[:, :day], amount[:, :day]
    count = past.sum(axis=1)
    first, last = day - past.argmax(axis=1), past[:, ::-1].argmax(axis=1) + 1
    known = {
        "days_since_last": last,
        "days_since_first": first,
        "transactions": count,
        "total_spend": paid.sum(axis=1),
        "avg_transaction_value": paid.sum(axis=1) / count,
        "avg_days_between": np.where(count > 1, (first - last) / np.maximum(count - 1, 1), np.nan),
        "distinct_products": count,
        "distinct_categories": np.ones(len(count)),
        "total_items": 2 * count,
    }
    for window in (30, 60, 90):
        known[f"spend_{window}d"] = paid[:, -window:].sum(axis=1)
        known[f"transactions_{window}d"] = past[:, -window:].sum(axis=1)
    features = np.zeros((len(count), len(NAMES)))
    for name, values in known.items():
        features[:, NAMES.index(COLUMN_OF_INPUT[name])] = values
    features[:, NAMES.index("favorite_category_grocery")] = 1
    return features, amount[:, day : day + 30].sum(axis=1)


def learned(observations, plan=PLAN, effort=EFFORT):
    return learn_summary(observations, plan, TARGETS, effort, Stage())


def lively_shop():
    return shop(lambda rng, n: rng.gamma(0.5, 0.1, n).clip(0, 0.9))


@pytest.fixture(scope="module")
def lively():
    observations = lively_shop()
    return observations, learned(observations)


def predictor_of(model, observations, plan=PLAN):
    content = {
        "targets": list(TARGETS),
        "serving": {"total": {"cap": 1e6}},
        "segments": {"thresholds": [10.0, 100.0]},
        "ranges": dict.fromkeys(NAMES),
        "summary": summary_content(model, plan, observations, TARGETS),
    }
    return SummaryPredictor(BundleMetadata("toy", content), model.members)


# Masks


def test_what_is_masked_says_nothing():
    """Whatever stands where a mask lies, the masked rows are the same."""
    rng = np.random.default_rng(1)
    matrix = rng.gamma(2.0, 10.0, (500, len(summary_columns(TARGETS)))).astype(np.float32)
    known = random_masks(500, TARGETS, seed=5)
    other = np.where(known, matrix, rng.gamma(2.0, 1e4, matrix.shape).astype(np.float32))
    np.testing.assert_array_equal(mask_at_random(matrix, TARGETS, 5), mask_at_random(other, TARGETS, 5))
    seen = ~np.isnan(mask_at_random(matrix, TARGETS, 5))
    assert (seen >= known).all()
    extra = np.flatnonzero((seen & ~known).any(axis=0))
    implied = {COLUMN_OF_INPUT[name] for name in ("total_spend", "avg_transaction_value", "avg_days_between")}
    assert {summary_columns(TARGETS)[column] for column in extra} <= implied


def test_most_rows_are_masked_as_a_form_and_any_other_subset_occurs_too():
    known = random_masks(20_000, TARGETS, seed=5)
    shares = {form: (known == columns_of_form(form, TARGETS)).all(axis=1).mean() for form in FORMS}
    for share in shares.values():
        assert share == pytest.approx(SHARE_OF_FORMS / 3, abs=0.02)
    assert len(np.unique(known, axis=0)) > 2_000
    assert known.all(axis=1).any()
    assert (~known).all(axis=1).any()


def test_the_levels_of_the_category_are_known_together_or_not_at_all():
    known = random_masks(5_000, TARGETS, seed=5)
    np.testing.assert_array_equal(known[:, -2], known[:, -1])


def test_rows_are_drawn_rather_from_newer_days_and_few_rows_are_used_several_times():
    days = np.repeat(np.arange("2024-01-01", "2025-01-01", 30, dtype="datetime64[D]"), 1000)
    drawn, copies = draw_summary_rows(days, 3_000, seed=1)
    assert copies == 1
    assert len(np.unique(drawn)) == len(drawn) == 3_000
    assert (np.diff(drawn) > 0).all()
    counts = np.bincount(drawn // 1000)
    assert counts[-1] > 2 * counts[0] > 0
    few, copies = draw_summary_rows(days[:700], 3_000, seed=1)
    assert copies == MOST_COPIES
    np.testing.assert_array_equal(np.bincount(few), MOST_COPIES)
    assert len(draw_summary_rows(days[:0], 3_000, seed=1)[0]) == 0


def test_who_tells_no_money_is_not_taken_for_somebody_who_spends_nothing(lively):
    """When and how often are known, what was paid is not: right on average all the same."""
    observations, model = lively
    rows = observations.on(PLAN.report[0])
    whole = select_summary(observations.features[rows], NAMES, TARGETS)
    told = np.isin(
        summary_columns(TARGETS),
        [COLUMN_OF_INPUT[name] for name in ("transactions", "days_since_last", "days_since_first")],
    )
    matrix = with_implied(np.where(told, whole, np.float32(np.nan)))
    for name in ("xgboost", "lightgbm"):
        bias = model.members.spend(name, matrix).sum() / observations.spend["total"][rows].sum()
        assert bias == pytest.approx(1, abs=0.15)


# Judging


def test_models_serve_every_form_where_customers_differ_and_more_numbers_tell_more(lively):
    _, model = lively
    for form, contest in model.contests.items():
        assert contest.served in MODEL_TYPES
        assert contest.scores[contest.served] == max(contest.scores.values())
        assert contest.purchase_serves
        assert set(contest.told) - set(MODEL_TYPES) == set(rules_of_form(form))
    assert "bg_nbd" not in model.contests[SIX].told
    assert "bg_nbd" in model.contests[SEVEN].told
    assert model.contests[SEVEN].scores["xgboost"] > model.contests[SIX].scores["mean"] + 0.2


@pytest.mark.parametrize("seed", [0, 1])
def test_where_there_is_nothing_to_learn_a_rule_serves_and_the_card_says_so(seed):
    observations = shop(lambda rng, n: np.full(n, 0.05), seed=seed)
    rng = np.random.default_rng(seed)
    noise = {name: rng.permutation(spend) for name, spend in observations.spend.items()}
    model = learned(replace(observations, spend=noise, bought=(noise["total"] > 0).astype(float)))
    for contest in model.contests.values():
        assert contest.served == contest.best_rule == "mean"
    told = predictor_of(model, observations).predict(with_implied(np.full((1, 17), np.nan, dtype=np.float32)))
    assert told.model_used == ["mean"]
    form = {
        "best_rule": "mean", "served": "mean", "selection_advantage": -0.01, "selection_noise": 0.02, "beats_best_rule": False,
        "candidates": [],
    }  # fmt: skip
    assert summary_verdict(form) == (
        "no model beat the best rule of the same information (score -0.010, bootstrap SD 0.020): "
        "mean of the training rows serves."
    )


def test_what_came_in_the_judged_windows_does_not_change_what_was_said_of_them(lively):
    """On the report windows: with other outcomes from the first of their label windows on."""
    observations, model = lively
    origin = PLAN.report[0]
    late = slice(observations.ended_before(origin).stop, len(observations))
    spend = {name: amounts.copy() for name, amounts in observations.spend.items()}
    spend["total"][late] = spend["total"][late][::-1] * 3 + 5
    bought = observations.bought.copy()
    bought[late] = 1 - bought[late]
    other = learned(replace(observations, spend=spend, bought=bought))
    for form in FORMS:
        for name in MODEL_TYPES:
            if name in model.contests[form].told:
                ours, theirs = (each.contests[form].told[name][origin] for each in (model, other))
                np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_array_equal(
            model.contests[form].purchase.raw[origin], other.contests[form].purchase.raw[origin]
        )


class Unpurged(Observations):
    """Whose folds reach up to the judged day itself."""

    def ended_before(self, origin):
        return slice(0, self.on(origin).stop)


def test_labels_that_reach_into_a_judged_window_are_refused(lively):
    observations, _ = lively
    with pytest.raises(LabelOverlap, match=PLAN.calibration[0].isoformat()):
        learned(Unpurged(**vars(observations)))


def test_the_same_rows_give_the_same_model(lively, tmp_path):
    observations, model = lively
    again = learned(observations)
    for folder, each in (("a", model), ("b", again)):
        (tmp_path / folder / "members").mkdir(parents=True)
        each.members.save(tmp_path / folder)
    for file in model.members.files().values():
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    ours, theirs = (summary_content(each, PLAN, observations, TARGETS) for each in (model, again))
    assert ours == theirs


def test_what_was_judged_is_what_serves(lively):
    """A complete request of a form is answered by the contest's winner."""
    observations, model = lively
    predictor = predictor_of(model, observations)
    whole = select_summary(observations.features[observations.on(PLAN.report[0])], NAMES, TARGETS)
    for form in FORMS:
        answers = predictor.predict(as_form(whole, form, TARGETS))
        assert set(answers.model_used) == {model.contests[form].served}
        actual = observations.spend["total"][observations.on(PLAN.report[0])]
        outside = (actual * 100 < answers.lower) | (actual * 100 > answers.upper)
        assert outside.mean() < 0.3


# Short histories


def test_a_shop_of_rules_alone_is_answered_by_its_best_rule_and_the_share_of_buyers():
    observations = lively_shop()
    plan = replace(PLAN, calibration=(), rules_only="the history is 100 days; models need 150")
    model = learned(observations, plan)
    assert model.members.model_types == ()
    assert count_summary_fits(plan) == 3
    assert model.contests[SEVEN].served == "lifetime_rate_x_30"
    assert model.left_out["xgboost"] == plan.rules_only
    predictor = predictor_of(model, observations, plan)
    whole = select_summary(observations.features[:50], NAMES, TARGETS)
    seven = as_form(whole, SEVEN, TARGETS)
    answers = predictor.predict(seven)
    rate = whole[:, 3].astype(float) / np.maximum(whole[:, 1], 30) * 30
    np.testing.assert_allclose(answers.money / 100, rate, atol=0.006, rtol=1e-6)
    days = [observations.on(day) for day in plan.origins]
    share = np.concatenate([observations.bought[rows] for rows in days]).mean()
    np.testing.assert_allclose(answers.probability, share, atol=0.002)
    assert np.isnan(predictor.outlook(whole).alive).all()
    assert predictor.predict(np.full_like(whole[:1], np.nan)).model_used[0] in ("mean", "zero")


def test_where_no_window_has_ended_before_the_first_judged_one_the_mean_answers_who_knows_nothing_better():
    """It could not be judged itself; 0 for everybody in a shop where everybody buys would be an answer all the same."""
    observations = lively_shop()
    plan = replace(PLAN, learning=PLAN.learning[-2:], calibration=(), rules_only="the history is 91 days")
    late = slice(observations.on(plan.selection[0]).start, len(observations))
    parts = {name: getattr(observations, name)[late] for name in ("as_of", "customer_id", "features", "bought")}
    seen = replace(observations, **parts, spend={name: spend[late] for name, spend in observations.spend.items()})
    model = learned(seen, plan)
    assert (model.contests[SIX].serves, model.contests[SEVEN].serves) == (("mean",), ("lifetime_rate_x_30", "mean"))
    assert set(model.contests[SIX].told["mean"]) == {plan.report[0]}
    assert set(report_form(model.contests[SIX], plan, seen)["interval"].values()) == {None}
    predictor = predictor_of(model, seen, plan)
    six = as_form(select_summary(seen.features[:20], NAMES, TARGETS), SIX, TARGETS)
    answers = predictor.predict(six)
    np.testing.assert_allclose(answers.money / 100, seen.spend["total"].mean(), atol=0.006)
    actual = seen.spend["total"][seen.on(plan.report[0])]
    assert 0.05 < (actual * 100 > answers.upper[0]).mean() < 0.15


def test_a_shop_in_which_nobody_spends_is_still_said_to_spend_nothing():
    observations = lively_shop()
    nothing = {name: 0 * spend for name, spend in observations.spend.items()}
    plan = replace(PLAN, calibration=(), rules_only="the history is 100 days; models need 150")
    model = learned(replace(observations, spend=nothing, bought=0 * observations.bought), plan)
    assert {contest.served for contest in model.contests.values()} == {"zero"}


def test_what_must_not_be_learned_from_is_not_and_is_named():
    observations = without(lively_shop(), [UnusedFeatures("too short", (*TENURE_FEATURES, "total_spend_90d"))])
    model = learned(observations)
    assert model.unused == ("days_since_first", "spend_90d")
    matrix = select_summary(observations.features[:300], NAMES, TARGETS)
    other = matrix.copy()
    other[:, 1] += 1000
    other[:, 8] *= 3
    for name in ("xgboost", "lightgbm"):
        np.testing.assert_array_equal(model.members.spend(name, matrix), model.members.spend(name, other))
    assert not np.array_equal(model.members.spend("bg_nbd", matrix), model.members.spend("bg_nbd", other))


def test_the_card_names_what_took_no_part_and_why():
    why = [{"name": name, "kind": "model", "left_out": "too short"} for name in ("xgboost", "lightgbm")]
    form = {
        "best_rule": "zero",
        "served": "zero",
        "selection_advantage": None,
        "selection_noise": None,
        "candidates": why,
    }
    assert summary_verdict(form) == "zero serves; no model took part. Left out: XGBoost, LightGBM (too short)."


def test_a_handful_of_customers_gets_rules_with_the_reasons():
    model = learned(shop(lambda rng, n: np.full(n, 0.1), n_customers=3))
    assert "rows to learn from, it takes" in model.left_out["xgboost"]
    for contest in model.contests.values():
        assert contest.served not in ("xgboost", "lightgbm")
    assert not set(model.members.model_types) & {"xgboost", "lightgbm"}


def test_nobody_who_buys_twice_leaves_bg_nbd_out_with_its_reason():
    model = learned(shop(lambda rng, n: np.zeros(n)))
    assert "BG/NBD learns from repeat purchases" in model.left_out["bg_nbd"]
    assert "bg_nbd" not in model.members.model_types
