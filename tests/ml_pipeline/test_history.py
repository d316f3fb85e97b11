from datetime import date
from decimal import Decimal

import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadHistory
from ml_pipeline.features import feature_names
from ml_pipeline.history import CUSTOMERS_SCHEMA, PURCHASES_SCHEMA, HistoryFeatures, purchases_from_history
from ml_pipeline.schema import DatasetConfig

GROSS, NET = DatasetConfig(), DatasetConfig(spend="net")
DAY = date(2025, 1, 31)


def purchases_of(*lines, config=GROSS):
    return purchases_from_history("00042", [{"transaction_date": DAY, **line} for line in lines], config).to_pylist()


def test_a_bare_line_is_a_transaction_of_its_own_with_one_piece_of_an_unknown_category():
    first, second = purchases_of({"amount": 12.5}, {"amount": "3"})
    assert first == {
        "customer_id": "00042",
        "transaction_id": first["transaction_id"],
        "day": DAY,
        "category": "unknown",
        "target": "other",
        "product_id": None,
        "store_id": None,
        "quantity_milli": 1_000,
        "spend_units": 125_000,
        "return_units": 0,
        "amount_units": 125_000,
        "has_promotion": None,
        "cancelled_on": None,
        "cancelled_units": 0,
    }
    assert first["transaction_id"] != second["transaction_id"]


@pytest.mark.parametrize(
    ("amount", "units"),
    [(0.1, 1_000), (1.15, 11_500), ("0.00005", 1), ("0.00004", 0), (Decimal("19.99"), 199_900), (10**11, 10**15)],
)
def test_amounts_are_read_as_decimals_and_rounded_half_away_from_zero(amount, units):
    assert [row["spend_units"] for row in purchases_of({"amount": amount})] == [units] * (units > 0)


@pytest.mark.parametrize("category", ["Grocery", " GROCERY ", "grocery"])
def test_a_category_is_known_without_case_and_outer_spaces(category):
    (row,) = purchases_of({"amount": 1, "category": category})
    assert (row["category"], row["target"]) == ("grocery", "grocery")


@pytest.mark.parametrize("category", [None, "", "  ", "nan"])
def test_an_empty_category_is_unknown(category):
    (row,) = purchases_of({"amount": 1, "category": category})
    assert (row["category"], row["target"]) == ("unknown", "other")


@pytest.mark.parametrize("line", [{"amount": -5}, {"amount": 5, "quantity": -1}, {"amount": -5, "quantity": -2}])
def test_a_negative_amount_or_quantity_is_a_return(line):
    (gross,), (net,) = purchases_of(line), purchases_of(line, config=NET)
    assert (gross["spend_units"], gross["return_units"], gross["amount_units"]) == (0, 50_000, 0)
    assert (net["spend_units"], net["return_units"], net["amount_units"]) == (0, 50_000, -50_000)
    assert gross["quantity_milli"] > 0


def test_lines_of_nothing_are_absent():
    assert purchases_of({"amount": 0}, {"amount": 5, "quantity": 0}) == []


@pytest.mark.parametrize("amount", ["ten", float("nan"), float("inf"), True, 10**12, ""])
def test_an_impossible_amount_is_refused_with_its_position_and_value(amount):
    with pytest.raises(BadHistory, match="transaction 2: amount is "):
        purchases_of({"amount": 1}, {"amount": amount})


def test_an_impossible_quantity_is_refused():
    with pytest.raises(BadHistory, match="transaction 1: quantity is 'two'; write a number between"):
        purchases_of({"amount": 1, "quantity": "two"})


def test_from_raw_lines_to_features():
    lines = [
        {"transaction_date": date(2025, 1, 1), "amount": "10.50", "category": "Grocery", "quantity": 2},
        {"transaction_date": date(2025, 1, 21), "amount": 4.5},
        {"transaction_date": date(2025, 2, 1), "amount": 1_000},
    ]
    planned = HistoryFeatures(open_engine(threads=1), GROSS.target_names)
    purchases = purchases_from_history("00042", lines, GROSS)
    found = planned.read(purchases, CUSTOMERS_SCHEMA.empty_table(), date(2025, 2, 1))
    row = dict(zip(feature_names(GROSS.target_names), found.features[0].tolist(), strict=True))
    assert purchases.schema == PURCHASES_SCHEMA
    assert found.customer_id.tolist() == ["00042"]
    assert (row["lifetime_spend"], row["spend_90d_grocery"], row["days_since_last_transaction"]) == (15, 10.5, 11)
    assert (row["avg_days_between_transactions"], row["total_items_purchased"]) == (20, 3)
