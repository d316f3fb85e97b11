"""All tests, in two processes: `python -m tests.two_processes [options of pytest]`.

One does those that start servers, one after another, and waits for most of its time; beside it the other does all the rest. What
the first one says is printed at the end. The exit status is pytest's, the worse one of the two.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence

NO_TESTS = 5
IDLE_THREADS_SLEEP = {"OMP_WAIT_POLICY": "passive"}
"""Else those of a training, that wait for each other, would keep the other process from its core."""


def main(options: Sequence[str]) -> int:
    """Options that choose tests are taken, but for -m, which tells the two processes apart."""
    pytest = [sys.executable, "-m", "pytest", *options, "-m"]
    environ = {**IDLE_THREADS_SLEEP, **os.environ}
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen([*pytest, "server"], env=environ, stdout=said, stderr=subprocess.STDOUT) as servers:
            others = subprocess.run([*pytest, "not server"], env=environ, check=False).returncode
        said.seek(0)
        sys.stdout.buffer.write(b"\nTests that start servers:\n")
        shutil.copyfileobj(said, sys.stdout.buffer)
    found = {others, servers.returncode}
    return max(map(abs, found - {NO_TESTS} or found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
