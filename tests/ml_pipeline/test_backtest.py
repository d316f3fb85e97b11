import io
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from tqdm import tqdm

from ml_pipeline.backtest import (
    FEWEST_ROUNDS,
    NOISE_MARGIN,
    SELECTION_RULE,
    Bench,
    Candidate,
    _choose,
    count_fits,
    fold_of,
    learn,
    refuse_overlap,
    run_backtest,
    usual_shares,
)
from ml_pipeline.backtest_report import report_backtest
from ml_pipeline.candidates import OF_EVERY_TARGET, OF_THE_TOTAL, PURCHASE, learners_of, recipes_of
from ml_pipeline.errors import LabelOverlap
from ml_pipeline.features import (
    CALENDAR_FEATURES,
    DAYS_FIRST_TO_LAST,
    DAYS_SINCE_FIRST,
    MEAN_REPEAT_VALUE,
    TOTAL_PURCHASE_DAYS,
    decayed_rate_name,
    feature_names,
    lifetime_spend_name,
    spend_window_name,
)
from ml_pipeline.learners import Effort
from ml_pipeline.progress import Bar, Progress, Stage
from ml_pipeline.rules import RULE_HALF_LIFE_DAYS, RULES
from ml_pipeline.training_set import Observations, UnusedFeatures, plan_windows, without

TARGETS = ("grocery",)
NAMES = feature_names(TARGETS)
EFFORT = Effort(learning_rate=0.2, max_rounds=30, patience=5, forest_trees=6, forest_rows=500, threads=1)
SERVING = date(2025, 12, 28)
PLAN = plan_windows(
    SERVING - timedelta(days=240),
    SERVING,
    spacing_days=30,
    most_days=8,
    n_calibration=1,
    n_selection=1,
    n_report=1,
)


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
        of_90 = features[:, column[spend_window_name(90, target)]]
        features[:, column[decayed_rate_name(RULE_HALF_LIFE_DAYS, target)]] = of_90 / 3
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


def backtested(observations, **options):
    with Progress(bars=False).stage("backtest", count_fits(PLAN, TARGETS, **options)) as stage:
        return run_backtest(observations, PLAN, TARGETS, EFFORT, stage, **options)


def judged(observations):
    backtest = backtested(observations)
    return backtest, report_backtest(backtest, observations, TARGETS)


def with_other_outcomes(observations, rows):
    """The same histories; in these rows others bought other amounts."""
    spend_of = {name: amounts.copy() for name, amounts in observations.spend.items()}
    for amounts in spend_of.values():
        amounts[rows] = amounts[rows][::-1] * 3 + 10 * (np.arange(len(amounts[rows])) % 3)
    bought = observations.bought.copy()
    bought[rows] = 1 - bought[rows]
    return replace(observations, spend=spend_of, bought=bought)


@pytest.fixture(scope="module")
def lively():
    return judged(lively_shop())


def lively_shop():
    return shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=1000, share_gone=0.4)


@pytest.mark.parametrize("seed", [0, 4, 21])
def test_where_there_is_nothing_to_learn_a_rule_serves_and_the_report_says_so(seed):
    """Also where, of so many candidates, one ranks the selection window well by chance, as with seeds 4 and 21."""
    _, report = judged(shop(lambda rng, n: np.full(n, 0.05), seed=seed))
    total = report["targets"]["total"]
    assert total["served_kind"] == "rule"
    assert total["beats_best_rule"] is False
    assert total["served"] == total["best_rule"] == "mean"


def test_where_customers_differ_a_model_beats_the_rules_on_both_kinds_of_windows(lively):
    _, report = lively
    total = report["targets"]["total"]
    assert total["served_kind"] in ("model", "blend")
    assert total["beats_best_rule"] is True
    assert total["beats_best_rule_on_report"]["d2"] is True


