"""The shapes of requests and answers. The documentation is made from them, and every answer passes through its own."""

from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal

from flask import Response, current_app
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Money = dict[str, float]
CustomerId = Annotated[
    Any,
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "number"}], "examples": ["12345"]}),
]


class Message(BaseModel):
    """Base of all shapes; `model_version` and its like are ordinary fields."""

    model_config = ConfigDict(protected_namespaces=())

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """The schema; flask-openapi3 asks for the plain one on every request with a query, which must not cost."""
        return super().model_json_schema(*args, **kwargs) if args or kwargs else cls._plain_schema()

    @classmethod
    @cache
    def _plain_schema(cls) -> dict[str, Any]:
        return super().model_json_schema()

    def as_sent(self) -> dict[str, Any]:
        """The fields that were in the body."""
        return {name: value for name, value in self if name in self.model_fields_set}


class ErrorAnswer(Message):
    """The one shape of every error."""

    error: str = Field(description="The name of what is wrong.", examples=["UnknownCustomer"])
    message: str = Field(description="What is wrong, the value, and the way out.")


EVERYWHERE: dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None] = {
    400: ErrorAnswer,
    401: ErrorAnswer,
    500: ErrorAnswer,
}
"""Errors that any route may answer with."""


def answer(shape: type[BaseModel], content: Any, status: int = 200) -> Response:
    """The content as JSON of its documented shape; what was not set is left out."""
    body = shape.model_validate(content).model_dump_json(exclude_unset=True)
    return current_app.response_class(body, status=status, mimetype="application/json")


# ---- health


class Index(Message):
    name: str
    version: str
    docs: str
    openapi: str
    endpoints: dict[str, str] = Field(description="Method and path, and what is there.")


class Part(Message):
    status: Literal["ok", "degraded", "unavailable"]
    error: str | None = None
    message: str | None = None
    count: int | None = None
    queues: list[str] | None = None
    customers: int | None = None


class Health(Message):
    status: Literal["ok", "degraded", "unavailable"]
    degraded: list[str] = Field(description="The parts that do not answer.")
    version: str
    model_version: str | None = None
    as_of: str | None = Field(None, description="The first of the 30 days that are predicted.")
    as_of_age_days: int | None = None
    warnings: list[str] = []
    model: Part
    queue: Part
    workers: Part
    job_store: Part
    object_store: Part


class Live(Message):
    status: Literal["ok"]


class Ready(Message):
    status: Literal["ok", "degraded", "unavailable"]
    model_version: str | None = None
    as_of: str | None = None
    as_of_age_days: int | None = None
    warnings: list[str] = []
    customers: int | None = None
    error: str | None = None
    message: str | None = None


# ---- what several answers have


class Interval(Message):
    lower: float
    upper: float


class IgnoredInput(Message):
    field: str
    reason: str


# ---- sums over customers


class SumRequest(Message):
    """One of the three; an empty object means everyone."""

    model_config = ConfigDict(
        extra="allow",  # a field that is not known is named by the service
        protected_namespaces=(),
        json_schema_extra={"additionalProperties": False, "maxProperties": 1},
        openapi_extra={  # type: ignore[typeddict-unknown-key]
            "examples": {
                "segment": {"summary": "One segment", "value": {"segment": "High Value"}},
                "customers": {"summary": "A list of customers", "value": {"customer_ids": ["12345", "67890"]}},
                "everyone": {"summary": "Everyone", "value": {"all": True}},
            }
        },
    )
    customer_ids: Annotated[
        Any,
        WithJsonSchema(
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "number"}]}, "maxItems": 100_000}
        ),
    ] = Field(
        default_factory=lambda: None, description="Ids; each customer is counted once, however often he is listed."
    )
    segment: Annotated[Any, WithJsonSchema({"type": "string", "enum": ["Low Value", "Medium Value", "High Value"]})] = (
        Field(default_factory=lambda: None, description="All customers of this segment.")
    )
    all: Annotated[Any, WithJsonSchema({"type": "boolean", "const": True})] = Field(
        default_factory=lambda: None, description="Everyone whom the model knows."
    )


