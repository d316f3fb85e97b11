"""The sample's ceiling: the best expectation of the next 30 days that anyone could form from the visible history alone.

The generator of the sample tables is known (`sample_model`), so the latents of a customer can be integrated over, weighted
by the likelihood of what was seen. Given the moment of drop-out every latent is conjugate (Schmittlein, Morrison and
Colombo 1987, with time stretched by the common day factors), so one dimension is left, and Gauss-Legendre quadrature
over it has no sampling error. `monte_carlo_check` draws the latents instead, and lets the oracle's own functions speak.

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
from scipy.stats import betabinom

from ml_pipeline.errors import BadSampleRequest
from ml_pipeline.metrics import score_probability, score_spend
from ml_pipeline.prepare import Prepared
from ml_pipeline.sample_data import TRUTH_FILES, default_truth_dir, read_shop
from ml_pipeline.sample_model import (
    N_TIERS,
    Floats,
    Ints,
    Latents,
    Shop,
    day_factors,
    discounts,
    expected_spend,
    purchase_probability,
)
from ml_pipeline.sample_rows import product_ids
from ml_pipeline.schema import HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET, DatasetConfig
from ml_pipeline.targets import build_targets

CEILING_SEED = 20_240_301
_PICK, _DRAW = 1, 2
_NODES, _NODE_WEIGHTS = (np.polynomial.legendre.leggauss(4)[0] + 1) / 2, np.polynomial.legendre.leggauss(4)[1] / 2
_ROWS_AT_ONCE = 1000
_DRAWS_AT_ONCE = 20_000


@dataclass(frozen=True)
class SampleTruth:
    """The truth that lies beside sample tables: where, and the shop rebuilt from its parameters."""

    folder: Path
    shop: Shop


@dataclass(frozen=True)
class VisibleHistories:
    """All that a history before `as_of` says about its customer's latents; arrays (n,), one row per customer who bought.

    Days are day numbers of the shop. since: day of sign-up as the tables show it; where `since_known` is False it is
    missing, or contradicted by an earlier purchase. last_day_transactions: transactions on the last day with one.
    baskets, lines: transactions whose lines are known, and how many those are. category_lines (n, n_categories), tier_sum:
    lines of known products, and the sum of their tiers.
    """

    since: Ints
    since_known: npt.NDArray[np.bool_]
    transactions: Ints
    first_day: Ints
    last_day: Ints
    last_day_transactions: Ints
    baskets: Ints
    lines: Ints
    category_lines: Ints
    tier_sum: Ints

    def __len__(self) -> int:
        return len(self.transactions)

    def at(self, places: Ints) -> "VisibleHistories":
        """The histories at these positions."""
        return VisibleHistories(**{name: column[places] for name, column in vars(self).items()})


@dataclass(frozen=True)
class WindowExpectation:
    """Given the visible history: spend (n, n_categories) in currency units, chance to buy at all and to be there at as_of."""

    spend: Floats
    purchase_probability: Floats
    alive: Floats


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


def expected_given_history(
    shop: Shop, seen: VisibleHistories, as_of: date, horizon_days: int = HORIZON_DAYS
) -> WindowExpectation:
    """What to expect of as_of … as_of + horizon_days - 1 given what was seen before, the latents integrated out."""
    blocks = [
        _expected_of_block(shop, seen.at(np.arange(start, min(start + _ROWS_AT_ONCE, len(seen)))), as_of, horizon_days)
        for start in range(0, len(seen), _ROWS_AT_ONCE)
    ]
    return WindowExpectation(
        spend=np.concatenate([block.spend for block in blocks]),
        purchase_probability=np.concatenate([block.purchase_probability for block in blocks]),
        alive=np.concatenate([block.alive for block in blocks]),
    )


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


def draw_latents(
    shop: Shop, seen: VisibleHistories, as_of: date, n_draws: int, draw: np.random.Generator
) -> tuple[Latents, Floats]:
    """`n_draws` latents per customer, customers one after the other, and their weights (n, n_draws), each row summing to 1.

    Entry, hazard and drop-out come from the population, given only that the customer was there when the last day with a
    purchase began; the purchase rate from its gamma given those; the rest from its posterior. The weight is what the
    likelihood has left.
    """
    chosen, starts = shop.parameters, _possible_starts(shop, seen)
    row = np.repeat(np.arange(len(seen)), n_draws)
    enters = _draw_starts(starts, len(seen), n_draws, draw)
    last = seen.last_day[row]
    age_rate = chosen.dropout_rate_shape / chosen.dropout_rate_mean
    dropout_rate = draw.gamma(chosen.dropout_rate_shape, 1.0 / (age_rate + last - enters))
    dropout_at = last + draw.standard_exponential(row.size) / np.maximum(dropout_rate, 1e-12)
    stretched = _stretched_time(shop, as_of, 0)
    there = np.interp(np.minimum(dropout_at, shop.day_number(as_of)), np.arange(stretched.size), stretched)
    events = (chosen.purchase_rate_shape + seen.transactions)[row]
    rate = chosen.purchase_rate_shape / chosen.purchase_rate_mean + there - stretched[enters]
    log_weight = -events * np.log(rate) - chosen.dropout_rate_shape * np.log(age_rate + last - enters)
    log_weight += seen.last_day_transactions[row] * np.log(np.clip(dropout_at - last, 1e-300, 1.0))
    log_weight = log_weight.reshape(len(seen), n_draws)
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    baskets = _basket_posterior(shop, seen)
    gammas = draw.standard_gamma(baskets.affinity[row])
    latents = Latents(
        since=enters,
        enters=enters,
        purchase_rate=draw.standard_gamma(events) / rate,
        dropout_rate=dropout_rate,
        dropout_at=dropout_at,
        extra_lines=draw.standard_gamma(baskets.extra_shape[row]) / baskets.extra_rate[row],
        price_level=draw.beta(baskets.tier_ups[row], baskets.tier_downs[row]),
        affinities=gammas / gammas.sum(axis=1, keepdims=True),
        home_store=np.zeros(row.size, dtype=np.int64),
    )
    return latents, weight / weight.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class _Starts:
    """Days on which each customer may have entered; rows in order of `owner` (position of the customer)."""

    owner: Ints
    enters: Ints
    log_prior: Floats
    first_row: Ints


def _possible_starts(shop: Shop, seen: VisibleHistories) -> _Starts:
    """One row where the sign-up is known; otherwise every day up to the first purchase, weighted by the population."""
    counts = np.where(seen.since_known, 1, seen.first_day + 1)
    first_row = np.concatenate([[0], np.cumsum(counts)[:-1]])
    owner = np.repeat(np.arange(len(seen)), counts)
    nth = np.arange(owner.size) - first_row[owner]
    known = seen.since_known[owner]
    share = shop.parameters.existing_share
    weight = (1.0 - share) / shop.n_days + np.where(nth == 0, share, 0.0)
    with np.errstate(divide="ignore"):
        log_prior = np.where(known, 0.0, np.log(weight))
    return _Starts(owner, np.where(known, np.maximum(seen.since[owner], 0), nth), log_prior, first_row)


def _draw_starts(starts: _Starts, n_customers: int, n_draws: int, draw: np.random.Generator) -> Ints:
    cumulated = np.cumsum(np.exp(starts.log_prior))
    before = np.concatenate([[0.0], cumulated])[starts.first_row]
    ends = np.concatenate([cumulated[starts.first_row[1:] - 1], cumulated[-1:]])
    uniform = before[:, None] + draw.random((n_customers, n_draws)) * (ends - before)[:, None]
    place = np.searchsorted(cumulated, uniform.ravel(), side="right")
    last_row = np.concatenate([starts.first_row[1:], [starts.owner.size]]) - 1
    return starts.enters[np.clip(place, np.repeat(starts.first_row, n_draws), np.repeat(last_row, n_draws))]


def _expected_of_block(shop: Shop, seen: VisibleHistories, as_of: date, horizon_days: int) -> WindowExpectation:
    chosen, today, starts = shop.parameters, shop.day_number(as_of), _possible_starts(shop, seen)
    events = _floats(chosen.purchase_rate_shape + seen.transactions)[starts.owner]
    stretched = _stretched_time(shop, as_of, horizon_days)
    silence = _Silence(shop, stretched, starts.enters, events)
    last = seen.last_day[starts.owner]
    lost, stayed = silence.between(last, today, seen.last_day_transactions[starts.owner])
    likelihood = starts.log_prior + silence.log_level(last) + np.log(lost + stayed)
    weight = np.exp(likelihood - np.maximum.reduceat(likelihood, starts.first_row)[starts.owner])
    weight /= np.add.reduceat(weight, starts.first_row)[starts.owner]
    alive = weight * stayed / (lost + stayed)
    lost, stayed = silence.between(np.full(last.size, today), today + horizon_days, np.zeros(last.size, dtype=np.int64))
    purchases = silence.expected_rate(today)[:, None] * _paid_days(shop, silence, as_of, horizon_days)
    return WindowExpectation(
        spend=np.add.reduceat(alive[:, None] * purchases, starts.first_row) * _expected_basket(shop, seen),
        purchase_probability=np.add.reduceat(alive * (1.0 - lost - stayed), starts.first_row),
        alive=np.add.reduceat(alive, starts.first_row),
    )


class _Silence:
    """The chances of not seeing a customer, purchase rate and hazard integrated out; one row per customer and entry.

    With age t - e and stretched age F(t) - F(e), being there at t with the purchases seen and none since has the density
    level(t) = (β + t - e)^-s (α + F(t) - F(e))^-(r + n), up to a constant of the customer.
    """

    def __init__(self, shop: Shop, stretched: Floats, enters: Ints, events: Floats) -> None:
        chosen = shop.parameters
        self._stretched, self._events = stretched, events
        self._shape = chosen.dropout_rate_shape
        self._age = chosen.dropout_rate_shape / chosen.dropout_rate_mean - enters
        self._stretched_age = chosen.purchase_rate_shape / chosen.purchase_rate_mean - stretched[enters]

    def log_level(self, day: Ints) -> Floats:
        """Log of the level at the start of each row's day."""
        return -self._shape * np.log(self._age + day) - self._events * np.log(
            self._stretched_age + self._stretched[day]
        )

    def expected_rate(self, day: int) -> Floats:
        """Expected purchase rate of those who are there on that day."""
        return self._events / (self._stretched_age + self._stretched[day])

    def survival(self, day: int, days: int) -> Floats:
        """Expected part that the customer is there of each of `days` days, given that he is at the start of `day`."""
        moments = np.arange(days)[:, None] + _NODES[None, :]
        gone_by = (1.0 + moments[None, :, :] / (self._age + day)[:, None, None]) ** -self._shape
        return np.einsum("rdn,n->rd", gone_by, _NODE_WEIGHTS)

    def between(self, first: Ints, end: int, bought_on_first: Ints) -> tuple[Floats, Floats]:
        """Chance to drop out, and not to, between `first` and `end` with no purchase seen; both in units of level(first).

        On the first day itself `bought_on_first` purchases were seen, at no known hour: the drop-out lies behind them.
        """
        row = np.repeat(np.arange(first.size), end - first)
        starts = np.cumsum(end - first) - (end - first)
        nth = np.arange(row.size) - starts[row]
        day = first[row] + nth
        reference, lost = self.log_level(first), np.zeros(first.size)
        factor = self._stretched[day + 1] - self._stretched[day]
        behind = np.where(nth == 0, bought_on_first[row], 0)
        for node, weight in zip(_NODES, _NODE_WEIGHTS, strict=True):
            age = self._age[row] + day + node
            stretched_age = self._stretched_age[row] + self._stretched[day] + factor * node
            level = -self._shape * np.log(age) - self._events[row] * np.log(stretched_age) - reference[row]
            density = self._shape / age * np.exp(level + behind * np.log(node))
            lost += weight * np.bincount(row, density, first.size)
        return lost, np.exp(self.log_level(np.full(first.size, end)) - reference)


