import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from ml_pipeline.bundle import ServingPair, read_pointer, versions_dir
from ml_pipeline.errors import BundleMismatch, NoServingModel, NothingToRollBackTo, PointerUnreadable, UnknownVersion
from ml_pipeline.pointer import PREVIOUS_KEPT, Serving, read_serving, write_pointer, write_serving
from ml_pipeline.promotion import follow, is_complete, pairs_of, promote, roll_back
from ml_pipeline.snapshot import snapshots_dir
from tests.ml_pipeline.spoiled_pairs import remade_snapshot
from tests.ml_pipeline.toy_models import write_toy_pair

A, B, C, D = (ServingPair(f"b{name}", f"s{name}") for name in "ABCD")


@pytest.fixture
def three(tmp_path):
    """Three toy pairs, promoted one after the other, and their folder."""
    return tmp_path, [write_toy_pair(tmp_path, ["c1"], seed=seed) for seed in (1, 2, 3)]


def test_each_promotion_counts_and_remembers_those_before_it_the_newest_first(tmp_path):
    for pair in (A, B, C):
        write_pointer(tmp_path, pair)
    assert read_serving(tmp_path) == Serving(C, 3, (B, A))


def test_a_pair_that_comes_back_is_remembered_once(tmp_path):
    for pair in (A, B, A, A, C):
        write_pointer(tmp_path, pair)
    assert read_serving(tmp_path) == Serving(C, 5, (A, B))


def test_no_more_than_ten_are_remembered(tmp_path):
    for number in range(PREVIOUS_KEPT + 5):
        write_pointer(tmp_path, ServingPair(f"b{number}", "s"))
    previous = read_serving(tmp_path).previous
    assert [pair.bundle_id for pair in previous] == [f"b{number}" for number in range(13, 3, -1)]


def test_a_pointer_of_a_version_that_did_not_count_is_generation_0(tmp_path):
    (tmp_path / "current.json").write_text('{"bundle": "bA", "snapshot": "sA"}')
    assert read_serving(tmp_path) == Serving(A, 0, ())
    write_pointer(tmp_path, B)
    assert read_serving(tmp_path) == Serving(B, 1, (A,))


@pytest.mark.parametrize(
    "wrong",
    [
        {"generation": -1},
        {"generation": "7"},
        {"generation": True},
        {"previous": {"bundle": "b"}},
        {"previous": ["b"]},
        {"bundle": "../../etc"},
        {"bundle": ""},
    ],
)
def test_a_pointer_that_says_what_cannot_be_is_damaged_and_replaced_by_the_next_promotion(tmp_path, wrong):
    (tmp_path / "current.json").write_text(json.dumps({"bundle": "bA", "snapshot": "sA", **wrong}))
    with pytest.raises(BundleMismatch, match="not a pointer"):
        read_serving(tmp_path)
    assert write_pointer(tmp_path, B) == Serving(B, 1)


def test_a_pointer_that_cannot_be_read_is_named_and_not_replaced(tmp_path):
    (tmp_path / "current.json").mkdir()
    for attempt in (
        read_serving,
        lambda models: write_pointer(models, A),
        lambda models: follow(models, Serving(A, 9)),
    ):
        with pytest.raises(PointerUnreadable, match=r"current\.json cannot be read \(Is a directory\)"):
            attempt(tmp_path)


def test_a_rollback_goes_to_the_one_before_and_once_more_goes_further_back(three):
    models, (first, second, third) = three
    assert roll_back(models) == read_serving(models) == Serving(second, 4, (first, third))
    assert roll_back(models) == Serving(first, 5, (third, second))
    assert json.loads((models / "model_metadata_enhanced.json").read_text())["bundle_id"] == first.bundle_id


def test_a_rollback_passes_over_what_is_not_complete_any_more(three):
    models, (first, second, third) = three
    (versions_dir(models) / second.bundle_id / "backtest.json").unlink()
    assert not is_complete(models, second)
    assert roll_back(models) == Serving(first, 4, (second, third))


def test_with_nothing_left_before_it_a_rollback_is_refused_and_changes_nothing(three):
    models, (first, second, third) = three
    for pair in (first, second):
        shutil.rmtree(snapshots_dir(models) / pair.snapshot_id)
    with pytest.raises(NothingToRollBackTo, match=f"{third.bundle_id} serves.*2 known by name"):
        roll_back(models)
    assert read_serving(models).generation == 3


def test_without_a_pointer_there_is_nothing_to_go_back_from(tmp_path):
    with pytest.raises(NoServingModel):
        roll_back(tmp_path)


def test_a_rollback_to_a_named_bundle_may_skip_some_and_take_one_that_never_served(three):
    models, (first, second, third) = three
    other = ServingPair(first.bundle_id, remade_snapshot(models, second.snapshot_id, first.bundle_id))
    assert set(pairs_of(models, first.bundle_id)) == {first, other}
    assert roll_back(models, first.bundle_id).pair == first, "the snapshot that it served with"
    never = write_toy_pair(models, ["c1"], seed=9)
    write_serving(models, Serving(third, 7, (second,)))
    assert roll_back(models, never.bundle_id) == Serving(never, 8, (second, third))


def test_a_bundle_that_is_not_there_or_serves_already_is_refused_by_name(three):
    models, (_first, _second, third) = three
    with pytest.raises(UnknownVersion, match="20250101-unknown"):
        roll_back(models, "20250101-unknown")
    with pytest.raises(NothingToRollBackTo, match=f"{third.bundle_id} serves already"):
        roll_back(models, third.bundle_id)
    assert read_pointer(models) == third


def test_who_is_asked_before_a_rollback_can_refuse_it(three):
    models, (_first, second, third) = three
    asked = []

    def refuse(pair):
        asked.append((pair, read_pointer(models)))
        raise BundleMismatch("no")

    with pytest.raises(BundleMismatch):
        roll_back(models, None, refuse)
    assert (asked, read_serving(models).generation) == ([(second, third)], 3)


def test_promotions_at_once_lose_none_of_each_other(three):
    models, pairs = three
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda number: promote(models, pairs[number % 3]), range(12)))
    serving = read_serving(models)
    assert serving.generation == 15
    assert {serving.pair, *serving.previous} == set(pairs)


def test_of_two_pointers_the_later_generation_holds_and_of_one_generation_the_later_day(tmp_path):
    ordered = [
        Serving(ServingPair("20260101-bbb", "20260101-sss"), 1),
        Serving(ServingPair("20260301-aaa", "20260301-aaa"), 2),
        Serving(ServingPair("20260101-aaa", "20260401-aaa"), 2),
        Serving(ServingPair("20260101-bbb", "20260401-aaa"), 2),
        Serving(ServingPair("20250101-aaa", "20250101-aaa"), 3),
    ]
    assert sorted([ordered[place] for place in (3, 1, 4, 0, 2)], key=lambda serving: serving.rank) == ordered


def test_only_a_higher_pointer_is_taken_over_with_what_it_remembers(three):
    models, (first, second, third) = three
    assert not follow(models, Serving(second, 2, ()))
    assert read_serving(models).pair == third
    theirs = Serving(first, 9, (second,))
    assert follow(models, theirs)
    assert read_serving(models) == theirs
    assert not follow(models, theirs)
