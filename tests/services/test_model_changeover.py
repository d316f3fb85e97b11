import gc
import json
import logging
import shutil
import threading
import time
import weakref

import pytest

from ml_pipeline.bundle import versions_dir
from ml_pipeline.errors import BundleMismatch, NoServingModel, SnapshotMismatch
from ml_pipeline.pointer import read_pointer, write_pointer
from ml_pipeline.snapshot import snapshots_dir
from services import model_changeover
from services.health_service import HealthService
from services.model_publication import SealedFolder
from services.model_registry import ModelRegistry
from tests.ml_pipeline.booster_pair import MEMBER, write_booster_pair
from tests.ml_pipeline.spoiled_pairs import copied, damage, file_of, with_other_golden
from tests.ml_pipeline.toy_models import write_toy_pair

MEMBER_FILE = f"members/{MEMBER}.json"


@pytest.fixture(scope="module")
def two_pairs(tmp_path_factory):
    """A models folder with two real pairs of which the first serves; only to be copied."""
    folder = tmp_path_factory.mktemp("two")
    second = write_booster_pair(folder, ["C1", "C2", "C3"], [], seed=2)
    first = write_booster_pair(folder, ["C1", "C2", "C3"], [], seed=1)
    (folder / "current.json").unlink()
    write_pointer(folder, first)
    return folder, first, second


@pytest.fixture
def shop(two_pairs, tmp_path):
    """A copy of it: the folder, the pair that serves, and another."""
    folder, first, second = two_pairs
    shutil.copytree(folder, tmp_path / "models")
    return tmp_path / "models", first, second


@pytest.fixture
def quiet(monkeypatch):
    """The thread does not look by itself: what happens, happens in the test."""
    monkeypatch.setattr(model_changeover.ModelChangeover, "start", lambda self: None)


def spoil(models, pair, how):
    """Makes the pair unfit in one of the ways there are; the pair to promote, and what the refusal says."""
    if how == "golden":
        return with_other_golden(models, pair), "golden rows differently"
    if how == "no bundle":
        shutil.rmtree(versions_dir(models) / pair.bundle_id)
        return pair, "There is no bundle"
    if how == "no snapshot":
        shutil.rmtree(snapshots_dir(models) / pair.snapshot_id)
        return pair, "There is no snapshot"
    if how == "format":
        path = file_of(models, pair, "metadata.json")
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
        return pair, "has format 2"
    if how == "cut":
        path = file_of(models, pair, "money.npy")
        path.write_bytes(path.read_bytes()[:-8])
        return pair, "missing or damaged"
    damage(file_of(models, pair, how))
    return pair, how.rpartition("/")[2]


WAYS = [
    "golden",
    "no bundle",
    "no snapshot",
    "format",
    "cut",
    MEMBER_FILE,
    "backtest.json",
    "money.npy",
    "features.npy",
]


@pytest.mark.parametrize("how", WAYS)
def test_a_bad_pair_is_refused_and_the_old_one_stays(shop, quiet, how):
    models, _first, second = shop
    registry = ModelRegistry(models)
    before = registry.serving()
    bad, said = spoil(models, second, how)
    write_pointer(models, bad)
    registry.check_now()
    assert registry.serving() is before
    (refusal,) = registry.refusals()
    assert said in refusal.reason
    assert refusal.sentence.startswith(f"bundle {bad.bundle_id} was refused: ")
    assert registry.refusal_of(bad) == refusal


@pytest.mark.parametrize("how", ["golden", "no bundle", "format", MEMBER_FILE, "cut"])
def test_a_process_that_begins_with_a_bad_pair_serves_the_newest_before_it_that_can(shop, quiet, how):
    models, first, second = shop
    bad, said = spoil(models, second, how)
    gone = write_toy_pair(models, ["C1"])
    shutil.rmtree(versions_dir(models) / gone.bundle_id)
    write_pointer(models, bad)
    registry = ModelRegistry(models)
    assert registry.serving().pair == first
    assert [said in refusal.reason for refusal in registry.refusals()] == [True]


def test_a_process_that_begins_with_a_damaged_snapshot_finds_out_beside_the_requests_and_serves_the_one_before(shop):
    models, first, second = shop
    damage(file_of(models, second, "features.npy"))
    write_pointer(models, second)
    registry = ModelRegistry(models)
    registry.serving()
    registry.check_now()
    assert registry.serving().pair == first
    assert "features.npy" in registry.refusals()[0].reason


