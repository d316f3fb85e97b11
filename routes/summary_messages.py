"""The shapes of the summary way in: a customer told in a few numbers, and the answer."""

from typing import Annotated, Any

from pydantic import Field

from routes.messages import IgnoredInput, Interval, Message, Money
from services.summary_fields import COUNT, SummaryField
from services.summary_fields import TEXT as TEXT_KIND
from services.summary_requests import FIELDS

DOCUMENTED_SUMMARY: dict[str, Any] = {
    "customer_id": "CUST_001",
    "recency": 30,
    "frequency": 5,
    "monetary_value": 1500.0,
    "tenure": 180,
    "avg_order_value": 300.0,
    "days_between_purchases": 36.0,
    "total_orders": 5,
}
EIGHTEEN_FIELD_SUMMARY: dict[str, Any] = {
    "customer_id": "CUST_002",
    "total_spend": 5400.0,
    "total_transactions": 12,
    "avg_order_value": 450.0,
    "recency_days": 12,
    "tenure_days": 400,
    "spend_last_30d": 450.0,
    "spend_last_60d": 900.0,
    "spend_last_90d": 1350.0,
    "tx_last_30d": 1,
    "tx_last_60d": 2,
    "tx_last_90d": 3,
    "unique_products": 20,
    "unique_categories": 3,
    "dominant_category": "Grocery",
    "segment_id": "AR",
    "loyalty_status": "Gold",
    "total_loyalty_points": 540,
    "is_cold_start": False,
}
"""Examples for the documentation."""


def _schema(field: SummaryField) -> dict[str, Any]:
    if field.kind is TEXT_KIND:
        return {"anyOf": [{"type": "string"}, {"type": "null"}], "description": field.meaning}
    number = {"type": "integer" if field.kind is COUNT else "number", "minimum": 0, "maximum": field.kind.most}
    text = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?$", "maxLength": 9}
    return {
        "anyOf": [number, {**text, "pattern": r"^[0-9]+$"} if field.kind is COUNT else text, {"type": "null"}],
        "description": f"{field.meaning[0].upper()}{field.meaning[1:]}; null or absent where it is not known.",
    }


SUMMARY_PROPERTIES: dict[str, dict[str, Any]] = {field.name: _schema(field) for field in FIELDS}
"""JSON schema of each field of a summary, for shapes of requests that take them."""

Probability = Annotated[float, Field(ge=0, le=1)]


class OutsideFeature(Message):
    feature: str
    value: float | None = Field(description="null where it is missing, which it never was in training.")
    trained: list[float] = Field(description="The lowest and the highest value that was trained on.", min_length=2)


class SummaryAnswer(Message):
    """What a customer who is told in a few numbers will spend."""

    customer_id: str | None = Field(description="As it was sent; null where none was.")
    predicted_clv: float = Field(description="Expected spend over `horizon_days`; over 30 days `predicted_30d_spend`.")
    horizon_days: int = Field(description="30, 90 or 365.")
    predicted_30d_spend: Money = Field(description="`total`: the expected spend of the 30 days.")
    intervals: dict[str, Interval] = Field(description="`total`: where the spend of the 30 days lies in 80 % of cases.")
    currency: str
    model_version: str
    as_of: str = Field(description="The day that the serving model counts from; a summary counts back from now.")
    prediction_date: str = Field(description="The day on which this was answered, UTC.")
    model_used: str = Field(
        description="xgboost, lightgbm, bg_nbd, the simple rule that was best, or never_bought for 0 orders."
    )
    expected_purchases_next_30_days: float | None = Field(description="By BG/NBD; null where a warning says why.")
    expected_purchases_next_90_days: float | None
    expected_purchases_next_365_days: float | None
    purchase_probability_30d: Probability
    probability_alive: Probability | None = Field(
        description="That the customer still buys, by BG/NBD; 1 by definition after a single purchase."
    )
    churn_probability: Probability | None = Field(description="1 − `probability_alive`.")
    segment: str
    extrapolated: bool = Field(
        description="True where an input lies outside of what was trained on, or a prediction was cut at its cap."
    )
    extrapolated_features: list[OutsideFeature] | None = Field(
        None, description="Where extrapolated: the inputs farthest outside; empty where only the cap was reached."
    )
    cold_start: bool | None = Field(
        description="True with fewer than two orders; null where their number is not known."
    )
    cold_start_reason: str | None = Field(description="never_bought, one_purchase, or null.")
    warnings: list[str] = Field(description="What did not fit together and what was used; what could not be told.")
    ignored_inputs: list[IgnoredInput]
