"""Thousands of requests made from the API's own document, good ones and bad ones, and whether every answer keeps to it.

`python -m benchmarks.api_fuzz [--examples 200] [--seed N] [--write]`

Starts the whole service (web, two workers, Redis) in a temporary folder with a small model and without tables, and has
Schemathesis (schemathesis.readthedocs.io) send what `/openapi.json` allows and what it forbids: the documented examples, the
edges of every schema, random values, and calls in a row that hand on each other's ids. Exit status 1: an answer was a server
error, had a status or a type of content that is not documented, broke its schema, or a method that is not offered was taken.
--write puts the table into docs/api_fuzz.md.
"""

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.service_under_test import PROJECT, ServiceUnderTest, free_of_settings
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.ml_pipeline.summary_boosters import summary_members

PAGE = PROJECT / "docs" / "api_fuzz.md"
LEAST_REQUESTS = 5_000
SEED = 20_261_120
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
)
EVENTS = "/bulk/events"
"""An answer that lasts as long as its job; it is asked for by ids that are nobody's, and takes no part in rows of calls."""
CUSTOMERS = [*(f"C{number:05}" for number in range(40)), "12345", "67890"]
SETTINGS = {"FLASK_ENV": "testing", "MAX_JOBS_PER_CALLER": "40", "LOG_LEVEL": "WARNING"}

INTRODUCTION = """# Requests made from the API's own document

Made by `make fuzz` (`python -m benchmarks.api_fuzz --write`) on {today}; it can be run again by anyone, with `--seed` for
other requests.

Schemathesis {version} sends what `/openapi.json` allows and what it forbids to the whole service (web with two processes, two
workers, Redis; a small model, no tables to train on): the documented examples, the edges of every schema, random values, and
calls in a row that hand on each other's ids. A server error is any status from 500 on, 503 included.

"""


