"""Files in chunks: whoever does which, and whatever happens in between, the result is the same."""

import errno
import pkgutil
from dataclasses import replace

import pytest

from services.bootstrap import build_services
from services.database import open_engine
from services.dispatcher import Dispatcher
from services.errors import (
    JobCancelled,
    JobNotFinished,
    JobOver,
    JobStoreUnavailable,
    LeaseLost,
    NothingToRetry,
    UnknownJob,
)
from services.job_table import CONVERSION, DONE, GIVEN_UP, SCORE
from services.object_store import UNFINISHED
from tests.conftest import CUSTOMERS
from tests.ml_pipeline.toy_models import write_toy_pair
from tests.services.bulk_files import ROWS, csv_of, rows_of, upload_of
from tests.services.conftest import SMALL_CHUNK, patient
from tests.services.job_tables import Bench, Clock

KINDS = ["csv", "csv.gz", "xlsx", "parquet"]


def content_of(services, job_id, local, result_format=None):
    """The bytes of a finished result."""
    with services.objects.local(services.bulk.result(job_id, result_format, local).key) as path:
        return path.read_bytes()


def result_rows(services, job_id, local, result_format="csv"):
    result = services.bulk.result(job_id, result_format, local)
    with services.objects.local(result.key) as path:
        return rows_of(path, result_format)


def scored(services, job_id):
    return [step for step in services.store.steps(job_id) if step.kind == SCORE]


@pytest.fixture
def undisturbed(services, upload, local):
    """The result of thirty rows as one chunk makes it."""
    job = upload(csv_of(ROWS))
    services.runner.run(job.job_id)
    return content_of(services, job.job_id, local)


@pytest.fixture
def jobs_of():
    """The work of the steps of some services."""
    return lambda services: services.runner._work["score"].__self__


# ---- chunks


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_the_same_however_many_chunks_it_was_made_in(services, chunked, upload, local, kind):
    files = []
    for worker, chunks in ((services, 1), (chunked, 5)):
        job = upload(*upload_of(kind, ROWS))
        worker.runner.run(job.job_id)
        done = services.bulk.status(job.job_id, local)
        assert (done.status, done.rows_total, done.rows_processed, done.rows_failed) == ("completed", 30, 30, 6)
        assert len(scored(services, job.job_id)) == chunks
        files.append((done, services.bulk.result(job.job_id, None, local)))
    (first, whole), (second, pieces) = files
    assert first.statistics == second.statistics
    with services.objects.local(whole.key) as left, services.objects.local(pieces.key) as right:
        if kind in ("csv", "csv.gz"):
            assert left.read_bytes() == right.read_bytes()
        result_format = whole.key.rsplit(".", 1)[1]
        assert rows_of(left, result_format) == rows_of(right, result_format)
        assert [row["note"] for row in rows_of(right, result_format)] == [row[1] for row in ROWS]


def test_each_staged_chunk_tells_another_worker_at_once(chunked, upload, queue, jobs_of):
    job = upload(csv_of(ROWS))
    assert queue.sent == [("bulk", job.job_id)]
    jobs_of(chunked).read(*chunked.steps.claim(job.job_id, "worker-0"))
    assert queue.sent == [("bulk", job.job_id)] * 6
    steps = scored(chunked, job.job_id)
    assert [(step.number, step.first_row, step.rows) for step in steps] == [
        (1, 0, 7),
        (2, 7, 7),
        (3, 14, 7),
        (4, 21, 7),
        (5, 28, 2),
    ]


def test_a_chunk_that_was_given_back_gets_its_own_message_however_many_are_staged_meanwhile(chunked, queue):
    bench = Bench(chunked.store._database)
    reading = bench.begun()
    dispatcher = Dispatcher(queue, chunked.steps)
    for number in (1, 2):
        chunked.steps.stage(reading, number, number - 1, 1, "key")
        dispatcher.send(reading.job_id, SCORE, number=number)
        if number == 1:
            bench.claim(reading.job_id, "w2")
            chunked.steps.release_worker("w2")
    assert [step.enqueued_at is None for step in scored(chunked, reading.job_id)] == [True, False]
    dispatcher.send_unsent(reading.job_id)
    assert queue.sent == [("bulk", reading.job_id)] * 3


