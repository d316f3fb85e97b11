"""Reference numbers without a derivation beside them are mpmath's (50 digits, equation 10) or, where so named, published."""

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import betaln, gammaln

from ml_pipeline.btyd import BgNbd, GammaGamma, expected_spend, fit_bg_nbd, fit_gamma_gamma
from ml_pipeline.errors import BadSummary, NoConvergence, NotEnoughHistory, UnboundedMean

CDNOW = BgNbd(0.243, 4.414, 0.793, 2.426, -9582.4, 2357)
CDNOW_VALUES = GammaGamma(6.25, 3.74, 15.45, 0.0, 946)
TRUTH = BgNbd(0.8, 30.0, 0.8, 3.0, 0.0, 0)
AHEAD = 30.0


def drawn(n, seed, truth=TRUTH):
    """x, t_x, T of customers of this truth, and how often each buys in the 30 days after T."""
    rng = np.random.default_rng(seed)
    T = rng.uniform(1, 365, n)
    rate, stop = rng.gamma(truth.r, 1 / truth.alpha, n), rng.beta(truth.a, truth.b, n)
    x, t_x, ahead, clock, active = np.zeros(n), np.zeros(n), np.zeros(n), np.zeros(n), np.arange(n)
    while len(active):
        clock[active] += rng.exponential(1 / rate[active])
        active = active[clock[active] <= T[active] + AHEAD]
        seen = active[clock[active] <= T[active]]
        x[seen] += 1
        t_x[seen] = clock[seen]
        ahead[active[clock[active] > T[active]]] += 1
        active = active[rng.random(len(active)) >= stop[active]]
    return (x, t_x, T), ahead


def drawn_values(n, seed, p=6.25, q=3.74, v=15.45):
    rng = np.random.default_rng(seed)
    x = rng.poisson(2.0, n).astype(float)
    scale = rng.gamma(q, 1 / v, n)
    return x, np.where(x > 0, rng.gamma(np.maximum(p * x, 1e-9)) / (scale * np.maximum(x, 1)), np.nan)


@pytest.fixture(scope="module")
def population():
    return drawn(60_000, seed=5)


@pytest.fixture(scope="module")
def fitted(population):
    return fit_bg_nbd(*population[0])


def test_a_fit_finds_the_parameters_that_customers_were_drawn_from(population, fitted):
    assert [fitted.r, fitted.alpha] == pytest.approx([TRUTH.r, TRUTH.alpha], rel=0.05)
    assert [fitted.a, fitted.b] == pytest.approx([TRUTH.a, TRUTH.b], rel=0.15)
    assert fitted.n_customers == 60_000


def test_no_neighbour_of_a_fit_is_more_likely(population, fitted):
    """Starts are compared on a sample: what comes out must be the maximum over all customers."""
    x, t_x, T = population[0]
    assert fitted.log_likelihood == pytest.approx(likelihood_of(fitted, x, t_x, T), abs=1e-6)
    for name in ("r", "alpha", "a", "b"):
        for factor in (0.999, 1.001):
            other = BgNbd(**{**fitted.as_json(), name: getattr(fitted, name) * factor})
            assert likelihood_of(other, x, t_x, T) < fitted.log_likelihood


