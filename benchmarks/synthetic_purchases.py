"""Synthetic purchases of a large shop, made fast; only for measuring.

Rates differ between customers (gamma), dates are uniform over two years, a line is returned in 2 % of cases.
"""

from datetime import date

import numpy as np
import pyarrow as pa

FIRST_DAY = date(2024, 1, 1)
DAYS = 730
CATEGORIES = np.array(["electronics", "grocery", "sports", "toys", "books", "garden", "unknown"])
TARGET_OF = np.array(["electronics", "grocery", "sports", "other", "other", "other", "other"])
TARGETS = ("electronics", "grocery", "sports")


def purchases_table(n_customers: int, n_transactions: int, n_lines: int, seed: int = 7) -> pa.Table:
    """One row per line, in the columns of `purchases.build_purchases`."""
    random = np.random.default_rng(seed)
    rates = random.gamma(0.8, size=n_customers)
    customer_of = random.choice(n_customers, size=n_transactions, p=rates / rates.sum()).astype(np.int32)
    day_of = random.integers(0, DAYS, size=n_transactions).astype(np.int32)
    store_of = random.integers(0, 120, size=n_transactions)
    promoted = random.random(n_transactions) < 0.25
    transaction = np.sort(random.integers(0, n_transactions, size=n_lines))
    product = (random.gamma(0.7, 900, size=n_lines).astype(np.int64)) % 20_000
    returned = random.random(n_lines) < 0.02
    units = (random.lognormal(5, 1, size=n_lines) * 10_000).astype(np.int64) + 1
    category = product % len(CATEGORIES)
    first = (FIRST_DAY - date(1970, 1, 1)).days
    return pa.table(
        {
            "customer_id": _coded("C", n_customers, customer_of[transaction]),
            "transaction_id": _coded("T", n_transactions, transaction),
            "day": pa.array(day_of[transaction] + first, type=pa.int32()).cast(pa.date32()),
            "category": pa.array(CATEGORIES).take(pa.array(category)),
            "target": pa.array(TARGET_OF).take(pa.array(category)),
            "product_id": _coded("P", 20_000, product),
            "store_id": _coded("S", 120, store_of[transaction]),
            "quantity_milli": random.integers(1, 5, size=n_lines) * 1000,
            "spend_units": np.where(returned, 0, units),
            "return_units": np.where(returned, units, 0),
            "amount_units": np.where(returned, 0, units),
            "has_promotion": promoted[transaction],
            "cancelled_on": pa.nulls(n_lines, pa.date32()),
            "cancelled_units": np.zeros(n_lines, dtype=np.int64),
        }
    )


def customers_table(n_customers: int) -> pa.Table:
    """One row per customer; every third one has been a customer since before the first day."""
    numbers = np.arange(n_customers)
    since = pa.array(np.full(n_customers, 19_000), mask=numbers % 3 > 0, type=pa.int32()).cast(pa.date32())
    return pa.table({"customer_id": _coded("C", n_customers, numbers), "customer_since": since})


def _coded(letter: str, n: int, numbers: np.ndarray) -> pa.Array:
    names = pa.array([f"{letter}{number:07d}" for number in range(n)])
    return names.take(pa.array(numbers))
