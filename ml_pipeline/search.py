"""A small seeded search for the shape of the boosters' trees, bounded in trials, rows and rounds.

It looks at windows before all judged ones, learns from three quarters of the customers and scores on the others. Real data
are forgiving here (few shapes differ by more than chance), so a shape must beat the default clearly to replace it.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ml_pipeline.backtest import LEAST_ROWS, hold_out
from ml_pipeline.learners import Effort, Fold, LightGBMLearner, Shape
from ml_pipeline.metrics import score
from ml_pipeline.schema import TOTAL_TARGET
from ml_pipeline.training_set import Observations, WindowPlan

CHOICES: dict[str, tuple[float, ...]] = {
    "leaves": (5, 8, 12, 16),
    "least_rows": (20, 40, 80, 160),
    "columns": (0.25, 0.4, 0.7),
    "penalty": (1.0, 5.0, 20.0),
    "tweedie_power": (1.1, 1.2, 1.3, 1.5),
}
CLEARLY = 0.02
"""By how much of the score (capped R² + D² + nGini − decile MAPE / 4) another shape must beat the default."""
ROWS = 20_000
ROUNDS = 300
"""Trials × rows × rounds bound the work. No clock decides, or the same tables would not give the same bundle."""


@dataclass(frozen=True)
class Search:
    """What was tried, in order, with the scores of held-out customers; the first is the default. chosen: what is used."""

    trials: tuple[tuple[Shape, float], ...]
    chosen: Shape

    def as_json(self) -> dict[str, Any]:
        """Plain values for a bundle's metadata."""
        return {
            "trials": [{**asdict(shape), "score": round(value, 6)} for shape, value in self.trials],
            "chosen": asdict(self.chosen),
        }


def search_shape(observations: Observations, plan: WindowPlan, effort: Effort, n_trials: int) -> Search:
    """Tries the default and `n_trials` other shapes on the total; the same seed tries the same.

    Nothing is tried where there is nothing to learn.
    """
    if plan.rules_only:
        return Search((), effort.shape)
    rows = np.arange(observations.ended_before(plan.calibration[0]).stop)
    held_out = hold_out(observations, rows, effort.seed)
    labels = observations.spend[TOTAL_TARGET]
    training, validation = (
        Fold(observations.learnable(part), labels[part]) for part in (rows[~held_out][-ROWS:], rows[held_out][-ROWS:])
    )
    if not n_trials or min(len(training.labels), len(validation.labels)) < LEAST_ROWS or training.labels.max() <= 0:
        return Search((), effort.shape)
    trials: list[tuple[Shape, float]] = []
    tried = replace(
        effort, learning_rate=max(effort.learning_rate, 0.1), patience=20, max_rounds=min(effort.max_rounds, ROUNDS)
    )
    for shape in (effort.shape, *_draw(n_trials, effort.seed)):
        fitted = LightGBMLearner().fit(training, observations.names, replace(tried, shape=shape), validation=validation)
        trials.append((shape, score(validation.labels, fitted.member.predict(validation.features, effort.threads))))
    best, value = max(trials, key=lambda trial: trial[1])
    chosen = best if value > trials[0][1] + CLEARLY else effort.shape
    return Search(tuple(trials), chosen)


def _draw(n_trials: int, seed: int) -> list[Shape]:
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n_trials):
        choice = {name: options[rng.integers(len(options))] for name, options in CHOICES.items()}
        drawn.append(
            Shape(
                leaves=int(choice["leaves"]),
                least_rows=int(choice["least_rows"]),
                columns=choice["columns"],
                penalty=choice["penalty"],
                tweedie_power=choice["tweedie_power"],
            )
        )
    return drawn