def _paid_days(shop: Shop, silence: _Silence, as_of: date, horizon_days: int) -> Floats:
    """Expected days of the window, weighted by day factor and by what is paid of the price; (rows, n_categories)."""
    days = np.datetime64(as_of, "D") + np.arange(horizon_days)
    paid = 1.0 - shop.parameters.promotion_take_up * discounts(shop.parameters, days)
    life = silence.survival(shop.day_number(as_of), horizon_days)
    return np.einsum("rd,kd->rk", life, day_factors(shop.parameters, days) * paid)


def _expected_basket(shop: Shop, seen: VisibleHistories) -> Floats:
    """Expected undiscounted spend of one transaction per category given the baskets seen, (n, n_categories)."""
    chosen = shop.parameters
    baskets = _basket_posterior(shop, seen)
    tiers = betabinom.pmf(np.arange(N_TIERS), N_TIERS - 1, baskets.tier_ups[:, None], baskets.tier_downs[:, None])
    price = np.einsum("nt,kt->nk", tiers, shop.catalogue.mean_price())
    quantity = np.array([1.0 + category.extra_quantity for category in chosen.categories])
    bulk = 1.0 + chosen.bulk_line_rate * (chosen.bulk_multiplier - 1)
    lines = 1.0 + baskets.extra_shape / baskets.extra_rate
    shares = baskets.affinity / baskets.affinity.sum(axis=1, keepdims=True)
    return lines[:, None] * shares * price * quantity * bulk


