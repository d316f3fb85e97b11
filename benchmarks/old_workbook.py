"""Small Excel workbooks of the old kind (.xls), written record by record: no library that writes them is needed.

Layouts from Microsoft's open specifications [MS-CFB] (the folder in a file) and [MS-XLS] (the records, BIFF8).
"""

import struct
from collections.abc import Sequence

SECTOR = 512
MINI_CUTOFF = 4096
FREE, END, FAT = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
ENTRIES = SECTOR // 4
BOF, EOF, FILEPASS, BOUNDSHEET, SST = 0x809, 0x0A, 0x2F, 0x85, 0xFC
DIMENSIONS, LABELSST, NUMBER, BOOLERR = 0x200, 0xFD, 0x203, 0x205


def old_workbook(rows: Sequence[Sequence[object]], sheet: str = "Kunden", locked: bool = False) -> bytes:
    """A workbook of one sheet; cells are str, float, bool or None. locked: with the record of an encrypted workbook."""
    texts = sorted({cell for row in rows for cell in row if isinstance(cell, str)})
    ahead = _record(BOF, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0))
    if locked:
        ahead += _record(FILEPASS, struct.pack("<HHH", 1, 1, 1) + bytes(48))
    name = struct.pack("<BB", len(sheet), 0) + sheet.encode("latin-1")
    behind = _record(SST, struct.pack("<II", len(texts), len(texts)) + b"".join(map(_text, texts))) + _record(EOF, b"")
    offset = len(ahead) + 4 + 6 + len(name) + len(behind)
    bound = _record(BOUNDSHEET, struct.pack("<IBB", offset, 0, 0) + name)
    return compound_file({"Workbook": ahead + bound + behind + _sheet(rows, texts)})


def compound_file(streams: dict[str, bytes]) -> bytes:
    """A folder in a file with these streams, each filled up with zeros to the size from which it has sectors of its own."""
    contents = {name: content.ljust(MINI_CUTOFF, b"\0") for name, content in streams.items()}
    sizes = [-(-len(content) // SECTOR) for content in contents.values()]
    folders = -(-(len(contents) + 1) // 4)
    tables = 1
    while tables * ENTRIES < tables + folders + sum(sizes):
        tables += 1
    chains = [FAT] * tables + _chain(tables, folders)
    entries = [_entry("Root Entry", 5, END, 0, child=1)]
    for (name, content), size in zip(contents.items(), sizes, strict=True):
        entries.append(
            _entry(name, 2, len(chains), len(content), right=len(entries) + 1 if len(entries) < len(contents) else FREE)
        )
        chains += _chain(len(chains), size)
    chains += [FREE] * (tables * ENTRIES - len(chains))
    header = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(16) + struct.pack("<HHHHH6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<IIIIIIIII", 0, tables, tables, 0, MINI_CUTOFF, END, 0, END, 0)
    header += struct.pack("<109I", *range(tables), *[FREE] * (109 - tables))
    folder = b"".join(entries).ljust(folders * SECTOR, b"\0")
    body = b"".join(content.ljust(-(-len(content) // SECTOR) * SECTOR, b"\0") for content in contents.values())
    return header + struct.pack(f"<{len(chains)}I", *chains) + folder + body


def _sheet(rows: Sequence[Sequence[object]], texts: Sequence[str]) -> bytes:
    place = {text: number for number, text in enumerate(texts)}
    width = max((len(row) for row in rows), default=0)
    records = [
        _record(BOF, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0)),
        _record(DIMENSIONS, struct.pack("<IIHHH", 0, len(rows), 0, width, 0)),
    ]
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            at = struct.pack("<HHH", number, column, 0)
            if isinstance(cell, str):
                records.append(_record(LABELSST, at + struct.pack("<I", place[cell])))
            elif isinstance(cell, bool):
                records.append(_record(BOOLERR, at + struct.pack("<BB", cell, 0)))
            elif isinstance(cell, float):
                records.append(_record(NUMBER, at + struct.pack("<d", cell)))
    return b"".join(records) + _record(EOF, b"")


def _record(kind: int, content: bytes) -> bytes:
    return struct.pack("<HH", kind, len(content)) + content


def _text(text: str) -> bytes:
    return struct.pack("<HB", len(text), 1) + text.encode("utf-16-le")


def _chain(first: int, count: int) -> list[int]:
    return [*range(first + 1, first + count), END]


def _entry(name: str, kind: int, start: int, size: int, *, right: int = FREE, child: int = FREE) -> bytes:
    told = f"{name}\0".encode("utf-16-le")
    return (
        told.ljust(64, b"\0")
        + struct.pack("<HBBIII", len(told), kind, 1, FREE, right, child)
        + bytes(36)
        + struct.pack("<IQ", start, size)
    )
