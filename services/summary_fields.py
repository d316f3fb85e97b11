"""The fields that describe a customer in numbers: their names, what they mean, and how a value of each is read."""

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml_pipeline.schema import AMOUNT_LIMIT, QUANTITY_LIMIT
from services.errors import InvalidRequest
from services.requested_ids import is_blank, json_type

LONGEST_SHOWN = 40  # of a value or a name, in characters
MOST_DAYS = 73_050
"""200 years: more is no age of a customer."""
MOST_MONEY = 100 * AMOUNT_LIMIT
"""AMOUNT_LIMIT is that of a single sale; what a customer spent is the sum of many."""
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
"""Numeric text; `1,500`, `1_500` and `NaN` are none."""


@dataclass(frozen=True)
class Kind:
    """What a number counts, the largest that can be, and whether parts of one can be."""

    unit: str
    most: float
    whole: bool = False


TEXT = Kind("a text", 0)
DAYS = Kind("a number of days", MOST_DAYS)
COUNT = Kind("a count", QUANTITY_LIMIT, whole=True)
QUANTITY = Kind("a quantity", QUANTITY_LIMIT)
MONEY = Kind("an amount of money", MOST_MONEY)


@dataclass(frozen=True)
class SummaryField:
    """A field of a request: its name, the input of the summary model that it is, its kind, its meaning in words."""

    name: str
    input: str
    kind: Kind
    meaning: str


SEVEN_FIELDS = (
    SummaryField("recency", "days_since_last", DAYS, "days since the last purchase"),
    SummaryField("frequency", "transactions", COUNT, "number of all orders, the first included"),
    SummaryField("monetary_value", "total_spend", MONEY, "money spent so far, in the shop's currency"),
    SummaryField("tenure", "days_since_first", DAYS, "days since the first purchase"),
    SummaryField("avg_order_value", "avg_transaction_value", MONEY, "money spent per order, in the shop's currency"),
    SummaryField("days_between_purchases", "avg_days_between", DAYS, "mean days between one order and the next"),
    SummaryField("total_orders", "transactions", COUNT, "number of all orders, the first included"),
)
EIGHTEEN_FIELDS = (
    SummaryField("total_spend", "total_spend", MONEY, "money spent so far, in the shop's currency"),
    SummaryField("total_transactions", "transactions", COUNT, "number of all orders, the first included"),
    SummaryField("recency_days", "days_since_last", DAYS, "days since the last purchase"),
    SummaryField("tenure_days", "days_since_first", DAYS, "days since the first purchase"),
    *(
        SummaryField(f"spend_last_{days}d", f"spend_{days}d", MONEY, f"money spent on the last {days} days")
        for days in (30, 60, 90)
    ),
    *(
        SummaryField(f"tx_last_{days}d", f"transactions_{days}d", COUNT, f"orders of the last {days} days")
        for days in (30, 60, 90)
    ),
    SummaryField("unique_products", "distinct_products", COUNT, "number of different products bought so far"),
    SummaryField("unique_categories", "distinct_categories", COUNT, "number of different categories bought so far"),
    SummaryField("dominant_category", "dominant_category", TEXT, "product category with the highest spend"),
)
"""Without avg_order_value, which both forms have, and those of UNUSED_FIELDS."""
SIX_FEATURES = (
    SummaryField("total_spend", "total_spend", MONEY, "money spent so far, in the shop's currency"),
    SummaryField("avg_spend", "avg_transaction_value", MONEY, "money spent per order, in the shop's currency"),
    SummaryField("num_transactions", "transactions", COUNT, "number of all orders, the first included"),
    SummaryField("total_units", "total_items", QUANTITY, "number of items bought so far"),
    SummaryField("unique_products", "distinct_products", COUNT, "number of different products bought so far"),
    SummaryField("recency_days", "days_since_last", DAYS, "days since the last purchase"),
)
"""In the order in which they are listed."""

_TODAYS = (
    "It has today's value: what it was on the past days that models learn from is not known, and a model that saw it "
    "would have seen what came after."
)
_NOT_LEARNED = "The tables that the model learned from do not have it."
_ELSEWHERE = "It is asked for in the address, for example POST /predict?"
UNUSED_FIELDS: Mapping[str, str] = {
    "segment_id": _TODAYS,
    "loyalty_status": _TODAYS,
    "total_loyalty_points": _TODAYS,
    "is_cold_start": "It follows from the number of orders.",
    "age": _NOT_LEARNED,
    "gender": _NOT_LEARNED,
    "country": _NOT_LEARNED,
    "model_type": f"{_ELSEWHERE}model_type=bg_nbd.",
    "horizon_days": f"{_ELSEWHERE}horizon_days=90.",
    "explain": "Reasons are given for known customers and raw histories; of a summary too little is known.",
    "as_of": "A summary counts days back from now; as_of belongs to transactions.",
}
"""Fields that a summary may carry and that no prediction uses, with the reason."""


def read_value(field: SummaryField, value: Any) -> float | str | None:
    """What a JSON value says, None where it is not known (null, blank text). Raises InvalidRequest."""
    if is_blank(value):
        return None
    return _category(field, value) if field.kind is TEXT else _number(field, value)


def _number(field: SummaryField, value: Any) -> float:
    kind, number = field.kind, _as_float(value)
    if number is None:
        raise _refused(
            field, value, f"it must be {kind.unit}, as a plain number such as {'30' if kind.whole else '30 or 1500.5'}"
        )
    if number < 0:
        raise _refused(field, value, f"{kind.unit} is never below 0")
    if kind.whole and number != math.floor(number):
        raise _refused(field, value, f"{kind.unit} is a whole number")
    if number > kind.most:
        raise _refused(field, value, f"{kind.unit} of more than {kind.most:,.0f} is not believed of one customer")
    return number + 0.0  # -0 is 0


def _category(field: SummaryField, value: Any) -> str:
    if not isinstance(value, str):
        raise _refused(field, value, "it must be a text")
    return value.strip()


def _refused(field: SummaryField, value: Any, rule: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field.name} is {_shown(value)}; {rule}. Send the {field.meaning}, or leave {field.name} out where it is not known."
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value[:LONGEST_SHOWN])
    number = _as_float(value)
    return json_type(value) if number is None else shown_number(number)


def shown_number(number: float) -> str:
    """A number in a message: as few digits as say what it is, no exponent for money of a shop."""
    return f"{number:.0f}" if abs(number) < 1e15 and number == math.floor(number) else f"{number:.10g}"


def _as_float(value: Any) -> float | None:
    """None for what is no finite number; a bool, which Python counts among the numbers, is none."""
    if isinstance(value, str):
        text = value.strip()
        return _finite(text) if NUMBER.fullmatch(text) else None
    return _finite(value) if _is_plain_number(value) else None


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except OverflowError:  # an integer of more than 308 digits
        return -sys.float_info.max if value < 0 else sys.float_info.max
    return number if math.isfinite(number) else None


def _is_plain_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
