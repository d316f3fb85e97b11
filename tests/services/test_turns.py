"""Trainings take turns: of all workers on all hosts one at a time, in the order in which they were asked for."""

from functools import partial

import pytest

from services.errors import LeaseLost, NothingToRetry, TooManyJobs
from services.job_table import (
    DATA_REFRESH,
    REFRESH,
    SAMPLE,
    SAMPLE_DATA,
    TRAIN,
    TRAINING,
    NewJob,
)
from services.step_store import StepStore, WaitingSteps
from tests.services.job_tables import LEASE_SECONDS, MAX_ATTEMPTS, Clock, new_job
from tests.services.test_step_store import at_once


def new_training(**facts: object) -> NewJob:
    return NewJob(**{"kind": TRAINING, "owner": "local", "request_id": "r", "first_step": TRAIN, **facts})


def new_refresh() -> NewJob:
    return NewJob(DATA_REFRESH, "local", "r", REFRESH)


def asked(bench, *new: NewJob) -> list[str]:
    """The ids of these jobs, asked for one after the other."""
    ids = []
    for one in new:
        ids.append(bench.store.add(one).job_id)
        bench.clock.ahead += 0.01
    return ids


def test_a_training_waits_for_the_one_under_way_and_is_then_the_next(bench):
    first, second, refresh = asked(bench, new_training(), new_training(), new_refresh())
    lease = bench.claim(first, "w1")[2]
    assert bench.steps.claim(second, "w2") is None
    assert bench.steps.claim(refresh, "w2") is None
    assert bench.steps.next_in_turn() is None
    bench.steps.complete(lease, None, {"bundle": "b"})
    assert bench.store.get(first).result_key is None
    assert bench.steps.next_in_turn() == WaitingSteps(second, TRAIN, 1)
    assert bench.steps.claim(refresh, "w2") is None  # asked for later
    bench.steps.complete(bench.claim(second, "w2")[2], None)
    assert bench.claim(refresh, "w2")[1].kind == REFRESH


def test_what_has_no_turn_to_wait_for_does_not_wait(bench):
    bench.claim(asked(bench, new_training())[0])
    sample, bulk = asked(bench, NewJob(SAMPLE_DATA, "local", "r", SAMPLE), new_job())
    assert bench.claim(sample)[1].kind == SAMPLE
    assert bench.claim(bulk)[1].kind == "read"


@pytest.mark.parametrize("end", ["cancel", "fail", "lose", "delete the one that waits"])
def test_however_a_training_ends_the_next_has_its_turn(bench, end):
    first, second, third = asked(bench, new_training(), new_training(), new_training())
    lease = bench.claim(first)[2]
    if end == "cancel":
        bench.store.cancel(first)
    elif end == "fail":
        bench.steps.fail(lease, "NotEnoughHistory", "why")
    elif end == "lose":
        for _ in range(MAX_ATTEMPTS - 1):
            bench.lose_worker()
            assert bench.steps.claim(second, "w2") is None  # the one that was begun goes on first
            bench.claim(first, "w2")
        bench.lose_worker()
        assert bench.store.get(first).error_name == "WorkersLost"
    else:
        bench.store.delete(second)
        bench.steps.complete(lease, None)
        second = third
    assert bench.steps.next_in_turn() == WaitingSteps(second, TRAIN, 1)
    assert bench.claim(second)[1].kind == TRAIN


def test_a_lease_that_ran_out_holds_the_turn_until_it_is_taken_back(bench):
    first, second = asked(bench, new_training(), new_training())
    bench.claim(first)
    bench.clock.ahead += LEASE_SECONDS + 1
    assert bench.steps.claim(second, "w2") is None


def test_one_that_is_put_off_lets_others_go_first(bench):
    first, second = asked(bench, new_training(), new_training())
    bench.steps.postpone(bench.claim(first)[2], 60, "ObjectStoreUnavailable", "why")
    assert bench.claim(second)[1].kind == TRAIN


