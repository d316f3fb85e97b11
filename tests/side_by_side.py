"""All tests, in three processes side by side: `python -m tests.side_by_side [options of pytest]`.

One does those that start servers, one after another, and waits for most of its time; beside it the others, which step back
where the servers want a core, do those of the pipeline, whose words come at once, and all the rest. What the others say is
printed at the end. The exit status is pytest's, the worst one of them.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

NO_TESTS = 5
IDLE_THREADS_SLEEP = {"OMP_WAIT_POLICY": "passive"}
"""Else those of a training, that wait for each other, would keep the other processes from their cores."""
NICENESS = 10
PIPELINE = Path("tests/ml_pipeline")


def main(options: Sequence[str]) -> int:
    """Options that choose tests are taken, but for -m and --ignore, which tell the processes apart."""
    others = sorted(path for path in PIPELINE.parent.iterdir() if path.name.startswith("test_") or path.is_dir())
    groups = {
        "of the pipeline": (NICENESS, ["-m", "not server", *_without(path for path in others if path != PIPELINE)]),
        "that start servers": (0, ["-m", "server"]),
        "of the rest": (NICENESS, ["-m", "not server", *_without([PIPELINE])]),
    }
    with tempfile.TemporaryDirectory() as folder:
        said = {name: Path(folder) / name for name in list(groups)[1:]}
        running = {name: _start(said.get(name), options, *group) for name, group in groups.items()}
        found = set()
        for name, process in running.items():
            found.add(abs(process.wait()))
            if name in said:
                sys.stdout.write(f"\nTests {name}:\n{said[name].read_text('utf-8', 'replace')}")
                sys.stdout.flush()
    return max(found - {NO_TESTS} or found)


def _without(paths: Iterable[Path]) -> list[str]:
    return [f"--ignore={path}" for path in paths]


def _start(
    said: Path | None, options: Sequence[str], niceness: int, chosen: Sequence[str]
) -> "subprocess.Popen[bytes]":
    """said: the file for what it says; None: it says it at once."""
    with open(os.devnull, "wb") if said is None else said.open("wb") as output:
        return subprocess.Popen(
            ["nice", "-n", str(niceness), sys.executable, "-m", "pytest", *options, *chosen],
            env={**IDLE_THREADS_SLEEP, **os.environ},
            stdout=None if said is None else output,
            stderr=subprocess.STDOUT,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
