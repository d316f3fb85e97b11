"""The recipe, top to bottom: explore the tables, prepare them, train, promote, print the backtest.

`python ml_pipeline/run_pipeline.py [--data DIR] [--models DIR] [--as-of DATE] [--profile quick|full]`
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Started as a file, this folder stands first on the path and its modules would be found under second names.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent)]

from ml_pipeline.command import open_progress, run_command
from ml_pipeline.explore import explore_tables
from ml_pipeline.model_card import METRIC_TITLES, candidate_rows, verdict_of
from ml_pipeline.train import Trained, add_arguments, prepare_and_train


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the whole pipeline and prints the backtest, rules first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--no-explore", action="store_true", help="skip the profile of the raw tables")
    options = parser.parse_args(arguments)
    progress = open_progress(options)
    if not options.no_explore:
        with progress.stage("explore", 1) as stage:
            explore_tables(options.data, options.work, options.as_of)
            stage.advance()
    trained = prepare_and_train(options, progress)
    progress.close(trained.as_json())
    if not progress.is_lines:
        sys.stdout.write(render_backtest(trained.report))
        sys.stdout.write(f"\n{render_outcome(trained, options.models)}\n")
    return 0


def render_outcome(trained: Trained, models_dir: Path) -> str:
    """What was trained, what became of it and why, and what serves."""
    lines = [f"Trained: bundle {trained.pair.bundle_id}. {trained.verdict.reason}"]
    if trained.serving:
        lines.append(
            f"Serving: bundle {trained.serving.bundle_id}, snapshot {trained.serving.snapshot_id} in {models_dir}"
        )
    return "\n".join(lines)


def render_backtest(report: Mapping[str, Any]) -> str:
    """The report windows' table of every target for a terminal, simple rules first."""
    lines = [f"Backtest on {', '.join(report['report_days'])} (chosen on {', '.join(report['selection_days'])})"]
    header = ["", *METRIC_TITLES.values()]
    for target, contest in report["targets"].items():
        rows = [header, *candidate_rows(contest, "all")]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines += ["", f"{target}: {verdict_of(contest).replace('**', '')}"]
        lines += [
            "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
            for row in rows
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(run_command(main))