def likelihood_of(model, x, t_x, T):
    """The paper's equation 6, term by term."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    rate = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
    alive = betaln(a, b + x) - betaln(a, b) - (r + x) * np.log(alpha + T)
    later = np.maximum(x, 1)
    gone = betaln(a + 1, b + later - 1) - betaln(a, b) - (r + x) * np.log(alpha + t_x)
    return float((rate + np.where(x > 0, np.logaddexp(alive, gone), alive)).sum())


@pytest.mark.parametrize(("x", "t_x", "T"), [(0, 0.0, 12.0), (1, 3.0, 12.0), (4, 11.0, 12.0)])
def test_the_likelihood_is_the_integral_over_rates_and_chances_to_stop(x, t_x, T):
    """∫∫ [λ^x (1−p)^x e^(−λT) + p (1−p)^(x−1) λ^x e^(−λ t_x)] of λ's gamma and p's beta density."""
    r, alpha, a, b = 1.4, 5.0, 1.3, 2.2

    def over_rates(age):
        density = r * np.log(alpha) - gammaln(r)
        return quad(lambda rate: np.exp(density + (r + x - 1) * np.log(rate) - rate * (alpha + age)), 0, np.inf)[0]

    def over_chances(stops, goes_on):
        density = -betaln(a, b)
        return quad(lambda p: np.exp(density) * p ** (a - 1 + stops) * (1 - p) ** (b - 1 + goes_on), 0, 1)[0]

    whole = over_rates(T) * over_chances(0, x) + (over_rates(t_x) * over_chances(1, x - 1) if x else 0.0)
    model = BgNbd(r, alpha, a, b, 0.0, 1)
    assert likelihood_of(model, np.array([x]), np.array([t_x]), np.array([T])) == pytest.approx(np.log(whole), rel=1e-7)


def test_expected_purchases_are_those_published_and_those_of_lifetimes_for_cdnow():
    x, t_x = [0, 1, 2, 2, 7, 29, 0], [0, 1.71, 30.43, 5, 30, 37.5, 0]
    T = [38.86, 38.86, 38.86, 38.86, 31, 38, 2]
    assert CDNOW.expected_purchases([2], [30.43], [38.86], 39)[0] == pytest.approx(1.226, abs=5e-4)  # Fader et al.
    year = [0.25268175, 0.26042295, 1.56222427, 0.26592336, 6.85244497, 24.99090945, 1.13104015]
    month = [0.02371202, 0.02558425, 0.15761487, 0.02682936, 0.75684117, 2.74832839, 0.14851807]
    assert CDNOW.expected_purchases(x, t_x, T, 365 / 7) == pytest.approx(year, abs=1e-7)
    assert CDNOW.expected_purchases(x, t_x, T, 30 / 7) == pytest.approx(month, abs=1e-7)
    alive = [1.0, 0.21210099, 0.72657857, 0.12367892, 0.89620835, 0.9644442, 1.0]
    assert CDNOW.probability_alive(x, t_x, T) == pytest.approx(alive, abs=1e-7)


@pytest.mark.parametrize(
    ("parameters", "history", "horizon", "expected"),
    [
        ((0.05, 1, 10000, 0.3), (0, 0, 40), 30, 0.0270821128628488),
        ((0.05, 1, 0.8, 10000), (0, 0, 1), 365, 9.05657416935119),
        ((300, 100, 0.8, 2.4), (20, 399, 400), 90, 30.4585931698051),
        ((0.5, 20, 1, 0.05), (0, 0, 1), 365, 0.850420639539671),
        ((0.8, 30, 0.8, 4), (300, 700, 700), 365, 126.891218536332),
        ((0.8, 30, 0.8, 4), (5000, 700, 700), 365, 2111.97694255229),
    ],
)
def test_expected_purchases_hold_where_the_series_overflows_or_cancels(parameters, history, horizon, expected):
    x, t_x, T = ([value] for value in history)
    assert BgNbd(*parameters, 0.0, 1).expected_purchases(x, t_x, T, horizon)[0] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("one", [1.0, 1 + 1e-11])
def test_expected_purchases_pass_smoothly_through_a_of_one(one):
    """There the closed form is 0 / 0 and the integral takes over."""
    x, t_x, T = [0, 3, 40], [0, 50, 90], [100, 100, 100]
    below, at, above = (
        BgNbd(0.5, 20, a, 2.0, 0.0, 1).expected_purchases(x, t_x, T, 90) for a in (1 - 1e-4, one, 1 + 1e-4)
    )
    assert at == pytest.approx((below + above) / 2, rel=1e-7)
    assert (below > at).all()
    assert (at > above).all()


@pytest.mark.parametrize("r", [1e-4, 0.3, 500.0])
@pytest.mark.parametrize("alpha", [1e-3, 5.0, 1e5])
@pytest.mark.parametrize("a", [1e-5, 0.1, 0.5, 1 + 1e-8, 3.0, 1e5])
@pytest.mark.parametrize("b", [1e-5, 0.5, 1e5])
def test_no_parameters_and_no_history_give_what_is_not_a_number(r, alpha, a, b):
    model = BgNbd(r, alpha, a, b, 0.0, 1)
    x = np.array([0, 0, 1, 3, 800, 50_000.0])
    T = np.array([0, 700, 30, 700, 700, 700.0])
    t_x = np.where(x > 0, T * 0.9, 0)
    by_horizon = [model.expected_purchases(x, t_x, T, horizon) for horizon in (0, 30, 90, 365)]
    some = model.purchase_probability(x, t_x, T, 30)
    assert np.isfinite(by_horizon).all()
    assert (by_horizon[0] == 0).all()
    assert (np.diff(by_horizon, axis=0) >= -1e-6).all()
    assert ((some >= 0) & (some <= model.probability_alive(x, t_x, T))).all()
    assert (some <= by_horizon[1] * (1 + 1e-6)).all()


def test_what_is_expected_comes_true_in_every_group_of_customers(population):
    """Drawn lives carried on for 30 days: purchases and buying at all, by x and by how late the last purchase was."""
    (x, t_x, T), ahead = population
    purchases = TRUTH.expected_purchases(x, t_x, T, AHEAD)
    some = TRUTH.purchase_probability(x, t_x, T, AHEAD)
    waited = (T - t_x) / T
    groups = [x == 0, (x == 1) & (waited < 0.5), (x == 1) & (waited >= 0.5), (x > 1) & (waited < 0.2), x > 5, T < 30]
    for group in groups:
        n = group.sum()
        assert abs(ahead[group].mean() - purchases[group].mean()) < 4 * ahead[group].std() / np.sqrt(n)
        assert abs((ahead[group] > 0).mean() - some[group].mean()) < 4 * 0.5 / np.sqrt(n)
        assert abs((ahead[group] > 0).mean() / some[group].mean() - 1) < 0.15


def test_who_bought_once_is_alive_and_who_stayed_away_is_less_so():
    alive = TRUTH.probability_alive([0, 5, 5, 5], [0, 100, 60, 5], [100, 100, 100, 100])
    assert alive[0] == 1.0
    assert (np.diff(alive) < 0).all()


def test_equal_customers_may_come_as_one_row_with_a_weight(population):
    x, t_x, T = (np.ceil(column[:3000] / 10) for column in population[0])
    t_x = np.where(x > 0, np.maximum(t_x, 1), 0)
    rows, weights = np.unique(np.column_stack([x, t_x, T]), axis=0, return_counts=True)
    assert fit_bg_nbd(*rows.T, weights=weights) == fit_bg_nbd(x, t_x, T)
    x, m = drawn_values(2000, 3)
    once, doubled = fit_gamma_gamma(x, m), fit_gamma_gamma(x, m, weights=np.full(2000, 2))
    assert [doubled.p, doubled.q, doubled.v] == pytest.approx([once.p, once.q, once.v], rel=1e-6)
    assert doubled.n_customers == 2 * once.n_customers


def test_the_order_of_customers_changes_no_bit(population):
    order = np.random.default_rng(1).permutation(25_000)
    columns = [column[:25_000] for column in population[0]]
    assert fit_bg_nbd(*(column[order] for column in columns)) == fit_bg_nbd(*columns)


def test_weeks_and_days_tell_the_same(population):
    x, t_x, T = (column[:5000] for column in population[0])
    days, weeks = fit_bg_nbd(x, t_x, T), fit_bg_nbd(x, t_x / 7, T / 7)
    assert weeks.alpha == pytest.approx(days.alpha / 7, rel=1e-5)
    assert weeks.expected_purchases(x, t_x / 7, T / 7, 30 / 7) == pytest.approx(
        days.expected_purchases(x, t_x, T, 30), rel=1e-5
    )
    assert weeks.log_likelihood == pytest.approx(likelihood_of(weeks, x, t_x / 7, T / 7), abs=1e-6)


def test_models_come_back_from_json_as_they_were(fitted):
    assert BgNbd.from_json(json.loads(json.dumps(fitted.as_json()))) == fitted
    assert GammaGamma.from_json(json.loads(json.dumps(CDNOW_VALUES.as_json()))) == CDNOW_VALUES


def test_gamma_gamma_finds_the_parameters_that_values_were_drawn_from():
    x, m = drawn_values(30_000, 8)
    fitted = fit_gamma_gamma(x, m)
    assert [fitted.p, fitted.q, fitted.v] == pytest.approx([6.25, 3.74, 15.45], rel=0.05)
    assert fitted.n_customers == (x > 0).sum()


def test_the_likelihood_of_values_is_the_integral_over_customers():
    """m is gamma(p·x, rate nu·x) and nu is gamma(q, rate v); a fit reports their mixture's density."""
    x, m = drawn_values(60, 2)
    x, m = x[x > 0], m[x > 0]
    model = fit_gamma_gamma(x, m)
    p, q, v = model.p, model.q, model.v

    def density(count, mean):
        def given(nu):
            within = p * count * np.log(nu * count) + (p * count - 1) * np.log(mean) - nu * count * mean
            return np.exp(within - gammaln(p * count) + q * np.log(v) + (q - 1) * np.log(nu) - v * nu - gammaln(q))

        return quad(given, 0, np.inf, epsabs=0, epsrel=1e-10, limit=200)[0]

    whole = sum(np.log(density(count, mean)) for count, mean in zip(x, m, strict=True))
    assert model.log_likelihood == pytest.approx(whole, rel=1e-6)