def test_of_many_workers_at_once_that_claim_different_trainings_one_gets_one(bench):
    for _ in range(6):
        ids = asked(bench, *[new_training() for _ in range(4)])
        claimed = at_once(*[lambda job_id=job_id: bench.steps.claim(job_id, "w") for job_id in ids * 2])
        leases = [one[2] for one in claimed if one is not None]
        assert [lease.job_id for lease in leases] == [ids[0]]
        for job_id in ids:
            bench.store.cancel(job_id)


def test_two_that_both_believe_it_is_their_turn_cannot_both_win(bench):
    """One was put off, and is due by the clock of one worker and not yet by the other's: the order says yes to both."""
    fast = Clock(bench.clock._reads)
    for _ in range(8):
        first, second = asked(bench, new_training(), new_training())
        bench.steps.postpone(bench.claim(first)[2], 60, "ObjectStoreUnavailable", "why")
        fast.ahead = bench.clock.ahead + 61
        of_the_fast = StepStore(fast, LEASE_SECONDS, MAX_ATTEMPTS)
        claims = [partial(of_the_fast.claim, first, "w1"), partial(bench.steps.claim, second, "w2")]
        assert len([one for one in at_once(*claims) if one is not None]) == 1
        for job_id in (first, second):
            bench.store.cancel(job_id)


def test_a_training_that_waits_for_its_turn_is_no_lost_message(bench):
    first, second, third = asked(bench, new_training(), new_training(), new_training())
    for job_id in (first, second, third):
        bench.steps.mark_enqueued(job_id, TRAIN)
    lease = bench.claim(first)[2]
    bench.clock.ahead += 10
    assert bench.steps.waiting(5) == []
    bench.steps.complete(lease, None)
    assert bench.steps.waiting(5) == [WaitingSteps(second, TRAIN, 1)]


# ---- progress


def test_progress_is_kept_as_it_was_said_and_begins_anew_with_a_retry(bench):
    (job_id,) = asked(bench, new_training())
    lease = bench.claim(job_id)[2]
    before = bench.store.get(job_id)
    assert before.progress is None
    bench.clock.ahead += 1
    bench.steps.note_progress(lease, {"phase": "backtest", "done": 3})
    job = bench.store.get(job_id)
    assert job.progress == {"phase": "backtest", "done": 3}
    assert job.updated_at > before.updated_at
    bench.steps.fail(lease, "TrainingCrashed", "why")
    assert bench.store.retry(job_id).progress is None
    assert bench.claim(job_id)[2].fence == lease.fence + 1


def test_whoever_lost_the_lease_notes_no_progress(bench):
    (job_id,) = asked(bench, new_training())
    lease = bench.claim(job_id)[2]
    bench.store.cancel(job_id)
    with pytest.raises(LeaseLost):
        bench.steps.note_progress(lease, {"phase": "backtest"})
    assert bench.store.get(job_id).progress is None


# ---- the caller's side


def test_trainings_of_all_kinds_count_together_and_files_apart(bench):
    asked(bench, new_training(), new_refresh())
    assert (bench.store.open_jobs("local", SAMPLE_DATA), bench.store.open_jobs("local", "bulk_predict")) == (2, 0)
    with pytest.raises(TooManyJobs, match="2 of your jobs"):
        bench.store.add(new_training(), limit=2)
    bench.store.add(new_job(), limit=1)


def test_a_completed_training_has_nothing_to_try_again(bench):
    (job_id,) = asked(bench, new_training())
    bench.steps.complete(bench.claim(job_id)[2], None)
    with pytest.raises(NothingToRetry, match="Ask for a new one"):
        bench.store.retry(job_id)


def test_jobs_of_several_kinds_are_found_and_listed_together(bench):
    training, bulk = asked(bench, new_training(), new_job())
    assert bench.store.find(training, "local", "bulk_predict", TRAINING).job_id == training
    assert [job.job_id for job in bench.store.page("local", [TRAINING, "bulk_predict"], None, 10)] == [bulk, training]
    assert [job.job_id for job in bench.store.page("local", [TRAINING], None, 10)] == [training]
