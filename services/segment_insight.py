"""What stands out in many customers together, and what to do first: a list, a segment, everyone, or a finished bulk job."""

from collections.abc import Mapping
from typing import Any

from ml_pipeline.schema import HORIZON_DAYS
from services.bulk_service import BulkService, Caller
from services.errors import InvalidRequest, NoCustomers
from services.insight_facts import GroupFacts
from services.insights import Insights
from services.job_results import check_has_result
from services.job_table import BULK
from services.model_registry import ModelRegistry
from services.sum_service import Chosen, chosen_customers, told_unknown

WAYS = ("customer_ids", "segment", "job_id", "all")
EXAMPLE = (
    'Send one of {"customer_ids": ["12345", "67890"]}, {"segment": "High Value"}, {"job_id": "…"} of a finished bulk job, '
    'and {"all": true}'
)
LONGEST_SHOWN = 40  # of a value or a name, in characters
MOST_SHOWN = 10


class SegmentInsights:
    """Insights into groups of known customers."""

    def __init__(self, registry: ModelRegistry, bulk: BulkService, insights: Insights) -> None:
        self._registry = registry
        self._bulk = bulk
        self._insights = insights

    def of(self, request: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """The answer to one request, by the names that the API documents.

        Raises InvalidRequest, RequestTooLarge, NoCustomers, what the registry raises, and of a job UnknownJob, JobNotFinished,
        JobFailed and JobCancelled.
        """
        _check_ways(request)
        if "job_id" in request:
            return self._of_job(_job_id(request["job_id"]), caller)
        return self._of_chosen(chosen_customers(request))

    def _of_job(self, job_id: str, caller: Caller) -> dict[str, Any]:
        """By what is kept with the job: of the pair that it was done with."""
        job = self._bulk.status(job_id, caller)
        if job.kind != BULK:
            raise InvalidRequest(f"Job {job_id} is no bulk prediction, so there are no customers in it. {EXAMPLE}.")
        check_has_result(job)
        found = job.statistics or {}
        if "flags" not in found:
            raise InvalidRequest(
                f"Job {job_id} was completed by an earlier version, which kept too little of it. Send its file again to POST "
                "/bulk/predict."
            )
        if not found["distinct_customers"]:
            raise NoCustomers(
                f"None of the {found['rows']:,} rows of job {job_id} names a customer whom the model knew, so there is nothing "
                f"to say. GET /bulk/download/{job_id} has the reason of each row."
            )
        return {**self._answer(found), "job_id": job_id}

    def _of_chosen(self, chosen: Chosen) -> dict[str, Any]:
        from ml_pipeline.file_statistics import statistics_of

        model = self._registry.serving()
        positions, unknown = chosen.found_in(model)
        if not len(positions):
            raise _nobody(chosen, unknown_count=len(unknown))
        found = statistics_of(model.snapshot, model.bundle.content, positions, len(positions), 0)
        return {**self._answer(found), "unknown_ids": told_unknown(unknown)}

    def _answer(self, found: Mapping[str, Any]) -> dict[str, Any]:
        facts = GroupFacts.from_statistics(found)
        return {
            "customers": facts.customers,
            "predicted_30d_spend": {
                "total": found["total_predicted_spend"],
                **{name: one["predicted_spend"] for name, one in found["per_target"].items()},
            },
            "intervals": {
                "total": {"lower": facts.lower, "upper": facts.upper},
                **{name: {"lower": one["lower"], "upper": one["upper"]} for name, one in found["per_target"].items()},
            },
            "expected_buyers": facts.buyers,
            "mean_purchase_probability_30d": facts.mean_probability,
            "segments": {name: one["customers"] for name, one in found["per_segment"].items()},
            "flags": {name: one["customers"] for name, one in found["flags"].items()},
            **self._insights.of_group(facts).as_json(),
            "facts": {name: fact for name, fact in facts.as_json().items() if fact is not None},
            "currency": facts.currency,
            "model_version": found["model_version"],
            "as_of": facts.as_of,
            "horizon_days": HORIZON_DAYS,
        }


def _check_ways(request: Mapping[str, Any]) -> None:
    """Raises InvalidRequest when it is not clear of whom something is to be said."""
    unknown = [str(name)[:LONGEST_SHOWN] for name in request if name not in WAYS]
    if unknown:
        raise InvalidRequest(f"{', '.join(unknown[:MOST_SHOWN])}: an insight knows no such field. {EXAMPLE}.")
    if not request:
        raise InvalidRequest(f"The body names nobody. {EXAMPLE}.")
    if len(request) > 1:
        raise InvalidRequest(f"{' and '.join(request)} were sent together; an insight is into one group. {EXAMPLE}.")
    if "all" in request and request["all"] is not True:
        raise InvalidRequest(f"all can only be true. {EXAMPLE}.")
    if request.get("customer_ids") == []:
        raise InvalidRequest(f"customer_ids is an empty list. {EXAMPLE}.")


def _job_id(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"job_id must be the text that POST /bulk/predict answered with. {EXAMPLE}.")
    return value.strip()


def _nobody(chosen: Chosen, unknown_count: int) -> NoCustomers:
    if chosen.ids is not None:
        return NoCustomers(
            f"The model knows none of the {unknown_count:,} distinct ids in customer_ids, so there is nothing to say. Check "
            "the ids, or train again on newer tables."
        )
    who = f"in the segment {chosen.segment}" if chosen.segment is not None else "in the served snapshot"
    return NoCustomers(f"There is no customer {who}, so there is nothing to say. POST /predict/sum answers with 0.")