def test_a_wide_file_has_fewer_rows_in_a_chunk(services, upload, local, monkeypatch):
    monkeypatch.setattr("services.chunk_staging.CELLS_PER_CHUNK", 21)
    job = upload(csv_of(ROWS))
    services.runner.run(job.job_id)
    assert [step.rows for step in scored(services, job.job_id)] == [10, 10, 10]


def test_a_customer_in_several_chunks_is_one_customer(chunked, upload, local):
    job = upload("customer_id\n" + f"{CUSTOMERS[0]}\n" * 20 + f"{CUSTOMERS[1]}\n")
    chunked.runner.run(job.job_id)
    done = chunked.bulk.status(job.job_id, local)
    assert (done.status, done.rows_processed, done.statistics["distinct_customers"]) == ("completed", 21, 2)
    listed = chunked.bulk.customers(job.job_id, local)
    assert listed["total"] == 2
    assert {one["customer_id"] for one in listed["customers"]} == set(CUSTOMERS[:2])


def test_progress_is_seen_after_each_chunk(chunked, upload, local, one_step):
    job = upload(csv_of(ROWS))
    seen = []
    for _ in range(6):
        one_step(job.job_id)
        now = chunked.bulk.status(job.job_id, local)
        seen.append((now.rows_read, now.rows_processed))
    assert seen == [(30, 0), (30, 7), (30, 14), (30, 21), (30, 28), (30, 30)]
    assert chunked.bulk.progress(now)["phase"] == "writing"


def test_progress_is_reckoned_by_the_clock_of_the_database(settings, queue, upload, local, monkeypatch):
    """Which an hour ahead of this host's makes no difference."""
    clock = Clock(open_engine(settings.database_url))
    clock.ahead = 3600.0
    bench = Bench(clock)
    ahead = build_services(
        replace(settings, rows_per_chunk=SMALL_CHUNK), queue, worker_id="w", tables=(bench.store, bench.steps)
    )
    monkeypatch.setattr(ahead.runner, "_seconds_per_message", -1.0)
    job = upload(csv_of(ROWS), to=ahead)
    for _ in range(3):
        ahead.runner.run(job.job_id)
    progress = ahead.bulk.progress(ahead.bulk.status(job.job_id, local))
    assert progress["rows_per_second"] > 0
    assert 0 < progress["eta_seconds"] < 60
    clock.close()


def test_a_completed_job_keeps_no_chunks(chunked, upload, local):
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    assert chunked.objects.names(f"{job.job_id}/chunks") == chunked.objects.names(f"{job.job_id}/parts") == []
    assert len(chunked.objects.names(job.job_id)) == 3  # upload, result, customers


# ---- readings that are done anew


def test_a_reading_that_is_done_anew_writes_only_what_is_not_there(
    services, chunked, upload, local, monkeypatch, undisturbed
):
    from services import chunk_staging

    write, written = chunk_staging.write_chunk, []

    def write_until_full(path, rows):
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(rows)
        write(path, rows)

    monkeypatch.setattr(chunk_staging, "write_chunk", write_until_full)
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    failed = services.bulk.status(job.job_id, local)
    assert (failed.status, failed.error_name) == ("failed", "StorageFull")
    assert len(services.objects.names(f"{job.job_id}/chunks")) == 3
    monkeypatch.setattr(chunk_staging, "write_chunk", lambda path, rows: (written.append(rows), write(path, rows)))
    assert services.bulk.retry(job.job_id, local).status == "queued"
    services.runner.run(job.job_id)  # its chunks would have 50,000 rows
    assert len(written) == 5
    assert content_of(services, job.job_id, local) == undisturbed


