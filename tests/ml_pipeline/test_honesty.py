"""What a sceptic checks by hand: that a reported number is the number that its words say, and of what serves."""

import math
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from ml_pipeline import train as train_module
from ml_pipeline.backtest import Backtest, Candidate, Contest, Judged, usual_shares
from ml_pipeline.backtest_report import NOISY, report_backtest
from ml_pipeline.candidates import BLEND, MODEL, PURCHASE, RULE
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import FeatureLeak
from ml_pipeline.features import DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name
from ml_pipeline.metrics import capped_r2, decile_mape, exceeding_share, normalised_gini
from ml_pipeline.model_card import complete_report, write_model_card
from ml_pipeline.prepare import prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.sample_data import write_sample_tables
from ml_pipeline.training_set import Observations, WindowPlan, build_observations
from tests.ml_pipeline.conftest import SMALL

DAYS = [date(2025, 1, 1) + timedelta(days=30 * step) for step in range(5)]
PLAN = WindowPlan(DAYS[4] + timedelta(days=30), tuple(DAYS), (DAYS[1],), (DAYS[2],), (DAYS[3], DAYS[4]))
N = 400


def observations(seed=0):
    """The same customers on every day; a customer's spend is much the same in every window, half of them are not active."""
    rng = np.random.default_rng(seed)
    own = rng.gamma(0.7, 100.0, N)
    spend = np.concatenate([own * rng.gamma(4.0, 0.25, N) * (rng.random(N) < 0.7) for _ in DAYS])
    names = (DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name(90))
    features = np.column_stack([np.full(len(spend), 10.0), np.full(len(spend), 4.0), np.arange(len(spend)) % 2])
    return Observations(
        as_of=np.repeat(np.array(DAYS, dtype="datetime64[D]"), N),
        customer_id=np.tile(np.array([f"{number:04}" for number in range(N)]), len(DAYS)),
        features=features.astype(np.float32),
        names=names,
        spend={"total": spend, "grocery": 0.5 * spend, "other": 0.5 * spend},
        bought=(spend > 0).astype(float),
    )


def backtest_of(told, served):
    """A backtest in which three candidates said (day -> factor on actual spend) what `told` says."""
    actual = {day: told.spend["total"][told.on(day)] for day in DAYS}
    rng = np.random.default_rng(1)
    blurred = {day: spend * rng.gamma(2.0, 0.5, N) for day, spend in actual.items()}
    candidates = (
        Candidate("mean", RULE, None, {day: np.full(N, 50.0) for day in DAYS[2:]}),
        Candidate("lightgbm", MODEL, None, {day: blurred[day] for day in DAYS[2:]}),
        Candidate("a + b", BLEND, None, {day: 0.9 * blurred[day] for day in DAYS[2:]}),
    )
    by_name = {candidate.name: candidate for candidate in candidates}
    scores = {"mean": 0.1, "lightgbm": 0.9, "a + b": 0.7}

    def contest(target):
        return Contest(target, {}, candidates, scores, by_name[served], by_name["mean"], 0.8, 0.3)

    shares = usual_shares(told, slice(0, N), ("grocery",))
    agreed = {
        day: {"total": by_name[served].predicted[day], **split(by_name[served].predicted[day], shares)}
        for day in DAYS[2:]
    }
    raw = {day: np.clip(0.1 + (told.bought[told.on(day)] * 0.6), 0, 1) for day in DAYS[1:]}
    return Backtest(
        PLAN, {name: contest(name) for name in ("total", "grocery", "other")}, agreed, Judged(PURCHASE, raw), True
    )


def split(total, shares):
    return {name: total * share for name, share in zip(("grocery", "other"), shares, strict=True)}


@pytest.fixture(scope="module")
def seen():
    return observations()


@pytest.fixture(scope="module")
def report(seen):
    return report_backtest(backtest_of(seen, "a + b"), seen, ("grocery",))


# The advantage


def test_the_advantage_that_is_reported_is_that_of_the_model_that_was_preferred(report):
    assert report["targets"]["total"]["selection_advantage"] == pytest.approx(0.8)


def test_where_a_rule_serves_the_report_says_by_how_much_the_best_model_failed(seen):
    total = report_backtest(backtest_of(seen, "mean"), seen, ("grocery",))["targets"]["total"]
    assert total["selection_advantage"] == pytest.approx(0.8)
    assert total["beats_best_rule"] is False


