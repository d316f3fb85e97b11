"""Amounts and quantities become exact integers, or say why not."""

from decimal import ROUND_HALF_UP, Decimal

import ibis
import numpy as np
import pytest

from ml_pipeline.amounts import NumberReading, with_amount, with_quantity
from ml_pipeline.engine import open_engine

ENGINE = open_engine(threads=1)


def _read(texts: list[str], reader=with_amount, unit: str = "units"):  # type: ignore[no-untyped-def]
    rows = ibis.memtable({"row_number": list(range(len(texts))), "paid": texts})
    read, reading = reader(ENGINE, rows, "paid", "paid", "sales.paid")
    listed = read.order_by("row_number").to_pyarrow().to_pylist()
    return [(row[f"paid_{unit}"], row["paid_fault"], row["paid_rounded"]) for row in listed], reading


AMOUNTS: dict[str, int | str] = {
    "12.5": 125_000,
    "-3": -30_000,
    "1e3": 10_000_000,
    ".5": 5_000,
    " 7 ": 70_000,
    "1,234.50": 12_345_000,
    "12,34,567.5": 12_345_675_000,
    "1 234.5": 12_345_000,
    "1\u00a0234": 12_340_000,
    "1'234.50": 12_345_000,
    "$ 5.00": 50_000,
    "\u20b91,234": 12_340_000,
    "Rs. 50": 500_000,
    "5 EUR": 50_000,
    "-$5": -50_000,
    "$-5": -50_000,
    "(12.50)": -125_000,
    "12.50-": -125_000,
    "\u22125": -50_000,
    "99999999999.9999": 999_999_999_999_999,
    "100000000000": "out of range",
    "-100000000000": "out of range",
    "1e20": "out of range",
    "1e40": "out of range",
    "1" * 40: "out of range",
    "": "missing",
    "nan": "missing",
    "N/A": "missing",
    "1,23": "unreadable",
    "1,2345": "unreadable",
    "12,345,67": "unreadable",
    "1.234.567": "unreadable",
    "1_000": "unreadable",
    "abc": "unreadable",
    "inf": "unreadable",
    ".": "unreadable",
    "-": "unreadable",
    "--5": "unreadable",
    "0x10": "unreadable",
    "12 34": "unreadable",
    "5 apples": "unreadable",
}


def test_every_amount_is_exact_or_has_a_fault() -> None:
    read, reading = _read([*AMOUNTS, "0.10", "0.20"])
    assert reading.decimal_mark == "."
    for (text, expected), (units, fault, _) in zip(AMOUNTS.items(), read, strict=False):
        assert (fault or units) == expected, text
        assert (units is None) == (fault is not None), text


def test_further_digits_are_rounded_half_away_from_zero_and_said() -> None:
    read, _ = _read(["0.00005", "-0.00005", "1.23454", "1.2345", "1.234500", "$1.23456"])
    assert read == [
        (1, None, True),
        (-1, None, True),
        (12_345, None, True),
        (12_345, None, False),
        (12_345, None, False),
        (12_346, None, True),
    ]


def test_a_column_of_decimal_commas_is_read_with_commas() -> None:
    read, reading = _read(["12,50", "1.234,50", "1.234", "-3", "7,5 €", "1 234,5", "1.5"])
    assert reading == NumberReading("sales.paid", ",", point_rows=1, comma_rows=4, odd_rows=4)
    assert [units for units, _, _ in read] == [125_000, 12_345_000, 12_340_000, -30_000, 75_000, 12_345_000, None]
    assert read[-1][1] == "unreadable"


def test_one_stray_decimal_comma_does_not_turn_a_column_of_points() -> None:
    read, reading = _read(["12,50", "12.50", "13.75"])
    assert reading.decimal_mark == "."
    assert [fault for _, fault, _ in read] == ["unreadable", None, None]


def test_random_amounts_agree_with_decimal_arithmetic() -> None:
    draw = np.random.default_rng(7)
    texts = [f"{whole}.{part:06d}" for whole, part in draw.integers(-(10**11) + 1, 10**11, (4000, 2)) % (10**11, 10**6)]
    texts += [f"-{text}" for text in texts[:500] if not text.startswith("-")]
    read, _ = _read(texts)
    for text, (units, _, rounded) in zip(texts, read, strict=True):
        exact = Decimal(text) * 10_000
        assert units == int(exact.quantize(Decimal(1), ROUND_HALF_UP)) or abs(exact) >= 10**15 - 1, text
        assert rounded == (exact != exact.to_integral_value()), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2_000),
        ("0.25", 250),
        ("-1", -1_000),
        ("1,000", 1_000_000),
        ("1000000000", "out of range"),
        ("two", "unreadable"),
    ],
)
def test_quantities_are_thousandths(text: str, expected: int | str) -> None:
    read, _ = _read([text, "1.50", "2.50"], with_quantity, "milli")
    milli, fault, _ = read[0]
    assert (fault or milli) == expected
