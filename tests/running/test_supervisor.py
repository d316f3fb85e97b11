"""The supervisor with tiny real programs as parts."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest

from running.lifeline import Lifeline, lives
from running.supervisor import Backoff, Part, PartDidNotStart, Supervisor

PROJECT = Path(__file__).resolve().parents[2]
SOON = 10.0

# Says its pid in a file; its child sleeps in the same process group, as the children of web and worker do.
PROGRAM = """
import os, signal, subprocess, sys, time
from pathlib import Path
{first}
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
with open(sys.argv[1], "a") as notes:
    notes.write(f"{{os.getpid()}} {{child.pid}}\\n")
time.sleep(600)
"""


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    line = Lifeline()
    yield line
    line.close()


def part(folder: Path, name: str = "sleeper", first: str = "", **others: object) -> Part:
    notes = folder / f"{name}.pids"
    command = (sys.executable, "-I", "-S", "-c", PROGRAM.format(first=first), str(notes))
    others.setdefault("is_ready", notes.exists)
    return Part(name, command, folder, **others)  # type: ignore[arg-type]


def starts(folder: Path, name: str = "sleeper") -> list[tuple[int, int]]:
    """(pid, pid of its child) of every start of the part so far."""
    notes = folder / f"{name}.pids"
    lines = notes.read_text().splitlines() if notes.exists() else []
    return [(int(own), int(child)) for own, child in (line.split() for line in lines)]


def until(condition: Callable[[], object], tending: Supervisor | None = None) -> bool:
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        if tending is not None:
            tending.tend()
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_a_killed_part_and_its_children_are_replaced(tmp_path: Path, lifeline: Lifeline) -> None:
    supervisor = Supervisor([part(tmp_path)], lifeline, Backoff(first_seconds=0.05))
    supervisor.start(Event())
    try:
        own, child = starts(tmp_path)[0]
        os.kill(own, signal.SIGKILL)
        assert until(lambda: len(starts(tmp_path)) == 2, tending=supervisor)
        assert until(lambda: not lives(child))
        assert supervisor.pids() == {"sleeper": starts(tmp_path)[1][0]}
    finally:
        supervisor.stop()


def test_stop_ends_parts_and_their_children_last_started_first(tmp_path: Path, lifeline: Lifeline) -> None:
    note_end = (
        "signal.signal(signal.SIGTERM, lambda *_: (Path('ended').open('a').write(sys.argv[1] + '\\n'), sys.exit()))"
    )
    supervisor = Supervisor([part(tmp_path, name, note_end) for name in ("one", "two")], lifeline)
    supervisor.start(Event())
    supervisor.stop()
    ended = [Path(line).stem for line in (tmp_path / "ended").read_text().splitlines()]
    assert ended == ["two", "one"]
    assert until(lambda: not any(lives(pid) for name in ("one", "two") for pid in starts(tmp_path, name)[0]))


def test_a_part_that_ignores_sigterm_is_killed(tmp_path: Path, lifeline: Lifeline) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    supervisor = Supervisor([part(tmp_path, first=deaf, stop_seconds=0.2)], lifeline)
    supervisor.start(Event())
    supervisor.stop()
    assert until(lambda: not any(map(lives, starts(tmp_path)[0])))


def test_a_part_that_ends_before_it_is_ready_is_named(tmp_path: Path, lifeline: Lifeline) -> None:
    broken = Part("web", (sys.executable, "-c", "raise SystemExit(3)"), tmp_path, is_ready=lambda: False)
    supervisor = Supervisor([broken], lifeline)
    with pytest.raises(PartDidNotStart, match=r"web ended at once \(exit status 3\)"):
        supervisor.start(Event())
    supervisor.stop()


def test_a_part_that_never_answers_is_named(tmp_path: Path, lifeline: Lifeline) -> None:
    mute = part(tmp_path, "web", is_ready=lambda: False, ready_seconds=0.3)
    supervisor = Supervisor([mute], lifeline)
    with pytest.raises(PartDidNotStart, match=r"web did not answer within 0\.3 s"):
        supervisor.start(Event())
    supervisor.stop()


def test_the_next_part_waits_until_the_one_before_is_ready(tmp_path: Path, lifeline: Lifeline) -> None:
    seen = []
    first = part(tmp_path, "one", "time.sleep(0.3)")
    second = part(tmp_path, "two", is_ready=lambda: seen.append(starts(tmp_path, "one")) or True)
    supervisor = Supervisor([first, second], lifeline)
    supervisor.start(Event())
    supervisor.stop()
    assert len(seen[0]) == 1


def test_a_part_gets_its_environment_on_top_of_ours(tmp_path: Path, lifeline: Lifeline) -> None:
    show = "import os; open('shown', 'w').write(os.environ['GREETING'] + os.environ['PATH'])"
    supervisor = Supervisor([Part("p", (sys.executable, "-c", show), tmp_path, {"GREETING": "hello"})], lifeline)
    supervisor.start(Event())
    assert until(lambda: (tmp_path / "shown").exists() and (tmp_path / "shown").read_text())
    supervisor.stop()
    assert (tmp_path / "shown").read_text() == "hello" + os.environ["PATH"]


def test_waits_double_up_to_a_ceiling() -> None:
    backoff = Backoff(first_seconds=0.5, ceiling_seconds=30.0)
    assert [backoff.wait_seconds(deaths) for deaths in (1, 2, 3, 7, 5000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


@pytest.mark.parametrize(("forgiven_after", "waits"), [(1000.0, [0.05, 0.1]), (0.0, [0.05, 0.05])])
def test_a_long_life_forgives_earlier_deaths(
    tmp_path: Path,
    lifeline: Lifeline,
    caplog: pytest.LogCaptureFixture,
    forgiven_after: float,
    waits: list[float],
) -> None:
    backoff = Backoff(first_seconds=0.05, forgiven_after_seconds=forgiven_after)
    supervisor = Supervisor([part(tmp_path)], lifeline, backoff)
    supervisor.start(Event())
    for expected in (2, 3):
        os.kill(starts(tmp_path)[-1][0], signal.SIGKILL)
        assert until(lambda expected=expected: len(starts(tmp_path)) == expected, tending=supervisor)
    supervisor.stop()
    deaths = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.start_again_in_seconds for record in deaths] == waits  # type: ignore[attr-defined]


STARTER = """
import sys, time
from pathlib import Path
from threading import Event
from running.lifeline import Lifeline
from running.supervisor import Supervisor
from tests.running.test_supervisor import part
supervisor = Supervisor([part(Path(sys.argv[1]), first=sys.argv[2])], Lifeline())
supervisor.start(Event())
print("started", flush=True)
supervisor.watch(Event())
"""


@pytest.mark.parametrize("first", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN)"], ids=["polite", "deaf"])
def test_parts_end_when_their_starter_is_killed(tmp_path: Path, first: str) -> None:
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), first],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
    )
    assert starter.stdout is not None
    assert starter.stdout.readline() == b"started\n"
    starter.kill()
    starter.wait()
    assert until(lambda: not any(map(lives, starts(tmp_path)[0])))


def test_a_killed_lifeline_is_replaced_and_knows_every_group(tmp_path: Path) -> None:
    line = Lifeline()
    supervisor = Supervisor([part(tmp_path)], line)
    supervisor.start(Event())
    first_watcher = line.pid
    os.kill(first_watcher, signal.SIGKILL)
    assert until(lambda: line.pid != first_watcher, tending=supervisor)
    line.close()  # as if this process had ended
    assert until(lambda: not any(map(lives, starts(tmp_path)[0])))
