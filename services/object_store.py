"""Files by key: uploads, results and published models. A file is there whole or not at all."""

import errno
import io
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from services.errors import ObjectMissing, ObjectStoreUnavailable, ServiceError, StorageFull

KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""Keys are ours: segments that cannot climb out of a folder nor hide in it."""
MODELS = "models"
"""Below this stand the published models; every other first segment of a key is the id of a job."""
JOB_ID = re.compile(r"[0-9a-f]{32}")
UNFINISHED = ".unfinished"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
TOO_LARGE = errno.EFBIG
TRIES = 50
KEPT = "uploads and results"
ROOM = "Delete jobs that are no longer needed (DELETE /bulk/delete/<job_id>) or make room"


class ObjectStore(Protocol):
    """What the services need of a file store; another one is another class with these methods.

    Keys are paths of plain segments; what has the same first segment belongs together. Every method raises
    ObjectStoreUnavailable when the store is away, and StorageFull, which is one, when there is no space to write.
    """

    def create(self, key: str) -> AbstractContextManager[Path]:
        """A local path to fill; its content appears under the key when the block ends well, else nothing does.

        Of what the block raises, an OSError comes out as StorageFull or ObjectStoreUnavailable.
        """

    def adopt(self, key: str, source: Path) -> None:
        """The content of a local file, under the key; the source may be deleted afterwards."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A local file with the content, to be read only. Raises ObjectMissing."""

    def exists(self, key: str) -> bool:
        """Whether there is a file under the key."""

    def names(self, prefix: str) -> list[str]:
        """Every key that begins with prefix + '/', sorted."""

    def folders(self) -> list[str]:
        """Those first segments of keys that can be ids of jobs, sorted.

        Whoever looks for files without a job deletes what he finds: published models are not to be among it, nor what
        somebody keeps beside, where a folder was given to the store that others use too.
        """

    def seconds_since_written(self, folder: str) -> float | None:
        """Since the newest file below a folder was written, or the folder changed if it is empty; None if it is gone."""

    def delete(self, key: str) -> None:
        """Removes one key, if it is there."""

    def delete_below(self, prefix: str) -> None:
        """Removes every key that begins with prefix + '/'. Does no harm where somebody else does the same."""

    def receive(self) -> BinaryIO:
        """A named temporary file beside the store for an upload under way; gone when it is closed.

        What goes wrong with writing comes out as StorageFull or ObjectStoreUnavailable.
        """

    def forget_unfinished(self, older_than_seconds: float) -> None:
        """Removes what processes that died were writing."""

    def check(self) -> None:
        """Raises ObjectStoreUnavailable unless files can be written."""


class FolderStore:
    """An object store in one folder, on one disk or on a file system that all hosts share."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unfinished = root / UNFINISHED

    @contextmanager
    def create(self, key: str) -> Iterator[Path]:
        """See ObjectStore."""
        target = self._path(key)
        temporary = self._new_file()
        try:
            with named_failures(half=temporary):
                yield temporary
                _settle(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def adopt(self, key: str, source: Path) -> None:
        """See ObjectStore. On the same disk the file is linked, not copied."""
        with self.create(key) as path:
            link_or_copy(source, path)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """See ObjectStore."""
        if not self.exists(key):
            raise _missing(key)
        path = self._path(key)
        try:
            yield path
        except FileNotFoundError as problem:
            if problem.filename != str(path):
                raise
            raise _missing(key) from problem  # deleted just now

    def exists(self, key: str) -> bool:
        """See ObjectStore."""
        path = self._path(key)
        with named_failures():
            try:
                return stat.S_ISREG(path.stat().st_mode)
            except FileNotFoundError:
                return False

    def names(self, prefix: str) -> list[str]:
        """See ObjectStore."""
        folder = self._path(prefix)
        with named_failures():
            return sorted(path.relative_to(self._root).as_posix() for path in _files_below(folder))

    def folders(self) -> list[str]:
        """See ObjectStore."""
        with named_failures():
            found = [path for path in _listed(self._root) if JOB_ID.fullmatch(path.name) and _is_folder(path)]
        return sorted(path.name for path in found)

    def seconds_since_written(self, folder: str) -> float | None:
        """See ObjectStore."""
        now = time.time()
        with named_failures():
            written = _newest(self._path(folder))
        return None if written is None else max(0.0, now - written)

    def delete(self, key: str) -> None:
        """See ObjectStore."""
        with named_failures():
            self._path(key).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        """See ObjectStore."""
        with named_failures():
            _remove_folder(self._path(prefix))

    def receive(self) -> BinaryIO:
        """See ObjectStore."""
        return _Reception(self._new_file())

    def forget_unfinished(self, older_than_seconds: float) -> None:
        """See ObjectStore."""
        cutoff = time.time() - older_than_seconds
        with named_failures():
            for path in _listed(self._unfinished):
                with suppress(FileNotFoundError):  # its writer was quicker
                    if path.stat().st_mtime < cutoff:
                        _remove(path)

    def check(self) -> None:
        """See ObjectStore."""
        with self.receive() as stream:
            stream.write(b"ok")
            stream.flush()

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of the object store.")
        return self._root / key

    def _new_file(self) -> Path:
        with named_failures():
            self._unfinished.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._unfinished)
            os.close(handle)
            return Path(name)


class _Reception(io.BufferedRandom):
    """A file that is removed when it is closed, and whose failures have names."""

    def __init__(self, path: Path) -> None:
        self._path = path
        super().__init__(io.FileIO(path, "r+"))

    def write(self, data: Any) -> int:
        with named_failures():
            return super().write(data)

    def seek(self, target: int, whence: int = io.SEEK_SET) -> int:
        with named_failures():  # what is still in the buffer is written now
            return super().seek(target, whence)

    def flush(self) -> None:
        with named_failures():
            super().flush()

    def close(self) -> None:
        with suppress(OSError, ObjectStoreUnavailable):  # what could not be written is thrown away here anyhow
            self._path.unlink(missing_ok=True)
            super().close()


def _missing(key: str) -> ObjectMissing:
    return ObjectMissing(
        f"The file {key} is not in the store: its job was deleted just now, it was deleted by hand, or this host does not see "
        "the folder that the others share (OBJECTS_DIR). Restore it, or upload the file again."
    )


def link_or_copy(source: Path, target: Path) -> None:
    """The content of a file under another name: the same file where both are on one disk, else a copy that is on disk."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        _sync(target)


