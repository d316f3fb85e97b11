"""The shop that the sample tables come from: a small generative model whose truth is known.

Every customer signs up on a day, buys as a Poisson process whose own rate is common day factors times a gamma
distributed number, and drops out after an exponential lifetime with a gamma distributed hazard (Pareto/NBD: Schmittlein,
Morrison and Colombo 1987, "Counting Your Customers"). Baskets, categories, price tiers, products and quantities are
independent draws given the customer, so the likelihood of a visible history is a product of textbook terms;
`docs/sample_data.md` writes it down. All parameters are in `SampleParameters` and were fixed before anything was trained.

Time is measured in days since the shop's first day; a moment t belongs to day floor(t).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from ml_pipeline.errors import BadSampleRequest

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

N_TIERS = 5
_CATALOGUE, _LATENTS, _PURCHASES = 1, 2, 3


@dataclass(frozen=True)
class CategoryModel:
    """One product category. `affinity` is its Dirichlet weight, `base_price` the middle tier's price before jitter."""

    name: str
    affinity: float
    base_price: float
    extra_quantity: float


@dataclass(frozen=True)
class PromotionPlan:
    """A promotion that returns every year on the same days, `days` long from `month`-`day`, all within one year."""

    name: str
    month: int
    day: int
    days: int
    category: str
    discount_percent: int
    rate_lift: float


@dataclass(frozen=True)
class LoyaltyRule:
    """From `min_spend` on a customer has this status; points = floor(spend x points_per_unit) + bonus."""

    status: str
    min_spend: int
    points_per_unit: float
    bonus_points: int


@dataclass(frozen=True)
class FlawRates:
    """How often each flaw is put into the tables; shares of the rows named, at least one row where the share is above 0."""

    null_customer_column: float = 0.02
    null_product_column: float = 0.02
    null_store_region: float = 0.2
    null_header_store: float = 0.003
    null_header_phone: float = 0.5
    duplicate_full_row: float = 0.002
    duplicate_conflicting: float = 0.001
    headers_empty_customer: float = 0.002
    headers_unreadable_date: float = 0.001
    headers_empty_date: float = 0.0005
    headers_month_first_date: float = 0.0001
    headers_future_date: float = 0.00003
    headers_without_lines: float = 0.0015
    headers_contradicting_total: float = 0.01
    refunds: float = 0.012
    lines_without_header: float = 0.001
    lines_unknown_product: float = 0.001
    customers_missing_from_details: float = 0.003
    customers_signed_up_later: float = 0.005
    category_noise: float = 0.1
    day_first_dates: float = 0.12
    slash_dates: float = 0.06
    ids_as_floats: float = 0.02


_CATEGORIES = (
    CategoryModel("Electronics", affinity=0.5, base_price=1600.0, extra_quantity=0.05),
    CategoryModel("Grocery", affinity=2.0, base_price=140.0, extra_quantity=1.2),
    CategoryModel("Sports", affinity=0.35, base_price=900.0, extra_quantity=0.15),
    CategoryModel("Home", affinity=0.9, base_price=520.0, extra_quantity=0.3),
    CategoryModel("Beauty", affinity=0.75, base_price=320.0, extra_quantity=0.4),
)

_PROMOTIONS = (
    PromotionPlan("New Year Fitness", 1, 2, 10, "Sports", 15, 1.06),
    PromotionPlan("Republic Day Electronics", 1, 22, 6, "Electronics", 12, 1.15),
    PromotionPlan("Valentine Beauty", 2, 7, 8, "Beauty", 15, 1.06),
    PromotionPlan("Spring Pantry", 3, 10, 7, "Grocery", 8, 1.08),
    PromotionPlan("Spring Home", 4, 5, 10, "Home", 12, 1.05),
    PromotionPlan("Summer Sports", 5, 10, 10, "Sports", 18, 1.06),
    PromotionPlan("Mid-Year Electronics", 6, 15, 7, "Electronics", 10, 1.12),
    PromotionPlan("Monsoon Pantry", 7, 10, 7, "Grocery", 6, 1.06),
    PromotionPlan("Independence Day Electronics", 8, 10, 7, "Electronics", 15, 1.20),
    PromotionPlan("Beauty Week", 9, 5, 7, "Beauty", 12, 1.06),
    PromotionPlan("Festive Home", 10, 1, 10, "Home", 15, 1.10),
    PromotionPlan("Festive Electronics", 10, 17, 10, "Electronics", 15, 1.25),
    PromotionPlan("Festive Pantry", 10, 19, 8, "Grocery", 10, 1.10),
    PromotionPlan("Winter Sports", 11, 20, 10, "Sports", 15, 1.06),
    PromotionPlan("Year-End Home", 12, 20, 11, "Home", 15, 1.10),
)

