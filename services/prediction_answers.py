"""Predictions of customers whose purchases are known, stored or sent, shaped as the API documents them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from ml_pipeline.schema import HORIZON_DAYS
from services.explanation import explanations
from services.model_registry import Model

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Columns = Mapping[str, "npt.NDArray[Any]"]


def stored_answers(model: Model, positions: Sequence[int], explain: bool = False) -> list[dict[str, Any]]:
    """The answers at these rows of the snapshot; explain adds `raw` and `explanation`. Raises what `explanations` does."""
    snapshot = model.snapshot
    answers = list(
        shaped_answers(
            model,
            snapshot.customer_ids(positions),
            [snapshot.as_of] * len(positions),
            snapshot.columns(positions),
            lambda row: snapshot.features([positions[row]])[0],
        )
    )
    if explain:
        add_reasons(answers, snapshot.raw(positions), explanations(model, positions))
    return answers


def shaped_answers(
    model: Model,
    customer_ids: Sequence[str | None],
    as_ofs: Sequence[date],
    shown: Columns,
    features_of: "Callable[[int], npt.NDArray[np.float32]]",
) -> Iterator[dict[str, Any]]:
    """One answer per customer. shown: as `snapshot.shown_columns`; features_of: a row's features (F,)."""
    columns = {name: column.tolist() for name, column in shown.items()}
    names = ("total", *model.bundle.targets, "other")
    shared = {
        "currency": model.bundle.currency,
        "model_version": model.version,
        "model_info": {
            "trained_on": model.bundle.as_of.isoformat(),
            "num_features": len(model.bundle.features),
        },
    }
    for row, (customer_id, as_of) in enumerate(zip(customer_ids, as_ofs, strict=True)):
        answer = {
            "customer_id": customer_id,
            "predicted_30d_spend": {name: columns[f"predicted_{name}_spend"][row] for name in names},
            **shared,
            "as_of": as_of.isoformat(),
            "horizon_days": HORIZON_DAYS,
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
            answer["extrapolated_features"] = _outside(model, features_of(row))
        yield answer


def add_reasons(answers: Sequence[dict[str, Any]], raw: Columns, explained: Sequence[dict[str, Any]]) -> None:
    """Adds `raw`, each money booster's own number, and `explanation`. raw: (n,) by booster."""
    own = {name: numbers.tolist() for name, numbers in raw.items()}
    for row, (answer, explanation) in enumerate(zip(answers, explained, strict=True)):
        answer["raw"] = {name: _or_none(numbers[row]) for name, numbers in own.items()}
        answer["explanation"] = explanation


def _outside(model: Model, features: "npt.NDArray[np.float32]") -> list[dict[str, Any]]:
    """The features of a customer (F,) that lie farthest outside of what was trained on."""
    from ml_pipeline.guardrails import TrainedRanges

    bundle = model.bundle
    return TrainedRanges.from_json(bundle.content["ranges"], bundle.features, bundle.targets).farthest(features)


def _or_none(number: float) -> float | None:
    return number if math.isfinite(number) else None
