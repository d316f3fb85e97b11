"""What a few numbers of a customer tell beside the whole history: the summary model as it is served, on later windows.

`python -m benchmarks.summary_accuracy [--data-set sample cdnow] [--profile quick|full] [--write]`

Trains with the product's own command as of each evaluation day (nothing on or after it is read), takes everybody who bought
before it, and asks the bundle for the spend of the next 30 days: by the whole history, and by complete requests of each form
of summary, as a caller would send them. Scored with `ml_pipeline.metrics` beside the simple rules and the rule of thumb on
the same rows. --write puts the tables into docs/summary_accuracy.md. What is finished is kept under var/summary_accuracy.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from benchmarks.ours import RunFailed, pipeline_fingerprint
from benchmarks.page_command import run_page_command
from benchmarks.public_data import CDNOW, ROOT, FloatArray, convert, window_at
from benchmarks.scores import Answer, mean_scores, score
from benchmarks.summary_accuracy_page import DataSetReport, Row, Window, page, render
from ml_pipeline.bundle import read_pointer, versions_dir
from ml_pipeline.engine import open_engine
from ml_pipeline.members import Matrix
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.prepare import prepare_dataset
from ml_pipeline.progress import Progress
from ml_pipeline.rules import RULE_BY_NAME, spend_history
from ml_pipeline.sample_data import write_sample_tables
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.snapshot import load_snapshot
from ml_pipeline.summary_columns import select_summary, with_implied
from ml_pipeline.summary_forms import FORMS, as_form, heuristic_probability, heuristic_spend
from ml_pipeline.summary_purchases import tells_purchases
from ml_pipeline.training_set import build_observations

PAGE = ROOT / "docs" / "summary_accuracy.md"
RULES = ("last_90_days_over_3", "lifetime_rate_x_30", "decayed_rate", "mean")
Spent = Mapping[str, float]


@dataclass(frozen=True)
class DataSet:
    """Tables, and what each customer spent in the 30 days from a day on; the first days of the windows."""

    name: str
    title: str
    days: tuple[date, ...]
    tables: Callable[[Path], Path]
    spent: Callable[[Path, date], Spent]


def _sample_tables(work: Path) -> Path:
    folder = work / "sample" / "tables"
    if not folder.is_dir():
        write_sample_tables(folder, work / "sample" / "truth")
    return folder


def _sample_spent(work: Path, day: date) -> Spent:
    """From the cleaned tables: the sample's are flawed on purpose, and what of them counts is the pipeline's to say."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        engine = open_engine(Path(scratch) / "engine", threads=1)
        try:
            prepared = prepare_dataset(engine, _sample_tables(work), Path(scratch), progress=Progress(bars=False))
            rows = build_observations(engine, prepared.purchases, prepared.customers, [day], ())
        finally:
            engine.disconnect()
    return dict(zip(rows.customer_id.tolist(), rows.spend[TOTAL_TARGET].tolist(), strict=True))


def _cdnow_spent(work: Path, day: date) -> Spent:
    """From the source file, without the pipeline."""
    window = window_at(convert(CDNOW, None, work).purchases, day, {})
    return dict(zip(window.customer_ids.tolist(), window.actual.tolist(), strict=True))


