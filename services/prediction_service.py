"""Predictions for known customers: read from the snapshot, one or many at once."""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any

from ml_pipeline.schema import HORIZON_DAYS, MAX_ID_LENGTH, canonical_id
from services.errors import InvalidRequest, NotOffered, RequestTooLarge, ServiceError, UnknownCustomer
from services.explanation import explanations
from services.model_registry import Model, ModelRegistry

BATCH_LIMIT = 10_000
EXPLAINED_BATCH_LIMIT = 1_000
SUMMARY_FIELDS = (
    "recency",
    "frequency",
    "monetary_value",
    "tenure",
    "avg_order_value",
    "days_between_purchases",
    "total_orders",
)
"""Any of these in a request means that the caller describes a customer instead of naming one."""
USED_FIELDS = ("customer_id",)


class PredictionService:
    """Answers by customer id."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def predict(self, request: Mapping[str, Any], explain: bool = False) -> dict[str, Any]:
        """The answer to one request, by the names that the API documents; explain adds `raw` and `explanation`.

        Raises InvalidRequest, NotOffered, UnknownCustomer, and what the registry raises.
        """
        customer_id = requested_id(request)
        model = self._registry.serving()
        position = int(model.snapshot.positions([customer_id])[0]) if _is_searchable(customer_id) else -1
        if position < 0:
            raise _unknown(customer_id, model)
        return _with_ignored(_answers(model, [position], explain)[0], request)

    def predict_batch(self, requests: Sequence[Any], explain: bool = False) -> dict[str, Any]:
        """The answers in the order of the requests; one that cannot be answered has `error` and `message` in its place.

        Each request is an id or an object. Raises RequestTooLarge, and what the registry raises.
        """
        _check_size(len(requests), explain)
        model = self._registry.serving()
        asked = [_as_request(request) for request in requests]
        found = [_id_or_error(request) for request in asked]
        ids = [one if isinstance(one, str) and _is_searchable(one) else "" for one in found]
        positions = [int(position) for position in model.snapshot.positions(ids)]
        known = [position for position in positions if position >= 0]
        answers = iter(_answers(model, known, explain))
        rows = [
            _with_ignored(next(answers), request) if position >= 0 else _row_error(request, one, model)
            for request, one, position in zip(asked, found, positions, strict=True)
        ]
        return {
            "predictions": rows,
            "model_type": model.bundle.content["serving"]["total"].get("name", "best"),
            "model_version": model.version,
            "total_predictions": len(rows),
            "successful": len(known),
            "failed": len(rows) - len(known),
            "timestamp": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        }


def _check_size(entries: int, explain: bool) -> None:
    if explain and entries > EXPLAINED_BATCH_LIMIT:
        raise RequestTooLarge(
            f"The batch has {entries:,} entries; at most {EXPLAINED_BATCH_LIMIT:,} are explained at once. Send several "
            "batches, leave out ?explain=true, or write the reasons of many customers to a file with "
            "python -m ml_pipeline.explain."
        )
    if entries > BATCH_LIMIT:
        raise RequestTooLarge(
            f"The batch has {entries:,} entries; at most {BATCH_LIMIT:,} are answered at once. "
            "Send several batches, or a file to POST /bulk/predict."
        )


def requested_id(request: Mapping[str, Any]) -> str:
    """The customer id of a request, as it is looked up. Raises InvalidRequest or NotOffered."""
    summary = [name for name in SUMMARY_FIELDS if name in request]
    if "transactions" in request and summary:
        raise InvalidRequest(
            f"transactions and {', '.join(summary)} were sent together; they are two ways to describe a customer. Send one."
        )
    described = ["transactions"] if "transactions" in request else summary
    if described:
        raise NotOffered(
            f"The request describes a customer by {', '.join(described)}; this version answers by customer_id only. "
            'Send {"customer_id": "12345"} of a customer whose purchases were in the training tables.'
        )
    return _id_of(request.get("customer_id"))


def _id_of(value: Any) -> str:
    if value is None:
        raise InvalidRequest('customer_id is missing. Send {"customer_id": "12345"}.')
    if not _is_text_or_number(value):
        raise InvalidRequest(f"customer_id is {_json_type(value)}; it must be a text or a number.")
    customer_id = canonical_id(value)
    if not customer_id:
        raise InvalidRequest('customer_id is empty. Send {"customer_id": "12345"}.')
    return customer_id


def _is_text_or_number(value: Any) -> bool:
    """A bool, which Python counts among the numbers, is none; nor is what JSON's 1e999 becomes."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _json_type(value: Any) -> str:
    if isinstance(value, float):
        return "not a finite number"
    if isinstance(value, bool):
        return "a boolean"
    return "a list" if isinstance(value, list) else "an object"


