"""A goal as a range, and what was measured against it."""

from collections.abc import Sequence
from dataclasses import dataclass

DIGITS = 3


@dataclass(frozen=True)
class Bound:
    """At least `least`, at most `most`; met when it is met to the third digit, which is what is printed (0.1 %).

    percent: how it is printed. strict: `most` itself is not enough.
    """

    least: float | None = None
    most: float | None = None
    percent: bool = True
    strict: bool = False
    digits: int = DIGITS

    def holds(self, value: float) -> bool:
        """Whether a value is within; one that is no number is not."""
        rounded = round(float(value), self.digits)
        above = self.least is None or rounded >= self.least - 1e-12
        if self.most is None:
            return above and rounded == rounded
        return above and (rounded < self.most - 1e-12 if self.strict else rounded <= self.most + 1e-12)

    @property
    def words(self) -> str:
        """The goal as it is printed."""
        if self.least is not None and self.most is not None:
            return f"{self._bare(self.least)} to {self.show(self.most)}"
        if self.least is not None:
            return f"≥ {self.show(self.least)}"
        if not self.most:
            return self.show(0.0)
        return f"{'<' if self.strict else '≤'} {self.show(self.most)}"

    def show(self, value: float) -> str:
        """A value in the bound's unit; whole numbers and percents without a fraction stay short."""
        unit = " %" if self.percent else ""
        return f"{self._bare(value)}{unit}"

    def _bare(self, value: float) -> str:
        scaled, digits = (100 * value, self.digits - 2) if self.percent else (value, self.digits)
        text = f"{scaled:.{max(digits, 0)}f}"
        return text.rstrip("0").rstrip(".") if "." in text and float(text) == round(scaled) else text


@dataclass(frozen=True)
class Measured:
    """One figure: what it is, its goal, and the values that must all be within (none: nothing is to be judged here)."""

    figure: str
    bound: Bound
    values: Sequence[float]

    @property
    def misses(self) -> int:
        """How many values are outside of the goal."""
        return sum(not self.bound.holds(value) for value in self.values)

    @property
    def reached(self) -> bool:
        """Whether all values are within."""
        return not self.misses

    @property
    def words(self) -> str:
        """The value, or the range of the values."""
        if not len(self.values):
            return "none"
        least, most = min(self.values), max(self.values)
        low, high = self.bound.show(least), self.bound.show(most)
        return high if low == high else f"{low.removesuffix(' %')} to {high}"


def together(measured: Sequence[Measured]) -> Measured:
    """The same figure of several rows as one."""
    values = tuple(value for each in measured for value in each.values)
    return Measured(measured[0].figure, measured[0].bound, values)
