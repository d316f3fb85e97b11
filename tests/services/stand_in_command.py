"""Stands in for a command of the pipeline: a real process that says what such a command says, and does what it is told to.

`stand_in_command.py BEHAVIOUR [options of the command]`. Without a behaviour of its own, a `full` training never ends and a
`quick` one takes half a second.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

FOREVER = 600.0


def write(stream: TextIO, line: str) -> None:
    stream.write(line + "\n")
    stream.flush()


def say(**news: object) -> None:
    write(sys.stdout, json.dumps(news))


def option(name: str, default: str = "") -> str:
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


def train() -> None:
    began = time.time()
    say(phase="read tables", done=0, of=1, doing="")
    say(phase="backtest", done=1, of=4, doing=f"pid {os.getpid()}")
    Path(os.environ["TMPDIR"], "spilled").write_text("half-written")
    time.sleep(FOREVER if option("--profile") == "full" else 0.5)
    outcome = {
        "bundle": "b1",
        "snapshot": "s1",
        "promoted": False,
        "reason": "not better",
        "serving": "b0",
        "as_of": "2025-01-01",
    }
    say(outcome={**outcome, "metrics": {"mae": 1.5, "r2": float("nan")}, "began": began, "ended": time.time()})


def sample() -> None:
    tables, truth = Path(option("--into")), Path(option("--truth"))
    for folder in (tables, truth):
        folder.mkdir()
    say(phase="sample tables", done=1, of=2, doing="")
    (tables / "stores.csv").write_text("store_id\n1\n")
    (tables / "products.csv").write_text(f"product_id\n{option('--customers')} {option('--seed')}\n")
    (truth / "oracle.parquet").write_text("secret")
    say(
        outcome={
            "customers": int(option("--customers")),
            "files": ["products.csv", "stores.csv"],
            "rows": {"stores": 1},
        }
    )


def await_file(path: Path, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def promote() -> None:
    """Its model comes to serve when it is let; ends when there is a file called `go` in the models folder."""
    models = Path(option("--models"))
    say(phase="contest", done=0, of=1, doing=f"pid {os.getpid()}")
    await_file(models / "ask")
    say(asks="promote")
    if not sys.stdin.readline():
        sys.exit(2)
    (models / "promoted").write_text("yes")
    say(phase="contest", done=1, of=1, doing="")
    await_file(models / "go")
    say(outcome={"bundle": "b1", "snapshot": "s1", "promoted": True, "reason": "better", "serving": "b1"})


def refuse() -> None:
    say(phase="read tables", done=0, of=1, doing="")
    say(error={"name": "MissingTables", "message": "There is no store_sales_header."})
    sys.exit(2)


def fill_the_disk() -> None:
    say(error={"name": "StorageFull", "message": "The disk is full. Make room."})
    sys.exit(2)


def run_out_of_memory() -> None:
    say(error={"name": "OutOfMemory", "message": "The memory did not suffice."})
    sys.exit(2)


def fail_of_its_own() -> None:
    say(error={"name": "CommandFailed", "message": "The command met a fault of its own (KeyError)."})
    raise KeyError("inside")


def crash() -> None:
    write(sys.stderr, "about to fall")
    os._exit(3)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_hungry() -> None:
    """Most of it in a process of its own."""
    hold = "import time; held = bytearray(150 << 20); held[::4096] = b'x' * len(held[::4096]); time.sleep(600)"
    say(phase="features", done=0, of=2, doing="")
    subprocess.run([sys.executable, "-c", hold], check=False)


def be_stubborn() -> None:
    """Hears of no end, and has started others that hear of none either."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    other = subprocess.Popen([sys.executable, "-c", deaf])
    say(phase="backtest", done=0, of=1, doing=f"pid {os.getpid()}", others=[other.pid])
    time.sleep(FOREVER)


def tell_about_itself() -> None:
    write(sys.stdout, "plain words")
    write(sys.stdout, "[1, 2]")
    write(sys.stderr, "a warning")
    say(
        environment=sorted(os.environ),
        tmpdir=os.environ["TMPDIR"],
        folder=os.getcwd(),
        niceness=os.nice(0),
        group=os.getpgrp(),
    )


BEHAVIOURS = {
    "train": train,
    "sample": sample,
    "promote": promote,
    "refuse": refuse,
    "fill_the_disk": fill_the_disk,
    "run_out_of_memory": run_out_of_memory,
    "fail_of_its_own": fail_of_its_own,
    "crash": crash,
    "kill_itself": kill_itself,
    "be_hungry": be_hungry,
    "be_stubborn": be_stubborn,
    "tell_about_itself": tell_about_itself,
}

if __name__ == "__main__":
    BEHAVIOURS[sys.argv[1]]()
