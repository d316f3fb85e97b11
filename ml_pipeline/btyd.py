"""Buy till you die: BG/NBD for how often and whether at all, Gamma-Gamma for how much.

Sources: Fader, Hardie & Lee (2005), "Counting Your Customers the Easy Way" (likelihood: their equation 6, expected
purchases: 10); Fader & Hardie (2013), "The Gamma-Gamma Model of Monetary Value" (likelihood: 1a, expected value: 5).
A customer is x repeat purchases (distinct purchase days − 1), t_x the AGE at the last purchase (last day − first day,
never the days since it) and T the age at `as_of`; m is the mean value of the x repeat purchases. Ages come in any one
unit of time; alpha and horizons are in the same one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import OptimizeResult, minimize
from scipy.special import betaincinv, digamma, expit, gammaln, hyp2f1

from ml_pipeline.errors import BadSummary, NoConvergence, NotEnoughHistory, UnboundedMean

FloatArray = npt.NDArray[np.float64]
Objective = Callable[[FloatArray], tuple[float, FloatArray]]

STARTS_ON = 20_000
"""Starts are compared on a systematic sample of so many customers; the best goes on with all of them."""
LIMIT = 1e5
"""A parameter that runs beyond this, or below 1 / this, in scaled units has no maximum to stop at."""
STEEPEST = 1e-5
"""Of the mean log likelihood per unit of a parameter's logarithm; more is not a maximum."""
NEAR_ONE = 1e-6
"""So close to a = 1 the closed form of the expected purchases is 0 / 0."""


@dataclass(frozen=True)
class BgNbd:
    """Purchase rates are gamma(r, rate alpha) over customers, the chance to stop after each purchase is beta(a, b).

    Methods take x, t_x, T of shape (n,) and return (n,); BadSummary for values that cannot be.
    """

    r: float
    alpha: float
    a: float
    b: float
    log_likelihood: float
    n_customers: int

    def probability_alive(self, x: npt.ArrayLike, t_x: npt.ArrayLike, T: npt.ArrayLike) -> FloatArray:
        """That the customer still buys, (n,) in 0 … 1. Who bought once has had no chance to stop: 1."""
        return self._alive(*_histories(x, t_x, T))

    def expected_purchases(
        self, x: npt.ArrayLike, t_x: npt.ArrayLike, T: npt.ArrayLike, horizon_days: float
    ) -> FloatArray:
        """Mean number of purchases (n,) in the `horizon_days` after T; finite and ≥ 0."""
        _check_horizon(horizon_days)
        counts, recencies, ages = _histories(x, t_x, T)
        return self._alive(counts, recencies, ages) * self._purchases_if_alive(counts, ages, horizon_days)

    def purchase_probability(
        self, x: npt.ArrayLike, t_x: npt.ArrayLike, T: npt.ArrayLike, horizon_days: float
    ) -> FloatArray:
        """That there is at least one purchase in the `horizon_days` after T, (n,) in 0 … 1.

        A living customer can only stop at a purchase, so the wait for the next is exponential with a rate that is
        gamma(r + x, alpha + T): P(none | alive) = ((alpha + T) / (alpha + T + horizon))^(r + x).
        """
        _check_horizon(horizon_days)
        counts, recencies, ages = _histories(x, t_x, T)
        none = -(self.r + counts) * np.log1p(horizon_days / (self.alpha + ages))
        return self._alive(counts, recencies, ages) * -np.expm1(none)

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "BgNbd":
        """What `as_json` made."""
        return cls(**content)

    def _alive(self, x: FloatArray, t_x: FloatArray, T: FloatArray) -> FloatArray:
        wait = (self.r + x) * np.log1p((T - t_x) / (self.alpha + t_x))
        log_odds_gone = wait + np.log(self.a) - np.log(self.b + np.maximum(x, 1.0) - 1.0)
        return np.where(x > 0, expit(-log_odds_gone), 1.0)

    def _purchases_if_alive(self, x: FloatArray, T: FloatArray, horizon: float) -> FloatArray:
        """Equation 10 without P(alive), its hypergeometric function after Pfaff: no parameter of it grows with x but
        the last, so the series converges fast for thousands of purchases. Where it does not, the integral.
        """
        reach = horizon / (self.alpha + T)
        least = -np.expm1(-(self.r + x) * np.log1p(reach))  # of a customer who stops at the next
        most = (self.r + x) * reach  # of one who never stops
        with np.errstate(all="ignore"):
            series = hyp2f1(self.a - 1, self.a + self.b - 1 - self.r, self.a + self.b + x - 1, reach / (1 + reach))
            kept = np.exp((1 - self.a) * np.log1p(reach)) * series
            purchases = (self.a + self.b + x - 1) / (self.a - 1) * (1 - kept)
        within = (purchases >= least * (1 - 1e-6) - 1e-12) & (purchases <= most * (1 + 1e-6) + 1e-12)
        off = ~within | (abs(self.a - 1) < NEAR_ONE)
        if off.any():
            purchases[off] = self._purchases_by_integral(x[off], reach[off])
        return np.clip(purchases, least, most)

    def _purchases_by_integral(self, x: FloatArray, reach: FloatArray) -> FloatArray:
        """E[(1 − (1 + p·reach)^−(r+x)) / p], p ~ beta(a, b + x), by a double-exponential rule over p's quantiles."""
        cases, case_of = np.unique(np.column_stack([x, reach]), axis=0, return_inverse=True)
        counts, reaches = cases[:, 0], cases[:, 1]
        total, weights = np.zeros(len(cases)), 0.0
        for node in np.linspace(-3.2, 3.2, 81):
            spread = np.pi * np.sinh(node)
            p = betaincinv(self.a, self.b + counts, expit(spread))
            p = np.maximum(np.where(np.isnan(p), self.a / (self.a + self.b + counts), p), 1e-14)  # nan: b of 1e-5
            weight = np.cosh(node) * expit(spread) * expit(-spread)
            total += weight * -np.expm1(-(self.r + counts) * np.log1p(p * reaches)) / p
            weights += weight
        return (total / weights)[case_of.ravel()]


