"""How long features take: all at once beside pandas, one groupby per window and as_of, on the same synthetic purchases.

`python -m benchmarks.features` measures 100,000 customers, 3.0 M transactions, 7.6 M lines and 12 as_of days on 2 threads;
see --help for smaller ones, a memory limit, and a single raw history.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.synthetic_purchases import DAYS, FIRST_DAY, TARGETS, customers_table, purchases_table
from ml_pipeline.engine import open_engine
from ml_pipeline.features import WINDOWS, build_features, feature_names, read_matrix
from ml_pipeline.history import CUSTOMERS_SCHEMA, HistoryFeatures


def main() -> None:
    options = _options()
    sizes = (options.customers, options.customers * 30, options.customers * 76)
    purchases, customers = purchases_table(*sizes), customers_table(options.customers)
    last = FIRST_DAY + timedelta(days=DAYS)
    as_of_days = [last - timedelta(days=options.spacing_days * (step + 1)) for step in range(options.as_of_days)]
    print(f"{sizes[0]:,} customers, {sizes[1]:,} transactions, {sizes[2]:,} lines, {len(as_of_days)} as_of days")
    print("| what | seconds | rows | columns |\n|---|---|---|---|")
    ours = _measure_engine(purchases, customers, as_of_days, options)
    if not options.no_pandas:
        pandas = _measure_pandas(purchases, as_of_days)
        print(f"\npandas / build_features: {pandas / ours:.1f}")
    _measure_histories(purchases, last)
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f} GB")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=100_000, help="30 transactions and 76 lines each")
    parser.add_argument("--as-of-days", type=int, default=12)
    parser.add_argument("--spacing-days", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", help='of the engine, e.g. "1GB"; tables then lie in a file and spill')
    parser.add_argument("--repeat", type=int, default=3, help="the best of so many")
    parser.add_argument("--no-pandas", action="store_true")
    return parser.parse_args()


def _measure_engine(
    purchases: pa.Table, customers: pa.Table, as_of_days: Sequence[date], options: argparse.Namespace
) -> float:
    with tempfile.TemporaryDirectory() as folder:
        work_dir = Path(folder) if options.memory_limit else None
        engine = open_engine(work_dir, options.threads, options.memory_limit)
        purchase_rows = engine.create_table("purchases", purchases)
        customer_rows = engine.create_table("customers", customers)
        best = np.inf
        for _ in range(options.repeat):
            started = time.perf_counter()
            features = build_features(purchase_rows, customer_rows, as_of_days, TARGETS)
            table = engine.create_table("features", features, overwrite=True)
            best = min(best, time.perf_counter() - started)
        print(f"| build_features | {best:.2f} | {table.count().execute():,} | {len(feature_names(TARGETS))} |")
        started = time.perf_counter()
        rows = read_matrix(engine, table, feature_names(TARGETS))
        print(
            f"| read_matrix | {time.perf_counter() - started:.2f} | {len(rows.features):,} | {rows.features.shape[1]} |"
        )
        engine.disconnect()
    return best


def _measure_pandas(purchases: pa.Table, as_of_days: Sequence[date]) -> float:
    lines = purchases.to_pandas()
    lines["day"] = lines["day"].astype("datetime64[s]")
    started = time.perf_counter()
    tables = _pandas_features(lines, [pd.Timestamp(day) for day in as_of_days])
    seconds = time.perf_counter() - started
    columns = len(tables[0].columns)
    print(f"| pandas, a groupby per window and as_of | {seconds:.2f} | {sum(map(len, tables)):,} | {columns} |")
    return seconds


def _pandas_features(lines: pd.DataFrame, as_of_days: Sequence[pd.Timestamp]) -> list[pd.DataFrame]:
    """What a careful person writes: lines to transactions once, then groupbys; floats, and a little fewer columns."""
    lines["money"] = lines["amount_units"] / 10_000
    lines["returned"] = lines["return_units"] > 0
    valid = lines[~lines["returned"]]
    of = ["customer_id", "transaction_id", "day"]
    transactions = valid.groupby(of, sort=False).agg(
        value=("money", "sum"), items=("quantity_milli", "sum"), promoted=("has_promotion", "max")
    )
    transactions = transactions.reset_index()
    weekday = transactions["day"].dt.day_of_week
    transactions["weekend"] = weekday >= 5
    transactions = transactions.join(pd.get_dummies(weekday, prefix="on"))
    return [_pandas_features_at(as_of, lines, valid, transactions) for as_of in as_of_days]


def _pandas_features_at(
    as_of: pd.Timestamp, lines: pd.DataFrame, valid: pd.DataFrame, transactions: pd.DataFrame
) -> pd.DataFrame:
    past, past_lines = transactions[transactions["day"] < as_of], valid[valid["day"] < as_of]
    by_customer = past.groupby("customer_id", sort=False)
    weekdays = {f"on_{number}": (f"on_{number}", "sum") for number in range(7)}
    table = by_customer.agg(
        first=("day", "min"),
        last=("day", "max"),
        n=("value", "size"),
        lifetime=("value", "sum"),
        mean=("value", "mean"),
        highest=("value", "max"),
        lowest=("value", "min"),
        deviation=("value", "std"),
        items=("items", "sum"),
        most_items=("items", "max"),
        promoted=("promoted", "sum"),
        weekend=("weekend", "mean"),
        **weekdays,
    )
    things = past_lines.groupby("customer_id", sort=False)
    table = table.join(things[["product_id", "category", "store_id"]].nunique())
    table["return_rate"] = lines[lines["day"] < as_of].groupby("customer_id", sort=False)["returned"].mean()
    for window in WINDOWS:
        day = past["day"]
        seen = past[
            (day >= as_of - pd.Timedelta(window.oldest, "D")) & (day <= as_of - pd.Timedelta(window.newest, "D"))
        ]
        sums = seen.groupby("customer_id", sort=False)["value"].agg(["sum", "size"])
        table = table.join(sums.add_suffix(f"_{window.label}"))
    for target in TARGETS:
        bought = past_lines[past_lines["target"] == target]
        groups = bought.groupby("customer_id", sort=False)
        sums = groups.agg(spend=("money", "sum"), n=("transaction_id", "nunique"), last=("day", "max"))
        for days in (30, 90):
            recent = bought[bought["day"] >= as_of - pd.Timedelta(days, "D")]
            sums[f"spend_{days}"] = recent.groupby("customer_id", sort=False)["money"].sum()
        table = table.join(sums.add_suffix(f"_{target}"))
    table["since_last"], table["since_first"] = (as_of - table["last"]).dt.days, (as_of - table["first"]).dt.days
    table["gap"] = (table["since_first"] - table["since_last"]) / (table["n"] - 1)
    table["density"] = table["n"] * 30 / table["since_first"].clip(lower=30)
    table["momentum"] = table["size_30d"] * 3 / table["size_90d"]
    return table


def _measure_histories(purchases: pa.Table, as_of: date, calls: int = 50) -> None:
    first = purchases.filter(pc.equal(purchases["customer_id"], purchases["customer_id"][0]))
    started = time.perf_counter()
    planned = HistoryFeatures(open_engine(threads=1), TARGETS)
    once, seconds = time.perf_counter() - started, []
    for step in range(calls):
        started = time.perf_counter()
        planned.read(first, CUSTOMERS_SCHEMA.empty_table(), as_of - timedelta(days=step))
        seconds.append(time.perf_counter() - started)
    median, worst = sorted(seconds)[calls // 2] * 1e3, max(seconds) * 1e3
    print(
        f"\none raw history of {first.num_rows} lines: {median:.0f} ms (median of {calls}, worst {worst:.0f}); planned once in {once:.2f} s"
    )


if __name__ == "__main__":
    main()
