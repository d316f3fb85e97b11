"""The tables of the faults of a language model's endpoint, and the page around them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

GRACE_SECONDS = 0.05
"""Beyond the budget, at p99, for everything else that a request takes."""
INTRODUCTION = """# Insights while the language model fails

Made by `make faults` (`python -m benchmarks.insights_faults --write`) on {today}.

A real OpenAI-compatible server in a process of its own answers well, late, wrongly or not at all; the service is sent {requests}
different requests to `POST /predict_customer_value` for each way, {connections} at a time, with `LLM_BUDGET_SECONDS={budget:g}`
(4 by default). Wanted: every answer a 200; every prediction that of a service without a language model; `insight_source`
`language_model` where the endpoint answers well in time, `rules` elsewhere; p99 of the whole request at most the budget
+ {grace:.0f} ms. `reached it`: calls that came to the endpoint, repeated ones included. {verdict}

## As it is

A fresh web process for each way (gunicorn, one process with eight threads, warm): after three failures in a row the breaker opens,
and rules answer without asking.

"""
EVERY_ONE = """

## Every single request meets the fault

The same app within the measuring process, with a breaker that never opens: what the first requests after each rest get.

"""


@dataclass(frozen=True)
class Fault:
    """A way of the endpoint to answer. is_good: it answers well, and in time."""

    label: str
    mode: str
    how: Mapping[str, Any]
    is_good: bool = False


@dataclass(frozen=True)
class Row:
    """What came of one way. seconds: of each request, ascending; right: answers with the prediction that they should have.

    asked: calls that came to the endpoint, repeated ones too; None where there is none to count them.
    """

    fault: Fault
    statuses: Sequence[int]
    right: int
    by_model: int
    by_rules: int
    seconds: Sequence[float]
    budget: float
    asked: int | None = None

    def quantile_ms(self, share: float) -> float:
        """The nearest rank's."""
        rank = max(1, -(-round(share * 1000) * len(self.seconds) // 1000))
        return 1000 * self.seconds[rank - 1]


def is_fine(row: Row) -> bool:
    """Whether everything that is wanted holds."""
    n = len(row.statuses)
    is_right_source = row.by_model == n if row.fault.is_good else row.by_rules == n
    is_in_time = row.quantile_ms(0.99) <= 1000 * (row.budget + GRACE_SECONDS)
    return set(row.statuses) == {200} and row.right == n and is_right_source and is_in_time


def render(rows: Sequence[Row]) -> str:
    """The table."""
    head = "| endpoint | requests | reached it | 200 | same prediction | language_model | rules | p50 ms | p99 ms | limit ms | fine |"
    line = "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    return "\n".join([head, line, *map(_line, rows)])


def _line(row: Row) -> str:
    cells = (
        row.fault.label,
        len(row.statuses),
        "" if row.asked is None else row.asked,
        Counter(row.statuses)[200],
        row.right,
        row.by_model,
        row.by_rules,
        f"{row.quantile_ms(0.5):,.0f}",
        f"{row.quantile_ms(0.99):,.0f}",
        f"{1000 * (row.budget + GRACE_SECONDS):,.0f}",
        "yes" if is_fine(row) else "NO",
    )
    return f"| {' | '.join(map(str, cells))} |"


def page(as_it_is: Sequence[Row], every_one: Sequence[Row], connections: int, today: date) -> str:
    """docs/insights_faults.md."""
    rows = [*as_it_is, *every_one]
    wrong = sum(not is_fine(row) for row in rows)
    verdict = (
        "It holds for every row below." if not wrong else f"It does NOT hold for {wrong} of the {len(rows)} rows below."
    )
    first = as_it_is[0]
    introduction = INTRODUCTION.format(
        today=today,
        requests=len(first.statuses),
        connections=connections,
        budget=first.budget,
        grace=1000 * GRACE_SECONDS,
        verdict=verdict,
    )
    return f"{introduction}{render(as_it_is)}{EVERY_ONE}{render(every_one)}\n"
