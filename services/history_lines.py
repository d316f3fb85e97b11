"""The lines of a raw history: each one purchase or return, read and checked; the first impossible one is refused by name."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ml_pipeline.schema import (
    AMOUNT_LIMIT,
    AMOUNT_SCALE,
    MAX_ID_LENGTH,
    OTHER_TARGET,
    QUANTITY_LIMIT,
    QUANTITY_SCALE,
    DatasetConfig,
    canonical_id,
    category_key,
)
from services.errors import InvalidRequest, RequestTooLarge
from services.ignored_inputs import ignored_inputs
from services.requested_ids import is_text_or_number, json_type
from services.summary_fields import LONGEST_SHOWN, NUMBER

if TYPE_CHECKING:
    from ml_pipeline.history import RawTransaction

LINE_FIELDS = (
    "transaction_date",
    "amount",
    "category",
    "quantity",
    "transaction_id",
    "product_id",
    "store_id",
    "has_promotion",
)
TRANSACTIONS_LIMIT = 10_000
CATEGORIES_SHOWN = 5
LONGEST_NUMBER = 100  # as text, in characters
EXAMPLE = 'Send [{"transaction_date": "2025-01-31", "amount": 12.5, "category": "Grocery", "quantity": 2}].'
IGNORED_LINE_FIELD = "A line is read by its transaction_date, amount, category, quantity, ids and has_promotion."
FIRST_DAY = dt.date(1970, 1, 1)
"""The zero of computer clocks: as in the tables, a date on or before it was never a sale's."""
YEARS_AHEAD = 10


@dataclass(frozen=True)
class HistoryLines:
    """The lines in the order they were sent; their days in `transaction_date`."""

    lines: "list[RawTransaction]"
    warnings: list[str]
    ignored: list[dict[str, str]]

    @property
    def last_day(self) -> dt.date | None:
        """Of all lines; None without any."""
        return max((line["transaction_date"] for line in self.lines), default=None)


def read_lines(transactions: Any, config: DatasetConfig, served_as_of: dt.date) -> HistoryLines:
    """The lines of a JSON list. Raises InvalidRequest with the position (from 1), the value and the way out, and
    RequestTooLarge beyond TRANSACTIONS_LIMIT."""
    entries = _entries(transactions)
    days, warnings = _read_days([_date_text(number, entry) for number, entry in _numbered(entries)], config)
    for number, day in enumerate(days, start=1):
        _check_day(f"transaction {number}: transaction_date", day, served_as_of)
    lines = [_line(number, entry, day) for (number, entry), day in zip(_numbered(entries), days, strict=True)]
    return HistoryLines(lines, [*warnings, *_warnings_of(lines, config)], _ignored(entries))


def _entries(transactions: Any) -> Sequence[Mapping[str, Any]]:
    if not isinstance(transactions, list):
        raise InvalidRequest(f"transactions is {_shown(transactions)}; it must be a list of lines. {EXAMPLE}")
    if len(transactions) > TRANSACTIONS_LIMIT:
        raise RequestTooLarge(
            f"The history has {len(transactions):,} transactions; at most {TRANSACTIONS_LIMIT:,} are read. Leave out the "
            "oldest, or put the customer into the tables and train."
        )
    for number, entry in enumerate(transactions, start=1):
        if not isinstance(entry, Mapping):
            raise InvalidRequest(f"transaction {number} is {_shown(entry)}; it must be an object. {EXAMPLE}")
    return transactions


def _numbered(entries: Sequence[Mapping[str, Any]]) -> enumerate[Mapping[str, Any]]:
    return enumerate(entries, start=1)


# ---- days


def _date_text(number: int, entry: Mapping[str, Any]) -> str:
    return date_text(entry.get("transaction_date"), f"transaction {number}: transaction_date")


