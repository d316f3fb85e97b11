"""What a file of customers is and how it is to be read: format, header, id column, and how its text is written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ml_pipeline.errors import TooManyColumns, TooManyRows

CSV = "csv"
XLSX = "xlsx"
XLS = "xls"
PARQUET = "parquet"
GZIP = "gzip"
COLUMNS_LIMIT = 16_384
SHOWN_SHEETS = 20
ACCEPTED = (
    "Send a .csv (comma, semicolon, tab or |; UTF-8, UTF-16 or Windows-1252; also as .csv.gz), an .xlsx, an .xls or a "
    ".parquet file with one header row."
)


@dataclass(frozen=True)
class FileShape:
    """What was detected in a file.

    format: csv, xlsx, xls or parquet. compression: gzip around a CSV, else None. For a CSV: delimiter, quote, encoding (a
    Python codec), the sign before decimals ("." or ",") and after how many records, blank ones included, the header ends. For
    a workbook: the sheet that is read and the names of all worksheets. header is empty for a workbook too large to open at
    once: it is known when the job reads it.
    """

    format: str
    header: tuple[str, ...] = ()
    id_column: int = 0
    id_column_by_name: bool = False
    compression: str | None = None
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"
    decimal: str = "."
    header_records: int = 1
    sheet: str | None = None
    sheets: tuple[str, ...] = ()

    @property
    def result_format(self) -> str:
        """The format that a result has if nobody asks for another: csv, xlsx or parquet."""
        return XLSX if self.format == XLS else self.format

    def as_parameters(self) -> dict[str, Any]:
        """For the job table, as JSON holds it; `FileShape.from_parameters` is the way back."""
        return {**asdict(self), "header": list(self.header), "sheets": list(self.sheets)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> "FileShape":
        """The shape that `as_parameters` wrote."""
        return cls(
            **{**parameters, "header": tuple(parameters["header"]), "sheets": tuple(parameters.get("sheets", ()))}
        )


def check_width(columns: int, columns_limit: int) -> None:
    """Raises TooManyColumns for a header of more columns than the limit."""
    if columns > columns_limit:
        raise TooManyColumns(
            f"The header has {columns:,} columns; at most {columns_limit:,} are taken. Leave some out."
        )


def check_height(rows: int, rows_limit: int | None) -> None:
    """Raises TooManyRows once more rows have been seen than the limit; None: no limit."""
    if rows_limit is not None and rows > rows_limit:
        raise TooManyRows(
            f"The file has more than {rows_limit:,} rows below its header, which is the most that is taken. Split it "
            "(the operator can raise MAX_ROWS)."
        )


def other_sheets(sheet: str | None, sheets: Sequence[str]) -> str:
    """A sentence for whoever meant another sheet than the one that was read, behind a space; '' where there is no other."""
    others = [repr(name[:40]) for name in sheets if name != sheet]
    shown = ", ".join(others[:SHOWN_SHEETS]) + (", …" if len(others) > SHOWN_SHEETS else "")
    return f" Or ask for another sheet by its name: {shown}." if others else ""


def shown_names(header: Sequence[str]) -> str:
    """The first names of a header, each cut short, for a message."""
    return ", ".join(name[:40] for name in header[:8]) + (", …" if len(header) > 8 else "")