def test_with_nothing_before_it_a_damaged_snapshot_serves_nothing(tmp_path, quiet):
    pair = write_toy_pair(tmp_path, ["C1"])
    damage(file_of(tmp_path, pair, "money.npy"))
    registry = ModelRegistry(tmp_path)
    registry.check_now()
    for _ in range(2):
        with pytest.raises(SnapshotMismatch, match=r"money\.npy"):
            registry.serving()


def test_a_bad_pair_is_tried_once_until_its_pointer_or_its_files_are_replaced(shop, quiet, caplog):
    models, _first, second = shop
    registry = ModelRegistry(models)
    registry.serving()
    path = file_of(models, second, MEMBER_FILE)
    good = damage(path)
    write_pointer(models, second)

    def refusals():
        return [record.message for record in caplog.records].count("refused")

    with caplog.at_level(logging.INFO):
        for _ in range(5):
            registry.check_now()
        assert refusals() == 1
        write_pointer(models, second)
        registry.check_now()
        registry.check_now()
        assert refusals() == 2
        path.write_bytes(good)
        registry.check_now()
    assert registry.serving().pair == second
    assert registry.refusals() == []


def test_a_bad_pair_is_tried_again_now_and_then_more_and_more_seldom(shop, quiet, caplog, monkeypatch):
    models, _first, second = shop
    registry = ModelRegistry(models)
    registry.serving()
    damage(file_of(models, second, MEMBER_FILE))
    write_pointer(models, second)
    now = time.monotonic()
    tried_at = []
    for passed in range(0, 600, 10):
        monkeypatch.setattr(model_changeover.time, "monotonic", lambda passed=passed: now + passed)
        caplog.clear()
        registry.check_now()
        tried_at += [passed for record in caplog.records if record.message == "refused"]
    assert tried_at == [0, 60, 180, 420]


@pytest.mark.parametrize("damaged", ["", "{", '{"bundle": 1}', None])
def test_a_pointer_that_is_damaged_or_gone_changes_nothing_and_is_warned_of(shop, quiet, damaged):
    models, first, second = shop
    registry = ModelRegistry(models)
    registry.serving()
    if damaged is None:
        (models / "current.json").unlink()
    else:
        (models / "current.json").write_text(damaged)
    registry.check_now()
    assert registry.serving().pair == first
    assert registry.refusals()[0].sentence.startswith("the pointer was refused")
    write_pointer(models, second)
    registry.check_now()
    assert (registry.serving().pair, registry.refusals()) == (second, [])


def test_a_process_without_any_pair_says_why_each_time_and_serves_when_there_is_one(tmp_path, quiet):
    registry = ModelRegistry(tmp_path)
    for _ in range(3):
        with pytest.raises(NoServingModel, match=r"no current\.json|There is no current\.json"):
            registry.serving()
    pair = write_toy_pair(tmp_path, ["C1"])
    assert registry.serving().pair == pair


def test_an_error_that_nobody_thought_of_refuses_the_pair_too(shop, quiet, monkeypatch, caplog):
    models, first, second = shop
    registry = ModelRegistry(models)
    registry.serving()
    write_pointer(models, second)

    def fail(*_arguments, **_more):
        raise RuntimeError("secret detail")

    monkeypatch.setattr("ml_pipeline.predictor.load_predictor", fail)
    registry.check_now()
    assert registry.serving().pair == first
    assert "RuntimeError" in registry.refusals()[0].reason
    assert "secret" not in registry.refusals()[0].reason


def test_health_is_degraded_with_a_warning_while_a_pair_is_refused(shop, quiet, services):
    models, first, second = shop
    registry = ModelRegistry(models)
    health = HealthService(services.steps, services.objects, services.health._queue, registry)
    assert health.can_predict()["status"] == "ok"
    bad = with_other_golden(models, second)
    write_pointer(models, bad)
    registry.check_now()
    state = health.can_predict()
    assert (state["status"], state["model_version"]) == ("degraded", first.bundle_id)
    assert any(f"bundle {bad.bundle_id} was refused" in warning for warning in state["warnings"])
    report = health.report()
    assert (report["status"], "model" in report["degraded"]) == ("degraded", True)


