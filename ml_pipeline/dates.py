"""Reads the dates of a text column: many spellings in one column, one decision about day-first or month-first.

The text is cut into a day part and a time part. Both have few distinct values even in long tables, so the patterns run
once per distinct value and the rows get their day by a join.
"""

import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import cast

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.tables import materialise, text_of

SECONDS_PER_DAY = 86_400
PLACEHOLDER_DAY = date(1970, 1, 1)
"""The zero of computer clocks; a date on or before it was never a sale's."""
EXCEL_ZERO = date(1899, 12, 30)
EXCEL_SERIALS = (30_000, 60_000)  # 1982-02-18 to 2064-04-08
TWO_DIGIT_PIVOT = 69  # 69..99 are 1969..1999, 00..68 are 2000..2068, as POSIX has it

TIME_PART = r"(?:[Tt]|,?\s)\s*[0-9]{1,2}:[0-9]{2}.*$"
WEEKDAY = r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\s+"
TIME_OF_DAY = (
    r"^(?:t|,?\s)\s*([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(?:[.,][0-9]+)?)?\s*"
    r"(a\.?m\.?|p\.?m\.?)?\s*(z|utc|gmt|[+-][0-9]{2}(?::?[0-9]{2})?)?$"
)
_MONTHS = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
]
MONTH_NUMBER = {name[:length]: i for i, name in enumerate(_MONTHS, start=1) for length in (3, len(name))} | {"sept": 9}
DAY_PATTERNS = {
    "year-month-day": (r"^([0-9]{4})[-/. ]([0-9]{1,2})[-/. ]([0-9]{1,2})$", ("year", "month", "day")),
    "yearmonthday": (
        r"^([0-9]{4})([0-9]{2})([0-9]{2})(?:[t ]?(?:[01][0-9]|2[0-3])[0-5][0-9](?:[0-5][0-9])?)?$",
        ("year", "month", "day"),
    ),
    "numbers-year": (r"^([0-9]{1,2})[-/. ]([0-9]{1,2})[-/. ]([0-9]{4}|[0-9]{2})$", ("day", "month", "year")),
    "day-name-year": (
        r"^([0-9]{1,2})(?:st|nd|rd|th)?[-/. ]*([a-z]{3,9})\.?,?[-/. ]*([0-9]{4}|[0-9]{2})$",
        ("day", "name", "year"),
    ),
    "name-day-year": (
        r"^([a-z]{3,9})\.?[-/. ]*([0-9]{1,2})(?:st|nd|rd|th)?(?:,|[-/. ])[-/. ]*([0-9]{4}|[0-9]{2})$",
        ("name", "day", "year"),
    ),
    "year-name-day": (r"^([0-9]{4})[-/. ]?([a-z]{3,9})\.?[-/. ]?([0-9]{1,2})$", ("year", "name", "day")),
}
EXCEL_SERIAL = r"^[0-9]{5}(?:\.[0-9]+)?$"


@dataclass(frozen=True)
class DateReading:
    """How a column of dates was read, and on what evidence.

    day_first_rows / month_first_rows: rows that can only be read so; either_rows: rows that could be read both ways, to
    different days. decided_by: "rows", "dataset.toml", "default" (nothing decides) or "nothing to decide".
    """

    column: str
    day_first: bool
    decided_by: str
    day_first_rows: int
    month_first_rows: int
    either_rows: int
    spellings: dict[str, int]
    warnings: tuple[str, ...]


def with_date_parts(rows: ir.Table, column: str) -> ir.Table:
    """Adds `<column>_day_text` (the day part) and `<column>_time_text` (the time part, '' without one); the text goes."""
    text = text_of(rows[column])
    parts = {
        f"{column}_day_text": text.re_replace(TIME_PART, ""),
        f"{column}_time_text": text.re_extract(TIME_PART, 0),
    }
    return rows.mutate(**parts).drop(column)


def decide_reading(
    engine: Backend, rows: ir.Table, column: str, label: str, dayfirst: bool | None
) -> tuple[DateReading, ir.Table]:
    """Decides day-first or month-first once for all rows with `<column>_day_text`; also returns the days per day part.

    dayfirst: what dataset.toml says; None leaves it to the rows, and to day-first where they are silent.
    The second table has one row per distinct day part: day_text, day and other_day (null = unreadable), other_day by the reading
    that was not taken.
    """
    day_texts = rows.group_by(day_text=rows[f"{column}_day_text"]).agg(rows=rows.count())
    read = materialise(engine, _read_days(day_texts), "day_texts")
    evidence = _count_evidence(read)
    spellings = {
        row["spelling"]: int(row["rows"])
        for row in read.group_by("spelling").agg(rows=read.rows.sum()).order_by("spelling").to_pyarrow().to_pylist()
    }
    reading = _decide(label, dayfirst, *evidence, spellings)
    day, other = ("day_first", "month_first") if reading.day_first else ("month_first", "day_first")
    return reading, read.select("day_text", day=read[day], other_day=read[other])