@pytest.mark.parametrize("place", ["services.bulk_job.write_part", "services.bulk_job.assemble_result"])
def test_a_job_that_met_a_full_disk_goes_on_when_there_is_space(
    services, chunked, upload, settings, local, monkeypatch, undisturbed, place
):
    def full(path, *_facts):
        path.write_bytes(b"half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    job = upload(csv_of(ROWS))
    with monkeypatch.context() as patched:
        patched.setattr(place, full)
        chunked.runner.run(job.job_id)
    failed = services.bulk.status(job.job_id, local)
    assert (failed.status, failed.error_name) == ("failed", "StorageFull")
    assert list((settings.objects_dir / UNFINISHED).iterdir()) == []
    assert not [key for key in services.objects.names(job.job_id) if "/result" in key or "/parts/" in key] or (
        "assemble" in place
    )
    services.bulk.retry(job.job_id, local)
    chunked.runner.run(job.job_id)
    assert content_of(services, job.job_id, local) == undisturbed


@pytest.mark.parametrize(
    "place",
    [
        "services.bulk_job.read_rows",
        "services.chunk_staging.write_chunk",
        "services.bulk_job.write_part",
        "pyarrow.OSFile",
        "services.bulk_job.assemble_result",
    ],
)
def test_a_store_that_is_away_for_a_moment_delays_the_job(
    chunked, upload, local, monkeypatch, no_waits, undisturbed, place
):
    what, away = pkgutil.resolve_name(place), iter(no_waits)

    def answers_again(*facts, **options):
        if next(away, None) is not None:
            raise OSError(errno.ESTALE, "Stale file handle")
        return what(*facts, **options)

    job = upload(csv_of(ROWS))
    monkeypatch.setattr(place, answers_again)
    chunked.runner.run(job.job_id)
    assert content_of(chunked, job.job_id, local) == undisturbed
    assert next(away, None) is None


def test_a_step_that_is_put_off_waits_before_its_next_attempt(chunked, upload, local, monkeypatch, settings):
    job = upload(csv_of(ROWS))
    (settings.objects_dir / job.parameters["upload_key"]).rename(settings.var_dir / "aside")
    chunked.runner.run(job.job_id)
    assert chunked.bulk.status(job.job_id, local).status == "processing"
    (step,) = chunked.store.steps(job.job_id)
    assert (step.status, step.attempts, step.error_name) == ("waiting", 1, "ObjectMissing")
    assert step.not_before > step.updated_at + 1


def test_an_internal_error_of_the_reading_is_tried_again_and_then_fails_without_its_raw_text(
    services, upload, settings, local, monkeypatch
):
    def crash(*_facts: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr("services.bulk_job.read_rows", crash)
    job = upload(csv_of(ROWS))
    services.runner.run(job.job_id)
    job = services.bulk.status(job.job_id, local)
    assert (job.status, job.error_name) == ("failed", "JobCrashed")
    assert "secret" not in job.error_message
    assert services.store.steps(job.job_id)[0].attempts == settings.max_attempts


# ---- chunks that are given up


@pytest.fixture
def poisoned(chunked, upload, local, monkeypatch):
    """A job whose second chunk crashes whoever works on it."""
    from services import bulk_job

    answer = bulk_job.answer_rows

    def crash_on_the_second(snapshot, version, ids):
        if ids[0].as_py() == lookups[SMALL_CHUNK]:
            raise RuntimeError("poison")
        return answer(snapshot, version, ids)

    lookups = [row[0] for row in ROWS]
    with monkeypatch.context() as patched:
        patched.setattr(bulk_job, "answer_rows", crash_on_the_second)
        job = upload(csv_of(ROWS))
        chunked.runner.run(job.job_id)
    return chunked.bulk.status(job.job_id, local)


def test_a_chunk_that_cannot_be_done_fails_alone_with_its_rows_marked(services, poisoned, local, settings):
    assert poisoned.status == "completed"
    assert (poisoned.rows_processed, poisoned.rows_failed) == (30, 7 + 5)
    assert (poisoned.statistics["rows"], poisoned.statistics["rows_failed"]) == (30, 12)
    rows = result_rows(services, poisoned.job_id, local)
    assert [row["note"] for row in rows] == [row[1] for row in ROWS]
    lost = [number for number, row in enumerate(rows) if (row["error"] or "").startswith("ChunkGivenUp: Rows 8 to 14 ")]
    assert lost == list(range(7, 14))
    assert {rows[number]["status"] for number in lost} == {"failed"}
    assert {rows[number]["predicted_total_spend"] for number in lost} == {None}
    assert "poison" not in rows[7]["error"]
    chunk = scored(services, poisoned.job_id)[1]
    assert (chunk.status, chunk.attempts) == (GIVEN_UP, settings.max_attempts)


def test_a_conversion_marks_the_rows_that_were_given_up_as_the_result_does(services, poisoned, local, run_queue):
    services.bulk.result(poisoned.job_id, "parquet", local)
    run_queue()
    converted = result_rows(services, poisoned.job_id, local, "parquet")
    assert [row["error"] for row in converted] == [
        row["error"] for row in result_rows(services, poisoned.job_id, local)
    ]


def test_rows_that_were_given_up_are_done_by_a_retry(
    services, chunked, poisoned, local, monkeypatch, undisturbed, run_queue
):
    services.bulk.result(poisoned.job_id, "parquet", local)
    run_queue()
    again = services.bulk.retry(poisoned.job_id, local)
    assert (again.status, again.rows_processed, again.rows_failed) == ("queued", 23, 5)
    with pytest.raises(JobNotFinished):
        services.bulk.result(poisoned.job_id, None, local)
    chunked.runner.run(poisoned.job_id)
    assert content_of(services, poisoned.job_id, local) == undisturbed
    assert services.bulk.status(poisoned.job_id, local).rows_failed == 6
    assert services.objects.names(f"{poisoned.job_id}/chunks") == []
    services.bulk.result(poisoned.job_id, "parquet", local)  # the conversion of the first end is not given out
    run_queue()
    assert {row["error"] is None for row in result_rows(services, poisoned.job_id, local, "parquet")[10:13]} == {True}
    with pytest.raises(NothingToRetry):
        services.bulk.retry(poisoned.job_id, local)


def test_a_file_of_which_every_chunk_was_given_up_comes_back_marked(chunked, upload, local, monkeypatch):
    def crash(*_facts):
        raise RuntimeError("poison")

    monkeypatch.setattr("services.bulk_job.answer_rows", crash)
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    done = chunked.bulk.status(job.job_id, local)
    assert (done.status, done.rows_failed, done.statistics["distinct_customers"]) == ("completed", 30, 0)
    rows = result_rows(chunked, job.job_id, local)
    assert [row["note"] for row in rows] == [row[1] for row in ROWS]
    assert {row["status"] for row in rows} == {"failed"}


# ---- cancel, resume, what is done so far


def test_a_cancelled_job_goes_on_where_it_stopped(services, chunked, upload, local, one_step, undisturbed):
    job = upload(csv_of(ROWS))
    for _ in range(3):
        one_step(job.job_id)
    cancelled = services.bulk.cancel(job.job_id, local)
    assert (cancelled.status, cancelled.rows_processed) == ("cancelled", 14)
    chunked.runner.run(job.job_id)
    assert services.bulk.status(job.job_id, local).rows_processed == 14
    with pytest.raises(JobCancelled, match="14 of 30 rows"):
        services.bulk.result(job.job_id, None, local)
    with pytest.raises(JobOver):
        services.bulk.cancel(job.job_id, local)
    parts = services.objects.names(f"{job.job_id}/parts")
    assert services.bulk.retry(job.job_id, local).status == "queued"
    one_step(job.job_id)
    assert set(parts) < set(services.objects.names(f"{job.job_id}/parts"))
    for _ in range(3):
        one_step(job.job_id)
    assert content_of(services, job.job_id, local) == undisturbed


def test_a_chunk_that_is_done_after_the_cancel_does_not_count(chunked, upload, local, one_step, jobs_of):
    job = upload(csv_of(ROWS))
    one_step(job.job_id)
    held = chunked.steps.claim(job.job_id, "worker-0")
    chunked.bulk.cancel(job.job_id, local)
    with pytest.raises(LeaseLost):
        jobs_of(chunked).score(*held)
    assert chunked.bulk.status(job.job_id, local).rows_processed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_done_so_far_can_be_had(chunked, upload, local, one_step, kind):
    job = upload(*upload_of(kind, ROWS))
    with pytest.raises(JobNotFinished), chunked.bulk.partial(job.job_id, local):
        pass
    one_step(job.job_id)
    with pytest.raises(JobNotFinished), chunked.bulk.partial(job.job_id, local):
        pass
    chunked.steps.claim(job.job_id, "somebody slow")  # the first chunk
    one_step(job.job_id)
    one_step(job.job_id)
    with chunked.bulk.partial(job.job_id, local) as done:
        result_format = "csv" if kind == "csv.gz" else kind
        assert (done.rows, done.rows_total) == (14, 30)
        assert done.filename == f"customers_partial_predictions.{result_format}"
        rows = rows_of(done.path, result_format)
        if kind == "xlsx":  # each row stands where it will stand in the result
            assert [row["note"] for row in rows[:7]] == [None] * 7
            rows = rows[7:]
        assert [row["note"] for row in rows] == [row[1] for row in ROWS[7:21]]
    assert not done.path.exists()


def test_of_a_completed_job_what_is_done_so_far_is_the_result(chunked, upload, local, undisturbed):
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    with chunked.bulk.partial(job.job_id, local) as done:
        assert (done.rows, done.rows_total, done.filename) == (30, 30, "customers_predictions.csv")
        assert done.path.read_bytes() == undisturbed


def test_what_is_done_so_far_of_a_job_that_ends_just_then_is_the_result(
    chunked, upload, local, one_step, monkeypatch, undisturbed
):
    job = upload(csv_of(ROWS))
    for _ in range(6):
        one_step(job.job_id)
    steps = chunked.store.steps(job.job_id)
    one_step(job.job_id)
    assert chunked.bulk.status(job.job_id, local).status == "completed"
    unfinished = replace(chunked.bulk.status(job.job_id, local), status="processing")
    monkeypatch.setattr(chunked.store, "steps", lambda _job_id: steps)
    with chunked.bulk._results.partial(unfinished) as done:
        assert done.path.read_bytes() == undisturbed


# ---- leases


def test_of_two_that_score_a_chunk_only_the_holder_of_the_lease_is_counted(
    services, chunked, upload, local, one_step, jobs_of, undisturbed
):
    """A worker that was thought dead ends after the one that took over."""
    job = upload(csv_of(ROWS))
    one_step(job.job_id)
    held = chunked.steps.claim(job.job_id, "worker-0")
    chunked.steps.release_worker("worker-0")
    one_step(job.job_id)
    counted = scored(chunked, job.job_id)[0]
    with pytest.raises(LeaseLost):
        jobs_of(chunked).score(*held)
    assert scored(chunked, job.job_id)[0] == counted
    assert counted.key.endswith("000001-2.csv")
    assert len(services.objects.names(f"{job.job_id}/parts")) == 4  # of both, with their positions
    patient(chunked)
    chunked.runner.run(job.job_id)
    assert content_of(services, job.job_id, local) == undisturbed
    assert services.objects.names(f"{job.job_id}/parts") == []


def test_who_scores_a_chunk_of_a_job_that_others_have_completed_leaves_nothing(
    chunked, upload, local, one_step, jobs_of, undisturbed
):
    """As the one above, but it ends after the result is made and its parts are removed."""
    job = upload(csv_of(ROWS))
    one_step(job.job_id)
    held = chunked.steps.claim(job.job_id, "worker-0")
    kept = f"{job.job_id}/read-before.arrow"
    with chunked.objects.local(held[1].key) as staged, chunked.objects.create(kept) as path:
        path.write_bytes(staged.read_bytes())
    chunked.steps.release_worker("worker-0")
    patient(chunked)
    chunked.runner.run(job.job_id)
    with pytest.raises(LeaseLost):
        jobs_of(chunked).score(held[0], replace(held[1], key=kept), held[2])
    assert chunked.objects.names(f"{job.job_id}/parts") == []
    assert content_of(chunked, job.job_id, local) == undisturbed


def test_of_two_that_write_the_result_only_the_holder_of_the_lease_is_counted(
    services, chunked, upload, local, one_step, jobs_of, undisturbed
):
    job = upload(csv_of(ROWS))
    for _ in range(6):
        one_step(job.job_id)
    held = chunked.steps.claim(job.job_id, "worker-0")
    chunked.steps.release_worker("worker-0")
    taken_over = chunked.steps.claim(job.job_id, "worker-1")
    with pytest.raises(LeaseLost):
        jobs_of(chunked).write(*held)
    assert services.bulk.status(job.job_id, local).status == "processing"
    jobs_of(chunked).write(*taken_over)
    assert services.bulk.status(job.job_id, local).result_key.endswith("/result-3.csv")
    assert content_of(services, job.job_id, local) == undisturbed


def test_who_wrote_the_result_before_a_retry_cannot_write_the_one_after_it(
    services, chunked, poisoned, local, jobs_of, undisturbed
):
    """Of the first end, with the rows given up, a worker is left that was thought dead and wakes up during the second."""
    services.bulk.retry(poisoned.job_id, local)
    jobs_of(chunked).score(*chunked.steps.claim(poisoned.job_id, "worker-1"))
    taken = chunked.steps.claim(poisoned.job_id, "worker-1")
    old = replace(taken[2], worker_id="worker-0", fence=int(poisoned.result_key.split("result-")[1].split(".")[0]))
    with pytest.raises(LeaseLost):
        jobs_of(chunked).write(*taken[:2], old)
    jobs_of(chunked).write(*taken)
    done = services.bulk.status(poisoned.job_id, local)
    assert done.result_key != poisoned.result_key
    assert content_of(services, poisoned.job_id, local) == undisturbed


def test_a_reading_that_lost_its_lease_stops_at_the_next_chunk(chunked, upload, jobs_of, settings):
    job = upload(csv_of(ROWS))
    held = chunked.steps.claim(job.job_id, "worker-0")
    chunked.steps.release_worker("worker-0")
    chunked.steps.claim(job.job_id, "worker-1")
    with pytest.raises(LeaseLost):
        jobs_of(chunked).read(*held)
    assert scored(chunked, job.job_id) == []


@pytest.fixture
def conversion(chunked, upload, local):
    """A completed job, and a step that makes its result as a workbook, in the hands of a worker."""
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    chunked.bulk.result(job.job_id, "xlsx", local)
    return job, chunked.steps.claim(chunked.store.variant(job.job_id, CONVERSION, "xlsx").job_id, "worker-0")


def test_a_conversion_that_was_taken_over_stops_and_leaves_nothing(chunked, conversion, jobs_of, settings):
    job, held = conversion
    chunked.steps.release_worker("worker-0")
    chunked.steps.claim(held[0].job_id, "worker-1")
    with pytest.raises(LeaseLost):
        jobs_of(chunked).convert(*held)
    assert list((settings.objects_dir / UNFINISHED).iterdir()) == []
    assert not [key for key in chunked.objects.names(job.job_id) if "converted" in key]


def test_a_conversion_that_was_stopped_for_a_delete_that_failed_is_made_when_it_is_asked_for(
    chunked, conversion, local, monkeypatch
):
    def away(_job_id):
        raise JobStoreUnavailable("The database of the jobs does not answer.")

    job, _held = conversion
    with monkeypatch.context() as patched:
        patched.setattr(chunked.store, "delete", away)
        with pytest.raises(JobStoreUnavailable):
            chunked.bulk.delete(job.job_id, local)
    chunked.bulk.result(job.job_id, "xlsx", local)
    chunked.runner.run(chunked.store.variant(job.job_id, CONVERSION, "xlsx").job_id)
    assert len(result_rows(chunked, job.job_id, local, "xlsx")) == 30


def test_a_job_is_deleted_although_its_result_is_being_converted(chunked, conversion, jobs_of, local):
    job, held = conversion
    chunked.bulk.delete(job.job_id, local)
    with pytest.raises(UnknownJob):
        jobs_of(chunked).convert(*held)
    assert chunked.objects.names(job.job_id) == []
    assert chunked.store.known([held[0].job_id]) == set()


@pytest.mark.parametrize(
    ("kind", "part", "method", "calls"),
    [
        ("read", "objects", "create", 1),
        ("score", "objects", "create", 1),
        ("write", "objects", "create", 2),
        ("convert", "steps", "renew", 5),
    ],
)
def test_a_job_that_is_deleted_while_a_worker_writes_leaves_nothing(
    chunked, upload, jobs_of, local, monkeypatch, kind, part, method, calls
):
    job = upload(csv_of(ROWS))
    job_id = job.job_id
    if kind == "convert":
        chunked.runner.run(job_id)
        chunked.bulk.result(job_id, "xlsx", local)
        job_id = chunked.store.variant(job_id, CONVERSION, "xlsx").job_id
    while (held := chunked.steps.claim(job_id, "worker-0"))[1].kind != kind:
        getattr(jobs_of(chunked), held[1].kind)(*held)
    called = []
    as_ever = getattr(getattr(chunked, part), method)

    def deleted_after(*given):
        found = as_ever(*given)
        called.append(given)
        if len(called) == calls:
            if kind != "convert":
                chunked.bulk.cancel(job.job_id, local)
            chunked.bulk.delete(job.job_id, local)
        return found

    monkeypatch.setattr(getattr(chunked, part), method, deleted_after)
    with pytest.raises(LeaseLost):
        getattr(jobs_of(chunked), kind)(*held)
    assert chunked.objects.names(job.job_id) == []


# ---- the pair


def test_a_job_keeps_the_pair_that_served_at_its_upload(tmp_path, settings, queue, local):
    models = tmp_path / "models"
    models.mkdir()
    old = write_toy_pair(models, CUSTOMERS, seed=1)
    built = patient(build_services(replace(settings, models_dir=models, rows_per_chunk=7), queue, worker_id="w1"))
    path = tmp_path / "received"
    path.write_bytes(csv_of(ROWS))
    job = built.bulk.upload(path, "a.csv", local)
    assert (job.bundle_id, job.snapshot_id) == (old.bundle_id, old.snapshot_id)
    new = write_toy_pair(models, CUSTOMERS[:5], seed=2)
    built.runner.run(job.job_id)
    done = built.bulk.status(job.job_id, local)
    assert (done.bundle_id, done.rows_failed) == (old.bundle_id, 6)
    assert done.statistics["model_version"] == old.bundle_id != new.bundle_id
    assert built.bulk.customers(job.job_id, local)["total"] == done.statistics["distinct_customers"]
    built.bulk.result(job.job_id, "parquet", local)
    built.runner.run(built.store.variant(job.job_id, CONVERSION, "parquet").job_id)
    versions = {row["model_version"] for row in result_rows(built, job.job_id, local, "parquet")}
    assert versions == {None, old.bundle_id}


def test_a_worker_without_a_models_folder_works_from_what_was_published(
    services, upload, settings, queue, tmp_path, local, undisturbed
):
    elsewhere = replace(settings, models_dir=tmp_path / "no models", var_dir=tmp_path / "another host")
    worker = patient(build_services(elsewhere, queue, worker_id="w2", tables=(services.store, services.steps)))
    job = upload(csv_of(ROWS))
    worker.runner.run(job.job_id)
    assert content_of(services, job.job_id, local) == undisturbed


def test_a_job_that_was_uploaded_before_there_was_a_model_takes_the_one_that_serves_when_it_is_read(
    tmp_path, settings, queue, local
):
    models = tmp_path / "models"
    built = build_services(replace(settings, models_dir=models), queue, worker_id="w1")
    path = tmp_path / "received"
    path.write_bytes(csv_of(ROWS))
    job = built.bulk.upload(path, "a.csv", local)
    assert job.bundle_id is None
    models.mkdir()
    pair = write_toy_pair(models, CUSTOMERS, seed=1)
    built.runner._seconds_per_message = -1.0
    built.runner.run(job.job_id)  # the reading
    elsewhere = replace(settings, models_dir=tmp_path / "no models", var_dir=tmp_path / "another host")
    patient(build_services(elsewhere, queue, worker_id="w2", tables=(built.store, built.steps))).runner.run(job.job_id)
    done = built.bulk.status(job.job_id, local)
    assert (done.status, done.bundle_id) == ("completed", pair.bundle_id)


def test_steps_of_a_job_end_done(chunked, upload):
    job = upload(csv_of(ROWS))
    chunked.runner.run(job.job_id)
    assert {step.status for step in chunked.store.steps(job.job_id)} == {DONE}
