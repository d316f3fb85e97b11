"""Odd shops and customers, each with the answer that somebody with sense would give; every shop is trained once."""

import atexit
import functools
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ml_pipeline.backtest import fold_of
from ml_pipeline.candidates import COMPARED, OF_THE_TOTAL, PURCHASE
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import NotEnoughHistory
from ml_pipeline.features import (
    CALENDAR_FEATURES,
    CUSTOMER_TENURE_DAYS,
    TENURE_FEATURES,
    TOTAL_PURCHASE_DAYS,
    feature_names,
)
from ml_pipeline.never_bought import credibility, never_bought_prior
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.registration import REGISTRATION_AGES, registration_ages
from ml_pipeline.snapshot import load_snapshot, money_columns
from ml_pipeline.train import train
from ml_pipeline.training_set import Observations, UnusedFeatures, without
from tests.ml_pipeline.conftest import EFFORT, SMALL
from tests.ml_pipeline.small_shop import prepare_shop, write_shop

END = date(2025, 7, 1)
LITTLE = replace(SMALL, most_days=6, effort=replace(EFFORT, max_rounds=20, forest_trees=3))
CATEGORIES = ("food", "toys")
Sale = tuple[str, int, float] | tuple[str, int, float, str]
"""Customer, days before END, amount (below 0: a return), category."""


@dataclass(frozen=True)
class Tables:
    """A shop: its sales, when who registered (days before END, None: unknown), and what dataset.toml says."""

    sales: Sequence[Sale]
    registered: Sequence[tuple[str, int | None]] = ()
    config: str = "[targets]\n"
    as_of: date | None = END


@dataclass(frozen=True)
class Answer:
    """What is served for one customer; money per column."""

    money: dict[str, float]
    lower: dict[str, float]
    upper: dict[str, float]
    probability: float
    cold_start_reason: str | None

    @property
    def total(self) -> float:
        return self.money["total"]


@dataclass(frozen=True, repr=False)
class Outcome:
    """What a training left behind."""

    predictor: Predictor
    report: dict[str, Any]
    card: str
    answers: dict[str, Answer]
    features: npt.NDArray[np.float32]

    @property
    def content(self) -> Mapping[str, Any]:
        return self.predictor.metadata.content

    @property
    def unused(self) -> list[str]:
        return [name for group in self.content["unused_features"] for name in group["features"]]

    @property
    def kind(self) -> str:
        return str(self.content["serving"]["total"]["kind"])


def write_tables(folder: Path, shop: Tables) -> Path:
    headers, lines = (
        ["transaction_id,customer_id,transaction_date"],
        ["line_item_id,transaction_id,product_id,quantity,line_item_amount"],
    )
    for number, (customer, ago, amount, *category) in enumerate(shop.sales):
        headers.append(f"t{number},{customer},{END - timedelta(days=ago)}")
        quantity = 1 if amount > 0 else -1
        lines.append(f"l{number},t{number},{''.join(category) or 'food'},{quantity},{amount:.4f}")
    registered = (f"{name},{'' if ago is None else END - timedelta(days=ago)}" for name, ago in shop.registered)
    tables = {
        "products": "product_id,product_category\n" + "\n".join(f"{name},{name}" for name in (*CATEGORIES, "books")),
        "store_sales_header": "\n".join(headers),
        "store_sales_line_items": "\n".join(lines),
        "customer_details": "\n".join(["customer_id,customer_since", *registered]),
    }
    return write_shop(folder, tables, shop.config)


def train_on(shop: Tables, folder: Path) -> Outcome:
    engine = open_engine(folder / "engine", threads=1)
    try:
        prepared = prepare_dataset(
            engine, write_tables(folder / "tables", shop), folder / "work", shop.as_of, Progress(bars=False)
        )
        trained = train(engine, prepared, folder / "models", LITTLE, Progress(bars=False))
        pair, report = trained.pair, trained.report
    finally:
        engine.disconnect()
    snapshot = load_snapshot(folder / "models", pair.snapshot_id)
    rows = range(snapshot.n_customers)
    told, names = snapshot.columns(rows), money_columns(snapshot.targets)

    def money(row: int, end: str = "") -> dict[str, float]:
        return {name: float(told[f"predicted_{name}_spend{end}"][row]) for name in names}

    answers = {
        customer: Answer(
            money(row),
            money(row, "_lower"),
            money(row, "_upper"),
            float(told["purchase_probability_30d"][row]),
            told["cold_start_reason"][row],
        )
        for row, customer in enumerate(snapshot.customer_ids(rows))
    }
    predictor = load_predictor(folder / "models", pair.bundle_id)
    card = (folder / "models" / "MODEL_CARD.md").read_text()
    return Outcome(predictor, report, card, answers, snapshot.features(rows))


