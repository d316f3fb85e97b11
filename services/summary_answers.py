"""Predictions from summaries: the served spend, BG/NBD's outlook beside it, and the value over a longer horizon."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import InvalidRequest, ServiceError
from services.model_registry import Model
from services.summary_requests import SummaryRequest, read_summary

BEST, BG_NBD = "best", "bg_nbd"
MODEL_TYPES = ("xgboost", "lightgbm", BG_NBD, BEST)
HORIZONS = (30, 90, 365)


@dataclass(frozen=True)
class SummaryOptions:
    """Which model answers, and over how many days `predicted_clv` is; None: 365 for bg_nbd, 30 otherwise.

    Raises InvalidRequest for a type or a horizon that there is not.
    """

    model_type: str = BEST
    horizon_days: int | None = None

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise InvalidRequest(
                f"model_type is {str(self.model_type)[:40]!r}; there are {', '.join(MODEL_TYPES)}. Leave it out for best."
            )
        if self.horizon_days is not None and self.horizon_days not in HORIZONS:
            raise InvalidRequest(
                f"horizon_days is {str(self.horizon_days)[:40]}; it can be {', '.join(map(str, HORIZONS[:-1]))} or "
                f"{HORIZONS[-1]}. Leave it out for {HORIZONS[0]}, or for {HORIZONS[-1]} with model_type={BG_NBD}."
            )

    @property
    def days(self) -> int:
        """Over how many days `predicted_clv` is."""
        return self.horizon_days or (HORIZONS[-1] if self.model_type == BG_NBD else HORIZONS[0])


DEFAULT_OPTIONS = SummaryOptions()


def summary_answers(
    model: Model, requests: Sequence[Mapping[str, Any]], options: SummaryOptions = DEFAULT_OPTIONS
) -> list[dict[str, Any] | ServiceError]:
    """One answer per request, in their order; what cannot be answered is its error, in its place."""
    return described_answers(model, [_read(request) for request in requests], options)


def described_answers(
    model: Model, described: Sequence[SummaryRequest | ServiceError], options: SummaryOptions = DEFAULT_OPTIONS
) -> list[dict[str, Any] | ServiceError]:
    """As `summary_answers`, of summaries that were read; an error stays in its place."""
    raise NotImplementedError


def _read(request: Mapping[str, Any]) -> SummaryRequest | ServiceError:
    try:
        return read_summary(request)
    except ServiceError as problem:
        return problem