def test_rules_come_first_then_models_then_blends_and_every_candidate_has_every_metric(lively):
    _, report = lively
    kinds = {name: [candidate["kind"] for candidate in each["candidates"]] for name, each in report["targets"].items()}
    for target, found in kinds.items():
        assert found == [*["rule"] * len(RULES), *(recipe.kind for recipe in recipes_of(target, thorough=False))]
        assert found == sorted(found, key=["rule", "model", "blend"].index)
    for each in report["targets"].values():
        for candidate in each["candidates"]:
            assert set(candidate["metrics"]) == {"all", "active_90d"}
            assert candidate["metrics"]["all"]["mae"] is not None
            assert candidate["left_out"] is None


def test_what_serves_beats_the_best_rule_on_the_same_rows_and_is_near_the_best_of_all(lively):
    served = {}
    for target, contest in lively[0].contests.items():
        assert set(contest.scores) == {candidate.name for candidate in contest.candidates}
        rules = [contest.scores[rule.name] for rule in RULES]
        assert contest.scores[contest.best_rule.name] == max(rules)
        if contest.served.kind == "rule":
            assert contest.served is contest.best_rule
        else:
            assert contest.advantage == pytest.approx(contest.scores[contest.served.name] - max(rules))
            assert contest.advantage > NOISE_MARGIN * contest.noise
        served[target] = contest.served.kind
    assert served["total"] != "rule"


def test_a_rule_that_is_right_serves_although_all_models_are_low_together():
    """The level that models share is taken out to put them in order, never to compare them with a rule."""
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=600)
    rng = np.random.default_rng(3)
    actual = {day: observations.spend["total"][observations.on(day)] for day in PLAN.selection}
    told = {day: spend * rng.gamma(8.0, 1 / 8, len(spend)) for day, spend in actual.items()}
    recipe = next(recipe for recipe in recipes_of("total", thorough=False) if recipe.kind == "model")
    candidates = [
        Candidate("last_30_days", "rule", None, told),
        *(
            Candidate(f"low_{number}", "model", recipe, {day: 0.6 * each for day, each in told.items()})
            for number in range(3)
        ),
    ]
    with Progress(bars=False).stage("backtest", 1) as stage:
        bench = Bench(observations, PLAN, TARGETS, EFFORT, False, stage)
        contest = _choose("total", {}, candidates, bench)
        stage.advance()
    assert contest.served.name == "last_30_days"
    assert contest.advantage < 0


def test_each_block_is_learned_from_what_had_ended_before_it_and_judged_once(lively):
    backtest, report = lively
    assert [len(block) for block in PLAN.blocks] == [1, 1, 1]
    for judged_model in backtest.contests["total"].models.values():
        assert set(judged_model.raw) == set(PLAN.origins)
    for candidate in backtest.contests["total"].candidates:
        assert set(candidate.predicted) == {*PLAN.selection, *PLAN.report}
    for name, days in zip(("calibration_days", "selection_days", "report_days"), PLAN.blocks, strict=True):
        assert report[name] == [day.isoformat() for day in days]
    assert report["selection_rule"] == SELECTION_RULE


def test_served_parts_add_up_to_the_served_total(lively):
    backtest, _ = lively
    for served in backtest.served.values():
        np.testing.assert_allclose(served["grocery"] + served["other"], served["total"], rtol=1e-9, atol=1e-9)
        assert min(part.min() for part in served.values()) >= 0


def same_numbers(one, other, days, target="total"):
    """Every candidate of the target says the same on these days."""
    for ours, theirs in zip(one.contests[target].candidates, other.contests[target].candidates, strict=True):
        for day in days:
            np.testing.assert_array_equal(ours.predicted[day], theirs.predicted[day], err_msg=ours.name)


