import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from services.errors import LeaseLost
from services.job_table import CONVERT, NOTIFY, READ, SCORE, WRITE, Lease, Worker
from services.step_store import NOTIFY_ATTEMPTS, WaitingSteps
from tests.services.job_tables import LEASE_SECONDS, new_conversion, new_job

WITH_WEBHOOK = {"parameters": {"webhook_url": "https://hooks.example.com/x"}}


def at_once(*actions: Callable[[], object]) -> list[object]:
    """Runs all of them at the same moment; their answers, and the errors that they raised, in no order."""
    answers: list[object] = []
    start = threading.Barrier(len(actions))

    def act(action: Callable[[], object]) -> None:
        start.wait()
        try:
            answers.append(action())
        except LeaseLost as problem:
            answers.append(problem)

    threads = [threading.Thread(target=act, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# ---- claiming


def test_a_step_can_be_claimed_once(bench):
    job_id = bench.store.add(new_job()).job_id
    job, step, lease = bench.claim(job_id)
    assert (job.status, step.status, step.attempts, step.worker_id) == ("processing", "leased", 1, "w1")
    assert lease == Lease(job_id, READ, 0, "w1", 1)
    assert bench.steps.claim(job_id, "w2") is None
    assert bench.steps.claim("nothing-here", "w2") is None


def test_a_job_that_is_begun_has_changed_and_one_whose_next_chunk_is_taken_has_not(bench):
    job_id = bench.staged(1, 1)
    bench.store.cancel(job_id)
    queued = bench.store.retry(job_id)
    bench.clock.ahead += 5
    begun = bench.claim(job_id)[0]
    assert (begun.status, begun.updated_at > queued.updated_at) == ("processing", True)
    bench.clock.ahead += 5
    assert bench.claim(job_id)[0].updated_at == begun.updated_at


def test_of_many_workers_at_once_each_gets_another_chunk(bench):
    job_id = bench.staged(1, 1, 1)
    claimed = at_once(*[lambda: bench.steps.claim(job_id, "w") for _ in range(8)])
    numbers = sorted(one[2].number for one in claimed if one is not None)
    assert numbers == [1, 2, 3]


def test_chunks_are_scored_while_the_rest_is_still_read_and_the_result_is_written_when_all_is_there(bench):
    reading = bench.begun()
    job_id = reading.job_id
    bench.steps.stage(reading, 1, 0, 10, "k1")
    _job, step, first = bench.claim(job_id, "w2")
    assert (step.kind, step.number, step.first_row, step.rows, step.key) == (SCORE, 1, 0, 10, "k1")
    bench.steps.commit(first, "p1", 10)
    assert bench.steps.claim(job_id, "w2") is None  # all that is staged is scored, but not all is staged
    bench.steps.stage(reading, 2, 10, 3, "k2")
    bench.steps.finish_reading(reading, {"filename": "a.csv"}, 13)
    bench.steps.commit(bench.claim(job_id)[2], "p2", 1)
    _job, step, writing = bench.claim(job_id)
    assert step.kind == WRITE
    bench.steps.complete(writing, "result", {"rows": 13})
    job = bench.store.get(job_id)
    assert (job.status, job.result_key, job.statistics) == ("completed", "result", {"rows": 13})
    assert (job.rows_total, job.rows_processed, job.rows_successful, job.rows_failed) == (13, 13, 11, 2)
    assert bench.steps.claim(job_id, "w1") is None


def test_a_reading_that_ends_last_brings_the_writing_about(bench):
    reading = bench.begun()
    bench.steps.stage(reading, 1, 0, 10, "k1")
    bench.steps.commit(bench.claim(reading.job_id, "w2")[2], "p1", 10)
    bench.steps.finish_reading(reading, {}, 10)
    assert bench.claim(reading.job_id)[1].kind == WRITE


def test_two_workers_that_commit_the_last_two_chunks_at_once_leave_one_writing(bench):
    for _ in range(5):
        job_id = bench.staged(1, 1)
        first, second = bench.claim(job_id, "w1")[2], bench.claim(job_id, "w2")[2]
        at_once(lambda a=first: bench.steps.commit(a, "p1", 1), lambda b=second: bench.steps.commit(b, "p2", 1))
        assert bench.statuses(job_id)[WRITE, 0] == "waiting"
        assert bench.store.get(job_id).rows_processed == 2


def test_a_conversion_has_one_step(bench):
    conversion = bench.store.add(new_conversion(bench.completed(1)))
    _job, step, lease = bench.claim(conversion.job_id)
    assert step.kind == CONVERT
    bench.steps.complete(lease, "converted")
    assert bench.store.get(conversion.job_id).status == "completed"


# ---- leases


def test_a_heartbeat_keeps_the_lease_and_silence_loses_it(bench):
    lease = bench.begun()
    bench.clock.ahead = LEASE_SECONDS - 1
    bench.steps.renew(lease)
    bench.clock.ahead = 2 * LEASE_SECONDS - 2
    assert bench.steps.end_expired_leases() == []
    bench.clock.ahead = 2 * LEASE_SECONDS
    (step,) = bench.steps.end_expired_leases()
    assert (step.kind, step.attempts) == (READ, 1)
    assert bench.statuses(lease.job_id) == {(READ, 0): "waiting"}
    assert bench.store.get(lease.job_id).status == "processing"


def test_whoever_lost_the_lease_can_no_longer_change_anything(bench):
    old = bench.begun("w1")
    bench.lose_worker()
    new = bench.claim(old.job_id, "w1")[2]
    before = bench.store.get(old.job_id), bench.store.steps(old.job_id)
    for act in (
        lambda: bench.steps.renew(old),
        lambda: bench.steps.note_rows_read(old, 5),
        lambda: bench.steps.pin(old, "b", "s"),
        lambda: bench.steps.stage(old, 1, 0, 5, "k"),
        lambda: bench.steps.finish_reading(old, {}, 5),
        lambda: bench.steps.commit(old, "part-of-the-old", 5),
        lambda: bench.steps.complete(old, "key-of-the-old"),
        lambda: bench.steps.finish(old),
        lambda: bench.steps.postpone(old, 5, "Name", "message"),
        lambda: bench.steps.fail(old, "Name", "message"),
        lambda: bench.steps.give_back(old, "Name", "message"),
    ):
        with pytest.raises(LeaseLost):
            act()
    assert (bench.store.get(old.job_id), bench.store.steps(old.job_id)) == before
    bench.steps.stage(new, 1, 0, 5, "k")


def test_a_chunk_that_two_workers_have_done_counts_once(bench):
    job_id = bench.staged(10, 5)
    slow = bench.claim(job_id, "slow")[2]
    bench.lose_worker()
    quick = bench.claim(job_id, "quick")[2]
    assert quick.number == slow.number
    answers = at_once(
        lambda: bench.steps.commit(slow, "part-of-the-slow", 10),
        lambda: bench.steps.commit(quick, "part-of-the-quick", 10),
    )
    assert sum(isinstance(answer, LeaseLost) for answer in answers) == 1
    assert bench.store.get(job_id).rows_processed == 10
    assert next(step.key for step in bench.store.steps(job_id) if step.number == quick.number) == "part-of-the-quick"


def test_a_commit_that_is_repeated_counts_once(bench):
    job_id = bench.staged(10, 5)
    lease = bench.claim(job_id)[2]
    bench.steps.commit(lease, "p", 10)
    with pytest.raises(LeaseLost):
        bench.steps.commit(lease, "p", 10)
    assert bench.store.get(job_id).rows_processed == 10


def test_a_chunk_that_was_staged_before_stays_as_it_is(bench):
    reading = bench.begun()
    bench.steps.stage(reading, 1, 0, 10, "k1")
    bench.steps.commit(bench.claim(reading.job_id, "w2")[2], "p1", 10)
    bench.lose_worker()
    again = bench.claim(reading.job_id)[2]
    assert again.kind == READ
    bench.steps.stage(again, 1, 0, 10, "other")
    assert bench.statuses(reading.job_id)[SCORE, 1] == "done"


def test_a_deleted_job_is_a_lost_lease_for_its_worker(bench):
    job = bench.store.add(new_job())
    bench.store.delete(job.job_id)
    with pytest.raises(LeaseLost):
        bench.steps.renew(Lease(job.job_id, READ, 0, "w1", 1))


def test_rows_read_never_go_back(bench):
    reading = bench.begun()
    bench.steps.note_rows_read(reading, 700)
    bench.steps.note_rows_read(reading, 300)
    bench.steps.stage(reading, 1, 0, 500, "k1")
    assert bench.store.get(reading.job_id).rows_read == 700


def test_rows_that_are_staged_are_read(bench):
    reading = bench.begun()
    bench.steps.stage(reading, 1, 0, 500, "k1")
    bench.steps.stage(reading, 2, 500, 20, "k2")
    assert bench.store.get(reading.job_id).rows_read == 520


def test_a_pair_once_pinned_stays(bench):
    lease = bench.begun()
    bench.steps.pin(lease, "bundle-1", "snapshot-1")
    bench.lose_worker()
    job = bench.steps.pin(bench.claim(lease.job_id)[2], "bundle-2", "snapshot-2")
    assert (job.bundle_id, job.snapshot_id) == ("bundle-1", "snapshot-1")


# ---- what goes wrong


def test_after_the_last_attempt_a_lost_reading_ends_the_job_with_a_named_error(bench):
    lease = bench.begun()
    bench.lose_worker()
    bench.claim(lease.job_id)
    bench.lose_worker()
    job = bench.store.get(lease.job_id)
    assert (job.status, job.error_name) == ("failed", "WorkersLost")
    assert "begun 2 times" in job.error_message
    assert job.completed_at is not None


def test_a_chunk_that_loses_its_worker_every_time_is_given_up_alone(bench):
    job_id = bench.staged(10, 5)
    bench.steps.commit(bench.claim(job_id)[2], "p1", 10)
    for _ in range(2):
        assert bench.claim(job_id)[1].number == 2
        bench.lose_worker()
    (poison,) = [step for step in bench.store.steps(job_id) if step.number == 2]
    assert (poison.status, poison.error_name) == ("given_up", "ChunkGivenUp")
    assert "Rows 11 to 15 below the header" in poison.error_message
    job = bench.store.get(job_id)
    assert (job.status, job.rows_processed, job.rows_failed) == ("processing", 15, 5)
    assert bench.claim(job_id)[1].kind == WRITE


def test_a_step_given_back_is_tried_again_and_then_ends_the_job_with_the_error_given(bench):
    lease = bench.begun()
    assert bench.steps.give_back(lease, "JobCrashed", "why") == "waiting"
    assert bench.store.get(lease.job_id).error_name is None
    assert bench.steps.give_back(bench.claim(lease.job_id)[2], "JobCrashed", "why") == "given_up"
    job = bench.store.get(lease.job_id)
    assert (job.status, job.error_name) == ("failed", "JobCrashed")


def test_a_job_that_fails_takes_the_leases_of_all_its_chunks(bench):
    job_id = bench.staged(1, 1)
    first, second = bench.claim(job_id, "w1")[2], bench.claim(job_id, "w2")[2]
    bench.steps.fail(first, "StorageFull", "no space left")
    with pytest.raises(LeaseLost):
        bench.steps.commit(second, "p2", 1)
    job = bench.store.get(job_id)
    assert (job.status, job.error_name, job.rows_processed) == ("failed", "StorageFull", 0)


def test_a_worker_that_goes_in_good_order_gives_back_without_an_attempt_counted_also_for_its_processes(bench):
    job_id = bench.staged(1, 1, 1)
    mine, child, other = (bench.claim(job_id, name)[2] for name in ("host:1", "host:1/77", "host:12"))
    released = bench.steps.release_worker("host:1")
    assert {step.number for step in released} == {mine.number, child.number}
    steps = {step.number: step for step in bench.store.steps(job_id) if step.kind == SCORE}
    assert (steps[mine.number].status, steps[mine.number].attempts) == ("waiting", 0)
    assert steps[other.number].status == "leased"
    with pytest.raises(LeaseLost):
        bench.steps.commit(child, "p", 1)


def test_a_process_that_was_lost_gives_back_what_it_held_and_the_attempt_counts(bench):
    job_id = bench.staged(1)
    for _ in range(2):
        bench.claim(job_id, "host:1/77")
        assert len(bench.steps.release_process("host:1/77")) == 1
    assert bench.statuses(job_id)[SCORE, 1] == "given_up"


# ---- messages


def test_what_waits_without_a_message_or_with_an_old_one_is_found_and_what_was_just_sent_is_not(bench):
    job_id = bench.staged(1, 1)
    assert bench.steps.waiting(10) == []
    bench.clock.ahead = 3
    assert bench.steps.waiting(10) == [WaitingSteps(job_id, SCORE, 2)]
    bench.steps.mark_enqueued(job_id, SCORE)
    assert bench.steps.waiting(10) == []
    assert bench.steps.unsent(job_id) == []
    bench.claim(job_id)
    bench.clock.ahead = 14
    assert bench.steps.waiting(10) == [WaitingSteps(job_id, SCORE, 1)]
    bench.store.cancel(job_id)
    assert bench.steps.waiting(0) == []


def test_a_postponed_step_waits_for_its_time(bench):
    job_id = bench.completed(1, **WITH_WEBHOOK)
    lease = bench.claim(job_id)[2]
    bench.steps.postpone(lease, 60, "WebhookFailed", "status 500")
    assert bench.steps.claim(job_id, "w1") is None
    bench.clock.ahead = 59
    assert bench.steps.waiting(10) == []
    bench.clock.ahead = 61
    assert bench.steps.waiting(10) == [WaitingSteps(job_id, NOTIFY, 1)]
    _job, step, lease = bench.claim(job_id)
    assert (step.attempts, step.error_message) == (2, "status 500")


# ---- notifications


def test_the_end_of_a_job_with_a_webhook_is_to_be_told_whichever_end_it_is(bench):
    cancelled = bench.staged(1, **WITH_WEBHOOK)
    bench.store.cancel(cancelled)
    failed = bench.begun(**WITH_WEBHOOK)
    bench.steps.fail(failed, "UnreadableFile", "why")
    for job_id in (cancelled, failed.job_id, bench.completed(1, **WITH_WEBHOOK)):
        _job, step, lease = bench.claim(job_id)
        assert step.kind == NOTIFY
        bench.steps.finish(lease)
        assert bench.steps.claim(job_id, "w1") is None
        assert bench.store.get(job_id).status in ("cancelled", "failed", "completed")


def test_a_job_without_a_webhook_tells_nobody(bench):
    assert bench.steps.claim(bench.completed(1), "w1") is None


def test_a_notification_that_is_given_up_leaves_the_job_as_it_is(bench):
    job_id = bench.completed(1, **WITH_WEBHOOK)
    for _ in range(NOTIFY_ATTEMPTS):
        bench.steps.give_back(bench.claim(job_id)[2], "Crashed", "why")
    assert bench.store.get(job_id).status == "completed"
    assert bench.statuses(job_id)[NOTIFY, 0] == "given_up"


def test_who_told_of_an_end_before_a_retry_says_nothing_of_the_next_one(bench):
    job_id = bench.staged(1, **WITH_WEBHOOK)
    bench.store.cancel(job_id)
    first = bench.claim(job_id, "w1")[2]
    bench.store.retry(job_id)
    bench.store.cancel(job_id)
    second = bench.claim(job_id, "w2")[2]
    with pytest.raises(LeaseLost):
        bench.steps.finish(first)
    bench.steps.finish(second)


def test_a_worker_that_is_lost_between_refused_calls_does_not_end_the_notification(bench):
    job_id = bench.completed(1, **WITH_WEBHOOK)
    for _ in range(3):
        bench.steps.postpone(bench.claim(job_id)[2], 0, "NotDelivered", "503")
    bench.claim(job_id)
    bench.lose_worker()
    assert bench.statuses(job_id)[NOTIFY, 0] == "waiting"
    for _ in range(NOTIFY_ATTEMPTS - 4):
        bench.claim(job_id)
        bench.lose_worker()
    assert bench.statuses(job_id)[NOTIFY, 0] == "given_up"


# ---- workers


def test_workers_are_alive_for_as_long_as_they_are_heard_of(bench):
    worker = Worker("host:1", "host", 1, ["bulk"], 0, 0)
    bench.steps.heartbeat(worker)
    bench.clock.ahead = 10
    bench.steps.heartbeat(worker)
    assert [one.worker_id for one in bench.steps.live_workers(15)] == ["host:1"]
    bench.clock.ahead = 30
    assert bench.steps.live_workers(15) == []
    bench.steps.forget_silent_workers(5)
    bench.clock.ahead = 0
    assert bench.steps.live_workers(1000) == []


def test_a_worker_that_says_goodbye_is_forgotten(bench):
    bench.steps.heartbeat(Worker("host:1", "host", 1, ["bulk"], 0, 0))
    bench.steps.forget_worker("host:1")
    assert bench.steps.live_workers(15) == []


def test_messages_are_noted_while_chunks_are_claimed_and_committed(bench):
    """On Postgres, whoever locked steps before their job waited for one who locked the job before its steps."""
    chunks = 40
    job_id = bench.staged(*[1] * chunks)

    def work() -> None:
        while claimed := bench.steps.claim(job_id, "w"):
            if claimed[1].kind == SCORE:
                bench.steps.commit(claimed[2], "part", 1)

    def note() -> None:
        for _ in range(chunks):
            bench.steps.mark_enqueued(job_id, SCORE)

    assert at_once(work, work, note, note) == [None] * 4
    assert bench.store.get(job_id).rows_processed == chunks


def test_workers_go_and_steps_are_put_off_while_others_claim_them(bench):
    """Each as above, and whoever locked several jobs at once waited for another who locked them in another order."""
    job_ids = [bench.staged(*[1] * 10) for _ in range(3)]
    loops = range(15)

    def claim_and_put_off(worker: str, order: int) -> None:
        for _ in loops:
            for job_id in job_ids[::order]:
                if claimed := bench.steps.claim(job_id, worker):
                    with suppress(LeaseLost):
                        bench.steps.postpone(claimed[2], 0, "NotDelivered", "503")
                bench.steps.claim(job_id, worker)

    def go() -> None:
        for _ in loops:
            bench.steps.release_worker("w1")
            bench.steps.release_worker("w2")

    workers = [lambda w=w, o=o: claim_and_put_off(w, o) for w, o in (("w1", 1), ("w2", -1), ("w1", 1), ("w2", -1))]
    assert at_once(*workers, go, go) == [None] * 6