_LOYALTY = (
    LoyaltyRule("Bronze", min_spend=0, points_per_unit=0.01, bonus_points=0),
    LoyaltyRule("Silver", min_spend=10_000, points_per_unit=0.012, bonus_points=50),
    LoyaltyRule("Gold", min_spend=40_000, points_per_unit=0.015, bonus_points=200),
    LoyaltyRule("Platinum", min_spend=100_000, points_per_unit=0.02, bonus_points=1000),
)


@dataclass(frozen=True)
class SampleParameters:
    """Everything the sample shop is made of. Rates are per day, money in INR; `*_shape` and `*_mean` are of gammas."""

    last_day: date = date(2025, 12, 31)
    currency: str = "INR"
    purchase_rate_shape: float = 1.2
    purchase_rate_mean: float = 0.06
    dropout_rate_shape: float = 1.0
    dropout_rate_mean: float = 0.002
    existing_share: float = 0.4
    existing_since_days: int = 1095
    extra_lines_shape: float = 2.0
    extra_lines_mean: float = 1.5
    price_level_alpha: float = 2.0
    price_level_beta: float = 3.0
    tier_multipliers: tuple[float, ...] = (0.5, 0.75, 1.0, 1.4, 2.0)
    price_jitter_sigma: float = 0.2
    popularity_exponent: float = 0.8
    home_store_share: float = 0.85
    promotion_take_up: float = 0.8
    bulk_line_rate: float = 0.00005
    bulk_multiplier: int = 25
    weekday_factors: tuple[float, ...] = (0.85, 0.85, 0.88, 0.95, 1.10, 1.25, 1.12)
    month_factors: tuple[float, ...] = (0.92, 0.94, 1.00, 0.97, 0.98, 0.93, 0.92, 1.00, 1.00, 1.15, 1.14, 1.05)
    categories: tuple[CategoryModel, ...] = _CATEGORIES
    promotions: tuple[PromotionPlan, ...] = _PROMOTIONS
    loyalty: tuple[LoyaltyRule, ...] = _LOYALTY
    flaws: FlawRates = field(default_factory=FlawRates)
    customers_per_block: int = 10_000
    oracle_horizon_days: int = 30
    oracle_days_back: tuple[int, ...] = (0, 30, 60, 90, 120, 150, 180)

    @property
    def category_names(self) -> tuple[str, ...]:
        """As the tables spell them, in the order of every `(…, n_categories)` array here."""
        return tuple(category.name for category in self.categories)


@dataclass(frozen=True)
class DatedPromotion:
    """One year's run of a plan; both ends inclusive."""

    plan: PromotionPlan
    start: date
    end: date


@dataclass(frozen=True)
class Catalogue:
    """Products sorted by cell (category x tier); arrays of shape (n_products,). Prices in cents."""

    category: Ints
    tier: Ints
    price_cents: Ints
    popularity: Floats

    @property
    def cell(self) -> Ints:
        """Index of category x tier."""
        return self.category * N_TIERS + self.tier

    def mean_price(self) -> Floats:
        """Popularity-weighted price in currency units, shape (n_categories, N_TIERS)."""
        sums = np.bincount(self.cell, weights=self.popularity * self.price_cents / 100.0)
        return sums.astype(np.float64).reshape(-1, N_TIERS)


