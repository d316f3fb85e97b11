import json

import pytest

from services.bulk_service import Caller
from services.errors import InvalidRequest, JobCancelled, JobNotFinished, NoCustomers, RequestTooLarge, UnknownJob
from services.job_table import TRAIN, TRAINING, NewJob
from services.sum_service import IDS_LIMIT
from tests.conftest import CUSTOMERS

SOME = list(CUSTOMERS[:20])


def file_of(ids) -> str:
    return "customer_id\n" + "".join(f"{one}\n" for one in ids)


@pytest.fixture
def finished(upload, run_queue):
    def finish(ids):
        job = upload(file_of(ids))
        run_queue()
        return job.job_id

    return finish


@pytest.mark.parametrize("way", [{"customer_ids": SOME}, {"segment": "high value"}, {"all": True}])
def test_a_groups_figures_are_those_of_its_sum(services, local, way):
    found, together = services.insights.of(way, local), services.sums.sum(way)
    for name in (
        "customers",
        "predicted_30d_spend",
        "intervals",
        "expected_buyers",
        "unknown_ids",
        "currency",
        "as_of",
    ):
        assert found[name] == together[name], name
    assert found["mean_purchase_probability_30d"] == round(together["expected_buyers"] / together["customers"], 4)
    assert sum(found["segments"].values()) == found["customers"]
    assert found["insight_source"] == "rules"
    assert found["insight"].startswith(f"{found['customers']} customers are predicted to spend ")


def test_a_job_is_told_by_the_statistics_that_are_kept_with_it(services, local, finished):
    """Those of the pair that it was done with, whatever serves by now."""
    job_id = finished([*SOME, *SOME, "nobody"])
    found = services.insights.of({"job_id": job_id}, local)
    named = services.insights.of({"customer_ids": SOME}, local)
    kept = services.bulk.status(job_id, local).statistics
    assert (found["job_id"], found["customers"]) == (job_id, kept["distinct_customers"])
    assert found["predicted_30d_spend"]["total"] == kept["total_predicted_spend"]
    assert found["flags"] == {name: one["customers"] for name, one in kept["flags"].items()}
    assert "unknown_ids" not in found
    assert {**found, "job_id": None} == {**{k: v for k, v in named.items() if k != "unknown_ids"}, "job_id": None}


def test_the_same_group_is_always_told_the_same(services, local):
    answers = [services.insights.of({"customer_ids": ids}, local) for ids in (SOME, SOME[::-1], SOME * 3)]
    assert answers[0] == answers[1] == answers[2]


def test_nobodys_id_is_among_the_facts_or_in_the_words(services, local):
    found = services.insights.of({"all": True}, local)
    told = json.dumps([found["facts"], found["insight"], found["recommended_action"]])
    assert not any(customer in told for customer in CUSTOMERS)
    json.dumps(found, allow_nan=False)


def test_whom_the_model_does_not_know_is_counted(services, local):
    found = services.insights.of({"customer_ids": [*SOME[:3], "x", "y", "x"]}, local)
    assert (found["customers"], found["unknown_ids"]) == (3, {"count": 2, "first": ["x", "y"]})


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({}, "The body names nobody"),
        ({"segment": "High Value", "all": True}, "segment and all were sent together"),
        ({"customer_ids": ["1"], "job_id": "a"}, "customer_ids and job_id were sent together"),
        ({"store": "S1"}, "store: an insight knows no such field"),
        ({"all": False}, "all can only be true"),
        ({"customer_ids": []}, "customer_ids is an empty list"),
        ({"customer_ids": "12345"}, "customer_ids must be a list"),
        ({"customer_ids": [None]}, "is null"),
        ({"segment": "VIP"}, "segment is 'VIP'; it must be one of Low Value"),
        ({"job_id": 7}, "job_id must be the text"),
        ({"job_id": " "}, "job_id must be the text"),
        ({"job_id": None}, "job_id must be the text"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_words(services, local, request_body, said):
    with pytest.raises(InvalidRequest) as caught:
        services.insights.of(request_body, local)
    assert said in str(caught.value)


def test_too_long_a_list_is_refused(services, local):
    with pytest.raises(RequestTooLarge):
        services.insights.of({"customer_ids": ["C1"] * (IDS_LIMIT + 1)}, local)


def test_of_nobody_there_is_nothing_to_say(services, local, finished):
    with pytest.raises(NoCustomers, match="knows none of the 2 distinct ids"):
        services.insights.of({"customer_ids": ["nobody", "nothing"]}, local)
    with pytest.raises(NoCustomers, match="None of the 2 rows of job"):
        services.insights.of({"job_id": finished(["nobody", "nothing"])}, local)


def test_a_job_that_is_not_finished_or_not_the_callers_has_no_insight(services, local, upload):
    job = upload(file_of(SOME))
    with pytest.raises(JobNotFinished):
        services.insights.of({"job_id": job.job_id}, local)
    for job_id, caller in ((job.job_id, Caller("anonymous", "request-2")), ("0" * 32, local), ("\0", local)):
        with pytest.raises(UnknownJob):
            services.insights.of({"job_id": job_id}, caller)
    services.bulk.cancel(job.job_id, local)
    with pytest.raises(JobCancelled):
        services.insights.of({"job_id": job.job_id}, local)


def test_a_job_that_is_no_file_of_customers_has_none(services, local):
    training = services.store.add(NewJob(TRAINING, local.owner, local.request_id, TRAIN), 10)
    with pytest.raises(InvalidRequest, match="is no bulk prediction"):
        services.insights.of({"job_id": training.job_id}, local)