class UnknownIds(Message):
    count: int = Field(description="How many distinct ids the model does not know; they are not in the sum.")
    first: list[str] = Field(description="The first ten of them.")


class SumAnswer(Message):
    customers: int = Field(description="How many distinct customers the sum is over.")
    unknown_ids: UnknownIds
    currency: str
    model_version: str
    as_of: str = Field(description="The first of the days that are predicted.")
    horizon_days: int
    predicted_30d_spend: Money = Field(
        description="total, each target and other; exact sums of the customers' cents, so that the parts add up to the total.",
        examples=[{"total": 5120.5, "electronics": 2040.0, "grocery": 2570.5, "sports": 300.0, "other": 210.0}],
    )
    intervals: dict[str, Interval] = Field(
        description="Of the sum, not the sum of the customers' intervals; for one customer his own."
    )
    coverage: float = Field(description="How often what comes lies inside an interval.", examples=[0.8])
    expected_buyers: float = Field(
        description="How many of the customers will buy at all: the sum of their probabilities."
    )


# ---- models


class ModelInfo(Message):
    model_version: str
    snapshot: str
    as_of: str
    horizon_days: int | None
    currency: str
    spend: str | None
    targets: list[str]
    customers: int
    num_features: int
    features: list[str]
    trained_on: Any
    members: Any
    serving: Any
    segments: Any
    libraries: Any


class ModelPerformance(Message):
    """All that the model card says, as it was written when the bundle was trained; money in `currency`.

    What a bundle of an earlier version had not measured is left out.
    """

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    model_version: str
    as_of: str = Field(description="The day it was trained as of: nothing on or after it was seen.")
    horizon_days: int | None
    currency: str
    calibration_days: list[str] = Field([], description="First days of the windows that corrections learned from.")
    selection_days: list[str] = Field([], description="First days of the windows that chose what serves.")
    report_days: list[str] = Field([], description="First days of the windows that every figure is measured on.")
    purge_days: int | None = Field(None, description="Labels of training rows end so many days after their as_of.")
    selection_rule: str | None = None
    populations: dict[str, Any] | None = Field(None, description="Rows per population (all, active_90d) and window.")
    targets: dict[str, Any] = Field(
        description="Per target: what serves, the best simple rule, and every candidate's metrics."
    )
    verdicts: dict[str, str] | None = Field(
        None, description="Per target in a sentence: what serves, and whether it held up."
    )
    tried: dict[str, Any] | None = Field(
        None, description="Per target what lost, the best first, and how far it was behind on selection."
    )
    deciles: dict[str, Any] | None = Field(
        None, description="Per target, by tenth of prediction: mean predicted and mean actual spend."
    )
    categories_exceed_total: dict[str, Any] | None = Field(
        None, description="Share of customers whose categories say more than the total."
    )
    reconciliation: dict[str, Any] | None = Field(
        None, description="How total and categories are made to agree, and what that cost."
    )
    probability: dict[str, Any] | None = Field(
        None, description="Of buying at all: AUC, log loss, Brier score, and `reliability` by tenth."
    )
    intervals: dict[str, Any] | None = Field(
        None, description="Per target: share below and above the 80 % interval, overall and by tenth."
    )
    subgroups: dict[str, Any] | None = Field(
        None,
        description="Everyone, active, new, dormant, one purchase, each store region: the total beside the best rule.",
    )
    summary: dict[str, Any] | None = Field(
        None,
        description="What a few numbers alone tell: per form of request what serves and its figures; under `beside` those "
        "of the full model, the best simple rule and the rule of thumb on the same rows.",
    )
    leaks: dict[str, Any] | None = Field(
        None, description="What was checked so that nothing of the future was learned from."
    )
    data: dict[str, Any] | None = Field(
        None, description="First and last day of the data, and rows kept and set aside per table."
    )
    limits: list[str] | None = Field(None, description="What the bundle is known not to know, in sentences.")
    how_to_read: list[str] | None = Field(None, description="What the metrics mean, in sentences.")
    plots: dict[str, list[str]] | None = Field(None, description="Files of the plots, relative to the model card.")