def test_expected_value_lies_between_the_own_and_the_common_mean():
    values = CDNOW_VALUES.expected_value([0, 1, 2, 29], [np.nan, 11.77, 22.35, 40.0])
    assert values == pytest.approx([35.24178832, 18.92380423, 24.66781496, 39.92914017], abs=1e-7)  # lifetimes
    assert values[0] == pytest.approx(CDNOW_VALUES.mean_value)


def test_expected_spend_is_purchases_times_value():
    history = ([0, 2], [0, 30.43], [38.86, 38.86])
    spend = expected_spend(CDNOW, CDNOW_VALUES, *history, [0.0, 22.35], 39)
    purchases, values = CDNOW.expected_purchases(*history, 39), CDNOW_VALUES.expected_value([0, 2], [0.0, 22.35])
    assert spend.tolist() == (purchases * values).tolist()


@pytest.mark.parametrize(
    ("x", "t_x", "T", "said"),
    [
        ([1, 1], [5, 45], [40, 40], r"t_x is 45 and T is 40 \(row 1\)"),
        ([-1], [5], [40], r"x is -1 \(row 0\)"),
        ([1], [np.nan], [40], "t_x is nan"),
        ([1], [5], [np.inf], "T is inf"),
        ([1], [-5], [40], "t_x is -5"),
        ([0], [5], [40], "x is 0 and t_x is 5"),
        ([2], [0], [40], "x is 2 and t_x is 0"),
        ([1.5], [5], [40], "x is 1.5"),
        ([1, 2], [5], [40], r"t_x has shape \(1,\)"),
        (1, 5, 40, r"x has shape \(\)"),
    ],
)
def test_an_impossible_history_is_refused_with_its_value(x, t_x, T, said):
    for ask in (fit_bg_nbd, CDNOW.probability_alive, lambda *given: CDNOW.expected_purchases(*given, 30)):
        with pytest.raises(BadSummary, match=said):
            ask(x, t_x, T)


