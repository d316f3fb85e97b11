"""Models that change while requests are answered: does any fail, wait, or mix two of them?

`python -m benchmarks.hot_swap [--seconds S] [--swaps N] [--connections N] [--customers N] [--write]`

Starts the service with two web processes in a temporary folder, asks it in all ways over some connections, and meanwhile has
other pairs of bundle and snapshot serve, bad ones among them. Bundles are trained on the sample shop the first time and kept
in var/swap. Exit status 1: anything was wrong. --write puts the tables into docs/hot_swap.md.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.hot_swap_load import Answered, Load, RightAnswers, questions
from benchmarks.hot_swap_models import SwapModels, trained_models
from benchmarks.hot_swap_report import INTRODUCTION, LONGEST_CHANGE, Change, SwapReport, render
from benchmarks.service_under_test import PROJECT, WEB, ServiceUnderTest
from ml_pipeline.bundle import ServingPair
from ml_pipeline.promotion import promote

PAGE = PROJECT / "docs" / "hot_swap.md"
KEPT = PROJECT / "var" / "swap"
WEB_PROCESSES = 2
LOOK_SECONDS = 0.05
CHANGED, REFUSED = "changed over", "refused"
BY_ID = "/predict by id"


@dataclass(frozen=True)
class Plan:
    """A run: so many seconds over so many connections, with so many changes to good pairs and both bad ones in between."""

    seconds: float
    connections: int
    swaps: int


SHORT = Plan(seconds=6.0, connections=4, swaps=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    options = _options(arguments)
    plan = Plan(options.seconds, options.connections, options.swaps)
    with tempfile.TemporaryDirectory(prefix="swap-", dir=_made(KEPT)) as folder:
        models = trained_models(KEPT, Path(folder) / "models", options.customers)
        report = run_swaps(plan, models, Path(folder))
    print(render(report))
    if options.write:
        facts = {"today": date.today(), "customers": options.customers, "connections": plan.connections}
        counts = {"swaps": plan.swaps, "bad": len(models.bad)}
        PAGE.write_text(INTRODUCTION.format(**facts, **counts) + render(report), encoding="utf-8")
        print(f"Written: {PAGE.relative_to(PROJECT)}")
    return 1 if report.failures else 0


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hot_swap", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="(default: %(default)g)")
    parser.add_argument("--swaps", type=int, default=10, help="to good pairs (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=8, help="(default: %(default)s)")
    parser.add_argument("--customers", type=int, default=200_000, help="in each snapshot (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    return parser.parse_args(arguments)


def run_swaps(plan: Plan, models: SwapModels, folder: Path) -> SwapReport:
    """One run in a folder of its own; raises DidNotStart."""
    asked = questions(models.ids)
    right = RightAnswers(models, asked, folder / "alone")
    service = ServiceUnderTest(folder, models.folder, {}, n_workers=1)
    with service.running():
        _until(lambda: len(_pids(service)) == WEB_PROCESSES, 30.0)
        load = Load(service.url, asked, right, plan.connections)
        load.warm_up()
        load.start()
        marks = [_replaced(service, models.folder, load, *step) for step in _spread(plan, models, load)]
        _sleep_until(load, plan.seconds)
        seconds = load.stop()
        events = _events(service)
        health = service.health()
    changes = [
        _change(mark, following, load.answers, events)
        for mark, following in zip(marks, [*marks[1:], None], strict=True)
    ]
    problems = [] if health.get("status") == "ok" else [f"At the end /health says {json.dumps(health)[:300]}"]
    n_customers = len(models.ids)
    return SwapReport(n_customers, seconds, WEB_PROCESSES, load.answers, changes, right.differ(), problems)


@dataclass(frozen=True)
class _Mark:
    """The pointer was replaced, `at` seconds since the beginning; what is wrong with the pair, and whether /health said so."""

    at: float
    generation: int
    pair: ServingPair
    before: ServingPair
    bad: str
    seen: bool


def _spread(plan: Plan, models: SwapModels, load: Load) -> Iterator[tuple[ServingPair, ServingPair, str]]:
    """What the pointer is to name next, what answers before, and what is wrong with it; each when its time has come.

    The bad ones come when a third and two thirds of the good ones have been.
    """
    order: list[tuple[ServingPair, str]] = []
    names = list(models.bad)
    for number in range(plan.swaps):
        order.append((models.good[(number + 1) % len(models.good)], ""))
        if names and (number + 1) % max(1, plan.swaps // (len(models.bad) + 1)) == 0:
            order.append((models.bad[names[0]], names.pop(0)))
    order = order if not order[-1][1] else [*order, (models.good[0], "")]
    serving = models.good[0]
    for number, (pair, bad) in enumerate(order, 1):
        _sleep_until(load, plan.seconds * number / (len(order) + 1))
        yield pair, serving, bad
        serving = serving if bad else pair


def _sleep_until(load: Load, moment: float) -> None:
    time.sleep(max(0.0, moment - load.since_began()))


def _replaced(
    service: ServiceUnderTest, models: Path, load: Load, pair: ServingPair, before: ServingPair, bad: str
) -> _Mark:
    at = load.since_began()
    generation = promote(models, pair).generation
    seen = bool(bad) and _until(lambda: _warns(service.health(), pair), LONGEST_CHANGE)
    return _Mark(at, generation, pair, before, bad, seen)


def _warns(health: dict[str, Any], pair: ServingPair) -> bool:
    return any(f"bundle {pair.bundle_id} was refused" in warning for warning in health.get("warnings", ()))


def _until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)
    return True


def _events(service: ServiceUnderTest) -> list[dict[str, Any]]:
    """What the web processes said of their models, in order."""
    lines = service.log(WEB).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines if '"services.model_changeover"' in line]


def _pids(service: ServiceUnderTest) -> set[int]:
    return {int(event["pid"]) for event in _events(service) if event["message"] == "pair serves"}


def _change(
    mark: _Mark, following: _Mark | None, answers: Sequence[Answered], events: Sequence[Mapping[str, Any]]
) -> Change:
    """What came of one replacement."""
    until = following.at if following else float("inf")
    day = date.fromisoformat(mark.before.snapshot_id[:8]).isoformat()
    old = [
        answer.at - mark.at
        for answer in answers
        if mark.at < answer.at < until and BY_ID in answer.question
        if (answer.version, answer.as_of) == (mark.before.bundle_id, day)
    ]
    if mark.bad:
        noticed = {event["pid"]: 0.0 for event in events if _is_refusal(event, mark.pair)}
    else:
        noticed = {event["pid"]: event["seconds"] for event in events if _is_change(event, mark.generation)}
    name = mark.pair.bundle_id + (f" ({mark.bad})" if mark.bad else f", snapshot {mark.pair.snapshot_id}")
    last_old = None if mark.bad else max(old, default=0.0)
    return Change(mark.at, name, mark.bad, last_old, list(noticed.values()), mark.seen)


def _is_refusal(event: Mapping[str, Any], pair: ServingPair) -> bool:
    return event["message"] == REFUSED and event.get("bundle") == pair.bundle_id


def _is_change(event: Mapping[str, Any], generation: int) -> bool:
    return event["message"] == CHANGED and event["generation"] == generation


if __name__ == "__main__":
    sys.exit(main())
