import shutil
import time

import pytest

from ml_pipeline.pointer import Serving, ServingPair, read_serving, write_pointer, write_serving
from ml_pipeline.promotion import promote
from services import model_changeover, shared_models
from services.model_publication import publish_pair
from services.model_registry import ModelRegistry
from services.object_store import FolderStore
from services.shared_models import KEY, read_shared
from tests.ml_pipeline.spoiled_pairs import copied, damage, file_of, with_other_golden
from tests.ml_pipeline.toy_models import write_toy_pair

CUSTOMERS = ["C1", "C2", "C3"]


@pytest.fixture
def objects(tmp_path):
    return FolderStore(tmp_path / "shared")


@pytest.fixture
def host(tmp_path, objects, monkeypatch):
    """Makes hosts that share nothing but the object store; their threads do nothing by themselves."""
    monkeypatch.setattr(model_changeover.ModelChangeover, "start", lambda self: None)

    def made(name):
        (tmp_path / name / "models").mkdir(parents=True)
        return Host(tmp_path / name, objects)

    return made


class Host:
    """One process on a host."""

    def __init__(self, folder, objects):
        self.models = folder / "models"
        self.registry = ModelRegistry(self.models, objects, folder / "var" / "models", is_shared=True)

    def promoted(self, seed):
        return write_toy_pair(self.models, CUSTOMERS, seed=seed)

    def looked(self):
        """The pair that serves after a look at what there is."""
        self.registry.check_now()
        return self.registry.serving().pair


def test_what_one_host_promotes_serves_on_the_others_and_is_remembered_there(host, objects):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    assert one.registry.announce()
    assert other.looked() == first
    second = one.promoted(2)
    one.looked()
    assert read_shared(objects) == Serving(second, 2, (first,))
    assert other.looked() == second
    assert read_serving(other.models) == read_serving(one.models)
    shutil.rmtree(one.models)
    objects.delete_below("models")
    again = Host(other.models.parent, objects)
    assert again.looked() == second, "a new process of the other host needs nobody"


def test_it_goes_in_both_directions(host):
    one, other = host("one"), host("other")
    one.promoted(1)
    one.looked()
    other.looked()
    second = other.promoted(2)
    assert read_serving(other.models).generation == 2
    other.looked()
    assert one.looked() == second


def test_the_first_request_of_a_host_without_models_is_answered_by_what_is_shared(host):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    assert other.registry.serving().pair == first


def test_who_trains_catches_up_first_so_that_the_new_model_follows_the_latest(host):
    one, other = host("one"), host("other")
    for seed in (1, 2, 3):
        late = one.promoted(seed)
    one.looked()
    other.registry.catch_up()
    trained = other.promoted(4)
    assert read_serving(other.models) == Serving(trained, 4, (late, *read_serving(one.models).previous))
    other.registry.announce()
    assert one.looked() == trained


def test_of_two_promotions_at_once_the_same_one_wins_everywhere(host):
    one, other = host("one"), host("other")
    one.promoted(1)
    one.looked()
    other.looked()
    mine, theirs = one.promoted(2), other.promoted(3)
    for _ in range(2):
        one.looked()
        other.looked()
    assert one.looked() == other.looked() == max((mine, theirs), key=lambda pair: Serving(pair).rank)


def test_a_pair_that_this_host_refuses_is_not_announced(host, objects):
    one = host("one")
    first = one.promoted(1)
    one.looked()
    write_pointer(one.models, with_other_golden(one.models, first))
    assert not one.registry.announce()
    assert read_shared(objects).pair == first


def test_a_pair_that_another_host_refuses_leaves_the_old_one_there(host, objects):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    other.looked()
    bad = with_other_golden(one.models, first)
    write_pointer(one.models, bad)
    with objects.create(KEY) as path:
        path.write_bytes(read_serving(one.models).as_json())
    publish_pair(objects, one.models, bad.bundle_id, bad.snapshot_id)
    assert other.looked() == first
    assert bad.bundle_id in other.registry.refusals()[0].sentence