def test_impossible_values_weights_and_horizons_are_refused():
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(BadSummary, match="horizon_days"):
            CDNOW.purchase_probability([1], [5], [40], bad)
        with pytest.raises(BadSummary, match="weights"):
            fit_bg_nbd([1], [5], [40], weights=[bad])
        with pytest.raises(BadSummary, match="ridge"):
            fit_bg_nbd([1], [5], [40], ridge=bad)
        for ask in (fit_gamma_gamma, CDNOW_VALUES.expected_value):
            with pytest.raises(BadSummary, match="m is"):
                ask([1], [bad])


@pytest.mark.parametrize("T", [[10, 20, 30], [0, 0, 0], []])
def test_a_shop_without_repeat_buyers_is_refused_by_name(T):
    with pytest.raises(NotEnoughHistory, match=f"None of {len(T)} customers bought on a second day"):
        fit_bg_nbd([0] * len(T), [0] * len(T), T)
    with pytest.raises(NotEnoughHistory, match="repeat purchase with a value above 0"):
        fit_gamma_gamma([0, 2], [np.nan, 0.0])


@pytest.mark.parametrize("rows", [1, 300])
def test_customers_that_leave_a_parameter_open_do_not_converge_and_a_ridge_settles_it(rows):
    x, t_x, T = [3] * rows, [20] * rows, [40] * rows
    with pytest.raises(NoConvergence, match=f"on {rows} customers: [a-z]+ ran to .* give a ridge such as 0.001"):
        fit_bg_nbd(x, t_x, T)
    settled = fit_bg_nbd(x, t_x, T, ridge=0.01)
    assert 0.1 < settled.expected_purchases(x, t_x, T, 20)[0] < 2
    with pytest.raises(NoConvergence, match="p ran to"):
        fit_gamma_gamma(x, [10.0] * rows)
    assert fit_gamma_gamma(x, [10.0] * rows, ridge=0.1).expected_value(x, [10.0] * rows)[0] == pytest.approx(
        10, rel=0.2
    )


def test_a_mean_that_would_be_infinite_is_refused_and_a_ridge_settles_it():
    rng = np.random.default_rng(4)
    x, m = np.ones(2000), rng.pareto(0.7, 2000) + 0.01
    with pytest.raises(UnboundedMean, match=r"q is 0.*ridge"):
        fit_gamma_gamma(x, m)
    assert fit_gamma_gamma(x, m, ridge=1.0).q > 1
