"""Tables to learn from and a model that serves, made by the commands of the pipeline in a process of their own."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from running.lifeline import Lifeline
from running.supervisor import LOOK_EVERY_SECONDS, end_process, ending

TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet")
POINTER_NAME = "current.json"
SECONDS_TO_END = 3.0


class PreparingFailed(Exception):
    """A preparing command ended with an error."""


class Stopped(Exception):
    """Somebody asked for the end while a preparing command was at work."""


@dataclass(frozen=True)
class Places:
    """Folders of a training: tables in, models out, one for reports and spill files, and the truth of sample tables."""

    data: Path
    models: Path
    work: Path
    truth: Path


def has_tables(data_dir: Path) -> bool:
    """True when the folder holds any table file, ours or the shop's."""
    return data_dir.is_dir() and any(path.name.endswith(TABLE_ENDINGS) for path in data_dir.iterdir())


def has_model(models_dir: Path) -> bool:
    """True when a bundle and a snapshot have been promoted here."""
    return (models_dir / POINTER_NAME).is_file()


def make_sample_tables(data_dir: Path, truth_dir: Path, project: Path, lifeline: Lifeline, stop: Event) -> None:
    """The default sample into `data_dir`; what is true about its customers goes to `truth_dir`, never beside it.

    Written elsewhere first and then moved, so that an interrupted run leaves no half of a data set behind.
    Raises PreparingFailed, Stopped.
    """
    staging = data_dir / ".being-made"
    shutil.rmtree(staging, ignore_errors=True)
    arguments = ("-m", "ml_pipeline.sample_data", "--into", str(staging), "--truth", str(truth_dir))
    _run(arguments, project, lifeline, stop)
    for path in sorted(staging.iterdir()):
        path.replace(data_dir / path.name)
    staging.rmdir()


def train_model(places: Places, profile: str, project: Path, lifeline: Lifeline, stop: Event) -> None:
    """Tables → models; the pipeline itself says how far it is. Raises PreparingFailed, Stopped."""
    options = (
        "--data",
        str(places.data),
        "--models",
        str(places.models),
        "--work",
        str(places.work),
        "--profile",
        profile,
        "--truth",
        str(places.truth),
    )
    _run((str(project / "ml_pipeline" / "run_pipeline.py"), *options), project, lifeline, stop)


def _run(arguments: Sequence[str], project: Path, lifeline: Lifeline, stop: Event) -> None:
    process = subprocess.Popen((sys.executable, *arguments), cwd=project, start_new_session=True)
    lifeline.add(process.pid)
    while process.poll() is None and not stop.wait(LOOK_EVERY_SECONDS):
        pass
    code = end_process(process, SECONDS_TO_END)
    lifeline.remove(process.pid)
    if stop.is_set():
        raise Stopped
    if code != 0:
        raise PreparingFailed(f"`python {' '.join(arguments)}` failed ({ending(code)}); its own words are above.")
