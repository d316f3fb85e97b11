"""The shapes of predictions: three ways to describe a customer, the answers to them, and batches of any mixture."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, GetJsonSchemaHandler, RootModel, Tag, WithJsonSchema

from ml_pipeline.schema import AMOUNT_LIMIT, MAX_ID_LENGTH, QUANTITY_LIMIT
from routes.messages import CustomerId, IgnoredInput, Interval, Message, Money
from routes.summary_messages import (
    DOCUMENTED_SUMMARY,
    EIGHTEEN_FIELD_SUMMARY,
    SUMMARY_PROPERTIES,
    OutsideFeature,
    SummaryAnswer,
)
from services.history_lines import TRANSACTIONS_LIMIT
from services.prediction_service import BATCH_LIMIT
from services.summary_answers import HORIZONS, MODEL_TYPES, SummaryOptions

# ---- three ways to describe a customer


NUMERIC_TEXT = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$", "maxLength": 9}
DATE_TEXT = {"type": "string", "examples": ["2025-01-31", "2025-01-31 15:30:00", "31-01-2025 15:30", "2025/01/31"]}
ID_TEXT: dict[str, Any] = {
    "anyOf": [{"type": "string", "maxLength": MAX_ID_LENGTH}, {"type": "integer"}, {"type": "null"}]
}
CategoryText = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "null"}]})]
OptionalDate = Annotated[Any, WithJsonSchema({"anyOf": [DATE_TEXT, {"type": "null"}]})]
OptionalId = Annotated[Any, WithJsonSchema(ID_TEXT)]


def _number_schema(limit: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "number", "minimum": -limit, "maximum": limit}, NUMERIC_TEXT]}


class KnownCustomer(Message):
    """A customer whose purchases were in the tables."""

    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"additionalProperties": True})
    customer_id: CustomerId


class Summary(Message):
    """A customer told in a few numbers; any of them may be left out where it is not known, but not all."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "properties": {"customer_id": ID_TEXT, **SUMMARY_PROPERTIES},
            "anyOf": [{"required": [name]} for name in SUMMARY_PROPERTIES],
            "additionalProperties": True,
        },
    )


class RawTransaction(Message):
    """One line of a purchase or, with a negative amount or quantity, of a return."""

    transaction_date: Annotated[Any, WithJsonSchema(DATE_TEXT)] = Field(
        description="Date or date and time as a text. Day-first or month-first is decided once from all of the history."
    )
    amount: Annotated[Any, WithJsonSchema(_number_schema(AMOUNT_LIMIT))] = Field(
        description="Of the whole line, in the shop's currency."
    )
    category: CategoryText = Field(None, description="The product category as the shop writes it.")
    quantity: Annotated[
        Any, WithJsonSchema({"anyOf": [*_number_schema(QUANTITY_LIMIT)["anyOf"], {"type": "null"}]})
    ] = Field(None, description="1 where it is left out.")
    transaction_id: OptionalId = Field(None, description="Lines of one day with the same one are one transaction.")
    product_id: OptionalId = None
    store_id: OptionalId = None
    has_promotion: Annotated[Any, WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "null"}]})] = Field(
        None, description="null or absent where it is not known."
    )


class RawHistory(Message):
    """A customer told by all that he or she bought."""

    model_config = ConfigDict(protected_namespaces=(), json_schema_extra={"additionalProperties": True})
    transactions: list[RawTransaction] = Field(max_length=TRANSACTIONS_LIMIT)
    as_of: OptionalDate = Field(
        None,
        description="The first day that is predicted; transactions on or after it are refused. Default: the served one, or the "
        "day after the last transaction if that is later.",
    )
    customer_id: OptionalId = Field(None, description="Given back in the answer, and looked up nowhere.")
    customer_since: OptionalDate = Field(None, description="The day of registration, where it is known.")


WAYS = (KnownCustomer, Summary, RawHistory)
HISTORY_EXAMPLE: dict[str, Any] = {
    "customer_id": "NEW-1",
    "transactions": [
        {"transaction_date": "2025-11-03", "amount": 1250.0, "category": "Grocery", "quantity": 3},
        {"transaction_date": "2025-12-01 18:20:00", "amount": 8990.0, "category": "Electronics"},
        {"transaction_date": "2025-12-20", "amount": -1250.0, "category": "Grocery", "quantity": 3},
    ],
}


