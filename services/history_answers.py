"""Predictions from raw histories: the answer that a known customer gets, from the same feature code."""

from collections.abc import Mapping, Sequence
from typing import Any

from services.errors import NotOffered, ServiceError
from services.model_registry import Model


def history_answers(
    model: Model, requests: Sequence[Mapping[str, Any]], explain: bool = False
) -> list[dict[str, Any] | ServiceError]:
    """One answer per request, in their order; what cannot be answered is its error, in its place."""
    return [NotOffered("Raw histories are not answered yet; send a customer_id.") for _request in requests]
