"""What the reading of an upload records, also when it is done anew."""

import pyarrow as pa
import pytest

from ml_pipeline.customer_files import RowCounts
from ml_pipeline.file_shape import CSV, FileShape
from services.chunk_staging import ChunkStaging
from services.dispatcher import Dispatcher
from services.job_table import SCORE
from tests.services.bulk_files import ROWS, csv_of

SHAPE = FileShape(CSV, ("customer_id", "note"))
COUNTED = RowCounts(len(ROWS), 17, True)


@pytest.fixture
def reading(services, upload, queue):
    """A reading that has begun, with the chunks that are there already."""
    job = upload(csv_of(ROWS))
    _job, _step, lease = services.steps.claim(job.job_id, "w")

    def staging() -> ChunkStaging:
        staged = [step for step in services.store.steps(job.job_id) if step.kind == SCORE]
        return ChunkStaging(lease, staged, services.steps, services.objects, Dispatcher(queue, services.steps))

    return job.job_id, staging


def batches(lengths):
    return [pa.record_batch([pa.array(["x"] * length)] * 2, names=["0", "1"]) for length in lengths]


def test_chunks_that_were_missing_have_the_places_that_follow_those_that_were_there(services, reading):
    job_id, staging = reading
    lengths = [7, 7, 7, 7, 2]
    staging().stage_all(batches(lengths[:2]), SHAPE, COUNTED)
    staging().stage_all(batches(lengths), SHAPE, COUNTED)
    found = [(step.number, step.first_row, step.rows) for step in services.store.steps(job_id) if step.kind == SCORE]
    assert found == [(1, 0, 7), (2, 7, 7), (3, 14, 7), (4, 21, 7), (5, 28, 2)]


@pytest.mark.parametrize(("seconds", "noted"), [(0.0, 5), (1000.0, 3)])
def test_rows_that_are_seen_are_noted_again_and_again_but_not_too_often(services, reading, monkeypatch, seconds, noted):
    monkeypatch.setattr("services.chunk_staging.SECONDS_PER_NOTE", seconds)
    job_id, staging = reading
    begun = staging()
    begun.saw(3)
    begun.saw(5)
    assert services.store.get(job_id).rows_read == noted