@contextmanager
def named_failures(kept: str = KEPT, room: str = ROOM, half: Path | None = None) -> Iterator[None]:
    """Turns what goes wrong with files into StorageFull or ObjectStoreUnavailable; no path of the server is told.

    kept: what is kept where it went wrong. room: how to make room there. half: the file that is being written. Some libraries
    hide the reason: NumPy says only that it wrote less than it wanted, XlsxWriter raises an error of its own with the reason
    below.
    """
    try:
        yield
    except ServiceError:
        raise
    except Exception as problem:
        reason = _reason(problem)
        if reason is None and half is not None and isinstance(problem, OSError):
            reason = _reason_to_append(half)
        if reason in NO_SPACE:
            raise StorageFull(
                f"There is no space left where {kept} are kept. {room}, then try again; a job that failed goes on from "
                "where it stopped (POST /bulk/retry/<job_id>)."
            ) from problem
        if reason == TOO_LARGE:
            raise StorageFull(
                f"A file grew larger than the system lets it where {kept} are kept. Raise the limit (ulimit -f of the "
                "process, or the largest file of that file system) or split the upload, then try again."
            ) from problem
        if not isinstance(problem, OSError):
            raise
        said = os.strerror(problem.errno) if problem.errno else type(problem).__name__
        raise ObjectStoreUnavailable(
            f"The store of {kept} cannot be used ({said}). Check that its folder exists and can be written to, then "
            "try again."
        ) from problem


def _reason(problem: BaseException | None) -> int | None:
    """The error number, of the problem itself or of the one below it that says that a disk or a file is full."""
    own = problem.errno if isinstance(problem, OSError) else None
    while problem is not None:
        if isinstance(problem, OSError) and problem.errno in (*NO_SPACE, TOO_LARGE):
            return problem.errno
        problem = problem.__cause__ or problem.__context__
    return own


def _reason_to_append(half: Path) -> int | None:
    """Why a file that is to be thrown away cannot be made longer; None if it can."""
    try:
        with half.open("ab") as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as problem:
        return problem.errno
    return None


def _settle(temporary: Path, target: Path) -> None:
    """The file is on disk under its name when this returns, also after a power cut."""
    _sync(temporary)
    if os.stat(temporary).st_mode & 0o444 != 0o444:
        os.chmod(temporary, 0o644)
    for left in reversed(range(TRIES)):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(temporary, target)
            break
        except (FileNotFoundError, FileExistsError):  # the folder was deleted in between
            if not left:
                raise
    with suppress(FileNotFoundError):  # deleted just now
        _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is gone."""
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _files_below(folder: Path) -> Iterator[Path]:
    for path in _listed(folder):
        if _is_folder(path):
            yield from _files_below(path)
        else:
            yield path


def _newest(folder: Path) -> float | None:
    """When the newest file below a folder was written, or the folder changed if it is empty; None if it is gone."""
    written: list[float] = []
    for path in _files_below(folder):
        with suppress(FileNotFoundError):
            written.append(path.stat().st_mtime)
    with suppress(FileNotFoundError):
        return max(written) if written else folder.stat().st_mtime
    return None


def _remove(path: Path) -> None:
    if _is_folder(path):
        _remove_folder(path)
    else:
        path.unlink()


def _remove_folder(folder: Path) -> None:
    """What others remove or write at the same time is no problem; what they write now stays."""
    for path in _listed(folder):
        with suppress(FileNotFoundError, IsADirectoryError):  # gone, and maybe made anew
            _remove(path)
    try:
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as problem:
        if problem.errno != errno.ENOTEMPTY:
            raise