def test_nothing_that_is_learned_for_a_block_comes_from_that_block_or_from_later(lively):
    """Other outcomes from the selection block on, and other histories after it, change no number of that block."""
    observations = lively_shop()
    first = PLAN.selection[0]
    changed = with_other_outcomes(observations, slice(observations.on(first).start, len(observations)))
    later = slice(observations.on(first).stop, len(observations))
    changed.features[later] = changed.features[later] * 3
    other = backtested(changed)
    same_numbers(lively[0], other, PLAN.selection)
    for target, contest in lively[0].contests.items():
        for name, model in contest.models.items():
            assert model.rounds == other.contests[target].models[name].rounds
            for day in (*PLAN.calibration, *PLAN.selection):
                np.testing.assert_array_equal(model.raw[day], other.contests[target].models[name].raw[day])
    rows, days = observations.ended_before(first), PLAN.before(PLAN.selection)
    known, anew = (
        learn("total", backtest.contests["total"].models, backtest.purchase, rows, days, shop_of)
        for backtest, shop_of in ((lively[0], lively_shop()), (other, changed))
    )
    assert known == anew
    assert known.calibration is not None
    assert any(known.levels.values())


def test_what_was_wrong_in_the_selection_block_is_learned_for_the_report_block(lively):
    """The other side of the coin: other outcomes on the selection day do change the reported numbers."""
    observations = lively_shop()
    other = backtested(with_other_outcomes(observations, observations.on(PLAN.selection[0])))
    same_numbers(lively[0], other, PLAN.selection)
    pairs = zip(lively[0].contests["total"].candidates, other.contests["total"].candidates, strict=True)
    moved = {one.name for one, two in pairs if (one.predicted[PLAN.report[0]] != two.predicted[PLAN.report[0]]).any()}
    assert moved >= {"mean", "hurdle", "calibrated_hurdle", "calibrated_log_hurdle", "xgboost"}


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


def test_what_is_reported_does_not_choose_what_serves_nor_what_it_says(lively):
    backtest, _ = lively
    observations = lively_shop()
    other = backtested(with_other_outcomes(observations, observations.on(PLAN.report[0])))
    for target, contest in backtest.contests.items():
        assert other.contests[target].scores == contest.scores
        assert other.contests[target].noise == contest.noise
        assert other.contests[target].served.name == contest.served.name
        same_numbers(backtest, other, (*PLAN.selection, *PLAN.report), target)
    assert other.agreement.choice.why == backtest.agreement.choice.why
    assert other.agreement.on_report == backtest.agreement.on_report
    for day, told in backtest.served.items():
        for target, money in told.items():
            np.testing.assert_array_equal(other.served[day][target], money)


def test_total_and_parts_agree_on_every_judged_window_that_is_reported(lively):
    backtest, report = lively
    assert set(backtest.served) == {*PLAN.selection, *PLAN.report}
    for told in backtest.served.values():
        np.testing.assert_allclose(told["grocery"] + told["other"], told["total"], rtol=1e-9)
    assert set(report["reconciliation"]["tried"]) == {"top_down", "bottom_up", "half_and_half", "mint"}
    assert report["categories_exceed_total"]["all"]["served"] == 0


def test_training_rows_whose_labels_reach_into_the_judged_window_are_refused(lively):
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=20)
    origin = PLAN.report[0]
    refuse_overlap(observations, observations.ended_before(origin), origin)
    with pytest.raises(LabelOverlap, match=origin.isoformat()):
        refuse_overlap(observations, slice(0, observations.on(origin).stop), origin)


def test_a_shop_where_nobody_buys_a_target_still_gets_its_rules():
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=100)
    silent = {**observations.spend, "grocery": np.zeros(len(observations)), "other": observations.spend["total"]}
    _, report = judged(replace(observations, spend=silent))
    grocery = report["targets"]["grocery"]
    assert grocery["served_kind"] == "rule"
    models = [candidate for candidate in grocery["candidates"] if candidate["kind"] == "model"]
    assert [model["metrics"] for model in models] == [None] * 3
    assert models[0]["left_out"] == "random_forest: nothing was bought"
    assert grocery["reconciled"]["all"]["mae"] == pytest.approx(0.0)


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


def test_where_everybody_buys_there_is_no_classifier_and_the_hurdles_say_why():
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=60)
    bought = {name: amounts + 1 for name, amounts in observations.spend.items()}
    _, report = judged(replace(observations, spend=bought, bought=np.ones(len(observations))))
    left_out = {c["name"]: c["left_out"] for c in report["targets"]["total"]["candidates"] if c["left_out"]}
    assert set(left_out) == {recipe.name for recipe in recipes_of("total", False) if PURCHASE in recipe.needs}
    assert set(left_out.values()) == {"lightgbm_purchase: everybody bought"}
    assert report["probability"]["served"]["name"] == "rate"
    assert report["probability"]["served"]["mean_probability"] == pytest.approx(120.5 / 121)  # as it is served


