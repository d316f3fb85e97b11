import contextlib
import threading

import pytest
import sqlalchemy as sa

from services.database import Database, open_engine
from services.errors import (
    JobInProgress,
    JobOver,
    JobStoreUnavailable,
    LeaseLost,
    NothingToRetry,
    TooManyJobs,
    UnknownJob,
)
from services.job_table import SCORE, WRITE
from services.step_store import StepStore
from tests.services.job_tables import new_conversion, new_job


def test_a_job_is_recorded_with_what_is_known_of_it_and_its_first_step(bench):
    new = new_job(parameters={"upload_key": "k"}, metadata={"filename": "a.csv"}, bundle_id="b", snapshot_id="s")
    job = bench.store.add(new)
    assert bench.store.get(new.job_id) == job
    assert (job.status, job.owner, job.rows_total, job.statistics) == ("queued", "local", None, None)
    assert (job.metadata, job.bundle_id, job.snapshot_id) == ({"filename": "a.csv"}, "b", "s")
    assert bench.statuses(job.job_id) == {("read", 0): "waiting"}


def test_an_unknown_job_is_named(bench):
    with pytest.raises(UnknownJob, match="nothing-here"):
        bench.store.get("nothing-here")


def test_a_job_of_another_caller_or_kind_looks_like_one_that_never_was(bench):
    job = bench.store.add(new_job())
    for owner, kind in (("anonymous", "bulk_predict"), ("local", "convert_result")):
        with pytest.raises(UnknownJob):
            bench.store.find(job.job_id, owner, kind)
    assert bench.store.find(job.job_id, "local", "bulk_predict").job_id == job.job_id
    assert bench.store.page("anonymous", ["bulk_predict"], None, 10) == []


@pytest.mark.parametrize("job_id", ["", "\0", "x" * 5000, "\ufffd"])
def test_an_id_that_no_job_can_have_is_unknown(bench, job_id):
    with pytest.raises(UnknownJob):
        bench.store.find(job_id, "local", "bulk_predict")


def test_pages_follow_each_other_without_a_gap_also_within_one_moment(bench):
    ids = []
    for number in range(7):
        ids.append(bench.store.add(new_job(job_id=f"job-{number}")).job_id)
        bench.clock.ahead += number % 2
    seen, before = [], None
    while page := bench.store.page("local", ["bulk_predict"], None, 2, before):
        seen += [job.job_id for job in page]
        before = (page[-1].created_at, page[-1].job_id)
    assert sorted(seen) == ids
    assert seen[0] == "job-6"
    bench.claim("job-3")
    assert [job.job_id for job in bench.store.page("local", ["bulk_predict"], "processing", 10)] == ["job-3"]


def test_the_limit_on_open_jobs_counts_what_waits_and_what_is_under_way_of_this_caller(bench):
    first = bench.store.add(new_job(), limit=2)
    bench.claim(first.job_id)
    bench.store.add(new_job(owner="anonymous"), limit=2)
    bench.store.add(new_job(), limit=2)
    with pytest.raises(TooManyJobs, match="2 of your jobs"):
        bench.store.add(new_job(), limit=2)
    bench.store.cancel(first.job_id)
    bench.store.add(new_job(), limit=2)
    assert bench.store.open_jobs("local", "bulk_predict") == 2


def test_of_many_uploads_at_once_no_more_than_the_limit_are_taken(bench):
    bench.store.add(new_job())
    taken, start = [], threading.Barrier(6)

    def try_it() -> None:
        start.wait()
        with contextlib.suppress(TooManyJobs):
            taken.append(bench.store.add(new_job(), limit=3).job_id)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 2


def test_an_idempotency_key_used_twice_is_one_job_and_of_another_caller_another(bench):
    first = bench.store.add(new_job(idempotency_key="k"), limit=1)
    assert bench.store.add(new_job(idempotency_key="k"), limit=1).job_id == first.job_id
    other = bench.store.add(new_job(idempotency_key="k", owner="anonymous"))
    assert other.job_id != first.job_id
    assert bench.store.with_key("local", "k").job_id == first.job_id
    assert bench.store.with_key("local", "other") is None


def test_a_variant_asked_for_twice_is_one_job(bench):
    parent = bench.completed(1)
    asked = [bench.store.add(new_conversion(parent)) for _ in range(2)]
    assert asked[0].job_id == asked[1].job_id
    assert bench.store.variant(parent, "convert_result", "xlsx").job_id == asked[0].job_id
    assert bench.store.variant(parent, "convert_result", "parquet") is None


# ---- cancel


def test_a_cancelled_job_takes_the_lease_of_whoever_works_on_it(bench):
    job_id = bench.staged(10, 10)
    lease = bench.claim(job_id)[2]
    job = bench.store.cancel(job_id)
    assert (job.status, job.rows_processed) == ("cancelled", 0)
    assert job.completed_at is not None
    with pytest.raises(LeaseLost):
        bench.steps.commit(lease, "part", 10)
    assert bench.steps.claim(job_id, "w2") is None
    with pytest.raises(JobOver, match="is cancelled"):
        bench.store.cancel(job_id)


def test_what_is_over_cannot_be_cancelled(bench):
    with pytest.raises(JobOver, match="is completed"):
        bench.store.cancel(bench.completed(1))


# ---- retry


