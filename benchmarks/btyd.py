"""BG/NBD and Gamma-Gamma beside what is published for CDNOW and beside `lifetimes`; time and memory of a large fit.

`python -m benchmarks.btyd` reads CDNOW's 2,357 customers (unit of time: weeks) from an installed `lifetimes` package
without importing it, or from --cdnow PATH; `--customers` sets the size of the large fit.
"""

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from ml_pipeline.btyd import BgNbd, FloatArray, GammaGamma, fit_bg_nbd, fit_gamma_gamma

SUMMARY = "datasets/cdnow_customers_summary_with_transactions.csv"
PUBLISHED = {"r": ".243", "alpha": "4.414", "a": ".793", "b": "2.426", "log_likelihood": "-9582.4"}
PUBLISHED_VALUES = {"p": "6.25", "q": "3.74", "v": "15.45"}
HORIZONS = {"30 days": 30 / 7, "90 days": 90 / 7, "365 days": 365 / 7}


def main() -> None:
    options = _options()
    if options.measure:
        _measure(options.customers, whole_days=options.measure == "days")
        return
    print(f"numpy {np.__version__}, scipy {scipy.__version__}\n")
    path = options.cdnow or _installed_summary()
    if path is None:
        print("CDNOW: `lifetimes` is not installed; pip install lifetimes, or give --cdnow PATH to its", SUMMARY)
    else:
        _compare_with_published(pd.read_csv(path))
    print("\n| fit | customers | distinct | BG/NBD s | Gamma-Gamma s | predictions s | peak memory GB | r alpha a b |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for ages in ("days", "continuous"):
        # A process of its own: the peak of one fit must not hide in that of another.
        command = [sys.executable, "-m", "benchmarks.btyd", "--customers", str(options.customers), "--measure", ages]
        subprocess.run(command, check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cdnow", type=Path, help="a CSV with the columns x, t_x, T, zbar")
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--measure", choices=("days", "continuous"), help="only one large fit, in this process")
    return parser.parse_args()


def _installed_summary() -> Path | None:
    spec = importlib.util.find_spec("lifetimes")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / SUMMARY
    return path if path.exists() else None


def _compare_with_published(customers: pd.DataFrame) -> None:
    x, t_x, T = (customers[name].to_numpy() for name in ("x", "t_x", "T"))
    purchases, values = fit_bg_nbd(x, t_x, T), fit_gamma_gamma(x, customers["zbar"])
    print(f"CDNOW, {purchases.n_customers:,} customers, {values.n_customers:,} of them with repeat purchases\n")
    print("| parameter | ours | published | to the printed digit |\n|---|---|---|---|")
    for fitted, published in ((purchases.as_json(), PUBLISHED), (values.as_json(), PUBLISHED_VALUES)):
        for name, printed in published.items():
            digits = len(printed.partition(".")[2])
            agrees = round(fitted[name], digits) == float(printed)
            print(f"| {name} | {fitted[name]:.5f} | {printed} | {'yes' if agrees else 'NO'} |")
    _compare_with_lifetimes(purchases, values, customers)


def _compare_with_lifetimes(purchases: BgNbd, values: GammaGamma, customers: pd.DataFrame) -> None:
    try:
        from lifetimes import BetaGeoFitter, GammaGammaFitter
    except ImportError as problem:
        print(f"\n`lifetimes` cannot be imported ({problem}): no comparison of predictions.")
        return
    x, t_x, T = (customers[name].to_numpy() for name in ("x", "t_x", "T"))
    theirs = BetaGeoFitter().fit(x, t_x, T)
    same = BetaGeoFitter()
    same.params_ = pd.Series({name: getattr(purchases, name) for name in ("r", "alpha", "a", "b")})
    print("\n| largest difference from lifetimes over the customers | its formula, our fit | its formula, its fit |")
    print("|---|---|---|")
    for name, weeks in HORIZONS.items():
        ours = purchases.expected_purchases(x, t_x, T, weeks)
        gaps = [
            _gap(ours, each.conditional_expected_number_of_purchases_up_to_time(weeks, x, t_x, T))
            for each in (same, theirs)
        ]
        print(f"| expected purchases in {name} | {gaps[0]:.1e} | {gaps[1]:.1e} |")
    ours = purchases.probability_alive(x, t_x, T)
    gaps = [_gap(ours, each.conditional_probability_alive(x, t_x, T)) for each in (same, theirs)]
    print(f"| probability alive | {gaps[0]:.1e} | {gaps[1]:.1e} |")
    buyers = customers[(customers["x"] > 0) & (customers["zbar"] > 0)]
    their_values = GammaGammaFitter().fit(buyers["x"], buyers["zbar"])
    same_values = GammaGammaFitter()
    same_values.params_ = pd.Series({name: getattr(values, name) for name in ("p", "q", "v")})
    ours = values.expected_value(x, customers["zbar"])
    gaps = [
        _gap(ours, each.conditional_expected_average_profit(customers["x"], customers["zbar"]))
        for each in (same_values, their_values)
    ]
    print(f"| expected value | {gaps[0]:.1e} | {gaps[1]:.1e} |")


def _gap(ours: FloatArray, theirs: FloatArray) -> float:
    return float(np.abs(ours - np.asarray(theirs)).max())


def _measure(customers: int, *, whole_days: bool) -> None:
    x, t_x, T, m = simulated_customers(customers, whole_days=whole_days)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    purchases = fit_bg_nbd(x, t_x, T)
    fitted = time.perf_counter()
    values = fit_gamma_gamma(x, m)
    valued = time.perf_counter()
    for horizon in (30, 90, 365):
        purchases.expected_purchases(x, t_x, T, horizon)
    purchases.purchase_probability(x, t_x, T, 30)
    values.expected_value(x, m)
    ended = time.perf_counter()
    distinct = len(pd.DataFrame({"x": x, "t_x": t_x, "T": T}).drop_duplicates())
    peak = max(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / 1024**2
    parameters = " ".join(f"{value:.3f}" for value in (purchases.r, purchases.alpha, purchases.a, purchases.b))
    print(
        f"| ages in {'whole days' if whole_days else 'continuous time'} | {customers:,} | {distinct:,} | "
        f"{fitted - started:.1f} | {valued - fitted:.1f} | {ended - valued:.1f} | {peak:.2f} | {parameters} |"
    )


def simulated_customers(
    n: int, *, whole_days: bool, seed: int = 1
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """x, t_x, T, m of customers drawn with r 0.8, alpha 30, a 0.8, b 4; p 4, q 4, v 60; all drawn at once, by purchase."""
    rng = np.random.default_rng(seed)
    T = rng.uniform(1, 730, n)
    rate, stop = rng.gamma(0.8, 1 / 30, n), rng.beta(0.8, 4, n)
    x, t_x = np.zeros(n), np.zeros(n)
    active = np.arange(n)
    while len(active):
        age = t_x[active] + rng.exponential(1 / rate[active])
        bought = age <= T[active]
        active = active[bought]
        x[active] += 1
        t_x[active] = age[bought]
        active = active[rng.random(len(active)) >= stop[active]]
    if whole_days:
        T, t_x = np.ceil(T), np.ceil(t_x)
    m = np.zeros(n)
    again = x > 0
    m[again] = rng.gamma(4 * x[again]) / (rng.gamma(4, 1 / 60, again.sum()) * x[again])
    return x, t_x, T, m


if __name__ == "__main__":
    main()