def test_the_thread_follows_the_pointer_and_nobody_waits_for_it(shop):
    models, first, second = shop
    registry = ModelRegistry(models)
    assert registry.serving().pair == first
    write_pointer(models, second)
    deadline, longest = time.monotonic() + 5, 0.0
    while registry.serving().pair != second:
        assert time.monotonic() < deadline
        began = time.perf_counter()
        registry.serving()
        longest = max(longest, time.perf_counter() - began)
        time.sleep(0.002)
    assert longest < 0.1
    assert registry.serving().predictor.is_loaded


def test_the_thread_survives_what_goes_wrong_in_it(shop, monkeypatch):
    models, _first, second = shop
    registry = ModelRegistry(models)
    registry.serving()
    failed = threading.Event()
    look = model_changeover.ModelChangeover._look

    def fail_once(self):
        if not failed.is_set():
            failed.set()
            raise RuntimeError
        look(self)

    monkeypatch.setattr(model_changeover.ModelChangeover, "_look", fail_once)
    write_pointer(models, second)
    assert failed.wait(5)
    deadline = time.monotonic() + 5
    while registry.serving().pair != second:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_thread_ends_with_its_registry(shop):
    models, _first, _second = shop
    registry = ModelRegistry(models)
    registry.serving()
    thread, gone = registry._changeover._thread, weakref.ref(registry._changeover)
    del registry
    gc.collect()
    thread.join(5)
    assert (thread.is_alive(), gone()) == (False, None)


def test_the_old_pair_goes_when_the_last_request_that_has_it_is_answered(shop, quiet):
    models, _first, second = shop
    registry = ModelRegistry(models)
    in_flight = registry.serving()
    old = weakref.ref(in_flight.predictor.get())
    write_pointer(models, second)
    registry.check_now()
    gc.collect()
    assert old() is not None
    assert in_flight.predictor.get().predict(in_flight.snapshot.features([0, 1])).money.shape[0] == 2
    del in_flight
    gc.collect()
    assert old() is None


def test_threads_that_ask_during_changes_get_whole_pairs_and_never_wait(shop):
    models, first, second = shop
    pairs = [first, second, copied(models, first, "third")]
    bad = with_other_golden(models, second)
    registry = ModelRegistry(models)
    registry.serving()
    over, wrong, waits = threading.Event(), [], []
    expected = {pair.snapshot_id: pair.bundle_id for pair in pairs}

    def hammer():
        while not over.is_set():
            began = time.perf_counter()
            model = registry.serving()
            waits.append(time.perf_counter() - began)
            if expected.get(model.snapshot.snapshot_id) != model.version or model.snapshot.bundle_id != model.version:
                wrong.append(model)
            model.snapshot.columns([0])
            time.sleep(0.0005)

    threads = [threading.Thread(target=hammer) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(12):
        pair = bad if number % 4 == 3 else pairs[number % 3]
        write_pointer(models, pair)
        registry.check_now()
        assert (registry.serving().pair == pair) != (pair == bad)
    over.set()
    for thread in threads:
        thread.join()
    assert (wrong, len(waits) > 500, max(waits) < 0.3) == ([], True, True)


def test_what_was_read_once_on_a_host_is_not_read_again_unless_a_file_was_replaced(shop, quiet, tmp_path, monkeypatch):
    models, _first, second = shop
    read = []
    check = SealedFolder.check_content

    def counted(self, folder):
        read.append(self.kind)
        check(self, folder)

    monkeypatch.setattr(SealedFolder, "check_content", counted)
    processes = [ModelRegistry(models, None, tmp_path / "cache") for _ in range(3)]
    for registry in processes:
        registry.serving()
        registry.check_now()
    assert read == ["versions", "snapshots"]
    write_pointer(models, second)
    for registry in processes:
        registry.check_now()
    assert read == ["versions", "snapshots"] * 2
    damage(file_of(models, read_pointer(models), "money.npy"))
    with pytest.raises(SnapshotMismatch):
        ModelRegistry(models, None, tmp_path / "cache").ready(second)


def test_a_pair_that_is_to_serve_can_be_looked_at_before(shop, quiet):
    models, first, second = shop
    registry = ModelRegistry(models)
    assert registry.ready(second).predictor.is_loaded
    with pytest.raises(BundleMismatch, match="golden"):
        registry.ready(with_other_golden(models, second))
    assert registry.serving().pair == first