@functools.cache
def trained(name: str) -> Outcome:
    folder = tempfile.TemporaryDirectory(prefix="odd-shop-")
    atexit.register(folder.cleanup)
    return train_on(SHOPS[name](), Path(folder.name))


# Shops


def noise(customers: int, days: int, rate: float, amount: Callable[[random.Random], float] | None = None) -> list[Sale]:
    """Everybody buys with the same chance on every day; the amounts have nothing to do with who buys. One on day 1."""
    rng = random.Random(11)
    drawn = amount or (lambda chance: round(chance.gammavariate(2, 10) + 0.01, 2))
    sales = [
        (f"c{customer}", ago, drawn(rng))
        for customer in range(customers)
        for ago in range(days, 0, -1)
        if rng.random() < rate
    ]
    return [("c0", days, drawn(rng)), ("c0", 1, drawn(rng)), *sales]


def monthly(customers: Iterable[str], months: int, amount: float = 100.0) -> list[Sale]:
    """Each on a day of his own, every 30 days."""
    return [
        (name, 1 + number % 30 + 30 * month, amount) for number, name in enumerate(customers) for month in range(months)
    ]


def all_sorts_of_customers() -> Tables:
    """A shop of 14 months in which one in six of the newly registered buys within a month, and later hardly anybody does.

    Who bought comes back within two months, or stays away.
    """
    rng = random.Random(5)
    sales = noise(40, 420, 0.03)
    registered: list[tuple[str, int | None]] = []
    for number in range(400):
        since = rng.randrange(2, 700)
        name = f"r{number}"
        registered.append((name, since))
        chance = 0.33 if rng.random() < 0.5 else 0.0
        first = since - rng.randrange(1, 30) if rng.random() < chance else rng.randrange(1, 3000)
        if 0 < first < min(since, 420):
            sales.append((name, first, 30.0))
            again = first - rng.randrange(1, 60)
            if again > 0 and rng.random() < 0.7:
                sales.append((name, again, 30.0))
    ages = {"new": 10, "spring": 60, "winter": 200, "old": 600, "nobody knows": None, "tomorrow": -1}
    odd: list[Sale] = [
        ("yesterday", 1, 25.0),
        ("a year ago", 365, 25.0),
        ("took it back", 100, 80.0),
        ("took it back", 98, -80.0),
        ("only returns", 40, -15.0),
        *((twin, ago, 12.5) for ago in (300, 200, 90, 31, 8) for twin in ("twin 1", "twin 2")),
        ("00042", 5, 9.0),
        ("Ünïcode-客", 5, 9.0),
        ("=1+1", 5, 9.0),
    ]
    twice: list[tuple[str, int | None]] = [("twice", 600), ("twice", 10), ("took it back", 110), ("only returns", 50)]
    return Tables([*sales, *odd], [*registered, *ages.items(), *twice], as_of=None)


SHOPS: dict[str, Callable[[], Tables]] = {
    "all sorts of customers": all_sorts_of_customers,
    "one customer, 90 days": lambda: Tables([("only", ago, 10.0) for ago in range(90, 0, -10)]),
    "a hundredth a sale, 120 days": lambda: Tables(noise(30, 120, 0.1, lambda rng: 0.01)),
    "a billion a sale, 149 days": lambda: Tables(noise(30, 149, 0.1, lambda rng: 1e9)),
    "150 days": lambda: Tables(noise(60, 150, 0.1)),
    "179 days": lambda: Tables(noise(60, 179, 0.1)),
    "one price, 180 days": lambda: Tables(noise(60, 180, 0.03, lambda rng: 50.0)),
    "all bought once": lambda: Tables([(f"c{n}", 1 + n % 130, 10.0) for n in range(260)]),
    "one category is nearly all": lambda: Tables(
        [
            *((*sale, "food") for sale in monthly([f"c{n}" for n in range(60)], 8, 999.0)),
            *((f"c{n}", 1 + n % 30 + 30 * month, 1.0, "books") for n in range(60) for month in range(8)),
        ],
        config='[targets]\nfood = ["food"]\ntoys = ["toys"]\n',
    ),
    "a whale, all spend in other": lambda: Tables(
        [
            *((*sale, "books") for sale in noise(40, 200, 0.06)),
            *(("whale", ago, 1e6, "books") for ago in (170, 100, 70, 40, 10)),
        ],
        config='[targets]\nfood = ["food"]\n',
    ),
    "the same every month": lambda: Tables(monthly([f"c{n}" for n in range(60)], 8)),
    "more returned than bought": lambda: Tables(
        [*noise(30, 120, 0.1), *((f"c{n}", ago, -200.0) for n in range(30) for ago in (100, 70, 50, 20, 3))],
        config='spend = "net"\n[targets]\n',
    ),
    "everybody every day": lambda: Tables([(f"c{n}", ago, 2.0) for n in range(30) for ago in range(130, 0, -1)]),
    "silent for 60 days": lambda: Tables([sale for sale in noise(40, 240, 0.06) if sale[1] > 60]),
}


