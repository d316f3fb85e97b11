import os
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import replace

import pytest

from ml_pipeline.pointer import Serving, read_serving, write_pointer, write_serving
from ml_pipeline.promotion import promote, roll_back
from services.bootstrap import build_services
from services.errors import ObjectStoreUnavailable
from services.job_table import BULK, READ, NewJob
from services.model_pruning import GRACE_SECONDS, LEFT_BEHIND_SECONDS, ModelPruning
from services.model_publication import fetch_pair, publish_pair
from services.model_registry import ModelRegistry
from services.object_store import FolderStore
from services.shared_models import KEY
from tests.ml_pipeline.spoiled_pairs import remade_snapshot
from tests.ml_pipeline.toy_models import write_toy_pair

LONG_AGO = 2 * GRACE_SECONDS


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "own_models"
    folder.mkdir()
    return folder


@pytest.fixture
def pairs(models):
    """Five, of which the last serves; all of it long ago."""
    made = [write_toy_pair(models, ["C1"], seed=seed) for seed in range(5)]
    age(models)
    return made


@pytest.fixture
def objects(tmp_path):
    return FolderStore(tmp_path / "shared")


@pytest.fixture
def pruning(models, tmp_path, services, objects):
    return ModelPruning(models, tmp_path / "cache", services.store, objects, kept=2)


def age(folder, seconds=LONG_AGO):
    """As if all below the folder, and what it is linked to, had been written so long ago."""
    when = time.time() - seconds
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (when, when))


def there(folder):
    """The pairs' halves that are in a models folder."""
    return {path.name for kind in ("versions", "snapshots") for path in (folder / kind).glob("*")}


def halves(*pairs):
    return {name for pair in pairs for name in (pair.bundle_id, pair.snapshot_id)}


def tie_a_job_to(services, pair):
    return services.store.add(NewJob(BULK, "local", "r", READ, bundle_id=pair.bundle_id, snapshot_id=pair.snapshot_id))


def test_what_serves_and_so_many_before_it_stay_and_the_rest_goes(pruning, models, pairs):
    pruning.tidy()
    assert there(models) == halves(*pairs[2:])


def test_with_none_kept_only_what_serves_stays(models, pairs, services, objects, tmp_path):
    ModelPruning(models, tmp_path / "cache", services.store, objects, kept=0).tidy()
    assert there(models) == halves(pairs[4])


def test_what_answers_in_the_place_of_bad_pairs_stays_however_many_they_are(pruning, models, pairs):
    good, *bad = pairs[::-1]
    write_serving(models, Serving(bad[0], 9, (*bad[1:], good)))
    for pair in bad:
        (models / "versions" / pair.bundle_id / "metadata.json").write_text("{}")
    registry = ModelRegistry(models)
    assert registry.serving().pair == good
    age(models)
    registry.check_now()
    pruning.tidy()
    assert there(models) == halves(good, *bad[:3])


@pytest.mark.parametrize("end", ["open", "cancelled"])
def test_a_pair_that_a_job_is_tied_to_stays_as_long_as_the_job(pruning, models, pairs, services, end):
    job = tie_a_job_to(services, pairs[0])
    if end == "cancelled":
        services.store.cancel(job.job_id)
    pruning.tidy()
    assert there(models) == halves(pairs[0], *pairs[2:])
    services.store.delete(job.job_id)
    pruning.tidy()
    assert there(models) == halves(*pairs[2:])


def test_for_an_hour_after_a_change_everything_that_served_before_stays(pruning, models, pairs):
    os.utime(models / "current.json")
    pruning.tidy()
    assert there(models) == halves(*pairs)


def test_what_was_made_lately_stays_with_the_bundle_that_made_it(pruning, models, pairs):
    fresh = write_toy_pair(models, ["C1"], seed=9)
    write_serving(models, Serving(pairs[4], 9, tuple(pairs[:4][::-1])))
    age(models)
    os.utime(models / "snapshots" / fresh.snapshot_id)
    pruning.tidy()
    assert there(models) == halves(*pairs[2:], fresh)
    age(models)
    pruning.tidy()
    assert there(models) == halves(*pairs[2:])


