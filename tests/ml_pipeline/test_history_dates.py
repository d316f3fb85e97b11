"""The dates of a raw history are read as a column of the tables is."""

import itertools
import random
from datetime import date

import pytest

from ml_pipeline.history_dates import read_history_dates
from tests.ml_pipeline.test_dates import SPELLINGS
from tests.ml_pipeline.test_dates import _read as read_column

DAY_TEXTS = (
    "2025-01-31", "2025-1-3", "2025/02/30", "2025.12.05", "31-01-2025", "05/06/2025", "12/25/2025", "1.2.25", "31/1/99",
    "31-Jan-2025", "1st Feb 24", "Sept 9, 2024", "2024-feb-29", "20250131", "20251301", "45688", "29999", "60001",
    "1970-01-01", "31-Foo-2025", "Mon, 3 Feb 2025", "thursday 05/06/2025,", "2025-02-29", "x", "2025",
)  # fmt: skip
TIME_TEXTS = (
    "", " 15:30:00", "T15:30", " 9:05 am", " 12:00 am", " 12:00 PM", ", 3:30 p.m.", " 13:00 AM", " 24:00", " 10:60",
    "T23:59:60Z", "T23:30:00+05:30", " 00:10 -0330", "T18:29:59.999999Z", "T18:30 utc", " 10:00 Asia/Kolkata", " 10:00+25",
)  # fmt: skip


def mixed_texts(n=400):
    rng = random.Random(5)
    texts = [day + time for day, time in itertools.product(DAY_TEXTS, TIME_TEXTS)]
    scrambled = ["".join(rng.sample(text, len(text))) for text in texts if text]
    cut = [text[: rng.randrange(len(text))] for text in texts]
    return [*texts, *rng.sample(scrambled, n), *rng.sample(cut, n), *(text for text in SPELLINGS if text)]


@pytest.mark.parametrize("dayfirst", [None, True, False])
@pytest.mark.parametrize("timezone", [None, "Asia/Kolkata", "America/New_York"])
def test_every_text_is_the_day_that_a_column_of_them_is(dayfirst, timezone):
    texts = mixed_texts()
    column, reading, _with_offset = read_column(texts, dayfirst, timezone)
    ours = read_history_dates(texts, dayfirst, timezone)
    assert ours.day_first == reading.day_first
    for text, day, fault, theirs in zip(texts, ours.days, ours.faults, column, strict=True):
        assert (day, fault) == theirs, text
    assert sum(day is not None for day in ours.days) > 200


@pytest.mark.parametrize(
    ("texts", "day_first", "guessed"),
    [
        (["05/06/2025", "13/06/2025"], True, 0),
        (["05/06/2025", "06/13/2025"], False, 0),
        (["05/06/2025", "07/06/2025", "2025-06-05"], True, 2),
        (["05/05/2025", "2025-06-05"], True, 0),
        ([], True, 0),
    ],
)
def test_one_history_has_one_order_of_day_and_month_and_a_guess_is_counted(texts, day_first, guessed):
    found = read_history_dates(texts, None, None)
    assert (found.day_first, found.guessed) == (day_first, guessed)
    assert found.faults == [None] * len(texts)


def test_the_shops_own_order_needs_no_guess():
    found = read_history_dates(["05/06/2025"], False, None)
    assert (found.days, found.guessed) == ([date(2025, 5, 6)], 0)


def test_a_date_of_the_other_order_contradicts():
    found = read_history_dates(["13/06/2025", "14/06/2025", "06/15/2025"], None, None)
    assert found.faults == [None, None, "contradicts"]


def test_offsets_are_counted_and_moved_only_where_the_shop_has_a_zone():
    texts = ["2025-01-31T23:30:00Z", "2025-01-31 23:30"]
    assert read_history_dates(texts, None, None).days == [date(2025, 1, 31)] * 2
    found = read_history_dates(texts, None, "Asia/Kolkata")
    assert (found.days, found.with_offset) == ([date(2025, 2, 1), date(2025, 1, 31)], 1)
