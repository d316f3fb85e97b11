import errno
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.errors import LeaseLost, ObjectMissing, ObjectStoreUnavailable, StorageFull
from services.object_store import UNFINISHED, FolderStore


@pytest.fixture
def objects(tmp_path):
    return FolderStore(tmp_path / "objects")


def put(objects: FolderStore, key: str, content: bytes) -> None:
    with objects.create(key) as path:
        path.write_bytes(content)


def break_off(objects: FolderStore, key: str) -> None:
    with objects.create(key) as path:
        path.write_bytes(b"half")
        raise RuntimeError


def unfinished(objects: FolderStore, tmp_path) -> list[str]:
    return os.listdir(tmp_path / "objects" / UNFINISHED)


def test_what_was_created_is_there_under_its_key(objects):
    put(objects, "job/result-1.csv", b"a,b\n")
    with objects.local("job/result-1.csv") as path:
        assert path.read_bytes() == b"a,b\n"


def test_a_file_whose_writing_breaks_off_is_not_there_and_leaves_nothing(objects, tmp_path):
    with pytest.raises(RuntimeError):
        break_off(objects, "job/result.csv")
    with pytest.raises(ObjectMissing, match="job/result"), objects.local("job/result.csv"):
        pass
    assert unfinished(objects, tmp_path) == []


def open_after_a_delete(objects: FolderStore, key: str) -> None:
    with objects.local(key) as path:
        objects.delete_below("job")
        path.read_bytes()


def test_a_file_that_is_deleted_before_it_is_opened_is_missing_by_name(objects):
    put(objects, "job/result.csv", b"rows")
    with pytest.raises(ObjectMissing, match="job/result"):
        open_after_a_delete(objects, "job/result.csv")


def test_a_file_whose_writing_breaks_off_leaves_the_old_one(objects):
    put(objects, "job/result.csv", b"old")
    with pytest.raises(RuntimeError):
        break_off(objects, "job/result.csv")
    with objects.local("job/result.csv") as path:
        assert path.read_bytes() == b"old"


