from dataclasses import replace

import pytest

from services.errors import UnknownJob
from services.job_events import (
    HEARTBEAT_SECONDS,
    LOOK_SECONDS,
    STREAM_SECONDS,
    StreamSlots,
    event_of,
    events_of,
    has_been_told,
)
from tests.services.test_job_progress import EPOCH, job_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def followed(jobs, clock, after=0, is_stopping=lambda: False):
    """The events while the table shows these jobs, one per look, the last one for ever."""
    looks = iter(jobs)
    shown = None

    def look():
        nonlocal shown
        shown = next(looks, shown)
        if isinstance(shown, Exception):
            raise shown
        return shown

    def describe(job):
        return {"processed": job.rows_processed}

    return events_of(look, describe, after, is_stopping, clock, clock.sleep)


def test_each_change_is_told_once_and_then_the_end(clock):
    first = job_of()
    second = replace(first, rows_processed=50, updated_at=EPOCH + 1)
    ended = replace(second, status="completed", rows_processed=99, updated_at=EPOCH + 2, completed_at=EPOCH + 2)
    told = list(followed([first, first, second, second, ended], clock))
    assert [(event.name, event.content["processed"], event.is_last) for event in told] == [
        ("progress", 0, False),
        ("progress", 50, False),
        ("completed", 99, True),
    ]
    numbers = [event.number for event in told]
    assert numbers == sorted(set(numbers))
    assert clock.now == 4 * LOOK_SECONDS


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_the_end_is_named_and_not_told_again_to_whoever_heard_of_it(status, clock):
    job = job_of(status=status, completed_at=EPOCH + 5, updated_at=EPOCH + 5)
    (event,) = followed([job], clock)
    assert event.name == status
    assert has_been_told(job, event.number)
    assert not has_been_told(job, event.number - 1)
    retried = replace(job, status="processing", completed_at=None)
    assert not has_been_told(retried, event.number)


def test_an_end_in_the_same_millisecond_as_the_last_progress_is_still_told():
    going_on = job_of(updated_at=EPOCH + 5)
    progress = event_of(going_on, {})
    assert not has_been_told(replace(going_on, status="failed", completed_at=EPOCH + 5), progress.number)


def test_numbers_grow_over_connections(clock):
    job = job_of()
    stream = followed([job], clock, after=event_of(job, {}).number + 7)
    assert next(stream).number == event_of(job, {}).number + 8


def test_silence_is_broken_by_heartbeats_and_the_stream_ends_in_time(clock):
    told = list(followed([job_of()], clock))
    assert told[0].name == "progress"
    assert told[1:] == [None] * (len(told) - 1)
    assert STREAM_SECONDS <= clock.now <= STREAM_SECONDS + LOOK_SECONDS
    assert len(told) - 1 == STREAM_SECONDS // HEARTBEAT_SECONDS


def test_a_stream_ends_when_the_process_is_to_stop(clock):
    list(followed([job_of()], clock, is_stopping=lambda: clock.now >= 3))
    assert 3 <= clock.now <= 3 + LOOK_SECONDS


def test_a_stream_ends_when_the_job_is_deleted(clock):
    told = list(followed([job_of(), UnknownJob("gone")], clock))
    assert [event.name for event in told] == ["progress"]


def test_there_are_only_so_many_slots():
    slots = StreamSlots(lambda: 2)
    assert [slots.take(), slots.take(), slots.take()] == [True, True, False]
    slots.give_back()
    assert slots.take()
    assert not slots.take()
