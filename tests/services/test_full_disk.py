"""A disk without space and a disk that cannot be written to, both real."""

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import xlsxwriter

from services.errors import ObjectStoreUnavailable, StorageFull
from services.object_store import UNFINISHED, FolderStore
from tests.small_disk import SmallDisk, small_disk

NUMBERS = np.random.default_rng(1).random(400_000)  # 3.2 MB, on a disk of 2 MB
TABLE = pa.table({"number": pa.array(NUMBERS)})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path) as found:
        yield found


@pytest.fixture(autouse=True)
def litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a writer that failed leaves among temporary files goes with the test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def objects(disk: SmallDisk) -> FolderStore:
    return FolderStore(disk.path / "objects")


def write_xlsx(path: Path) -> None:
    """On a full disk it raises an error that is no OSError."""
    with xlsxwriter.Workbook(path, {"constant_memory": True}) as workbook:
        sheet = workbook.add_worksheet()
        for row, numbers in enumerate(NUMBERS[:300_000].reshape(-1, 6)):
            sheet.write_row(row, 0, numbers)


def write_arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, TABLE.schema) as writer:
        writer.write_table(TABLE)


def write_npy(path: Path) -> None:
    """On a full disk NumPy says only how much it wrote."""
    with path.open("wb") as stream:
        np.save(stream, NUMBERS)


def write_text(path: Path) -> None:
    with path.open("w") as stream:
        for number in NUMBERS:
            stream.write(f"{number}\n")


WRITERS: list[Callable[[Path], None]] = [
    write_text,
    lambda path: pyarrow.csv.write_csv(TABLE, path),
    lambda path: pyarrow.parquet.write_table(TABLE, path),
    write_arrow,
    write_npy,
    write_xlsx,
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # XlsxWriter leaves its file open
@pytest.mark.parametrize("write", WRITERS, ids=["text", "csv", "parquet", "arrow", "npy", "xlsx"])
def test_whoever_fills_the_disk_is_told_so_and_leaves_nothing(disk, objects, write):
    objects.check()
    before = disk.free()
    with pytest.raises(StorageFull, match="no space left") as caught, objects.create("job/result.csv") as path:
        write(path)
    assert str(disk.path) not in str(caught.value)
    assert not objects.exists("job/result.csv")
    assert os.listdir(disk.path / "objects" / UNFINISHED) == []
    del caught
    gc.collect()
    assert disk.free() == before


def test_what_is_there_stays_and_the_next_try_succeeds_when_there_is_room(disk, objects):
    with objects.create("job/result.csv") as path:
        path.write_bytes(b"old")
    filler = disk.fill()
    with pytest.raises(StorageFull), objects.create("job/result.csv") as path:
        path.write_bytes(b"new")
    with objects.local("job/result.csv") as path:
        assert path.read_bytes() == b"old"
    filler.unlink()
    with objects.create("job/result.csv") as path:
        path.write_bytes(b"new")
    with objects.local("job/result.csv") as path:
        assert path.read_bytes() == b"new"


def test_an_upload_from_another_disk_that_does_not_fit_is_not_there(disk, objects, tmp_path):
    upload = tmp_path / "upload"
    upload.write_bytes(bytes(3_000_000))
    with pytest.raises(StorageFull):
        objects.adopt("job/upload.csv", upload)
    assert objects.names("job") == []


def test_an_upload_under_way_that_does_not_fit_is_named_and_gone(disk, objects):
    with objects.receive() as stream, pytest.raises(StorageFull):
        stream.writelines(bytes(1000) for _ in range(3000))
    assert os.listdir(disk.path / "objects" / UNFINISHED) == []
    with objects.receive() as stream:
        disk.fill()
        stream.write(b"less than a buffer")
        with pytest.raises(StorageFull):
            stream.seek(0)
    assert os.listdir(disk.path / "objects" / UNFINISHED) == []


def test_a_full_disk_can_still_be_read_and_deleted_from(disk, objects):
    with objects.create("job/upload.csv") as path:
        path.write_bytes(bytes(1_000_000))
    disk.fill()
    assert objects.names("job") == ["job/upload.csv"]
    objects.delete_below("job")
    with objects.create("job/upload.csv") as path:
        path.write_bytes(bytes(900_000))


def test_a_store_that_cannot_be_written_to_says_so_in_every_way(disk, objects):
    with objects.create("job/upload.csv") as path:
        path.write_bytes(b"content")
    disk.make_read_only()
    for attempt in (
        objects.check,
        objects.receive,
        lambda: objects.create("job/result.csv").__enter__(),
        lambda: objects.delete_below("job"),
        lambda: objects.adopt("job/result.csv", Path(__file__)),
    ):
        with pytest.raises(ObjectStoreUnavailable, match=r"Read-only file system") as caught:
            attempt()
        assert not isinstance(caught.value, StorageFull)
        assert str(disk.mounted) not in str(caught.value)
    with objects.local("job/upload.csv") as path:
        assert path.read_bytes() == b"content"