# What is expected


def check_one_purchase_yesterday(shop: Outcome) -> None:
    answer = shop.answers["yesterday"]
    assert answer.cold_start_reason == "one_purchase"
    assert 0 <= answer.total <= 2 * 25
    assert 0.001 <= answer.probability <= 0.9


def check_one_purchase_a_year_ago(shop: Outcome) -> None:
    answer = shop.answers["a year ago"]
    assert answer.cold_start_reason == "one_purchase"
    assert answer.total <= shop.answers["yesterday"].total
    assert answer.probability <= shop.answers["yesterday"].probability


def check_never_bought(customer: str, age: str) -> Callable[[Outcome], None]:
    def check(shop: Outcome) -> None:
        answer, prior = shop.answers[customer], shop.content["never_bought"]["ages"][age]
        assert answer.cold_start_reason == "never_bought"
        assert answer.total == pytest.approx(prior["spend"]["total"], abs=0.005)
        assert answer.probability == pytest.approx(prior["probability"], abs=0.0001)
        assert answer.lower["total"] == 0
        assert 0 < answer.total < 5
        assert 0.001 <= answer.probability < 0.2

    return check


def check_the_newly_registered_buy_more_often(shop: Outcome) -> None:
    new, *_, old = (shop.answers[name].probability for name in ("new", "spring", "winter", "old"))
    assert new > 2 * old


def check_taken_back_is_never_bought(shop: Outcome) -> None:
    for customer, age in (("took it back", "winter"), ("only returns", "spring")):
        assert shop.answers[customer] == shop.answers[age]


def check_twins(shop: Outcome) -> None:
    assert shop.answers["twin 1"] == shop.answers["twin 2"]
    assert shop.answers["twin 1"].cold_start_reason is None


def check_the_first_of_two_rows_counts(shop: Outcome) -> None:
    assert shop.answers["twice"] == shop.answers["old"]


def check_odd_ids(shop: Outcome) -> None:
    for name in ("00042", "Ünïcode-客", "=1+1"):
        assert shop.answers[name] == shop.answers["00042"]
    assert "42" not in shop.answers


def check_rules_only(days: int) -> Callable[[Outcome], None]:
    def check(shop: Outcome) -> None:
        reason = f"the history is {days} days; models need 150"
        assert shop.content["rules_only"] == reason
        assert f"**Rules only**, because {reason}." in shop.card
        assert shop.content["members"] == {}
        mean = next(each for each in shop.report["targets"]["total"]["candidates"] if each["name"] == "mean")
        assert (mean["left_out"] is not None) == (days < 120)
        assert shop.kind == "rule"

    return check


def assert_level(shop: Outcome, spent_per_customer: float, within: float) -> None:
    """What is expected of the customers in all is what they spend in 30 days, more or less."""
    buyers = [answer for answer in shop.answers.values() if answer.cold_start_reason != "never_bought"]
    assert np.mean([answer.total for answer in buyers]) == pytest.approx(spent_per_customer, rel=within)


def check_models(days: int) -> Callable[[Outcome], None]:
    def check(shop: Outcome) -> None:
        assert shop.content["rules_only"] is None
        assert "xgboost_total_spend" in shop.content["members"]
        groups = [group["features"] for group in shop.content["unused_features"]]
        assert groups[0] == list(CALENDAR_FEATURES)
        assert len(groups) == (3 if days < 180 else 1)
        assert (CUSTOMER_TENURE_DAYS in shop.card) == (days < 180)
        assert ("total_spend_180d" in shop.unused) == (days < 180)

    return check