def _schemas_of_ways(handler: GetJsonSchemaHandler) -> list[dict[str, Any]]:
    return [handler(way.__pydantic_core_schema__) for way in WAYS]


class PredictRequest(RootModel[dict[str, Any]]):
    """A customer described in one of three ways; what is wrong with it is named by the service."""

    model_config = ConfigDict(
        openapi_extra={  # type: ignore[typeddict-unknown-key]
            "examples": {
                "known_customer": {"summary": "A known customer", "value": {"customer_id": "12345"}},
                "summary": {"summary": "A few numbers", "value": DOCUMENTED_SUMMARY},
                "eighteen_fields": {"summary": "The eighteen fields", "value": EIGHTEEN_FIELD_SUMMARY},
                "history": {"summary": "A raw history", "value": HISTORY_EXAMPLE},
            }
        },
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """An object of one of the three shapes."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema.pop("additionalProperties", None)
        schema.pop("type", None)
        schema["anyOf"] = _schemas_of_ways(handler)
        return reference


class BatchRequest(RootModel[list[Any]]):
    """Ids, or objects as for /predict, in any mixture."""

    model_config = ConfigDict(
        openapi_extra={  # type: ignore[typeddict-unknown-key]
            "examples": {
                "ids": {"summary": "Known customers", "value": ["12345", {"customer_id": "67890"}]},
                "mixture": {
                    "summary": "All three ways",
                    "value": ["12345", {"customer_id": "67890"}, DOCUMENTED_SUMMARY, HISTORY_EXAMPLE],
                },
            }
        },
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A list of ids and of objects of the three shapes."""
        reference = handler(core_schema)
        schema = handler.resolve_ref_schema(reference)
        schema["items"] = {"anyOf": [{"type": "string"}, {"type": "number"}, *_schemas_of_ways(handler)]}
        schema["maxItems"] = BATCH_LIMIT
        return reference


class BatchQuery(Message):
    explain: bool = Field(
        False,
        description="As for /predict, for at most 1,000 entries; more are answered with 413, RequestTooLarge.",
    )
    model_type: Annotated[str, WithJsonSchema({"type": "string", "enum": list(MODEL_TYPES)})] = Field(
        "best", description="Which model answers summaries. Known customers and histories get the best in any case."
    )
    horizon_days: Annotated[int | None, WithJsonSchema({"type": "integer", "enum": list(HORIZONS)})] = Field(
        default_factory=lambda: None,
        description="Over how many days `predicted_clv` of a summary is; left out: 365 for bg_nbd, 30 otherwise.",
    )

    @property
    def options(self) -> SummaryOptions:
        """Raises InvalidRequest for a model or a horizon that there is not."""
        return SummaryOptions(self.model_type, self.horizon_days)


class PredictQuery(BatchQuery):
    explain: bool = Field(
        False,
        description="Adds `explanation`: the reasons in money, and `raw`: each money booster's own number. Not of summaries.",
    )


# ---- answers


class ModelInfoShort(Message):
    trained_on: str = Field(
        description="The day it was trained as of: nothing on or after it was seen.", examples=["2026-01-01"]
    )
    num_features: int


class Reason(Message):
    theme: str = Field(
        description="Related facts told as one. `everything else` comes last and sums what has no reason of its own."
    )
    words: str = Field(description="The fact of the theme that moved the prediction most.")
    amount: float = Field(description="How far the theme moved the prediction up or down, in money.")
    features: list[str] = Field(description="The features that the theme sums, the strongest first.")


class Contribution(Message):
    feature: str
    value: float | None = Field(description="The customer's; null where it is unknown.")
    amount: float = Field(description="How far it moved the prediction, in money; each rounded on its own.")


class Account(Message):
    """baseline + the amounts of all reasons + adjustment = prediction, to the cent."""

    baseline: float = Field(
        description="Where every customer starts; of one who has not bought yet, what is predicted."
    )
    reasons: list[Reason] = Field(
        description="The strongest first: five, more where five would leave over a fifth unexplained; only amounts other than 0. "
        "Of one who has not bought yet a single one, of 0."
    )
    adjustment: float = Field(description="What belongs to no single feature.")
    prediction: float = Field(description="As in `predicted_30d_spend`.")
    contributions: list[Contribution] = Field(
        description="Every feature that moved the prediction by a cent or more, the strongest first."
    )


EXPLAINED: dict[str, Any] = {
    "baseline": 850.0,
    "reasons": [
        {
            "theme": "recent buying",
            "words": "bought twice in the last 30 days",
            "amount": 1240.0,
            "features": ["transaction_count_30d", "total_spend_30d"],
        },
        {
            "theme": "everything else",
            "words": "what is left of smaller reasons",
            "amount": -12.5,
            "features": ["return_rate"],
        },
    ],
    "adjustment": 0.0,
    "prediction": 2077.5,
    "contributions": [
        {"feature": "transaction_count_30d", "value": 2.0, "amount": 900.0},
        {"feature": "total_spend_30d", "value": 3410.0, "amount": 340.0},
        {"feature": "return_rate", "value": 0.05, "amount": -12.5},
    ],
}


class Explanation(Account):
    """Of the total; `by_target` has the same for each target and other. It explains the model, not causes."""

    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={"example": {"currency": "INR", **EXPLAINED, "by_target": {"other": EXPLAINED}}},
    )
    currency: str
    by_target: dict[str, Account]


