from dataclasses import replace
from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import pytest

from ml_pipeline.backtest import calibrate, count_fits, refuse_overlap, report_backtest, run_backtest
from ml_pipeline.errors import LabelOverlap
from ml_pipeline.features import DAYS_SINCE_FIRST, feature_names, lifetime_spend_name, spend_window_name
from ml_pipeline.learners import Effort
from ml_pipeline.progress import Progress
from ml_pipeline.training_set import Observations, plan_windows

TARGETS = ("grocery",)
NAMES = feature_names(TARGETS)
EFFORT = Effort(learning_rate=0.2, max_rounds=40, patience=5, forest_trees=8, forest_rows=500, threads=1)
SERVING = date(2025, 12, 28)
PLAN = plan_windows(SERVING - timedelta(days=240), SERVING, spacing_days=30, most_days=8, n_selection=1, n_report=1)


def shop(personal_rate, seed=4, n_customers=400, share_gone=0.0):
    """Customers who spend on grocery at a personal rate, seen through their history and 30-day labels.

    Those who are gone bought at that rate until 90 days ago and never again.
    """
    rng = np.random.default_rng(seed)
    n = n_customers * len(PLAN.learning)
    rate = np.tile(personal_rate(rng, n_customers), len(PLAN.learning))
    features = np.zeros((n, len(NAMES)), dtype=np.float32)
    column = {name: index for index, name in enumerate(NAMES)}
    history = np.minimum(np.repeat(np.arange(len(PLAN.learning)) * 30 + 60, n_customers), 365)
    features[:, column[DAYS_SINCE_FIRST]] = history
    gone = rng.random(n) < share_gone
    for target in (None, "grocery"):
        for days in (30, 90):
            features[:, column[spend_window_name(days, target)]] = spend(rng, np.where(gone, 0.0, rate), days)
        features[:, column[lifetime_spend_name(target)]] = spend(rng, rate, history)
    rate = np.where(gone, 0.0, rate)
    label = spend(rng, rate, 30)
    return Observations(
        as_of=np.repeat(np.array(PLAN.learning, dtype="datetime64[D]"), n_customers),
        customer_id=np.tile(np.arange(n_customers).astype(str), len(PLAN.learning)),
        features=features,
        names=NAMES,
        spend={"total": label, "grocery": label * 0.6, "other": label * 0.4},
        bought=(label > 0).astype(float),
    )


def spend(rng, rate, days):
    purchases = rng.poisson(rate * days)
    return np.where(purchases > 0, rng.gamma(np.maximum(purchases, 1), 20.0), 0.0)


def judged(observations):
    with Progress(bars=False).stage("backtest", count_fits(PLAN, TARGETS)) as stage:
        backtest = run_backtest(observations, PLAN, TARGETS, EFFORT, stage)
    return backtest, report_backtest(backtest, observations, TARGETS)


@pytest.fixture(scope="module")
def lively():
    return judged(lively_shop())


def lively_shop():
    return shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=1000, share_gone=0.4)


def test_where_there_is_nothing_to_learn_a_rule_serves_and_the_report_says_so():
    _, report = judged(shop(lambda rng, n: np.full(n, 0.05)))
    total = report["targets"]["total"]
    assert total["served_kind"] == "rule"
    assert total["beats_best_rule"] is False
    assert total["served"] == total["best_rule"] == "mean"


def test_where_customers_differ_a_model_beats_the_rules_on_both_kinds_of_windows(lively):
    _, report = lively
    total = report["targets"]["total"]
    assert total["served_kind"] == "model"
    assert total["beats_best_rule_on_report"]["d2"] is True


def test_rules_come_first_and_every_candidate_has_every_metric(lively):
    _, report = lively
    for target in ("total", "grocery"):
        kinds = [candidate["kind"] for candidate in report["targets"][target]["candidates"]]
        assert kinds == ["rule"] * 5 + ["model"] * 3
        for candidate in report["targets"][target]["candidates"]:
            assert set(candidate["metrics"]) == {"all", "active_90d"}
            assert candidate["metrics"]["all"]["mae"] is not None
    assert [c["kind"] for c in report["targets"]["other"]["candidates"]] == ["rule"] * 5


def test_served_parts_add_up_to_the_served_total(lively):
    backtest, _ = lively
    for served in backtest.served.values():
        np.testing.assert_allclose(served["grocery"] + served["other"], served["total"], rtol=1e-9, atol=1e-9)
        assert min(part.min() for part in served.values()) >= 0


