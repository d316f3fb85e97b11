"""Rows of purchases for tests: one by hand, or a whole random shop."""

import random
from datetime import date, timedelta
from itertools import count

import pyarrow as pa

from ml_pipeline.history import CUSTOMERS_SCHEMA, PURCHASES_SCHEMA

AS_OF = date(2025, 3, 1)
TARGETS = ("electronics", "grocery", "sports")
_CATEGORIES = {
    "electronics": "electronics",
    "grocery": "grocery",
    "sports": "sports",
    "toys": "other",
    "unknown": "other",
}
_numbers = count(1)

Row = dict[str, object]


def purchase(customer_id: str = "C1", days_ago: int = 1, money: float = 10, **columns: object) -> Row:
    """A line of AS_OF - days_ago; negative money is a return. Its own transaction unless transaction_id is given."""
    units = round(money * 10_000)
    net = bool(columns.pop("net", False))
    category = str(columns.get("category", "toys"))
    row: Row = {
        "customer_id": customer_id,
        "transaction_id": f"T{next(_numbers)}",
        "day": AS_OF - timedelta(days=days_ago),
        "category": category,
        "target": _CATEGORIES.get(category, "other"),
        "product_id": None,
        "store_id": None,
        "quantity_milli": 1_000,
        "spend_units": max(units, 0),
        "return_units": max(-units, 0),
        "amount_units": units if net else max(units, 0),
        "has_promotion": None,
        "cancelled_on": None,
        "cancelled_units": 0,
    }
    assert set(columns) <= set(row)
    return row | columns


def random_purchases(seed: int, customers: int = 25, days: int = 400, net: bool = False) -> list[Row]:
    """A shop with returns, lines of one transaction, several transactions a day, unknown categories and missing ids.

    Days lie around AS_OF, on both sides.
    """
    chance = random.Random(seed)
    rows = []
    for number in range(customers):
        habits = {"promotions": chance.random() < 0.7, "ids": chance.random() < 0.8, "returns": chance.random() / 2}
        for trip in range(chance.choice((1, 2, 5, 20))):
            days_ago = chance.randrange(-40, days)
            for line in range(chance.choice((1, 1, 2, 4))):
                money = chance.choice((1, 1, 5, 1e6)) * chance.randrange(1, 50_000) / 10_000
                rows.append(
                    purchase(
                        customer_id=f"C{number:03d}",
                        days_ago=days_ago,
                        money=-money if chance.random() < habits["returns"] else money,
                        net=net,
                        category=chance.choice(list(_CATEGORIES)),
                        transaction_id=f"T{number}-{trip // 2 if days_ago % 2 else trip}",
                        product_id=f"P{chance.randrange(8)}" if habits["ids"] and line else None,
                        store_id=f"S{chance.randrange(3)}" if habits["ids"] else None,
                        quantity_milli=chance.choice((1_000, 2_000, 1_500)),
                        has_promotion=chance.random() < 0.3 if habits["promotions"] else None,
                    )
                )
    return rows


def random_customers(seed: int, customers: int = 25) -> dict[str, date | None]:
    """customer_since of most of the random shop's customers, some unknown, some after AS_OF."""
    chance = random.Random(seed)
    days = [None, AS_OF - timedelta(days=1_000), AS_OF - timedelta(days=100), AS_OF - timedelta(days=1), AS_OF]
    return {f"C{number:03d}": chance.choice(days) for number in range(customers) if chance.random() < 0.8}


def purchases_table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=PURCHASES_SCHEMA)


def customers_table(customer_since: dict[str, date | None]) -> pa.Table:
    rows = [{"customer_id": name, "customer_since": day} for name, day in customer_since.items()]
    return pa.Table.from_pylist(rows, schema=CUSTOMERS_SCHEMA)