@dataclass(frozen=True)
class GammaGamma:
    """Purchase values are gamma(p, rate nu) within a customer, nu is gamma(q, rate v) over customers; q > 1."""

    p: float
    q: float
    v: float
    log_likelihood: float
    n_customers: int

    @property
    def mean_value(self) -> float:
        """The average value of a purchase over all customers, in the unit of m."""
        return self.p * self.v / (self.q - 1)

    def expected_value(self, x: npt.ArrayLike, m: npt.ArrayLike) -> FloatArray:
        """Mean value (n,) of a future purchase of who made x repeat purchases of m on average.

        Between m and `mean_value`, which it is where x is 0 (m is then ignored and may be NaN). BadSummary.
        """
        counts = _column("x", x, whole=True)
        values = np.where(counts > 0, _as_column("m", m, len(counts)), 0.0)
        _refuse_negative("m", values)
        return self.p * (self.v + counts * values) / (self.p * counts + self.q - 1)

    def as_json(self) -> dict[str, Any]:
        """For a bundle's metadata."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "GammaGamma":
        """What `as_json` made."""
        return cls(**content)


def expected_spend(
    purchases: BgNbd,
    values: GammaGamma,
    x: npt.ArrayLike,
    t_x: npt.ArrayLike,
    T: npt.ArrayLike,
    m: npt.ArrayLike,
    horizon_days: float,
) -> FloatArray:
    """Mean spend (n,) in the `horizon_days` after T: expected purchases × expected value, taken as independent."""
    return purchases.expected_purchases(x, t_x, T, horizon_days) * values.expected_value(x, m)


def fit_bg_nbd(
    x: npt.ArrayLike,
    t_x: npt.ArrayLike,
    T: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    ridge: float = 0.0,
) -> BgNbd:
    """Maximum likelihood over customers (n,), each counted `weights` times (default once); independent of row order.

    `ridge` × the squared distance of the parameters' logarithms from a common start is added to minus the mean log
    likelihood; it keeps parameters finite that the data leave open (a shop where nobody stops buying). Time is scaled
    to a mean T of 1 meanwhile. Raises BadSummary, NotEnoughHistory when nobody bought twice, NoConvergence.
    """
    _check_ridge(ridge)
    (counts, recencies, ages), weight = _collapse(_histories(x, t_x, T), weights)
    n, repeats = float(weight.sum()), float((weight * counts).sum())
    if not repeats:
        raise NotEnoughHistory(
            f"None of {n:,.0f} customers bought on a second day: BG/NBD learns from repeat purchases. "
            "Use a longer history or a model that needs none."
        )
    scale = n / float((weight * ages).sum())
    columns = (counts, recencies * scale, ages * scale)
    starts = [(r, r * n / repeats, a, b) for r, a, b in ((0.5, 0.5, 2.0), (0.2, 1.0, 3.0), (2.0, 0.1, 5.0), (3, 1, 1))]
    best = _minimise(_bg_nbd_objective, columns, weight, np.log(starts), ridge)
    r, alpha, a, b = _settled("BG/NBD", ("r", "alpha", "a", "b"), best, n, ridge)
    likelihood = -n * _bg_nbd_objective(columns, weight)(best.x)[0] + repeats * np.log(scale)
    return BgNbd(r, alpha / scale, a, b, float(likelihood), round(n))


def fit_gamma_gamma(
    x: npt.ArrayLike, m: npt.ArrayLike, weights: npt.ArrayLike | None = None, ridge: float = 0.0
) -> GammaGamma:
    """Maximum likelihood over the customers of (n,) with x > 0 and m > 0; the others say nothing about values.

    `n_customers` counts those used; `ridge` as in `fit_bg_nbd`. Raises BadSummary, NotEnoughHistory when there is no
    such customer, NoConvergence, UnboundedMean when the maximum lies at q ≤ 1.
    """
    _check_ridge(ridge)
    all_counts = _column("x", x, whole=True)
    all_values = np.where(all_counts > 0, _as_column("m", m, len(all_counts)), 0.0)
    _refuse_negative("m", all_values)
    used = all_values > 0
    chosen = None if weights is None else _column("weights", weights, len(used))[used]
    (counts, values), weight = _collapse((all_counts[used], all_values[used]), chosen)
    n = float(weight.sum())
    if not n:
        raise NotEnoughHistory(
            f"None of {len(used):,} customers has a repeat purchase with a value above 0: Gamma-Gamma learns from "
            "those. Use a longer history or the plain average."
        )
    scale = n / float((weight * values).sum())
    columns = (counts, values * scale)
    starts = [(p, q, (q - 1) / p) for p, q in ((2.0, 3.0), (6.0, 4.0), (1.0, 1.5), (20.0, 10.0))]
    best = _minimise(_gamma_gamma_objective, columns, weight, np.log(starts), ridge)
    p, q, v = _settled("Gamma-Gamma", ("p", "q", "v"), best, n, ridge)
    if q <= 1:
        raise UnboundedMean(
            f"Gamma-Gamma's q is {q:.4g} on {n:,.0f} customers; it must be above 1, or the average value is infinite. "
            f"A few are worth far more than all others: cap their m, or give a ridge such as {max(10 * ridge, 0.01):g}."
        )
    likelihood = -n * _gamma_gamma_objective(columns, weight)(best.x)[0] + n * np.log(scale)
    return GammaGamma(p, q, v / scale, float(likelihood), round(n))


def _bg_nbd_objective(columns: Sequence[FloatArray], weight: FloatArray) -> Objective:
    """Minus the mean log likelihood and its gradient by the logarithms of (r, alpha, a, b).

    What depends on x alone is computed once per distinct x, and one-time buyers once per T.
    """
    x, t_x, T = columns
    total = weight.sum()
    again = x > 0
    distinct, of_row = np.unique(x[again], return_inverse=True)
    recency, age, w, k = t_x[again], T[again], weight[again], x[again]
    per_x = np.bincount(of_row, w, len(distinct))
    (once_age,), once = _collapse((T[~again],), weight[~again])

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        r, alpha, a, b = np.exp(logs)
        log_alpha = logs[1]
        log_age = np.log(alpha + age)
        wait = log_age - np.log(alpha + recency)
        gone = (r + k) * wait + (logs[2] - np.log(b + distinct - 1))[of_row]
        small = np.exp(-np.abs(gone))
        share = w * np.where(gone > 0, 1.0, small) / (1 + small)
        share_per_x = np.bincount(of_row, share, len(distinct))
        once_log = log_alpha - np.log(alpha + once_age)
        by_x = gammaln(r + distinct) - gammaln(r) + gammaln(a + b) - gammaln(a + b + distinct)
        by_x += gammaln(b + distinct) - gammaln(b)
        value = (
            (per_x * by_x).sum()
            + (w * (r * log_alpha - (r + k) * log_age + np.maximum(gone, 0) + np.log1p(small))).sum()
            + r * (once * once_log).sum()
        )
        by_r = (
            (per_x * (digamma(r + distinct) - digamma(r))).sum()
            + (w * (log_alpha - log_age) + share * wait).sum()
            + (once * once_log).sum()
        )
        fall = w * (r / alpha - (r + k) / (alpha + age))
        by_alpha = (fall + share * (r + k) * (recency - age) / ((alpha + age) * (alpha + recency))).sum()
        by_alpha += r * (once * (1 / alpha - 1 / (alpha + once_age))).sum()
        both = digamma(a + b) - digamma(a + b + distinct)
        by_a = (per_x * both).sum() + share.sum() / a
        by_b = (per_x * (both + digamma(b + distinct) - digamma(b)) - share_per_x / (b + distinct - 1)).sum()
        gradient = np.array([by_r * r, by_alpha * alpha, by_a * a, by_b * b])
        return float(-value / total), -gradient / total

    return objective


def _gamma_gamma_objective(columns: Sequence[FloatArray], weight: FloatArray) -> Objective:
    """Minus the mean log likelihood and its gradient by the logarithms of (p, q, v)."""
    x, m = columns
    total = weight.sum()
    distinct, of_row = np.unique(x, return_inverse=True)
    per_x = np.bincount(of_row, weight, len(distinct))
    spent, log_m = x * m, (weight * np.log(m)).sum()

    def objective(logs: FloatArray) -> tuple[float, FloatArray]:
        p, q, v = np.exp(logs)
        log_share, log_rest = -np.log1p(v / spent), logs[2] - np.log(spent + v)
        by_x = gammaln(p * distinct + q) - gammaln(p * distinct) - gammaln(q)
        value = (per_x * by_x).sum() + (weight * (q * log_rest + p * x * log_share)).sum() - log_m
        joint = digamma(p * distinct + q)
        by_p = (per_x * distinct * (joint - digamma(p * distinct))).sum() + (weight * x * log_share).sum()
        by_q = (per_x * (joint - digamma(q))).sum() + (weight * log_rest).sum()
        by_v = (weight * (q / v - (p * x + q) / (spent + v))).sum()
        return float(-value / total), -np.array([by_p * p, by_q * q, by_v * v]) / total

    return objective


def _with_ridge(objective: Objective, centre: FloatArray, ridge: float) -> Objective:
    def penalised(logs: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = objective(logs)
        away = logs - centre
        return value + ridge * float((away**2).sum()), gradient + 2 * ridge * away

    return penalised if ridge else objective


def _minimise(
    objective_on: Callable[[Sequence[FloatArray], FloatArray], Objective],
    columns: Sequence[FloatArray],
    weight: FloatArray,
    starts: FloatArray,
    ridge: float,
) -> OptimizeResult:
    """From every start on a sample, from the best of these on all rows; the ridge pulls towards the first start."""
    whole = _with_ridge(objective_on(columns, weight), starts[0], ridge)
    if len(weight) <= STARTS_ON:
        return min((_descend(whole, start) for start in starts), key=lambda end: float(end.fun))
    rows, sampled = _systematic_sample(weight)
    sample = _with_ridge(objective_on([column[rows] for column in columns], sampled), starts[0], ridge)
    best = min((_descend(sample, start) for start in starts), key=lambda end: float(end.fun))
    return _descend(whole, best.x)


def _descend(objective: Objective, start: FloatArray) -> OptimizeResult:
    limit = np.log(LIMIT)
    options = {"maxiter": 500, "maxfun": 1000, "ftol": 1e-15, "gtol": 1e-9}
    bounds = [(-limit, limit)] * len(start)
    return minimize(
        objective, np.clip(start, -limit, limit), jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )


def _systematic_sample(weight: FloatArray) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Every so-manieth customer along the sorted rows: the rows hit, and how often."""
    ends = np.cumsum(weight)
    points = (np.arange(STARTS_ON) + 0.5) * (ends[-1] / STARTS_ON)
    hits = np.bincount(np.searchsorted(ends, points, side="right").clip(max=len(weight) - 1), minlength=len(weight))
    rows = np.flatnonzero(hits)
    return rows, hits[rows].astype(np.float64)


