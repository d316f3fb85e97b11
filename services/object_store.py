"""Files by key: uploads and results. A file is there whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from services.errors import ObjectMissing, ObjectStoreUnavailable, StorageFull

KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
"""Keys are ours: segments that cannot climb out of a folder nor hide in it."""
UNFINISHED = ".unfinished"


class ObjectStore(Protocol):
    """What the services need of a file store; another one is another class with these methods.

    Keys are paths of plain segments. Every method raises ObjectStoreUnavailable when the store is away.
    """

    def create(self, key: str) -> AbstractContextManager[Path]:
        """A local path to fill; its content appears under the key when the block ends well, else nothing does."""

    def adopt(self, key: str, source: Path) -> None:
        """The content of a local file, under the key; the source may be deleted afterwards."""

    def local(self, key: str) -> AbstractContextManager[Path]:
        """A local file with the content, to be read only. Raises ObjectMissing."""

    def delete_below(self, prefix: str) -> None:
        """Removes every key that begins with prefix + '/'."""

    def receive(self) -> BinaryIO:
        """A named temporary file beside the store for an upload under way; gone when it is closed."""

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
        with _named_failures():
            self._unfinished.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._unfinished)
            os.close(handle)
            temporary = Path(name)
            try:
                yield temporary
                _settle(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def adopt(self, key: str, source: Path) -> None:
        """See ObjectStore. On the same disk the file is linked, not copied."""
        with self.create(key) as path:
            path.unlink()
            try:
                os.link(source, path)
            except OSError as problem:
                if problem.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                shutil.copyfile(source, path)

    @contextmanager
    def local(self, key: str) -> Iterator[Path]:
        """See ObjectStore."""
        path = self._path(key)
        if not path.is_file():
            raise ObjectMissing(f"The file {key} is not in the store: it was deleted by hand. Upload it again.")
        yield path

    def delete_below(self, prefix: str) -> None:
        """See ObjectStore."""
        with _named_failures():
            folder = self._path(prefix)
            if folder.is_dir():
                shutil.rmtree(folder)

    def receive(self) -> BinaryIO:
        """See ObjectStore."""
        with _named_failures():
            self._unfinished.mkdir(parents=True, exist_ok=True)
            return tempfile.NamedTemporaryFile(dir=self._unfinished)  # type: ignore[return-value]

    def forget_unfinished(self, older_than_seconds: float) -> None:
        """See ObjectStore."""
        cutoff = time.time() - older_than_seconds
        for path in self._unfinished.glob("*"):
            try:
                if path.stat().st_mtime < cutoff:
                    path.unlink()
            except FileNotFoundError:  # its writer was quicker
                continue

    def check(self) -> None:
        """See ObjectStore."""
        with self.receive() as stream, _named_failures():
            stream.write(b"ok")
            stream.flush()

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no key of the object store.")
        return self._root / key


def _settle(temporary: Path, target: Path) -> None:
    """The file is on disk under its name when this returns, also after a power cut."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _sync(temporary)
    os.chmod(temporary, 0o644)
    os.replace(temporary, target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _named_failures() -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "There is no space left where uploads and results are kept. Delete jobs that are no longer needed "
                "(DELETE /bulk/delete/<job_id>) or make room, then try again."
            ) from problem
        raise ObjectStoreUnavailable(
            f"The store of uploads and results cannot be used ({problem.strerror or type(problem).__name__}). "
            "Check that its folder exists and can be written to, then try again."
        ) from problem
