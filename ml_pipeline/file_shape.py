"""What a file of customers is and how it is to be read: its format, its header, which column holds the ids, and how its text is written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

CSV = "csv"
XLSX = "xlsx"
XLS = "xls"
PARQUET = "parquet"
GZIP = "gzip"
ACCEPTED = "Send a .csv (comma, semicolon or tab; UTF-8 or Windows-1252) or an .xlsx file with one header row."


@dataclass(frozen=True)
class FileShape:
    """What was detected in a file.

    format: csv, xlsx, xls or parquet. compression: gzip around a CSV, else None. For CSV: delimiter, quote, encoding (a Python
    codec), the sign before decimals ("." or ",") and after how many records, blank ones included, the header ends. For a
    workbook: the sheet that is read and the names of all worksheets. header is empty for a workbook too large to open at once:
    it is known when the job reads it.
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
