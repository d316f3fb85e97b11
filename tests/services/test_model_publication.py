import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from ml_pipeline.bundle import ServingPair
from ml_pipeline.errors import BundleMismatch, NoServingModel, SnapshotMismatch
from services.errors import ObjectMissing, StorageFull
from services.model_publication import UNUSED_SECONDS
from services.model_registry import ModelRegistry
from services.object_store import FolderStore
from services.verified_files import FOLDER as VERIFIED
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.ml_pipeline.toy_models import write_toy_pair
from tests.small_disk import small_disk

CUSTOMERS = ["C1", "C2", "C3"]


class Host:
    """A registry as one host has it: a models folder, maybe empty, and a folder for what it fetches."""

    def __init__(self, folder: Path, objects: FolderStore | None) -> None:
        self.models, self.cache = folder / "models", folder / "var" / "models"
        self.models.mkdir(parents=True)
        self.objects = objects
        self.restart()

    def restart(self) -> None:
        """A new process."""
        self.registry = ModelRegistry(self.models, self.objects, self.cache)

    def opened(self, pair: ServingPair):
        return self.registry.pair(pair.bundle_id, pair.snapshot_id)

    def fetched(self) -> list[str]:
        """Every file that was fetched, and what is left of fetching."""
        found = (path.relative_to(self.cache).as_posix() for path in self.cache.rglob("*") if path.is_file())
        return sorted(name for name in found if name != ".lock" and not name.startswith(VERIFIED))


@pytest.fixture
def objects(tmp_path):
    return FolderStore(tmp_path / "shared")


@pytest.fixture
def trainer(tmp_path, objects):
    """The host that has the models."""
    return Host(tmp_path / "trainer", objects)


@pytest.fixture
def worker(tmp_path, objects):
    """A host that shares nothing but the object store."""
    return Host(tmp_path / "worker", objects)


@pytest.fixture
def pair(trainer):
    """Served, published, and then gone from the host that made it."""
    made = write_toy_pair(trainer.models, CUSTOMERS)
    trainer.registry.publish(trainer.registry.serving())
    return made


def forget_models(host: Host) -> None:
    """What is published must not need the folder that it came from."""
    shutil.rmtree(host.models)


def test_a_host_without_models_opens_what_another_has_published(trainer, worker, pair):
    forget_models(trainer)
    model = worker.opened(pair)
    assert model.version == pair.bundle_id
    assert model.snapshot.snapshot_id == pair.snapshot_id
    assert list(model.snapshot.positions(CUSTOMERS)) == [0, 1, 2]


def test_a_fetched_bundle_can_be_loaded_and_predicts_the_same(trainer, worker):
    made = write_booster_pair(trainer.models, CUSTOMERS, [])
    here = trainer.registry.serving()
    trainer.registry.publish(here)
    there = worker.opened(made)
    features = here.snapshot.features([0, 1, 2])
    assert (there.predictor.get().predict(features).raw == here.predictor.get().predict(features).raw).all()


def test_the_figures_of_a_fetched_bundle_are_found_where_it_is(worker, pair):
    assert "targets" in worker.registry.backtest(worker.opened(pair))


def test_what_was_measured_beside_a_bundle_is_not_published(trainer, objects):
    made = write_toy_pair(trainer.models, CUSTOMERS)
    (trainer.models / "versions" / made.bundle_id / "timings.json").write_text("{}")
    trainer.registry.publish(trainer.registry.serving())
    published = objects.names(f"models/versions/{made.bundle_id}")
    assert f"models/versions/{made.bundle_id}/backtest.json" in published
    assert not any("timings" in name for name in published)


def test_publishing_again_writes_nothing(trainer, objects, pair, tmp_path):
    def files() -> dict[str, int]:
        return {name: (tmp_path / "shared" / name).stat().st_ino for name in objects.names("models")}

    before = files()
    trainer.registry.publish(trainer.registry.serving())
    trainer.restart()
    trainer.registry.publish(trainer.registry.serving())
    assert files() == before


def test_on_one_disk_published_files_and_fetched_ones_are_links(trainer, worker, pair):
    worker.opened(pair)
    name = Path("snapshots") / pair.snapshot_id / "features.npy"
    assert (worker.cache / name).samefile(trainer.models / name)


def test_a_pair_is_published_again_after_the_object_store_was_emptied(trainer, worker, objects, pair):
    objects.delete_below("models")
    trainer.registry.publish(trainer.registry.serving())
    assert worker.opened(pair).version == pair.bundle_id