def check_rules_read_what_models_do_not(shop: Outcome) -> None:
    """Were the days since the first purchase missing for the rule, its rate would be one over 30 days, and far too high."""
    assert "days_since_first_transaction" in shop.unused
    rules = {each["name"]: each["metrics"] for each in shop.report["targets"]["total"]["candidates"]}
    assert rules["lifetime_rate_x_30"]["all"]["bias"] == pytest.approx(1, abs=0.25)


def check_serving_does_not_see_what_training_did_not(shop: Outcome) -> None:
    buyers = shop.features[~np.isnan(shop.features).all(axis=1)]
    columns = [shop.predictor.metadata.features.index(name) for name in shop.unused]
    otherwise = buyers.copy()
    otherwise[:, columns] = np.random.default_rng(0).normal(0, 100, (len(buyers), len(columns)))
    assert shop.predictor.members
    for name, member in shop.predictor.members.items():
        np.testing.assert_array_equal(member.predict(buyers), member.predict(otherwise), err_msg=name)


def check_all_bought_once(shop: Outcome) -> None:
    """Nobody ever came again; who says so of somebody is right, and who says anything it must be little."""
    assert {answer.cold_start_reason for answer in shop.answers.values()} == {"one_purchase"}
    assert max(answer.total for answer in shop.answers.values()) <= 1
    assert max(answer.probability for answer in shop.answers.values()) <= 0.05


def check_no_categories(shop: Outcome) -> None:
    for answer in shop.answers.values():
        assert list(answer.money) == ["total", "other"]
        assert answer.money["other"] == answer.total
        assert answer.upper["other"] == answer.upper["total"]


def check_nearly_all_of_one_category(shop: Outcome) -> None:
    for answer in shop.answers.values():
        assert answer.total == pytest.approx(1000, rel=0.01)
        assert answer.money["food"] == pytest.approx(answer.total, rel=0.01)
        assert answer.money["other"] <= 0.01 * answer.total


def check_a_target_that_never_sold(shop: Outcome) -> None:
    assert {answer.money["toys"] for answer in shop.answers.values()} == {0}
    assert {answer.upper["toys"] for answer in shop.answers.values()} == {0}


def check_all_in_other(shop: Outcome) -> None:
    assert any(answer.total > 0 for answer in shop.answers.values())
    for answer in shop.answers.values():
        assert answer.money["food"] == answer.upper["food"] == 0
        assert answer.money["other"] == answer.total


def check_the_same_every_month(shop: Outcome) -> None:
    assert shop.content["probability"] == {"kind": "rate", "rate": (180 + 0.5) / (180 + 1)}  # 60 on three windows
    for answer in shop.answers.values():
        assert answer.total == pytest.approx(100, rel=0.01)
        assert answer.lower["total"] >= 95
        assert answer.upper["total"] <= 105
        assert answer.probability >= 0.95


def check_one_price(shop: Outcome) -> None:
    assert_level(shop, spent_per_customer=0.03 * 50 * 30, within=0.35)
    assert max(answer.upper["total"] for answer in shop.answers.values()) <= 6 * 50


def check_noise(shop: Outcome) -> None:
    assert shop.kind == "rule"
    assert "**Total:** No model beat the best simple rule" in shop.card
    assert_level(shop, spent_per_customer=0.1 * 20 * 30, within=0.3)


def check_one_customer(shop: Outcome) -> None:
    (answer,) = shop.answers.values()
    assert shop.kind == "rule"
    assert answer.total == pytest.approx(30, rel=0.2)
    assert 0.5 <= answer.probability <= 0.9  # he bought in both windows that there are


def check_a_whale(shop: Outcome) -> None:
    others = [answer.total for name, answer in shop.answers.items() if name != "whale"]
    assert shop.answers["whale"].total >= 1e5
    assert np.median(others) < 1000
    assert max(answer.upper["total"] for answer in shop.answers.values()) < 1e8


def check_more_returned_than_bought(shop: Outcome) -> None:
    assert {answer.total for answer in shop.answers.values()} == {0}
    assert max(answer.upper["total"] for answer in shop.answers.values()) <= 100


def check_units(unit: float) -> Callable[[Outcome], None]:
    def check(shop: Outcome) -> None:
        assert_level(shop, spent_per_customer=0.1 * 30 * unit, within=0.3)
        for answer in shop.answers.values():
            assert answer.upper["total"] <= 15 * unit

    return check


