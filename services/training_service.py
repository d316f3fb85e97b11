"""Trainings, sample tables and data refreshes as a caller asks for them; what a worker does is in training_jobs.py.

The jobs are watched, cancelled, tried again and deleted as all others (bulk_service.py).
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from services.bulk_service import Caller, checked_same
from services.dispatcher import Dispatcher
from services.errors import InvalidRequest
from services.job_store import JobStore
from services.job_table import DATA_REFRESH, REFRESH, SAMPLE, SAMPLE_DATA, TRAIN, TRAINING, Job, NewJob

log = logging.getLogger(__name__)

MODEL_TYPES = ("xgboost", "lightgbm", "random_forest", "bg_nbd", "all")
PROFILES = ("quick", "full")
PROMOTIONS = ("better", "always", "never")
LEAST_SAMPLES, MOST_SAMPLES = 100, 10_000_000
LEAST_CUSTOMERS, MOST_CUSTOMERS = 1, 200_000
"""Of sample tables: the most make an archive of a few hundred MB."""
DEFAULT_CUSTOMERS = 7_500
DEFAULT_SEED = 20_240_101
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True)
class TrainingOptions:
    """What is learned. n_samples: from so many customers, drawn by a fixed seed; None: all. promote: whether the new model
    serves: if it is `better` than the one that does on the same windows, `always`, or `never`."""

    model_type: str = "all"
    n_samples: int | None = None
    profile: str = "quick"
    promote: str = "better"

    def check(self) -> None:
        """Raises InvalidRequest."""
        _check_choice("model_type", self.model_type, MODEL_TYPES)
        _check_choice("profile", self.profile, PROFILES)
        _check_choice("promote", self.promote, PROMOTIONS)
        if self.n_samples is not None:
            _check_number("n_samples", self.n_samples, LEAST_SAMPLES, MOST_SAMPLES)


@dataclass(frozen=True)
class SampleOptions:
    """Which sample tables: the same number and seed give the same ones."""

    n_customers: int = DEFAULT_CUSTOMERS
    seed: int = DEFAULT_SEED

    def check(self) -> None:
        """Raises InvalidRequest."""
        _check_number("n_customers", self.n_customers, LEAST_CUSTOMERS, MOST_CUSTOMERS)
        _check_number("seed", self.seed, 0, LARGEST_SEED)


@dataclass(frozen=True)
class RefreshOptions:
    """force: also where the tables end before those that serve, so that `as_of` goes back."""

    force: bool = False

    def check(self) -> None:
        """Nothing of it can be wrong."""


Options = TrainingOptions | SampleOptions | RefreshOptions
KIND_OF: Mapping[type[Options], tuple[str, str]] = {
    TrainingOptions: (TRAINING, TRAIN),
    SampleOptions: (SAMPLE_DATA, SAMPLE),
    RefreshOptions: (DATA_REFRESH, REFRESH),
}
"""The kind of the job for what is asked, and of its one step."""


class TrainingService:
    """Records jobs of the kinds TRAINING, SAMPLE_DATA and DATA_REFRESH."""

    def __init__(self, store: JobStore, dispatcher: Dispatcher, jobs_per_caller: int) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._jobs_per_caller = jobs_per_caller

    def start(self, options: Options, caller: Caller, idempotency_key: str | None = None) -> Job:
        """Records a job for what is asked and queues it. The same key and options once more give the job that there is.

        Raises InvalidRequest, TooManyJobs, IdempotencyConflict; a queue that is away only delays the job.
        """
        options.check()
        kind, step = KIND_OF[type(options)]
        digest = _digest(kind, options) if idempotency_key is not None else None
        new = NewJob(
            kind,
            caller.owner,
            caller.request_id,
            step,
            parameters={**asdict(options), "digest": digest},
            metadata=asdict(options),
            idempotency_key=idempotency_key,
        )
        job = self._store.add(new, self._jobs_per_caller)
        if job.job_id != new.job_id:
            return checked_same(job, digest)
        log.info("job recorded", extra={"job_id": job.job_id, "kind": kind, **asdict(options)})
        self._dispatcher.send(job.job_id, step)
        return self._store.get(job.job_id)


def _digest(kind: str, options: Options) -> str:
    """Of all that was said: two requests of one digest ask for the same."""
    return hashlib.sha256(json.dumps([kind, asdict(options)], sort_keys=True).encode()).hexdigest()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidRequest(f"{name} is {value[:60]!r}; it must be one of {', '.join(choices)}.")


def _check_number(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{name} is {value}; it must be a whole number from {low:,} to {high:,}.")