def test_a_publication_that_broke_off_is_not_taken_for_a_pair_and_is_completed(
    trainer, worker, objects, pair, tmp_path
):
    shared = tmp_path / "shared" / "models" / "snapshots"
    (shared / f"{pair.snapshot_id}.json").unlink()
    (shared / pair.snapshot_id / "features.npy").unlink()
    with pytest.raises(NoServingModel, match=pair.snapshot_id):
        worker.opened(pair)
    trainer.restart()
    trainer.registry.publish(trainer.registry.serving())
    assert worker.opened(pair).snapshot.n_customers == 3


def test_the_pair_in_the_models_folder_is_opened_where_it_is(trainer, pair):
    assert trainer.opened(pair).home == trainer.models
    assert trainer.fetched() == []


def test_a_pair_that_is_nowhere_is_named_with_the_way_out(trainer, worker, tmp_path):
    made = write_toy_pair(trainer.models, CUSTOMERS)
    with pytest.raises(
        NoServingModel, match=f"{made.bundle_id}.*nor published.*upload its file again.*roll back"
    ) as caught:
        worker.opened(made)
    assert str(tmp_path) not in str(caught.value)
    assert worker.fetched() == []


def test_without_an_object_store_there_is_the_models_folder_alone(tmp_path, trainer, pair):
    alone = Host(tmp_path / "alone", None)
    with pytest.raises(NoServingModel):
        alone.opened(pair)
    alone.registry.publish(trainer.registry.serving())


def test_a_fetched_pair_needs_the_object_store_no_more(worker, objects, pair):
    worker.opened(pair)
    objects.delete_below("models")
    worker.restart()
    assert worker.opened(pair).version == pair.bundle_id


def change(path: Path, content: bytes) -> None:
    """Replaces a published file without touching the one that it is a link to."""
    path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("versions/{bundle}/metadata.json", BundleMismatch),
        ("versions/{bundle}/backtest.json", BundleMismatch),
        ("snapshots/{snapshot}/meta.json", SnapshotMismatch),
        ("snapshots/{snapshot}/money.npy", SnapshotMismatch),
    ],
)
def test_a_published_file_that_is_damaged_is_named_and_never_opened(worker, pair, tmp_path, name, error, how):
    key = name.format(bundle=pair.bundle_id, snapshot=pair.snapshot_id)
    published = tmp_path / "shared" / "models" / key
    content = published.read_bytes()
    middle = len(content) // 2
    if how == "gone":
        published.unlink()
    else:
        change(published, content[:-1] if how == "cut" else content[:middle] + b"?" + content[middle + 1 :])
    with pytest.raises(ObjectMissing if how == "gone" else error, match=Path(key).name) as caught:
        worker.opened(pair)
    assert str(tmp_path) not in str(caught.value)
    half = Path(key).parts[0]
    assert [found for found in worker.fetched() if found.startswith(half)] == []
    change(published, content) if how != "gone" else published.write_bytes(content)
    assert worker.opened(pair).version == pair.bundle_id


def test_a_bundle_that_lacks_a_file_is_not_published(trainer, worker):
    made = write_toy_pair(trainer.models, CUSTOMERS)
    (trainer.models / "versions" / made.bundle_id / "backtest.json").unlink()
    with pytest.raises(BundleMismatch, match=r"backtest\.json"):
        trainer.registry.publish(trainer.registry.serving())
    with pytest.raises(NoServingModel):
        worker.opened(made)


def test_no_published_name_leads_out_of_the_folder(worker, pair, tmp_path):
    marker = tmp_path / "shared" / "models" / "versions" / f"{pair.bundle_id}.json"
    statement = json.loads(marker.read_text())
    statement["files"]["../../../../outside"] = 1
    marker.write_text(json.dumps(statement))
    with pytest.raises(ValueError, match="no key"):
        worker.opened(pair)


def test_what_nobody_opened_for_long_and_what_broke_off_goes_when_another_pair_is_fetched(trainer, worker, pair):
    worker.opened(pair)
    recent = write_toy_pair(trainer.models, CUSTOMERS, seed=2)
    latest = write_toy_pair(trainer.models, CUSTOMERS, seed=3)
    for each in (recent, latest):
        trainer.registry.publish(trainer.opened(each))
    worker.opened(recent)
    broken_off = worker.cache / "snapshots" / ".staging-dead"
    broken_off.mkdir()
    long_ago = time.time() - UNUSED_SECONDS - 60
    for folder in (worker.cache / "versions" / pair.bundle_id, worker.cache / "snapshots" / pair.snapshot_id):
        os.utime(folder, (long_ago, long_ago))
    worker.opened(latest)
    assert {path.name for path in (worker.cache / "snapshots").iterdir()} == {recent.snapshot_id, latest.snapshot_id}
    assert pair.bundle_id not in os.listdir(worker.cache / "versions")
    worker.restart()
    assert worker.opened(pair).version == pair.bundle_id, "a job that is still tied to it fetches it again"


