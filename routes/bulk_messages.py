"""The shapes of requests and answers of bulk jobs; as in messages.py."""

import re
from pathlib import Path
from typing import Annotated, Literal

from flask_openapi3 import FileStorage
from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from werkzeug.datastructures import FileStorage as WerkzeugFileStorage

from ml_pipeline.customer_flags import FLAGS
from ml_pipeline.snapshot import SEGMENTS
from routes.messages import Message, Money
from services.errors import InvalidRequest, MissingFile
from services.uploads import LONGEST_KEY
from services.webhooks import URL_LENGTH

Status = Literal["queued", "processing", "completed", "failed", "cancelled"]
Kind = Literal["bulk_predict", "train", "generate_sample_data", "refresh_data"]
Format = Literal["csv", "xlsx", "parquet"]
KEY_PATTERN = f"^[ -~]{{1,{LONGEST_KEY}}}$"
EVENT_NUMBER = "[0-9]{1,15}"


def _checked_key(key: str) -> str:
    if not re.fullmatch(KEY_PATTERN[1:-1], key):
        raise PydanticCustomError("idempotency_key", f"1 to {LONGEST_KEY} printable ASCII characters are needed here")
    return key


# ---- files in


class UploadForm(Message):
    model_config = ConfigDict(json_schema_extra={"required": ["file"]})
    file: FileStorage = Field(  # type: ignore[assignment]
        default_factory=lambda: None,
        description="CSV (also .csv.gz), XLSX, XLS or Parquet with one header row and a customer id per row.",
    )

    def received(self) -> tuple[Path, str]:
        """Where the uploaded file is on disk, and its name. Raises MissingFile."""
        if not isinstance(self.file, WerkzeugFileStorage) or not self.file.filename:
            raise MissingFile(
                "The form has no file in a part called file. Send one, for example: "
                "curl -F file=@customers.csv http://127.0.0.1:5000/bulk/predict"
            )
        return Path(self.file.stream.name), self.file.filename


class PreviewQuery(Message):
    sheet: str | None = Field(
        None, max_length=200, description="The name of the worksheet to read; the first one when left out."
    )


class UploadQuery(PreviewQuery):
    webhook_url: str | None = Field(
        None,
        max_length=URL_LENGTH,
        description="Called with a signed POST when the job has ended; see docs/bulk_api.md.",
    )
    high_value_over: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Above how much predicted money a customer is flagged high_value; the bundle's own threshold when left out.",
    )


class UploadHeaders(Message):
    idempotency_key: Annotated[str | None, AfterValidator(lambda key: key if key is None else _checked_key(key))] = (
        Field(
            None,
            alias="Idempotency-Key",
            description=f"1 to {LONGEST_KEY} printable ASCII characters. The same key with the same file and options is the same job.",
            json_schema_extra={"pattern": KEY_PATTERN},
        )
    )


class TemplateQuery(Message):
    format: Literal["csv", "xlsx"] = "csv"


class FileMetadata(Message):
    """What is known of a file and how it is read; null where its format has no such thing, or where it is not known yet."""

    filename: str
    file_size_bytes: int
    file_size_mb: float
    total_rows: int | None
    total_customers: int | None = Field(description="Distinct ids that are not empty.")
    columns: list[str] | None
    has_duplicates: bool | None
    metadata_status: Literal["complete", "pending"] = Field(
        description="pending: the file is large, and what is null is filled in when it is read."
    )
    format: str = Field(description="csv, xlsx, xls or parquet.")
    compression: str | None = Field(None, description="gzip, of a .csv.gz.")
    id_column: str | None = Field(description="The column that is taken for the customer ids.")
    id_column_found_by: Literal["name", "position"] | None
    delimiter: str | None = None
    quote: str | None = None
    encoding: str | None = None
    decimal: str | None = Field(None, description="The sign before decimals: a dot or a comma.")
    sheet: str | None = Field(None, description="The worksheet that is read.")
    sheets: list[str] | None = Field(None, description="All worksheets of the workbook.")


class UnknownRows(Message):
    count: int = Field(description="How many distinct ids the model does not know.")
    first: list[str] = Field(description="The first ten of them.")
    of_rows: int = Field(description="How many rows name them.")


class PreviewAnswer(FileMetadata):
    """What would be read from a file; nothing is kept and no job is started."""

    checked_rows: int = Field(description="How many rows were looked at: of a file over 20 MB only the first 50,000.")
    duplicate_rows: int = Field(description="Rows that name a customer who is named above already.")
    empty_ids: int = Field(description="Rows without an id; they fail.")
    unknown_ids: UnknownRows | None = Field(description="null where no model serves.")
    first_rows: list[list[str]] = Field(description="The first five rows, as they are read.")
    warnings: list[str] = Field(description="What to look at before the file is sent, in sentences.")


class UploadAnswer(Message):
    job_id: str
    status: Status
    metadata: FileMetadata
    message: str
    estimated_time_seconds: int
    check_status_url: str
    download_url: str
    events_url: str
    cancel_url: str


# ---- jobs


class JobPath(Message):
    job_id: str


class JobsQuery(Message):
    status: Status | None = None
    kind: Kind | None = Field(None, description="Only jobs of this kind; all when left out.")
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = Field(
        None, max_length=500, description="`next_cursor` of the page before; the newest jobs when left out."
    )


