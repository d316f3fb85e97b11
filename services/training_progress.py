"""How far the command of a training is: what it says of its phases, as one percentage of the whole.

The weights say how the time of a command divides between its phases, roughly; they move the percentage and nothing else. No
time left is made of them: how long a training takes depends on tables, profile and machine too much for an honest one.
"""

from collections.abc import Mapping
from typing import Any

from services.job_table import COMPLETED, DATA_REFRESH, OPEN, PUBLISHING, QUEUED, SAMPLE_DATA, TRAINING, Job

QUEUED_PHASE, STARTING, DONE_PHASE = "queued", "starting", "done"
ZIPPING = "zip"
NEARLY_ALL = 99.9
WEIGHTS: Mapping[str, Mapping[str, float]] = {
    TRAINING: {
        "read tables": 3.0,
        "clean": 7.0,
        "write": 1.0,
        "features": 8.0,
        "backtest": 46.0,
        "summary model": 14.0,
        "final models": 11.0,
        "bundle and snapshot": 7.0,
        "contest": 2.0,
        PUBLISHING: 1.0,
    },
    DATA_REFRESH: {"read tables": 20.0, "clean": 30.0, "write": 10.0, "refresh": 35.0, PUBLISHING: 5.0},
    SAMPLE_DATA: {"sample tables": 90.0, ZIPPING: 10.0},
}


class Course:
    """One run of a command, phase by phase."""

    def __init__(self, kind: str) -> None:
        self._weights = WEIGHTS[kind]
        self._passed: list[str] = []
        self._percentage = 0.0
        self.now: dict[str, Any] = _progress(STARTING, "", 0, None, 0.0)

    def hear(self, phase: str, doing: str = "", done: int = 0, of: int | None = None) -> None:
        """The command says where it is; the percentage never goes back, nor does the job once it is PUBLISHING."""
        if PUBLISHING in self._passed and phase != PUBLISHING:
            return
        if phase not in self._passed:
            self._passed.append(phase)
        before = sum(self._weights.get(each, 0.0) for each in self._passed if each != phase)
        share = min(1.0, done / of) if of else 0.0
        reached = 100.0 * (before + share * self._weights.get(phase, 0.0)) / sum(self._weights.values())
        self._percentage = max(self._percentage, min(NEARLY_ALL, reached))
        self.now = _progress(phase, doing, done, of, round(self._percentage, 1))


def _progress(phase: str, doing: str, done: int, of: int | None, percentage: float) -> dict[str, Any]:
    return {"phase": phase, "doing": doing, "done": done, "of": of, "percentage": percentage}


def training_progress(job: Job) -> dict[str, Any]:
    """phase, doing, percentage, eta_seconds, and the steps of the phase as total, processed, successful, failed.

    phase: queued, starting, then as the command calls it, done at the end; of a failed or cancelled job the one it had come
    to. total: None where the phase does not know how many steps it has; `done` has one, which is done. percentage: of the
    whole job, at most 99.9 before it is completed. eta_seconds: 0 when the job has ended, None before.
    """
    said = job.progress or _progress(QUEUED_PHASE if job.started_at is None else STARTING, "", 0, None, 0.0)
    if job.status == COMPLETED:
        said = _progress(DONE_PHASE, "", 1, 1, 100.0)
    return {
        "total": said["of"],
        "processed": said["done"],
        "successful": said["done"],
        "failed": 0,
        "percentage": said["percentage"],
        "phase": QUEUED_PHASE if job.status == QUEUED else said["phase"],
        "doing": said["doing"] if job.status in OPEN else "",
        "eta_seconds": None if job.status in OPEN else 0.0,
    }