def with_day(
    engine: Backend, rows: ir.Table, column: str, days: ir.Table, timezone: str | None
) -> tuple[ir.Table, int]:
    """Adds `<column>_day` (date, null where there is none) and `<column>_fault`; the parts go.

    The fault is null, "empty", "unreadable" or "contradicts" (only the reading not taken makes a date of it). Times with
    an offset are brought to `timezone` first; without one they count as written. Also returns the number of rows with
    an offset.
    """
    day_text, time_text = f"{column}_day_text", f"{column}_time_text"
    times = materialise(engine, _read_times(rows.select(time_text=rows[time_text]).distinct()), "time_texts")
    joined = rows.left_join(days, rows[day_text] == days.day_text).drop("day_text")
    joined = joined.left_join(times, joined[time_text] == times.time_text).drop("time_text")
    unreadable_time = ~joined.time_reads.fill_null(False)
    fault = ibis.cases(
        ((joined[day_text] == "") & (joined[time_text] == ""), "empty"),
        (unreadable_time | (joined.day.isnull() & joined.other_day.isnull()), "unreadable"),
        (joined.day.isnull(), "contradicts"),
        else_=ibis.null("string"),
    )
    judged = joined.mutate(fault=fault)
    judged = judged.mutate(day=ibis.cases((judged.fault.isnull(), judged.day), else_=ibis.null("date")))
    with_offset = 0
    if bool(times.offset_seconds.notnull().any().execute()):
        judged = materialise(engine, judged, "timed")
        with_offset = int(judged.filter(judged.offset_seconds.notnull() & judged.day.notnull()).count().execute())
        if timezone is not None:
            judged = _in_zone(engine, judged, timezone)
    dropped = judged.drop(day_text, time_text, "other_day", "time_reads", "second", "offset_seconds")
    return dropped.rename({f"{column}_day": "day", f"{column}_fault": "fault"}), with_offset


# ---- day parts


def _read_days(day_texts: ir.Table) -> ir.Table:
    """day_text, rows, spelling, day_first, month_first: the days by either reading (the same unless it matters)."""
    text = cast(ir.StringValue, day_texts["day_text"]).lower().re_replace(WEEKDAY, "").re_replace(r"[,\s]+$", "")
    rows = day_texts.mutate(text=text)
    rows = rows.mutate(
        spelling=ibis.cases(
            (rows.text == "", "empty"),
            *(
                (cast(ir.StringValue, rows.text).re_search(pattern), name)
                for name, (pattern, _) in DAY_PATTERNS.items()
            ),
            (cast(ir.StringValue, rows.text).re_search(EXCEL_SERIAL), "excel serial"),
            else_="unreadable",
        )
    )
    spelled: Callable[[str], ir.BooleanValue] = lambda name: rows.spelling == name  # noqa: E731
    natural = [(spelled(name), _day_of(rows.text, pattern, order)) for name, (pattern, order) in DAY_PATTERNS.items()]
    serial = (spelled("excel serial"), _day_of_serial(rows.text))
    day_first = ibis.cases(*natural, serial, else_=ibis.null("date"))
    pattern, (first, second, third) = DAY_PATTERNS["numbers-year"]
    swapped = _day_of(rows.text, pattern, (second, first, third))
    month_first = ibis.cases((spelled("numbers-year"), swapped), *natural, serial, else_=ibis.null("date"))
    read = rows.select("day_text", "rows", "spelling", day_first=day_first, month_first=month_first)
    nothing = read.day_first.isnull() & read.month_first.isnull() & (read.spelling != "empty")
    return read.mutate(spelling=nothing.ifelse("unreadable", read.spelling))


def _day_of(text: ir.Value, pattern: str, order: tuple[str, ...]) -> ir.Value:
    parts = {part: cast(ir.StringValue, text).re_extract(pattern, i) for i, part in enumerate(order, start=1)}
    year = parts["year"]
    century = (year >= str(TWO_DIGIT_PIVOT)).ifelse("19", "20")
    year = (year.length() == 2).ifelse(century + year, year)
    if "name" in parts:
        numbers = ((name, f"{number:02d}") for name, number in MONTH_NUMBER.items())
        month = cast(ir.StringValue, parts["name"].cases(*numbers, else_="00"))
    else:
        month = parts["month"].lpad(2, "0")
    return (year + "-" + month + "-" + parts["day"].lpad(2, "0")).try_cast("date")


def _day_of_serial(text: ir.Value) -> ir.Value:
    number = cast(ir.StringValue, text).substr(0, 5).try_cast("int64")
    plausible = number.between(*EXCEL_SERIALS)
    day = (ibis.date(EXCEL_ZERO.isoformat()) + number.as_interval("D")).cast("date")
    return ibis.cases((plausible, day), else_=ibis.null("date"))


def _count_evidence(read: ir.Table) -> tuple[int, int, int]:
    first, second = read.day_first, read.month_first
    counted = read.aggregate(
        day_first=read.rows.sum(where=first.notnull() & second.isnull()).fill_null(0),
        month_first=read.rows.sum(where=first.isnull() & second.notnull()).fill_null(0),
        either=read.rows.sum(where=first.notnull() & second.notnull() & (first != second)).fill_null(0),
    )
    row = counted.to_pyarrow().to_pylist()[0]
    return int(row["day_first"]), int(row["month_first"]), int(row["either"])


