"""How a CSV is written, found out from its beginning: encoding, delimiter, quote, decimal sign, header."""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from ml_pipeline.csv_bytes import open_packed
from ml_pipeline.errors import EmptyFile, NoDataRows, UnreadableFile
from ml_pipeline.file_shape import ACCEPTED, CSV, GZIP, FileShape, check_width, shown_names

SAMPLE_BYTES = 1 << 20
CHECKED_BYTES = 64 << 20
"""So much of an unpacked gzip file is looked through to tell UTF-8 from Windows-1252; a file that is not packed, all of it."""
JUDGED_RECORDS = 200
DELIMITERS = "\t;,|"
"""Where two fit equally well, the one that is rarer within texts."""
DEFAULT_DELIMITER = ","
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
UNPRINTABLE = bytes(set(range(32)) - set(b"\t\n\r\f\v\x1a\x1b")) + b"\x7f"
DELIMITER_HINT = re.compile(r"sep=(.)\Z", re.IGNORECASE)
"""A first line by which Excel is told the delimiter."""
DECIMAL_COMMA = re.compile(r"[+-]?(?:\d+,(?:\d{1,2}|\d{4,})|\d{4,},\d{3}|\d{1,3}(?:\.\d{3})+,\d+)\Z")
DECIMAL_POINT = re.compile(r"[+-]?(?:\d+\.(?:\d{1,2}|\d{4,})|\d{4,}\.\d{3}|\d{1,3}(?:,\d{3})+\.\d+)\Z")
"""Numbers whose decimal sign is beyond doubt: 1,234 may be a thousand and more."""


def describe_csv(path: Path, compression: str | None, columns_limit: int) -> FileShape:
    """The shape of a CSV but for the id column. Raises a CustomerFileError for what is no table of text."""
    with open_packed(path, compression) as stream:
        sample = stream.read(SAMPLE_BYTES)
        is_whole = not stream.read(1)
    if not sample:
        raise EmptyFile(f"The file is empty once it is unpacked. {ACCEPTED}")
    encoding = _encoding(path, compression, sample)
    text = sample.decode(encoding, errors="ignore")
    first, text, hinted = _without_hint(text)
    line = _header_line(text, is_whole, columns_limit)
    quote = _quote(line)
    delimiter = hinted or _delimiter(text, line, quote)
    header, blank, rows = _header(text, delimiter, quote, columns_limit)
    if rows == [] and is_whole:
        _refuse_without_rows(header)
    header = _without_loose_end(header, rows or [])
    return FileShape(
        CSV,
        tuple(header),
        compression=compression,
        delimiter=delimiter,
        quote=quote,
        encoding=encoding,
        decimal=_decimal(rows or []),
        header_records=first + blank + 1,
    )


def _refuse_without_rows(header: Sequence[str]) -> None:
    if any(re.search(r"[\r\n]", name) for name in header):
        raise UnreadableFile(f"A quote in the header is not closed, so that the file seems to have no rows. {ACCEPTED}")
    raise NoDataRows(f"The file has a header ({shown_names(header)}) and no row below it. Add one row per customer.")


# ---- encoding


def _encoding(path: Path, compression: str | None, sample: bytes) -> str:
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if sample.startswith(mark)), None)
    if marked == "utf-16":
        return marked
    if marked is None and (wide := _unmarked_utf16(sample)):
        return wide
    if b"\0" in sample or len(sample.translate(None, UNPRINTABLE)) < 0.99 * len(sample):
        raise UnreadableFile(f"The content is binary, not text, whatever the name ends in. {ACCEPTED}")
    for encoding in (marked or "utf-8", "cp1252"):
        if _decodes(path, compression, encoding):
            return encoding
    raise UnreadableFile(f"The text is neither UTF-8 nor Windows-1252. Save it as UTF-8 and send it again. {ACCEPTED}")


def _unmarked_utf16(sample: bytes) -> str | None:
    """In UTF-16 nearly every second byte of a table is 0, always on the same side."""
    even, odd = sample[0::2], sample[1::2]
    sides = {"utf-16-le": (odd, even), "utf-16-be": (even, odd)}
    for encoding, (zeros, letters) in sides.items():
        if zeros.count(0) > 0.5 * len(zeros) and letters.count(0) < 0.01 * len(letters):
            return encoding
    return None


