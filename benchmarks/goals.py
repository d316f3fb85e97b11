"""What is to be reached on the public data sets, as data, and whether it is.

A goal counts as reached within half a bootstrap SD where one is stated, else only when it is met to the printed digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

BEATEN_ON = ("d2", "normalised_gini", "decile_mape")
"""On these together every peer row must be beaten."""
LOWER_IS_BETTER = frozenset({"decile_mape", "brier", "mae", "rmse"})

Scores = Mapping[str, float | None]


@dataclass(frozen=True)
class Goal:
    """One metric's goal: at least `least`, at most `most`; `sd` is the bootstrap SD of which half is allowed."""

    metric: str
    least: float | None = None
    most: float | None = None
    sd: float = 0.0
    digits: int = 3

    @property
    def words(self) -> str:
        """The goal as it is printed."""
        if self.least is not None and self.most is not None:
            return f"{self.least:.{min(self.digits, 2)}f} to {self.most:.{min(self.digits, 2)}f}"
        if self.least is not None:
            return f"≥ {self.least:.{self.digits}f}"
        return f"≤ {self.most:.{self.digits}f}"

    def reached(self, value: float | None) -> bool:
        """Whether the value is good enough; a metric that is not defined is not."""
        if value is None:
            return False
        value = round(value, self.digits)
        slack = self.sd / 2 + 1e-12
        above = self.least is None or value >= self.least - slack
        return above and (self.most is None or value <= self.most + slack)


@dataclass(frozen=True)
class Goals:
    """The goals of a data set: of total spend, and of the mean over its targets."""

    total: tuple[Goal, ...] = ()
    targets: tuple[Goal, ...] = ()


GOALS: Mapping[str, Goals] = {
    "complete_journey": Goals(
        total=(
            Goal("capped_r2", least=0.701, sd=0.016),
            Goal("d2", least=0.549, sd=0.013),
            Goal("normalised_gini", least=0.841, sd=0.008),
            Goal("decile_mape", most=0.065),
            Goal("bias", least=0.93, most=1.05),
            Goal("auc", least=0.881),
            Goal("brier", most=0.095),
        ),
        targets=(Goal("r2", least=0.56, digits=2), Goal("normalised_gini", least=0.80, digits=2)),
    ),
    "cdnow": Goals(
        total=(
            Goal("capped_r2", least=0.208, sd=0.020),
            Goal("d2", least=0.345, sd=0.016),
            Goal("normalised_gini", least=0.767, sd=0.012),
            Goal("decile_mape", most=0.24),
            Goal("bias", least=0.93, most=1.07),
            Goal("auc", least=0.845),
            Goal("brier", most=0.0486, digits=4),
        )
    ),
}
NO_GOALS = Goals()


@dataclass(frozen=True)
class Verdict:
    """What came of one goal: its words, the value, and whether it is reached."""

    goal: Goal
    value: float | None
    reached: bool


def judge(goals: tuple[Goal, ...], ours: Scores) -> list[Verdict]:
    """A verdict for each goal."""
    return [Verdict(goal, ours.get(goal.metric), goal.reached(ours.get(goal.metric))) for goal in goals]


@dataclass(frozen=True)
class Beaten:
    """Whether one peer row is beaten, metric by metric and in all of BEATEN_ON together.

    A metric that a peer cannot be held to is not among them.
    """

    by_metric: dict[str, bool] = field(default_factory=dict)

    @property
    def together(self) -> bool:
        """On D², nGini and calibration at once."""
        return all(self.by_metric.values())


def compare(ours: Scores, peer: Scores) -> Beaten:
    """Whether ours is strictly better than a peer; better than a value that is not defined, worse without one.

    The deciles of a constant are random tenths, all with the same mean: who ranks nobody is not held to calibration.
    """
    held_to = [metric for metric in BEATEN_ON if metric != "decile_mape" or peer.get("normalised_gini") != 0]
    return Beaten({metric: _better(metric, ours.get(metric), peer.get(metric)) for metric in held_to})


def _better(metric: str, ours: float | None, peer: float | None) -> bool:
    if ours is None or peer is None:
        return ours is not None
    return ours < peer if metric in LOWER_IS_BETTER else ours > peer
