"""Numbers, names and tables as people read them, in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_pipeline.schema import OTHER_TARGET, TOTAL_TARGET


def render_number(value: float | None) -> str:
    """A metric for people: '–' where it is not defined."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"


def render_share(value: float | None) -> str:
    """A share in per cent: '–' where it is not defined."""
    return "–" if value is None else f"{value:.1%}"


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns after the first are numbers; a bar or a line break in a cell does not end it."""
    lines = [" | ".join(header), " | ".join(["---", *["---:"] * (len(header) - 1)])]
    lines += [" | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def shown_targets(by_target: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of a report that are shown, the total first: without named targets the rest is the total itself."""
    alone = set(by_target) == {TOTAL_TARGET, OTHER_TARGET}
    return (TOTAL_TARGET,) if alone else tuple(by_target)
