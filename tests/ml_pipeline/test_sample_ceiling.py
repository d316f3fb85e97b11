"""The sample's ceiling, held to the generator itself: customers with the same past, and what they spent next."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from ibis.backends.duckdb import Backend

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadSampleRequest
from ml_pipeline.metrics import decile_of, rmse
from ml_pipeline.prepare import Prepared, prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.sample_ceiling import SampleTruth, find_sample_truth, monte_carlo_check, sample_ceiling
from ml_pipeline.sample_data import read_shop, write_sample_tables
from ml_pipeline.sample_model import (
    CategoryModel,
    FlawRates,
    Latents,
    Purchases,
    SampleParameters,
    Shop,
    build_shop,
    expected_spend,
    sample_latents,
    simulate_purchases,
)
from ml_pipeline.sample_posterior import VisibleHistories, draw_latents, expected_given_history
from ml_pipeline.training_set import build_observations

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FLAWLESS = FlawRates(**{rate.name: 0.0 for rate in fields(FlawRates)})
SPOILED = FlawRates(headers_without_lines=0.3, refunds=0.2, lines_unknown_product=0.05, customers_signed_up_later=0.2)
TOY = SampleParameters(
    last_day=date(2025, 3, 31),
    purchase_rate_shape=1.5,
    purchase_rate_mean=0.4,
    dropout_rate_shape=2.0,
    dropout_rate_mean=0.15,
    existing_share=1.0,
    extra_lines_mean=0.3,
    bulk_line_rate=0.02,
    bulk_multiplier=3,
    weekday_factors=(0.5, 0.8, 1.0, 1.3, 1.6, 0.9, 0.7),
    categories=(CategoryModel("Bread", 2.0, 10.0, 0.2), CategoryModel("Beauty", 0.7, 30.0, 0.0)),
    promotions=tuple(plan for plan in SampleParameters().promotions if plan.category == "Beauty"),
)
N_TOY, LEAST_ALIKE = 300_000, 250


@dataclass(frozen=True)
class Population:
    """Simulated customers who bought before `as_of`: what could be seen, which pasts are the same, what came after."""

    shop: Shop
    as_of: date
    latents: Latents
    seen: VisibleHistories
    alike: Ints
    spend: Floats
    bought: Floats


def population(shop: Shop, as_of: date, n_customers: int, since_known: bool = True) -> Population:
    """Straight from the generator, without tables."""
    latents, today = sample_latents(shop, n_customers), shop.day_number(as_of)
    purchases = simulate_purchases(shop, latents)
    seen, buyers = visible(shop, latents, purchases, today, since_known)
    after = purchases.customer[(purchases.day >= today) & (purchases.day < today + 30)]
    return Population(
        shop=shop,
        as_of=as_of,
        latents=Latents(**{name: column[buyers] for name, column in vars(latents).items()}),
        seen=seen,
        alike=same_pasts(shop, purchases, today, n_customers)[buyers],
        spend=purchases.spend(n_customers, len(shop.parameters.categories), today, 30)[buyers],
        bought=(np.bincount(after, minlength=n_customers)[buyers] > 0).astype(float),
    )


def visible(
    shop: Shop, latents: Latents, purchases: Purchases, today: int, since_known: bool
) -> tuple[VisibleHistories, Ints]:
    """Histories counted from clean purchases, and the positions of their customers."""
    past = purchases.day < today
    table = pd.DataFrame({"customer": purchases.customer[past], "day": purchases.day[past]})
    days = table.groupby("customer")["day"].agg(["size", "min", "max"])
    on_last = table[table["day"] == days["max"].reindex(table["customer"]).to_numpy()].groupby("customer").size()
    buyers, n = days.index.to_numpy(), latents.since.size
    lines = past[purchases.line_transaction]
    buyer, category = purchases.customer[purchases.line_transaction[lines]], purchases.category[lines]
    n_categories = len(shop.parameters.categories)
    of_category = np.bincount(buyer * n_categories + category, minlength=n * n_categories).reshape(n, n_categories)
    tiers = np.bincount(buyer, shop.catalogue.tier[purchases.product[lines]], n).astype(np.int64)
    seen = VisibleHistories(
        since=latents.since[buyers],
        since_known=np.full(buyers.size, since_known),
        transactions=days["size"].to_numpy(),
        first_day=days["min"].to_numpy(),
        last_day=days["max"].to_numpy(),
        last_day_transactions=on_last.to_numpy(),
        baskets=days["size"].to_numpy(),
        lines=of_category[buyers].sum(axis=1),
        category_lines=of_category[buyers],
        tier_sum=tiers[buyers],
    )
    return seen, buyers


def same_pasts(shop: Shop, purchases: Purchases, today: int, n_customers: int) -> Ints:
    """One number per customer, equal exactly where days, baskets, categories and tiers before `today` are."""
    draw = np.random.default_rng(0)
    of_cell = draw.integers(1, 2**40, shop.catalogue.cell.max() + 1)
    of_day = draw.integers(1, 2**62, shop.n_days)
    basket = np.zeros(purchases.customer.size, dtype=np.int64)
    np.add.at(basket, purchases.line_transaction, of_cell[shop.catalogue.cell[purchases.product]])
    past = purchases.day < today
    alike = np.zeros(n_customers, dtype=np.int64)
    with np.errstate(over="ignore"):
        mixed = (basket[past] ^ of_day[purchases.day[past]]) * np.int64(0x9E3779B97F4A7C1)
        np.add.at(alike, purchases.customer[past], mixed ^ (mixed >> 29))
    return alike


def deviations(people: Population) -> Floats:
    """Standardised difference between what customers of the same past did on average and what was expected of them.

    One row per past that enough customers share, and a last one of all customers: spend on each category, and buying.
    """
    expected = expected_given_history(people.shop, people.seen, people.as_of)
    told = np.column_stack([expected.spend, expected.purchase_probability])
    happened = np.column_stack([people.spend, people.bought])
    _, past, count = np.unique(people.alike, return_inverse=True, return_counts=True)
    rows = []
    for which in np.flatnonzero(count >= LEAST_ALIKE):
        members = past == which
        assert np.ptp(told[members], axis=0).max() < 1e-9
        error = happened[members].std(axis=0) / np.sqrt(members.sum())
        rows.append((happened[members].mean(axis=0) - told[members][0]) / np.maximum(error, 1e-12))
    surprise = happened - told
    rows.append(surprise.mean(axis=0) / surprise.std(axis=0) * np.sqrt(len(surprise)))
    return np.array(rows)


@pytest.fixture(scope="module")
def toy() -> Population:
    """Many customers of a tiny shop, seen after five days: many have the very same past."""
    shop = build_shop(TOY, 5, 10, 1, 2)
    return population(shop, shop.first_day + timedelta(days=5), N_TOY)


def test_customers_with_the_same_past_spend_on_average_what_the_ceiling_expects(toy: Population) -> None:
    z = deviations(toy)
    assert len(z) >= 50
    assert np.abs(z).max() < 4.5
    assert np.square(z).mean() < 1.3


@pytest.fixture(scope="module")
def newcomers() -> Population:
    """Customers of a tiny shop, most of them new, none with a known sign-up."""
    shop = build_shop(replace(TOY, existing_share=0.3, dropout_rate_mean=0.05), 6, 10, 1, 2)
    return population(shop, shop.first_day + timedelta(days=8), N_TOY, since_known=False)


def test_an_unknown_sign_up_is_averaged_over_the_days_it_may_have_been(newcomers: Population) -> None:
    z = deviations(newcomers)
    assert len(z) >= 25
    assert np.abs(z).max() < 4.5
    assert np.square(z).mean() < 1.3


@pytest.fixture(scope="module")
def people() -> Population:
    """The default shop with 12,000 customers, seen on the day that the oracle last knows the outcome of."""
    return population(build_shop(SampleParameters(), 4, 300, 5, 24), date(2025, 12, 2), 12_000)


def test_the_ceiling_is_calibrated_in_every_tenth_of_its_expectations(people: Population) -> None:
    expected = expected_given_history(people.shop, people.seen, people.as_of)
    told, happened = expected.spend.sum(axis=1), people.spend.sum(axis=1)
    for tenth in range(10):
        members = decile_of(told) == tenth
        error = np.hypot((happened - told)[members].std() / np.sqrt(members.sum()), 0.002 * told.mean())
        assert abs((happened - told)[members].mean()) < 4 * error
        bought = people.bought[members] - expected.purchase_probability[members]
        assert abs(bought.mean()) < 4 * np.hypot(bought.std() / np.sqrt(members.sum()), 1e-3)


def test_the_ceiling_lies_between_a_rule_that_knows_nothing_and_the_oracle(people: Population) -> None:
    happened = people.spend.sum(axis=1)
    ceiling = expected_given_history(people.shop, people.seen, people.as_of).spend.sum(axis=1)
    oracle = expected_spend(people.shop, people.latents, people.as_of).sum(axis=1)
    constant = np.full(happened.size, happened.mean())
    assert rmse(happened, oracle) < rmse(happened, ceiling) < 0.8 * rmse(happened, constant)
    assert rmse(oracle, ceiling) < 0.5 * rmse(oracle, constant)


def test_weighted_draws_of_all_latents_give_the_expectation_that_integration_gives(people: Population) -> None:
    some = people.seen.at(np.arange(0, 12_000, 60)[: len(people.seen) // 60])
    some.since_known[::4] = False
    check = monte_carlo_check(people.shop, some, people.as_of, 1000, np.random.default_rng(1))
    assert check.exact_mean == pytest.approx(
        expected_given_history(people.shop, some, people.as_of).spend.sum(axis=1).mean()
    )
    assert abs(check.drawn_mean - check.exact_mean) < 4 * check.standard_error
    assert check.standard_error < 0.02 * check.exact_mean
    assert 1 <= check.least_effective_draws < check.mean_effective_draws <= 1000


def test_draws_know_that_a_drop_out_on_a_day_lies_behind_the_purchases_of_that_day(toy: Population) -> None:
    busy = np.flatnonzero((toy.seen.last_day_transactions >= 2) & (toy.seen.last_day >= 3))[:300]
    check = monte_carlo_check(toy.shop, toy.seen.at(busy), toy.as_of, 500, np.random.default_rng(3))
    assert abs(check.drawn_mean - check.exact_mean) < 4 * check.standard_error
    assert check.standard_error < 0.005 * check.exact_mean


def test_draws_of_an_unknown_sign_up_know_how_likely_it_is_to_be_there_since(newcomers: Population) -> None:
    late = np.flatnonzero(newcomers.seen.first_day >= 5)[:400]
    fleeting = replace(newcomers.shop, parameters=replace(newcomers.shop.parameters, dropout_rate_mean=0.5))
    check = monte_carlo_check(fleeting, newcomers.seen.at(late), newcomers.as_of, 500, np.random.default_rng(4))
    assert abs(check.drawn_mean - check.exact_mean) < 4 * check.standard_error
    assert check.standard_error < 0.02 * check.exact_mean


def test_draws_agree_on_who_is_still_there(people: Population) -> None:
    some = people.seen.at(np.arange(0, 150))
    latents, weight = draw_latents(people.shop, some, people.as_of, 3000, np.random.default_rng(2))
    there = (latents.dropout_at > people.shop.day_number(people.as_of)).reshape(weight.shape)
    alive = expected_given_history(people.shop, some, people.as_of).alive
    error = np.sqrt((weight**2 * (there - alive[:, None]) ** 2).sum(axis=1))
    trusted = 1 / (weight**2).sum(axis=1) > 100
    assert trusted.sum() > 120
    assert (np.abs((weight * there).sum(axis=1) - alive)[trusted] < 5 * error[trusted] + 1e-3).all()
    assert weight.sum(axis=1) == pytest.approx(np.ones(150))


@dataclass(frozen=True)
class Tables:
    """Sample tables as the pipeline prepared them."""

    folder: Path
    engine: Backend
    prepared: Prepared
    truth: SampleTruth


@pytest.fixture(scope="module")
def flawless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    """300 customers over 12 months, nothing wrong with their tables."""
    yield from _prepared(tmp_path_factory.mktemp("flawless"), replace(SampleParameters(), flaws=FLAWLESS))


@pytest.fixture(scope="module")
def flawed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tables]:
    """The same with many refunds, headers without lines, lines of unknown products and impossible sign-up days."""
    yield from _prepared(tmp_path_factory.mktemp("flawed"), replace(SampleParameters(), flaws=SPOILED))


def _prepared(folder: Path, parameters: SampleParameters) -> Iterator[Tables]:
    write_sample_tables(folder / "shop", n_customers=300, n_products=50, months=12, seed=9, parameters=parameters)
    engine = open_engine(threads=1)
    prepared = prepare_dataset(engine, folder / "shop", folder / "work", progress=Progress(bars=False))
    truth = find_sample_truth(folder / "shop")
    assert truth is not None
    yield Tables(folder / "shop", engine, prepared, truth)
    engine.disconnect()


DAYS = (date(2025, 11, 2), date(2025, 12, 2))


def test_what_is_read_from_tables_without_flaws_gives_the_generators_own_ceiling(flawless: Tables) -> None:
    shop = flawless.truth.shop
    report = sample_ceiling(flawless.truth, flawless.engine, flawless.prepared, DAYS, check_customers=5)
    for day in report.days:
        clean = population(shop, day.as_of, 300)
        expected = expected_given_history(shop, clean.seen, day.as_of)
        np.testing.assert_allclose(day.ceiling["total"], expected.spend.sum(axis=1), rtol=1e-12)
        np.testing.assert_allclose(day.ceiling["grocery"], expected.spend[:, 1], rtol=1e-12)
        np.testing.assert_allclose(day.ceiling["other"], expected.spend[:, 3:].sum(axis=1), rtol=1e-12)
        np.testing.assert_allclose(day.ceiling_probability, expected.purchase_probability, rtol=1e-12)
        np.testing.assert_allclose(day.actual["total"], clean.spend.sum(axis=1), rtol=1e-12)
        np.testing.assert_array_equal(day.bought, clean.bought)


def test_the_oracle_beside_the_ceiling_is_the_one_that_was_written(flawed: Tables) -> None:
    written = pd.read_parquet(flawed.truth.folder / "oracle.parquet").set_index(["as_of", "customer_id"])
    for day in sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, DAYS, check_customers=5).days:
        rows = written.loc[day.as_of].loc[day.customer_id]
        np.testing.assert_allclose(day.oracle["total"], rows["total"], rtol=1e-9)
        np.testing.assert_allclose(day.oracle["sports"], rows["sports"], rtol=1e-9)
        np.testing.assert_allclose(day.oracle_probability, rows["purchase_probability"], rtol=1e-9)


def test_its_rows_and_outcomes_are_those_of_the_observations(flawed: Tables) -> None:
    prepared = flawed.prepared
    observations = build_observations(
        flawed.engine, prepared.purchases, prepared.customers, DAYS, prepared.config.target_names
    )
    for day in sample_ceiling(flawed.truth, flawed.engine, prepared, DAYS, check_customers=5).days:
        rows = observations.on(day.as_of)
        order = np.argsort(observations.customer_id[rows])
        np.testing.assert_array_equal(day.customer_id, observations.customer_id[rows][order])
        np.testing.assert_array_equal(day.bought, observations.bought[rows][order])
        for target, spend in observations.spend.items():
            np.testing.assert_array_equal(day.actual[target], spend[rows][order])


def test_refunds_and_lost_lines_hardly_move_the_ceiling(flawless: Tables, flawed: Tables) -> None:
    clean, dirty = (
        sample_ceiling(tables.truth, tables.engine, tables.prepared, DAYS[:1], check_customers=5).days[0]
        for tables in (flawless, flawed)
    )
    shared, in_clean, in_dirty = np.intersect1d(clean.customer_id, dirty.customer_id, return_indices=True)
    assert len(shared) > 0.95 * len(clean.customer_id)
    told, told_dirty = clean.ceiling["total"][in_clean], dirty.ceiling["total"][in_dirty]
    assert told_dirty.sum() == pytest.approx(told.sum(), rel=0.02)
    moved = dirty.ceiling_probability[in_dirty] - clean.ceiling_probability[in_clean]
    assert np.abs(moved).mean() < 0.01
    assert (told != told_dirty).any()
    assert np.corrcoef(told, told_dirty)[0, 1] > 0.98


def test_the_same_seed_gives_the_same_report_and_fewer_customers_are_a_part_of_all(flawed: Tables) -> None:
    everyone = sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, DAYS, check_customers=5)
    again = sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, tuple(reversed(DAYS)), check_customers=5)
    few = sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, DAYS, n_customers=60, check_customers=5)
    assert again.check == everyone.check
    assert again.scores() == everyone.scores()
    for day, part in zip(everyone.days, few.days, strict=True):
        assert 30 < len(part.customer_id) <= 60
        places = np.searchsorted(day.customer_id, part.customer_id)
        np.testing.assert_array_equal(day.customer_id[places], part.customer_id)
        np.testing.assert_allclose(part.ceiling["total"], day.ceiling["total"][places], rtol=1e-12)
        np.testing.assert_array_equal(part.actual["total"], day.actual["total"][places])


def test_scores_are_the_means_over_the_days(flawed: Tables) -> None:
    report = sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, DAYS, check_customers=5)
    daily = [day.scores("grocery")["ceiling"]["d2"] for day in report.days]
    assert report.scores("grocery")["ceiling"]["d2"] == pytest.approx(np.mean(daily))
    assert {"auc", "brier"} <= set(report.scores()["oracle"])


def test_a_truth_gives_back_the_shop_that_it_was_written_for(flawed: Tables) -> None:
    shop = build_shop(replace(SampleParameters(), flaws=SPOILED), 9, 50, 5, 12)
    found = read_shop(flawed.truth.folder)
    assert found.parameters == shop.parameters
    assert (found.first_day, found.n_stores, found.promotions) == (shop.first_day, shop.n_stores, shop.promotions)
    np.testing.assert_array_equal(found.catalogue.price_cents, shop.catalogue.price_cents)


def test_tables_without_a_truth_beside_them_are_no_sample(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    assert find_sample_truth(tmp_path / "shop") is None


def test_the_truth_of_other_tables_is_refused_with_a_customer_it_does_not_know(flawed: Tables, tmp_path: Path) -> None:
    write_sample_tables(tmp_path / "shop", n_customers=20, n_products=50, months=12, seed=9)
    other = find_sample_truth(tmp_path / "shop")
    assert other is not None
    with pytest.raises(BadSampleRequest, match="does not know"):
        sample_ceiling(other, flawed.engine, flawed.prepared, DAYS)


def test_parameters_that_no_version_wrote_are_refused(tmp_path: Path) -> None:
    (tmp_path / "parameters.json").write_text('{"seed": 1, "n_products": 50}')
    with pytest.raises(BadSampleRequest, match="n_stores"):
        read_shop(tmp_path)


def test_a_day_before_anyone_bought_is_refused(flawed: Tables) -> None:
    with pytest.raises(BadSampleRequest, match="Nobody had bought before 2024-12-01"):
        sample_ceiling(flawed.truth, flawed.engine, flawed.prepared, [date(2024, 12, 1)])