def test_what_is_made_a_second_time_counts_as_made_just_now(pruning, models, pairs):
    again = write_toy_pair(models, ["C1"], seed=0)
    write_serving(models, Serving(pairs[4], 9, tuple(pairs[:4][::-1])))
    os.utime(models / "current.json", (time.time() - LONG_AGO,) * 2)
    pruning.tidy()
    assert again == pairs[0]
    assert there(models) == halves(*pairs[2:], again)


def test_of_a_bundle_with_many_snapshots_the_old_ones_go(pruning, models, pairs):
    for pair in pairs[:4]:
        write_pointer(
            models, type(pair)(pairs[4].bundle_id, remade_snapshot(models, pair.snapshot_id, pairs[4].bundle_id))
        )
    age(models)
    pruning.tidy()
    serving = read_serving(models)
    assert there(models) == halves(serving.pair, *serving.previous[:2])
    assert {pair.bundle_id for pair in serving.previous[:2]} == {pairs[4].bundle_id}


@pytest.mark.parametrize("pointer", [None, "", "{}"])
def test_where_nobody_can_tell_what_serves_nothing_goes(pruning, models, pairs, objects, pointer):
    publish_pair(objects, models, pairs[0].bundle_id, pairs[0].snapshot_id)
    (models / "current.json").unlink()
    if pointer is not None:
        (models / "current.json").write_text(pointer)
    age(models)
    pruning.tidy()
    assert there(models) == halves(*pairs)
    assert objects.exists(f"models/versions/{pairs[0].bundle_id}.json")


def test_nothing_else_in_the_folder_is_touched(pruning, models, pairs):
    mine = [models / "notes.txt", models / "versions" / "my_copy" / "metadata.json", models / "snapshots" / "README"]
    linked = models / "versions" / "20200101-abcdefabcdef"
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    linked.symlink_to(models / "versions" / "my_copy")
    age(models)
    pruning.tidy()
    assert all(path.read_text() == "mine" for path in mine)
    assert linked.is_symlink()


def test_what_died_while_it_was_being_made_goes_after_a_day(pruning, models, pairs):
    old, young = models / "versions" / ".staging-old", models / "snapshots" / ".staging-young"
    for path in (old, young):
        path.mkdir()
        (path / "half.npy").write_bytes(b"")
    age(old, LEFT_BEHIND_SECONDS + 60)
    pruning.tidy()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_process_goes_on_with_a_pair_that_was_removed(pruning, models, pairs):
    registry = ModelRegistry(models)
    model = registry.pair(pairs[0].bundle_id, pairs[0].snapshot_id)
    before = model.snapshot.columns([0])
    pruning.tidy()
    assert pairs[0].snapshot_id not in there(models)
    assert model.snapshot.columns([0]).keys() == before.keys()
    assert (model.snapshot.features([0]) == model.snapshot.features([0])).all()


def test_it_waits_for_whoever_promotes_or_rolls_back(pruning, models, pairs):
    checked, go_on = threading.Event(), threading.Event()

    def wait(_pair):
        checked.set()
        assert go_on.wait(10)

    going_back = threading.Thread(target=roll_back, args=(models, pairs[0].bundle_id, wait))
    going_back.start()
    assert checked.wait(10)
    tidying = threading.Thread(target=pruning.tidy)
    tidying.start()
    tidying.join(0.3)
    assert (tidying.is_alive(), there(models)) == (True, halves(*pairs))
    go_on.set()
    going_back.join()
    tidying.join()
    assert pairs[0].snapshot_id in there(models)
    assert read_serving(models).pair == pairs[0]


