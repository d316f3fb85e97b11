"""The shapes of requests and answers about a customer's value and insights; as in messages.py."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from routes.messages import CustomerId, IgnoredInput, Interval, Message, Money, UnknownIds
from services.archetypes import ARCHETYPES
from services.insights import SOURCES
from services.summary_fields import SIX_FEATURES, SummaryField

Source = Annotated[str, WithJsonSchema({"type": "string", "enum": list(SOURCES)})]
NAMES = [one.name for one in SIX_FEATURES]


def _schema_of(feature: SummaryField) -> dict[str, Any]:
    kind = feature.kind
    assert kind is not None, "all six are numbers"
    return {
        "type": "integer" if kind.whole else "number",
        "minimum": 0,
        "maximum": kind.most,
        "description": feature.meaning,
    }


SIX: dict[str, Any] = {
    "anyOf": [
        {
            "type": "array",
            "prefixItems": [_schema_of(one) for one in SIX_FEATURES],
            "items": {"type": "number", "minimum": 0},
            "minItems": len(NAMES),
            "maxItems": len(NAMES),
            "description": f"In this order: {', '.join(NAMES)}.",
        },
        {
            "type": "object",
            "properties": {one.name: _schema_of(one) for one in SIX_FEATURES},
            "required": NAMES,
            "additionalProperties": False,
        },
    ]
}


# ---- one customer


class ValueRequest(Message):
    """A customer, known or not, by six numbers."""

    model_config = ConfigDict(
        extra="allow",
        protected_namespaces=(),
        json_schema_extra={"required": ["customer_id", "features"]},
        openapi_extra={  # type: ignore[typeddict-unknown-key]
            "examples": {
                "in_order": {
                    "summary": "Six numbers in order",
                    "value": {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]},
                },
                "by_name": {
                    "summary": "Six numbers by name",
                    "value": {
                        "customer_id": "13085",
                        "features": dict(zip(NAMES, (345.7, 49.3, 7, 12, 5, 4), strict=True)),
                    },
                },
            }
        },
    )
    customer_id: CustomerId = Field(
        default_factory=lambda: None, description="Any id, for the caller to know the answer by; nothing is looked up."
    )
    features: Annotated[Any, WithJsonSchema(SIX)] = Field(default_factory=lambda: None)


class ValueAnswer(Message):
    customer_id: str
    predicted_future_spend_30d: float = Field(description="Money of the next 30 days, by the summary model.")
    purchase_probability_30d: float = Field(
        description="A rule of thumb, not a model: 0.6 × max(0, 1 − recency_days / 45) + 0.4 × min(num_transactions / 10, 1), "
        "from 0.05 to 0.95."
    )
    customer_segment: str = Field(
        description="Low Value, Medium Value or High Value, by quantiles of the predictions of the customers that were "
        "learned from (GET /model/info has them as `segments`)."
    )
    insight: str
    recommended_action: str
    insight_source: Source = Field(description="Who worded it; numbers do not depend on it.")
    archetype: Annotated[str, WithJsonSchema({"type": "string", "enum": list(ARCHETYPES)})] = Field(
        description="What kind of customer this is, beside the shop's own; docs/customer_value.md has the rules."
    )
    interval: Interval = Field(description="80 % interval of the predicted spend.")
    currency: str
    horizon_days: int
    model_version: str
    model_used: str = Field(description="The part of the summary model, or the simple rule, that the spend comes from.")
    extrapolated: bool = Field(description="True where an input lies outside of what was trained on.")
    warnings: list[str] = Field(description="What did not fit together, and what was used.")
    ignored_inputs: list[IgnoredInput] | None = None


# ---- a group


class GroupRequest(Message):
    """Exactly one of the four."""

    model_config = ConfigDict(
        extra="allow",  # a field that is not known is named by the service
        protected_namespaces=(),
        json_schema_extra={"additionalProperties": False, "minProperties": 1, "maxProperties": 1},
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
            {
                "type": "array",
                "items": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                "minItems": 1,
                "maxItems": 100_000,
            }
        ),
    ] = Field(default_factory=lambda: None, description="Ids; each customer counts once, however often he is listed.")
    segment: Annotated[Any, WithJsonSchema({"type": "string", "enum": ["Low Value", "Medium Value", "High Value"]})] = (
        Field(default_factory=lambda: None, description="All customers of this segment.")
    )
    job_id: Annotated[Any, WithJsonSchema({"type": "string", "minLength": 1})] = Field(
        default_factory=lambda: None, description="The customers of a completed bulk job of yours."
    )
    all: Annotated[Any, WithJsonSchema({"type": "boolean", "const": True})] = Field(
        default_factory=lambda: None, description="Everyone whom the model knows."
    )


class GroupAnswer(Message):
    customers: int = Field(description="How many distinct customers it is about.")
    unknown_ids: UnknownIds | None = Field(None, description="Not of a job.")
    job_id: str | None = Field(None, description="Of a job.")
    predicted_30d_spend: Money = Field(
        description="total, each target and other; exact sums of the customers' cents, as POST /predict/sum has them."
    )
    intervals: dict[str, Interval] = Field(description="80 %, of the sums.")
    expected_buyers: float = Field(
        description="How many will buy at all: the sum of their probabilities, by the model."
    )
    mean_purchase_probability_30d: float
    segments: dict[str, int] = Field(description="Customers per segment.")
    flags: dict[str, int] = Field(description="Customers per flag; docs/bulk_lists.md says what each means.")
    insight: str
    recommended_action: str
    insight_source: Source
    facts: dict[str, Any] = Field(description="All that the insight was worded from; it states no other number.")
    currency: str
    model_version: str = Field(description="Of a job the one that it was done with.")
    as_of: str = Field(description="The first of the days that are predicted.")
    horizon_days: Literal[30]
