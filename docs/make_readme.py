"""Makes the numbers and outputs of README.md and other pages by doing what they describe, and notices stale ones.

`python -m docs.make_readme` makes the default sample, trains it, runs the tour, and writes the blocks between the markers.
`python -m docs.make_readme --check` compares only: a block that was edited by hand, or an accuracy table made by other
code than the one that stands here, is an error. Which code counts: what the sample and the training import, as parsed
(comments, docstrings and layout do not count), and the locked versions of the libraries that compute.
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_pipeline.model_card import (
    METRIC_TITLES,
    candidate_rows,
    render_ceiling,
    render_number,
    render_table,
    targets_of,
)
from ml_pipeline.rules import RULE_BY_NAME
from ml_pipeline.wording import plain
from running.ports import free_port

PROJECT = Path(__file__).resolve().parent.parent
README = PROJECT / "README.md"
PAGES = (README, PROJECT / "docs" / "reasons.md")
DECIDING = ("sample_data", "train")
SILENT = {
    "card_sections",
    "card_text",
    "command",
    "contest",
    "data_report",
    "errors",
    "known_limits",
    "model_card",
    "plots",
    "progress",
    "promotion",
}
COMPUTING = ("xgboost-cpu", "lightgbm", "scikit-learn", "numpy", "scipy", "duckdb", "ibis-framework")
CODE_BOUND = ("accuracy", "sample")
DOORS: Mapping[str, tuple[str, object]] = {
    "summary": (
        "/predict",
        {"customer_id": "CUST_001", "recency": 30, "frequency": 5, "monetary_value": 1500.0, "tenure": 180},
    ),
    "customer_value": ("/predict_customer_value", {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}),
}
"""Calls that describe a customer instead of naming one: path and body."""
BLOCK = re.compile(
    r"<!-- begin (?P<name>\w+): made by `make readme` \((?P<seal>[^)]*)\) -->\n(?P<body>.*?)<!-- end (?P=name) -->",
    re.DOTALL,
)


def main() -> int:
    """Makes the blocks, or says which of them are stale."""
    parser = argparse.ArgumentParser(
        description="Makes the numbers and outputs of README.md and docs/reasons.md, or checks that they are fresh."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a block is stale")
    if parser.parse_args().check:
        problems = stale_pages()
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        return 1 if problems else 0
    code = code_fingerprint()  # of what runs now, whatever is edited meanwhile
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        blocks = make_blocks(Path(folder))
    for page in PAGES:
        page.write_text(with_blocks(page.read_text("utf-8"), blocks, code), "utf-8")
    return 0


def stale_pages() -> list[str]:
    """What is wrong with the made blocks of all pages, in words; empty: nothing."""
    code = code_fingerprint()
    return [
        f"{page.relative_to(PROJECT)}: {problem}"
        for page in PAGES
        for problem in stale_blocks(page.read_text("utf-8"), code)
    ]


def stale_blocks(text: str, code: str) -> list[str]:
    """What is wrong with the made blocks of a text, in words; empty: nothing."""
    problems = [
        f"the block {block['name']!r} is stale: edited by hand, never made, or made by other code. `make readme` makes it."
        for block in BLOCK.finditer(text)
        if block["seal"] != _seal(block["name"], block["body"], code)
    ]
    if not problems and not BLOCK.search(text):
        problems.append("there are no made blocks.")
    return problems


def with_blocks(text: str, blocks: Mapping[str, str], code: str) -> str:
    """The text with every block replaced by its new content. Raises KeyError for a block that nothing makes."""

    def replaced(block: re.Match[str]) -> str:
        name, body = block["name"], blocks[block["name"]].rstrip() + "\n"
        return f"<!-- begin {name}: made by `make readme` ({_seal(name, body, code)}) -->\n{body}<!-- end {name} -->"

    return BLOCK.sub(replaced, text)


def _seal(name: str, body: str, code: str) -> str:
    seal = f"content {hashlib.sha256(body.encode()).hexdigest()[:12]}"
    return f"{seal}, code {code}" if name in CODE_BOUND else seal


def code_fingerprint() -> str:
    """Changes when code or libraries change in a way that can move a number; the same on every supported Python."""
    digest = hashlib.sha256()
    for name, tree in sorted(deciding_modules().items()):
        digest.update(f"{name}{_shape(tree)}".encode())
    locked = (PROJECT / "requirements.txt").read_text().splitlines()
    digest.update("".join(sorted(line for line in locked if line.split("==")[0] in COMPUTING)).encode())
    return digest.hexdigest()[:12]


def deciding_modules() -> dict[str, ast.Module]:
    """Every module of ml_pipeline that can move a number: what sample and training import, near or far."""
    found: dict[str, ast.Module] = {}
    waiting = list(DECIDING)
    while waiting:
        name = waiting.pop()
        if name in found or name in SILENT:
            continue
        found[name] = ast.parse((PROJECT / "ml_pipeline" / f"{name}.py").read_text("utf-8"))
        imports = [node.module for node in ast.walk(found[name]) if isinstance(node, ast.ImportFrom) and node.module]
        waiting += [module.removeprefix("ml_pipeline.") for module in imports if module.startswith("ml_pipeline.")]
    return found


def _shape(node: object) -> str:
    """A syntax tree as text, without docstrings, positions and empty fields (which differ between Pythons)."""
    if isinstance(node, list):
        return "".join(_shape(part) for part in node if not _is_docstring(part))
    if isinstance(node, ast.AST):
        inner = "".join(
            f"{field}={_shape(value)};" for field, value in ast.iter_fields(node) if value not in (None, [])
        )
        return f"{type(node).__name__}({inner})"
    return repr(node)


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def make_blocks(folder: Path) -> dict[str, str]:
    """Every block of the README, by doing it: the tour on a first run, then a full training on the same tables."""
    places = {"DATA_DIR": folder / "tables", "MODELS_DIR": folder / "models", "VAR_DIR": folder / "var"}
    places["DATA_DIR"].mkdir()
    port = free_port()
    with running_service(places, port) as welcome:
        tour = tour_blocks(welcome, folder, port)
    models = folder / "full"
    pipeline = [
        sys.executable,
        "ml_pipeline/run_pipeline.py",
        "--data",
        str(places["DATA_DIR"]),
        "--models",
        str(models),
    ]
    pipeline += ["--truth", str(places["VAR_DIR"] / "sample_truth"), "--work", str(folder / "work")]
    subprocess.run([*pipeline, "--profile", "full"], cwd=PROJECT, check=True)
    bundle = models / "versions" / json.loads((models / "current.json").read_text())["bundle"]
    metadata = json.loads((bundle / "metadata.json").read_text())
    backtest = json.loads((bundle / "backtest.json").read_text())
    ceiling = json.loads((bundle / "ceiling.json").read_text())
    return {**tour, "accuracy": accuracy_block(metadata, backtest, ceiling), "sample": sample_block(metadata)}


@contextmanager
def running_service(places: Mapping[str, Path], port: int) -> Iterator[list[str]]:
    """`python run.py` in folders of its own; the lines it says until it serves."""
    environment = {
        **os.environ,
        **{name: str(path) for name, path in places.items()},
        "PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }
    command = [sys.executable, "run.py"]
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = []
        for line in process.stdout:
            said.append(line.rstrip())
            if "curl" in line and "/bulk/download/" in line:
                break
        else:
            raise SystemExit("run.py ended before it served:\n" + "\n".join(said))
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate()


def tour_blocks(welcome: list[str], folder: Path, port: int) -> dict[str, str]:
    """What run.py said, and the three commands that it printed, each with its answer."""
    predict, upload, download = [line.strip() for line in welcome if line.strip().startswith("curl")]
    said = [
        line
        for line in welcome
        if line.startswith(("No ", "Learning", "Starting", "Serving", "  API", "  Docs", "  Health"))
    ]
    blocks = {
        "first_run": _console(["$ make run", *said]),
        "predict": _console(
            [f"$ {predict} | python3 -m json.tool", _shell(f"{predict} | {sys.executable} -m json.tool")]
        ),
        "explain": explain_block(predict),
        "upload": _console([f"$ {upload} | python3 -m json.tool", _shell(f"{upload} | {sys.executable} -m json.tool")]),
        "download": _console([f"$ {download}", _shell(download)]),
        **{name: door_block(port, path, body) for name, (path, body) in DOORS.items()},
    }
    return {name: _as_at_home(block, folder, port) for name, block in blocks.items()}


def door_block(port: int, path: str, body: object) -> str:
    """A request in JSON and its answer."""
    request = f"curl -s http://127.0.0.1:{port}{path} -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    return _console(
        [f"$ {request} | python3 -m json.tool", _shell(f"{request} | {sys.executable} -m json.tool --no-ensure-ascii")]
    )


def explain_block(predict: str) -> str:
    """The same request with ?explain=true, and the reasons for the total as a table."""
    request = re.sub(r"(http\S+/predict)", r'"\1?explain=true"', predict)
    explanation = json.loads(_shell(request))["explanation"]
    rows = [["baseline", "", f"{explanation['baseline']:,.2f}"]]
    rows += [[each["theme"], each["words"], f"{each['amount']:+,.2f}"] for each in explanation["reasons"]]
    if explanation["adjustment"]:
        rows.append(["adjustment", "", f"{explanation['adjustment']:+,.2f}"])
    rows.append(["**prediction**", "", f"**{explanation['prediction']:,.2f}**"])
    lines = [
        "| | words | " + explanation["currency"] + " |",
        "|---|---|---:|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return f"{_console([f'$ {request}'])}\n" + "\n".join(lines) + "\n"


def _console(lines: list[str]) -> str:
    return "```console\n" + "\n".join(line.rstrip() for line in lines) + "\n```\n"


def _shell(command: str) -> str:
    return subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    ).stdout.rstrip()


def _as_at_home(block: str, folder: Path, port: int) -> str:
    """Folders and port as a reader has them who changed nothing."""
    places = {f"{folder}/tables": "pymind_dataset", f"{folder}/models": "models", f"{folder}/var": "var"}
    for here, there in places.items():
        block = block.replace(here, there)
    return block.replace(f":{port}", ":5000")


def accuracy_block(metadata: Mapping[str, Any], backtest: Mapping[str, Any], ceiling: Mapping[str, Any]) -> str:
    """The total with every candidate, the ceiling, then per target the best simple rule beside what serves."""
    windows = ", ".join(backtest["report_days"])
    total = render_table(["total spend", *METRIC_TITLES.values()], candidate_rows(backtest["targets"]["total"], "all"))
    header = ["target", "", *METRIC_TITLES.values()]
    rows = []
    for target in targets_of(metadata["targets"]):
        contest = backtest["targets"][target]
        rule = next(candidate for candidate in contest["candidates"] if candidate["name"] == contest["best_rule"])
        for title, metrics in (
            (f"best rule: {RULE_BY_NAME[rule['name']].title}", rule["metrics"]["all"]),
            (f"served: {plain(contest['served'])}", contest["reconciled"]["all"]),
        ):
            rows.append([target, title, *(render_number(metrics.get(name)) for name in METRIC_TITLES)])
    return (
        f"Windows that chose nothing ({windows}), every customer with a purchase before the window, money in "
        f"{metadata['currency']}.\n\n{total}\n\n{render_ceiling(ceiling)}\n\nPer target:\n\n{render_table(header, rows)}\n"
    )


def sample_block(metadata: Mapping[str, Any]) -> str:
    """What the full profile learned from."""
    trained = metadata["trained_on"]
    return (
        f"{trained['observations']:,} observations ({trained['customers']:,} customers on {trained['as_of_days']} days), "
        f"{len(metadata['features'])} features, {len(metadata['targets'])} targets beside the total.\n"
    )


if __name__ == "__main__":
    if shutil.which("curl") is None:
        sys.exit("make_readme.py needs curl.")
    sys.exit(main())
