"""The shapes of requests and answers of trainings, sample tables and data refreshes; as in messages.py."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from routes.bulk_messages import JobFacts, JobTimes, Status
from routes.messages import Message
from services.training_service import (
    DEFAULT_CUSTOMERS,
    DEFAULT_SEED,
    LARGEST_SEED,
    LEAST_CUSTOMERS,
    LEAST_SAMPLES,
    MOST_CUSTOMERS,
    MOST_SAMPLES,
    RefreshOptions,
    SampleOptions,
    TrainingOptions,
)

TrainingKind = Literal["train", "generate_sample_data", "refresh_data"]
JOB = "6b1f0c2de5a94c7f8d3a1b2c3d4e5f60"


# ---- asking for one


class TrainPath(Message):
    model_type: Literal["xgboost", "lightgbm", "random_forest", "bg_nbd", "all"] = Field(
        description="Whose models are learned, for all targets; they stand beside the simple rules. `all`: the contest of all."
    )


class TrainQuery(Message):
    n_samples: int | None = Field(
        None,
        ge=LEAST_SAMPLES,
        le=MOST_SAMPLES,
        description="Learn from so many customers, drawn by a fixed seed; from all when left out.",
    )
    profile: Literal["quick", "full"] = Field(
        "quick", description="How much work: about a minute on the sample tables, or several."
    )
    promote: Literal["better", "always", "never"] = Field(
        "better", description="Whether the new model serves: if it beats the one that does on the same windows."
    )

    def options(self, model_type: str) -> TrainingOptions:
        """As the services know them."""
        return TrainingOptions(model_type, self.n_samples, self.profile, self.promote)


class SampleQuery(Message):
    n_customers: int = Field(DEFAULT_CUSTOMERS, ge=LEAST_CUSTOMERS, le=MOST_CUSTOMERS)
    seed: int = Field(
        DEFAULT_SEED, ge=0, le=LARGEST_SEED, description="The same number of customers and seed give the same tables."
    )

    @property
    def options(self) -> SampleOptions:
        """As the services know them."""
        return SampleOptions(self.n_customers, self.seed)


class RefreshQuery(Message):
    force: bool = Field(False, description="Also where the tables end before those that serve: `as_of` then goes back.")

    @property
    def options(self) -> RefreshOptions:
        """As the services know them."""
        return RefreshOptions(self.force)


class TrainingMetadata(Message):
    """What was asked for; of each kind of job its own options."""

    model_config = ConfigDict(protected_namespaces=())
    model_type: str | None = None
    n_samples: int | None = None
    profile: str | None = None
    promote: str | None = None
    n_customers: int | None = None
    seed: int | None = None
    force: bool | None = None


class TrainingStarted(Message):
    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "job_id": JOB,
                "kind": "train",
                "status": "queued",
                "metadata": {"model_type": "xgboost", "n_samples": 1000, "profile": "quick", "promote": "better"},
                "message": "The job is in the queue.",
                "check_status_url": f"/bulk/status/{JOB}",
                "events_url": f"/bulk/events/{JOB}",
                "cancel_url": f"/bulk/cancel/{JOB}",
            }
        }
    )
    job_id: str
    kind: TrainingKind
    status: Status
    metadata: TrainingMetadata
    message: str
    check_status_url: str
    events_url: str
    cancel_url: str
    download_url: str | None = Field(None, description="Of sample tables: the zip, once the job is completed.")


# ---- watching it


class TrainingProgress(Message):
    """Counted in steps of the phase under way."""

    total: int | None = Field(description="Steps of the phase; null where it does not know them.")
    processed: int
    successful: int
    failed: int
    percentage: float = Field(description="Of the whole job, roughly; at most 99.9 before it is completed.")
    phase: str = Field(
        description="queued, starting, then as the command calls it (read tables, clean, features, backtest, summary model, "
        "final models, bundle and snapshot, contest; refresh; sample tables, zip; publish), done; of a failed or cancelled job the one it "
        "had come to."
    )
    doing: str = Field(
        description="What of it, for example which model for which target; empty where there is nothing to say."
    )
    eta_seconds: float | None = Field(
        description="0 when the job has ended, null before: how long it takes is not known well enough."
    )


class TrainingStatistics(Message):
    """What has come of it. Of a training: bundle, snapshot, promoted, reason, serving, as_of, contest, metrics. Of a data
    refresh: bundle, snapshot, as_of, previous_as_of, customers, promoted. Of sample tables: customers, files, rows."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())
    bundle: str | None = Field(None, description="The model that was trained, or that describes the customers anew.")
    snapshot: str | None = None
    promoted: bool | None = Field(None, description="Whether it serves from here on.")
    reason: str | None = Field(None, description="Why it serves, or why not.")
    serving: str | None = Field(None, description="The model that serves since.")
    as_of: str | None = None
    previous_as_of: str | None = None
    contest: dict[str, Any] | None = Field(
        None, description="Both models on the same windows; null where none was held."
    )
    metrics: dict[str, Any] | None = Field(
        None, description="How good it was for the total on windows not seen before."
    )
    customers: int | None = None
    files: list[str] | None = Field(None, description="Of the archive, without its README.txt.")
    rows: dict[str, int] | None = Field(None, description="Of each table.")


class TrainingState(JobFacts):
    kind: TrainingKind
    progress: TrainingProgress


class TrainingStatus(JobTimes, TrainingState):
    """A training, sample tables or a data refresh."""

    metadata: TrainingMetadata
    statistics: TrainingStatistics | None = None
