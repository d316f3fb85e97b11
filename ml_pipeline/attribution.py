"""The algebra of reasons: how what moved the parts of a number becomes what moved the number.

Every number is held beside a baseline, the same for all customers, and the logarithm of number / baseline is split over
the features. Products, powers and geometric means then only add what their factors say. Sums go through money: a part of
a logarithm is worth L(number, baseline) times itself, L the logarithmic mean, and no remainder is left (Ang & Liu 2001,
"A new energy decomposition method: perfect in decomposition and consistent in aggregation"; for zeros a very small
number, Ang & Liu 2007). Whatever changes a number without looking at the customer again (a link, a calibration, a floor)
stretches its reasons evenly: the rescale rule of DeepLIFT (Shrikumar et al. 2017).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Scale = Literal["log", "logit", "money"]

SMALLEST = 1e-30
"""Stands for 0 where a logarithm is needed; far enough below a cent that no mean with it can reach one."""
ALIKE = 1e-12
"""Logarithms this near to each other are equal."""
STEPS = 16
"""Points on the way from the baseline to the customer where a step without a formula of its own is differentiated."""


@dataclass(frozen=True)
class Contributions:
    """A model's number taken apart on the scale on which its parts add up: base + Σ parts (n, F), base for all alike.

    log: the logarithm of money; logit: of a probability; money: money that may still fall below 0.
    """

    scale: Scale
    base: float
    parts: FloatArray

    @property
    def sums(self) -> FloatArray:
        """The number on its scale, (n,)."""
        return self.base + self.parts.sum(axis=1)


@dataclass(frozen=True)
class Attributed:
    """A number > 0 and its reasons: logs (n, F) add up to ln value (n,) - ln baseline."""

    value: FloatArray
    baseline: float
    logs: FloatArray

    @property
    def distance(self) -> FloatArray:
        """ln value - ln baseline, (n,)."""
        return np.log(self.value) - np.log(self.baseline)

    @property
    def money(self) -> FloatArray:
        """The reasons in the unit of the value, (n, F); they add up to value - baseline."""
        return log_mean(self.value, self.baseline)[:, None] * self.logs


def log_mean(value: FloatArray, baseline: float) -> FloatArray:
    """L(v, b) = (v - b) / ln(v / b), (n,), for v, b > 0; b where they are equal."""
    distance = np.log(value) - np.log(baseline)
    alike = np.abs(distance) < ALIKE
    return baseline * np.where(alike, 1.0, np.expm1(distance) / np.where(alike, 1.0, distance))


def positive(value: FloatArray) -> FloatArray:
    """The same with a very small number for what is not above 0."""
    return np.maximum(value, SMALLEST)


def of_money(value: FloatArray, baseline: float, parts: FloatArray) -> Attributed:
    """A value (n,) ≥ 0 whose reasons are known as money (n, F) that adds up to value - baseline."""
    kept, base = positive(value), max(baseline, SMALLEST)
    return Attributed(kept, base, parts / log_mean(kept, base)[:, None])


def of_contributions(found: Contributions) -> Attributed:
    """Money ≥ 0 from a model's contributions on the scale of money or its logarithm."""
    if found.scale == "log":
        return Attributed(np.exp(found.sums), float(np.exp(found.base)), found.parts)
    if found.scale == "money":
        value, base = positive(found.sums), max(found.base, SMALLEST)
        kept = rescale(found.sums - found.base, value - base)  # what the floor leaves of them
        return of_money(value, base, found.parts * kept[:, None])
    raise ValueError(f"Contributions on the scale {found.scale!r} are not money: give them a link.")


def of_logit(found: Contributions, probability_of: Callable[[FloatArray], FloatArray]) -> Attributed:
    """A probability from contributions to a logit; probability_of: logit (n,) → the probability that serves (n,)."""
    if found.scale != "logit":
        raise ValueError(f"Contributions on the scale {found.scale!r} are no logit: they give no probability.")
    value, base = probability_of(found.sums), float(probability_of(np.array([found.base]))[0])
    stretch = rescale(found.sums - found.base, np.log(value) - np.log(base))
    return Attributed(value, base, found.parts * stretch[:, None])


def rescale(before: FloatArray, after: FloatArray) -> FloatArray:
    """The factor (n,) that turns reasons adding up to `before` into reasons adding up to `after`; 1 where both are 0."""
    alike = np.abs(before) < ALIKE
    return np.where(alike, 1.0, after / np.where(alike, 1.0, before))


