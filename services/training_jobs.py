"""What workers do for trainings, sample tables and data refreshes: they run a command of the pipeline and watch over it.

The command is a process of its own (child_process.py), so that it can be ended at any moment, and so that nothing of what it
needs stays in the worker. It names its phases; what it refuses, it refuses by name, and so does the job.
"""

import logging
import os
import signal
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from config import ROOT, Settings
from ml_pipeline import errors as pipeline
from services.child_process import MB, ChildProcess
from services.errors import (
    JobStoreUnavailable,
    LeaseLost,
    ServiceError,
    StorageFull,
    TrainingCrashed,
    TrainingOutOfMemory,
)
from services.job_folders import KEPT, ROOM, JobFolders
from services.job_keys import sample_folder, sample_key
from services.job_table import REFRESH, SAMPLE, TRAIN, Job, Lease, Step
from services.model_registry import ModelRegistry
from services.object_store import ObjectStore, named_failures
from services.step_store import StepStore
from services.training_progress import PUBLISHING, ZIPPING, Course

log = logging.getLogger(__name__)

COMMANDS: dict[str, tuple[str, ...]] = {
    TRAIN: (sys.executable, "-P", "-m", "ml_pipeline.train"),
    SAMPLE: (sys.executable, "-P", "-m", "ml_pipeline.sample_data"),
    REFRESH: (sys.executable, "-P", "-m", "ml_pipeline.refresh"),
}
"""What is run for each kind of step; the options are those of the pipeline's commands."""
LISTEN_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""Between two looks at the lease and at the memory of the command: so soon a cancelled job's command is asked to end."""
AWAY_SECONDS = 60.0
"""So long a command goes on while the job table does not answer; then another worker may be about to begin the same."""
OUT_OF_MEMORY = "OutOfMemory"
"""By this name a command refuses what does not fit into its memory."""
SAMPLE_README = """Sample tables of a shop that does not exist
============================================

{customers:,} customers, seed {seed}. The same number and seed give the same tables, to the byte.

To use them, unpack the CSV files into an empty folder and set DATA_DIR to it; then `python run.py --train`, or
POST /train/all. What each column means, and which flaws are in them on purpose, stands in docs/sample_data.md.

The truth that they were drawn from is not in this archive, so that no model can learn from it. To have it beside the same
tables:

    python -m ml_pipeline.sample_data --customers {customers} --seed {seed} --into DIR --truth OTHER_DIR
"""
ZIP_DAY = (1980, 1, 1, 0, 0, 0)
"""Of every file in an archive: the same tables give the same bytes."""


