"""The shapes of the models' versions and of going back to one; as in messages.py."""

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from routes.messages import Message

BUNDLE, EARLIER = "20260101-0acbf31858e5", "20251201-5d2c81f0aa17"


class HeadlineFigure(Message):
    served: float | None
    best_rule: float | None = Field(description="Of the best simple rule on the same rows.")


class HeadlineFigures(Message):
    """Of the total, on the windows that nothing was chosen by; GET /model/performance has all of what serves."""

    served: str
    best_rule: str
    capped_r2: HeadlineFigure
    d2: HeadlineFigure
    normalised_gini: HeadlineFigure


class SnapshotFacts(Message):
    snapshot: str
    as_of: str | None = Field(description="The first of the days that are predicted.")
    customers: int | None
    size_bytes: int
    serving: bool


class ModelVersion(Message):
    bundle: str
    as_of: str | None = Field(
        description="The day it was trained as of; null where only its name is known: its files are gone."
    )
    created: str | None = Field(description="When its files were written on this host.")
    profile: str | None
    algorithm: str | None
    serving: bool = Field(description="Whether the process that answers has it answer requests.")
    previous: int | None = Field(description="1 for the one that a rollback goes to, 2 for the one before, and so on.")
    snapshots: list[SnapshotFacts] = Field(description="Made by it, the latest first.")
    pinned_by: int | None = Field(description="Jobs that are tied to it; null while the job table is away.")
    size_bytes: int = Field(description="With its snapshots.")
    metrics: HeadlineFigures | None
    refused: str | None = Field(
        description="Why it cannot serve, as far as is known; null if nothing stands against it."
    )


class ModelVersions(Message):
    model_version: str | None = Field(description="What answers requests now.")
    snapshot: str | None
    generation: int | None = Field(description="How often the model that serves was changed here.")
    versions: list[ModelVersion]


class RollbackRequest(Message):
    """Without a bundle, or without a body: to the one that served before."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        openapi_extra={  # type: ignore[typeddict-unknown-key]
            "required": False,
            "examples": {
                "previous": {"summary": "The one before", "value": {}},
                "named": {"summary": "A bundle of GET /model/versions", "value": {"bundle": EARLIER}},
            },
        },
    )
    bundle: str | None = Field(None, description="Any bundle of GET /model/versions that has a snapshot.")

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_an_empty_object(cls, value: Any) -> Any:
        return {} if value is None else value


class RollbackAnswer(Message):
    model_config = ConfigDict(
        protected_namespaces=(),
        json_schema_extra={
            "example": {
                "model_version": EARLIER,
                "snapshot": "20251201-9b1e0c77d2f3",
                "as_of": "2025-12-01",
                "previous_model_version": BUNDLE,
                "generation": 8,
            }
        },
    )
    model_version: str
    snapshot: str
    as_of: str
    previous_model_version: str
    generation: int
