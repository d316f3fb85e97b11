"""What a visible history says about a customer of the sample shop: the latents integrated out, or drawn and weighted.

The generator is known (`sample_model`). Given the moment of drop-out every latent is conjugate (Schmittlein, Morrison and
Colombo 1987, "Counting Your Customers", with time stretched by the common day factors), so one dimension is left, and
Gauss-Legendre quadrature over it has no sampling error. `draw_latents` draws them all instead, as a second way to the same
numbers. `docs/sample_data.md` has the formulas.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import betabinom

from ml_pipeline.sample_model import N_TIERS, Floats, Ints, Latents, Shop, day_factors, discounts
from ml_pipeline.schema import HORIZON_DAYS

_NODES, _NODE_WEIGHTS = (np.polynomial.legendre.leggauss(4)[0] + 1) / 2, np.polynomial.legendre.leggauss(4)[1] / 2
_ROWS_AT_ONCE = 1000


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
