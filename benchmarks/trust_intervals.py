"""Whether intervals hold what they say: shares outside by decile of prediction, their noise, the interval score.

The interval score is that of Gneiting & Raftery (2007, equation 43; Winkler 1972): the width, and for a value outside
2 / α times how far outside it is. Lower is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from benchmarks.public_data import FloatArray
from benchmarks.trust_bounds import Bound, Measured
from ml_pipeline.metrics import decile_of

ALPHA = 0.2
TENTHS = 10
BOOTSTRAPS = 200
SEED = 20_240_229
BUYING_DECILE = 0.20  # from this share of buyers on both ends of the range of `above` are judged
DENSE_DECILE = 0.90  # from this share of buyers on the two-sided coverage is judged
CATEGORY_POINTS = 0.02


@dataclass(frozen=True)
class Judged:
    """A window's customers, what they spent, and what was said of one column of money, (n,) each."""

    customer_ids: npt.NDArray[np.str_]
    actual: FloatArray
    predicted: FloatArray
    lower: FloatArray
    upper: FloatArray


@dataclass(frozen=True)
class Shares:
    """(11,) each: the tenths of prediction from the lowest to the highest, then all customers.

    customers: how many, every window counted. buying, above, below: shares of them. *_sd: bootstrap over customers.
    """

    customers: npt.NDArray[np.int64]
    buying: FloatArray
    above: FloatArray
    below: FloatArray
    covered: FloatArray
    above_sd: FloatArray
    below_sd: FloatArray
    covered_sd: FloatArray


def shares_by_decile(windows: Sequence[Judged], draws: int = BOOTSTRAPS, seed: int = SEED) -> Shares:
    """Tenths are made in each window and then taken together. A customer who is drawn twice counts twice everywhere."""
    customers = np.unique(np.concatenate([window.customer_ids for window in windows]))
    tables = {name: np.zeros((len(customers), TENTHS + 1)) for name in ("n", "buying", "above", "below")}
    for window in windows:
        rows, tenth = np.searchsorted(customers, window.customer_ids), decile_of(window.predicted)
        marks = {
            "n": np.ones(len(rows)),
            "buying": window.actual > 0,
            "above": window.actual > window.upper,
            "below": window.actual < window.lower,
        }
        for name, marked in marks.items():
            np.add.at(tables[name], (rows, tenth), marked)
    for table in tables.values():
        table[:, TENTHS] = table[:, :TENTHS].sum(axis=1)
    counts = {name: table.sum(axis=0) for name, table in tables.items()}
    shares = _shares(counts)
    noise = _noise(tables, draws, np.random.default_rng(seed))
    return Shares(
        counts["n"].astype(np.int64),
        *(shares[name] for name in ("buying", "above", "below", "covered")),
        *(noise[name] for name in ("above", "below", "covered")),
    )


def _shares(counts: dict[str, FloatArray]) -> dict[str, FloatArray]:
    of = np.maximum(counts["n"], 1.0)
    shares = {name: counts[name] / of for name in ("buying", "above", "below")}
    return {**shares, "covered": 1 - shares["above"] - shares["below"]}


def _noise(tables: dict[str, FloatArray], draws: int, random: np.random.Generator) -> dict[str, FloatArray]:
    n = len(tables["n"])
    drawn: dict[str, list[FloatArray]] = {name: [] for name in ("above", "below", "covered")}
    for _ in range(draws):
        times = np.bincount(random.integers(0, n, n), minlength=n).astype(np.float64)
        shares = _shares({name: times @ table for name, table in tables.items()})
        for name, values in drawn.items():
            values.append(shares[name])
    return {name: np.std(values, axis=0, ddof=1) for name, values in drawn.items()}


def interval_score(actual: FloatArray, lower: FloatArray, upper: FloatArray) -> FloatArray:
    """Of each customer's 80 % interval, (n,); lower is better."""
    outside = np.maximum(lower - actual, 0.0) + np.maximum(actual - upper, 0.0)
    return upper - lower + 2 / ALPHA * outside


def empirical_interval(
    past_level: FloatArray, past_actual: FloatArray, level: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The 10 % and 90 % quantiles of what customers in the same tenth of `level` spent the window before, (n,), (n,)."""
    tenth = decile_of(past_level)
    ends = [
        np.quantile(past_actual[tenth == each] if (tenth == each).any() else past_actual, (ALPHA / 2, 1 - ALPHA / 2))
        for each in range(TENTHS)
    ]
    own = np.array(ends)[decile_of(level)]
    return own[:, 0], own[:, 1]


def judge_shares(shares: Shares, points: float = 0.0) -> list[Measured]:
    """Each figure of coverage with its goal; `points` more are allowed on each side."""
    tenths = shares.customers[:TENTHS] > 0
    buying, dense = shares.buying[:TENTHS] >= BUYING_DECILE, shares.buying[:TENTHS] >= DENSE_DECILE
    above, below, covered = shares.above[:TENTHS], shares.below[:TENTHS], shares.covered[:TENTHS]
    range_above = Bound(0.08 - points, 0.12 + points)
    most = Bound(most=0.12 + points)
    return [
        Measured("above, all customers", range_above, (float(shares.above[TENTHS]),)),
        Measured("above, tenths where ≥ 20 % buy", range_above, tuple(above[tenths & buying])),
        Measured("above, other tenths", most, tuple(above[tenths & ~buying])),
        Measured("below, tenths and all", most, (*below[tenths], float(shares.below[TENTHS]))),
        Measured(
            "covered, tenths where ≤ 10 % spend nothing",
            Bound(0.76 - points, 0.84 + points),
            tuple(covered[tenths & dense]),
        ),
    ]


def outside_by_chance(shares: Shares, points: float = 0.0) -> tuple[int, int, float]:
    """Of the tenths where ≥ 20 % buy: how many have `above` outside of its range, of how many, and how many would.

    The last: if each true share were 10 % and nothing but the draw of customers moved it (normal, the bootstrap's SD).
    """
    bound = Bound(0.08 - points, 0.12 + points)
    judged = (shares.customers[:TENTHS] > 0) & (shares.buying[:TENTHS] >= BUYING_DECILE)
    outside = sum(not bound.holds(value) for value in shares.above[:TENTHS][judged])
    spread = np.maximum(shares.above_sd[:TENTHS][judged], 1e-9)
    return outside, int(judged.sum()), float((2 * norm.sf((0.02 + points) / spread)).sum())
