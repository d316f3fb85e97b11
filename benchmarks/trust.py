"""How far predictions can be trusted, measured on public data: intervals, sums, coherence, contributions.

`python -m benchmarks.trust [--data-set cdnow complete_journey online_retail=PATH] [--development] [--write]`

Uses the data sets, days and runs of `benchmarks.accuracy`: what one of the two has trained the other reads. Each day also
needs the run as of 30 days before, for the references of the interval score. What is finished is kept under var/accuracy by
content, so that a run that was stopped goes on where it was. --write puts the tables into docs/trust.md.
The evaluation days are for reporting, once; --development takes earlier ones, to choose and tune on.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from threadpoolctl import threadpool_limits

from benchmarks.accuracy import named_data_set
from benchmarks.ours import RunFailed, pipeline_fingerprint, record_at
from benchmarks.public_data import DATA_SETS, HORIZON_DAYS, ROOT, Converted, DataSetMissing, convert
from benchmarks.trust_facts import summed_up
from benchmarks.trust_page import page, render
from benchmarks.trust_record import TrustRecord
from benchmarks.trust_report import CustomersMissing, TrustReport, TrustWindow, aligned, report_on

PAGE = ROOT / "docs" / "trust.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options(arguments)
    try:
        with threadpool_limits(1):
            reports = [report(name, path, options) for name, path in options.data_set]
    except (DataSetMissing, RunFailed, CustomersMissing) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    for each in reports:
        print(render(each))
    if options.write:
        PAGE.write_text(page(reports, date.today()), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(ROOT)}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.trust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data-set",
        nargs="+",
        type=named_data_set,
        default=[("complete_journey", None), ("cdnow", None)],
        metavar="NAME[=PATH]",
        help=f"of {', '.join(DATA_SETS)} (default: those that packages bring)",
    )
    parser.add_argument("--development", action="store_true", help="earlier days, to choose and tune on")
    parser.add_argument("--day", nargs="+", type=date.fromisoformat, help="other days (YYYY-MM-DD), for development")
    parser.add_argument("--profile", choices=("quick", "full"), default="full", help="of the training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the training")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "accuracy", help="where results are kept")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    if options.write and (options.development or options.day or options.profile != "full"):
        parser.error("--write reports the evaluation days with the full profile; leave the other choices out")
    return options


def report(name: str, path: Path | None, options: argparse.Namespace) -> TrustReport:
    """Everything that is printed of a data set. Raises DataSetMissing, RunFailed, CustomersMissing."""
    data_set = DATA_SETS[name]
    converted = convert(data_set, path, options.work)
    days = options.day or (data_set.development_days if options.development else data_set.days)
    pipeline = pipeline_fingerprint()
    before = {day: day - timedelta(days=HORIZON_DAYS) for day in days}
    records = {
        day: _record(name, converted, day, options, pipeline) for day in sorted({*before.keys(), *before.values()})
    }
    history = summed_up(converted, data_set.targets)
    facts = {day: history.facts_at(day) for day in records}
    told = {day: aligned(record, facts[day]) for day, record in records.items()}
    windows = [TrustWindow(facts[day], told[day], facts[earlier], told[earlier]) for day, earlier in before.items()]
    return report_on(data_set, windows, {day: history.facts_before(day) for day in days}, pipeline)


def _record(name: str, converted: Converted, day: date, options: argparse.Namespace, pipeline: str) -> TrustRecord:
    sys.stderr.write(f"{name} {day}\n")
    return record_at(converted, day, options.work / name, options.profile, max(options.threads, 1), pipeline)


if __name__ == "__main__":
    raise SystemExit(main())
