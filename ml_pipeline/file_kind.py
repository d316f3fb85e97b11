"""What kind of file an upload is: by its content, and whether its name agrees."""

import mmap
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ml_pipeline.errors import (
    DamagedFile,
    EmptyFile,
    MisnamedFile,
    PasswordProtected,
    UnreadableFile,
    UnsupportedFileType,
)
from ml_pipeline.file_shape import ACCEPTED, CSV, GZIP, PARQUET, XLS, XLSX

ZIP_MAGIC = b"PK\x03\x04"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC, ENCRYPTED_PARQUET_MAGIC = b"PAR1", b"PARE"
BEGINNING, WRITE_PROTECTION, FILE_PASS = 0x809, 0x86, 0x2F
WORKBOOK_BEGINNINGS = (b"\x09\x08\x10\x00\x00\x06\x05\x00", b"\x09\x08\x08\x00\x00\x05\x05\x00")
"""The first record of a workbook's stream as Excel 97 and Excel 5 write it ([MS-XLS] 2.4.21)."""
KINDS_OF_ENDING = {
    ".csv": (CSV,),
    ".txt": (CSV,),
    ".tsv": (CSV,),
    ".gz": (GZIP,),
    ".xlsx": (XLSX, XLS),
    ".xlsm": (XLSX, XLS),
    ".xls": (XLS, XLSX),
    ".parquet": (PARQUET,),
    ".pq": (PARQUET,),
}
"""Which contents are read under which ending: Excel opens its formats under each other's names, so do we."""
IN_WORDS = {
    CSV: ("text", ".csv"),
    GZIP: ("a gzip file", ".csv.gz"),
    XLSX: ("an Excel workbook", ".xlsx"),
    XLS: ("an Excel workbook of the old kind", ".xls"),
    PARQUET: ("a Parquet file", ".parquet"),
}


@dataclass(frozen=True)
class FileKind:
    """format: csv, xlsx, xls or parquet; compression: gzip around a CSV, else None."""

    format: str
    compression: str | None = None


def kind_of(path: Path, filename: str) -> FileKind:
    """The kind of a file whose name and content agree.

    Raises UnsupportedFileType, EmptyFile, MisnamedFile, PasswordProtected, DamagedFile.
    """
    suffix = PurePosixPath(filename.lower()).suffix
    if suffix not in KINDS_OF_ENDING:
        told = f"ends in {suffix!r}" if suffix else "has no ending that says what it is"
        raise UnsupportedFileType(f"The file name {told}; that is not read. {ACCEPTED}")
    if path.stat().st_size == 0:
        raise EmptyFile(f"The file is empty (0 bytes). {ACCEPTED}")
    kind = _kind_of_content(path)
    if kind not in KINDS_OF_ENDING[suffix]:
        _refuse_name(path, suffix, kind)
    return FileKind(CSV, GZIP) if kind == GZIP else FileKind(kind)


def _kind_of_content(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(8)
    if start.startswith(ZIP_MAGIC):
        return _kind_of_archive(path)
    if start.startswith(OLE_MAGIC):
        return _kind_of_compound(path)
    if start.startswith(ENCRYPTED_PARQUET_MAGIC):
        raise PasswordProtected("The Parquet file is encrypted. Write it again without encryption.")
    if start.startswith(PARQUET_MAGIC):
        return PARQUET
    return GZIP if start.startswith(GZIP_MAGIC) else CSV


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise DamagedFile(
            f"The file is a workbook or an archive that is cut off or damaged. Save it again and send it once more. {ACCEPTED}"
        ) from None
    if "xl/workbook.xml" in names:
        return XLSX
    if "xl/workbook.bin" in names:
        raise UnsupportedFileType(f"The file is a binary Excel workbook (.xlsb). Save it as .xlsx. {ACCEPTED}")
    if "mimetype" in names:
        raise UnsupportedFileType(f"The file is an OpenDocument file. Save the sheet as .xlsx or .csv. {ACCEPTED}")
    raise UnsupportedFileType(f"The file is an archive, not an Excel workbook. Send the table inside it. {ACCEPTED}")


def _kind_of_compound(path: Path) -> str:
    """Old Excel files and, encrypted, the new ones too are folders in a file, whose names are UTF-16."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _has_entry(content, "EncryptedPackage") or _has_file_pass(content):
            raise PasswordProtected(
                "The workbook is locked by a password. Save it in Excel without one and send it again."
            )
        if _has_entry(content, "Workbook") or _has_entry(content, "Book"):
            return XLS
    raise UnsupportedFileType(f"The file is an Office document, but not an Excel workbook. {ACCEPTED}")


def _has_entry(content: mmap.mmap, name: str) -> bool:
    return content.find(f"{name}\0".encode("utf-16-le")) >= 0


def _has_file_pass(content: mmap.mmap) -> bool:
    """Whether an old workbook is encrypted: FILEPASS is its first record but for the beginning and a write protection."""
    start = max(content.find(beginning) for beginning in WORKBOOK_BEGINNINGS)
    while start >= 0:
        kind = int.from_bytes(content[start : start + 2], "little")
        if kind not in (BEGINNING, WRITE_PROTECTION):
            return kind == FILE_PASS
        start += 4 + int.from_bytes(content[start + 2 : start + 4], "little")
    return False


def _refuse_name(path: Path, suffix: str, kind: str) -> None:
    if kind == CSV:
        with path.open("rb") as stream:
            start = stream.read(4096)
        if b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise UnreadableFile(
                f"The content is no {IN_WORDS[KINDS_OF_ENDING[suffix][0]][0].removeprefix('an ').removeprefix('a ')} "
                f"although the name ends in {suffix}, or it is damaged. {ACCEPTED}"
            )
        if start.lstrip().startswith(b"<"):
            raise UnsupportedFileType(
                f"The content is HTML or XML although the name ends in {suffix}. Open it in Excel and save it as .xlsx."
            )
    content, ending = IN_WORDS[kind]
    expected = IN_WORDS[KINDS_OF_ENDING[suffix][0]][0]
    raise MisnamedFile(
        f"The content is {content}, not {expected}, although the name ends in {suffix}. Name it {ending} and send it again."
    )
