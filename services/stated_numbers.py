"""The numbers that an English text states, in whatever spelling, each with the ways in which it can be read.

Digits with any grouping (1,234.50; 1.234,50; 1 234; 1'234; 1,23,456), with a scale behind them (12k, 1.2 lakh, 3 million), as
percentages, fractions and ordinals, in any script; words from zero to crores, ordinals, once and twice, double, half, a third,
dozen. A sign is not read: "fell by 12 %" states 12 %.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

WORD_SCALES = {
    "hundred": 1e2, "thousand": 1e3, "lakh": 1e5, "lac": 1e5, "million": 1e6, "crore": 1e7, "billion": 1e9, "trillion": 1e12,
    "dozen": 12.0, "mn": 1e6, "mln": 1e6, "bn": 1e9,
}  # fmt: skip
LETTER_SCALES = {"k": 1e3, "l": 1e5, "m": 1e6, "b": 1e9, "cr": 1e7}
ONES = dict(
    zip(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ],
        range(20),
        strict=True,
    )
)
TENS = dict(
    zip(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], range(20, 100, 10), strict=True)
)
ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9,
    "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14, "fifteenth": 15, "sixteenth": 16,
    "seventeenth": 17, "eighteenth": 18, "nineteenth": 19, "twentieth": 20, "thirtieth": 30, "fortieth": 40, "fiftieth": 50,
    "sixtieth": 60, "seventieth": 70, "eightieth": 80, "ninetieth": 90, "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
OTHER_WORDS = {
    "once": 1, "single": 1, "twice": 2, "couple": 2, "pair": 2, "pairs": 2, "duo": 2, "thrice": 3, "trio": 3,
    "double": 2, "doubles": 2, "doubled": 2, "doubling": 2, "triple": 3, "triples": 3, "tripled": 3, "tripling": 3, "treble": 3,
    "trebled": 3, "quadruple": 4, "quadrupled": 4, "quintuple": 5, "fortnight": 14, "fortnightly": 14, "decade": 10,
    "decades": 10, "century": 100, "halve": 0.5, "halves": 0.5, "halved": 0.5, "halving": 0.5, "half": 0.5,
}  # fmt: skip
DENOMINATORS = {"half": 2, "halve": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
                "eighth": 8, "ninth": 9, "tenth": 10, "twentieth": 20, "hundredth": 100}  # fmt: skip

NO_NUMBERS = re.compile(
    r"\b(?:no[ -]one|one of|one another|one[ -](?:on|to|by)[ -]one|(?:this|that|which|the right|the wrong) one"
    r"|at once|once (?:again|more|they|he|she|it|this|that|the|these|those|you|we|their)|at first|first of all"
    r"|a (?:single|double)[ -]check|seconds? thoughts?)\b"
)
"""Phrases in which a number word counts nothing."""

PERCENT = r"(?P<percent>\s?(?:%|percent\b|per[ -]cent\b|pct\b|percentage[ -]points?\b))?"
_SCALE = rf"(?:[\s-]?(?P<scale>{'|'.join(WORD_SCALES)})s?\b|(?P<letter>{'|'.join(LETTER_SCALES)})(?![a-z]))?"
DIGITS = re.compile(rf"(?P<digits>(?:(?<!\w)\.)?\d+(?:[.,'’_]\d+|\s\d{{3}}(?!\d))*){_SCALE}{PERCENT}")
DIGIT_FRACTION = re.compile(r"(?<![\d/.,])(?P<over>\d+)\s?[/\u2044]\s?(?P<under>\d+)(?![\d/]|[.,]\d)")
_NUMERATORS = "|".join(["an?", *ONES])
WORD_FRACTION = re.compile(
    rf"\b(?:(?P<over>{_NUMERATORS})[\s-])?(?P<under>{'|'.join(DENOMINATORS)})(?P<many>s?)\b(?P<of>\s+of\b)?"
)
_COUNTING = "|".join(sorted([*ONES, *TENS, *ORDINALS, *WORD_SCALES, *OTHER_WORDS], key=len, reverse=True))
COUNTING = re.compile(rf"\b(?P<word>{_COUNTING})(?P<many>s?)(?P<fold>[ -]?fold)?\b")
JOINT = re.compile(r"[\s-]+(?:and[\s-]+)?")
PERCENT_BEHIND = re.compile(PERCENT)


@dataclass(frozen=True)
class Reading:
    """One way to read a spelling. unit: the worth of one in its last place, so that it may be a rounding to half of that."""

    value: float
    unit: float
    is_percent: bool = False


@dataclass(frozen=True)
class StatedNumber:
    """A number as the text spells it. It can be read in one of `readings`, or else as all of `parts` beside each other."""

    spelling: str
    readings: tuple[Reading, ...]
    parts: tuple["StatedNumber", ...] = ()


def stated_numbers(text: str) -> Iterator[StatedNumber]:
    """Every number in the text, those in digits first."""
    plain, single_characters = _in_plain_digits(text)
    yield from single_characters
    rest = plain
    for pattern, read in (
        (DIGIT_FRACTION, _digit_fraction),
        (DIGITS, _digits),
        (NO_NUMBERS, None),
        (WORD_FRACTION, _word_fraction),
    ):
        matches = list(pattern.finditer(rest))
        for match in matches:
            stated = read(match) if read else None
            if stated is not None:
                yield stated
            if stated is not None or read is None:
                rest = rest[: match.start()] + "\x00" * len(match.group()) + rest[match.end() :]
    yield from _words(rest)


def _in_plain_digits(text: str) -> tuple[str, list[StatedNumber]]:
    """The text in lower case with 0 to 9 for the digits of any script, and its characters that are numbers by themselves."""
    alone = [
        StatedNumber(each, (Reading(float(value), 0.0),))
        for each in text
        if not each.isdecimal() and (value := unicodedata.numeric(each, None)) is not None
    ]
    others = "".join(
        " " if not each.isdecimal() and unicodedata.numeric(each, None) is not None else each for each in text
    )
    normal = unicodedata.normalize("NFKC", others)
    return "".join(str(unicodedata.decimal(each)) if each.isdecimal() else each for each in normal).lower(), alone


def _digit_fraction(match: re.Match[str]) -> StatedNumber:
    over, under = float(match["over"]), float(match["under"])
    readings = (Reading(over / under, 0.0),) if under else ()
    return StatedNumber(match.group(), readings, (_whole(match["over"]), _whole(match["under"])))


def _whole(digits: str) -> StatedNumber:
    return StatedNumber(digits, (Reading(float(digits), 1.0),))


def _digits(match: re.Match[str]) -> StatedNumber:
    scale = WORD_SCALES.get(match["scale"] or "", 1.0) * LETTER_SCALES.get(match["letter"] or "", 1.0)
    is_percent = bool(match["percent"])
    readings = tuple(
        Reading(float(number) * scale, 10.0 ** -_decimals(number) * scale, is_percent)
        for number in _spellings(match["digits"])
    )
    parts = re.findall(r"\d+", match["digits"])
    is_list = len(parts) > 1 and scale == 1 and not is_percent
    return StatedNumber(
        match.group().strip(), readings, tuple(map(_whole, parts)) if is_list and _may_be_list(match) else ()
    )


def _may_be_list(match: re.Match[str]) -> bool:
    """Whether the digits may be several numbers: 7 345 side by side, or 31.01.2025; not 1.5."""
    return " " in match["digits"] or match["digits"].count(".") > 1


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])


def _spellings(digits: str) -> list[str]:
    """The number in digits with a point, in every way in which its separators can be meant."""
    ungrouped = re.sub(r"[\s'’_]", "", digits)
    marks = [each for each in ungrouped if each in ".,"]
    if not marks:
        return [ungrouped]
    head, last, tail = ungrouped.rpartition(marks[-1])
    as_decimal = re.sub(r"[.,]", "", head) + "." + tail
    as_group = re.sub(r"[.,]", "", ungrouped)
    if len(set(marks)) == 2:
        return [as_decimal] if marks.count(last) == 1 else []
    if len(marks) > 1:
        return [as_group] if len(tail) == 3 else []
    return [as_decimal, as_group] if len(tail) == 3 and head.strip("0") else [as_decimal]


def _word_fraction(match: re.Match[str]) -> StatedNumber | None:
    """None for what only looks like a fraction: a third purchase, next quarter."""
    name = match["under"]
    is_fraction = bool(match["many"] or match["of"]) or name in ("half", "halve")
    if not is_fraction and not (name == "quarter" and match["over"]):
        return None
    over = ONES.get(match["over"] or "", 1)
    return StatedNumber(match.group().strip(), (Reading(over / DENOMINATORS[name], 0.0),))


def _words(text: str) -> Iterator[StatedNumber]:
    """Runs of counting words, each as far as it is one number: two hundred and fifty; twenty-first."""
    run: list[re.Match[str]] = []
    for match in COUNTING.finditer(text):
        if run and not _continues(run, match, text):
            yield _run(run, text)
            run = []
        run.append(match)
    if run:
        yield _run(run, text)


def _continues(run: list[re.Match[str]], match: re.Match[str], text: str) -> bool:
    last, word = run[-1]["word"], match["word"]
    if not JOINT.fullmatch(text, run[-1].end(), match.start()) or last in ORDINALS or last in OTHER_WORDS:
        return False
    has_and = "and" in text[run[-1].end() : match.start()]
    if word in WORD_SCALES:
        return not has_and
    value = ONES.get(word, ORDINALS.get(word, TENS.get(word, 0)))
    if last in WORD_SCALES:
        return word not in OTHER_WORDS
    return last in TENS and 0 < value < 10 and not has_and


def _run(run: list[re.Match[str]], text: str) -> StatedNumber:
    total, current = 0.0, 0.0
    for match in run:
        word = match["word"]
        if word in WORD_SCALES:
            scaled = (current or 1.0) * WORD_SCALES[word]
            total, current = (total, scaled) if word == "hundred" else (total + scaled, 0.0)
        else:
            current += ONES.get(word, TENS.get(word, ORDINALS.get(word, OTHER_WORDS.get(word, 0))))
    behind = PERCENT_BEHIND.match(text, run[-1].end())
    is_percent = behind is not None and bool(behind["percent"])
    spelling = text[run[0].start() : run[-1].end()]
    return StatedNumber(spelling, (Reading(total + current, 1.0, is_percent),))