def _decodes(path: Path, compression: str | None, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    left = CHECKED_BYTES if compression == GZIP else path.stat().st_size
    with open_packed(path, compression) as stream:
        try:
            while left > 0 and (block := stream.read(SAMPLE_BYTES)):
                decoder.decode(block)
                left -= len(block)
            decoder.decode(b"", final=left <= 0 and compression is None)
        except UnicodeDecodeError:
            return False
    return True


# ---- delimiter and quote


def _without_hint(text: str) -> tuple[int, str, str | None]:
    """How many records a line such as sep=; takes (0 or 1), the text behind it, and the delimiter it names."""
    text = text.lstrip("\ufeff")
    first, end, rest = _partitioned(text)
    hint = DELIMITER_HINT.match(first)
    if hint is None or hint[1] not in DELIMITERS or not end:
        return 0, text, None
    return 1, rest, hint[1]


def _partitioned(text: str) -> tuple[str, str, str]:
    end = re.search(r"\r\n|\r|\n", text)
    return (text[: end.start()], end[0], text[end.end() :]) if end else (text, "", "")


def _header_line(text: str, is_whole: bool, columns_limit: int) -> str:
    begun = re.search(r"\S", text)
    ended = re.compile(r"[\r\n]").search(text, begun.end()) if begun else None
    end = ended.start() if ended else None
    if end is None and not is_whole:
        check_width(max(map(text.count, DELIMITERS)) + 1, columns_limit)
        raise UnreadableFile(f"The header is longer than {SAMPLE_BYTES // 1024} kB. {ACCEPTED}")
    return re.split(r"[\r\n]", text[:end])[-1]


def _quote(line: str) -> str:
    """' where every name of the header stands between two of them, else \"."""
    for delimiter in DELIMITERS:
        names = line.split(delimiter)
        if all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
            return "'"
    return '"'


def _delimiter(text: str, line: str, quote: str) -> str:
    """Of the signs that part the header, the one by which most of the next rows have as many cells as the header."""
    outside_quotes = re.sub(f"{quote}[^{quote}]*{quote}", "", line)
    counts = {sign: outside_quotes.count(sign) for sign in DELIMITERS}
    parting = [sign for sign, count in counts.items() if count]
    if len(parting) < 2:
        return parting[0] if parting else DEFAULT_DELIMITER
    return max(parting, key=lambda sign: (_evenness(text, sign, quote), counts[sign]))


def _evenness(text: str, delimiter: str, quote: str) -> float:
    try:
        widths = [len(record) for record in islice(_records(text, delimiter, quote), JUDGED_RECORDS) if record]
    except csv.Error:
        return 0.0
    return widths.count(widths[0]) / len(widths) if widths else 0.0


def _records(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    return iter(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote))


# ---- header and decimal sign


def _header(text: str, delimiter: str, quote: str, columns_limit: int) -> tuple[list[str], int, list[list[str]] | None]:
    """The first record that is not blank, how many blank ones stand before it, and some of those that follow.

    None where the records that follow are more than the csv module reads: a cell is longer than its limit.
    """
    header: list[str] = []
    blank = 0
    rows: list[list[str]] = []
    try:
        for record in _records(text, delimiter, quote):
            if not header and not any(cell.strip() for cell in record):
                blank += 1
            elif not header:
                header = record
                check_width(len(header), columns_limit)
            elif record:
                rows.append(record)
            if len(rows) == JUDGED_RECORDS:
                break
    except csv.Error:
        if header:
            return header, blank, rows or None
        raise UnreadableFile(
            "The header cannot be read as CSV: a quote is not closed, or a name is longer than "
            f"{csv.field_size_limit() >> 10} kB. {ACCEPTED}"
        ) from None
    if not header:
        raise EmptyFile(f"The file holds nothing but blanks. {ACCEPTED}")
    return header, blank, rows


def _without_loose_end(header: list[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The header without the empty names at its end that none of the next rows has a cell for."""
    named = max((place for place, name in enumerate(header, 1) if name.strip()), default=1)
    return header[: max(named, max(map(len, rows), default=len(header)))]


def _decimal(rows: Sequence[Sequence[str]]) -> str:
    cells = [cell.strip() for row in rows for cell in row]
    commas = sum(DECIMAL_COMMA.match(cell) is not None for cell in cells)
    points = sum(DECIMAL_POINT.match(cell) is not None for cell in cells)
    return "," if commas > points else "."