def _decide(
    label: str, dayfirst: bool | None, for_day: int, for_month: int, either: int, spellings: dict[str, int]
) -> DateReading:
    warnings = []
    if dayfirst is not None:
        decided_by, day_first = "dataset.toml", dayfirst
        against = for_month if dayfirst else for_day
        if against > (for_day if dayfirst else for_month):
            warnings.append(
                f"dataset.toml says dayfirst = {str(dayfirst).lower()}, but {against} rows read only otherwise"
            )
    elif for_day != for_month:
        decided_by, day_first = "rows", for_day > for_month
    elif for_day == either == 0:
        decided_by, day_first = "nothing to decide", True
    else:
        decided_by, day_first = "default", True
        warnings.append(
            f"{either} dates read day-first or month-first alike, and the column does not say which"
            f" ({for_day} rows for each): taken as day-first; dayfirst in dataset.toml settles it"
        )
    return DateReading(
        label, day_first, decided_by, for_day, for_month, either, spellings, tuple(f"{label}: {w}" for w in warnings)
    )


# ---- time parts and zones


def _read_times(time_texts: ir.Table) -> ir.Table:
    """time_text, time_reads, second (of the day), offset_seconds (east of UTC; null without one)."""
    text = cast(ir.StringValue, time_texts["time_text"]).lower()
    part: Callable[[int], ir.StringValue] = lambda i: text.re_extract(TIME_OF_DAY, i)  # noqa: E731
    number: Callable[[ir.StringValue], ir.IntegerValue] = lambda t: t.try_cast("int64").fill_null(0)  # noqa: E731
    hour, minute, second = number(part(1)), number(part(2)), number(part(3))
    half = part(4).substr(0, 1)
    fits = ibis.cases((half == "a", hour <= 12), else_=hour <= 23)
    reads = (text == "") | (text.re_search(TIME_OF_DAY) & fits & (minute <= 59) & (second <= 60))
    hour = ibis.cases(((half == "p") & (hour < 12), hour + 12), ((half == "a") & (hour == 12), 0), else_=hour)
    zone = part(5)
    digits = zone.re_replace("[^0-9]", "")
    size = number(digits.substr(0, 2)) * 3600 + number(digits.substr(2, 2)) * 60
    offset = ibis.cases(
        (zone == "", ibis.null("int64")), (zone.startswith("-"), -size), (zone.startswith("+"), size), else_=0
    )
    return time_texts.select(
        "time_text", time_reads=reads, second=hour * 3600 + minute * 60 + second, offset_seconds=offset
    )


def _in_zone(engine: Backend, rows: ir.Table, timezone: str) -> ir.Table:
    """Moves the day of rows with an offset to the day that the clocks of the zone showed."""
    zero = ibis.date("1970-01-01")
    utc = rows.day.delta(zero, unit="day") * SECONDS_PER_DAY + rows.second - rows.offset_seconds
    timed = rows.mutate(utc=utc, utc_day=utc.cast("float64") / SECONDS_PER_DAY)
    timed = timed.mutate(utc_day=timed.utc_day.floor().cast("int64"))
    distinct = timed.filter(timed.utc_day.notnull()).select("utc_day").distinct().to_pyarrow()["utc_day"].to_pylist()
    shifts = ibis.memtable(
        [_zone_day(timezone, utc_day) for utc_day in sorted(distinct)] or [_zone_day(timezone, 0)],
        schema={"shift_day": "int64", "switch": "int64", "before": "int64", "after": "int64"},
    )
    shifts = materialise(engine, shifts, "zone")
    joined = timed.left_join(shifts, timed.utc_day == shifts.shift_day)
    local = joined.utc + (joined.utc < joined.switch).ifelse(joined.before, joined.after)
    local_day = (local.cast("float64") / SECONDS_PER_DAY).floor().cast("int64")
    moved = (zero + local_day.as_interval("D")).cast("date")
    day = ibis.cases((joined.offset_seconds.isnull() | joined.day.isnull(), joined.day), else_=moved)
    return joined.mutate(day=day).drop("utc", "utc_day", "shift_day", "switch", "before", "after")


def _zone_day(timezone: str, utc_day: int) -> tuple[int, int, int, int]:
    """(day, second since 1970 from which `after` holds, offset before, offset after) of one UTC day in a zone."""
    zone = zoneinfo.ZoneInfo(timezone)
    start = utc_day * SECONDS_PER_DAY

    def offset(second: int) -> int:
        try:
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)
            shift = moment.astimezone(zone).utcoffset()
        except OverflowError:  # the last day of the calendar, by which programs say "never"
            return 0
        return 0 if shift is None else round(shift.total_seconds())

    before, after = offset(start), offset(start + SECONDS_PER_DAY - 1)
    low, high = start, start + (SECONDS_PER_DAY if before != after else 0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if offset(middle) == before else (low, middle)
    return utc_day, high, before, after
