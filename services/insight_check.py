"""Whether a text may be shown as an insight: it is plain, short, English, states no number and no currency that was not given,
and promises nothing off."""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from services.insight_question import DAY, SHARE_FACTS, Fact
from services.stated_numbers import Reading, StatedNumber, stated_numbers

MAX_INSIGHT = 500
MAX_ACTION = 350
"""Characters."""
MOST_ROUNDED = 0.1
"""Of a given number: a rounding that is further from it than this part of it says something else."""

END_OF_THINKING = "</think>"
MARKUP = re.compile(r"[<>`{}\[\]|\\*#^•]|__|~~|^[-+]\s|^\d+[.)]\s|&\w+;")
LINK = re.compile(r"://|www\.|@|\b[a-z0-9-]+\.[a-z]{2,}\b", re.IGNORECASE)
BARE_PERCENT = re.compile(r"(?<!\d)(?<!\d\s)[%\u066a\u2030]")
"""XX % states a number too."""
_OFF = r"(?:off|discounts?|rebates?|cash[ -]?back|vouchers?|coupons?|reductions?|price cuts?)\b"
_PERCENT_OR_UNIT = r"(?:\s?(?:%|per[ -]?cent\b|[a-z]{3,6}\b|[^\w\s]))?"
PROMISE = re.compile(
    rf"\d{_PERCENT_OR_UNIT}[\s-]+(?:\w+[\s-]+)?{_OFF}|\bper[ -]?cent[\s-]+(?:\w+[\s-]+)?{_OFF}"
    rf"|\b{_OFF}\s+(?:of|by|worth|up to|over)\s(?:\w+\s){{0,2}}\W?\d",
    re.IGNORECASE,
)
"""A number given off: no fact is one, so whichever number it is, it was given for something else."""
ENGLISH = re.compile(
    r"\b(?:the|this|that|these|they|their|and|with|from|than|has|have|are|who|customers?)\b", re.IGNORECASE
)
FEWEST_WORDS = 12
"""That no English text of ours does without one of those."""
NEVER = "(?!)"
MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MONTH = re.compile(
    r"\b(January|February|March|April|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b|(?<=\d )(May)\b|\b(May)(?= \d)"
)
CURRENCIES = {
    "INR": ("₹", "rs", "rupee", "rupees", "inr"),
    "EUR": ("€", "euro", "euros", "eur"),
    "GBP": ("£", "pound", "pounds", "sterling", "gbp"),
    "JPY": ("¥", "yen", "jpy"),
    "CNY": ("¥", "yuan", "renminbi", "cny", "rmb"),
    "CHF": ("franc", "francs", "chf"),
    "BRL": ("r$", "real", "reais", "brl"),
    "KRW": ("₩", "won", "krw"),
    "RUB": ("₽", "rouble", "roubles", "ruble", "rubles", "rub"),
    "TRY": ("₺", "lira", "try"),
    "AED": ("dirham", "dirhams", "aed"),
    "NGN": ("₦", "naira", "ngn"),
    "PLN": ("zł", "zloty", "pln"),
    **{
        code: ("$", "dollar", "dollars", code.lower(), f"{code[:2].lower()}$")
        for code in ("USD", "CAD", "AUD", "NZD", "SGD", "HKD", "MXN")
    },
}
AMBIGUOUS = frozenset({"real", "rub", "try", "won"})
"""Names of currencies that are English words as well."""


class MalformedWording(ValueError):
    """The answer is no JSON object with the two texts in it."""


@dataclass(frozen=True)
class Wording:
    """What is said of a customer, or of a group of customers, and what is to be done."""

    insight: str
    recommended_action: str