def test_a_pair_that_is_opened_again_counts_as_used(worker, pair):
    worker.opened(pair)
    folder = worker.cache / "snapshots" / pair.snapshot_id
    os.utime(folder, (1.0, 1.0))
    worker.restart()
    worker.opened(pair)
    assert time.time() - folder.stat().st_mtime < 100


def open_elsewhere(folder: Path, shared: Path, bundle_id: str, snapshot_id: str) -> int:
    registry = ModelRegistry(folder / "models", FolderStore(shared), folder / "var" / "models")
    return registry.pair(bundle_id, snapshot_id).snapshot.n_customers


def test_one_fetches_and_the_others_wait_for_it(worker, objects, pair, caplog):
    registries = [ModelRegistry(worker.models, objects, worker.cache) for _ in range(8)]
    begin = threading.Barrier(len(registries))

    def open_pair(registry: ModelRegistry) -> int:
        begin.wait()
        return registry.pair(pair.bundle_id, pair.snapshot_id).snapshot.n_customers

    with caplog.at_level(logging.INFO, logger="services.model_publication"), ThreadPoolExecutor(8) as threads:
        assert set(threads.map(open_pair, registries)) == {3}
    fetched = [record.kind for record in caplog.records if record.message == "model fetched"]
    assert fetched == ["versions", "snapshots"]


def test_processes_and_threads_that_fetch_at_once_all_open_the_pair(worker, pair, tmp_path):
    asked = (worker.models.parent, tmp_path / "shared", pair.bundle_id, pair.snapshot_id)
    with ProcessPoolExecutor(2, get_context("spawn")) as processes, ThreadPoolExecutor(4) as threads:
        futures = [pool.submit(open_elsewhere, *asked) for pool in (processes, threads) for _ in range(6)]
        assert {future.result() for future in futures} == {3}
    assert len(list((worker.cache / "versions").iterdir())) == 1


KILLED = """
import os, sys
from pathlib import Path
import services.model_publication as publication
from services.model_registry import ModelRegistry
from services.object_store import FolderStore

linked = publication.link_or_copy

def killed_at_the_third_file(source, target, left=[3]):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), 9)
    linked(source, target)

publication.link_or_copy = killed_at_the_third_file
folder, shared = Path(sys.argv[1]), Path(sys.argv[2])
ModelRegistry(folder / "models", FolderStore(shared), folder / "var" / "models").pair(sys.argv[3], sys.argv[4])
"""


def test_a_fetch_that_is_killed_leaves_nothing_that_is_opened(worker, pair, tmp_path):
    asked = [str(worker.models.parent), str(tmp_path / "shared"), pair.bundle_id, pair.snapshot_id]
    ended = subprocess.run([sys.executable, "-c", KILLED, *asked], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert any(".staging-" in name for name in worker.fetched())
    assert not (worker.cache / "snapshots" / pair.snapshot_id).exists()
    assert worker.opened(pair).snapshot.n_customers == 3
    assert not any(".staging-" in name for name in worker.fetched())


def test_many_publish_at_once_and_all_may_be_fetched(trainer, worker, objects, pair):
    objects.delete_below("models")
    registries = [ModelRegistry(trainer.models, objects, trainer.cache) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda registry: registry.publish(registry.serving()), registries))
    assert worker.opened(pair).version == pair.bundle_id


def test_a_host_without_space_for_a_pair_says_so_and_fetches_it_when_there_is(trainer, objects, pair, tmp_path):
    with small_disk(tmp_path) as disk:
        full = Host(disk.path, objects)
        filler = disk.fill(leave=32_768)
        with pytest.raises(StorageFull, match=r"fetched.*VAR_DIR") as caught:
            full.opened(pair)
        assert str(tmp_path) not in str(caught.value)
        filler.unlink()
        assert full.opened(pair).version == pair.bundle_id


def test_a_full_object_store_is_named_and_published_to_when_there_is_room(trainer, tmp_path):
    made = write_toy_pair(trainer.models, CUSTOMERS)
    with small_disk(tmp_path) as disk:
        objects = FolderStore(disk.path / "objects")
        objects.check()
        registry = ModelRegistry(trainer.models, objects, trainer.cache)
        filler = disk.fill(leave=32_768)
        with pytest.raises(StorageFull):
            registry.publish(registry.serving())
        filler.unlink()
        registry.publish(registry.serving())
        assert Host(tmp_path / "other", objects).opened(made).version == made.bundle_id