def test_promotions_and_prunings_at_once_leave_whole_what_serves(models, services, objects, tmp_path):
    over = threading.Event()
    pruning = ModelPruning(models, tmp_path / "cache", services.store, objects, kept=0)

    def prune():
        while not over.is_set():
            pruning.tidy()

    threads = [threading.Thread(target=prune, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    last = None
    for seed in range(12):
        pair = write_toy_pair(models, ["C1"], seed=seed)
        os.utime(models / "current.json", (1, 1))
        for half in () if last is None else (f"versions/{last.bundle_id}", f"snapshots/{last.snapshot_id}"):
            with suppress(FileNotFoundError):
                os.utime(models / half, (1, 1))
        ModelRegistry(models).ready(pair)
        last = pair
    over.set()
    for thread in threads:
        thread.join()
    pruning.tidy()
    assert there(models) == halves(last)


def test_fetched_pairs_that_no_job_is_tied_to_go_and_come_again(pruning, models, pairs, objects, services, tmp_path):
    cache = tmp_path / "cache"
    for pair in pairs[:2]:
        publish_pair(objects, models, pair.bundle_id, pair.snapshot_id)
        fetch_pair(objects, cache, pair.bundle_id, pair.snapshot_id)
    tie_a_job_to(services, pairs[0])
    pruning.tidy()
    assert there(cache) == halves(*pairs[:2]), "they were fetched just now"
    for pair in pairs[:2]:
        for kind, name in (("versions", pair.bundle_id), ("snapshots", pair.snapshot_id)):
            os.utime(cache / kind / name, (1, 1))
    pruning.tidy()
    assert there(cache) == halves(pairs[0])


def test_notes_of_folders_that_are_gone_go_too(pruning, models, pairs, tmp_path):
    registry = ModelRegistry(models, None, tmp_path / "cache")
    registry.ready(pairs[0])
    registry.ready(pairs[4])
    pruning.tidy()
    notes = {path.stem for path in (tmp_path / "cache" / "verified").glob("*.json")}
    assert notes == halves(pairs[4])


def test_published_pairs_that_nothing_needs_go_the_marker_first(pruning, models, pairs, objects, tmp_path, services):
    for pair in pairs:
        publish_pair(objects, models, pair.bundle_id, pair.snapshot_id)
    tie_a_job_to(services, pairs[0])
    with objects.create(KEY) as path:
        path.write_bytes(Serving(pairs[3], 7, (pairs[1], pairs[2])).as_json())
    age(tmp_path / "shared")
    write_serving(models, Serving(pairs[4], 5))
    age(models)
    ModelPruning(models, tmp_path / "cache", services.store, objects, kept=1).tidy()
    published = {name.split("/")[2].removesuffix(".json") for name in objects.names("models") if name != KEY}
    assert published == halves(pairs[0], pairs[1], pairs[3], pairs[4])
    assert objects.exists(KEY)


def test_what_was_published_lately_or_half_stays_for_an_hour(pruning, models, pairs, objects, tmp_path):
    publish_pair(objects, models, pairs[0].bundle_id, pairs[0].snapshot_id)
    half = tmp_path / "shared" / "models" / "versions" / "20200101-abcdefabcdef" / "card.md"
    half.parent.mkdir()
    half.write_text("half")
    pruning.tidy()
    assert halves(pairs[0]) | {half.parent.name} <= {name.split("/")[2] for name in objects.names("models")}
    age(tmp_path / "shared")
    pruning.tidy()
    assert not [name for name in objects.names("models") if pairs[0].bundle_id in name or half.parent.name in name]


def test_a_host_that_only_works_prunes_by_the_shared_pointer(pairs, models, objects, services, tmp_path):
    for pair in pairs[:2]:
        publish_pair(objects, models, pair.bundle_id, pair.snapshot_id)
    with objects.create(KEY) as path:
        path.write_bytes(Serving(pairs[1], 7).as_json())
    age(tmp_path / "shared")
    ModelPruning(tmp_path / "nothing", tmp_path / "cache", services.store, objects, kept=2).tidy()
    published = {name.split("/")[2].removesuffix(".json") for name in objects.names("models") if name != KEY}
    assert published == halves(pairs[1])


def test_a_store_that_is_away_is_named(pruning, models, pairs, tmp_path):
    (tmp_path / "shared").write_text("a file where the folder should be")
    with pytest.raises(ObjectStoreUnavailable):
        pruning.tidy()


def test_the_watchdog_prunes(services, settings, tmp_path):
    folder = tmp_path / "own_models"
    pairs = [write_toy_pair(folder, ["C1"], seed=seed) for seed in range(6)]
    age(folder)
    built = build_services(replace(settings, models_dir=folder), services.watchdog._queue)
    built.watchdog.tidy()
    built.store.close()
    assert there(folder) == halves(*pairs[-1 - settings.models_kept :])


def test_copies_for_integrators_stay(pruning, models, pairs):
    promote(models, pairs[4])
    age(models)
    shutil.copyfile(models / "MODEL_CARD.md", models / "kept.md")
    pruning.tidy()
    assert (models / "MODEL_CARD.md").read_bytes() == (models / "kept.md").read_bytes()