def read_wording(answer: str) -> Wording:
    """The two texts of an answer, also where the model put words or a fence around its JSON. Raises MalformedWording."""
    text = answer.rpartition(END_OF_THINKING)[2]
    try:
        content, _end = json.JSONDecoder().raw_decode(text, text.index("{"))
        insight, action = content["insight"], content["recommended_action"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise MalformedWording("no JSON object with insight and recommended_action") from None
    if not (isinstance(insight, str) and isinstance(action, str) and insight.strip() and action.strip()):
        raise MalformedWording("insight or recommended_action is no text, or empty")
    return Wording(" ".join(insight.split()), " ".join(action.split()))


def refusal(wording: Wording, facts: Mapping[str, Fact], task: str) -> str | None:
    """Why the wording may not be shown, in one word; None if it may. facts: as they were sent."""
    if len(wording.insight) > MAX_INSIGHT or len(wording.recommended_action) > MAX_ACTION:
        return "length"
    given = GivenNumbers(facts, task)
    names = " ".join(_texts(facts))
    for text in (wording.insight, wording.recommended_action):
        for reason, is_wrong in (
            ("characters", _has_odd_characters(text, names)),
            ("markup", MARKUP.search(text) is not None),
            ("link", LINK.search(_without(text, facts)) is not None),
            ("currency", _names_other_currency(text, facts, names)),
            ("number", not given.has_all_of(text) or BARE_PERCENT.search(text) is not None),
            ("promise", PROMISE.search(_without(text, facts)) is not None),
        ):
            if is_wrong:
                return reason
    return "language" if _is_foreign(f"{wording.insight} {wording.recommended_action}") else None


class GivenNumbers:
    """The numbers that a text may state: the figures among the facts, and those in the given texts and in the task.

    The numbers of a given day belong to it: 2025-01-31 allows 31 January 2025, not 31 purchases.
    """

    def __init__(self, facts: Mapping[str, Fact], task: str = "") -> None:
        self._numbers: list[float] = []
        self._percents: list[float] = []
        for name, fact in facts.items():
            figures = fact.values() if isinstance(fact, Mapping) else [fact]
            for figure in figures:
                if isinstance(figure, int | float):
                    self._numbers.append(abs(float(figure)))
                    if name in SHARE_FACTS:
                        self._percents.append(100 * float(figure))
        texts = [*_texts(facts), task]
        self._days = _spellings_of_days({day for text in texts for day in DAY.findall(text)})
        self._months: set[str] = set()
        for text in _texts(facts):
            self._take(text, lambda _stated: True)
        self._take(task, _is_in_digits)  # its words are about the text: in two sentences

    def _take(self, text: str, is_meant: Callable[[StatedNumber], bool]) -> None:
        self._months |= _months(text)
        for stated in filter(is_meant, stated_numbers(DAY.sub(" ", text))):
            for each in (stated, *stated.parts):
                for reading in each.readings:
                    (self._percents if reading.is_percent else self._numbers).append(reading.value)

    def has_all_of(self, text: str) -> bool:
        """Whether every number and every month that the text states was given."""
        rest = self._days.sub(" ", text)
        return _months(rest) <= self._months and all(self._has(stated) for stated in stated_numbers(rest))

    def _has(self, stated: StatedNumber) -> bool:
        if any(self._was_given(reading) for reading in stated.readings):
            return True
        return bool(stated.parts) and all(self._has(part) for part in stated.parts)

    def _was_given(self, reading: Reading) -> bool:
        return any(_rounds_to(number, reading) for number in (self._percents if reading.is_percent else self._numbers))


def _is_in_digits(stated: StatedNumber) -> bool:
    return any(each.isdecimal() for each in stated.spelling)


def _rounds_to(given: float, reading: Reading) -> bool:
    """Whether the number, or a rounding of it to the places that are shown, is what was read.

    Only 0 itself is said to be 0, and only the whole is said to be one, or 100 %.
    """
    difference = abs(given - reading.value)
    if difference <= 1e-9 * max(given, 1.0):
        return True
    whole = 100.0 if reading.is_percent else 1.0
    if reading.value in (0.0, whole) or (given.is_integer() and reading.unit <= 1):
        return False
    return difference <= reading.unit / 2 + 1e-9 and difference <= MOST_ROUNDED * given


def _texts(facts: Mapping[str, Fact]) -> list[str]:
    """The texts among the facts."""
    found: list[str] = []
    for fact in facts.values():
        if isinstance(fact, str):
            found.append(fact)
        elif isinstance(fact, tuple | Mapping):
            found += fact
    return found


def _months(text: str) -> set[str]:
    return {match.group()[:3] for match in MONTH.finditer(text)}


def _spellings_of_days(days: Iterable[str]) -> re.Pattern[str]:
    """Matches the days (YYYY-MM-DD) as English texts write them; nothing where there are none."""
    spellings = [NEVER]
    for day in days:
        year, month, number = day.split("-")
        if not 1 <= int(month) <= len(MONTHS):
            continue
        name = f"(?:{MONTHS[int(month) - 1]}|{MONTHS[int(month) - 1][:3]}\\.?)"
        nth = f"0?{int(number)}(?:st|nd|rd|th)?"
        spellings += [
            day,
            rf"{nth}(?: of)? {name}(?:,? {year})?",
            rf"{name} {nth}(?:,? {year})?",
            rf"{name} {year}",
            rf"{number}\.{month}\.{year}|{number}/{month}/{year}",
        ]
    return re.compile(rf"\b(?:{'|'.join(spellings)})(?!\w)")


def _is_foreign(text: str) -> bool:
    return len(text.split()) >= FEWEST_WORDS and ENGLISH.search(text) is None


def _has_odd_characters(text: str, names: str) -> bool:
    """Control and invisible characters, and letters of other scripts than the Latin; those of the given names may be."""
    return any(
        unicodedata.category(each)[0] == "C" or (each.isalpha() and not unicodedata.name(each, "").startswith("LATIN"))
        for each in set(text) - set(names)
    )


def _without(text: str, facts: Mapping[str, Fact]) -> str:
    """The text without the given names, one of which may look like a link (Toys.com)."""
    for name in _texts(facts):
        if name:
            text = text.replace(name, " ")
    return text


def _names_other_currency(text: str, facts: Mapping[str, Any], names: str) -> bool:
    given = str(facts.get("currency", "")).upper()
    own = set(CURRENCIES.get(given, ())) | {given.lower()}
    marks = {mark for known in CURRENCIES.values() for mark in known} - own - AMBIGUOUS
    words = set(re.findall(r"[a-z]+\$|[^\W\d_]+|[^\w\s]", text.lower())) - set(re.findall(r"[^\W\d_]+", names.lower()))
    return bool(words & marks)
