"""The sample's ceiling: the best expectation of the next 30 days that anyone could form from the visible history alone.

The generator of the sample tables is known (`sample_model`), so the latents of a customer can be integrated over, weighted
by the likelihood of what was seen (`sample_posterior`). `monte_carlo_check` draws the latents instead, and lets the oracle's
own functions speak.

What it knows that a model must learn: the population's parameters, the calendar, each product's tier. What it does not:
the flaws of the tables. It reads the prepared purchases; a line that cleaning set aside was not seen.
It is a yardstick beside the models; nothing here may reach what they learn from or how they are chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ibis.backends.duckdb import Backend

from ml_pipeline.cancellations import as_known_before
from ml_pipeline.errors import BadSampleRequest
from ml_pipeline.metrics import score_probability, score_spend
from ml_pipeline.prepare import Prepared
from ml_pipeline.sample_data import TRUTH_FILES, default_truth_dir, read_shop
from ml_pipeline.sample_model import Floats, Ints, Latents, Shop, expected_spend, purchase_probability
from ml_pipeline.sample_posterior import VisibleHistories, draw_latents, expected_given_history
from ml_pipeline.sample_rows import product_ids
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET, DatasetConfig
from ml_pipeline.targets import build_targets

CEILING_SEED = 20_240_301
_PICK, _DRAW = 1, 2
_DRAWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class SampleTruth:
    """The truth that lies beside sample tables: where, and the shop rebuilt from its parameters."""

    folder: Path
    shop: Shop


@dataclass(frozen=True)
class MonteCarloCheck:
    """The same expectation by weighted draws of all latents, on some customers of one day; money in currency units.

    exact_mean, drawn_mean: of expected total spend over these customers; standard_error: of drawn_mean.
    mean_effective_draws, least_effective_draws: (Σw)²/Σw² per customer, out of n_draws.
    """

    as_of: date
    n_customers: int
    n_draws: int
    exact_mean: float
    drawn_mean: float
    standard_error: float
    mean_effective_draws: float
    least_effective_draws: float


@dataclass(frozen=True)
class CeilingDay:
    """One day's rows, in order of customer_id: every array is (n,). Money per target, with total and other.

    ceiling: expected given the visible history. oracle: expected given the latent truth. actual: as the labels have it.
    """

    as_of: date
    customer_id: npt.NDArray[np.str_]
    ceiling: Mapping[str, Floats]
    oracle: Mapping[str, Floats]
    actual: Mapping[str, Floats]
    ceiling_probability: Floats
    oracle_probability: Floats
    bought: Floats

    def scores(self, target: str = TOTAL_TARGET) -> dict[str, dict[str, float | None]]:
        """`metrics.score_spend` of ceiling and oracle on these rows; for the total also `score_probability`."""
        scored = {
            "ceiling": score_spend(self.actual[target], self.ceiling[target]),
            "oracle": score_spend(self.actual[target], self.oracle[target]),
        }
        if target == TOTAL_TARGET:
            scored["ceiling"] |= score_probability(self.bought, self.ceiling_probability)
            scored["oracle"] |= score_probability(self.bought, self.oracle_probability)
        return scored


@dataclass(frozen=True)
class CeilingReport:
    """Ceiling and oracle on the asked days, ascending, and how the ceiling compares with drawing instead."""

    days: tuple[CeilingDay, ...]
    check: MonteCarloCheck

    def scores(self, target: str = TOTAL_TARGET) -> dict[str, dict[str, float | None]]:
        """Each metric as the mean over the days; None where it is not defined on one of them."""
        daily = [day.scores(target) for day in self.days]
        return {
            whose: {name: _mean([scores[whose][name] for scores in daily]) for name in daily[0][whose]}
            for whose in ("ceiling", "oracle")
        }


def find_sample_truth(data_dir: Path, truth_dir: Path | None = None) -> SampleTruth | None:
    """The truth in `truth_dir` (default: `<data_dir>_truth` beside the tables); None when these are no sample tables."""
    folder = truth_dir or default_truth_dir(data_dir)
    if not all((folder / name).is_file() for name in TRUTH_FILES):
        return None
    return SampleTruth(folder, read_shop(folder))


def sample_ceiling(
    truth: SampleTruth,
    engine: Backend,
    prepared: Prepared,
    as_of_days: Sequence[date],
    n_customers: int = 10_000,
    seed: int = CEILING_SEED,
    check_customers: int = 100,
    check_draws: int = 2000,
) -> CeilingReport:
    """Ceiling, oracle and actual spend of a seeded sample of customers, each on the days before which he has bought.

    All customers are taken where there are no more than `n_customers`. Raises BadSampleRequest when no day is given,
    nobody had bought before one, or the truth is not that of these tables.
    """
    if not as_of_days:
        raise BadSampleRequest("No day to compute the sample's ceiling for: name at least one as_of.")
    days = sorted(set(as_of_days))
    ids = _pick_customers(engine, prepared.purchases, days, n_customers, seed)
    customer_id, latents = _read_latents(truth, ids)
    chosen = ibis.memtable(pa.table({"customer_id": pa.array(customer_id.tolist(), pa.string())}))
    actual = _read_actual(engine, prepared, chosen, days)
    rows, histories = [], []
    for as_of in days:
        bought_before, seen = _read_histories(engine, prepared, chosen, truth.shop, as_of)
        places = np.searchsorted(customer_id, bought_before)
        rows.append(_day_rows(truth.shop, prepared.config, as_of, bought_before, seen, _at(latents, places), actual))
        histories.append(seen)
    draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DRAW,)))
    checked = np.sort(draw.permutation(len(histories[-1]))[:check_customers])
    check = monte_carlo_check(truth.shop, histories[-1].at(checked), days[-1], check_draws, draw)
    return CeilingReport(tuple(rows), check)


def monte_carlo_check(
    shop: Shop, seen: VisibleHistories, as_of: date, n_draws: int, draw: np.random.Generator
) -> MonteCarloCheck:
    """Draws the latents of each customer, weights them by the likelihood of the history, averages the oracle over them."""
    exact = expected_given_history(shop, seen, as_of).spend.sum(axis=1)
    mean, error, effective = np.zeros(len(seen)), np.zeros(len(seen)), np.zeros(len(seen))
    at_once = max(1, _DRAWS_AT_ONCE // n_draws)
    for start in range(0, len(seen), at_once):
        block = np.arange(start, min(start + at_once, len(seen)))
        latents, weight = draw_latents(shop, seen.at(block), as_of, n_draws, draw)
        spend = expected_spend(shop, latents, as_of, HORIZON_DAYS).sum(axis=1).reshape(block.size, n_draws)
        mean[block] = (weight * spend).sum(axis=1)
        error[block] = np.sqrt((weight**2 * (spend - mean[block][:, None]) ** 2).sum(axis=1))
        effective[block] = 1.0 / (weight**2).sum(axis=1)
    return MonteCarloCheck(
        as_of=as_of,
        n_customers=len(seen),
        n_draws=n_draws,
        exact_mean=float(exact.mean()),
        drawn_mean=float(mean.mean()),
        standard_error=float(np.sqrt((error**2).sum()) / len(seen)),
        mean_effective_draws=float(effective.mean()),
        least_effective_draws=float(effective.min()),
    )


def _pick_customers(engine: Backend, purchases: ir.Table, days: Sequence[date], n: int, seed: int) -> list[str]:
    """Ids, ascending, of at most `n` customers who had bought before the last of the days."""
    sales = purchases.filter(purchases.spend_units > 0, purchases.day < ibis.literal(days[-1]))
    ids = sorted(engine.to_pyarrow(sales.select("customer_id").distinct())["customer_id"].to_pylist())
    if not ids:
        raise BadSampleRequest(f"Nobody had bought before {days[-1]}: the sample's ceiling needs a history to look at.")
    draw = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_PICK,)))
    return [ids[place] for place in np.sort(draw.permutation(len(ids))[:n])]


def _read_latents(truth: SampleTruth, ids: list[str]) -> tuple[npt.NDArray[np.str_], Latents]:
    """The true latents of these customers, in the order of their ids."""
    rows = pq.read_table(truth.folder / "latents.parquet", filters=pc.field("customer_id").isin(ids))
    if rows.num_rows != len(ids):
        missing = sorted(set(ids) - set(rows["customer_id"].to_pylist()))
        raise BadSampleRequest(
            f"The truth in {truth.folder} does not know {len(missing)} of {len(ids)} customers of the tables, such as "
            f"{missing[0]!r}: it is that of other tables. Move it away, or bring the one written with them."
        )
    rows = rows.sort_by("customer_id")
    first = np.datetime64(truth.shop.first_day, "D")
    columns = {name: rows[name].to_numpy() for name in rows.column_names}
    names = truth.shop.parameters.category_names
    latents = Latents(
        since=(columns["customer_since"].astype("datetime64[D]") - first).astype(np.int64),
        enters=(columns["enters"].astype("datetime64[D]") - first).astype(np.int64),
        purchase_rate=columns["purchase_rate_per_day"],
        dropout_rate=columns["dropout_rate_per_day"],
        dropout_at=columns["dropout_at_day"],
        extra_lines=columns["extra_lines"],
        price_level=columns["price_level"],
        affinities=np.column_stack([columns[f"affinity_{name.lower()}"] for name in names]),
        home_store=columns["home_store"] - 1,
    )
    return np.array(columns["customer_id"].tolist(), dtype=np.str_), latents


def _at(latents: Latents, places: Ints) -> Latents:
    return Latents(**{name: column[places] for name, column in vars(latents).items()})


def _read_histories(
    engine: Backend, prepared: Prepared, chosen: ir.Table, shop: Shop, as_of: date
) -> tuple[npt.NDArray[np.str_], VisibleHistories]:
    """Ids, ascending, and histories of the chosen customers who are observations on `as_of`.

    Those have a purchase before it that had not been taken back. A line that was taken back was bought all the same, and
    returns say nothing of the latents: the history counts every sale.
    """
    before = prepared.purchases.filter(prepared.purchases.day < ibis.literal(as_of)).semi_join(chosen, "customer_id")
    standing = as_known_before(before, ibis.literal(as_of))
    standing = standing.filter(standing.spend_units > 0).select("customer_id").distinct()
    sales = before.filter(before.spend_units > 0).semi_join(standing, "customer_id")
    rows = _timings(sales).left_join(_contents(sales, shop), "customer_id").drop("customer_id_right")
    rows = rows.left_join(prepared.customers, "customer_id").drop("customer_id_right").order_by("customer_id")
    found = engine.to_pyarrow(rows)
    first_day = np.datetime64(shop.first_day, "D")

    def numbers(name: str) -> Ints:
        return pc.fill_null(found[name], 0).to_numpy().astype(np.int64)

    def day_numbers(name: str) -> Ints:
        known = pc.fill_null(found[name].cast(pa.date32()), shop.first_day)
        return (known.to_numpy().astype("datetime64[D]") - first_day).astype(np.int64)

    since, first = day_numbers("customer_since"), day_numbers("first_day")
    known = found["customer_since"].is_valid().to_numpy() & (since <= first)
    categories = range(len(shop.parameters.categories))
    return np.array(found["customer_id"].to_pylist(), dtype=np.str_), VisibleHistories(
        since=since,
        since_known=known,
        first_day=first,
        last_day=day_numbers("last_day"),
        category_lines=np.column_stack([numbers(f"category_{place}") for place in categories]),
        **{name: numbers(name) for name in ("transactions", "last_day_transactions", "baskets", "lines", "tier_sum")},
    )


def _timings(sales: ir.Table) -> ir.Table:
    """One row per customer: when and how often he bought, baskets with known lines and those lines."""
    baskets = sales.group_by("customer_id", "transaction_id", "day").agg(lines=sales.product_id.count())
    days = baskets.group_by("customer_id", "day").agg(
        transactions=baskets.count(), baskets=(baskets["lines"] > 0).sum(), lines=baskets["lines"].sum()
    )
    return days.group_by("customer_id").agg(
        transactions=days.transactions.sum(),
        first_day=days.day.min(),
        last_day=days.day.max(),
        last_day_transactions=days.transactions.argmax(days.day),
        baskets=days.baskets.sum(),
        lines=days["lines"].sum(),
    )


def _contents(sales: ir.Table, shop: Shop) -> ir.Table:
    """One row per customer with a line of a known product: lines per category and the sum of tiers."""
    catalogue = shop.catalogue
    known = ibis.memtable(
        pa.table({"product_id": product_ids(shop), "place": catalogue.category, "tier": catalogue.tier})
    )
    lines = sales.inner_join(known, "product_id")
    places = range(len(shop.parameters.categories))
    counts = {f"category_{place}": (lines.place == place).sum() for place in places}
    return lines.group_by("customer_id").agg(tier_sum=lines.tier.sum(), **counts)


def _read_actual(engine: Backend, prepared: Prepared, chosen: ir.Table, days: Sequence[date]) -> pa.Table:
    labels = build_targets(prepared.purchases, days, prepared.config.target_names)
    return engine.to_pyarrow(labels.semi_join(chosen, "customer_id"))


def _day_rows(
    shop: Shop,
    config: DatasetConfig,
    as_of: date,
    customer_id: npt.NDArray[np.str_],
    seen: VisibleHistories,
    latents: Latents,
    actual: pa.Table,
) -> CeilingDay:
    if not len(seen):
        raise BadSampleRequest(f"None of the chosen customers had bought before {as_of}: choose a later day.")
    expected = expected_given_history(shop, seen, as_of)
    labels = actual.filter(pc.field("as_of") == as_of)
    places = np.searchsorted(customer_id, np.array(labels["customer_id"].to_pylist(), dtype=np.str_))
    names = (TOTAL_TARGET, *config.target_names, OTHER_TARGET)
    # a customer whose first purchase falls into the window has a label but no history
    held = (places < customer_id.size) & np.isin(labels["customer_id"].to_pylist(), customer_id)

    def spread(values: npt.NDArray[Any]) -> Floats:
        column = np.zeros(customer_id.size)
        column[places[held]] = values[held]
        return column

    return CeilingDay(
        as_of=as_of,
        customer_id=customer_id,
        ceiling=_by_target(shop, config, expected.spend),
        oracle=_by_target(shop, config, expected_spend(shop, latents, as_of, HORIZON_DAYS)),
        actual={name: spread(labels[name].to_numpy()) for name in names},
        ceiling_probability=expected.purchase_probability,
        oracle_probability=purchase_probability(shop, latents, as_of, HORIZON_DAYS),
        bought=spread((labels["transactions"].to_numpy() > 0).astype(np.float64)),
    )


def _by_target(shop: Shop, config: DatasetConfig, spend: Floats) -> dict[str, Floats]:
    """Sums the shop's categories into the data set's targets, total and other included."""
    of_category = [config.target_of_category.get(name.lower(), OTHER_TARGET) for name in shop.parameters.category_names]
    money = {TOTAL_TARGET: spend.sum(axis=1)}
    for target in (*config.target_names, OTHER_TARGET):
        money[target] = spend[:, [name == target for name in of_category]].sum(axis=1)
    return money


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
