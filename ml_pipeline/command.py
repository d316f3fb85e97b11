"""How the pipeline's commands start and end: plain logs on stderr, one line for what is wrong, no traceback."""

import argparse
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ml_pipeline.errors import PipelineError
from ml_pipeline.progress import JsonLines, Progress

log = logging.getLogger(__name__)

PLAIN, JSON = "plain", "json"
REFUSED, FAULT, INTERRUPTED, STOPPED = 2, 1, 130, 143
"""Exit codes: what was asked cannot be done; an error of our own; Ctrl-C; SIGTERM."""
LEAST_MEMORY_MB = 256
STORAGE_FULL = "StorageFull"

_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class PlainFormatter(logging.Formatter):
    """`time level message key=value ...`: the facts given as `extra` follow the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line (and its traceback, where it has one)."""
        line = super().format(record)
        facts = " ".join(f"{key}={value}" for key, value in vars(record).items() if key not in _RECORD_FIELDS)
        return f"{line} {facts}" if facts else line


def log_to_stderr(level: int = logging.INFO) -> None:
    """Sends the logs of this process to stderr as plain lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def run_command(main: Callable[[Sequence[str] | None], int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs a command's `main(arguments)` and returns its exit code: 0, 2 for what is refused, 130 for Ctrl-C, 143 for SIGTERM.

    Refused is a PipelineError, a path that the system does not let be read or written, or work that the memory is too
    small for. With `--progress json` the refusal is also the last line on stdout. SIGTERM ends the command as Ctrl-C
    does: half-written folders go. `arguments=None` means those of the process. Use: `sys.exit(run_command(main))`.
    """
    # on a terminal the progress bars say what is being done; lines in between would tear them apart
    log_to_stderr(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    try:
        with _sigterm_unwinds():
            return main(arguments) or 0
    except PipelineError as error:
        return _refuse(type(error).__name__, str(error), arguments)
    except OSError as error:
        log.debug("refused by the system", exc_info=True)
        return _refuse(*_named(error), arguments)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return INTERRUPTED
    except _Stopped:
        sys.stderr.write("stopped\n")
        return STOPPED
    except Exception as error:
        if _is_out_of_memory(error):
            log.debug("out of memory", exc_info=True)
            message = (
                "The memory did not suffice; give more (--memory-mb), or learn from fewer customers (--n-samples)."
            )
            return _refuse("OutOfMemory", message, arguments)
        if _writes_lines(arguments):
            message = f"The command met a fault of its own ({type(error).__name__}); its log has the traceback."
            _tell(lambda lines: lines.write({"error": {"name": "CommandFailed", "message": message}}))
        raise


class _Stopped(BaseException):
    """SIGTERM came."""


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """Within it SIGTERM unwinds the stack, so that everything open is closed; a second one changes nothing."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _named(error: OSError) -> tuple[str, str]:
    """Name and message for what the system refuses; what meets a full disk while it writes does not know which file it was."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return STORAGE_FULL, (
            f"{where}The disk is full ({error.strerror}). Make room where the models and the working files are, then try again."
        )
    said = f"{where}{error.strerror or error}"
    return type(error).__name__, f"{said}; check that the path is right, and that it may be read or written."


def _refuse(name: str, message: str, arguments: Sequence[str] | None) -> int:
    if _writes_lines(arguments):
        _tell(lambda lines: lines.write({"error": {"name": name, "message": message}}))
    sys.stderr.write(f"{name}: {message}\n")
    return REFUSED


def _tell(write: Callable[[JsonLines], None]) -> None:
    """The last line; whoever started the command may be gone."""
    try:
        write(JsonLines(sys.stdout))
    except OSError:
        log.debug("nobody reads the last line", exc_info=True)


def _writes_lines(arguments: Sequence[str] | None) -> bool:
    """Whether these arguments ask for lines; also where the others cannot be understood."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--progress", nargs="?")
    return bool(parser.parse_known_args(arguments)[0].progress == JSON)


def _is_out_of_memory(error: Exception) -> bool:
    """DuckDB has an error of its own for it, which is known by name: importing it here would slow down every start."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException"


def add_progress_argument(parser: argparse.ArgumentParser) -> None:
    """The option --progress of commands that another program may start."""
    parser.add_argument(
        "--progress",
        choices=(PLAIN, JSON),
        default=PLAIN,
        help="json: lines on stdout for the program that started this one (default: a bar on a terminal)",
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The options --threads and --memory-mb."""
    parser.add_argument("--threads", type=thread_count, default=os.cpu_count() or 1)
    parser.add_argument(
        "--memory-mb", type=memory_size, help="megabytes to get by with; tables that need more spill to disk"
    )


def add_consent_argument(parser: argparse.ArgumentParser) -> None:
    """The option --ask of commands that change what serves."""
    parser.add_argument(
        "--ask",
        action="store_true",
        help="with --progress json: ask before what was made serves, and wait for a line on stdin; its end means no",
    )


def open_progress(options: argparse.Namespace) -> Progress:
    """As the options --progress and --ask say."""
    if options.progress != JSON:
        return Progress()
    return Progress(lines=JsonLines(sys.stdout), consent=sys.stdin if getattr(options, "ask", False) else None)


def thread_count(text: str) -> int:
    """The value of an option --threads, at least 1. Raises argparse.ArgumentTypeError, which argparse words."""
    return _whole_number(text, 1, "threads")


def memory_size(text: str) -> int:
    """The value of an option --memory-mb. Raises argparse.ArgumentTypeError, which argparse words."""
    return _whole_number(text, LEAST_MEMORY_MB, "megabytes")


def _whole_number(text: str, least: int, what: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} {what}; give a whole number from {least} on")
    return int(text)