def _settled(model: str, names: Sequence[str], best: OptimizeResult, n: float, ridge: float) -> tuple[float, ...]:
    """The parameters, if this is a maximum inside the limits."""
    way_out = f"Use more customers or a longer history, or give a ridge such as {max(10 * ridge, 0.001):g}."
    for name, log in zip(names, best.x, strict=True):
        if not np.isfinite(log) or abs(log) >= np.log(LIMIT) * (1 - 1e-9):
            raise NoConvergence(
                f"{model} did not converge on {n:,.0f} customers: {name} ran to {np.exp(log):.3g}, the end of what is "
                f"searched ({1 / LIMIT:g} to {LIMIT:g}, with time or money scaled to a mean of 1). {way_out}"
            )
    steepest = float(np.abs(best.jac).max())
    if not np.isfinite(best.fun) or not steepest <= STEEPEST:
        raise NoConvergence(
            f"{model} did not converge on {n:,.0f} customers: the mean log likelihood still changes by {steepest:.2g} "
            f"per unit of a parameter's logarithm, {STEEPEST:g} at most is a maximum. {way_out}"
        )
    return tuple(float(value) for value in np.exp(best.x))


def _collapse(
    columns: Sequence[FloatArray], weights: npt.ArrayLike | None
) -> tuple[tuple[FloatArray, ...], FloatArray]:
    """The distinct rows in their order, and how many customers each stands for."""
    weight = None if weights is None else _column("weights", weights, len(columns[0]))
    if not len(columns[0]):
        return tuple(columns), np.zeros(0)
    order = np.lexsort(tuple(reversed(columns)))
    ordered = [column[order] for column in columns]
    new = np.ones(len(order), dtype=bool)
    new[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in ordered])
    firsts = np.flatnonzero(new)
    ends = np.append(firsts[1:], len(order))
    counted = (ends - firsts).astype(np.float64) if weight is None else np.add.reduceat(weight[order], firsts)
    return tuple(column[firsts] for column in ordered), counted


