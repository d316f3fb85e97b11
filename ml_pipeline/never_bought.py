"""What to expect of customers who are known and never bought, learned from those who were so on past days.

They differ by how long ago they registered (`registration`), which is known on every past day. Today's segment or status
is not: it says who bought since, and the past of those who are still "not a buyer" today is free of purchases by
construction.

How far an age is believed, as against all ages together, is Bühlmann and Straub's (1970) credibility, an empirical-Bayes
estimate: z = n / (n + within / between), with n the age's observations, `within` the pooled variance of an observation
within ages and `between` that of the ages' own means. What is expected is z × the age's mean + (1 − z) × the mean of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.calibration import PROBABILITY_FLOOR
from ml_pipeline.intervals import COVERAGE
from ml_pipeline.prepare import Prepared
from ml_pipeline.registration import REGISTRATION_AGES, registration_ages
from ml_pipeline.schema import AMOUNT_SCALE, HORIZON_DAYS, OTHER_TARGET, TOTAL_TARGET
from ml_pipeline.snapshot import money_columns
from ml_pipeline.targets import build_targets

FloatArray = npt.NDArray[np.float64]

TAIL = (1 - COVERAGE) / 2


@dataclass(frozen=True)
class Waiting:
    """Past observations by registration age: n (ages,) of all; of the m who bought in the window: age (m,), spend (m, k).

    bound (k,): what one in ten new customers exceeds in the first 30 days, for where little or nothing was observed.
    """

    n: FloatArray
    age: npt.NDArray[np.uint8]
    spend: FloatArray
    bound: FloatArray


def never_bought_prior(
    engine: Backend, prepared: Prepared, days: Sequence[date], targets: Sequence[str]
) -> dict[str, Any]:
    """Spend, probability of buying, upper ends and variances by registration age, as a bundle's metadata has them.

    An observation is a customer on one of `days`, registered before it, of whom features know no purchase then: none was
    made, or all were taken back. Without a known customer_since nobody can say that he was there.
    `observations` 0: there was no such customer, and the answer of 0 is no estimate.
    """
    columns = money_columns(targets)
    waiting = _observe(engine, prepared, days, targets)
    observations = int(waiting.n.sum())
    if observations:
        expected = [_expected(waiting, age) for age in range(len(REGISTRATION_AGES))]
    else:
        expected = [_unknown(waiting.bound)] * len(REGISTRATION_AGES)
    return {
        "observations": observations,
        "ages": {
            name: {
                "observations": int(waiting.n[age]),
                "probability": float(one.probability),
                "spend": dict(zip(columns, one.spend.tolist(), strict=True)),
                "upper": dict(zip(columns, one.upper.tolist(), strict=True)),
                "variance": dict(zip(columns, one.variance.tolist(), strict=True)),
            }
            for age, (name, one) in enumerate(zip(REGISTRATION_AGES, expected, strict=True))
        },
    }


# What was observed


def _observe(engine: Backend, prepared: Prepared, days: Sequence[date], targets: Sequence[str]) -> Waiting:
    waiting = _waiting(prepared, days)
    counted = engine.to_pyarrow(waiting.group_by("registered").aggregate(n=waiting.count()))
    ages = registration_ages(counted["registered"].to_numpy().astype(np.float64))
    n = _by_age(ages, counted["n"].to_numpy())
    columns = money_columns(targets)
    labels = build_targets(prepared.purchases, days, targets)
    labels = labels.filter(labels.transactions > 0)
    joined = waiting.inner_join(labels, ["customer_id", "as_of"])
    bought = engine.to_pyarrow(joined.select("registered", *columns))
    age = registration_ages(bought["registered"].to_numpy().astype(np.float64))
    spend = np.column_stack([bought[name].to_numpy() for name in columns])
    order = np.lexsort((*spend.T, age))  # rows come in any order, and sums of floats depend on it
    return Waiting(n, age[order], spend[order], _first_window(engine, prepared, targets))


def _waiting(prepared: Prepared, days: Sequence[date]) -> ir.Table:
    """One row per (customer, day) on which he was registered and had no purchase: customer_id, as_of, registered (days)."""
    bought = prepared.purchases.filter(prepared.purchases.spend_units > 0)
    kept = bought.filter(bought.cancelled_on.isnull())
    first = kept.group_by("customer_id").aggregate(first_day=kept.day.min())
    as_of = ibis.memtable({"as_of": list(days)}, schema={"as_of": "date"})
    cancelled = bought.filter(bought.cancelled_on.notnull()).select("customer_id", "day", "cancelled_on")
    # until it is taken back a purchase is one
    standing = cancelled.join(as_of, [cancelled.day < as_of.as_of, cancelled.cancelled_on >= as_of.as_of])
    standing = standing.select("customer_id", "as_of").distinct()
    customers = prepared.customers.filter(prepared.customers.customer_since.notnull())
    customers = customers.left_join(first, "customer_id").select("customer_id", "customer_since", "first_day")
    there = customers.cross_join(as_of).filter(
        lambda row: (row.customer_since < row.as_of) & (row.first_day.isnull() | (row.first_day >= row.as_of))
    )
    there = there.select(
        "customer_id", "as_of", registered=there.as_of.epoch_days() - there.customer_since.epoch_days()
    )
    return there.anti_join(standing, ["customer_id", "as_of"]).select("customer_id", "as_of", "registered")


def _first_window(engine: Backend, prepared: Prepared, targets: Sequence[str]) -> FloatArray:
    """What one in ten customers exceeds on the 30 days from the first purchase on, per money column; 0 without any."""
    bought = prepared.purchases.filter(prepared.purchases.spend_units > 0)
    first = bought.group_by("customer_id").aggregate(first_day=bought.day.min())
    first = first.filter(first.first_day + ibis.interval(days=HORIZON_DAYS) <= ibis.literal(prepared.as_of))
    lines = prepared.purchases.select("customer_id", "day", "target", "amount_units")
    joined = lines.inner_join(first, "customer_id")
    within = joined.filter(joined.day < joined.first_day + ibis.interval(days=HORIZON_DAYS))
    within = within.select("customer_id", "target", "amount_units")
    conditions = {
        TOTAL_TARGET: None,
        **{name: within.target == name for name in targets},
        OTHER_TARGET: ~within.target.isin(list(targets)) if targets else None,
    }
    sums = within.group_by("customer_id").aggregate(
        **{
            name: within.amount_units.sum(where=condition).fill_null(0).cast("float64") / AMOUNT_SCALE
            for name, condition in conditions.items()
        }
    )
    spent = engine.to_pyarrow(sums.select(*conditions))
    if not len(spent):
        return np.zeros(len(conditions))
    return np.array([max(np.quantile(spent[name].to_numpy(), 1 - TAIL, method="higher"), 0.0) for name in conditions])


# What is expected


@dataclass(frozen=True)
class Expected:
    """Of one customer: probability of buying; spend, upper end of the interval and variance of the spend, (k,) each."""

    probability: float
    spend: FloatArray
    upper: FloatArray
    variance: FloatArray


def _expected(waiting: Waiting, age: int) -> Expected:
    """The mixture of z parts of the age's past and 1 − z of everybody's: its mean, variance and 90 % quantile.

    The quantile is conformal: one customer more is counted than was seen, who spends `bound`. So is the probability of
    all ages together Jeffreys' (buyers + ½) / (n + 1): three customers who did not buy prove little.
    """
    everybody = waiting.n.sum()
    trusted = credibility(waiting.n, _sums(waiting, waiting.spend[:, 0]), _sums(waiting, waiting.spend[:, 0] ** 2))[age]
    own = waiting.age == age
    weight = (1 - trusted) / everybody + np.where(own, trusted / max(waiting.n[age], 1.0), 0.0)
    spend = (weight[:, None] * waiting.spend).sum(axis=0)
    squares = (weight[:, None] * waiting.spend**2).sum(axis=0)
    ends = np.array([_end(waiting, weight, trusted, column) for column in range(waiting.spend.shape[1])])
    return Expected(_probability(waiting, age), spend, np.maximum(ends, spend), np.maximum(squares - spend**2, 0.0))


def _end(waiting: Waiting, weight: FloatArray, trusted: float, column: int) -> float:
    """The least amount that at most one in ten exceeds."""
    everybody = waiting.n.sum()
    unseen = (1 - trusted) / (everybody + 1)
    amounts = np.append(waiting.spend[:, column], waiting.bound[column])
    weights = np.append(weight * (1 - unseen), unseen)
    order = np.argsort(-amounts, kind="stable")
    above = np.cumsum(weights[order])
    too_many = np.flatnonzero(above > TAIL + 1e-12)
    return float(amounts[order][too_many[0]]) if len(too_many) else 0.0


def _probability(waiting: Waiting, age: int) -> float:
    buyers = np.bincount(waiting.age, minlength=len(REGISTRATION_AGES)).astype(np.float64)
    trusted = credibility(waiting.n, buyers, buyers)[age]
    of_all = (buyers.sum() + 0.5) / (waiting.n.sum() + 1)
    expected = trusted * buyers[age] / max(waiting.n[age], 1.0) + (1 - trusted) * of_all
    return float(np.clip(expected, PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR))


def _unknown(bound: FloatArray) -> Expected:
    """Where no such customer was ever seen: 0, up to what one in ten new customers exceeds, as if one in ten came."""
    return Expected(PROBABILITY_FLOOR, np.zeros(len(bound)), bound, TAIL * bound**2)


def _sums(waiting: Waiting, values: FloatArray) -> FloatArray:
    return _by_age(waiting.age, values)


def _by_age(age: npt.NDArray[np.uint8], values: npt.NDArray[Any]) -> FloatArray:
    """Sums of values (n,) per registration age."""
    sums: FloatArray = np.bincount(age, weights=values, minlength=len(REGISTRATION_AGES)).astype(np.float64)
    return sums


def credibility(n: FloatArray, sums: FloatArray, squares: FloatArray) -> FloatArray:
    """z of each group (g,), in [0, 1], from its number of observations, the sum of their values and of the squares.

    0 for all where the groups' means differ by no more than chance, and for a group without observations.
    """
    seen = n > 0
    total, groups = n.sum(), int(seen.sum())
    if groups < 2 or total <= groups:
        return np.zeros(len(n))
    means = np.divide(sums, n, out=np.zeros(len(n)), where=seen)
    within = max(float((squares - n * means**2)[seen].sum()) / (total - groups), 0.0)
    spread = float((n * (means - sums.sum() / total) ** 2)[seen].sum())
    between = (spread - (groups - 1) * within) / (total - float((n**2).sum()) / total)
    # equal means leave a rest of rounding
    if between <= 1e-12 * float(means.max()) ** 2:
        return np.zeros(len(n))
    return np.divide(n, n + within / between, out=np.zeros(len(n)), where=seen)