def test_a_disk_without_space_is_named_with_the_way_out(objects):
    with pytest.raises(StorageFull, match="DELETE /bulk/delete"), objects.create("job/result.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "objects").write_text("a file where the folder should be")
    with pytest.raises(ObjectStoreUnavailable):
        FolderStore(tmp_path / "objects").check()


def test_an_adopted_file_outlives_its_source(objects, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    objects.adopt("job/upload.csv", source)
    source.unlink()
    with objects.local("job/upload.csv") as path:
        assert path.read_bytes() == b"content"


def test_an_upload_under_way_is_gone_when_it_is_closed(objects, tmp_path):
    with objects.receive() as stream:
        stream.write(b"content")
        assert len(unfinished(objects, tmp_path)) == 1
    assert unfinished(objects, tmp_path) == []


def test_all_files_of_a_job_are_deleted_and_no_others(objects):
    put(objects, "job-1/upload.csv", b"1")
    put(objects, "job-1/result.csv", b"1")
    put(objects, "job-12/upload.csv", b"2")
    objects.delete_below("job-1")
    objects.delete_below("job-1")
    with pytest.raises(ObjectMissing), objects.local("job-1/upload.csv"):
        pass
    with objects.local("job-12/upload.csv") as path:
        assert path.read_bytes() == b"2"


@pytest.mark.parametrize("key", ["../etc/passwd", "/etc/passwd", "a/../../b", "", ".hidden", "a//b", "a/.unfinished"])
def test_a_key_cannot_leave_the_folder(objects, key):
    with pytest.raises(ValueError, match="no key"):
        objects.delete_below(key)


def test_what_dead_processes_left_is_removed_after_a_while(objects, tmp_path):
    folder = tmp_path / "objects" / UNFINISHED
    folder.mkdir(parents=True)
    old, new, parts = folder / "old", folder / "new", folder / "parts"
    old.write_text("x")
    new.write_text("x")
    parts.mkdir()
    (parts / "000001.csv").write_text("a writer may make a folder beside its file")
    for path in (old, parts):
        os.utime(path, (time.time() - 1000, time.time() - 1000))
    objects.forget_unfinished(500)
    assert unfinished(objects, tmp_path) == ["new"]


def test_what_is_there_is_listed_by_key(objects):
    assert (objects.names("job"), objects.folders(), objects.exists("job/upload.csv")) == ([], [], False)
    for key in ("job/upload.csv", "job/parts/000002-1.csv", "job/parts/000001-1.csv", "job-2/upload.csv"):
        put(objects, key, b"x")
    assert objects.names("job") == ["job/parts/000001-1.csv", "job/parts/000002-1.csv", "job/upload.csv"]
    assert objects.names("job/parts") == ["job/parts/000001-1.csv", "job/parts/000002-1.csv"]
    assert objects.exists("job/upload.csv")
    assert not objects.exists("job/parts")


def test_the_age_of_a_folder_is_that_of_its_newest_file(objects, tmp_path):
    old, mixed = uuid.uuid4().hex, uuid.uuid4().hex
    for key in (f"{old}/upload.csv", f"{mixed}/upload.csv", f"{mixed}/parts/000001-1.csv"):
        put(objects, key, b"x")
    for key in (f"{old}/upload.csv", f"{mixed}/upload.csv"):
        os.utime(tmp_path / "objects" / key, (time.time() - 1000, time.time() - 1000))
    assert objects.folders() == sorted([old, mixed])
    assert 999 < objects.seconds_since_written(old) < 1100
    assert 0 <= objects.seconds_since_written(mixed) < 100
    assert objects.seconds_since_written(uuid.uuid4().hex) is None


@pytest.mark.parametrize("name", ["models", "tables", "JOB", "0123456789abcdef" * 2 + "0", str(uuid.UUID(int=1))])
def test_published_models_and_what_others_keep_beside_are_not_taken_for_jobs(objects, name):
    put(objects, f"{name}/file", b"{}")
    assert objects.folders() == []
    assert objects.names(name) == [f"{name}/file"]


def test_many_may_delete_at_once_while_one_still_writes(objects, tmp_path):
    end = time.monotonic() + 1.5

    def write(key: str) -> None:
        while time.monotonic() < end:
            put(objects, key, b"x")

    def delete() -> None:
        while time.monotonic() < end:
            objects.delete_below("job")
            time.sleep(0.001)  # nobody deletes a job over and over: a writer gets his turn

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(write, f"job/parts/{number}.csv") for number in range(2)]
        futures += [pool.submit(delete) for _ in range(3)]
        for future in futures:
            future.result()
    objects.delete_below("job")
    assert not (tmp_path / "objects" / "job").exists()


def test_a_link_in_the_store_is_deleted_and_not_what_it_leads_to(objects, tmp_path):
    put(objects, "job/upload.csv", b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("not ours")
    (tmp_path / "objects" / "job" / "link").symlink_to(tmp_path / "elsewhere")
    objects.delete_below("job")
    assert (tmp_path / "elsewhere" / "file").read_text() == "not ours"
    assert not (tmp_path / "objects" / "job").exists()


def test_a_store_whose_folder_cannot_be_made_names_no_path(tmp_path):
    (tmp_path / "file").write_text("a file where a folder should be")
    away = FolderStore(tmp_path / "file" / "objects")
    for attempt in (
        away.check,
        away.receive,
        lambda: put(away, "job/result.csv", b"x"),
        lambda: away.adopt("job/upload.csv", tmp_path / "file"),
        lambda: away.exists("job/result.csv"),
        lambda: away.local("job/result.csv").__enter__(),
        lambda: away.names("job"),
        away.folders,
        lambda: away.seconds_since_written("job"),
        lambda: away.delete_below("job"),
        lambda: away.forget_unfinished(1),
    ):
        with pytest.raises(ObjectStoreUnavailable, match="Not a directory") as caught:
            attempt()
        assert str(tmp_path) not in str(caught.value)


LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from services.errors import StorageFull
from services.object_store import FolderStore

resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
objects = FolderStore(Path(sys.argv[1]))
for write in (lambda path: path.write_bytes(bytes(2_000_000)), lambda path: np.save(path.open("wb"), np.zeros(250_000))):
    try:
        with objects.create("job/result.csv") as path:
            write(path)
    except StorageFull as problem:
        print(problem)
"""


def test_a_file_that_the_system_does_not_let_grow_is_named(objects, tmp_path):
    folder = tmp_path / "objects"
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(folder)], capture_output=True, text=True, check=True)
    said = ended.stdout.splitlines()
    assert len(said) == 2
    assert all("larger than the system lets it" in line and "ulimit -f" in line for line in said)
    assert unfinished(objects, tmp_path) == []


def test_what_the_writer_refuses_stays_what_it_is(objects):
    with pytest.raises(LeaseLost), objects.create("job/result.csv"):
        raise LeaseLost("another worker has the job") from OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ValueError, match="seven"), objects.create("job/result.csv"):
        raise ValueError("seven")


def test_an_upload_that_is_only_linked_to_stays_readable_for_all(objects, tmp_path):
    with objects.receive() as stream:
        stream.write(b"content")
        stream.flush()
        objects.adopt("job/upload.csv", Path(stream.name))
    with objects.local("job/upload.csv") as path:
        assert path.read_bytes() == b"content"
        assert path.stat().st_mode & 0o444 == 0o444