@dataclass
class Fuzzing:
    """What was sent and what was wrong. statuses: (operation, status) -> answers; faults: (operation, check, words)."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    version: str = ""

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.statuses.total()

    def add(self, recorder: Mapping[str, Any]) -> None:
        """What a scenario of Schemathesis has recorded."""
        cases = {case_id: _operation(recorder, case["value"]) for case_id, case in recorder.get("cases", {}).items()}
        for case_id, exchange in recorder.get("interactions", {}).items():  # absent where nothing was sent
            answer = exchange.get("response")
            self.statuses[cases[case_id], answer["status_code"] if answer else 0] += 1
            if answer is None:
                self.faults.append((cases[case_id], "no answer", exchange["request"]["uri"]))
        for case_id, checks in recorder.get("checks", {}).items():
            words = _words(recorder["interactions"].get(case_id, {}))
            self.faults += [(cases[case_id], check["name"], words) for check in checks if check["status"] != "success"]


def _operation(recorder: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    """What is tested; of a row of calls, each call. A method that is not offered belongs to the operation that it is tried at."""
    label = str(recorder["label"])
    return label if " /" in label else f"{case['method']} {case['path']}"


def fuzz(url: str, folder: Path, examples: int, seed: int = SEED) -> Fuzzing:
    """Sends up to so many random requests per operation, besides examples and edges, to the service at `url`.

    folder: where Schemathesis puts its report. Raises RuntimeError when it could not begin.
    """
    found = Fuzzing()
    everything = ("--exclude-path-regex", EVENTS, "--phases", "examples,coverage,fuzzing,stateful")
    events = ("--include-path-regex", EVENTS, "--phases", "examples,coverage,fuzzing")
    for number, chosen in enumerate((everything, events)):
        report = folder / f"schemathesis-{number}.ndjson"
        said = subprocess.run(
            _command(url, report, examples, seed, chosen), **_QUIET, cwd=folder, env=free_of_settings()
        )
        for event, content in _events(report):
            if event == "Initialize":
                found.version = content["schemathesis_version"]
            elif event == "ScenarioFinished":
                found.add(content["recorder"])
        if said.returncode not in (0, 1) or not found.statuses:
            raise RuntimeError(f"Schemathesis ended with {said.returncode}: {said.stdout[-2000:]}")
    return found


_QUIET: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "check": False}


def _command(url: str, report: Path, examples: int, seed: int, chosen: Sequence[str]) -> list[str]:
    program = str(Path(sys.executable).parent / "schemathesis")
    options = ["--max-examples", str(examples), "--seed", str(seed), "--checks", ",".join(CHECKS)]
    quiet = [
        "--no-color",
        "--continue-on-failure",
        "--no-shrink",
        "--generation-database",
        "none",
        "--request-timeout",
        "20",
    ]
    written = ["--report", "ndjson", "--report-ndjson-path", str(report)]
    return [program, "run", f"{url}/openapi.json", *chosen, *options, *quiet, *written]


def _events(report: Path) -> Iterator[tuple[str, Any]]:
    if report.is_file():
        for line in report.read_text("utf-8").splitlines():
            yield from json.loads(line).items()


def _words(exchange: Mapping[str, Any]) -> str:
    """Request and answer, to be looked at again."""
    request, answer = exchange.get("request") or {}, exchange.get("response") or {}
    sent, came = (_text(part.get(name)) for part, name in ((request, "body"), (answer, "content")))
    return f"{request.get('method')} {request.get('uri')} {sent} -> {answer.get('status_code')} {came}"


def _text(body: Any) -> str:
    content = body.get("$base64", "") if isinstance(body, Mapping) else body or ""
    return base64.b64decode(content).decode("utf-8", "replace")[:600]


def render(found: Fuzzing) -> str:
    """A table of operations and statuses, and what was wrong."""
    operations = sorted({operation for operation, _status in found.statuses})
    lines = ["| operation | requests | answers by status | wrong |", "|---|---:|---|---:|"]
    for operation in operations:
        by_status = sorted((status, count) for (name, status), count in found.statuses.items() if name == operation)
        wrong = sum(name == operation for name, _check, _said in found.faults)
        told = ", ".join(f"{status}: {count:,}" for status, count in by_status)
        lines.append(f"| `{operation}` | {sum(count for _status, count in by_status):,} | {told} | {wrong} |")
    by_check = Counter(check for _operation, check, _said in found.faults)
    lines += [
        f"| **{len(operations)} operations** | **{found.requests:,}** | | **{len(found.faults)}** |",
        "",
        "| what may not be | found |",
        "|---|---:|",
        *(f"| {name} | {by_check[name]} |" for name in (*CHECKS, *sorted(set(by_check) - set(CHECKS)))),
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.api_fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=200, help="random requests per operation, at most")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(PROJECT)}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        found = fuzz_service(folder, options.examples, options.seed)
    print(render(found))
    for fault in found.faults[:40]:
        print(*fault, sep=" | ")
    if options.write:
        if found.requests < LEAST_REQUESTS:
            parser.error(f"the page reports at least {LEAST_REQUESTS:,} requests; these were {found.requests:,}")
        text = INTRODUCTION.format(today=date.today().isoformat(), version=found.version) + render(found) + "\n"
        PAGE.write_text(text, "utf-8")
    return 1 if found.faults else 0


def fuzz_service(folder: Path, examples: int, seed: int = SEED) -> Fuzzing:
    """A service of its own below `folder`, fuzzed."""
    models, tables = folder / "models", folder / "tables"
    tables.mkdir()
    write_booster_pair(models, CUSTOMERS, ["never"], summary=summary_members())
    (folder / "service").mkdir()
    service = ServiceUnderTest(folder / "service", models, {**SETTINGS, "DATA_DIR": str(tables)})
    with service.running():
        return fuzz(service.url, folder, examples, seed)


if __name__ == "__main__":
    sys.exit(main())
