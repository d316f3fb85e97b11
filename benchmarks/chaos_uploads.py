"""The uploads of the chaos run: CSV, XLSX and Parquet in turns, with repeated, unknown and awkward rows; one seed, one set."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import xlsxwriter

FORMATS = ("csv", "xlsx", "parquet")
CUSTOMERS = tuple(f"C{number:06d}" for number in range(60_000))
NOTES = ("", "called, twice", 'says "later"', "naïve ünïcode", "two\nlines", "=1+1", "00042")
SHARE_UNKNOWN = 0.02
SHARE_REPEATED = 0.3


@dataclass(frozen=True)
class Upload:
    """A file and what must be true of every result of it."""

    path: Path
    rows: int
    unknown: int

    @property
    def format(self) -> str:
        """Of the file and of its result."""
        return self.path.suffix[1:]


def write_uploads(folder: Path, n: int, rows: tuple[int, int], seed: int) -> list[Upload]:
    """`n` files of `rows` (from, to) rows each, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(seed)
    return [_write(folder, number, chance.randint(*rows), chance) for number in range(n)]


def _write(folder: Path, number: int, rows: int, chance: random.Random) -> Upload:
    ids = _ids(rows, chance)
    path = folder / f"upload-{number:02d}.{FORMATS[number % len(FORMATS)]}"
    campaign = [f"row {row}" for row in range(rows)]
    table = {"campaign": campaign, "Customer ID": ids, "notes": chance.choices(NOTES, k=rows)}
    if path.suffix == ".xlsx":
        _write_xlsx(table, path)
    elif path.suffix == ".parquet":
        pa.parquet.write_table(pa.table(table), path)
    else:
        pa.csv.write_csv(pa.table(table), path)
    return Upload(path, rows, sum(customer.startswith("nobody") for customer in ids))


def _ids(rows: int, chance: random.Random) -> list[str]:
    """Customers in no order; some come many times, some are nobody."""
    known = chance.sample(CUSTOMERS, min(rows, len(CUSTOMERS)))
    often = known[: max(1, len(known) // 100)]
    ids = [chance.choice(often) if chance.random() < SHARE_REPEATED else known[row % len(known)] for row in range(rows)]
    for row in chance.sample(range(rows), int(rows * SHARE_UNKNOWN)):
        ids[row] = f"nobody-{row}"
    return ids


def _write_xlsx(table: Mapping[str, Sequence[str]], path: Path) -> None:
    with xlsxwriter.Workbook(str(path), {"constant_memory": True}) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, table)
        for row, cells in enumerate(zip(*table.values(), strict=True), 1):
            for column, cell in enumerate(cells):
                if cell:
                    sheet.write_string(row, column, cell)