class PredictionAnswer(Message):
    """Of a customer whose purchases are known: stored, or sent as a raw history."""

    customer_id: str | None = Field(description="null where a raw history was sent without one.")
    predicted_30d_spend: Money = Field(
        description="total, each target and other; the parts add up to the total to the cent.",
        examples=[{"total": 120.5, "electronics": 40.0, "grocery": 70.5, "sports": 0.0, "other": 10.0}],
    )
    currency: str
    model_version: str
    model_info: ModelInfoShort
    as_of: str = Field(description="The first of the days that are predicted.")
    horizon_days: int
    purchase_probability_30d: float
    intervals: dict[str, Interval]
    segment: str
    cold_start: bool = Field(description="True where fewer than two purchases are known.")
    cold_start_reason: Literal["never_bought", "one_purchase"] | None = None
    extrapolated: bool = Field(
        description="True where an input lies outside of what was trained on, or a prediction was cut at its cap."
    )
    extrapolated_features: list[OutsideFeature] | None = Field(
        None, description="Where extrapolated: the inputs farthest outside; empty where only the cap was reached."
    )
    raw: dict[str, float | None] | None = Field(None, description="With ?explain=true; null where there is no number.")
    explanation: Explanation | None = Field(None, description="With ?explain=true.")
    warnings: list[str] | None = Field(None, description="Of a raw history: how it was read where that is not certain.")
    ignored_inputs: list[IgnoredInput] | None = None


class RowError(Message):
    """In place of an answer: the entry cannot be answered."""

    customer_id: str | None = None
    error: str
    message: str


def _shape_of(content: Any) -> str:
    """Which shape an answer has: of what the service says, and of what was made of it."""
    if isinstance(content, Message):
        return {RowError: "error", SummaryAnswer: "summary"}.get(type(content), "prediction")
    return "error" if "error" in content else "summary" if "predicted_clv" in content else "prediction"


OfPurchases = Annotated[PredictionAnswer, Tag("prediction")]
OfSummary = Annotated[SummaryAnswer, Tag("summary")]


class PredictAnswer(RootModel[Annotated[OfPurchases | OfSummary, Discriminator(_shape_of)]]):
    """Of a customer whose purchases are known, or of one told in a few numbers."""


BatchRow = Annotated[OfPurchases | OfSummary | Annotated[RowError, Tag("error")], Discriminator(_shape_of)]


class BatchAnswer(Message):
    predictions: list[BatchRow] = Field(description="As /predict answers, or `error` and `message` in their place.")
    model_type: str = Field(
        description="What was asked for by ?model_type=, else what answers known customers and histories; `model_used` of a "
        "summary says which model answered it."
    )
    model_version: str
    total_predictions: int = Field(description="How many entries there are, failed ones included.")
    successful: int
    failed: int
    timestamp: str
