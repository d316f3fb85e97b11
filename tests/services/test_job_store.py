import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.database import Database, open_engine
from services.errors import JobInProgress, JobStoreUnavailable, LeaseLost, UnknownJob
from services.job_store import JobStore, Lease, NewJob, Progress, Worker

NEW = NewJob("bulk_predict", "bulk", "local", "request-1", {"upload_key": "k"}, {"filename": "a.csv"})


class Clock(Database):
    """A database whose clock a test can push on."""

    ahead = 0.0

    def now(self, connection: sa.Connection) -> float:
        return super().now(connection) + self.ahead


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clock]:
    if request.param == "sqlite":
        database = Clock(open_engine(f"sqlite:///{tmp_path / 'jobs.sqlite3'}"))
    else:
        engine = open_engine(request.getfixturevalue("postgres_url"))
        with engine.begin() as connection:
            for table in ("jobs", "workers", "alembic_version"):
                connection.execute(sa.text(f"DROP TABLE IF EXISTS {table} CASCADE"))
        database = Clock(engine)
    yield database
    database.close()


@pytest.fixture
def store(clock: Clock) -> JobStore:
    return JobStore(clock, lease_seconds=15, max_attempts=2)


def claimed(store: JobStore, worker: str = "w1") -> Lease:
    job = store.add(NewJob("bulk_predict", "bulk", "local", "request-1"))
    taken = store.claim(job.job_id, worker)
    assert taken is not None
    return taken[1]


def test_a_job_is_recorded_with_what_is_known_of_it(store):
    job = store.add(NEW)
    assert store.get(NEW.job_id) == job
    assert (job.status, job.owner, job.request_id, job.attempts, job.rows_total) == (
        "queued",
        "local",
        "request-1",
        0,
        None,
    )
    assert job.metadata == {"filename": "a.csv"}
    assert job.statistics is None


def test_an_unknown_job_is_named(store):
    with pytest.raises(UnknownJob, match="nothing-here"):
        store.get("nothing-here")


def test_a_job_of_another_caller_looks_like_one_that_never_was(store):
    store.add(NEW)
    with pytest.raises(UnknownJob):
        store.find(NEW.job_id, "anonymous", "bulk_predict")
    assert store.find(NEW.job_id, "local", "bulk_predict").job_id == NEW.job_id
    assert store.of_owner("anonymous", "bulk_predict", None, 10) == []


def test_jobs_are_listed_newest_first_by_status_and_up_to_the_limit(store, clock):
    ids = []
    for _ in range(3):
        ids.append(store.add(NewJob("bulk_predict", "bulk", "local", "r")).job_id)
        clock.ahead += 1
    store.claim(ids[0], "w1")
    assert [job.job_id for job in store.of_owner("local", "bulk_predict", None, 2)] == [ids[2], ids[1]]
    assert [job.job_id for job in store.of_owner("local", "bulk_predict", "processing", 10)] == [ids[0]]


def test_a_job_can_be_claimed_once(store):
    store.add(NEW)
    job, lease = store.claim(NEW.job_id, "w1")
    assert (job.status, job.attempts, job.fence, job.worker_id) == ("processing", 1, 1, "w1")
    assert lease == Lease(NEW.job_id, "w1", 1)
    assert store.claim(NEW.job_id, "w2") is None
    assert store.claim("nothing-here", "w2") is None


