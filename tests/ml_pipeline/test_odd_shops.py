"""Whole trainings on shops that no sample looks like: silence, a handful of customers, a whale, sudden growth."""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
import pytest

from ml_pipeline.backtest import Backtest, Candidate, Contest, Judged
from ml_pipeline.bundle import FORMAT, METADATA, content_id, load_metadata, versions_dir
from ml_pipeline.candidates import MODEL, PURCHASE, Recipe
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BundleMismatch, NotEnoughHistory
from ml_pipeline.features import (
    DAYS_FIRST_TO_LAST,
    DAYS_SINCE_FIRST,
    MEAN_REPEAT_VALUE,
    TOTAL_PURCHASE_DAYS,
    feature_names,
)
from ml_pipeline.formulas import member_formula
from ml_pipeline.learners import BgNbdLearner
from ml_pipeline.predictor import load_predictor
from ml_pipeline.prepare import prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import load_snapshot
from ml_pipeline.train import Profile, _fit_final, train
from ml_pipeline.training_set import Observations, WindowPlan
from tests.ml_pipeline.conftest import EFFORT, SMALL
from tests.ml_pipeline.toy_models import write_toy_pair

END = date(2025, 7, 1)
Sale = tuple[str, date, float]


@dataclass(frozen=True)
class Outcome:
    """What a training left behind; money in cents, columns total, food, other."""

    content: dict
    report: dict
    card: str
    money: np.ndarray
    probability: np.ndarray


@pytest.fixture
def trained(tmp_path):
    """Writes a shop's sales as tables and trains on them."""

    def run(sales: Iterable[Sale], profile: Profile = SMALL) -> Outcome:
        tables, models = tmp_path / "tables", tmp_path / "models"
        tables.mkdir()
        (tables / "dataset.toml").write_text('currency = "EUR"\n[targets]\nfood = ["Food"]\n')
        (tables / "products.csv").write_text("product_id,product_category\np1,Food\n")
        headers, lines = (
            ["transaction_id,customer_id,transaction_date"],
            ["line_item_id,transaction_id,product_id,quantity,line_item_amount"],
        )
        for number, (customer, day, amount) in enumerate(sales):
            headers.append(f"t{number},{customer},{day}")
            lines.append(f"l{number},t{number},p1,1,{amount:.2f}")
        (tables / "store_sales_header.csv").write_text("\n".join(headers))
        (tables / "store_sales_line_items.csv").write_text("\n".join(lines))
        engine, progress = open_engine(tmp_path / "engine", threads=1), Progress(bars=False)
        try:
            prepared = prepare_dataset(engine, tables, tmp_path / "work", END, progress)
            made = train(engine, prepared, models, profile, progress)
            pair, report = made.pair, made.report
        finally:
            engine.disconnect()
        snapshot = load_snapshot(models, pair.snapshot_id)
        columns = snapshot.columns(range(snapshot.n_customers))
        money = np.column_stack([columns[f"predicted_{name}_spend"] for name in ("total", "food", "other")]) * 100
        return Outcome(
            dict(load_predictor(models, pair.bundle_id).metadata.content),
            report,
            (models / "MODEL_CARD.md").read_text(),
            np.rint(money),
            columns["purchase_probability_30d"],
        )

    return run


def noise(n_customers: int, n_days: int, rate: float) -> list[Sale]:
    """Everybody buys with the same chance on every day, for amounts that have nothing to do with who buys."""
    rng = random.Random(11)
    days = [END - timedelta(days=back) for back in range(n_days, 0, -1)]
    return [
        (f"c{customer}", day, round(rng.gammavariate(2, 10) + 0.01, 2))
        for customer in range(n_customers)
        for day in days
        if rng.random() < rate
    ]


def assert_sound(outcome: Outcome) -> None:
    assert (outcome.money >= 0).all()
    np.testing.assert_array_equal(outcome.money[:, 0], outcome.money[:, 1:].sum(axis=1))
    assert ((outcome.probability >= 0.001) & (outcome.probability <= 0.999)).all()


def test_a_shop_that_fell_silent_is_expected_to_stay_so(trained):
    outcome = trained(sale for sale in noise(60, 300, 0.05) if sale[1] < END - timedelta(days=130))
    assert_sound(outcome)
    assert (outcome.money == 0).all()
    assert "(zero) on the selection windows" in outcome.card


def test_three_customers_with_the_least_history_are_answered_by_rules(trained):
    outcome = trained([("first", END - timedelta(days=150), 5.0), *noise(2, 100, 0.1)])
    assert_sound(outcome)
    assert {serving["kind"] for serving in outcome.content["serving"].values()} <= {"rule", "blend"}
    assert "there was nothing for a model to learn" in outcome.card


