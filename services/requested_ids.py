"""The customer id of a request, as it is looked up or given back."""

import math
from typing import Any

from ml_pipeline.schema import MAX_ID_LENGTH, canonical_id
from services.errors import InvalidRequest

LONGEST_SHOWN = 40  # in characters


def read_id(value: Any) -> str:
    """The id as the pipeline knows it (text without outer blanks, 12345.0 as 12345). Raises InvalidRequest."""
    if value is None:
        raise InvalidRequest('customer_id is missing. Send {"customer_id": "12345"}.')
    if not is_text_or_number(value):
        raise InvalidRequest(f"customer_id is {json_type(value)}; it must be a text or a number.")
    customer_id = canonical_id(value)
    if not customer_id:
        raise InvalidRequest('customer_id is empty. Send {"customer_id": "12345"}.')
    return customer_id


def read_label(value: Any) -> str:
    """As `read_id`, of a customer who is looked up nowhere: the answer carries it back. Raises InvalidRequest."""
    customer_id = read_id(value)
    if len(customer_id) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"customer_id is {customer_id[:LONGEST_SHOWN]!r}… of {len(customer_id):,} characters; an id has at most "
            f"{MAX_ID_LENGTH}. Send a shorter one."
        )
    return customer_id


def read_optional_label(value: Any) -> str | None:
    """As `read_label`; None where there is none (null, blank text)."""
    return None if is_blank(value) else read_label(value)


def is_blank(value: Any) -> bool:
    """null and blank text say nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


def is_text_or_number(value: Any) -> bool:
    """A bool, which Python counts among the numbers, is none; nor is what JSON's 1e999 becomes."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def json_type(value: Any) -> str:
    """What a value is that is neither text nor number, in words."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return "not a finite number"
    if isinstance(value, bool):
        return "a boolean"
    return "a list" if isinstance(value, list) else "an object"
