"""How much memory each process of the service took at most. Linux only: read from /proc."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.service_under_test import ServiceUnderTest

LOOK_EVERY_SECONDS = 0.2
SHARE_EVERY = 5
"""Proportional shares cost the kernel a walk over all pages: looked at only every so many times."""
FORGET_PEAK = "5"


class PeakMemory:
    """Peaks in bytes, by what the process is.

    resident: the kernel's own high-water mark (VmHWM), which misses no moment; pages of memory-mapped model files that
    several processes share are counted in full for each. proportional: the largest sum of the proportional shares (PSS) of
    all processes that was seen, where shared pages count once.
    """

    def __init__(self) -> None:
        self.resident: dict[str, int] = {}
        self.proportional = 0

    def look(self, service: ServiceUnderTest, with_shares: bool) -> None:
        """Notes what the processes took up to now."""
        shares = 0
        for pid, name in service.all_processes().items():
            with suppress(OSError):  # ended meanwhile
                self.resident[name] = max(self.resident.get(name, 0), _kilobytes(pid, "status", "VmHWM") * 1024)
                if with_shares:
                    shares += _kilobytes(pid, "smaps_rollup", "Pss") * 1024
        self.proportional = max(self.proportional, shares)


@contextmanager
def watched(service: ServiceUnderTest) -> Iterator[PeakMemory]:
    """The peaks from here to the end of the block."""
    peak, over = PeakMemory(), threading.Event()
    for pid in service.all_processes():
        with suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(FORGET_PEAK)

    def watch() -> None:
        looks = 0
        while not over.wait(LOOK_EVERY_SECONDS):
            peak.look(service, looks % SHARE_EVERY == 0)
            looks += 1

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.look(service, True)


def _kilobytes(pid: int, file: str, field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{pid}/{file}").read_text(), re.MULTILINE)
    if not found:
        raise ProcessLookupError(f"process {pid} has ended: its {file} has no {field}")
    return int(found[1])