@dataclass(frozen=True)
class _BasketPosterior:
    """Gamma of extra lines (shape, rate), Dirichlet of categories, beta of the price level, given the baskets seen."""

    extra_shape: Floats
    extra_rate: Floats
    affinity: Floats
    tier_ups: Floats
    tier_downs: Floats


def _basket_posterior(shop: Shop, seen: VisibleHistories) -> _BasketPosterior:
    chosen = shop.parameters
    prior = np.array([category.affinity for category in chosen.categories])
    downs = (N_TIERS - 1) * seen.category_lines.sum(axis=1) - seen.tier_sum
    return _BasketPosterior(
        extra_shape=_floats(chosen.extra_lines_shape + seen.lines - seen.baskets),
        extra_rate=_floats(chosen.extra_lines_shape / chosen.extra_lines_mean + seen.baskets),
        affinity=_floats(prior + seen.category_lines),
        tier_ups=_floats(chosen.price_level_alpha + seen.tier_sum),
        tier_downs=_floats(chosen.price_level_beta + downs),
    )


def _floats(values: npt.NDArray[Any]) -> Floats:
    return values.astype(np.float64)


def _stretched_time(shop: Shop, as_of: date, horizon_days: int) -> Floats:
    """Running sum of the day factors at the start of day 0, 1, … up to the end of the window."""
    days = np.datetime64(shop.first_day, "D") + np.arange(shop.day_number(as_of) + horizon_days)
    return np.concatenate([[0.0], np.cumsum(day_factors(shop.parameters, days))])


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
    """Ids, ascending, and histories of the chosen customers who had bought before `as_of`. Returns are not looked at."""
    purchases = prepared.purchases
    sales = purchases.filter(purchases.spend_units > 0, purchases.day < ibis.literal(as_of))
    sales = sales.semi_join(chosen, "customer_id")
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
