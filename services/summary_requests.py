"""What a caller says of a customer in a few numbers, read and checked: only what cannot be is refused."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.summary_fields import EIGHTEEN_FIELDS, SEVEN_FIELDS

FIELDS = (*SEVEN_FIELDS, *EIGHTEEN_FIELDS)
SUMMARY_FIELDS: tuple[str, ...] = tuple(one.name for one in FIELDS)
"""Any of these in a request means that the caller describes a customer instead of naming one."""


@dataclass(frozen=True)
class SummaryRequest:
    """What is known of a customer.

    inputs: by the names of `summary_columns.SUMMARY_INPUTS`, absent = not known. warnings: what did not fit together and
    what was used. ignored: `{field, reason}` of each field that no prediction uses.
    """

    customer_id: str | None
    inputs: dict[str, float | str]
    warnings: list[str] = field(default_factory=list)
    ignored: list[dict[str, str]] = field(default_factory=list)


def is_summary(request: Mapping[str, Any]) -> bool:
    """Whether a request describes a customer by a summary."""
    return any(name in request for name in SUMMARY_FIELDS)


def read_summary(request: Mapping[str, Any]) -> SummaryRequest:
    """The summary of a request. Raises InvalidRequest for what cannot be, with the value, the rule and the way out."""
    raise NotImplementedError


def read_six_features(features: Any) -> SummaryRequest:
    """The summary of `total_spend, avg_spend, num_transactions, total_units, unique_products, recency_days`.

    features: a list of the six in this order, or an object by these names. Raises InvalidRequest.
    """
    raise NotImplementedError
