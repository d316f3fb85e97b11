"""Intervals for sums over sets of customers: how many hold, how wide they are, and how wide a simple peer would have to be.

The peer adds up last-90-days ÷ 3 and puts around it the errors that such sums had in earlier windows. How far into their
tails it reaches is set, after the fact and for each column of money, so that it covers as many of the judged sums as ours
do: only width is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.public_data import FloatArray
from benchmarks.trust_facts import NO_STORE, Facts
from ml_pipeline.sums import SumIntervals

IntArray = npt.NDArray[np.int64]

STORE = "store"
SIZES = ((50, 199), (200, 799), (800, 2_000))
"""Classes of random sets, from … to customers; the peer learns the errors of each class apart."""
LEAST_CUSTOMERS = 20
RANDOM_SETS = 200
SEED = 20_240_229
WIDEST_REACH = 64.0
HALVINGS = 40


@dataclass(frozen=True)
class CustomerSet:
    """A set of customers: its kind, and their positions in a window's customers."""

    kind: str
    members: IntArray


def store_sets(stores: npt.NDArray[np.str_], least: int = LEAST_CUSTOMERS) -> list[CustomerSet]:
    """Each store's customers, where there are at least `least`; nobody's store "" is none."""
    named = [store for store in np.unique(stores) if store != NO_STORE]
    sets = [CustomerSet(STORE, np.flatnonzero(stores == store)) for store in named]
    return [each for each in sets if len(each.members) >= least]


def random_sets(n_customers: int, count: int = RANDOM_SETS, seed: int = SEED) -> list[CustomerSet]:
    """Seeded sets of 50 to 2,000 customers (fewer where there are fewer), sizes even on a logarithmic scale."""
    random = np.random.default_rng(seed)
    sizes = np.exp(random.uniform(np.log(SIZES[0][0]), np.log(SIZES[-1][1] + 1), count)).astype(np.int64)
    return [
        CustomerSet(kind_of_size(int(size)), random.choice(n_customers, min(int(size), n_customers), replace=False))
        for size in sizes
    ]


def kind_of_size(size: int) -> str:
    """The class of a random set."""
    first, last = next(limits for limits in SIZES if size <= limits[1])
    return f"{first:,} to {last:,} customers"


def sets_of(facts: Facts, *, stores: bool) -> list[CustomerSet]:
    """The sets of one family on one day: its stores, or its random sets (others on another day)."""
    if stores:
        return store_sets(facts.stores)
    return random_sets(len(facts.customer_ids), seed=SEED + facts.day.toordinal())


def judged_sums(
    facts: Facts,
    sets: Sequence[CustomerSet],
    columns: Mapping[str, int],
    money: FloatArray,
    variance: FloatArray,
    parameters: Mapping[str, Mapping[str, Any]],
) -> pd.DataFrame:
    """One row per set and column of money: day, kind, column, customers, actual, rule, point, lower, upper.

    columns: name -> position. money, variance: (n, all columns), what the snapshot says of the window's customers.
    """
    around = {name: SumIntervals.from_json(parameters[name]) for name in columns}
    rows = []
    for each in sets:
        for name, column in columns.items():
            one = each.members
            point, lower, upper = around[name].around(money[one, column], variance[one, column])
            rows.append((*_came(facts, each, name, column), point, lower, upper))
    return pd.DataFrame(rows, columns=[*CAME, "point", "lower", "upper"])


CAME = ("day", "kind", "column", "customers", "actual", "rule")


def _came(facts: Facts, each: CustomerSet, name: str, column: int) -> tuple[date, str, str, int, float, float]:
    actual, rule = (float(money[each.members, column].sum()) for money in (facts.actual, facts.rule))
    return facts.day, each.kind, name, len(each.members), round(actual, 2), rule


def past_errors(earlier: Sequence[Facts], columns: Mapping[str, int], *, stores: bool) -> pd.DataFrame:
    """Rows of kind, column and error: actual ÷ rule − 1 of the same sets in earlier windows, where the rule is not 0."""
    rows = [
        _came(facts, each, name, column)
        for facts in earlier
        for each in sets_of(facts, stores=stores)
        for name, column in columns.items()
    ]
    sums = pd.DataFrame(rows, columns=list(CAME))
    sums = sums[sums["rule"] > 0]
    return sums.assign(error=sums["actual"] / sums["rule"] - 1)[["kind", "column", "error"]]


