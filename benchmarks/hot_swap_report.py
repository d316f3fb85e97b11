"""What a swapping run found: the tables, and everything that is wrong in words."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.hot_swap_load import Answered

INTRODUCTION = """# Changing models under load

Made by `make swap` (`python -m benchmarks.hot_swap --write`) on {today}; it can be run again by anyone.

The service (gunicorn with two processes) knows {customers:,} customers and is asked over {connections} connections without a
pause, in all the ways there are. Meanwhile the pointer is replaced {swaps} times, by another bundle or another snapshot of the
same, and {bad} times by a bad bundle: one with a member file that was changed by a byte, one that misses its golden predictions.
Every answer is compared, number by number, with what the bundle that it names answers when it serves alone; a batch as a
whole. `make test` has a short form of it.

"""
LONGEST_CHANGE, LONGEST_SILENCE = 5.0, 1.0
WINDOW = 0.1
SHOWN = 5


@dataclass(frozen=True)
class Change:
    """One replacement of the pointer. at: seconds since the beginning. bad: what is wrong with the new pair, empty if nothing.

    last_old: when the last answer by the pair before came, in seconds after the replacement. processes: for each process that
    changed over (or refused), seconds that it took to make the pair ready. seen: whether /health warned of a bad one.
    """

    at: float
    name: str
    bad: str
    last_old: float | None
    processes: Sequence[float]
    seen: bool


@dataclass
class SwapReport:
    """One run."""

    customers: int
    seconds: float
    n_processes: int
    answers: Sequence[Answered]
    changes: Sequence[Change]
    different_questions: int
    other_problems: Sequence[str]

    @property
    def failures(self) -> list[str]:
        """What is wrong, in words."""
        wrong = [answer.wrong for answer in self.answers if answer.wrong]
        found = [f"{len(wrong):,} wrong answers, such as: {each}" for each in wrong[:SHOWN]]
        found += [problem for change in self.changes for problem in self._problems(change)]
        if self.silence() > LONGEST_SILENCE:
            found.append(f"No answer came for {self.silence():.2f} s.")
        if not self.different_questions:
            found.append("No question is answered differently by the bundles: nothing could be noticed.")
        return [*found, *self.other_problems]

    def _problems(self, change: Change) -> list[str]:
        found = []
        if len(change.processes) < self.n_processes:
            found.append(f"{change.name}: noticed by {len(change.processes)} of {self.n_processes} processes.")
        if change.bad and not change.seen:
            found.append(f"{change.name}: /health does not warn of it.")
        if change.last_old is not None and change.last_old > LONGEST_CHANGE:
            found.append(f"{change.name}: the pair before still answered after {change.last_old:.1f} s.")
        return found

    def silence(self) -> float:
        """The longest time without an answer, in seconds."""
        moments = [0.0, *sorted(answer.at for answer in self.answers), self.seconds]
        return max(later - earlier for earlier, later in pairwise(moments))

    def windows(self) -> list[int]:
        """Answers per tenth of a second."""
        counted = Counter(int(answer.at / WINDOW) for answer in self.answers)
        return [counted[number] for number in range(int(self.seconds / WINDOW))]

    def milliseconds(self, name: str | None = None) -> tuple[float, float, float]:
        """Median, 99th percentile and largest, of one question or of all."""
        taken = sorted(1000 * answer.seconds for answer in self.answers if name in (None, answer.question))
        return statistics.median(taken), taken[int(0.99 * (len(taken) - 1))], taken[-1]


def render(report: SwapReport) -> str:
    """The tables as Markdown."""
    parts = [_summary(report), _changes(report), _questions(report)]
    if report.failures:
        parts.append("## What is wrong\n\n" + "\n".join(f"- {failure}" for failure in report.failures))
    return "\n\n".join(parts) + "\n"


def _summary(report: SwapReport) -> str:
    windows, wrong = report.windows(), sum(bool(answer.wrong) for answer in report.answers)
    other = sum(not 200 <= answer.status < 300 for answer in report.answers)
    good = [change.last_old for change in report.changes if not change.bad and change.last_old is not None]
    rows = [
        ("requests", f"{len(report.answers):,} in {report.seconds:.0f} s"),
        ("answers other than 2xx, broken connections", f"{other:,}"),
        ("answers that are not what the named bundle answers", f"{wrong - other:,}"),
        ("answers per second", f"{len(report.answers) / report.seconds:,.0f}"),
        ("tenths of a second without an answer", f"{sum(count == 0 for count in windows):,} of {len(windows):,}"),
        ("longest time without an answer", f"{1000 * report.silence():.0f} ms"),
        ("answer by the pair before, at the latest", f"{max(good, default=0):.1f} s after the change"),
        ("changes to good pairs", f"{sum(not change.bad for change in report.changes)}"),
        ("bad pairs, refused by every process", f"{sum(bool(change.bad) for change in report.changes)}"),
    ]
    return _table(("what", "how many"), rows)


def _changes(report: SwapReport) -> str:
    rows = [
        (
            f"{change.at:.1f} s",
            change.name,
            "-" if change.last_old is None else f"{change.last_old:.2f} s",
            ", ".join("refused" if change.bad else f"{seconds:.2f} s" for seconds in change.processes),
        )
        for change in report.changes
    ]
    header = ("at", "the pointer names", "last answer by the pair before", "opened and checked by each process in")
    return "## Changes\n\n" + _table(header, rows)


def _questions(report: SwapReport) -> str:
    names = sorted({answer.question for answer in report.answers})
    counted = Counter(answer.question for answer in report.answers)
    rows = []
    for name in (*names, None):
        median, late, longest = report.milliseconds(name)
        many = len(report.answers) if name is None else counted[name]
        rows.append((name or "all", f"{many:,}", f"{median:.0f} ms", f"{late:.0f} ms", f"{longest:.0f} ms"))
    return "## Requests\n\n" + _table(("request", "answered", "median", "99th percentile", "longest"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
