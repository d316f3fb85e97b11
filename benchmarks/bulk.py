"""How fast a file of a million customers goes through the service, beside the script that a data scientist would write.

`python -m benchmarks.bulk [--rows N] [--formats csv xlsx parquet] [--repeat N] [--quick] [--write]`

Starts the service (web, two workers, Redis) in a folder and on ports of its own, uploads, waits and downloads like any
caller, and takes turns with the reference script. The model, the uploads and the reference's boosters are kept below --work
and made once (minutes for a million customers); what the service writes is removed at the end. Exit status 1: a goal is
missed. --write puts the tables into docs/bulk_speed.md.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from benchmarks.bulk_client import UnexpectedAnswer
from benchmarks.bulk_model import MillionModel, million_model
from benchmarks.bulk_page import FormatReport, claims_of, introduction, render
from benchmarks.bulk_runs import WrongResult, check_result, run_reference, run_upload
from benchmarks.bulk_uploads import FORMATS, upload_file
from benchmarks.service_under_test import DATABASES, PROJECT, DidNotStart, ServiceUnderTest, job_database

PAGE = PROJECT / "docs" / "bulk_speed.md"
ROWS = 1_000_000
QUICK_ROWS = 100_000
REPEAT = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options(arguments)
    options.work.mkdir(parents=True, exist_ok=True)
    model = million_model(options.work, options.rows)
    try:
        with job_database(options.database) as settings:
            reports = [_report(name, options, model, settings) for name in options.formats]
    except (DidNotStart, UnexpectedAnswer, WrongResult) as problem:
        sys.stderr.write(f"{type(problem).__name__}: {problem}\n")
        return 2
    text = "\n".join(
        [introduction(model, options.rows, DATABASES[options.database], date.today()), *map(render, reports)]
    )
    print(text)
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Written: {PAGE.relative_to(PROJECT)}")
    return 1 if any(claim.met is False for report in reports for claim in claims_of(report)) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bulk", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, help=f"of the file and customers of the model (default: {ROWS:,})")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--repeat", type=int, help=f"how often each takes its turn (default: {REPEAT})")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROWS:,} rows, once; says nothing of the goals")
    parser.add_argument("--no-reference", action="store_true", help="only ours")
    parser.add_argument("--database", choices=DATABASES, default="sqlite")
    parser.add_argument("--work", type=Path, default=PROJECT / "var" / "bulk", help="where model and uploads are kept")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    options = parser.parse_args(arguments)
    if options.write and (
        options.quick or options.no_reference or options.rows or set(options.formats) != set(FORMATS)
    ):
        parser.error("--write reports a million rows in every format beside the reference; leave the other choices out")
    options.rows = options.rows or (QUICK_ROWS if options.quick else ROWS)
    options.repeat = options.repeat or (1 if options.quick else REPEAT)
    return options


def _report(name: str, options: argparse.Namespace, model: MillionModel, settings: Mapping[str, str]) -> FormatReport:
    """Ours and the reference in turns; a service of its own for each format, used once before the clock starts."""
    report = FormatReport(name)
    small, large = (upload_file(options.work, name, rows, options.rows) for rows in (options.rows // 10, options.rows))
    with tempfile.TemporaryDirectory(prefix="bulk-", dir=options.work) as folder:
        result = Path(folder) / f"result.{name}"
        with ServiceUnderTest(Path(folder), model.models, settings).running() as service:
            run_upload(service, small, result)
            for turn in range(options.repeat):
                _say(f"{name}: turn {turn + 1} of {options.repeat}")
                report.small.append(run_upload(service, small, result))
                report.ours.append(run_upload(service, large, result))
                if turn == 0:
                    check_result(model, large, result)
                if not options.no_reference:
                    report.reference.append(run_reference(options.work, model, large, result))
    return report


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    raise SystemExit(main())