DATA_SETS = {
    each.name: each
    for each in (
        DataSet(
            "sample",
            "The default sample shop",
            (date(2025, 10, 3), date(2025, 11, 2), date(2025, 12, 2)),
            _sample_tables,
            _sample_spent,
        ),
        DataSet(CDNOW.name, CDNOW.title, CDNOW.days, lambda work: convert(CDNOW, None, work).tables, _cdnow_spent),
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    return run_page_command(_options(arguments), PAGE, report, render, page)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.summary_accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-set", nargs="+", choices=tuple(DATA_SETS), default=tuple(DATA_SETS))
    parser.add_argument("--day", nargs="+", type=date.fromisoformat, help="other days (YYYY-MM-DD)")
    parser.add_argument("--profile", choices=("quick", "full"), default="full", help="of the training")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the training")
    parser.add_argument("--work", type=Path, default=ROOT / "var" / "summary_accuracy", help="where results are kept")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    options = parser.parse_args(arguments)
    if options.write and (options.day or options.profile != "full" or set(options.data_set) != set(DATA_SETS)):
        parser.error("--write reports all data sets and days with the full profile; leave the other choices out")
    options.data_set = [(name, None) for name in options.data_set]
    return options


def report(name: str, _: Path | None, options: argparse.Namespace) -> DataSetReport:
    """Everything that is printed of a data set. Raises DataSetMissing, RunFailed."""
    data_set = DATA_SETS[name]
    options.work.mkdir(parents=True, exist_ok=True)
    pipeline = pipeline_fingerprint()
    windows = [_window(data_set, day, options, pipeline) for day in options.day or data_set.days]
    rows = [
        Row(title, mean_scores([window.scores[title] for window in windows]))
        for title in windows[0].scores
        if all(title in window.scores for window in windows)
    ]
    return DataSetReport(data_set.title, options.profile, windows, rows, pipeline)


def _window(data_set: DataSet, day: date, options: argparse.Namespace, pipeline: str) -> Window:
    """The scores of one window, measured once per profile and content of the pipeline."""
    kept = options.work / data_set.name / f"{day}-{options.profile}-{pipeline}.json"
    if not kept.is_file():
        sys.stderr.write(f"{data_set.name} {day}\n")
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=options.work, prefix=".run-") as scratch:
            models = Path(scratch) / "models"
            _train(data_set.tables(options.work), models, Path(scratch), day, options)
            found = measure(models, data_set.spent(options.work, day), day)
        kept.write_text(json.dumps(found.as_json(), indent=1), "utf-8")
    return Window.from_json(json.loads(kept.read_text("utf-8")))


def _train(tables: Path, models: Path, scratch: Path, day: date, options: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "ml_pipeline.run_pipeline", "--data", str(tables), "--models", str(models)]
    command += ["--work", str(scratch / "work"), "--as-of", day.isoformat(), "--profile", options.profile]
    command += ["--threads", str(options.threads)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if ended.returncode:
        last = "\n".join(ended.stderr.splitlines()[-5:])
        raise RunFailed(f"{' '.join(command[1:])} ended with {ended.returncode}:\n{last}")


def measure(models: Path, spent: Spent, day: date) -> Window:
    """Every answer's scores for everybody who bought before `day`, by the pair that serves in a models folder.

    spent: of each of these customers in the 30 days from `day` on. Raises RunFailed when one of them is not in the snapshot.
    """
    pair = read_pointer(models)
    predictor, snapshot = load_predictor(models, pair.bundle_id), load_snapshot(models, pair.snapshot_id)
    ids = sorted(spent)
    places = snapshot.positions(ids)
    if snapshot.as_of != day or (places < 0).any():
        raise RunFailed(f"the snapshot of {snapshot.as_of} lacks {int((places < 0).sum())} of {len(ids)} customers")
    actual = np.array([spent[one] for one in ids])
    served, features = snapshot.columns(places), snapshot.features(places)
    told = {
        "whole history: the full model": Answer(
            served["predicted_total_spend"], snapshot.probability(places).astype(np.float64)
        ),
        **_of_forms(predictor, features),
        **_of_rules(predictor, features, models, pair.bundle_id),
    }
    return Window(
        day, len(ids), float((actual > 0).mean()), {title: score(actual, each) for title, each in told.items()}
    )


def _of_forms(predictor: Predictor, features: Matrix) -> dict[str, Answer]:
    """Complete requests of each form: by what serves it, and by each model that can answer it."""
    summary, metadata = predictor.summary, predictor.metadata
    whole = select_summary(features, metadata.features, metadata.targets)
    told = {}
    for form in FORMS:
        cut = as_form(whole, form, metadata.targets)
        for name in ("best", *summary.model_types):
            if name == "bg_nbd" and not tells_purchases(with_implied(cut)).all():
                continue
            answers = summary.predict(cut, name)
            told[f"{form.replace('_', ' ')}: {name}"] = Answer(answers.money / 100, answers.probability)
    return told


def _of_rules(predictor: Predictor, features: Matrix, models: Path, bundle_id: str) -> dict[str, Answer]:
    """The simple rules with the whole history, the best of the backtest marked, and the rule of thumb."""
    metadata = predictor.metadata
    history = spend_history(features, metadata.features, metadata.targets, TOTAL_TARGET)
    mean = float(metadata.content["summary"]["mean"])
    rules: dict[str, FloatArray] = {name: RULE_BY_NAME[name].predict(history, mean) for name in RULES}
    backtest = json.loads((versions_dir(models) / bundle_id / "backtest.json").read_text("utf-8"))
    best = backtest["targets"][TOTAL_TARGET]["best_rule"]
    rules.setdefault(best, RULE_BY_NAME[best].predict(history, mean))
    whole = select_summary(features, metadata.features, metadata.targets)
    return {
        "best simple rule of the whole history": Answer(rules[best]),
        **{f"rule: {RULE_BY_NAME[name].title}": Answer(rules[name]) for name in RULES},
        "rule of thumb × mean value": Answer(heuristic_spend(whole), heuristic_probability(whole)),
    }


if __name__ == "__main__":
    raise SystemExit(main())