def date_text(value: Any, what: str) -> str:
    """The text of a date; what no text is has no one reading as a date. Raises InvalidRequest."""
    if value is None:
        raise InvalidRequest(f'{what} is missing; write a date such as "2025-01-31".')
    if not isinstance(value, str):
        raise InvalidRequest(f'{what} is {_shown(value)}; write a date as a text such as "2025-01-31".')
    return value


def _read_days(texts: Sequence[str], config: DatasetConfig) -> tuple[list[dt.date], list[str]]:
    """The day of each text and what is to be said of how they were read. Raises InvalidRequest."""
    from ml_pipeline.history_dates import read_history_dates

    read = read_history_dates(texts, config.dayfirst, config.timezone)
    days: list[dt.date] = []
    for number, (text, day, fault) in enumerate(zip(texts, read.days, read.faults, strict=True), start=1):
        if day is None:
            raise InvalidRequest(
                f"transaction {number}: transaction_date {_fault_in_words(text, fault, read.day_first)}"
            )
        days.append(day)
    warnings = []
    if read.guessed:
        warnings.append(
            f"{_counted(read.guessed, 'transaction_date')} can be read day-first or month-first and nothing in the history "
            "says which: taken as day-first. Write dates as 2025-01-31 to be sure."
        )
    if read.with_offset and config.timezone is None:
        warnings.append(
            f"{_counted(read.with_offset, 'transaction_date')} with an offset from UTC counted as written: the timezone of the "
            "shop is not known (timezone in dataset.toml)."
        )
    return days, warnings


def _fault_in_words(text: str, fault: str | None, day_first: bool) -> str:
    if fault == "contradicts":
        order, other = ("day-first", "month-first") if day_first else ("month-first", "day-first")
        return (
            f"is {text[:LONGEST_SHOWN]!r}, a date only if it is read {other}, while the history's dates are read {order}. "
            "Write all dates as 2025-01-31."
        )
    return f'is {text[:LONGEST_SHOWN]!r}, which is no date; write one such as "2025-01-31" or "2025-01-31 15:30:00".'


def read_day(
    value: Any, what: str, config: DatasetConfig, served_as_of: dt.date, first: dt.date = FIRST_DAY
) -> dt.date:
    """One day beside the lines, which has to be clear by itself. Raises InvalidRequest."""
    from ml_pipeline.history_dates import read_history_dates

    text = date_text(value, what)
    read = read_history_dates([text], config.dayfirst, config.timezone)
    day = read.days[0]
    if day is None:
        raise InvalidRequest(f"{what} {_fault_in_words(text, read.faults[0], read.day_first)}")
    if read.guessed:
        raise InvalidRequest(
            f"{what} is {text[:LONGEST_SHOWN]!r}, which can be read day-first or month-first; write it year-first, as in "
            "2025-01-31."
        )
    _check_day(what, day, served_as_of, first)
    return day


def _check_day(what: str, day: dt.date, served_as_of: dt.date, first: dt.date = FIRST_DAY) -> None:
    if first < day and day.year <= served_as_of.year + YEARS_AHEAD:
        return
    raise InvalidRequest(
        f"{what} is {day.isoformat()}; dates are read from the day after {first.isoformat()} to the end of "
        f"{served_as_of.year + YEARS_AHEAD}. Correct it or leave it out."
    )


# ---- lines


def _line(number: int, entry: Mapping[str, Any], day: dt.date) -> "RawTransaction":
    what = f"transaction {number}: "
    if entry.get("amount") is None:
        raise InvalidRequest(f"{what}amount is missing; write a number, negative for a return.")
    return {
        "transaction_date": day,
        "amount": _number(entry["amount"], AMOUNT_LIMIT, f"{what}amount"),
        "quantity": _number(entry.get("quantity", 1), QUANTITY_LIMIT, f"{what}quantity"),
        "category": _text(entry.get("category"), f"{what}category"),
        "transaction_id": _identity(entry.get("transaction_id"), f"{what}transaction_id"),
        "product_id": _identity(entry.get("product_id"), f"{what}product_id"),
        "store_id": _identity(entry.get("store_id"), f"{what}store_id"),
        "has_promotion": _flag(entry.get("has_promotion"), f"{what}has_promotion"),
    }


