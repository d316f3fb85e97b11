"""How good the forecasts are on public data, beside every peer on the same customers and days.

`python -m benchmarks.accuracy [--data-set cdnow complete_journey online_retail=PATH] [--development] [--write]`

Loads the data sets, converts them to the tables of a retailer, trains and predicts with the product's own commands as of
each evaluation day, asks every peer the same, scores everyone with `ml_pipeline.metrics` and prints the tables. --write puts
them into docs/accuracy.md. Everything is kept under var/accuracy by content: only what changed is run again.
The evaluation days are for reporting, once; --development takes earlier ones, to choose and tune on.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.accuracy_page import DataSetReport, Row, page, render
from benchmarks.answers import ask
from benchmarks.goals import GOALS, NO_GOALS
from benchmarks.ours import OurForecast, forecast, pipeline_fingerprint
from benchmarks.page_command import page_parser, refuse_partial_page, run_page_command
from benchmarks.peer_list import PEERS
from benchmarks.peers import Peer, Question, predict_last_90_days_over_3
from benchmarks.public_data import (
    DATA_SETS,
    ROOT,
    Converted,
    PublicDataSet,
    Window,
    convert,
    window_at,
)
from benchmarks.scores import Answer, Outcome, bootstrap_sd, mean_scores, score
from ml_pipeline.errors import PipelineError

PAGE = ROOT / "docs" / "accuracy.md"
OURS = "ours"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return run_page_command(_options(arguments), PAGE, report, render, page)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = page_parser("benchmarks.accuracy", __doc__, PAGE)
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--only", nargs="+", metavar="ROW", help=f"{OURS}, or names of peers: {_peer_names()}")
    who.add_argument("--peers-only", action="store_true", help="everyone but us")
    options = parser.parse_args(arguments)
    refuse_partial_page(parser, options, bool(options.only), options.peers_only)
    unknown = set(options.only or ()) - {OURS, *(peer.name for peer in PEERS)}
    if unknown:
        parser.error(f"--only {' '.join(sorted(unknown))}: rows are {OURS}, {_peer_names()}")
    return options


def _peer_names() -> str:
    return ", ".join(peer.name for peer in PEERS)


def report(name: str, path: Path | None, options: argparse.Namespace) -> DataSetReport:
    """Everything that is printed of a data set. Raises DataSetMissing, RunFailed."""
    data_set = DATA_SETS[name]
    converted = convert(data_set, path, options.work)
    days = options.day or (data_set.development_days if options.development else data_set.days)
    goals = GOALS.get(name, NO_GOALS) if days == data_set.days else NO_GOALS  # other days are easier or harder
    windows = [window_at(converted.purchases, day, data_set.targets) for day in days]
    empty = DataSetReport(data_set, windows, goals, converted.fingerprint)
    with_peers = _with_peers(empty, options)
    if options.peers_only or (options.only and OURS not in options.only):
        return with_peers
    return _with_ours(with_peers, converted, options)


def _with_peers(so_far: DataSetReport, options: argparse.Namespace) -> DataSetReport:
    rows, absent = [], []
    questions = [Question.of(window) for window in so_far.windows]
    for peer in PEERS:
        if options.only and peer.name not in options.only:
            continue
        if peer.missing:
            absent.append(f"{peer.title}: not installed ({', '.join(peer.missing)})")
            continue
        try:
            rows.append(_peer_row(peer, so_far, questions, options.work))
        except PipelineError as error:  # of our own module on data that its model does not fit
            absent.append(f"{peer.title}: {type(error).__name__}: {error}")
    return replace(so_far, peers=rows, absent=absent)


def _peer_row(peer: Peer, so_far: DataSetReport, questions: Sequence[Question], work: Path) -> Row:
    answers, seconds = [], []
    for question in questions:
        _say(f"{so_far.data_set.name} {question.day} {peer.name}")
        kept = ask(peer, question, so_far.fingerprint, work / so_far.data_set.name)
        answers.append(kept.answer)
        seconds.append(kept.seconds)
    return _row(peer.name, peer.title, so_far.windows, answers, seconds)


def _with_ours(so_far: DataSetReport, converted: Converted, options: argparse.Namespace) -> DataSetReport:
    data_set, windows = so_far.data_set, so_far.windows
    pipeline = pipeline_fingerprint()
    forecasts = []
    for window in windows:
        _say(f"{data_set.name} {window.day} {OURS}")
        work = options.work / data_set.name
        forecasts.append(forecast(converted, window, work, options.profile, max(options.threads, 1), pipeline))
    answers = [Answer(each.predicted, each.probability) for each in forecasts]
    outcomes = [Outcome(window.customer_ids, window.actual) for window in windows]
    return replace(
        so_far,
        ours=_row(OURS, "**ours**", windows, answers, [each.training_seconds for each in forecasts]),
        pipeline=pipeline,
        noise=bootstrap_sd(outcomes, answers),
        prediction_seconds=[each.prediction_seconds for each in forecasts],
        targets=_target_rows(data_set, windows, forecasts),
    )


def _row(name: str, title: str, windows: Sequence[Window], answers: Sequence[Answer], seconds: Sequence[float]) -> Row:
    scores = [score(window.actual, answer) for window, answer in zip(windows, answers, strict=True)]
    return Row(name, title, mean_scores(scores), scores, float(np.mean(seconds)))


def _target_rows(data_set: PublicDataSet, windows: Sequence[Window], forecasts: Sequence[OurForecast]) -> list[Row]:
    """Scores per target, means over the windows: ours and the last 90 days ÷ 3 in turn, then the means over targets."""
    ours: list[Row] = []
    rules: list[Row] = []
    for target, category in data_set.targets.items():
        actual = [window.actual_of[target] for window in windows]
        told = [Answer(each.predicted_of[target]) for each in forecasts]
        ruled = [predict_last_90_days_over_3(_question_of(window, category)) for window in windows]
        for rows, title, answers in ((ours, "ours", told), (rules, "last 90 days ÷ 3", ruled)):
            scores = [score(spent, answer) for spent, answer in zip(actual, answers, strict=True)]
            rows.append(Row(target, f"{category}, {title}", mean_scores(scores), scores, 0.0))
    if not ours:
        return []
    means = [
        Row("mean", f"mean, {title}", mean_scores([row.mean for row in rows]), [], 0.0)
        for title, rows in (("**ours**", ours), ("last 90 days ÷ 3", rules))
    ]
    return [*means, *(row for pair in zip(ours, rules, strict=True) for row in pair)]


def _question_of(window: Window, category: str) -> Question:
    return Question(window.day, window.past[window.past["category"] == category], window.customer_ids)


def _say(words: str) -> None:
    sys.stderr.write(f"{words}\n")


if __name__ == "__main__":
    raise SystemExit(main())