class TrainingJobs:
    """The work of the steps `train`, `sample` and `refresh`. Each raises LeaseLost, TrainingOutOfMemory, TrainingCrashed, what
    its command refuses, and what the stores raise."""

    def __init__(
        self,
        settings: Settings,
        folders: JobFolders,
        steps: StepStore,
        objects: ObjectStore,
        registry: ModelRegistry,
        commands: Mapping[str, Sequence[str]] = COMMANDS,
    ) -> None:
        self._settings = settings
        self._folders = folders
        self._steps = steps
        self._objects = objects
        self._registry = registry
        self._commands = commands

    def train(self, job: Job, step: Step, lease: Lease) -> None:
        """Tables → a sealed bundle, which serves from here on if it is better, or if that was asked for."""
        asked = job.parameters
        options = ["--profile", asked["profile"], "--algorithm", asked["model_type"], "--promote", asked["promote"]]
        if asked["n_samples"] is not None:
            options += ["--n-samples", str(asked["n_samples"])]
        truth = self._settings.var_dir / "sample_truth"
        if truth.is_dir():
            options += ["--truth", str(truth)]
        self._make_pair(job, lease, options)

    def refresh(self, job: Job, step: Step, lease: Lease) -> None:
        """Tables → a snapshot of the bundle that serves, which serves from here on."""
        self._make_pair(job, lease, ["--force"] if job.parameters["force"] else [])

    def sample(self, job: Job, step: Step, lease: Lease) -> None:
        """A zip of new sample tables, without the truth about them."""
        asked = job.parameters
        course = Course(job.kind)
        with self._folders.of(lease) as folder:
            tables = folder / "tables"
            options = ["--into", str(tables), "--truth", str(folder / "truth")]
            options += ["--customers", str(asked["n_customers"]), "--seed", str(asked["seed"])]
            outcome = self._run(lease, folder, course, options)
            self._tell(lease, course, ZIPPING)
            key = sample_key(job.job_id, lease.fence)
            readme = SAMPLE_README.format(customers=asked["n_customers"], seed=asked["seed"])
            with self._objects.create(key) as archive, named_failures(KEPT, ROOM):
                write_archive(archive, readme, sorted(tables.iterdir()))
        self._complete_with(lease, key, outcome)

    def _complete_with(self, lease: Lease, key: str, outcome: Mapping[str, Any]) -> None:
        try:
            self._steps.complete(lease, key, outcome)
        except LeaseLost:
            self._objects.delete_below(sample_folder(lease.job_id, lease.fence))
            raise

    def _make_pair(self, job: Job, lease: Lease, options: Sequence[str]) -> None:
        course = Course(job.kind)
        self._registry.catch_up()
        with self._folders.of(lease) as folder:
            places = ["--data", self._settings.data_dir, "--models", self._settings.models_dir, "--work", folder]
            limits = ["--memory-mb", self._settings.training_memory_mb, "--threads", processors()]
            outcome = self._run(lease, folder, course, [*options, *map(str, (*places, *limits)), "--ask"])
        self._tell(lease, course, PUBLISHING)
        self._announce()
        self._steps.complete(lease, None, outcome)

    def _announce(self) -> None:
        """Other hosts hear of the pair that serves now. Here it serves already: no reason to train once more."""
        try:
            self._registry.announce()
        except (ServiceError, pipeline.PipelineError) as problem:
            log.warning("other hosts are not told", extra={"error": type(problem).__name__, "reason": str(problem)})

    # ---- the command

    def _run(self, lease: Lease, folder: Path, course: Course, options: Sequence[str]) -> dict[str, Any]:
        """The outcome of the step's command, once it has ended well."""
        command = [*self._commands[lease.kind], *options, "--progress", "json"]
        with ChildProcess(command, folder, ROOT) as child:
            last = self._watched(lease, child, course)
            code = child.exit_code()
            for news in child.news(0.0):
                last = news
            if code == 0 and isinstance(last.get("outcome"), dict):
                return dict(last["outcome"])
            raise self._problem(lease, code, last, child)

    def _watched(self, lease: Lease, child: ChildProcess, course: Course) -> dict[str, Any]:
        """Listens to the command until it has no more to say; its last news."""
        last: dict[str, Any] = {}
        asks = False
        watch = _LeaseWatch(self._steps, lease, course)
        while child.is_at_work():
            for last in child.news(LISTEN_SECONDS):
                if "phase" in last:
                    course.hear(str(last["phase"]), str(last.get("doing") or ""), last.get("done") or 0, last.get("of"))
                if "asks" in last:  # whether what it has made may serve: only if nobody can cancel the job from here on
                    course.hear(PUBLISHING)
                    asks = True
            if asks or watch.is_due():
                is_noted = watch.look()
                self._check_memory(child)
                if asks and is_noted:
                    child.agree()
                    asks = False
        return last

    def _check_memory(self, child: ChildProcess) -> None:
        held = child.memory_bytes()
        if held is not None and held > self._settings.training_memory_mb * MB:
            raise self._out_of_memory(f"took {held / MB:,.0f} MB of memory")

    def _out_of_memory(self, what: str) -> TrainingOutOfMemory:
        return TrainingOutOfMemory(
            f"The command {what}; {self._settings.training_memory_mb:,} MB are allowed. Ask for fewer customers (n_samples), or "
            "let the operator raise TRAINING_MEMORY_MB if the machine has more."
        )

    def _problem(self, lease: Lease, code: int, last: Mapping[str, Any], child: ChildProcess) -> Exception:
        """Why a command ended without an outcome."""
        said = last.get("error")
        name, message = (str(said.get("name")), str(said.get("message"))) if isinstance(said, dict) else ("", "")
        if name == OUT_OF_MEMORY:
            return self._out_of_memory("found its memory too small")
        refused = refusal(name, message)
        if refused is not None:
            return refused
        log.error("command crashed", extra={"exit_code": code, "last_words": child.last_words()})
        return crash(lease.job_id, code, f"{name}: {message}" if name else "")

    def _tell(self, lease: Lease, course: Course, phase: str) -> None:
        course.hear(phase)
        self._steps.note_progress(lease, course.now)


class _LeaseWatch:
    """Looks at the lease once a second: notes progress where there is any, else only asks whether the job is still ours."""

    def __init__(self, steps: StepStore, lease: Lease, course: Course) -> None:
        self._steps = steps
        self._lease = lease
        self._course = course
        self._noted: dict[str, Any] | None = None
        self._looked_at = self._answered_at = time.monotonic() - LOOK_SECONDS

    def is_due(self) -> bool:
        return time.monotonic() - self._looked_at >= LOOK_SECONDS

    def look(self) -> bool:
        """Whether the table has answered. Raises LeaseLost, and JobStoreUnavailable when it has been away for too long."""
        self._looked_at = time.monotonic()
        try:
            if self._course.now == self._noted:
                self._steps.renew(self._lease)
            else:
                self._steps.note_progress(self._lease, self._course.now)
                self._noted = self._course.now
            self._answered_at = time.monotonic()
        except JobStoreUnavailable:
            if time.monotonic() - self._answered_at > AWAY_SECONDS:
                raise
            log.warning("job table away, the command goes on for now", extra={"job_id": self._lease.job_id})
            return False
        return True


def refusal(name: str, message: str) -> Exception | None:
    """The error that a command named; None for what is neither a refusal of the pipeline's nor a full disk."""
    if name == StorageFull.__name__:
        return StorageFull(message)
    found = getattr(pipeline, name, None)
    if isinstance(found, type) and issubclass(found, pipeline.PipelineError):
        return found(message)
    return None


def crash(job_id: str, code: int, said: str) -> TrainingCrashed:
    """The error of a command that did not end well. said: what it told of it; empty where it told nothing."""
    if said:
        return TrainingCrashed(f"{said} Try it again (POST /bulk/retry/{job_id}) when that is put right.")
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    why = " (most likely by the system, for want of memory)" if -code == signal.SIGKILL else ""
    return TrainingCrashed(
        f"The command {how}{why} before it was done; the log has its last words under the job's request id. Try it again "
        f"(POST /bulk/retry/{job_id}), or ask for less (n_samples, n_customers) where memory is short."
    )


def write_archive(archive: Path, readme: str, files: Sequence[Path]) -> None:
    """A zip of the files and of README.txt, without folders; the same content gives the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr(_entry("README.txt"), readme)
        for path in files:
            with path.open("rb") as stream, zipped.open(_entry(path.name), "w", force_zip64=True) as entry:
                while block := stream.read(MB):
                    entry.write(block)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ZIP_DAY)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
