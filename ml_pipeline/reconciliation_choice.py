"""Which way of making total and parts agree serves: each is judged on the selection windows against no agreement at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ml_pipeline.metrics import MAPE_WEIGHT, score
from ml_pipeline.reconcile import PLAIN_METHODS, TOP_DOWN, Method, fit_mint, reconcile

FloatArray = npt.NDArray[np.float64]

LOSS_ALLOWED = 0.003
SMALLEST_SCORE = 0.25  # a score below it counts as it, or the gain on a hopeless target would be without bounds
NOISE_MARGIN = 2.0
RESAMPLES = 20
ROUNDING = 1e-6  # of the money: features are float32
RECONCILIATION_RULE = (
    "A method's gain on a target is by how much the target's score (capped R² + D² + normalised Gini − "
    f"{MAPE_WEIGHT:g} × decile MAPE, mean over the selection windows) is higher than before total and parts were made to agree, "
    f"as a share of that score (of {SMALLEST_SCORE:g} at least). A method by which a target or the total loses more than "
    f"{LOSS_ALLOWED:.1%} is out, if there is another one; if there is none, the one whose greatest loss is least serves. Of "
    "those left, the methods that learn nothing from past errors count as equal to the one of the highest mean gain where "
    f"they are behind it by no more than {NOISE_MARGIN:g} bootstrap standard deviations ({RESAMPLES} paired resamples of "
    "customers): of these the one whose greatest loss is least serves. Where there is none, the one of the highest mean gain."
)


@dataclass(frozen=True)
class ToldWindow:
    """One judged window: predictions before they agree and what came, (n, 1 + k) each: total, targets, other.

    customer (n,): a number per customer that is the same in all windows. usual_shares (k,): known before the window.
    """

    predicted: FloatArray
    actual: FloatArray
    customer: npt.NDArray[np.int64]
    usual_shares: FloatArray

    def agreed(self, method: Method) -> FloatArray:
        """The predictions made to agree, (n, 1 + k)."""
        return reconcile(method, self.predicted[:, 0], self.predicted[:, 1:], self.usual_shares)


@dataclass(frozen=True)
class ReconciliationChoice:
    """Which method serves and why; gains: of each method that was tried, per column (total, targets, other)."""

    name: str
    why: str
    gains: Mapping[str, FloatArray] = field(default_factory=dict)


ONE_NUMBER = ReconciliationChoice(TOP_DOWN, "There are no named targets: the total has no parts to agree with.")


def methods_learned(windows: Sequence[ToldWindow]) -> tuple[Method, ...]:
    """Every method, those first that learn nothing; what the others need is learned from these windows, if there are any."""
    if not windows:
        return PLAIN_METHODS
    predicted, actual = (np.concatenate([getattr(each, name) for each in windows]) for name in ("predicted", "actual"))
    return (*PLAIN_METHODS, fit_mint(predicted, actual))


def method_called(name: str, methods: Sequence[Method]) -> Method:
    """The one of that name."""
    return next(method for method in methods if method["name"] == name)


def choose_reconciliation(methods: Sequence[Method], windows: Sequence[ToldWindow], seed: int) -> ReconciliationChoice:
    """The method that serves by RECONCILIATION_RULE; methods must have been learned before these windows."""
    if all(_agree(window) for window in windows):
        return ReconciliationChoice(TOP_DOWN, "Total and parts agreed before anything was done.")
    gains = {method["name"]: gains_of(method, windows) for method in methods}
    allowed = [name for name, each in gains.items() if each.min() >= -LOSS_ALLOWED]
    if not allowed:
        least = max(gains, key=lambda name: float(gains[name].min()))
        return ReconciliationChoice(least, "Each method costs somebody more; this one costs least.", gains)
    best = max(allowed, key=lambda name: float(gains[name].mean()))
    noise = _noise(best, [method for method in methods if method["name"] in allowed], windows, seed)
    lead = {name: float(gains[best].mean() - gains[name].mean()) for name in allowed}
    plain = {method["name"] for method in PLAIN_METHODS}
    near = [name for name in allowed if name in plain and lead[name] <= NOISE_MARGIN * noise[name]]
    if near in ([], [best]):
        return ReconciliationChoice(best, "Its mean gain is the highest, by more than chance gives.", gains)
    safest = max(near, key=lambda name: (float(gains[name].min()), float(gains[name].mean())))
    close = ", ".join(name for name in dict.fromkeys([best, *near]) if name != safest)
    why = f"Chance alone may have put {close} before or behind it; its greatest loss is the least."
    return ReconciliationChoice(safest, why, gains)


def gains_of(method: Method, windows: Sequence[ToldWindow]) -> FloatArray:
    """By how much (1 + k,) the score is higher than before, as a share of it; see RECONCILIATION_RULE."""
    before = _scores([(window.actual, window.predicted) for window in windows])
    after = _scores([(window.actual, window.agreed(method)) for window in windows])
    return (after - before) / np.maximum(np.abs(before), SMALLEST_SCORE)


def _scores(told: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Mean over windows with anybody in them of each column's score, (1 + k,), of actual and predicted (n, 1 + k)."""
    scored = [
        [score(came, each) for came, each in zip(actual.T, predicted.T, strict=True)]
        for actual, predicted in told
        if len(actual)
    ]
    return np.mean(scored, axis=0) if scored else np.zeros(told[0][0].shape[1])


def _agree(window: ToldWindow) -> bool:
    total, sums = window.predicted[:, 0], window.predicted[:, 1:].sum(axis=1)
    return bool((np.abs(total - sums) <= ROUNDING * np.maximum(total, sums)).all())


def _noise(best: str, methods: Sequence[Method], windows: Sequence[ToldWindow], seed: int) -> dict[str, float]:
    """Standard deviation of the lead of `best` in mean gain over each method, when customers are drawn anew.

    Paired bootstrap (Efron & Tibshirani 1993, chapter 16): the same customers for all methods and in all windows.
    """
    rng = np.random.default_rng(seed)
    n = 1 + max(int(window.customer.max(initial=0)) for window in windows)
    before = np.maximum(np.abs(_scores([(window.actual, window.predicted) for window in windows])), SMALLEST_SCORE)
    agreed = {method["name"]: [window.agreed(method) for window in windows] for method in methods}
    leads: dict[str, list[float]] = {name: [] for name in agreed}
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, n, n), minlength=n)
        rows = [np.repeat(np.arange(len(window.customer)), times[window.customer]) for window in windows]
        came = [window.actual[each] for window, each in zip(windows, rows, strict=True)]
        told = {name: [one[each] for one, each in zip(tells, rows, strict=True)] for name, tells in agreed.items()}
        gained = {name: (_scores(list(zip(came, each, strict=True))) / before).mean() for name, each in told.items()}
        for name in agreed:
            leads[name].append(float(gained[best] - gained[name]))
    return {name: float(np.std(each, ddof=1)) for name, each in leads.items()}