@dataclass(frozen=True)
class Shop:
    """What is common to all customers: parameters, period, catalogue, calendar."""

    parameters: SampleParameters
    seed: int
    first_day: date
    n_stores: int
    catalogue: Catalogue
    promotions: tuple[DatedPromotion, ...]

    @property
    def last_day(self) -> date:
        """The last day with purchases, inclusive."""
        return self.parameters.last_day

    @property
    def n_days(self) -> int:
        """Days from first to last, both inclusive."""
        return (self.last_day - self.first_day).days + 1

    def day_number(self, day: date) -> int:
        """Days since the first day."""
        return (day - self.first_day).days

    def generator(self, purpose: int, block: int = 0) -> np.random.Generator:
        """An independent stream per purpose and block of customers, so that blocks can be made in any order."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(purpose, block)))


@dataclass(frozen=True)
class Latents:
    """The truth about each customer; arrays of shape (n_customers,), affinities (n_customers, n_categories).

    enters: day number from which the customer can buy (sign-up, or 0 for those who signed up before the first day).
    since: day number of sign-up (negative before the first day). dropout_at: moment of drop-out, in days.
    """

    since: Ints
    enters: Ints
    purchase_rate: Floats
    dropout_rate: Floats
    dropout_at: Floats
    extra_lines: Floats
    price_level: Floats
    affinities: Floats
    home_store: Ints


@dataclass(frozen=True)
class Purchases:
    """Clean purchases of a block of customers, transactions in order of time.

    Transaction arrays (n_transactions,): customer (position in the latents), day, second of the day, store.
    Line arrays (n_lines,), in order of transaction: transaction (position), category, product, promotion (position in
    `Shop.promotions`, -1 without), quantity, amount_cents, bulk.
    """

    customer: Ints
    day: Ints
    second: Ints
    store: Ints
    line_transaction: Ints
    category: Ints
    product: Ints
    promotion: Ints
    quantity: Ints
    amount_cents: Ints
    bulk: npt.NDArray[np.bool_]

    def spend(self, n_customers: int, n_categories: int, from_day: int, days: int) -> Floats:
        """Actual spend in currency units on `days` days from `from_day` inclusive, (n_customers, n_categories)."""
        day = self.day[self.line_transaction]
        seen = (day >= from_day) & (day < from_day + days)
        place = self.customer[self.line_transaction[seen]] * n_categories + self.category[seen]
        cents = np.bincount(place, weights=self.amount_cents[seen], minlength=n_customers * n_categories)
        return cents.astype(np.float64).reshape(n_customers, n_categories) / 100.0


def build_shop(parameters: SampleParameters, seed: int, n_products: int, n_stores: int, months: int) -> Shop:
    """The shop of `months` whole calendar months up to `parameters.last_day`; raises BadSampleRequest."""
    _check_sizes(parameters, n_products, n_stores, months)
    last_day = parameters.last_day
    year, month = divmod(last_day.year * 12 + last_day.month - months, 12)
    first_day = date(year, month + 1, 1)
    shop = Shop(parameters, seed, first_day, n_stores, _empty_catalogue(), _dated(parameters, first_day, last_day))
    catalogue = _build_catalogue(parameters, n_products, shop.generator(_CATALOGUE))
    return Shop(parameters, seed, first_day, n_stores, catalogue, shop.promotions)


def sample_latents(shop: Shop, n_customers: int, block: int = 0) -> Latents:
    """Draws `n_customers` customers of a block from the population."""
    draw, chosen = shop.generator(_LATENTS, block), shop.parameters
    existing = draw.random(n_customers) < chosen.existing_share
    before = -draw.integers(1, chosen.existing_since_days + 1, n_customers)
    since = np.where(existing, before, draw.integers(0, shop.n_days, n_customers))
    enters = np.maximum(since, 0)
    dropout_rate = _gamma(draw, chosen.dropout_rate_shape, chosen.dropout_rate_mean, n_customers)
    lifetime = draw.standard_exponential(n_customers) / np.maximum(dropout_rate, 1e-12)
    return Latents(
        since=since,
        enters=enters,
        purchase_rate=_gamma(draw, chosen.purchase_rate_shape, chosen.purchase_rate_mean, n_customers),
        dropout_rate=dropout_rate,
        dropout_at=enters + lifetime,
        extra_lines=_gamma(draw, chosen.extra_lines_shape, chosen.extra_lines_mean, n_customers),
        price_level=draw.beta(chosen.price_level_alpha, chosen.price_level_beta, n_customers),
        affinities=draw.dirichlet([category.affinity for category in chosen.categories], n_customers),
        home_store=draw.integers(0, shop.n_stores, n_customers),
    )


def simulate_purchases(shop: Shop, latents: Latents, block: int = 0) -> Purchases:
    """Draws the purchases of these customers over the whole period."""
    draw = shop.generator(_PURCHASES, block)
    customer, day = _draw_arrivals(shop, latents, draw)
    second = draw.integers(9 * 3600, 22 * 3600, customer.size)
    order = np.lexsort((second, day))
    customer, day, second = customer[order], day[order], second[order]
    at_home = draw.random(customer.size) < shop.parameters.home_store_share
    store = np.where(at_home, latents.home_store[customer], draw.integers(0, shop.n_stores, customer.size))
    n_lines = 1 + draw.poisson(latents.extra_lines[customer])
    transaction = np.repeat(np.arange(customer.size), n_lines)
    return Purchases(
        customer, day, second, store, transaction, **_draw_lines(shop, latents, customer, day, transaction, draw)
    )


def day_factors(parameters: SampleParameters, days: Sequence[date] | npt.NDArray[np.datetime64]) -> Floats:
    """What a day multiplies everybody's purchase rate by: weekday x month x lifts of the promotions that run."""
    moments = np.asarray(days, dtype="datetime64[D]")
    weekday = (moments.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday
    month = moments.astype("datetime64[M]").astype(np.int64) % 12
    factors = np.asarray(parameters.weekday_factors)[weekday] * np.asarray(parameters.month_factors)[month]
    for plan, runs in zip(parameters.promotions, promotion_days(parameters, moments), strict=True):
        factors = np.where(runs, factors * plan.rate_lift, factors)
    return factors


def promotion_days(
    parameters: SampleParameters, days: Sequence[date] | npt.NDArray[np.datetime64]
) -> npt.NDArray[np.bool_]:
    """Whether each plan runs on each day, shape (n_plans, n_days)."""
    moments = np.asarray(days, dtype="datetime64[D]")
    year_starts = moments.astype("datetime64[Y]")
    runs = np.zeros((len(parameters.promotions), moments.size), dtype=bool)
    for row, plan in enumerate(parameters.promotions):
        month_start = (year_starts.astype("datetime64[M]") + (plan.month - 1)).astype("datetime64[D]")
        since_start = (moments - month_start).astype(np.int64) - (plan.day - 1)
        runs[row] = (since_start >= 0) & (since_start < plan.days)
    return runs


def discounts(parameters: SampleParameters, days: Sequence[date] | npt.NDArray[np.datetime64]) -> Floats:
    """The discount (a share) that a promotion offers on each category and day, shape (n_categories, n_days)."""
    offered = np.zeros((len(parameters.categories), len(days)))
    for plan, runs in zip(parameters.promotions, promotion_days(parameters, days), strict=True):
        offered[parameters.category_names.index(plan.category)] += runs * plan.discount_percent / 100.0
    return offered


def expected_basket_spend(shop: Shop, latents: Latents) -> Floats:
    """Expected undiscounted spend of one transaction per category, (n_customers, n_categories), currency units."""
    parameters = shop.parameters
    tiers = binom.pmf(np.arange(N_TIERS), N_TIERS - 1, latents.price_level[:, None])
    price = np.einsum("nt,kt->nk", tiers, shop.catalogue.mean_price())
    quantity = np.array([1.0 + category.extra_quantity for category in parameters.categories])
    bulk = 1.0 + parameters.bulk_line_rate * (parameters.bulk_multiplier - 1)
    return (1.0 + latents.extra_lines)[:, None] * latents.affinities * price * quantity * bulk


def expected_spend(shop: Shop, latents: Latents, as_of: date, horizon_days: int = 30) -> Floats:
    """The oracle: expected spend on as_of … as_of + horizon_days - 1 given the latent truth at the start of `as_of`.

    Whether the customer has dropped out before `as_of` is known; a later drop-out is not, only its hazard. A customer who
    enters within the window counts from then on. Shape (n_customers, n_categories), currency units.
    """
    parameters, days = shop.parameters, _window(as_of, horizon_days)
    factors = day_factors(parameters, days)
    paid = 1.0 - parameters.promotion_take_up * discounts(parameters, days)
    exposure = np.einsum("nd,kd->nk", _expected_life(shop, latents, as_of, horizon_days), factors * paid)
    return latents.purchase_rate[:, None] * expected_basket_spend(shop, latents) * exposure


def purchase_probability(shop: Shop, latents: Latents, as_of: date, horizon_days: int = 30) -> Floats:
    """Probability of at least one purchase in the window given the same truth as `expected_spend`; (n_customers,)."""
    factors = day_factors(shop.parameters, _window(as_of, horizon_days))
    start = shop.day_number(as_of)
    alive = latents.dropout_at > np.maximum(start, latents.enters)
    silent = np.ones(alive.size)  # alive so far and nothing bought
    gone = np.zeros(alive.size)  # dropped out in the window before buying anything
    hazard = np.maximum(latents.dropout_rate, 1e-12)
    for offset, factor in enumerate(factors):
        present = latents.enters <= start + offset
        buys = latents.purchase_rate * factor
        leaves = np.where(present, hazard / (buys + hazard) * -np.expm1(-(buys + hazard)), 0.0)
        gone += silent * leaves
        silent = np.where(present, silent * np.exp(-(buys + hazard)), silent)
    return np.where(alive, 1.0 - gone - silent, 0.0)


def _expected_life(shop: Shop, latents: Latents, as_of: date, horizon_days: int) -> Floats:
    """Expected part of each day of the window that the customer is there, (n_customers, horizon_days)."""
    from_moment = np.maximum(shop.day_number(as_of), latents.enters)
    hazard = np.maximum(latents.dropout_rate, 1e-12)[:, None]
    elapsed = (shop.day_number(as_of) + np.arange(horizon_days))[None, :] - from_moment[:, None]
    life = np.exp(-hazard * np.maximum(elapsed, 0)) * -np.expm1(-hazard) / hazard
    there = (elapsed >= 0) & (latents.dropout_at > from_moment)[:, None]
    return np.where(there, life, 0.0)


def _draw_arrivals(shop: Shop, latents: Latents, draw: np.random.Generator) -> tuple[Ints, Ints]:
    """Customer and day of every transaction: a Poisson count on the factor-weighted time, spread by its inverse."""
    edges = np.arange(shop.n_days + 1, dtype=float)
    weighted = np.concatenate([[0.0], np.cumsum(day_factors(shop.parameters, _window(shop.first_day, shop.n_days)))])
    opens = np.interp(latents.enters, edges, weighted)
    closes = np.interp(np.minimum(latents.dropout_at, shop.n_days), edges, weighted)
    counts = draw.poisson(latents.purchase_rate * (closes - opens))
    customer = np.repeat(np.arange(counts.size), counts)
    moments = opens[customer] + draw.random(customer.size) * (closes - opens)[customer]
    day = np.minimum(np.interp(moments, weighted, edges).astype(np.int64), shop.n_days - 1)
    return customer, day


def _draw_lines(
    shop: Shop, latents: Latents, customer: Ints, day: Ints, transaction: Ints, draw: np.random.Generator
) -> dict[str, npt.NDArray]:
    """What is on every line, given its transaction."""
    parameters, buyer = shop.parameters, customer[transaction]
    shares = np.cumsum(latents.affinities, axis=1)[:, :-1]
    category = (draw.random(buyer.size)[:, None] >= shares[buyer]).sum(axis=1)
    tier = draw.binomial(N_TIERS - 1, latents.price_level[buyer])
    product = _draw_products(shop.catalogue, category * N_TIERS + tier, draw.random(buyer.size))
    offered = _promotion_on(shop)[category, day[transaction]]
    promotion = np.where(draw.random(buyer.size) < parameters.promotion_take_up, offered, -1)
    extra = np.array([category.extra_quantity for category in parameters.categories])
    bulk = draw.random(buyer.size) < parameters.bulk_line_rate
    quantity = (1 + draw.poisson(extra[category])) * np.where(bulk, parameters.bulk_multiplier, 1)
    percent = np.array([run.plan.discount_percent for run in shop.promotions] + [0])[promotion]
    amount_cents = (quantity * shop.catalogue.price_cents[product] * (100 - percent) + 50) // 100
    return {
        "category": category,
        "product": product,
        "promotion": promotion,
        "quantity": quantity,
        "amount_cents": amount_cents,
        "bulk": bulk,
    }


def _draw_products(catalogue: Catalogue, cell: Ints, uniform: Floats) -> Ints:
    """A product of each cell by popularity: one search in the cells' cumulated popularities laid end to end."""
    n_cells = int(catalogue.cell.max()) + 1
    last = np.searchsorted(catalogue.cell, np.arange(n_cells), side="right") - 1
    first = np.concatenate([[0], last[:-1] + 1])
    cumulated = np.cumsum(catalogue.popularity)
    before = np.concatenate([[0.0], cumulated[last[:-1]]])
    ends = catalogue.cell + np.minimum(cumulated - before[catalogue.cell], 1.0)
    return np.clip(np.searchsorted(ends, cell + uniform, side="right"), first[cell], last[cell])


def _promotion_on(shop: Shop) -> Ints:
    """Position of the promotion on offer per category and day of the period, -1 without."""
    offered = np.full((len(shop.parameters.categories), shop.n_days), -1)
    for position, run in enumerate(shop.promotions):
        row = shop.parameters.category_names.index(run.plan.category)
        offered[row, max(shop.day_number(run.start), 0) : shop.day_number(run.end) + 1] = position
    return offered


def _build_catalogue(parameters: SampleParameters, n_products: int, draw: np.random.Generator) -> Catalogue:
    """Products dealt out to the cells in turn; prices jittered; popularity falls with the rank in the cell."""
    n_cells = len(parameters.categories) * N_TIERS
    cell = np.sort(np.arange(n_products) % n_cells)
    category, tier = cell // N_TIERS, cell % N_TIERS
    base = np.array([model.base_price for model in parameters.categories])[category]
    jitter = np.exp(draw.normal(0.0, parameters.price_jitter_sigma, n_products))
    price_cents = np.rint(base * np.asarray(parameters.tier_multipliers)[tier] * jitter * 100).astype(np.int64)
    first = np.searchsorted(cell, np.arange(n_cells))
    weight = (1.0 + np.arange(n_products) - first[cell]) ** -parameters.popularity_exponent
    return Catalogue(category, tier, price_cents, weight / np.bincount(cell, weights=weight)[cell])


def _empty_catalogue() -> Catalogue:
    nothing = np.zeros(0, dtype=np.int64)
    return Catalogue(nothing, nothing, nothing, np.zeros(0))


def _dated(parameters: SampleParameters, first_day: date, last_day: date) -> tuple[DatedPromotion, ...]:
    """The promotions that touch the period, in order of time."""
    runs = []
    for year in range(first_day.year, last_day.year + 1):
        for plan in parameters.promotions:
            start = date(year, plan.month, plan.day)
            end = start + timedelta(days=plan.days - 1)
            if end >= first_day and start <= last_day:
                runs.append(DatedPromotion(plan, start, end))
    return tuple(sorted(runs, key=lambda run: (run.start, run.plan.name)))


def _window(first: date, days: int) -> npt.NDArray[np.datetime64]:
    return np.datetime64(first, "D") + np.arange(days)


def _gamma(draw: np.random.Generator, shape: float, mean: float, size: int) -> Floats:
    return draw.gamma(shape, mean / shape, size)


def _check_sizes(parameters: SampleParameters, n_products: int, n_stores: int, months: int) -> None:
    n_cells = len(parameters.categories) * N_TIERS
    if n_products < n_cells:
        raise BadSampleRequest(
            f"{n_products} products: each of {len(parameters.categories)} categories has {N_TIERS} price tiers with at "
            f"least one product; ask for {n_cells} or more."
        )
    if n_stores < 1 or months < 1:
        raise BadSampleRequest(f"{n_stores} stores and {months} months: both must be at least 1.")