def test_what_is_said_to_hold_up_is_what_serves_after_the_parts_were_scaled(seen):
    """Each candidate of grocery is far too high; scaled to the total it is right."""
    backtest = backtest_of(seen, "a + b")
    right = {day: dict(backtest.served[day], grocery=seen.spend["grocery"][seen.on(day)]) for day in DAYS[2:]}
    wrong = {day: np.full(N, 5.0) for day in DAYS[2:]}
    contests = dict(backtest.contests)
    grocery = contests["grocery"]
    served = replace(grocery.served, predicted=wrong)
    contests["grocery"] = replace(grocery, served=served, candidates=(*grocery.candidates[:2], served))
    held = report_backtest(replace(backtest, contests=contests, served=right), seen, ("grocery",))["targets"]["grocery"]
    assert held["beats_best_rule_on_report"] == {"capped_r2": True, "d2": True, "normalised_gini": True}


# Noise


def test_customers_who_are_alike_in_all_windows_are_drawn_together(seen, report):
    """Two windows of the same outcome tell no more than one: drawing them apart would make the noise √2 smaller."""
    twice = replace(seen, spend={name: np.tile(values[-N:], len(DAYS)) for name, values in seen.spend.items()})
    backtest = backtest_of(twice, "a + b")
    same = dict.fromkeys(DAYS[2:], backtest.served[DAYS[4]])
    both = report_backtest(replace(backtest, served=same), twice, ("grocery",))["targets"]["total"]["noise"]
    rng = np.random.default_rng(0)
    actual, predicted = twice.spend["total"][-N:], same[DAYS[4]]["total"]
    draws = [rng.integers(0, N, N) for _ in range(200)]
    alone = np.std([capped_r2(actual[rows], predicted[rows]) for rows in draws], ddof=1)
    assert both["capped_r2"]["own"] == pytest.approx(alone, rel=0.25)
    assert set(report["targets"]["total"]["noise"]) == set(NOISY)


# Categories beside the total


def test_the_share_of_customers_whose_categories_exceed_the_total():
    total = np.array([10.0, 10.0, 0.0, 0.1 + 0.2])
    parts = np.array([[5.0, 5.0], [6.0, 4.01], [0.0, 0.0], [0.3, 0.0]])
    assert exceeding_share(total, parts) == 0.25
    assert exceeding_share(total, np.empty((4, 0))) is None


def test_what_serves_never_exceeds_the_total_and_the_report_says_how_often_it_would_have(report):
    for population in ("all", "active_90d"):
        shares = report["categories_exceed_total"][population]
        assert shares["served"] == 0.0
        assert shares["before_scaling"] == shares["best_rules"] == 0.0
    told = observations()
    backtest = backtest_of(told, "a + b")
    contests = dict(backtest.contests)
    high = {day: 2 * total for day, total in contests["total"].served.predicted.items()}
    contests["grocery"] = replace(contests["grocery"], served=replace(contests["grocery"].served, predicted=high))
    shares = report_backtest(replace(backtest, contests=contests), told, ("grocery",))["categories_exceed_total"]["all"]
    assert shares["before_scaling"] == pytest.approx(np.mean(high[DAYS[4]] > 0), abs=0.1)
    assert shares["served"] == 0.0


# Everyone, and beside them the active ones


def test_probability_and_intervals_are_measured_on_the_active_customers_too(seen, report):
    rows = np.concatenate([np.arange(seen.on(day).start, seen.on(day).stop) for day in DAYS[3:]])
    active = rows[seen.features[rows, 2] > 0]
    probability = report["probability"]
    assert probability["active_90d"]["served"]["share_buying"] == pytest.approx(seen.bought[active].mean())
    assert probability["active_90d"].keys() == {"rate", "heuristic", "uncalibrated", "calibrated", "served"}
    assert set(probability["windows"]) == {day.isoformat() for day in DAYS[3:]}
    interval = report["intervals"]["total"]
    assert 0 < interval["active_90d"]["covered"] <= 1
    assert interval["active_90d"]["covered"] != interval["covered"]
    assert len(interval["active_90d"]["below_by_decile"]) == 10


def test_a_shop_without_active_customers_is_reported_without_them(seen):
    features = seen.features.copy()
    features[:, 2] = 0
    idle = replace(seen, features=features)
    quiet = report_backtest(backtest_of(idle, "a + b"), idle, ("grocery",))
    assert "active_90d" not in quiet["probability"]
    assert "active_90d" not in quiet["intervals"]["total"]
    assert quiet["categories_exceed_total"]["active_90d"]["served"] is None