def _is_searchable(customer_id: str) -> bool:
    """Whether a snapshot could hold the id at all; very long ones are kept out of its fixed-width search."""
    return len(customer_id) <= MAX_ID_LENGTH


def _unknown(customer_id: str, model: Model) -> UnknownCustomer:
    return UnknownCustomer(
        f"There is no customer {customer_id[:40]!r} among the {model.snapshot.n_customers:,} known on {model.as_of.isoformat()}. "
        "Check the id, or train again on newer tables."
    )


def _as_request(entry: Any) -> Mapping[str, Any]:
    return entry if isinstance(entry, Mapping) else {"customer_id": entry}


def _id_or_error(request: Mapping[str, Any]) -> str | ServiceError:
    try:
        return requested_id(request)
    except InvalidRequest as problem:
        return problem


def _row_error(request: Mapping[str, Any], found: str | ServiceError, model: Model) -> dict[str, Any]:
    problem = found if isinstance(found, ServiceError) else _unknown(found, model)
    given = request.get("customer_id")
    row = {"customer_id": str(given)} if _is_text_or_number(given) else {}
    return {**row, "error": type(problem).__name__, "message": str(problem)}


def _with_ignored(answer: dict[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    ignored = [name for name in request if name not in USED_FIELDS]
    if ignored:
        answer["ignored_inputs"] = [{"field": name, "reason": _why_ignored(name)} for name in ignored]
    return answer


def _why_ignored(name: str) -> str:
    if name == "explain":
        return "Reasons are asked for in the address: POST /predict?explain=true."
    return "A known customer's prediction comes from the stored purchases alone."


def _answers(model: Model, positions: Sequence[int], explain: bool = False) -> list[dict[str, Any]]:
    snapshot = model.snapshot
    columns = {name: column.tolist() for name, column in snapshot.columns(positions).items()}
    names = ("total", *snapshot.targets, "other")
    shared = {
        "currency": snapshot.currency,
        "model_version": model.version,
        "model_info": {
            "trained_on": model.bundle.as_of.isoformat(),
            "num_features": len(model.bundle.features),
        },
        "as_of": snapshot.as_of.isoformat(),
        "horizon_days": HORIZON_DAYS,
    }
    raw = {name: own.tolist() for name, own in snapshot.raw(positions).items()} if explain else None
    explained = explanations(model, positions) if explain else None
    answers = []
    for row, customer_id in enumerate(snapshot.customer_ids(positions)):
        answer = {
            "customer_id": customer_id,
            "predicted_30d_spend": {name: columns[f"predicted_{name}_spend"][row] for name in names},
            **shared,
            "purchase_probability_30d": columns["purchase_probability_30d"][row],
            "intervals": {
                name: {
                    "lower": columns[f"predicted_{name}_spend_lower"][row],
                    "upper": columns[f"predicted_{name}_spend_upper"][row],
                }
                for name in names
            },
            "segment": columns["segment"][row],
            "cold_start": columns["cold_start"][row],
            "cold_start_reason": columns["cold_start_reason"][row],
            "extrapolated": columns["extrapolated"][row],
        }
        if answer["extrapolated"]:
            answer["extrapolated_features"] = _outside(model, positions[row])
        if raw is not None and explained is not None:
            answer["raw"] = {name: _or_none(own[row]) for name, own in raw.items()}
            answer["explanation"] = explained[row]
        answers.append(answer)
    return answers


def _outside(model: Model, position: int) -> list[dict[str, Any]]:
    """The features of a customer that lie farthest outside of what was trained on."""
    from ml_pipeline.guardrails import TrainedRanges

    bundle = model.bundle
    ranges = TrainedRanges.from_json(bundle.content["ranges"], bundle.features, bundle.targets)
    return ranges.farthest(model.snapshot.features([position])[0])


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
