"""A real disk of a few megabytes, which a test can fill and make read-only: a tmpfs in a mount namespace of its own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHELL = (
    'mount -t tmpfs -o size="$1" tmpfs "$0" && echo mounted && while read -r line; do eval "$line" >&2; echo "$?"; done'
)
NAMESPACE = ("unshare", "--map-root-user", "--mount")


class SmallDisk:
    """The disk, as long as the process that holds it lives."""

    def __init__(self, holder: "subprocess.Popen[str]", mounted: Path) -> None:
        self._holder = holder
        self.mounted = mounted
        """Where it is for processes that were started by `command`."""
        self.path = Path(f"/proc/{holder.pid}/root{mounted}")
        """Where it is for everybody else."""

    def command(self, arguments: list[str], folder: Path) -> list[str]:
        """A command that runs in this working directory where the disk is mounted."""
        there = ["--target", str(self._holder.pid), "--mount"]
        if os.geteuid() != 0:
            there += ["--user", "--preserve-credentials"]
        return ["nsenter", *there, f"--wdns={folder}", *arguments]

    def free(self) -> int:
        """Bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_bsize

    def fill(self, leave: int = 0) -> Path:
        """Takes all space but `leave` bytes; the file that takes it can be deleted."""
        filler = self.path / "filler"
        filler.write_bytes(bytes(self.free() - leave))
        return filler

    def make_read_only(self) -> None:
        """Until it is made writable again."""
        self._run(f"mount -o remount,bind,ro '{self.mounted}'")

    def make_writable(self) -> None:
        """As it was."""
        self._run(f"mount -o remount,bind,rw '{self.mounted}'")

    def _run(self, line: str) -> None:
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.write(f"{line}\n")
        self._holder.stdin.flush()
        assert self._holder.stdout.readline() == "0\n", line


@contextmanager
def small_disk(folder: Path, size: str = "2m") -> Iterator[SmallDisk]:
    """Mounts one in a new folder below `folder`; skips the test where this machine does not let us."""
    mounted = folder / "disk"
    mounted.mkdir()
    try:
        holder = subprocess.Popen(
            [*NAMESPACE, "sh", "-c", SHELL, str(mounted), size],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no small disk to fill: there is no unshare (util-linux) on this machine")
    with holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(
                f"no small disk to fill: this machine allows no mount namespace ({holder.stderr.read().strip()})"
            )
        try:
            yield SmallDisk(holder, mounted)
        finally:
            holder.kill()