def test_of_many_workers_at_once_exactly_one_gets_the_job(store):
    store.add(NEW)
    taken = []
    start = threading.Barrier(8)

    def try_it(number: int) -> None:
        start.wait()
        if store.claim(NEW.job_id, f"w{number}") is not None:
            taken.append(number)

    threads = [threading.Thread(target=try_it, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1


def test_a_heartbeat_keeps_the_lease_and_silence_loses_it(store, clock):
    lease = claimed(store)
    clock.ahead = 14
    store.renew(lease)
    clock.ahead = 28
    assert store.end_expired_leases() == []
    clock.ahead = 30
    (job,) = store.end_expired_leases()
    assert (job.status, job.attempts, job.enqueued_at) == ("queued", 1, None)


def test_whoever_lost_the_lease_can_no_longer_change_anything(store, clock):
    old = claimed(store)
    clock.ahead = 16
    store.end_expired_leases()
    _job, new = store.claim(old.job_id, "w1")
    done = Progress(1, 1, 1, 0)
    for act in (
        lambda: store.renew(old),
        lambda: store.record_progress(old, done),
        lambda: store.pin(old, "b", "s"),
        lambda: store.complete(old, "key-of-the-old", done),
        lambda: store.fail(old, "Name", "message"),
        lambda: store.give_back(old, "Name", "message"),
    ):
        with pytest.raises(LeaseLost):
            act()
    store.complete(new, "key-of-the-new", done, {"rows": 1})
    job = store.get(old.job_id)
    assert (job.status, job.result_key, job.statistics) == ("completed", "key-of-the-new", {"rows": 1})


def test_a_deleted_job_is_a_lost_lease_for_its_worker(store):
    store.add(NEW)
    store.delete(NEW.job_id)
    with pytest.raises(LeaseLost):
        store.renew(Lease(NEW.job_id, "w1", 1))


def test_after_the_last_attempt_a_lost_job_fails_with_a_named_error(store, clock):
    lease = claimed(store)
    for seconds in (16, 32):
        clock.ahead = seconds
        store.end_expired_leases()
        store.claim(lease.job_id, "w1")
    job = store.get(lease.job_id)
    assert (job.status, job.error_name, job.attempts) == ("failed", "WorkersLost", 2)
    assert "begun 2 times" in job.error_message
    assert job.completed_at is not None


def test_a_job_given_back_is_tried_again_and_then_fails_with_the_error_given(store):
    lease = claimed(store)
    assert store.give_back(lease, "JobCrashed", "why") == "queued"
    assert store.get(lease.job_id).error_name is None
    _job, again = store.claim(lease.job_id, "w1")
    assert store.give_back(again, "JobCrashed", "why") == "failed"
    assert store.get(lease.job_id).error_name == "JobCrashed"


def test_a_worker_that_goes_in_good_order_gives_its_jobs_back_without_an_attempt_counted(store):
    mine, other = claimed(store, "w1"), claimed(store, "w2")
    (released,) = store.release_worker("w1")
    assert (released.job_id, released.status, released.attempts) == (mine.job_id, "queued", 0)
    assert store.get(other.job_id).status == "processing"


def test_a_pair_once_pinned_stays(store, clock):
    lease = claimed(store)
    store.pin(lease, "bundle-1", "snapshot-1")
    clock.ahead = 16
    store.end_expired_leases()
    _job, lease = store.claim(lease.job_id, "w1")
    job = store.pin(lease, "bundle-2", "snapshot-2")
    assert (job.bundle_id, job.snapshot_id) == ("bundle-1", "snapshot-1")


def test_a_second_attempt_counts_its_rows_from_zero(store, clock):
    lease = claimed(store)
    store.record_progress(lease, Progress(10, 5, 4, 1))
    clock.ahead = 16
    store.end_expired_leases()
    job, _lease = store.claim(lease.job_id, "w1")
    assert (job.rows_processed, job.rows_successful, job.rows_failed) == (0, 0, 0)


def test_a_message_that_is_overdue_is_found_and_one_just_sent_is_not(store, clock):
    job = store.add(NEW)
    assert store.waiting(10) == []
    clock.ahead = 3
    assert [one.job_id for one in store.waiting(10)] == [job.job_id]
    store.mark_enqueued(job.job_id)
    assert store.waiting(10) == []
    clock.ahead = 14
    assert [one.job_id for one in store.waiting(10)] == [job.job_id]


def test_a_job_that_is_processed_is_not_deleted_nor_one_whose_variant_is(store):
    lease = claimed(store)
    with pytest.raises(JobInProgress):
        store.delete(lease.job_id)
    store.complete(lease, "key", Progress(1, 1, 1, 0))
    variant = store.add(NewJob("convert_result", "finishing", "local", "r", parent_id=lease.job_id, variant="xlsx"))
    store.claim(variant.job_id, "w1")
    with pytest.raises(JobInProgress):
        store.delete(lease.job_id)


def test_a_deleted_job_takes_its_variants_with_it(store):
    store.add(NEW)
    variant = store.add(NewJob("convert_result", "finishing", "local", "r", parent_id=NEW.job_id, variant="xlsx"))
    store.delete(NEW.job_id)
    for job_id in (NEW.job_id, variant.job_id):
        with pytest.raises(UnknownJob):
            store.get(job_id)


def test_a_variant_asked_for_twice_is_one_job(store):
    store.add(NEW)
    asked = [
        store.add(NewJob("convert_result", "finishing", "local", "r", parent_id=NEW.job_id, variant="xlsx"))
        for _ in range(2)
    ]
    assert asked[0].job_id == asked[1].job_id
    assert store.variant(NEW.job_id, "convert_result", "xlsx").job_id == asked[0].job_id
    assert store.variant(NEW.job_id, "convert_result", "parquet") is None


def test_workers_are_alive_for_as_long_as_they_are_heard_of(store, clock):
    worker = Worker("host:1", "host", 1, ["bulk"], 0, 0)
    store.heartbeat(worker)
    clock.ahead = 10
    store.heartbeat(worker)
    assert [one.worker_id for one in store.live_workers(15)] == ["host:1"]
    clock.ahead = 30
    assert store.live_workers(15) == []
    store.forget_silent_workers(5)
    clock.ahead = 0
    assert store.live_workers(1000) == []


def test_a_worker_that_says_goodbye_is_forgotten(store):
    store.heartbeat(Worker("host:1", "host", 1, ["bulk"], 0, 0))
    store.forget_worker("host:1")
    assert store.live_workers(15) == []


def test_a_database_that_is_away_is_named_without_its_password():
    store = JobStore(Database(open_engine("postgresql+psycopg://me:hunter2@127.0.0.1:1/none")), 15, 2)
    with pytest.raises(JobStoreUnavailable) as caught:
        store.live_workers(1)
    assert "hunter2" not in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_a_database_file_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "jobs").mkdir()
    store = JobStore(Database(open_engine(f"sqlite:///{tmp_path / 'jobs'}")), 15, 2)
    with pytest.raises(JobStoreUnavailable):
        store.live_workers(1)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "jobs").write_bytes(b"not a database" * 1000)
    store = JobStore(Database(open_engine(f"sqlite:///{tmp_path / 'jobs'}")), 15, 2)
    with pytest.raises(JobStoreUnavailable, match="DatabaseError"):
        store.live_workers(1)


def test_a_job_of_another_kind_is_not_found(store):
    job = store.add(NEW)
    with pytest.raises(UnknownJob):
        store.find(job.job_id, "local", "convert_result")


@pytest.mark.parametrize("job_id", ["", "\0", "x" * 5000, "\ufffd"])
def test_an_id_that_no_job_can_have_is_unknown(store, job_id):
    with pytest.raises(UnknownJob):
        store.find(job_id, "local", "bulk_predict")


def test_an_error_of_the_database_does_not_tell_what_was_to_be_written(store, clock):
    with pytest.raises(sa.exc.IntegrityError) as caught, clock.writing() as connection:
        connection.execute(
            sa.text("INSERT INTO jobs (job_id, kind) VALUES (:job_id, :kind)"), {"job_id": "j", "kind": "Ada"}
        )
    assert "Ada" not in str(caught.value).split("DETAIL")[0]