def check_every_day(shop: Outcome) -> None:
    for answer in shop.answers.values():
        assert answer.total == pytest.approx(60, rel=0.01)
        assert (answer.lower["total"], answer.upper["total"]) == pytest.approx((60, 60), rel=0.05)
        assert 0.95 <= answer.probability < 1


def check_silent(shop: Outcome) -> None:
    """The last two windows saw nothing: nobody knows whether the shop is closed, and nobody is promised much."""
    level = 0.06 * 20 * 30
    assert np.mean([answer.total for answer in shop.answers.values()]) <= level / 3
    assert max(answer.probability for answer in shop.answers.values()) <= 0.5


CASES: list[tuple[str, str, Callable[[Outcome], None]]] = [
    ("one purchase yesterday", "all sorts of customers", check_one_purchase_yesterday),
    ("one purchase a year ago", "all sorts of customers", check_one_purchase_a_year_ago),
    ("registered 10 days ago", "all sorts of customers", check_never_bought("new", "up_to_30_days")),
    ("registered 60 days ago", "all sorts of customers", check_never_bought("spring", "31_to_90_days")),
    ("registered 200 days ago", "all sorts of customers", check_never_bought("winter", "91_to_365_days")),
    ("registered 600 days ago", "all sorts of customers", check_never_bought("old", "over_365_days")),
    ("registered nobody knows when", "all sorts of customers", check_never_bought("nobody knows", "unknown")),
    ("registered after as_of", "all sorts of customers", check_never_bought("tomorrow", "unknown")),
    ("newly and long registered", "all sorts of customers", check_the_newly_registered_buy_more_often),
    ("all purchases taken back, only returns", "all sorts of customers", check_taken_back_is_never_bought),
    ("two identical customers", "all sorts of customers", check_twins),
    ("two rows of one customer", "all sorts of customers", check_the_first_of_two_rows_counts),
    ("odd ids", "all sorts of customers", check_odd_ids),
    ("90 days of history", "one customer, 90 days", check_rules_only(90)),
    ("120 days of history", "a hundredth a sale, 120 days", check_rules_only(120)),
    ("149 days of history", "a billion a sale, 149 days", check_rules_only(149)),
    ("150 days of history", "150 days", check_models(150)),
    ("rules on 150 days", "150 days", check_rules_read_what_models_do_not),
    ("serving on 150 days", "150 days", check_serving_does_not_see_what_training_did_not),
    ("179 days of history", "179 days", check_models(179)),
    ("no signal", "179 days", check_noise),
    ("180 days of history", "one price, 180 days", check_models(180)),
    ("everybody bought exactly once", "all bought once", check_all_bought_once),
    ("no categories", "150 days", check_no_categories),
    ("one category of 99.9 %", "one category is nearly all", check_nearly_all_of_one_category),
    ("a target that never sold", "one category is nearly all", check_a_target_that_never_sold),
    ("all spend in other", "a whale, all spend in other", check_all_in_other),
    ("everybody the same every month", "the same every month", check_the_same_every_month),
    ("one price for all", "one price, 180 days", check_one_price),
    ("one customer", "one customer, 90 days", check_one_customer),
    ("one whale", "a whale, all spend in other", check_a_whale),
    ("negative net spend", "more returned than bought", check_more_returned_than_bought),
    ("a currency of large units", "a hundredth a sale, 120 days", check_units(0.01)),
    ("a currency of small units", "a billion a sale, 149 days", check_units(1e9)),
    ("everybody buys every day", "everybody every day", check_every_day),
    ("no sale for 60 days", "silent for 60 days", check_silent),
]