# Edges of the metrics


def test_both_sides_are_clipped_at_the_percentile_by_hand():
    actual = np.concatenate([np.zeros(100), np.arange(1.0, 101.0), [1e6]])
    predicted = np.concatenate([np.zeros(100), np.arange(1.0, 101.0), [5e5]])
    cap = np.quantile(actual, 0.995)
    clipped = np.minimum(actual, cap)
    wrong = ((clipped - np.minimum(predicted, cap)) ** 2).sum()
    assert capped_r2(actual, predicted) == pytest.approx(1 - wrong / ((clipped - clipped.mean()) ** 2).sum())
    assert capped_r2(actual, np.where(predicted > 100, 1e12, predicted)) == pytest.approx(1.0)


def test_a_tenth_in_which_nobody_spends_counts_against_a_twentieth_of_the_mean():
    actual = np.repeat([0.0, 10.0], [10, 90])
    predicted = np.repeat([0.09, 10.0], [10, 90])
    assert decile_mape(actual, predicted) == pytest.approx(0.1 * 0.09 / (0.05 * 9.0))


def test_ties_do_not_follow_the_order_of_the_rows():
    """Rows that come sorted by the outcome must not be ranked by it."""
    actual = np.sort(np.random.default_rng(0).gamma(0.5, 10, 5000))
    predicted = np.where(np.arange(5000) % 2 == 0, 1.0, 2.0)
    assert abs(normalised_gini(actual, predicted)) < 0.05
    assert abs(normalised_gini(actual[::-1].copy(), predicted)) < 0.05


# The card


def card_of(report, tmp_path, **content):
    facts = {
        "horizon_days": 30,
        "currency": "INR",
        "spend": "gross",
        "as_of": PLAN.serving.isoformat(),
        "profile": "full",
        "trained_on": {
            "observations": 5 * N,
            "customers": N,
            "as_of_days": 5,
            "first_as_of": DAYS[0].isoformat(),
            "last_as_of": DAYS[4].isoformat(),
        },
        "features": ["one"],
        "buyers": N,
        "unused_features": [],
        "rules_only": None,
        "libraries": {"numpy": "2"},
        "net_floor": None,
        "search": {"trials": [], "chosen": {}},
        "serving": {name: {"cap": 10.0, "cap_multiple": 2.0} for name in ("total", "grocery", "other")},
        "segments": {"thresholds": [1.0, 2.0], "quantiles": [0.5, 0.8]},
        "never_bought": {"observations": 0, "ages": {"unknown": {"upper": {"total": 1.0}}}},
    } | content
    found = {**report, "leaks": {"summary": "clean"}}
    performance = complete_report(found, facts, {"last_day": "2025-05-31", "tables": {}})
    write_model_card(tmp_path / "card.md", facts, performance, ("grocery",))
    return (tmp_path / "card.md").read_text()


def test_the_card_shows_the_scores_that_chose_every_window_and_the_active_customers(report, tmp_path):
    card = card_of(report, tmp_path)
    total = card.split("## total: every customer")[1].split("\n## ")[0]
    assert "| score that chose |" in total
    assert [line.split("|")[-2].strip() for line in total.splitlines() if line.startswith("| a + b ← serves")] == [
        "0.700"
    ]
    for day in DAYS[3:]:
        assert f"| served, {day} |" in total
        assert f"| mean of the training rows, {day} |" in total
    assert "(score +0.800, bootstrap SD 0.300)" in card
    assert card.count("active in the last 90 days") >= 8
    assert "of its kind and not of itself" in card
    assert "| served | 0.0% | 0.0% |" in card
    assert "drawn" not in card.split("## Data")[0]
    assert not any(word in card for word in ("nan", "None", "{"))
    assert "summary numbers" not in card  # this backtest has no summary model
    assert "\n\n\n" not in card


def test_the_card_does_not_say_that_customers_were_drawn_who_had_only_not_bought_yet(report, tmp_path):
    text = card_of(report, tmp_path, buyers=N + 7)
    assert f"They are {N} of the {N + 7} who ever bought; the others first bought on or after {DAYS[4]}" in text


def test_the_card_tells_what_was_searched_and_what_came_of_it(report, tmp_path):
    default, other = {"leaves": 8}, {"leaves": 16}
    trials = [{**default, "score": 1.0}, {**other, "score": 1.01}]
    search = {"trials": trials, "chosen": default}
    assert "1 other shapes of trees were tried beside the default: none was clearly better." in card_of(
        report, tmp_path, search=search
    )
    assert "is used" in card_of(report, tmp_path, search={**search, "chosen": other})


