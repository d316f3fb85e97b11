"""One upload through the service, timed as its caller sees it; and the same file through the reference script."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import python_calamine

from benchmarks.bulk_client import BulkClient, Form
from benchmarks.bulk_memory import PeakMemory, watched
from benchmarks.bulk_model import MillionModel
from benchmarks.service_under_test import PROJECT, ServiceUnderTest, free_of_settings
from ml_pipeline.bundle import read_pointer
from ml_pipeline.snapshot import load_snapshot

LOOK_SECONDS = 0.1
JUDGED_SHARE = 0.2
CHECKED = ("customer_id", "predicted_total_spend", "predicted_total_spend_upper", "status")


class WrongResult(Exception):
    """The result is not what the model says of the uploaded rows."""


@dataclass
class Run:
    """One upload, in seconds since the upload began but for what says otherwise.

    seconds: to the finished download. sent: its last byte was handed over. first_read, first_scored: after `sent`, to the
    first status with rows read, and with rows processed. eta_ratio: the remaining time that was told at a fifth of the rows,
    over the true one; None where none was told.
    """

    rows: int
    seconds: float
    sent: float
    completed: float
    first_read: float | None
    first_scored: float | None
    eta_ratio: float | None
    result_bytes: int
    memory: PeakMemory = field(repr=False)


@dataclass
class _Watch:
    """Looks at each status of a job and keeps the moments that are asked for."""

    first_read: float | None = None
    first_scored: float | None = None
    told_at: float | None = None
    told: float | None = None
    ended: float = 0.0

    def look(self, status: dict[str, Any]) -> float:
        now, progress = time.monotonic(), status["progress"]
        if self.first_read is None and progress.get("rows_read"):
            self.first_read = now
        if self.first_scored is None and progress["processed"]:
            self.first_scored = now
        if self.told_at is None and progress["total"] and progress["processed"] >= JUDGED_SHARE * progress["total"]:
            self.told_at, self.told = now, progress.get("eta_seconds")
        self.ended = now
        return LOOK_SECONDS

    @property
    def eta_ratio(self) -> float | None:
        if self.told_at is None or self.told is None or self.ended <= self.told_at:
            return None
        return self.told / (self.ended - self.told_at)


def run_upload(service: ServiceUnderTest, upload: Path, result: Path) -> Run:
    """Uploads, waits, downloads to `result`. Raises UnexpectedAnswer."""
    client, form, watch = BulkClient(service.url), Form(upload), _Watch()
    with watched(service) as memory:
        started = time.monotonic()
        job_id = client.upload(form)
        status = client.await_end(job_id, watch.look)
        if status["status"] != "completed":
            raise WrongResult(f"{upload.name}: the job is {status['status']}: {status.get('message')}")
        size = client.download(job_id, result)
        seconds = time.monotonic() - started
    return Run(
        rows=int(status["progress"]["total"]),
        seconds=seconds,
        sent=form.sent_at - started,
        completed=watch.ended - started,
        first_read=_after(form.sent_at, watch.first_read),
        first_scored=_after(form.sent_at, watch.first_scored),
        eta_ratio=watch.eta_ratio,
        result_bytes=size,
        memory=memory,
    )


def _after(start: float, moment: float | None) -> float | None:
    return None if moment is None else moment - start


def run_reference(folder: Path, model: MillionModel, upload: Path, result: Path) -> float:
    """Seconds that the reference script says it took; its boosters are made on the first use of the folder."""
    boosters = folder / f"reference-{model.customers}"
    if not (boosters / "sports.json").is_file():
        _reference("train", boosters, model.features)
    return float(json.loads(_reference("run", boosters, model.features, upload, result))["seconds"])


def _reference(*arguments: object) -> str:
    environment = {name: value for name, value in free_of_settings().items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-m", "benchmarks.bulk_reference", *map(str, arguments)]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return ended.stdout


def check_result(model: MillionModel, upload: Path, result: Path) -> None:
    """Raises WrongResult unless every uploaded row is there, in its order, with what the snapshot says of its customer."""
    sent, made = _columns(upload, CHECKED[:1]), _columns(result, CHECKED)
    if not made["customer_id"].equals(sent["customer_id"]):
        raise WrongResult(f"{result.name}: the rows are not those of {upload.name} in their order")
    snapshot = load_snapshot(model.models, read_pointer(model.models).snapshot_id)
    answers = snapshot.columns(snapshot.positions(made["customer_id"].to_pylist()))
    for name in CHECKED[1:3]:
        if not np.array_equal(made[name].to_numpy().astype(float), answers[name]):
            raise WrongResult(f"{result.name}: {name} is not what the snapshot says")
    if made["status"].unique().to_pylist() != ["success"]:
        raise WrongResult(f"{result.name}: a known customer failed")


def _columns(path: Path, names: Sequence[str]) -> pa.Table:
    if path.suffix == ".csv":
        options = pa.csv.ConvertOptions(include_columns=list(names), column_types={"customer_id": pa.string()})
        return pa.csv.read_csv(path, convert_options=options).combine_chunks()
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path, columns=list(names)).combine_chunks()
    rows = python_calamine.load_workbook(str(path)).get_sheet_by_index(0).iter_rows()
    header = next(rows)
    places = [header.index(name) for name in names]
    cells = zip(*([row[place] for place in places] for row in rows), strict=True)
    return pa.table(dict(zip(names, map(list, cells), strict=True))).combine_chunks()


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