def test_a_cancelled_job_goes_on_where_it_stopped(bench):
    job_id = bench.staged(10, 5)
    bench.steps.commit(bench.claim(job_id)[2], "part-1", 9)
    bench.claim(job_id)
    bench.store.cancel(job_id)
    job = bench.store.retry(job_id)
    assert (job.status, job.rows_processed, job.rows_failed) == ("queued", 10, 1)
    _job, step, lease = bench.claim(job_id)
    assert (step.number, step.attempts) == (2, 1)
    bench.steps.commit(lease, "part-2", 5)
    bench.steps.complete(bench.claim(job_id)[2], "result")
    assert bench.store.get(job_id).rows_processed == 15


def test_a_job_that_failed_while_it_was_written_is_written_again(bench):
    job_id = bench.scored(10)
    bench.steps.fail(bench.claim(job_id)[2], "StorageFull", "no space")
    assert bench.store.get(job_id).error_name == "StorageFull"
    job = bench.store.retry(job_id)
    assert (job.error_name, job.completed_at) == (None, None)
    _job, step, lease = bench.claim(job_id)
    assert step.kind == WRITE
    bench.steps.complete(lease, "result")


def test_of_a_completed_job_only_the_chunks_that_were_given_up_are_tried_again(bench):
    job_id = bench.staged(10, 5)
    bench.steps.commit(bench.claim(job_id)[2], "part-1", 10)
    for _ in range(2):
        bench.steps.give_back(bench.claim(job_id)[2], "ChunkGivenUp", "rows 11 to 15")
    bench.steps.complete(bench.claim(job_id)[2], "result")
    conversion = bench.store.add(new_conversion(job_id))
    assert bench.store.get(job_id).rows_failed == 5
    job = bench.store.retry(job_id)
    assert (job.status, job.rows_processed, job.rows_failed, job.result_key) == ("queued", 10, 0, None)
    with pytest.raises(UnknownJob):  # it was made from a result that no longer counts
        bench.store.get(conversion.job_id)
    _job, step, lease = bench.claim(job_id)
    assert (step.kind, step.number) == (SCORE, 2)
    bench.steps.commit(lease, "part-2", 5)
    bench.steps.complete(bench.claim(job_id)[2], "result-2")
    assert bench.store.get(job_id).rows_successful == 15


def test_there_is_nothing_to_retry_where_no_chunk_was_given_up_and_nothing_while_it_runs(bench):
    job_id = bench.staged(10)
    with pytest.raises(JobInProgress):
        bench.store.retry(job_id)
    bench.steps.commit(bench.claim(job_id)[2], "part-1", 3)
    bench.steps.complete(bench.claim(job_id)[2], "result")
    with pytest.raises(NothingToRetry, match="7 rows without a prediction"):
        bench.store.retry(job_id)


# ---- delete


def test_a_job_that_is_processed_is_not_deleted_nor_one_whose_variant_is(bench):
    lease = bench.begun()
    with pytest.raises(JobInProgress, match="Cancel it first"):
        bench.store.delete(lease.job_id)
    parent = bench.completed(1)
    variant = bench.store.add(new_conversion(parent))
    bench.claim(variant.job_id)
    with pytest.raises(JobInProgress):
        bench.store.delete(parent)


def test_a_deleted_job_takes_its_steps_and_variants_with_it(bench):
    job_id = bench.completed(1)
    variant = bench.store.add(new_conversion(job_id))
    bench.store.delete(job_id)
    for gone in (job_id, variant.job_id):
        with pytest.raises(UnknownJob):
            bench.store.get(gone)
        assert bench.store.steps(gone) == []


def test_jobs_that_ended_long_ago_are_found_and_open_ones_are_not(bench):
    old, open_job = bench.completed(1), bench.staged(1)
    bench.clock.ahead = 100
    new = bench.completed(1)
    assert bench.store.ended_before(50) == [old]
    assert bench.store.known([old, open_job, new, "nobody"]) == {old, open_job, new}
    assert bench.store.known([]) == set()


# ---- a database that is away


def test_a_database_that_is_away_is_named_without_its_password():
    store = StepStore(Database(open_engine("postgresql+psycopg://me:hunter2@127.0.0.1:1/none")), 15, 2)
    with pytest.raises(JobStoreUnavailable) as caught:
        store.live_workers(1)
    assert "hunter2" not in str(caught.value)
    assert "DATABASE_URL" in str(caught.value)


def test_a_database_file_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "jobs").mkdir()
    store = StepStore(Database(open_engine(f"sqlite:///{tmp_path / 'jobs'}")), 15, 2)
    with pytest.raises(JobStoreUnavailable):
        store.live_workers(1)


def test_a_file_that_is_no_database_is_named(tmp_path):
    (tmp_path / "jobs").write_bytes(b"not a database" * 1000)
    store = StepStore(Database(open_engine(f"sqlite:///{tmp_path / 'jobs'}")), 15, 2)
    with pytest.raises(JobStoreUnavailable, match="DatabaseError"):
        store.live_workers(1)


def test_an_error_of_the_database_does_not_tell_what_was_to_be_written(bench):
    bench.store.open_jobs("local", "bulk_predict")
    with pytest.raises(sa.exc.IntegrityError) as caught, bench.clock.writing() as connection:
        connection.execute(
            sa.text("INSERT INTO jobs (job_id, kind) VALUES (:job_id, :kind)"), {"job_id": "j", "kind": "Ada"}
        )
    assert "Ada" not in str(caught.value).split("DETAIL")[0]
