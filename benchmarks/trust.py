"""How far predictions can be trusted, measured on public data: intervals, sums, coherence, contributions.

`python -m benchmarks.trust [--data-set cdnow complete_journey online_retail=PATH] [--development] [--write]`

Uses the data sets, days and runs of `benchmarks.accuracy`: what one of the two has trained the other reads. Each day also
needs the run as of 30 days before, for the references of the interval score. What is finished is kept under var/accuracy by
content, so that a run that was stopped goes on where it was. --write puts the tables into docs/trust.md.
The evaluation days are for reporting, once; --development takes earlier ones, to choose and tune on.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

from benchmarks.ours import pipeline_fingerprint, record_at
from benchmarks.page_command import page_parser, refuse_partial_page, run_page_command
from benchmarks.public_data import DATA_SETS, HORIZON_DAYS, ROOT, Converted, convert
from benchmarks.trust_facts import summed_up
from benchmarks.trust_page import page, render
from benchmarks.trust_record import TrustRecord
from benchmarks.trust_report import CustomersMissing, TrustReport, TrustWindow, aligned, report_on

PAGE = ROOT / "docs" / "trust.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return run_page_command(_options(arguments), PAGE, report, render, page, expected=(CustomersMissing,))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = page_parser("benchmarks.trust", __doc__, PAGE)
    options = parser.parse_args(arguments)
    refuse_partial_page(parser, options)
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
