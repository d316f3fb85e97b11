"""How the pipeline's commands start and end: plain logs on stderr, one line for what is wrong, no traceback."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from ml_pipeline.errors import PipelineError

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
    """Runs a command's `main(arguments)` and returns its exit code: 0, 2 for what is refused, 130 for Ctrl-C.

    Refused is a PipelineError, or a path that the system does not let be read or written.

    `arguments=None` means those of the process. Use: `sys.exit(run_command(main))`.
    """
    # on a terminal the progress bars say what is being done; lines in between would tear them apart
    log_to_stderr(logging.WARNING if sys.stderr.isatty() else logging.INFO)
    try:
        return main(arguments) or 0
    except PipelineError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    except OSError as error:
        where = error.filename or "a file"
        logging.getLogger(__name__).debug("refused by the system", exc_info=True)
        sys.stderr.write(
            f"{type(error).__name__}: {where}: {error.strerror or error}; check that the path is right, that it may be "
            "read or written, and that the disk has room.\n"
        )
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def thread_count(text: str) -> int:
    """The value of an option --threads, at least 1. Raises argparse.ArgumentTypeError, which argparse words."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} threads; give a whole number from 1 on")
    return int(text)