def test_one_whale_leaves_the_others_finite_numbers_that_add_up(trained):
    whale = [("whale", END - timedelta(days=back), 1e8) for back in (170, 100, 70, 40, 10)]
    everything = replace(SMALL, thorough=True, n_trials=1)
    outcome = trained([*noise(80, 250, 0.05), *whale], everything)
    assert_sound(outcome)
    assert "1 other shapes of trees were tried" in outcome.card
    assert outcome.money.max() <= 100 * outcome.content["serving"]["total"]["cap"]


def test_a_bundle_of_the_format_before_is_refused_before_anything_is_read_from_it(tmp_path):
    """It named one member or rule per target and had no formula."""
    pair = write_toy_pair(tmp_path, ["c1"])
    folder = versions_dir(tmp_path) / pair.bundle_id
    content = json.loads((folder / METADATA).read_text())
    del content["bundle_id"]
    content["format"] = 1
    for serving in content["serving"].values():
        del serving["formula"]
    old = content_id(date.fromisoformat(content["as_of"]), content)
    folder.rename(folder.with_name(old))
    (versions_dir(tmp_path) / old / METADATA).write_text(json.dumps({"bundle_id": old, **content}))
    with pytest.raises(
        BundleMismatch, match=rf"format 1, without the formula of total.* reads format {FORMAT}: train again"
    ):
        load_metadata(tmp_path, old)


def test_what_the_newest_window_keeps_from_converging_is_fitted_as_it_was_reported():
    """Nobody of the newest day bought twice: BG/NBD has nothing to learn there, though it won the contest."""
    days = [END - timedelta(days=30 * back) for back in range(6, 0, -1)]
    rng, names = np.random.default_rng(3), feature_names(())
    per_day = 200
    features = np.zeros((per_day * len(days), len(names)), dtype=np.float32)
    position = {name: index for index, name in enumerate(names)}
    repeats = rng.negative_binomial(1, 0.4, len(features)) * (np.arange(len(features)) < per_day * (len(days) - 1))
    features[:, position[TOTAL_PURCHASE_DAYS]] = repeats + 1
    features[:, position[DAYS_SINCE_FIRST]] = 300
    features[:, position[DAYS_FIRST_TO_LAST]] = np.where(repeats > 0, rng.integers(1, 300, len(features)), 0)
    features[:, position[MEAN_REPEAT_VALUE]] = np.where(repeats > 0, rng.gamma(4, 5, len(features)), 0)
    observations = Observations(
        as_of=np.repeat(np.array(days, dtype="datetime64[D]"), per_day),
        customer_id=np.tile(np.array([f"c{n:03d}" for n in range(per_day)]), len(days)),
        features=features,
        names=names,
        spend={"total": np.ones(len(features)), "other": np.ones(len(features))},
        bought=np.ones(len(features)),
    )
    learner = BgNbdLearner()
    winner = Candidate("bg_nbd", MODEL, Recipe("bg_nbd", MODEL, (learner,), lambda learned: member_formula("bg_nbd")))
    contest = Contest(
        TOTAL_TARGET,
        {"bg_nbd": Judged(learner, {days[-2]: np.ones(per_day)})},
        (winner,),
        {},
        winner,
        winner,
        None,
        None,
    )
    plan = WindowPlan(END, tuple(days), (days[3],), (days[4],), (days[5],))
    backtest = Backtest(plan, {TOTAL_TARGET: contest}, {}, Judged(PURCHASE), purchase_serves=True)
    with Progress(bars=False).stage("final models", 1) as stage:
        (member,) = _fit_final(backtest, observations, (), EFFORT, stage)
    assert (member.learner, member.last_as_of) == (learner, days[4])
    assert np.isfinite(member.member.predict(features)).all()


def regulars(names: Iterable[str], first: int, last: int = 1) -> list[Sale]:
    """Each buys on every ninth day from `first` to `last` days before the end."""
    return [(name, END - timedelta(days=back), 10.0) for name in names for back in range(first, last - 1, -9)]


def test_a_sample_of_a_shop_that_grew_lately_still_has_somebody_on_every_judged_day(trained):
    """Three of 123 customers were there more than 28 days ago; 20 may be looked at, two of them for their age."""
    few = replace(SMALL, most_observations=20 * SMALL.most_days)
    outcome = trained([*regulars(["a", "b", "c"], 290), *regulars([f"n{n}" for n in range(120)], 28)], few)
    assert_sound(outcome)
    assert (outcome.content["buyers"], outcome.content["trained_on"]["customers"]) == (123, 2)
    assert set(outcome.report["populations"]["all"].values()) == {2}


def test_the_history_begins_with_the_first_purchase_that_was_not_taken_back(trained):
    """On the days between his cancellation and the next customer nobody could be described."""
    start = END - timedelta(days=300)
    ghost = [("ghost", start, 50.0), ("ghost", start + timedelta(days=2), -50.0)]
    with pytest.raises(NotEnoughHistory, match="begins on 2025-04-03: 89 days"):
        trained([*ghost, *regulars([f"n{n}" for n in range(30)], 89)])
