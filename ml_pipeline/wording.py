"""Numbers in words for people: counts with their plural, times, shares, paces, money, stretches of days."""

from dataclasses import dataclass
from datetime import date

from ml_pipeline.windows import Window

WHOLE_MONEY_FROM = 100_000
"""Features are float32, which does not hold the cents of larger amounts."""


@dataclass(frozen=True)
class Occasion:
    """What a phrase may need beside the value: the currency of amounts, and the first of the days that are predicted."""

    currency: str
    as_of: date


def number(value: float) -> str:
    """One decimal below 10 and none above, without a trailing .0: 2.3, 9, 1,240."""
    text = f"{value:.1f}".removesuffix(".0") if abs(value) < 9.95 else f"{value:,.0f}"
    return "0" if text == "-0" else text


def counted(value: float, one: str, many: str = "") -> str:
    """The number with its noun: `1 day`, `2.5 days`."""
    text = number(value)
    return f"{text} {one if text == '1' else many or f'{one}s'}"


def days(value: float) -> str:
    """`1 day`, `12 days`."""
    return counted(value, "day")


def days_ago(value: float) -> str:
    """`today`, `1 day ago`, `12 days ago`."""
    return f"{days(value)} ago" if number(value) != "0" else "today"


def times(value: float) -> str:
    """`once`, `twice`, `3 times`."""
    return {"1": "once", "2": "twice"}.get(number(value), f"{number(value)} times")


def multiple(value: float) -> str:
    """How many times as much: `1.4 times`, `twice`, below 1 `40 %`."""
    return times(value) if value >= 1 else share(value)


def share(value: float) -> str:
    """`40 %`; a share that is not all is never shown as 100 %, one that is not nothing never as 0 %."""
    if 0 < value < 0.0005:
        return "less than 0.1 %"
    if 0.995 <= value < 1:
        return "more than 99 %"
    return f"{number(value * 100)} %"


def money(value: float, currency: str) -> str:
    """`3,410.00 INR`; whole units where float32 does not hold the cents."""
    return f"{value:,.2f} {currency}" if abs(value) < WHOLE_MONEY_FROM else f"{value:,.0f} {currency}"


def is_nothing(amount: float) -> bool:
    """Whether an amount is shown as 0.00."""
    return abs(amount) < 0.005


def pace(per_30_days: float) -> str:
    """How often: `about 2.3 times per 30 days`, below that `about once every 75 days`, `less than once a year`."""
    if per_30_days < 30 / 365:
        return "less than once a year"
    if number(per_30_days) == "1" or per_30_days > 1:
        return f"about {times(per_30_days)} per 30 days"
    return f"about once every {days(30 / per_30_days)}"


def in_window(window: Window) -> str:
    """`in the last 30 days`, `between 31 and 60 days ago`."""
    if window.newest > 1:
        return f"between {window.newest} and {window.oldest} days ago"
    return f"in the last {window.oldest} days" if window.oldest > 1 else "in the last day"


def plain(name: str) -> str:
    """The name of a target or a candidate as people write it: `home_garden` as `home garden`."""
    return name.replace("_", " ")
