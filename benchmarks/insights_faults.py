"""What requests for a customer's value get while the language model's endpoint fails in every way that can be thought of.

`python -m benchmarks.insights_faults [--requests N] [--connections N] [--budget SECONDS] [--models DIR] [--write]`

An OpenAI-compatible server in a process of its own (tests/openai_server.py) answers well, late, wrongly or not at all. For each
way, a fresh web process (gunicorn, one process with its eight threads, warm) is sent different requests to POST
/predict_customer_value; then the same app in this process, with a breaker that never opens, so that every single request meets
the fault. Every answer is compared with the one that a service without a language model gives. Exit status 1: an answer that was
not 200, another prediction, a wrong insight_source, or a p99 over the budget + 50 ms. --write makes docs/insights_faults.md.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from itertools import count
from pathlib import Path
from threading import local
from typing import Any

import requests

from benchmarks.insights_faults_page import Fault, Row, is_fine, page, render
from benchmarks.service_under_test import PROJECT, free_of_settings
from config import VARIABLES, load_settings
from running.ports import LOOPBACK, free_port
from services.circuit_breaker import CircuitBreaker
from tests.ml_pipeline.toy_models import write_toy_pair
from tests.openai_server import OpenAIServer

PAGE = PROJECT / "docs" / "insights_faults.md"
ROUTE = "/predict_customer_value"
WORDED = ("insight", "recommended_action", "insight_source")
START_SECONDS = 60.0
WARMING = 16
SOMEWHERE_ELSE = 50_000
"""Where the requests begin that warm up: they are others than those that are measured."""
NOBODY = "nobody"
"""No mode of the server: the address where nobody listens."""


class NeverOpens(CircuitBreaker):
    """Hears of no failure."""

    def failed(self, rest_seconds: float = 0.0) -> None:
        """Lets the next one in all the same."""


Answer = tuple[int, Mapping[str, Any]]
Ask = Callable[[Mapping[str, Any]], Answer]


def faults(budget: float) -> tuple[Fault, ...]:
    """Every way in which the endpoint answers, the good ones first."""
    late, soon = 3 * budget, 0.3 * budget
    return (
        Fault("answers at once", "answers", {}, is_good=True),
        Fault(f"answers after {soon:.1f} s", "slow", {"seconds": soon}, is_good=True),
        Fault("thinks aloud, puts its JSON into a fence", "fenced", {}, is_good=True),
        Fault("refuses JSON mode with 400", "without_options", {}, is_good=True),
        Fault(f"answers after {late:.1f} s", "slow", {"seconds": late}),
        Fault("text that is no JSON", "malformed", {}),
        Fault("body that is no JSON", "broken_body", {}),
        Fault("invents a number", "invents", {}),
        Fault("429", "rate_limited", {}),
        Fault("429, Retry-After: 30", "rate_limited", {"seconds": 30}),
        Fault("500", "error", {"status": 500}),
        Fault("401", "error", {"status": 401}),
        Fault("200 with a page of HTML", "wrong_type", {}),
        Fault("32 MB", "huge", {}),
        Fault("resets the connection", "drops", {}),
        Fault("breaks off in the body", "drops_halfway", {}),
        Fault("takes the request, sends nothing", "hangs", {}),
        Fault("drips the body for ever", "drips", {}),
        Fault("drips the head for ever", "drips_head", {}),
        Fault("nobody listens", NOBODY, {}),
    )


def bodies(n: int, first: int = 0) -> list[dict[str, Any]]:
    """Different requests, so that no answer is known from before; the same for every way."""
    return [
        {"customer_id": str(10_000 + each), "features": [345.7 + each, 49.3, 7 + each % 5, 12, 5, 4 + each % 60]}
        for each in range(first, first + n)
    ]


@contextmanager
def web(folder: Path, models: Path, settings: Mapping[str, str]) -> Iterator[Ask]:
    """One web process that is ready, and how to ask it; ended at the end."""
    port = free_port()
    environment = {**dict.fromkeys(VARIABLES, ""), **_settings(folder, models), **settings, "PORT": str(port)}
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--no-control-socket",
        "--workers",
        "1",
        "--bind",
        f"{LOOPBACK}:{port}",
    ]
    with (folder / "web.log").open("ab") as words:
        process = subprocess.Popen(
            [*command, "app:create_app()"],
            cwd=PROJECT,
            env={**free_of_settings(), **environment},
            stdout=words,
            stderr=words,
        )
    try:
        url = f"http://{LOOPBACK}:{port}"
        _await_ready(url)
        yield _asker(url)
    finally:
        process.terminate()
        process.wait(60)


def _settings(folder: Path, models: Path) -> dict[str, str]:
    return {
        "MODELS_DIR": str(models),
        "VAR_DIR": str(folder / "var"),
        "REDIS_URL": f"redis://{LOOPBACK}:9/0",  # nothing here needs the queue
        "LOG_LEVEL": "WARNING",
    }


def _await_ready(url: str) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            if requests.get(f"{url}/health/ready", timeout=5).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise SystemExit(f"The web process was not ready after {START_SECONDS:g} s.")


def _asker(url: str) -> Ask:
    sessions = local()

    def ask(body: Mapping[str, Any]) -> Answer:
        if not hasattr(sessions, "session"):
            sessions.session = requests.Session()
        answer = sessions.session.post(f"{url}{ROUTE}", json=body, timeout=60)
        return answer.status_code, answer.json()

    return ask


def in_process(folder: Path, models: Path, settings: Mapping[str, str]) -> Ask:
    """The same app in this process, whose breaker never opens."""
    from app import create_app
    from services.bootstrap import build_services
    from services.language_model import LanguageModel
    from tests.conftest import ListQueue

    read = load_settings({**_settings(folder, models), **settings})
    model = LanguageModel(read)
    model._breaker = NeverOpens(1, 0.0)
    app = create_app(read, build_services(read, ListQueue(), language_model=model))

    def ask(body: Mapping[str, Any]) -> Answer:
        answer = app.test_client().post(ROUTE, json=body)
        return answer.status_code, answer.get_json()

    return ask


def measure(ask: Ask, asked: Sequence[Mapping[str, Any]], connections: int) -> list[tuple[float, Answer]]:
    """Seconds and answer of each request, so many at a time."""

    def timed(body: Mapping[str, Any]) -> tuple[float, Answer]:
        started = time.perf_counter()
        answer = ask(body)
        return time.perf_counter() - started, answer

    with ThreadPoolExecutor(connections) as pool:
        return list(pool.map(timed, asked))


def _predictions(measured: Sequence[tuple[float, Answer]]) -> list[dict[str, Any]]:
    return [{name: each for name, each in answer.items() if name not in WORDED} for _s, (_status, answer) in measured]


def _row(
    fault: Fault,
    measured: Sequence[tuple[float, Answer]],
    right: Sequence[Mapping[str, Any]],
    budget: float,
    asked: int | None = None,
) -> Row:
    answers = [answer for _seconds, answer in measured]
    sources = [answer.get("insight_source") for _status, answer in answers]
    return Row(
        fault,
        statuses=[status for status, _answer in answers],
        right=sum(mine == theirs for mine, theirs in zip(_predictions(measured), right, strict=True)),
        by_model=sources.count("language_model"),
        by_rules=sources.count("rules"),
        seconds=sorted(seconds for seconds, _answer in measured),
        budget=budget,
        asked=asked,
    )


class Bench:
    """The runs. folder: everything that is written; models: a models folder, only read."""

    def __init__(self, folder: Path, models: Path, server: OpenAIServer, options: argparse.Namespace) -> None:
        self._folder, self._models, self._server, self._options = folder, models, server, options
        self._asked = bodies(options.requests)

    def without(self) -> list[tuple[float, Answer]]:
        """Of a service without a language model."""
        with web(self._folder, self._models, {}) as ask:
            self._warm(ask)
            return measure(ask, self._asked, self._options.connections)

    def without_in_process(self) -> list[tuple[float, Answer]]:
        """The same of the app in this process."""
        return measure(in_process(self._folder, self._models, {}), self._asked, self._options.connections)

    def over_http(self, fault: Fault, right: Sequence[Mapping[str, Any]]) -> Row:
        """Of a fresh web process."""
        self._server.does("answers")
        with web(self._folder, self._models, self._llm(fault)) as ask:
            self._warm(ask, is_worded=fault.mode != NOBODY)
            return self._measured(ask, fault, right)

    def every_one(self, fault: Fault, right: Sequence[Mapping[str, Any]]) -> Row:
        """Of the app in this process, whose breaker never opens."""
        self._server.does("answers")
        ask = in_process(self._folder, self._models, self._llm(fault))
        self._warm(ask, is_worded=fault.mode != NOBODY)
        return self._measured(ask, fault, right)

    def _measured(self, ask: Ask, fault: Fault, right: Sequence[Mapping[str, Any]]) -> Row:
        if fault.mode != NOBODY:
            self._server.does(fault.mode, **fault.how)
        measured = measure(ask, self._asked, self._options.connections)
        asked = None if fault.mode == NOBODY else len(self._server.received())
        return _row(fault, measured, right, self._options.budget, asked)

    def _llm(self, fault: Fault) -> dict[str, str]:
        url = f"http://{LOOPBACK}:9/v1" if fault.mode == NOBODY else self._server.url
        return {"LLM_BASE_URL": url, "LLM_MODEL": "stub", "LLM_BUDGET_SECONDS": str(self._options.budget)}

    def _warm(self, ask: Ask, is_worded: bool = False) -> None:
        """Model, snapshot and SDK are loaded; where nobody listens, the breaker is open by then."""
        until = time.monotonic() + START_SECONDS
        for first in count(SOMEWHERE_ELSE, WARMING):
            measured = measure(ask, bodies(WARMING, first), self._options.connections)
            if not is_worded or all(answer["insight_source"] == "language_model" for _s, (_status, answer) in measured):
                return
            if time.monotonic() > until:
                raise SystemExit(f"The language model was not asked with success within {START_SECONDS:g} s.")
            time.sleep(0.2)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every answer was right and in time; 1: not so."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, OpenAIServer() as server:
        folder = Path(name)
        models = options.models or folder / "models"
        if options.models is None:
            write_toy_pair(models, [f"C{number:05d}" for number in range(2_000)])
        bench = Bench(folder, models, server, options)
        plain = bench.without()
        right = _predictions(plain)
        same = _predictions(bench.without_in_process())
        base = _row(Fault("no language model", "", {}), plain, right, options.budget)
        tables = [
            [base, *(bench.over_http(fault, right) for fault in faults(options.budget))],
            [bench.every_one(fault, same) for fault in faults(options.budget)],
        ]
        for table in tables:
            sys.stdout.write(render(table) + "\n\n")
    if options.write:
        PAGE.write_text(page(tables[0], tables[1], options.connections, date.today()), encoding="utf-8")
        sys.stdout.write(f"Written: {PAGE.relative_to(PROJECT)}\n")
    return 0 if all(is_fine(row) for table in tables for row in table) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.insights_faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=int, default=100, help="for each way")
    parser.add_argument("--connections", type=int, default=4, help="requests at a time")
    parser.add_argument("--budget", type=float, default=1.0, help="LLM_BUDGET_SECONDS")
    parser.add_argument("--models", type=Path, help="a models folder (default: a toy pair of models)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    return parser


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
