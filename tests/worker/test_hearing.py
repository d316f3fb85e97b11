import pytest

from worker.hearing import Hearing


class Clock:
    """Moves only when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hearing(clock) -> Hearing:
    return Hearing(patience_seconds=60, look_every_seconds=3, clock=clock)


def look(hearing: Hearing, clock: Clock, times: int, waits: bool = True, works: bool = False, every: float = 3) -> bool:
    """The answer of the last of so many looks."""
    answer = False
    for _ in range(times):
        clock.seconds += every
        answer = hearing.is_deaf(waits, works)
    return answer


def test_a_worker_that_takes_nothing_of_what_waits_is_deaf_when_patience_ends(hearing, clock):
    assert not look(hearing, clock, 20)
    assert look(hearing, clock, 1)


def test_a_worker_is_not_deaf_while_nothing_waits(hearing, clock):
    assert not look(hearing, clock, 1000, waits=False)


def test_a_worker_that_works_is_not_deaf(hearing, clock):
    assert not look(hearing, clock, 1000, works=True)


@pytest.mark.parametrize("sign", ["message", "nothing waits", "works"])
def test_any_sign_of_hearing_begins_the_time_anew(hearing, clock, sign):
    look(hearing, clock, 19)
    if sign == "message":
        hearing.hear()
    look(hearing, clock, 1, waits=sign != "nothing waits", works=sign == "works")
    assert not look(hearing, clock, 20)
    assert look(hearing, clock, 1)


def test_a_worker_is_not_deaf_because_the_machine_slept(hearing, clock):
    look(hearing, clock, 1)
    assert not look(hearing, clock, 2, every=10_000)