def carried(number: Attributed, through: Callable[[FloatArray], FloatArray]) -> Attributed:
    """A number after a function of itself alone, (n,) → (n,) ≥ 0: the same reasons, stretched evenly."""
    value = positive(through(number.value))
    base = max(float(through(np.array([number.baseline]))[0]), SMALLEST)
    stretch = rescale(number.distance, np.log(value) - np.log(base))
    return Attributed(value, base, number.logs * stretch[:, None])


def product(numbers: Sequence[Attributed], powers: Sequence[float] | None = None) -> Attributed:
    """Π number ^ power, power 1 unless told: the logarithms add up, so do the reasons."""
    exponents = powers or [1.0] * len(numbers)
    value, base = np.ones(len(numbers[0].value)), 1.0
    logs = np.zeros(numbers[0].logs.shape)
    for number, power in zip(numbers, exponents, strict=True):
        value = value * np.power(number.value, power)
        base *= number.baseline**power
        logs += power * number.logs
    return Attributed(value, base, logs)


def geometric(numbers: Sequence[Attributed]) -> Attributed:
    """The geometric mean."""
    return product(numbers, [1 / len(numbers)] * len(numbers))


def total(numbers: Sequence[Attributed]) -> Attributed:
    """The sum: the reasons add up in money."""
    value, base = np.zeros(len(numbers[0].value)), 0.0
    money = np.zeros(numbers[0].logs.shape)
    for number in numbers:
        value = value + number.value
        base += number.baseline
        money += number.money
    return of_money(value, base, money)


def arithmetic(numbers: Sequence[Attributed]) -> Attributed:
    """The arithmetic mean."""
    whole = total(numbers)
    return Attributed(whole.value / len(numbers), whole.baseline / len(numbers), whole.logs)


def split(value: FloatArray, baseline: float, weights: FloatArray) -> Attributed:
    """A number (n,) ≥ 0 that hangs on several features at once: each gets its weight (n, F) of the logarithm, Σ = 1."""
    kept, base = positive(value), max(baseline, SMALLEST)
    return Attributed(kept, base, (np.log(kept) - np.log(base))[:, None] * weights)


def scaled_to(numbers: Sequence[Attributed], whole: Attributed) -> list[Attributed]:
    """Parts made to add up to a whole in the proportions that they have: part × whole / Σ parts."""
    parts_sum = total(numbers)
    return [product([number, whole, parts_sum], [1.0, 1.0, -1.0]) for number in numbers]


def through_any(numbers: Sequence[Attributed], step: Callable[[FloatArray], FloatArray]) -> list[FloatArray]:
    """The reasons in money, one (n, F) per output, after any function of k numbers at once, (n, k) → (n, k').

    Each number gets what the function gains by it on the straight way from all baselines to the customer's values
    (integrated gradients, Sundararajan et al. 2017), by numerical derivatives. What they miss, as where the function
    jumps, is spread by size (by how far each number moved where none gained anything), so that the reasons of an output
    add up to its value minus its baseline. A number hands its gain to its features as it got it from them.
    """
    values = np.column_stack([number.value for number in numbers])
    start = np.array([number.baseline for number in numbers])
    slopes = _mean_slopes(values, start, step)  # (n, k, k')
    moves = (values - start)[:, :, None]
    gains = slopes * moves
    missed = (step(values) - step(start[None, :]) - gains.sum(axis=1))[:, None, :]
    sizes = np.where(np.abs(gains).sum(axis=1, keepdims=True) > 0, np.abs(gains), np.abs(moves))
    of_all = sizes.sum(axis=1, keepdims=True)
    gains = gains + missed * np.divide(sizes, of_all, out=np.zeros_like(sizes), where=of_all > 0)
    kept = np.divide(gains, moves, out=slopes, where=moves != 0)  # per unit that the number moved
    found = [np.zeros(numbers[0].logs.shape) for _ in range(kept.shape[2])]
    for index, number in enumerate(numbers):
        money = number.money
        for output, reasons in enumerate(found):
            reasons += kept[:, index, output, None] * money
    return found


def _mean_slopes(values: FloatArray, start: FloatArray, step: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """The mean derivative of each output by each number on the straight way there, (n, k, k'), by central differences."""
    n, k = values.shape
    sums: FloatArray | None = None
    for point in (np.arange(STEPS) + 0.5) / STEPS:
        at = start + point * (values - start)
        moves = np.eye(k)[None, :, :] * (1e-5 * at.sum(axis=1))[:, None, None]
        high, low = at[:, None, :] + moves, np.maximum(at[:, None, :] - moves, 0.0)
        gained, lost = (step(ends.reshape(n * k, k)).reshape(n, k, -1) for ends in (high, low))
        slopes = (gained - lost) / (high - low).sum(axis=2)[:, :, None]
        sums = slopes if sums is None else sums + slopes
    assert sums is not None
    return sums / STEPS
