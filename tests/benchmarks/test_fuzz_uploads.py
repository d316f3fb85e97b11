import pytest

from benchmarks.fuzz_files import mutated, seeds
from benchmarks.fuzz_uploads import READ, Outcomes, read_files, report
from ml_pipeline.customer_files import open_rows


@pytest.mark.parametrize("name", sorted(seeds()))
def test_every_seed_is_a_file_that_is_read(tmp_path, name):
    path = tmp_path / "upload"
    path.write_bytes(seeds()[name])
    shape, batches = open_rows(path, name, 25)
    assert shape.header == ("Customer ID", "name", "spend")
    assert sum(batch.num_rows for batch in batches) >= 60


def test_a_number_is_always_the_same_damaged_file():
    assert [mutated(number) for number in range(50)] == [mutated(number) for number in range(50)]
    assert len({mutated(number)[1] for number in range(100)}) > 90
    assert {mutated(number)[0] for number in range(len(seeds()))} == set(seeds())


def test_files_are_read_or_refused_by_name():
    outcomes = read_files(range(20))
    assert outcomes.counts.total() == 20
    assert outcomes.held, outcomes.faults
    assert 0 < outcomes.memory_mb < 1000


def test_a_fault_is_told_with_the_number_of_its_file():
    outcomes = Outcomes()
    outcomes.add(3, READ)
    assert outcomes.held
    outcomes.add(4, "500 InternalError", fault="500 a bug")
    assert not outcomes.held
    assert "file 4: 500 a bug" in report(outcomes, 1.0)