def test_what_happens_after_a_window_does_not_change_its_predictions(lively):
    observations = lively_shop()
    selection = PLAN.selection[0]
    later = observations.as_of > np.datetime64(selection)
    changed = Observations(
        observations.as_of,
        observations.customer_id,
        np.where(later[:, None], observations.features * 3, observations.features),
        observations.names,
        {name: np.where(later, labels * 7 + 1, labels) for name, labels in observations.spend.items()},
        np.where(later, 1 - observations.bought, observations.bought),
    )
    first, second = lively[0], judged(changed)[0]
    for one, other in zip(first.contests["total"].candidates, second.contests["total"].candidates, strict=True):
        np.testing.assert_array_equal(one.predicted[selection], other.predicted[selection])


def test_intervals_and_probabilities_are_not_learned_where_they_are_measured(lively):
    """Other outcomes on the report window change what is measured and nothing that was learned."""
    backtest, report = lively
    observations = lively_shop()
    measured = observations.on(PLAN.report[0])
    spend_of = {name: amounts.copy() for name, amounts in observations.spend.items()}
    for amounts in spend_of.values():
        amounts[measured] = amounts[measured] * 3 + 10
    bought = observations.bought.copy()
    bought[measured] = 1 - bought[measured]
    other = report_backtest(backtest, replace(observations, spend=spend_of, bought=bought), TARGETS)
    for target in ("total", "grocery", "other"):
        assert other["intervals"][target]["mean_width"] == report["intervals"][target]["mean_width"]
        assert other["intervals"][target]["above"] > report["intervals"][target]["above"]
    for name in ("served", "rate"):
        mean = report["probability"][name]["mean_probability"]
        assert other["probability"][name]["mean_probability"] == mean
        assert other["probability"][name]["share_buying"] != report["probability"][name]["share_buying"]


def test_what_is_reported_does_not_choose_what_serves(lively):
    backtest, _ = lively
    observations = lively_shop()
    measured = observations.on(PLAN.report[0])
    spend_of = {name: amounts.copy() for name, amounts in observations.spend.items()}
    for amounts in spend_of.values():
        amounts[measured] = amounts[measured][::-1]
    other, _ = judged(replace(observations, spend=spend_of))
    for target, contest in backtest.contests.items():
        assert other.contests[target].scores == contest.scores
        assert other.contests[target].noise == contest.noise
        assert other.contests[target].served.name == contest.served.name


def test_training_rows_whose_labels_reach_into_the_judged_window_are_refused(lively):
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=20)
    origin = PLAN.report[0]
    refuse_overlap(observations, observations.ended_before(origin), origin)
    with pytest.raises(LabelOverlap, match=origin.isoformat()):
        refuse_overlap(observations, slice(0, observations.on(origin).stop), origin)


def test_a_shop_where_nobody_buys_a_target_still_gets_its_rules():
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=100)
    silent = {**observations.spend, "grocery": np.zeros(len(observations)), "other": observations.spend["total"]}
    _, report = judged(
        Observations(
            observations.as_of, observations.customer_id, observations.features, NAMES, silent, observations.bought
        )
    )
    assert report["targets"]["grocery"]["served_kind"] == "rule"
    assert [c["metrics"] for c in report["targets"]["grocery"]["candidates"] if c["kind"] == "model"] == [None] * 3


def test_where_everybody_spends_the_same_the_rule_that_says_so_serves_and_not_the_first_one():
    observations = shop(lambda rng, n: np.full(n, 0.05))
    column = {name: index for index, name in enumerate(NAMES)}
    for target in (None, "grocery"):
        observations.features[:, column[spend_window_name(30, target)]] = 40.0
    same = {name: np.full(len(observations), amount) for name, amount in (("total", 40.0), ("grocery", 40.0))}
    same["other"] = np.zeros(len(observations))
    _, report = judged(replace(observations, spend=same, bought=np.ones(len(observations))))
    assert report["targets"]["total"]["served"] in ("mean", "last_30_days")
    assert report["targets"]["total"]["reconciled"]["all"]["bias"] == pytest.approx(1.0)
    assert report["targets"]["other"]["reconciled"]["all"]["mae"] == pytest.approx(0.0)


def test_calibrated_probabilities_ascend_and_are_never_certain():
    rng = np.random.default_rng(1)
    score = rng.random(4000)
    corners = calibrate(score, (rng.random(4000) < score**2).astype(float))
    assert corners["score"] == sorted(corners["score"])
    assert all(one <= other for one, other in pairwise(corners["probability"]))
    assert min(corners["probability"]) >= 0.001
    assert max(corners["probability"]) <= 0.999
    assert np.interp(0.7, corners["score"], corners["probability"]) == pytest.approx(0.49, abs=0.1)
