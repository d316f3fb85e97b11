import errno
import os
import time

import pytest

from services.errors import ObjectMissing, ObjectStoreUnavailable, StorageFull
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
    old, new = folder / "old", folder / "new"
    old.write_text("x")
    new.write_text("x")
    os.utime(old, (time.time() - 1000, time.time() - 1000))
    objects.forget_unfinished(500)
    assert unfinished(objects, tmp_path) == ["new"]
