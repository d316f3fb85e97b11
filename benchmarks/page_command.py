"""What the commands share that train on public data, print tables and write a page: their options and their course."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import TypeVar

from threadpoolctl import threadpool_limits

from benchmarks.ours import RunFailed
from benchmarks.public_data import DATA_SETS, ROOT, DataSetMissing

Report = TypeVar("Report")


def page_parser(module: str, description: str | None, file: Path) -> argparse.ArgumentParser:
    """The options of every such command; --write makes `file`."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-set",
        nargs="+",
        type=_named_data_set,
        default=[("complete_journey", None), ("cdnow", None)],
        metavar="NAME[=PATH]",
        help=f"of {', '.join(DATA_SETS)} (default: those that packages bring)",
    )
    parser.add_argument("--development", action="store_true", help="earlier days, to choose and tune on")
    parser.add_argument("--day", nargs="+", type=date.fromisoformat, help="other days (YYYY-MM-DD), for development")
    parser.add_argument("--profile", choices=("quick", "full"), default="full", help="of our training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of our training")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "accuracy", help="where results are kept")
    parser.add_argument("--write", action="store_true", help=f"write {file.relative_to(ROOT)}")
    return parser


def refuse_partial_page(parser: argparse.ArgumentParser, options: argparse.Namespace, *others: bool) -> None:
    """Ends the command where --write stands beside a choice of days, of the profile, or one of the `others`."""
    if options.write and (options.development or options.day or options.profile != "full" or any(others)):
        parser.error(
            "--write reports the evaluation days, all rows, with the full profile; leave the other choices out"
        )


def run_page_command(
    options: argparse.Namespace,
    file: Path,
    report: Callable[[str, Path | None, argparse.Namespace], Report],
    render: Callable[[Report], str],
    page: Callable[[Sequence[Report], date], str],
    expected: tuple[type[Exception], ...] = (),
) -> int:
    """Reports on each data set, prints it and writes the page if asked to; 2 for an `expected` error, in one line."""
    try:
        with threadpool_limits(1):  # several threads on shared cores wait for each other most of the time
            reports = [report(name, path, options) for name, path in options.data_set]
    except (DataSetMissing, RunFailed, *expected) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    for each in reports:
        print(render(each))
    if options.write:
        file.write_text(page(reports, date.today()), encoding="utf-8")
        print(f"Written: {file.relative_to(ROOT)}")
    return 0


def _named_data_set(text: str) -> tuple[str, Path | None]:
    name, _, path = text.partition("=")
    if name not in DATA_SETS:
        raise argparse.ArgumentTypeError(f"{name!r} is no data set; they are {', '.join(DATA_SETS)}")
    return name, Path(path) if path else None