class JobProgress(Message):
    """Counted in rows of the file."""

    total: int | None = Field(description="null until a large file has been read to its end.")
    processed: int
    successful: int
    failed: int
    percentage: float = Field(
        description="processed of total: 0 while the total is unknown, at most 99.9 before the job is completed."
    )
    phase: Literal["queued", "reading", "scoring", "writing", "done"] = Field(
        description="Reading and scoring overlap; of a failed or cancelled job the phase that it had come to."
    )
    rows_read: int = Field(description="Rows that were seen in the file so far; ahead of `processed`.")
    rows_per_second: float | None = Field(
        description="Rows scored per second, of late; over the whole job when it has ended; null before the first."
    )
    eta_seconds: float | None = Field(
        description="Time left, writing included: 0 when the job has ended, null while it cannot be known yet."
    )


class TargetSum(Message):
    predicted_spend: float
    lower: float
    upper: float


class SegmentSum(TargetSum):
    customers: int
    per_target: Money


class FlagSum(Message):
    definition: str
    customers: int
    predicted_spend: float
    customers_per_target: dict[str, int] | None = None


class ListedCustomer(Message):
    customer_id: str
    predicted_total_spend: float
    lower: float
    upper: float
    predicted_spend: Money | None = Field(None, description="Each target and other.")
    purchase_probability_30d: float
    segment: str
    flags: list[str]
    loyal_category: str | None = None
    cross_sell_category: str | None = None


class Statistics(Message):
    """Money over distinct customers, however often each is in the file; null where no id was known."""

    total_predicted_spend: float
    total_predicted_spend_lower: float | None = Field(None, description="80 % interval of the total; of the sum.")
    total_predicted_spend_upper: float | None = None
    per_target: dict[str, TargetSum] | None = Field(
        None, description="Each target and other; they add up to the total."
    )
    average_predicted_spend: float | None
    min_predicted_spend: float | None
    max_predicted_spend: float | None
    horizon_days: int | None = None
    expected_buyers: float | None = Field(None, description="How many will buy at all: the sum of their probabilities.")
    per_segment: dict[str, SegmentSum] | None = None
    flags: dict[str, FlagSum] | None = None
    top_customers: list[ListedCustomer] | None = Field(None, description="The ten with the highest predicted total.")
    currency: str
    rows: int
    rows_failed: int
    distinct_customers: int
    model_version: str
    as_of: str


class WebhookState(Message):
    url: str
    status: Literal["waiting", "delivered", "given_up"]
    attempts: int = Field(description="How often it was tried to tell it of the end of the job.")
    message: str | None = Field(None, description="Why the last attempt that failed did.")


class JobFacts(Message):
    """What every kind of job tells while it goes on."""

    job_id: str
    status: Status
    download_url: str | None = Field(None, description="Of a completed job that has made a file.")
    error: str | None = Field(None, description="Of a failed job: the name of what went wrong.")
    message: str | None = Field(None, description="Of a failed job: what went wrong, and the way out.")


class JobTimes(Message):
    """What every kind of job tells besides."""

    created_at: str
    updated_at: str
    completed_at: str | None = Field(None, description="When the job ended, however it ended.")
    processing_time_seconds: float | None = None
    expires_at: str | None = Field(None, description="Of a job that has ended: when it is deleted with its files.")
    events_url: str | None = None
    cancel_url: str | None = Field(None, description="Of a job that is queued or processing.")
    retry_url: str | None = Field(None, description="Of a job that failed or was cancelled.")


class JobState(JobFacts):
    kind: Literal["bulk_predict"]
    progress: JobProgress


class JobStatus(JobTimes, JobState):
    """A file of customers."""

    metadata: FileMetadata
    statistics: Statistics | None = None
    webhook: WebhookState | None = Field(None, description="Of a job that was uploaded with a webhook_url.")
    partial_url: str | None = Field(None, description="What is done so far, of a job without a result.")


class DeleteAnswer(Message):
    job_id: str
    deleted: bool
    message: str


# ---- results


class DownloadQuery(Message):
    format: Format | None = Field(
        None, description="The format of the upload when left out; another one is made on the first request."
    )
    partial: bool = Field(
        False, description="What is done so far, in the format of the upload; of a completed job all of it."
    )

    def check(self) -> None:
        """Raises InvalidRequest for two wishes that cannot both be had."""
        if self.partial and self.format is not None:
            raise InvalidRequest(
                f"The query has partial=true and format={self.format}; what is done so far is only there in the format "
                "of the upload. Leave out one of them."
            )


class ConversionAnswer(Message):
    job_id: str
    format: Format
    status: Literal["processing"]
    message: str


class CustomersQuery(Message):
    flag: str | None = Field(
        None, description="Only customers who have this flag.", json_schema_extra={"enum": list(FLAGS)}
    )
    segment: str | None = Field(
        None, description="Only customers of this segment.", json_schema_extra={"enum": list(SEGMENTS)}
    )
    limit: int = Field(100, ge=1, le=1000)
    offset: int = Field(0, ge=0, le=1_000_000_000)


class CustomersAnswer(Message):
    model_config = ConfigDict(extra="allow", protected_namespaces=())
    total: int = Field(description="How many customers there are on all pages.")
    limit: int
    offset: int
    customers: list[ListedCustomer] = Field(description="The highest predicted total first.")


# ---- events


class LastEventHeaders(Message):
    last_event_id: str | None = Field(
        None,
        alias="Last-Event-ID",
        description="The id of the last event that was seen; browsers send it when they connect again.",
    )

    def seen(self) -> int:
        """The number of the event; 0 for what is no id of ours, since no stream shall end on it."""
        text = self.last_event_id or ""
        return int(text) if re.fullmatch(EVENT_NUMBER, text) else 0