def _histories(x: npt.ArrayLike, t_x: npt.ArrayLike, T: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """x, t_x and T as (n,) of numbers that can be."""
    counts = _column("x", x, whole=True)
    recencies, ages = _column("t_x", t_x, len(counts)), _column("T", T, len(counts))
    late = np.flatnonzero(recencies > ages)
    if len(late):
        raise BadSummary(
            f"t_x is {recencies[late[0]]:g} and T is {ages[late[0]]:g} (row {late[0]}): the age at the last purchase "
            "cannot exceed the age at as_of. Pass last day − first day as t_x and as_of − first day as T."
        )
    odd = np.flatnonzero((counts > 0) != (recencies > 0))
    if len(odd):
        raise BadSummary(
            f"x is {counts[odd[0]]:g} and t_x is {recencies[odd[0]]:g} (row {odd[0]}): t_x is 0 exactly where x is 0. "
            "Count distinct purchase days, and pass the age at the last purchase, not the days since it."
        )
    return counts, recencies, ages


def _column(name: str, given: npt.ArrayLike, n: int | None = None, *, whole: bool = False) -> FloatArray:
    column = _as_column(name, given, n)
    _refuse_negative(name, column)
    if whole and (column != np.floor(column)).any():
        row = np.flatnonzero(column != np.floor(column))[0]
        raise BadSummary(f"{name} is {column[row]:g} (row {row}): it counts purchases. Pass whole numbers.")
    return column


def _as_column(name: str, given: npt.ArrayLike, n: int | None) -> FloatArray:
    column = np.asarray(given, dtype=np.float64)
    if column.ndim != 1 or (n is not None and len(column) != n):
        wanted = "one dimension" if n is None else f"shape ({n},) like x"
        raise BadSummary(f"{name} has shape {column.shape}: {wanted} is needed. Pass one number per customer.")
    return column


def _refuse_negative(name: str, column: FloatArray) -> None:
    bad = np.flatnonzero(~(np.isfinite(column) & (column >= 0)))
    if len(bad):
        raise BadSummary(
            f"{name} is {column[bad[0]]:g} (row {bad[0]}): it must be finite and at least 0. Correct or leave out the row."
        )


def _check_horizon(horizon_days: float) -> None:
    if not (np.isfinite(horizon_days) and horizon_days >= 0):
        raise BadSummary(f"horizon_days is {horizon_days:g}: it must be finite and at least 0. Pass 30, 90 or 365.")


def _check_ridge(ridge: float) -> None:
    if not (np.isfinite(ridge) and ridge >= 0):
        raise BadSummary(f"ridge is {ridge:g}: it must be finite and at least 0. Pass 0 for plain maximum likelihood.")
