"""Reads the dates of one raw history: as `dates` reads a column, text by text in Python, within microseconds.

The patterns are those of `dates`; a test holds both to the same days. A column goes to the engine, which costs a
tenth of a second however short the column is: too much for one customer's request.
"""

import re
import zoneinfo
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Literal

from ml_pipeline.dates import (
    DAY_PATTERNS,
    EXCEL_SERIAL,
    EXCEL_SERIALS,
    EXCEL_ZERO,
    MONTH_NUMBER,
    TIME_OF_DAY,
    TIME_PART,
    TWO_DIGIT_PIVOT,
    WEEKDAY,
)
from ml_pipeline.schema import canonical_text

LONGEST_DATE = 100
"""No date is longer, in characters; Python's patterns may take long over long texts."""

Fault = Literal["empty", "unreadable", "contradicts"]


@dataclass(frozen=True)
class HistoryDates:
    """The days of n texts in their order, and how they were read.

    days: None where faults has a word: "contradicts" is a date only by the reading that was not taken. guessed: texts
    that could be read both ways, to different days, where nothing decided and day-first was taken. with_offset: texts
    with an offset from UTC.
    """

    days: list[date | None]
    faults: list[Fault | None]
    day_first: bool
    guessed: int
    with_offset: int


@dataclass(frozen=True)
class _Reading:
    """One text: its day by either reading, the second of the day, and the offset from UTC where it has one."""

    day_first: date | None = None
    month_first: date | None = None
    second: int = 0
    offset: int | None = None
    empty: bool = False


def read_history_dates(texts: Sequence[str], dayfirst: bool | None, timezone: str | None) -> HistoryDates:
    """Decides day-first or month-first once for all texts and reads them.

    dayfirst: what the shop's dataset.toml says; None leaves it to the texts, and to day-first where they are silent.
    timezone: the shop's; times with an offset are brought to it first, without one they count as written.
    """
    distinct = {text: _read(text) for text in dict.fromkeys(texts)}
    readings = [distinct[text] for text in texts]
    day_first, guessed = _decide(readings, dayfirst)
    zone = zoneinfo.ZoneInfo(timezone) if timezone else None
    found = {text: _day_of(reading, day_first, zone) for text, reading in distinct.items()}
    return HistoryDates(
        days=[found[text][0] for text in texts],
        faults=[found[text][1] for text in texts],
        day_first=day_first,
        guessed=guessed,
        with_offset=sum(reading.offset is not None for reading in readings),
    )


def _decide(readings: Iterable[_Reading], dayfirst: bool | None) -> tuple[bool, int]:
    """Whether the day comes first, and how many texts were read so without anything that says so."""
    if dayfirst is not None:
        return dayfirst, 0
    for_day = for_month = either = 0
    for reading in readings:
        for_day += reading.month_first is None and reading.day_first is not None
        for_month += reading.day_first is None and reading.month_first is not None
        both = reading.day_first is not None and reading.month_first is not None
        either += both and reading.day_first != reading.month_first
    return for_day >= for_month, either if for_day == for_month else 0


def _day_of(reading: _Reading, day_first: bool, zone: zoneinfo.ZoneInfo | None) -> tuple[date | None, Fault | None]:
    day, other = reading.day_first, reading.month_first
    if not day_first:
        day, other = other, day
    if day is None:
        return None, "empty" if reading.empty else "contradicts" if other else "unreadable"
    if zone is None or reading.offset is None:
        return day, None
    moment = datetime(day.year, day.month, day.day, tzinfo=UTC)
    try:
        return (moment + timedelta(seconds=reading.second - reading.offset)).astimezone(zone).date(), None
    except OverflowError:
        return None, "unreadable"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """As the engine reads it: blanks and digits are those of ASCII, and the end is the end."""
    return re.compile(pattern.replace("$", r"\Z"), re.ASCII)


def _read(text: str) -> _Reading:
    text = canonical_text(text)
    if not text:
        return _Reading(empty=True)
    if len(text) > LONGEST_DATE:
        return _Reading()
    time = _compiled(TIME_PART).search(text)
    day_text = text[: time.start()] if time else text
    clock = _read_time(time.group().lower()) if time else (0, None)
    if clock is None:
        return _Reading()
    day_text = _compiled(r"[,\s]+$").sub("", _compiled(WEEKDAY).sub("", day_text.lower()))
    return _Reading(_read_day(day_text), _read_day(day_text, month_first=True), *clock)


def _read_day(text: str, month_first: bool = False) -> date | None:
    for name, (pattern, order) in DAY_PATTERNS.items():
        found = _compiled(pattern).search(text)
        if found:
            parts = dict(zip(order, found.groups(), strict=True))
            if month_first and name == "numbers-year":
                parts["day"], parts["month"] = parts["month"], parts["day"]
            return _date_of(parts)
    if _compiled(EXCEL_SERIAL).search(text) and EXCEL_SERIALS[0] <= int(text[:5]) <= EXCEL_SERIALS[1]:
        return EXCEL_ZERO + timedelta(days=int(text[:5]))
    return None


def _date_of(parts: dict[str, str]) -> date | None:
    year = parts["year"]
    if len(year) == 2:
        year = ("19" if int(year) >= TWO_DIGIT_PIVOT else "20") + year
    month = MONTH_NUMBER.get(parts["name"], 0) if "name" in parts else int(parts["month"])
    try:
        return date(int(year), month, int(parts["day"]))
    except ValueError:
        return None


def _read_time(text: str) -> tuple[int, int | None] | None:
    """(second of the day, offset from UTC in seconds or None); None where it is no time."""
    found = _compiled(TIME_OF_DAY).search(text)
    if found is None:
        return None
    hour, minute, second = (int(part or 0) for part in found.groups()[:3])
    half, zone = (found.group(4) or "")[:1], found.group(5) or ""
    if hour > (12 if half == "a" else 23) or minute > 59 or second > 60:
        return None
    if half == "p" and hour < 12:
        hour += 12
    elif half == "a" and hour == 12:
        hour = 0
    return hour * 3600 + minute * 60 + second, _offset_of(zone)


def _offset_of(zone: str) -> int | None:
    if not zone:
        return None
    digits = re.sub("[^0-9]", "", zone)
    size = int(digits[:2] or 0) * 3600 + int(digits[2:4] or 0) * 60
    return -size if zone.startswith("-") else size
