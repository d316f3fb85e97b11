"""Dates in many spellings, one reading per column, and the day that the shop's clocks showed."""

from datetime import date

import ibis
import pytest

from ml_pipeline.dates import DateReading, decide_reading, with_date_parts, with_day
from ml_pipeline.engine import open_engine
from ml_pipeline.tables import materialise

JAN_31 = date(2025, 1, 31)
ENGINE = open_engine(threads=1)


def _read(
    texts: list[str | None], dayfirst: bool | None = None, timezone: str | None = None
) -> tuple[list[tuple[date | None, str | None]], DateReading, int]:
    rows = ibis.memtable(
        {"row_number": list(range(len(texts))), "sold": texts}, schema={"row_number": "int64", "sold": "string"}
    )
    parts = materialise(ENGINE, with_date_parts(rows, "sold"), "parts")
    reading, days = decide_reading(ENGINE, parts, "sold", "sales.sold", dayfirst)
    read, with_offset = with_day(ENGINE, parts, "sold", days, timezone)
    listed = read.order_by("row_number").to_pyarrow().to_pylist()
    return [(row["sold_day"], row["sold_fault"]) for row in listed], reading, with_offset


SPELLINGS: dict[str | None, date | None] = {
    "2025-01-31 15:30:00": JAN_31,
    "2025-01-31T15:30:00.123456": JAN_31,
    "2025-01-31T15:30Z": JAN_31,
    "2025-1-31": JAN_31,
    "31-01-2025 15:30": JAN_31,
    "2025/01/31": JAN_31,
    "31.01.2025": JAN_31,
    "31/1/25": JAN_31,
    "31-01-99": date(1999, 1, 31),
    "31-Jan-2025": JAN_31,
    "31 January 2025 3:30 PM": JAN_31,
    "Jan 31, 2025": JAN_31,
    "2025-Jan-31": JAN_31,
    "Fri, 31 Jan 2025 10:00:00 +0000": JAN_31,
    "20250131": JAN_31,
    "20250131 153000": JAN_31,
    "20250131T1530": JAN_31,
    "45688": JAN_31,
    "45688.75": JAN_31,
    "31/01/2025, 3:30 pm": JAN_31,
    " 2025-01-31\u00a0": JAN_31,
    "05-06-2025": date(2025, 6, 5),
    "2024-02-29": date(2024, 2, 29),
    "99999": None,
    "12": None,
    "not recorded": None,
    "0000-00-00 00:00:00": None,
    "31-02-2025 10:15": None,
    "2025-02-29": None,
    "2025-13-05 12:00:00": None,
    "2025-01-31 25:00": None,
    "2025-01-31 10:61": None,
    "2025-01-31 13:00 AM": None,
    "2025-01-31 15:30:00 Asia/Kolkata": None,
    "15:30": None,
    "31-Foo-2025": None,
}


def test_every_spelling_is_read_or_called_unreadable() -> None:
    read, _, _ = _read(list(SPELLINGS))
    for (text, expected), (day, fault) in zip(SPELLINGS.items(), read, strict=True):
        assert (day, fault) == (expected, None if expected else "unreadable"), text


@pytest.mark.parametrize("text", [None, "", "  ", "NaT", "null"])
def test_nothing_is_empty_and_not_unreadable(text: str | None) -> None:
    assert _read([text, "2025-01-31"])[0][0] == (None, "empty")


def test_the_majority_of_rows_decides_and_the_others_contradict() -> None:
    read, reading, _ = _read(["31-01-2025", "30-01-2025", "01-31-2025", "05-06-2025"])
    assert (reading.day_first, reading.decided_by) == (True, "rows")
    assert (reading.day_first_rows, reading.month_first_rows, reading.either_rows) == (2, 1, 1)
    assert read[2:] == [(None, "contradicts"), (date(2025, 6, 5), None)]


def test_a_month_first_column_is_read_month_first() -> None:
    read, reading, _ = _read(["01/31/2025", "05/06/2025", "31-Jan-2025", "2025-01-31"])
    assert not reading.day_first
    assert [day for day, _ in read] == [JAN_31, date(2025, 5, 6), JAN_31, JAN_31]


def test_repeated_rows_count_as_often_as_they_occur() -> None:
    _, reading, _ = _read(["01/31/2025"] * 2 + ["31/01/2025"] * 3)
    assert (reading.day_first_rows, reading.month_first_rows) == (3, 2)


def test_where_nothing_decides_it_is_day_first_with_a_warning() -> None:
    read, reading, _ = _read(["05-06-2025", "07-07-2025"])
    assert read[0][0] == date(2025, 6, 5)
    assert reading.decided_by == "default"
    assert "dayfirst in dataset.toml" in reading.warnings[0]


def test_a_tie_is_day_first_with_a_warning() -> None:
    read, reading, _ = _read(["31-01-2025", "01-31-2025"])
    assert [fault for _, fault in read] == [None, "contradicts"]
    assert reading.decided_by == "default"
    assert reading.warnings


def test_without_a_doubtful_date_there_is_nothing_to_decide() -> None:
    _, reading, _ = _read(["2025-01-31", "07-07-2025"])
    assert (reading.decided_by, reading.warnings) == ("nothing to decide", ())


def test_dataset_toml_settles_it_even_against_the_rows() -> None:
    read, reading, _ = _read(["31-01-2025", "05-06-2025"], dayfirst=False)
    assert read == [(None, "contradicts"), (date(2025, 5, 6), None)]
    assert reading.decided_by == "dataset.toml"
    assert "1 rows" in reading.warnings[0]


ZONED = {
    "2025-03-30T00:30:00+00:00": date(2025, 3, 30),
    "2025-03-29T22:59:59Z": date(2025, 3, 29),
    "2025-03-29T23:00:00Z": date(2025, 3, 30),
    "2025-03-30T21:59:59Z": date(2025, 3, 30),
    "2025-03-30T22:00:00Z": date(2025, 3, 31),
    "2025-10-26T22:59:59+0000": date(2025, 10, 26),
    "2025-10-26T23:00:00+00": date(2025, 10, 27),
    "2025-06-30T20:00:00-04:00": date(2025, 7, 1),
    "2025-06-30 23:30": date(2025, 6, 30),
    "2025-06-30": date(2025, 6, 30),
    "1969-12-31T23:30:00Z": date(1970, 1, 1),
    "2025-12-31T11:30 PM Z": date(2026, 1, 1),
}


def test_a_timestamp_with_an_offset_gets_the_day_of_the_shops_clocks() -> None:
    read, _, with_offset = _read(list(ZONED), timezone="Europe/Berlin")
    for (text, expected), (day, _) in zip(ZONED.items(), read, strict=True):
        assert day == expected, text
    assert with_offset == len(ZONED) - 2


def test_without_a_timezone_offsets_count_as_written() -> None:
    read, _, with_offset = _read(["2025-06-30T23:30:00-04:00", "2025-06-30T00:10:00+05:30"])
    assert [day for day, _ in read] == [date(2025, 6, 30)] * 2
    assert with_offset == 2


def test_the_last_day_of_the_calendar_is_a_day_in_every_zone() -> None:
    read, _, _ = _read(["9999-12-31T23:00:00Z", "2025-01-31T10:00:00Z"], timezone="Europe/Berlin")
    assert [fault for _day, fault in read] == [None, None]
    assert read[1][0] == JAN_31
