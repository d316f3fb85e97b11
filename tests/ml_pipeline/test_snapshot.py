import numpy as np
import pytest

from ml_pipeline.errors import NoServingModel, SnapshotMismatch
from ml_pipeline.snapshot import load_snapshot, money_columns, snapshot_day, snapshots_dir
from tests.ml_pipeline.toy_models import TARGETS, write_toy_pair

CUSTOMERS = ["00042", "42", "7", "C1", "Ünïcode-客", "1e16", "a" * 128]


@pytest.fixture
def snapshot(tmp_path):
    return load_snapshot(tmp_path, write_toy_pair(tmp_path, CUSTOMERS).snapshot_id)


def test_every_customer_is_found_under_his_own_id(snapshot):
    positions = snapshot.positions(CUSTOMERS)
    assert sorted(positions) == list(range(len(CUSTOMERS)))
    assert snapshot.customer_ids(positions) == CUSTOMERS


@pytest.mark.parametrize(
    "stranger", ["", "0042", "000042", "C", "C11", "c1", "7\0", "\0", "a" * 127, "a" * 129, "Z" * 10_000, "客"]
)
def test_a_stranger_is_nobody(snapshot, stranger):
    assert snapshot.positions([stranger, "7"]).tolist() == [-1, snapshot.positions(["7"])[0]]


def test_named_parts_and_other_add_up_to_the_total_in_cents(snapshot):
    columns = snapshot.columns(snapshot.positions(CUSTOMERS))
    cents = {name: np.rint(columns[f"predicted_{name}_spend"] * 100).astype(int) for name in money_columns(TARGETS)}
    np.testing.assert_array_equal(sum(cents[name] for name in money_columns(TARGETS)[1:]), cents["total"])


def test_answers_follow_the_customer_and_not_the_order_of_asking(snapshot):
    one = snapshot.columns(snapshot.positions(["7"]))
    all_reversed = snapshot.columns(snapshot.positions(CUSTOMERS[::-1]))
    where = CUSTOMERS[::-1].index("7")
    for name, values in one.items():
        assert values[0] == all_reversed[name][where], name


def test_asking_for_nobody_answers_with_nothing(snapshot):
    assert snapshot.positions([]).tolist() == []
    assert all(len(values) == 0 for values in snapshot.columns(np.zeros(0, dtype=int)).values())


def test_a_snapshot_of_no_customers_can_be_opened_and_knows_nobody(tmp_path):
    snapshot = load_snapshot(tmp_path, write_toy_pair(tmp_path, []).snapshot_id)
    assert snapshot.n_customers == 0
    assert snapshot.positions(["7"]).tolist() == [-1]


def test_a_repeated_customer_is_refused(tmp_path):
    with pytest.raises(ValueError, match="twice"):
        write_toy_pair(tmp_path, ["7", "7"])
    assert not snapshots_dir(tmp_path).exists()


def test_a_damaged_snapshot_is_refused_by_name(tmp_path):
    pair = write_toy_pair(tmp_path, CUSTOMERS)
    folder = snapshots_dir(tmp_path) / pair.snapshot_id
    body = (folder / "money.npy").read_bytes()
    (folder / "money.npy").write_bytes(body[: len(body) // 2])
    with pytest.raises(SnapshotMismatch, match=r"money\.npy"):
        load_snapshot(tmp_path, pair.snapshot_id)
    (folder / "money.npy").unlink()
    with pytest.raises(SnapshotMismatch, match=r"money\.npy"):
        load_snapshot(tmp_path, pair.snapshot_id)
    for content in ("{}", "[]", '{"format": 2, "as_of": 7}'):
        (folder / "meta.json").write_text(content)
        with pytest.raises(SnapshotMismatch):
            load_snapshot(tmp_path, pair.snapshot_id)
        assert snapshot_day(tmp_path, pair.snapshot_id) is None


def test_a_snapshot_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NoServingModel, match="20260101-nothing"):
        load_snapshot(tmp_path, "20260101-nothing")