def test_with_a_handful_of_customers_the_rules_serve_and_each_model_says_what_it_takes():
    _, report = judged(shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=8))
    total = report["targets"]["total"]
    assert total["served_kind"] == "rule"
    models = [candidate["left_out"] for candidate in total["candidates"] if candidate["kind"] != "rule"]
    assert all("rows to learn from, it takes 50" in reason for reason in models)
    assert total["selection_advantage"] is None


@pytest.mark.parametrize("n_customers", [8, 60])
def test_the_bar_reaches_its_end_also_where_much_is_left_out(n_customers):
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=n_customers)
    bar = tqdm(total=count_fits(PLAN, TARGETS), file=io.StringIO())
    run_backtest(observations, PLAN, TARGETS, EFFORT, Stage(Bar(bar)))
    assert bar.n == bar.total


def test_rounds_are_found_before_all_judged_windows_and_never_fewer_than_a_few(lively):
    models = [judged for contest in lively[0].contests.values() for judged in contest.models.values()]
    rounds = [judged.rounds for judged in models if judged.learner.stops_early]
    assert len(rounds) == 8
    assert min(rounds) >= FEWEST_ROUNDS
    assert max(rounds) <= EFFORT.max_rounds


def test_the_usual_shares_are_those_of_the_rows_and_sum_to_1(lively):
    observations = lively_shop()
    assert usual_shares(observations, slice(0, 2000), TARGETS).tolist() == pytest.approx([0.6, 0.4])
    nothing = {name: np.zeros(len(observations)) for name in observations.spend}
    assert usual_shares(replace(observations, spend=nothing), slice(0, 2000), TARGETS).tolist() == [0.5, 0.5]


REPEAT_BUYERS = {
    TOTAL_PURCHASE_DAYS: 1 + np.arange(600) % 4,
    DAYS_FIRST_TO_LAST: (np.arange(600) % 4) * (3 + np.arange(600) % 11),
    MEAN_REPEAT_VALUE: 15 + np.arange(600) % 17,
}


@pytest.mark.parametrize("learner", [PURCHASE, *learners_of("total", thorough=True)], ids=lambda learner: learner.name)
def test_no_model_learns_from_a_feature_that_is_taken_away(learner):
    """Whatever it holds when it serves: a booster, a forest, a line, each says the same."""
    rows = slice(0, 600)
    observations = lively_shop()
    columns = [NAMES.index(name) for name in CALENDAR_FEATURES]
    for name, values in REPEAT_BUYERS.items():
        observations.features[rows, NAMES.index(name)] = values
    observations.features[:, columns] = observations.spend["total"][:, None] + np.arange(len(columns))
    blind = without(observations, [UnusedFeatures("they mean nothing", CALENDAR_FEATURES)])
    fitted = learner.fit(fold_of(blind, np.arange(600), learner, "total"), NAMES, EFFORT, rounds=10).member
    otherwise = observations.features[:300].copy()
    otherwise[:, columns] = np.nan
    np.testing.assert_array_equal(fitted.predict(observations.features[:300]), fitted.predict(otherwise))


def test_the_thorough_contest_takes_in_what_a_sceptic_would_try():
    observations = shop(lambda rng, n: rng.gamma(0.6, 0.08, n), n_customers=150)
    backtest = backtested(observations, thorough=True)
    names = [candidate.name for candidate in backtest.contests["total"].candidates]
    assert {"linear_regression", "lasso", "gradient_boosting", "xgboost_squared", "lightgbm_squared"} < set(names)
    assert set(OF_THE_TOTAL) < {judged.learner for judged in backtest.contests["total"].models.values()}
    assert set(OF_EVERY_TARGET) < {judged.learner for judged in backtest.contests["grocery"].models.values()}
