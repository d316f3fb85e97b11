import pytest

from services.job_store import NewJob, Worker
from services.watchdog import EMPTY_QUEUE_SECONDS, FULL_QUEUE_SECONDS


@pytest.fixture
def ahead(services, monkeypatch):
    """Pushes the clock of the job table on by so many seconds."""
    database = services.store._database
    now = database.now

    def push(seconds: float) -> None:
        monkeypatch.setattr(database, "now", lambda connection: now(connection) + seconds)

    return push


@pytest.fixture
def job(services):
    return services.store.add(NewJob("bulk_predict", "bulk", "local", "r"))


def test_a_job_whose_worker_fell_silent_is_sent_again_at_once(services, queue, job, ahead):
    services.store.claim(job.job_id, "w1")
    services.watchdog.sweep()
    assert queue.sent == []
    ahead(16)
    services.watchdog.sweep()
    assert queue.sent == [("bulk", job.job_id)]


def test_a_job_past_its_last_attempt_is_not_sent_again(services, queue, job, ahead, settings):
    for attempt in range(settings.max_attempts):
        services.store.claim(job.job_id, "w1")
        ahead(16 * (attempt + 1))
        services.watchdog.sweep()
    assert len(queue.sent) == settings.max_attempts - 1
    assert services.store.get(job.job_id).error_name == "WorkersLost"


def test_what_an_emptied_queue_lost_is_sent_again(services, queue, job, ahead):
    services.store.mark_enqueued(job.job_id)
    ahead(EMPTY_QUEUE_SECONDS - 1)
    services.watchdog.sweep()
    assert queue.sent == []
    ahead(EMPTY_QUEUE_SECONDS + 1)
    services.watchdog.sweep()
    services.watchdog.sweep()
    assert queue.sent == [("bulk", job.job_id)]


def test_a_job_that_was_sent_again_is_left_to_its_message(services, queue, job, ahead):
    ahead(EMPTY_QUEUE_SECONDS + 1)
    services.watchdog.sweep()
    queue.sent.clear()
    services.watchdog.sweep()
    assert queue.sent == []


def test_what_waits_in_a_long_queue_is_not_sent_over_and_over(services, queue, job, ahead):
    queue.sent.append(("bulk", "another"))
    services.store.mark_enqueued(job.job_id)
    ahead(EMPTY_QUEUE_SECONDS + 1)
    services.watchdog.sweep()
    assert queue.sent == [("bulk", "another")]
    ahead(FULL_QUEUE_SECONDS + 1)
    services.watchdog.sweep()
    assert queue.sent[1:] == [("bulk", job.job_id)]


def test_a_queue_that_is_away_leaves_the_jobs_in_the_table(services, queue, job, ahead):
    queue.away = True
    ahead(100)
    services.watchdog.sweep()
    assert services.store.get(job.job_id).enqueued_at is None


def test_a_worker_that_goes_hands_its_jobs_on_and_is_forgotten(services, queue, job):
    services.watchdog.beat(Worker("w1", "host", 1, ["bulk"], 0, 0))
    services.store.claim(job.job_id, "w1")
    services.watchdog.release("w1")
    assert queue.sent == [("bulk", job.job_id)]
    assert services.store.live_workers(100) == []


def test_tidying_leaves_what_is_in_use(services, job):
    services.watchdog.beat(Worker("w1", "host", 1, ["bulk"], 0, 0))
    with services.objects.receive() as stream:
        services.watchdog.tidy()
        stream.write(b"still there")
    assert len(services.store.live_workers(100)) == 1