def test_what_was_published_damaged_is_said_tried_again_seldom_and_the_next_one_at_once(
    host, objects, tmp_path, caplog, monkeypatch
):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    other.looked()
    second = one.promoted(2)
    one.looked()
    damage(tmp_path / "shared" / "models" / "snapshots" / second.snapshot_id / "money.npy")
    for _ in range(4):
        assert other.looked() == first
    assert "money.npy" in other.registry.sharing_problem()
    said = [record for record in caplog.records if record.message == "the models cannot be shared with other hosts"]
    assert len(said) == 1
    third = one.promoted(3)
    one.looked()
    assert other.looked() == third
    assert other.registry.sharing_problem() is None


def test_an_object_store_that_is_away_is_said_and_stops_nothing(host, tmp_path, objects):
    one = host("one")
    first = one.promoted(1)
    (tmp_path / "shared").write_text("a file where the folder should be")
    assert one.looked() == first
    assert "cannot be used" in one.registry.sharing_problem()
    (tmp_path / "shared").unlink()
    one.looked()
    assert one.registry.sharing_problem() is None
    assert read_shared(objects).pair == first


def test_a_damaged_shared_pointer_counts_as_none_and_is_replaced(host, objects, caplog):
    one = host("one")
    first = one.promoted(1)
    with objects.create(KEY) as path:
        path.write_text("{")
    one.looked()
    assert read_shared(objects).pair == first


def test_a_store_that_was_emptied_is_filled_again(host, objects):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    objects.delete_below("models")
    one.looked()
    one.looked()
    assert other.looked() == first


def test_a_host_with_a_damaged_pointer_takes_over_that_of_the_others(host):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    other.looked()
    (other.models / "current.json").write_text("")
    assert other.looked() == first
    assert other.registry.refusals() == []


def test_without_a_shared_store_nothing_is_announced_nor_taken_over(tmp_path, objects, host):
    one = host("one")
    one.promoted(1)
    one.looked()
    alone = ModelRegistry(tmp_path / "alone", objects, tmp_path / "cache")
    promote_alone = write_toy_pair(tmp_path / "alone", CUSTOMERS, seed=5)
    alone.check_now()
    assert alone.serving().pair == promote_alone
    assert not alone.announce()
    assert read_shared(objects).pair != promote_alone


def test_the_threads_of_two_hosts_follow_each_other(tmp_path, objects, monkeypatch):
    monkeypatch.setattr(shared_models, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(model_changeover, "LOOK_SECONDS", 0.05)
    for name in ("one", "other"):
        (tmp_path / name / "models").mkdir(parents=True)
    one, other = (Host(tmp_path / name, objects) for name in ("one", "other"))
    one.promoted(1)
    one.registry.serving()
    deadline = time.monotonic() + 5
    while read_shared(objects) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other.registry.serving()
    for here, there, seed in ((one, other, 2), (other, one, 3), (one, other, 4)):
        pair = here.promoted(seed)
        while there.registry.serving().pair != pair:
            assert time.monotonic() < deadline + 10
            time.sleep(0.01)


def test_a_taken_over_pair_brings_its_copies_for_integrators(host):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    promote(one.models, copied(one.models, first, "again"))
    one.looked()
    other.looked()
    assert (other.models / "MODEL_CARD.md").read_text() == (one.models / "MODEL_CARD.md").read_text()
    assert file_of(other.models, read_serving(other.models).pair, "metadata.json").is_file()


def test_an_older_pointer_on_a_host_that_comes_back_gives_way(host):
    one, other = host("one"), host("other")
    first = one.promoted(1)
    one.looked()
    other.looked()
    late = one.promoted(2)
    one.looked()
    write_serving(other.models, Serving(ServingPair(first.bundle_id, first.snapshot_id), 1))
    assert other.looked() == late