@pytest.mark.parametrize(("shop", "check"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_odd_shop_or_customer_gets_a_sensible_answer(shop, check):
    outcome = trained(shop)
    for answer in outcome.answers.values():
        assert_sound(answer)
    check(outcome)


def assert_sound(answer: Answer) -> None:
    cents = {name: round(money * 100) for name, money in answer.money.items()}
    assert cents["total"] == sum(cents.values()) - cents["total"]
    for name, money in answer.money.items():
        assert 0 <= answer.lower[name] <= money <= answer.upper[name] < float("inf")
    assert 0.001 <= answer.probability <= 0.999
    assert answer.cold_start_reason in (None, "never_bought", "one_purchase")


def test_eighty_nine_days_of_history_are_refused_with_all_three_numbers(tmp_path):
    with pytest.raises(NotEnoughHistory, match=r"89 days; .* at least 90 \(models: 150\)"):
        train_on(Tables(noise(5, 89, 0.2)), tmp_path)


@pytest.mark.parametrize("learner", [*OF_THE_TOTAL, *COMPARED, PURCHASE], ids=lambda learner: learner.name)
def test_no_model_learns_from_what_is_unused(learner):
    """BG/NBD alone reads how long ago somebody came: its form says what it means."""
    rng, names, n = np.random.default_rng(2), feature_names(()), 400
    features = rng.gamma(1.0, 10.0, (n, len(names))).astype(np.float32)
    tenure = [names.index(name) for name in TENURE_FEATURES]
    since, between = names.index(TENURE_FEATURES[0]), names.index(TENURE_FEATURES[1])
    repeats = rng.negative_binomial(1, 0.4, n)
    features[:, names.index(TOTAL_PURCHASE_DAYS)] = repeats + 1
    features[:, since] = rng.integers(20, 150, n)
    features[:, between] = np.where(repeats, np.ceil(rng.random(n) * features[:, since]), 0)
    spend = np.where(rng.random(n) < 0.7, features[:, since].astype(float), 0.0)  # a leak that no model may find
    everybody = Observations(
        np.repeat(np.datetime64(END), n), np.arange(n).astype(str), features, names, {"total": spend}, (spend > 0) * 1.0
    )
    observations = without(everybody, [UnusedFeatures("too short", TENURE_FEATURES)])
    fitted = learner.fit(fold_of(observations, np.arange(n), learner, "total"), names, LITTLE.effort).member
    otherwise = features.copy()
    otherwise[:, since] += np.where(rng.random(n) < 0.5, 1.0, 100.0)
    same = np.array_equal(fitted.predict(features), fitted.predict(otherwise))
    assert same == (not learner.reads_past)
    assert {since, between} < set(tenure)


# Who never bought


@pytest.mark.parametrize(
    ("days", "age"),
    [
        (1, "up_to_30_days"), (30, "up_to_30_days"), (31, "31_to_90_days"), (90, "31_to_90_days"), (91, "91_to_365_days"),
        (365, "91_to_365_days"), (366, "over_365_days"), (0, "unknown"), (-5, "unknown"), (float("nan"), "unknown"),
    ],
)  # fmt: skip
def test_how_long_ago_a_customer_registered_has_these_edges(days, age):
    assert REGISTRATION_AGES[registration_ages(np.array([days], dtype=float))[0]] == age


def prior_of(tmp_path: Path, customers: str, sales: str, days: Sequence[date]) -> dict[str, Any]:
    header = "transaction_id,customer_id,transaction_date,total_amount\n"
    tables = {"customer_details": customers, "store_sales_header": header + sales}
    prepared: Prepared = prepare_shop(write_shop(tmp_path / "data", tables, "[targets]\n"), tmp_path / "out")
    return never_bought_prior(prepared.purchases.get_backend(), prepared, days, ())


def test_the_prior_of_customers_who_never_bought_is_counted_over_those_who_were_there_and_waited(tmp_path):
    """On 10 January `quick` and `never` wait, on 10 February `slow` and `never`; `buyer` and `undated` never do."""
    prior = prior_of(
        tmp_path,
        "customer_id,customer_since\nquick,2025-01-01\nslow,2025-01-10\nnever,2025-01-01\nbuyer,2024-01-01\nundated,\n",
        "t1,quick,2025-01-15,10\nt2,slow,2025-02-15,100\nt3,buyer,2025-01-02,7\nt4,buyer,2025-02-12,7\n"
        "t5,quick,2025-02-12,7\nt6,undated,2025-02-12,7\n",
        [date(2025, 1, 10), date(2025, 2, 10)],
    )
    ages = prior["ages"]
    assert prior["observations"] == 4
    assert {name: age["observations"] for name, age in ages.items() if age["observations"]} == {
        "up_to_30_days": 2,
        "31_to_90_days": 2,
    }
    for age in ages.values():  # two observations each: that one age spent 10 and the other 100 may well be chance
        assert age["spend"] == {"total": 27.5, "other": 27.5}
        assert age["probability"] == 0.5
        assert age["upper"] == {"total": 100.0, "other": 100.0}
        assert age["variance"]["total"] == pytest.approx((100 + 100**2) / 4 - 27.5**2)


def test_who_took_back_what_he_bought_waits_again_from_the_cancellation_on(tmp_path):
    """`soon` waits on both days; `late` is a buyer on 10 January and waits on 10 February; `keeps` never waits."""
    prior = prior_of(
        tmp_path,
        "customer_id,customer_since\nsoon,2025-01-01\nlate,2024-11-20\nkeeps,2023-01-01\n",
        "t1,soon,2025-01-03,10\nt2,soon,2025-01-05,-10\nt3,late,2025-01-03,20\nt4,late,2025-01-15,-20\n"
        "t5,keeps,2025-01-03,30\nt6,keeps,2025-02-20,1\n",
        [date(2025, 1, 10), date(2025, 2, 10)],
    )
    observed = {name: age["observations"] for name, age in prior["ages"].items() if age["observations"]}
    assert observed == {"up_to_30_days": 1, "31_to_90_days": 2}


def test_without_any_past_customer_of_the_kind_the_answer_is_0_up_to_what_one_in_ten_new_customers_exceeds(tmp_path):
    sales = "".join(f"t{n},c{n},2025-01-{1 + n:02d},{10 * (n + 1)}\n" for n in range(20))
    prior = prior_of(tmp_path, "customer_id\nc1\n", f"{sales}last,c0,2025-03-01,1\n", [date(2025, 1, 10)])
    assert prior["observations"] == 0
    for age in prior["ages"].values():
        assert (age["spend"]["total"], age["probability"]) == (0, 0.001)
        assert age["upper"]["total"] == 190  # of 10, 20 … 200
        assert age["variance"]["total"] > 0


def test_three_past_customers_who_did_not_buy_prove_little(tmp_path):
    customers = "customer_id,customer_since\n" + "".join(f"w{n},2025-01-01\n" for n in range(3))
    sales = "t1,c1,2025-01-02,50\nt2,c1,2025-03-01,1\n"
    prior = prior_of(tmp_path, customers, sales, [date(2025, 1, 10)])
    for age in prior["ages"].values():
        assert (age["spend"]["total"], age["probability"], age["upper"]["total"]) == (0, 0.125, 50)


def test_credibility_is_that_of_buhlmann_and_straub():
    """Three groups of 100 with a variance of 1 within and means 0, 1 and 2: computed by hand."""
    n, means = np.full(3, 100.0), np.array([0.0, 1.0, 2.0])
    squares = n * means**2 + 99  # each group's sum of squared deviations is 99
    between = (200 - 2 * 1) / (300 - 30_000 / 300)
    np.testing.assert_allclose(credibility(n, n * means, squares), 100 / (100 + 1 / between))


def test_a_group_without_observations_is_believed_nothing_and_chance_neither():
    n = np.array([50.0, 50.0, 0.0])
    assert credibility(n, np.array([50.0, 51.0, 0.0]), np.array([500.0, 520.0, 0.0])).tolist() == [0, 0, 0]
    believed = credibility(n, np.array([0.0, 500.0, 0.0]), np.array([5.0, 5005.0, 0.0]))
    assert believed[2] == 0
    assert (believed[:2] > 0.9).all()


def test_todays_segment_would_say_that_nobody_who_never_bought_ever_does(tmp_path):
    """Who waits on a past day and then buys is in another segment today: of those still in it nobody bought."""
    rng = random.Random(3)
    days = [date(2025, 1, 1) + timedelta(days=30 * number) for number in range(6)]
    segment, first = {}, {}
    for number in range(600):
        name = f"w{number}"
        window = next((index for index in range(6) if rng.random() < 0.1), None)
        segment[name] = "NR" if window is None else "LR"
        if window is not None:
            first[name] = days[window] + timedelta(days=rng.randrange(30))
    customers = "customer_id,customer_since,segment_id\n" + "".join(
        f"{name},2024-12-20,{code}\n" for name, code in segment.items()
    )
    sales = "".join(f"t{name},{name},{day},20\n" for name, day in first.items())
    prior = prior_of(tmp_path, customers, f"{sales}last,c1,2025-07-15,1\n", days)
    still = [name for name, code in segment.items() if code == "NR"]
    assert not any(name in first for name in still)  # its prior: 0 of 6 × len(still) observations
    assert prior["ages"]["unknown"]["probability"] == pytest.approx(0.1, abs=0.015)
    assert prior["ages"]["unknown"]["spend"]["total"] == pytest.approx(2, abs=0.3)
