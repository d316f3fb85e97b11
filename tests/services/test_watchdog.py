import pytest

from services.database import open_engine
from services.dispatcher import Dispatcher
from services.job_table import SCORE, Worker
from services.watchdog import SETTLED_SECONDS, STALE_SECONDS, Watchdog
from tests.services.job_tables import LEASE_SECONDS, Bench, Clock, new_job


@pytest.fixture
def bench(tmp_path):
    clock = Clock(open_engine(f"sqlite:///{tmp_path / 'jobs.sqlite3'}"))
    yield Bench(clock, max_attempts=3)
    clock.close()


@pytest.fixture
def watchdog(bench, queue) -> Watchdog:
    return Watchdog(bench.steps, queue, Dispatcher(queue, bench.steps))


def test_a_step_whose_worker_fell_silent_is_sent_again_at_once(bench, watchdog, queue):
    lease = bench.begun()
    watchdog.sweep()
    assert queue.sent == []
    bench.clock.ahead = LEASE_SECONDS + 1
    watchdog.sweep()
    assert queue.sent == [("bulk", lease.job_id)]


def test_a_job_past_its_last_attempt_is_not_sent_again(bench, watchdog, queue):
    job_id = bench.store.add(new_job()).job_id
    for _ in range(3):
        bench.claim(job_id)
        bench.clock.ahead += LEASE_SECONDS + 1
        watchdog.sweep()
    assert len(queue.sent) == 2
    assert bench.store.get(job_id).error_name == "WorkersLost"


def test_what_an_emptied_queue_lost_is_sent_again_one_message_for_each_chunk(bench, watchdog, queue):
    job_id = bench.staged(1, 1, 1)
    bench.steps.mark_enqueued(job_id, SCORE)
    bench.clock.ahead = SETTLED_SECONDS - 1
    watchdog.sweep()
    assert queue.sent == []
    bench.clock.ahead = SETTLED_SECONDS + 1
    watchdog.sweep()
    watchdog.sweep()
    assert queue.sent == [("bulk", job_id)] * 3


def test_what_was_lost_is_noticed_while_other_messages_are_in_the_queue(bench, watchdog, queue):
    lost, other = bench.store.add(new_job()).job_id, bench.store.add(new_job()).job_id
    for job_id in (lost, other):
        bench.steps.mark_enqueued(job_id, "read")
    queue.sent.append(("bulk", other))
    bench.clock.ahead = SETTLED_SECONDS + 1
    watchdog.sweep()
    assert ("bulk", lost) in queue.sent


def test_what_waits_in_a_long_queue_is_not_sent_over_and_over(bench, watchdog, queue):
    job_id = bench.store.add(new_job()).job_id
    bench.steps.mark_enqueued(job_id, "read")
    queue.sent.append(("bulk", job_id))
    bench.clock.ahead = SETTLED_SECONDS + 1
    watchdog.sweep()
    assert len(queue.sent) == 1
    bench.clock.ahead = STALE_SECONDS + 1
    watchdog.sweep()
    watchdog.sweep()
    assert len(queue.sent) == 2


def test_a_queue_that_is_away_leaves_the_jobs_in_the_table_until_it_is_back(bench, watchdog, queue):
    job_id = bench.store.add(new_job()).job_id
    queue.away = True
    bench.clock.ahead = 100
    watchdog.sweep()
    assert bench.store.get(job_id).enqueued_at is None
    queue.away = False
    watchdog.sweep()
    assert queue.sent == [("bulk", job_id)]
    assert bench.store.get(job_id).enqueued_at is not None


def test_a_worker_that_goes_hands_its_steps_on_and_is_forgotten(bench, watchdog, queue):
    job_id = bench.staged(1, 1)
    watchdog.beat(Worker("w1", "host", 1, ["bulk"], 0, 0))
    bench.claim(job_id, "w1/5")
    queue.sent.clear()
    watchdog.release("w1")
    assert queue.sent == [("bulk", job_id)] * 2
    assert bench.steps.live_workers(100) == []
    assert bench.claim(job_id, "w2")[1].attempts == 1


def test_a_process_that_was_lost_hands_its_step_on_at_once(bench, watchdog, queue):
    lease = bench.begun("w1/5")
    watchdog.release_process("w1/5")
    assert queue.sent == [("bulk", lease.job_id)]
    assert bench.claim(lease.job_id, "w2")[1].attempts == 2


def test_tidying_forgets_the_silent_and_calls_everyone_else_who_tidies(bench, queue):
    calls = []

    class Broom:
        def tidy(self) -> None:
            calls.append("swept")

    watchdog = Watchdog(bench.steps, queue, Dispatcher(queue, bench.steps), [Broom()])
    watchdog.beat(Worker("w1", "host", 1, ["bulk"], 0, 0))
    watchdog.tidy()
    assert len(bench.steps.live_workers(100_000)) == 1
    bench.clock.ahead = 4000
    watchdog.tidy()
    assert bench.steps.live_workers(100_000) == []
    assert calls == ["swept", "swept"]
