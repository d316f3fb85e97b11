"""CSV as text, before the engine reads it: its header and delimiter, its encoding, and the repair of broken files."""

import codecs
import csv
import gzip
import io
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from ml_pipeline.errors import UnreadableTable
from ml_pipeline.schema import canonical_text

DELIMITERS = ",;\t|"
_LONGEST_RECORD = 100  # physical lines; a quote that stays open longer was never meant to open a field
_FOREIGN_MAGIC = {
    b"PK\x03\x04": "an Excel workbook or a zip",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "gzip",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}


def read_header(path: Path, wanted: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Names and delimiter of a CSV file: the one under which the first line has most of the wanted names, then most fields.

    Raises UnreadableTable for what is empty or no text.
    """
    head = _first_bytes(path)
    if not head.strip():
        raise UnreadableTable(f"{path.name} is empty; a table's file has at least a line of column names.")
    for magic, what in _FOREIGN_MAGIC.items():
        if head.startswith(magic):
            raise UnreadableTable(f"{path.name} is {what}, not CSV text; export it as CSV or give it its right ending.")
    utf16 = is_utf16(path)
    if b"\x00" in head and not utf16:
        raise UnreadableTable(f"{path.name} holds zero bytes: it is binary, not CSV text; export it as CSV in UTF-8.")
    text = head.decode("utf-16", errors="replace") if utf16 else _decode(head)
    wanted_names = {name.strip().lower() for name in wanted}
    best: tuple[tuple[int, int], list[str], str] | None = None
    for delimiter in DELIMITERS:
        fields = next(csv.reader(text.splitlines(keepends=True), delimiter=delimiter), [])
        score = (sum(canonical_text(name).lower() in wanted_names for name in fields), len(fields))
        if best is None or score > best[0]:
            best = (score, fields, delimiter)
    assert best is not None
    return tuple(best[1]), best[2]


def _first_bytes(path: Path) -> bytes:
    try:
        with _open_bytes(path) as stream:
            return stream.read(1 << 16)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableTable(f"{path.name} ends in .gz but is not whole gzip: {error}.") from error


def _open_bytes(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _decode(head: bytes) -> str:
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return head.decode("cp1252", errors="replace")


def check_gzip(path: Path) -> None:
    """Reads a .gz to its end and checks its sums. Raises UnreadableTable where it is cut off or damaged.

    The engine's reader does neither: of a file that was cut off it may take what there is, without a word.
    """
    try:
        with _open_bytes(path) as stream:
            while stream.read(1 << 20):
                pass
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UnreadableTable(
            f"{path.name} is cut off or damaged ({error}): its rows may not be all there; copy or pack it anew."
        ) from error


def is_utf16(path: Path) -> bool:
    """Whether the file begins with the byte order mark of UTF-16."""
    return _first_bytes(path).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def is_utf8(source: Path) -> bool:
    """Whether all of the file is UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with _open_bytes(source) as stream:
            while chunk := stream.read(1 << 20):
                decoder.decode(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def recode(source: Path, folder: Path, codec: str) -> Path:
    """A copy of the file in UTF-8; bytes that the codec does not know become the replacement character."""
    target = folder / "recoded.csv"
    decoder = codecs.getincrementaldecoder(codec)(errors="replace")
    with _open_bytes(source) as stream, target.open("wb") as recoded:
        while chunk := stream.read(1 << 20):
            recoded.write(decoder.decode(chunk).encode("utf-8"))
        recoded.write(decoder.decode(b"", final=True).encode("utf-8"))
    return target


def split_records(source: Path, delimiter: str, width: int, good: Path, bad: Path) -> None:
    """Rewrites a broken CSV file: into `good` its number and fields, for each record that has `width` of them; into `bad`
    number, count of fields and text of all others. Numbers are 1-based; the header is none; commas, no header in both.
    """
    with good.open("w", encoding="utf-8", newline="") as kept, bad.open("w", encoding="utf-8", newline="") as broken:
        good_writer, bad_writer = csv.writer(kept), csv.writer(broken)
        for number, (fields, text) in enumerate(_records(source, delimiter), start=1):
            fields = _without_empty_end(fields, width)
            if len(fields) == width:
                good_writer.writerow([number, *fields])
            else:
                bad_writer.writerow([number, len(fields), text])


def _records(source: Path, delimiter: str) -> Iterator[tuple[list[str], str]]:
    """The records after the header: their fields and their text; blank lines are none.

    A quote that is never closed would swallow the rest of the file: such a line is a record of its own.
    """
    csv.field_size_limit(1 << 30)
    with _open_bytes(source) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
        next(csv.reader(lines, delimiter=delimiter), None)
        ahead: deque[str] = deque()
        while (line := ahead.popleft() if ahead else next(lines, None)) is not None:
            if not line.strip("\r\n"):
                continue
            record = [line]
            while (fields := _fields(record, delimiter)) is None and len(record) < _LONGEST_RECORD:
                following = ahead.popleft() if ahead else next(lines, None)
                if following is None:
                    break
                record.append(following)
            if fields is None:
                ahead.extendleft(reversed(record[1:]))
                record, fields = record[:1], []
            yield fields, "".join(record).rstrip("\r\n")


def _fields(record: list[str], delimiter: str) -> list[str] | None:
    """The fields of one record; None while a quote is open."""
    try:
        return next(csv.reader(record, delimiter=delimiter, strict=True))
    except csv.Error as error:
        if "unexpected end of data" in str(error):
            return None
    return next(csv.reader(record, delimiter=delimiter))


def _without_empty_end(fields: list[str], width: int) -> list[str]:
    """Without the empty fields beyond the header's, which some programs write at the end of a line."""
    return fields[:width] if len(fields) > width and not any(fields[width:]) else fields
