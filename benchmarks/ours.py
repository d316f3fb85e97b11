"""Runs the product's own commands on a data set as a user would, in processes of their own, and reads what they write."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.public_data import ROOT, Converted, FloatArray, Window
from benchmarks.trust_record import TrustRecord, load_record

RESULT = "predictions.parquet"
RECORD = "trust.npz"
TIMES = "seconds.json"
CARD = "MODEL_CARD.md"
RECORDED_BY = (ROOT / "benchmarks" / "trust_record.py", ROOT / "benchmarks" / "trust_reasons.py")


class RunFailed(Exception):
    """A command of the pipeline failed; the message names the log and its last lines."""


@dataclass(frozen=True)
class OurForecast:
    """What the product says of a window's customers, and how long the commands took.

    predicted, probability: (n,) in the order of the window's customers. predicted_of: the same by target.
    """

    predicted: FloatArray
    probability: FloatArray
    predicted_of: dict[str, FloatArray]
    training_seconds: float
    prediction_seconds: float


def forecast(
    converted: Converted, window: Window, work: Path, profile: str, threads: int, pipeline: str
) -> OurForecast:
    """Trains as of the window's day and predicts every customer. Raises what `kept_run` raises.

    Raises RunFailed also when a customer with purchases before the day has no prediction.
    """
    folder = kept_run(converted, window.day, work, profile, threads, pipeline)
    answers = pd.read_parquet(folder / RESULT).set_index("customer_id").reindex(window.customer_ids)
    missing = answers["predicted_total_spend"].isna()
    if missing.any():
        raise RunFailed(
            f"{int(missing.sum())} customers with purchases before {window.day} have no prediction, the first is "
            f"{answers.index[missing][0]!r}; see {folder / RESULT}."
        )
    seconds = json.loads((folder / TIMES).read_text())
    return OurForecast(
        _numbers(answers["predicted_total_spend"]),
        _numbers(answers["purchase_probability_30d"]),
        {target: _numbers(answers[f"predicted_{target}_spend"]) for target in window.actual_of},
        seconds["training"],
        seconds["prediction"],
    )


def record_at(converted: Converted, day: date, work: Path, profile: str, threads: int, pipeline: str) -> TrustRecord:
    """What trust is measured on, of the same run that `forecast` reads. Raises what `kept_run` raises."""
    return load_record(kept_run(converted, day, work, profile, threads, pipeline) / RECORD)


def kept_run(converted: Converted, day: date, work: Path, profile: str, threads: int, pipeline: str) -> Path:
    """The folder of what is kept of a run as of `day`, made once per content of tables, pipeline and what is kept.

    pipeline: its fingerprint when all this began. Raises RunFailed, also when it is not the same any more: a table must
    not mix two versions of it.
    """
    made_of = "-".join((profile, converted.fingerprint, pipeline, _digest(RECORDED_BY)[:6]))
    folder = work / day.isoformat() / f"ours-{made_of}"
    if not folder.is_dir():
        _run(converted, day, folder, profile, threads, pipeline)
    return folder


def _numbers(column: "pd.Series[float]") -> FloatArray:
    return pd.to_numeric(column).to_numpy(np.float64)


def pipeline_fingerprint() -> str:
    """The content of everything that our forecasts depend on besides the tables."""
    return _digest([*sorted((ROOT / "ml_pipeline").glob("*.py")), ROOT / "requirements.txt"])[:12]


def _digest(files: Sequence[Path]) -> str:
    digest = sha256()
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _run(converted: Converted, day: date, folder: Path, profile: str, threads: int, pipeline: str) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ours-") as staging:
        staged, scratch = Path(staging) / "out", Path(staging) / "scratch"
        staged.mkdir()
        scratch.mkdir()
        ids, models, result = scratch / "ids.csv", scratch / "models", staged / RESULT
        pd.DataFrame({"customer_id": converted.customer_ids}).to_csv(ids, index=False)
        shared = ["--data", str(converted.tables), "--models", str(models), "--as-of", day.isoformat()]
        shared += ["--threads", str(threads)]
        training = ["ml_pipeline.run_pipeline", *shared, "--profile", profile, "--work", str(scratch / "work")]
        predicting = ["ml_pipeline.predict", *shared, "--ids", str(ids), "--out", str(result)]
        recording = ["benchmarks.trust_record", "--models", str(models), "--out", str(staged / RECORD)]
        log = folder.parent / f"{folder.name}.log"
        seconds = {"training": _timed(training, log, threads), "prediction": _timed(predicting, log, threads)}
        _timed(recording, log, threads)
        if pipeline_fingerprint() != pipeline:
            raise RunFailed(
                "ml_pipeline/*.py changed while it ran, and a table must not mix two versions; run it again."
            )
        (staged / TIMES).write_text(json.dumps(seconds))
        shutil.copy(models / CARD, staged / CARD)
        os.replace(staged, folder)


def _timed(module: list[str], log: Path, threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    with log.open("ab") as output:
        ended = subprocess.run(
            [sys.executable, "-m", *module], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    if ended.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise RunFailed(f"python -m {' '.join(module)} ended with {ended.returncode}; the end of {log}:\n{last}")
    return time.perf_counter() - started
