"""Files for the fuzz: small valid ones of every kind that is read, and their mutations, each a function of its number alone."""

import gzip
import io
import random
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import xlsxwriter

from benchmarks.old_workbook import old_workbook

Mutation = Callable[[random.Random, bytes, bytes], bytes]
ROWS = 60
LONGEST_SPAN = 400


@cache
def seeds() -> dict[str, bytes]:
    """Valid files by name."""
    header, rows = ["Customer ID", "name", "spend"], _rows()
    lines = [f'"{row[0]}";{row[1]};{str(row[2]).replace(".", ",")}\r\n' for row in [header, *rows]]
    text = "".join(lines)
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(header)})
    return {
        "comma.csv": text.replace(",", ".").replace(";", ",").encode(),
        "semicolon.csv": text.encode("cp1252"),
        "wide.csv": text.encode("utf-16"),
        "packed.csv.gz": gzip.compress(text.encode() * 20, 6, mtime=0),
        "inline.xlsx": _workbook(header, rows, constant_memory=True),
        "shared.xlsx": _workbook(header, rows, constant_memory=False),
        "old.xls": old_workbook([header, *rows]),
        "snappy.parquet": _parquet(table, compression="snappy"),
        "plain.parquet": _parquet(table, compression="none", use_dictionary=False),
        "groups.parquet": _parquet(table, compression="zstd", row_group_size=7, data_page_version="2.0"),
    }


def mutated(number: int) -> tuple[str, bytes]:
    """The file of this number: a seed's name and its bytes after one to four mutations."""
    chance = random.Random(number)
    names = sorted(seeds())
    name = names[number % len(names)]
    content = seeds()[name]
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        other = seeds()[chance.choice(names)]
        content = chance.choice(MUTATIONS)(chance, content, other)
    if name.endswith(".xlsx") and chance.random() < 0.6:
        content = _inside_archive(chance, seeds()[name])
    if name.endswith(".gz") and chance.random() < 0.4:
        content = gzip.compress(chance.choice(MUTATIONS)(chance, gzip.decompress(seeds()[name]), other), 1, mtime=0)
    return name, content


def _rows() -> list[list[object]]:
    return [[f"C{number:05}", f"Müller {number % 7}", number * 1.25] for number in range(ROWS)]


def _workbook(header: list[str], rows: list[list[object]], constant_memory: bool) -> bytes:
    buffer = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as folder,  # XlsxWriter leaves the file of the sheet without rows behind
        xlsxwriter.Workbook(buffer, {"constant_memory": constant_memory, "tmpdir": folder}) as book,
    ):
        sheet = book.add_worksheet("Kunden")
        book.add_worksheet("Notizen")
        for number, row in enumerate([header, *rows]):
            sheet.write_row(number, 0, row)
    return buffer.getvalue()


def _parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


# ---- mutations: (chance, content, another seed) -> content


def _flip_bits(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 12))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _set_extreme(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    """Lengths and counts become as large or as small as they can be."""
    place, width = _place(chance, content), chance.choice((1, 2, 4, 8))
    extreme = chance.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * width
    return content[:place] + extreme + content[place + width :]


def _cut(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    return content[: _place(chance, content)]


def _leave_out(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _double(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:end] + content[start:end] * chance.choice((1, 1, 2, 50)) + content[end:]


def _splice(chance: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: _place(chance, content)] + other[_place(chance, other) :]


def _graft(chance: random.Random, content: bytes, other: bytes) -> bytes:
    start, end = _span(chance, other)
    place = _place(chance, content)
    return content[:place] + other[start:end] + content[place:]


def _noise(chance: random.Random, content: bytes, _other: bytes) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[end:]


MUTATIONS: list[Mutation] = [
    _flip_bits,
    _flip_bits,
    _flip_bits,
    _set_extreme,
    _cut,
    _leave_out,
    _double,
    _splice,
    _graft,
    _noise,
]


def _inside_archive(chance: random.Random, content: bytes) -> bytes:
    """Parts of a workbook changed, swapped, left out or doubled, in an archive that is whole."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        parts = [(name, archive.read(name)) for name in archive.namelist()]
    one, other = chance.randrange(len(parts)), chance.randrange(len(parts))
    how = chance.random()
    if how < 0.6:
        parts[one] = (parts[one][0], chance.choice(MUTATIONS)(chance, parts[one][1], parts[other][1]))
    elif how < 0.8:
        parts[one], parts[other] = (parts[one][0], parts[other][1]), (parts[other][0], parts[one][1])
    elif how < 0.9:
        del parts[one]
    else:
        parts.append((parts[one][0], parts[other][1]))
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts:  # zipfile warns of names that occur twice, which is what is wanted here
            archive.writestr(name, part)
    return buffer.getvalue()


def _place(chance: random.Random, content: bytes) -> int:
    return chance.randrange(len(content) + 1)


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    start = _place(chance, content)
    return start, min(len(content), start + chance.randint(1, LONGEST_SPAN))
