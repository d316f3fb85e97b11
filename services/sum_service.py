"""What many customers will spend together, with an interval of the sum: a list of ids, a segment, or everyone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_pipeline.schema import HORIZON_DAYS, MAX_ID_LENGTH
from services.errors import InvalidRequest, RequestTooLarge
from services.model_registry import Model, ModelRegistry
from services.requested_ids import read_id

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IDS_LIMIT = 100_000
UNKNOWN_SHOWN = 10
LONGEST_SHOWN = 40  # of an id, in characters
WAYS = ("customer_ids", "segment", "all")
EXAMPLE = 'Send {"customer_ids": ["12345", "67890"]}, {"segment": "High Value"}, or {"all": true} for everyone'


class SumService:
    """Sums over known customers, each counted once."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def sum(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request, by the names that the API documents; {} means everyone.

        Raises InvalidRequest, RequestTooLarge, and what the registry raises.
        """
        _check_ways(request)
        chosen = chosen_customers(request)
        model = self._registry.serving()
        return _answer(model, *chosen.found_in(model))


@dataclass(frozen=True)
class Chosen:
    """Whom a request names: the ids of customers, else a segment, else everyone. ids: distinct, as they are looked up."""

    ids: tuple[str, ...] | None = None
    segment: str | None = None

    def found_in(self, model: Model) -> "tuple[Sequence[int] | npt.NDArray[np.int64], Sequence[str]]":
        """Their rows in the snapshot, and the ids that it does not know."""
        if self.segment is not None:
            return model.snapshot.in_segment(self.segment), []
        if self.ids is None:
            return range(model.snapshot.n_customers), []
        # an id that is too long for the snapshot's fixed-width search is nobody's, as an empty one
        searched = [customer_id if len(customer_id) <= MAX_ID_LENGTH else "" for customer_id in self.ids]
        positions = model.snapshot.positions(searched)
        unknown = [customer_id for customer_id, row in zip(self.ids, positions.tolist(), strict=True) if row < 0]
        return positions[positions >= 0], unknown


def chosen_customers(request: Mapping[str, Any]) -> Chosen:
    """By customer_ids, segment, or neither. Raises InvalidRequest, RequestTooLarge."""
    if "customer_ids" in request:
        return Chosen(ids=tuple(_distinct_ids(request["customer_ids"])))
    return Chosen(segment=_segment(request["segment"])) if "segment" in request else Chosen()


def _check_ways(request: Mapping[str, Any]) -> None:
    """Raises InvalidRequest when it is not clear over whom the sum is to be taken."""
    unknown = [name for name in request if name not in WAYS]
    if unknown:
        raise InvalidRequest(
            f"{', '.join(str(name)[:LONGEST_SHOWN] for name in unknown[:UNKNOWN_SHOWN])}: a sum knows no such field. "
            f"{EXAMPLE}."
        )
    if len(request) > 1:
        raise InvalidRequest(f"{' and '.join(request)} were sent together; a sum takes one of them. {EXAMPLE}.")
    if "all" in request and request["all"] is not True:
        raise InvalidRequest(f"all can only be true. {EXAMPLE}.")


def _segment(value: Any) -> str:
    from ml_pipeline.snapshot import SEGMENTS

    wanted = value.strip().casefold() if isinstance(value, str) else None
    for name in SEGMENTS:
        if name.casefold() == wanted:
            return name
    shown = repr(value[:LONGEST_SHOWN]) if isinstance(value, str) else "not a text"
    raise InvalidRequest(f"segment is {shown}; it must be one of {', '.join(SEGMENTS)}.")


def _distinct_ids(values: Any) -> list[str]:
    """Ids as they are looked up, in the order of their first appearance. Raises InvalidRequest, RequestTooLarge."""
    if not isinstance(values, list):
        raise InvalidRequest(f"customer_ids must be a list of texts or numbers. {EXAMPLE}.")
    if len(values) > IDS_LIMIT:
        raise RequestTooLarge(
            f"customer_ids has {len(values):,} entries; at most {IDS_LIMIT:,} are summed at once. Send them as a file to "
            "POST /bulk/predict: the statistics of the job have the sum and its interval."
        )
    ids: dict[str, None] = {}
    for place, value in enumerate(values):
        if value is None:
            raise InvalidRequest(f"Entry {place} of customer_ids (counted from 0) is null. Leave it out. {EXAMPLE}.")
        try:
            ids[read_id(value)] = None
        except InvalidRequest as problem:
            raise InvalidRequest(f"Entry {place} of customer_ids (counted from 0): {problem}") from None
    return list(ids)


def _answer(model: Model, positions: "Sequence[int] | npt.NDArray[np.int64]", unknown: Sequence[str]) -> dict[str, Any]:
    from ml_pipeline.spend_sums import sum_spend

    return {
        **sum_spend(model.snapshot, model.bundle.content["sums"], positions).as_json(),
        "unknown_ids": told_unknown(unknown),
        "currency": model.snapshot.currency,
        "model_version": model.version,
        "as_of": model.as_of.isoformat(),
        "horizon_days": HORIZON_DAYS,
    }


def told_unknown(unknown: Sequence[str]) -> dict[str, Any]:
    """How many ids nobody knows, and the first of them."""
    return {
        "count": len(unknown),
        "first": [customer_id[:LONGEST_SHOWN] for customer_id in unknown[:UNKNOWN_SHOWN]],
    }