def _number(value: Any, limit: int, what: str) -> Any:
    """The number as it was sent, so that its decimals are those that were written; None is 1."""
    if value is None:
        return 1
    if isinstance(value, str):
        plain = value.strip()
        fits = len(plain) <= LONGEST_NUMBER and NUMBER.fullmatch(plain) is not None and abs(Decimal(plain)) <= limit
        value = plain if fits else value
    else:
        fits = is_text_or_number(value) and abs(value) <= limit
    if not fits:
        raise InvalidRequest(f"{what} is {_shown(value)}; write a plain number between -{limit} and {limit}.")
    return value


def _text(value: Any, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if is_text_or_number(value):
        return canonical_id(value)
    raise InvalidRequest(f"{what} is {_shown(value)}; write a text, or leave it out.")


def _identity(value: Any, what: str) -> str | None:
    if value is None:
        return None
    if not is_text_or_number(value):
        raise InvalidRequest(f"{what} is {_shown(value)}; write a text or a number, or leave it out.")
    identity = canonical_id(value)
    if len(identity) > MAX_ID_LENGTH:
        raise InvalidRequest(
            f"{what} is {identity[:LONGEST_SHOWN]!r}… of {len(identity):,} characters; an id has at most {MAX_ID_LENGTH}."
        )
    return identity or None


def _flag(value: Any, what: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequest(f"{what} is {_shown(value)}; write true or false, or leave it out where it is not known.")


def _shown(value: Any) -> str:
    """A JSON value in a message."""
    if isinstance(value, str):
        return repr(value[:LONGEST_SHOWN]) + "…" * (len(value) > LONGEST_SHOWN)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) < 10**LONGEST_SHOWN else "a number of very many digits"
    return str(value) if is_text_or_number(value) else json_type(value)


# ---- what is said of them


def _warnings_of(lines: "Sequence[RawTransaction]", config: DatasetConfig) -> list[str]:
    warnings = []
    nothing = sum(
        _is_nothing(line["amount"], AMOUNT_SCALE) or _is_nothing(line["quantity"], QUANTITY_SCALE) for line in lines
    )
    if nothing:
        warnings.append(f"{_counted(nothing, 'transaction')} of {len(lines)} with amount or quantity 0 did not count.")
    if config.targets:
        warnings += _categories_of_no_target(lines, config)
    return warnings


def _is_nothing(value: Any, scale: int) -> bool:
    """Whether it is 0 when it is rounded to the digits that count."""
    return abs(float(value)) * scale < 0.5


def _categories_of_no_target(lines: "Sequence[RawTransaction]", config: DatasetConfig) -> list[str]:
    """Nothing is wrong with them, unless a category was misspelled."""
    key_of: Callable[[str], str] = category_key
    counts = Counter(key_of(line.get("category") or "") for line in lines)
    unnamed = counts.pop("", 0)
    others = [name for name in counts if name not in config.target_of_category]
    warnings = []
    targets = ", ".join(config.target_names)
    if others:
        shown = ", ".join(repr(name[:LONGEST_SHOWN]) for name in others[:CATEGORIES_SHOWN])
        more = f" and {len(others) - CATEGORIES_SHOWN} more" if len(others) > CATEGORIES_SHOWN else ""
        warnings.append(f"Of no target ({targets}), so counted as {OTHER_TARGET}: category {shown}{more}.")
    if unnamed:
        warnings.append(
            f"{_counted(unnamed, 'transaction')} of {len(lines)} without a category counted as {OTHER_TARGET}."
        )
    return warnings


def _ignored(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    unknown = dict.fromkeys(name for entry in entries for name in entry if name not in LINE_FIELDS)
    return ignored_inputs((f"transactions[].{name}" for name in unknown), lambda _name: IGNORED_LINE_FIELD)


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' if number != 1 else ''}"