def peer_ends(errors: FloatArray, reach: float) -> tuple[float, float]:
    """How far the peer's interval goes below and above its sum, as shares of it.

    reach 0 … 1: the quantiles ½ ± reach / 2 of the past errors; above 1: the least and the greatest, as many times as far
    from their median. Intervals of more reach contain those of less.
    """
    inner = min(reach, 1.0)
    lower, middle, upper = np.quantile(errors, (0.5 - inner / 2, 0.5, 0.5 + inner / 2))
    stretch = max(reach, 1.0)
    return float(middle + stretch * (lower - middle)), float(middle + stretch * (upper - middle))


def peer_intervals(
    sums: pd.DataFrame, errors: Mapping[date, pd.DataFrame], reach: float
) -> tuple[FloatArray, FloatArray]:
    """The peer's ends for each row of sums, (n,), (n,); errors: for each day those of the windows before it.

    Where nothing like a set was there before, the peer has nothing to say but its sum.
    """
    known = {
        (day, *group): peer_ends(rows.to_numpy(), reach)
        for day, past in errors.items()
        for group, rows in past.groupby(["kind", "column"])["error"]
    }
    ends = np.array(
        [known.get(key, (0.0, 0.0)) for key in zip(sums["day"], sums["kind"], sums["column"], strict=True)]
    ).reshape(-1, 2)
    rule = sums["rule"].to_numpy()
    return np.maximum(rule * (1 + ends[:, 0]), 0.0), rule * (1 + ends[:, 1])


def with_peer(sums: pd.DataFrame, errors: Mapping[date, pd.DataFrame]) -> pd.DataFrame:
    """The sums with `peer_lower` and `peer_upper`, in each column of the least reach at which the peer covers as many."""
    return pd.concat([_at_our_coverage(rows, errors) for _, rows in sums.groupby("column", sort=False)])


def _at_our_coverage(sums: pd.DataFrame, errors: Mapping[date, pd.DataFrame]) -> pd.DataFrame:
    """By bisection: coverage only grows with reach. If even WIDEST_REACH does not do, that is what stays."""
    wanted = float(covers(sums, "lower", "upper").mean())
    low, high = 0.0, WIDEST_REACH
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if float(covers(_reaching(sums, errors, middle), "peer_lower", "peer_upper").mean()) >= wanted:
            high = middle
        else:
            low = middle
    return _reaching(sums, errors, high)


def _reaching(sums: pd.DataFrame, errors: Mapping[date, pd.DataFrame], reach: float) -> pd.DataFrame:
    lower, upper = peer_intervals(sums, errors, reach)
    return sums.assign(peer_lower=lower, peer_upper=upper)


def covers(sums: pd.DataFrame, lower: str, upper: str) -> npt.NDArray[np.bool_]:
    """Whether each sum lies between these ends, to the cent."""
    actual = sums["actual"].to_numpy()
    return (sums[lower].to_numpy() <= actual + 0.005) & (actual - 0.005 <= sums[upper].to_numpy())


@dataclass(frozen=True)
class SumCoverage:
    """A group of sums: how many, the shares that we and the peer cover, and how wide the intervals are on average.

    width, peer_width: mean of width ÷ our predicted sum (the same divisor for both), over sums of which we predict > 0.
    ratio: our mean of that ÷ the peer's; money_ratio: our mean width in money ÷ the peer's, where the largest sums decide.
    Both ratios are taken in each column of money and then averaged, so that a column whose sums are near 0 does not decide.
    """

    sums: int
    covered: float
    peer_covered: float
    width: float
    peer_width: float
    ratio: float
    money_ratio: float


def coverage_of(sums: pd.DataFrame) -> SumCoverage:
    """What holds of these sums, which need not be all that the peer's reach was set on."""
    point = sums["point"].where(sums["point"] > 0)
    widths = pd.DataFrame(
        {
            "column": sums["column"],
            "money": sums["upper"] - sums["lower"],
            "peer_money": sums["peer_upper"] - sums["peer_lower"],
        }
    )
    widths = widths.assign(relative=widths["money"] / point, peer_relative=widths["peer_money"] / point)
    by_column = widths.groupby("column").mean()
    return SumCoverage(
        len(sums),
        float(covers(sums, "lower", "upper").mean()),
        float(covers(sums, "peer_lower", "peer_upper").mean()),
        float(widths["relative"].mean()),
        float(widths["peer_relative"].mean()),
        float((by_column["relative"] / by_column["peer_relative"]).mean()),
        float((by_column["money"] / by_column["peer_money"]).mean()),
    )
