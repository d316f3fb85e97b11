"""A process of its own that reads one workbook or Parquet file within limits of memory and time, and ends.

What such a file asks for is known only while it is being opened, and its readers are native code: a hostile file may end the
process that opens it. `isolated_rows` starts this one and reads the frames that it writes to its standard output:
a kind (1 byte), a length (8 bytes) and as many bytes. Kinds: N news as JSON, B a batch as an Arrow IPC stream.
"""

import ctypes
import errno
import gc
import json
import os
import resource
import signal
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree

NEWS, BATCH = b"N", b"B"
PR_SET_PDEATHSIG = 1
CPU_SECONDS = 300
MACHINE_FAULTS = frozenset(
    (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ESTALE)
)
"""Of a disk or a machine, whatever the file is like."""
DAMAGED = (
    "The file is cut off or damaged: it cannot be read to its end. Open it in the program that made it, save it again and "
    "send it once more."
)


def too_large(memory: int) -> str:
    """The message for a file whose reader ran against its limits; memory in bytes."""
    return (
        f"Reading the file takes more than {memory >> 20:,} MB of memory or {CPU_SECONDS} s. Delete sheets, columns or long "
        "texts that are not needed, or send the table as CSV."
    )


def main() -> None:
    """Answers the request in the first argument."""
    gc.disable()  # millions of short lists and no cycles
    output = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    request = json.loads(sys.argv[1])
    _end_with_parent(request["parent"])
    resource.setrlimit(resource.RLIMIT_DATA, (request["memory"], request["memory"]))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        news = _answer(request, output)
    except BaseException as problem:  # noqa: BLE001 - a panic of a reader is no Exception, and all goes to who asked
        news = _named(problem, request["memory"])
    _tell(output, **news)


def _end_with_parent(parent: int) -> None:
    """On Linux, nobody goes on reading for a process that was killed; elsewhere it ends at its next frame."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)


def _answer(request: dict[str, Any], output: BinaryIO) -> dict[str, Any]:
    def saw(rows: int) -> None:
        _tell(output, saw=rows)

    opened, batches = _open(request, saw)
    _tell(output, opened=opened)
    if batches is not None:
        import pyarrow as pa

        for batch in batches:
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_batch(batch)
            _send(output, BATCH, memoryview(sink.getvalue()))
    return {"done": True}


def _open(request: dict[str, Any], saw: Callable[[int], None]) -> tuple[dict[str, Any], Iterator[Any] | None]:
    path, chunk = Path(request["path"]), request["rows_per_chunk"]
    if request["format"] == "parquet":
        from ml_pipeline.parquet_rows import open_parquet, parquet_batches

        file = open_parquet(path, request["columns_limit"])
        told = {"header": file.schema_arrow.names}
        return told, parquet_batches(file, chunk) if chunk else None
    from ml_pipeline.workbook_rows import check_archive, check_has_rows, open_sheet, sheet_batches

    if request["format"] == "xlsx":
        check_archive(path)
    sheet = open_sheet(path, request["format"], request["sheet"], request["columns_limit"], saw)
    if not chunk:
        check_has_rows(sheet)
    told = {"header": sheet.header, "sheet": sheet.sheet, "sheets": sheet.sheets}
    return told, sheet_batches(sheet, chunk) if chunk else None


def _named(problem: BaseException, memory: int) -> dict[str, Any]:
    """What went wrong: a CustomerFileError by its name, else what a reader may say of a damaged file, else a fault of ours."""
    from ml_pipeline.errors import CustomerFileError, DamagedFile, TooLargeToOpen

    if isinstance(problem, CustomerFileError):
        return {"error": type(problem).__name__, "message": str(problem)}
    if isinstance(problem, MemoryError):
        return {"error": TooLargeToOpen.__name__, "message": too_large(memory)}
    of_the_machine = isinstance(problem, OSError) and problem.errno in MACHINE_FAULTS
    if (isinstance(problem, _damage()) and not of_the_machine) or type(problem).__name__ == "PanicException":
        return {"error": DamagedFile.__name__, "message": DAMAGED}
    place = traceback.extract_tb(problem.__traceback__)[-1]
    return {"fault": f"{type(problem).__name__} in {Path(place.filename).name}, line {place.lineno}"}


def _damage() -> tuple[type[BaseException], ...]:
    import pyarrow as pa
    import python_calamine as calamine

    archive = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ElementTree.ParseError)
    return (*archive, pa.ArrowException, calamine.CalamineError, ValueError, KeyError, OverflowError, RuntimeError)


def _tell(output: BinaryIO, **news: Any) -> None:
    _send(output, NEWS, json.dumps(news).encode())


def _send(output: BinaryIO, kind: bytes, payload: bytes | memoryview) -> None:
    output.write(kind + len(payload).to_bytes(8, "big"))
    left = memoryview(payload)
    while left:
        left = left[output.write(left) :]


if __name__ == "__main__":
    main()