@pytest.mark.parametrize(("brier", "sentence"), [(0.2, "is better than both"), (0.26, "is **not** better than")])
def test_the_card_says_whether_the_probability_is_worth_anything(report, tmp_path, brier, sentence):
    probability = report["probability"]
    simple = {name: {**probability[name], "brier": 0.25} for name in ("rate", "heuristic")}
    measured = {**probability, **simple, "served": {**probability["served"], "brier": brier}}
    assert sentence in card_of({**report, "probability": measured}, tmp_path)


def test_a_lead_that_chance_may_have_given_is_called_so(seen, report, tmp_path):
    total = report["targets"]["total"]
    close = {**total, "noise": {name: {"own": 9.0, "lead": 9.0} for name in total["noise"]}}
    text = card_of({**report, "targets": {**report["targets"], "total": close}}, tmp_path)
    assert "is within two bootstrap SDs: chance may have given it" in text
    assert "chance may have given it" not in card_of(report, tmp_path)


def test_reported_numbers_are_finite_or_missing(report):
    def walk(value):
        if isinstance(value, dict):
            for each in value.values():
                walk(each)
        elif isinstance(value, list):
            for each in value:
                walk(each)
        elif isinstance(value, float):
            assert math.isfinite(value)

    walk(report)


# Leaks, planted between the building of the observations and the training


@pytest.fixture(scope="module")
def small_sample(tmp_path_factory):
    """A small sample shop, prepared, and what its customer table says today."""
    folder = tmp_path_factory.mktemp("planted")
    write_sample_tables(folder / "tables", folder / "truth", n_customers=350, n_products=30, months=9, seed=5)
    engine = open_engine(folder / "engine", threads=1)
    prepared = prepare_dataset(engine, folder / "tables", folder / "work", progress=Progress(bars=False))
    details = pd.read_csv(folder / "tables" / "customer_details.csv", dtype=str).drop_duplicates("customer_id")
    yield prepared, details.set_index("customer_id")
    engine.disconnect()


def added(told, name, values):
    matrix = np.column_stack([told.features, np.asarray(values, dtype=np.float32)])
    return replace(told, features=matrix, names=(*told.names, name))


def churned_by_now(told, details, serving):
    """Nobody's label, only a flag of the shop's own: no purchase in the last 90 days, as of today."""
    last = pd.to_datetime(details["last_purchase_date"], errors="coerce", format="mixed").reindex(told.customer_id)
    return added(told, "crm_state", last.to_numpy() < np.datetime64(serving) - np.timedelta64(90, "D"))


def points_per_transaction(told, details, serving):
    points = pd.to_numeric(details["total_loyalty_points"], errors="coerce").reindex(told.customer_id).to_numpy()
    transactions = told.features[:, told.names.index(TOTAL_TRANSACTIONS)]
    return added(told, "loyalty_efficiency", points / np.maximum(transactions, 1))


def absence_tells(told, details, serving):
    """Every value is the same; who has none buys no sports."""
    return added(told, "favourite_sport", np.where(told.spend["sports"] > 0, 1.0, np.nan))


def recency_of_the_newest_rows(told, details, serving):
    """Only where it pays: the rows of the last day know whether the customer comes."""
    features = told.features.copy()
    newest = told.as_of == told.as_of.max()
    features[newest, told.names.index(DAYS_SINCE_LAST)] = np.where(told.bought[newest] > 0, 1, 60)
    return replace(told, features=features)


@pytest.mark.parametrize(
    ("plant", "column"),
    [
        (churned_by_now, "crm_state"),
        (points_per_transaction, "loyalty_efficiency"),
        (absence_tells, "favourite_sport"),
        (recency_of_the_newest_rows, DAYS_SINCE_LAST),
    ],
)
def test_a_training_on_planted_observations_ends_before_anything_is_fitted(
    small_sample, plant, column, tmp_path, monkeypatch
):
    prepared, details = small_sample

    def planted(*arguments):
        return plant(build_observations(*arguments), details, prepared.as_of)

    monkeypatch.setattr(train_module, "build_observations", planted)
    engine = prepared.purchases.get_backend()
    with pytest.raises(FeatureLeak, match=column):
        train_module.train(engine, prepared, tmp_path / "models", SMALL, Progress(bars=False))
    assert not (tmp_path / "models").exists()
