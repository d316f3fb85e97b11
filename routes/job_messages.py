"""A job of whatever kind, in the shape of its kind; as in messages.py."""

from typing import Annotated

from pydantic import Field, RootModel

from routes.bulk_messages import JobState, JobStatus
from routes.messages import Message
from routes.training_messages import TrainingState, TrainingStatus


class AnyJobState(RootModel[Annotated[JobState | TrainingState, Field(discriminator="kind")]]):
    """What changes of a job while it goes on; `kind` says which shape it has."""


class AnyJobStatus(RootModel[Annotated[JobStatus | TrainingStatus, Field(discriminator="kind")]]):
    """All that is told of a job; `kind` says which shape it has."""


class JobList(Message):
    jobs: list[AnyJobStatus]
    count: int = Field(description="How many jobs this page has.")
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
