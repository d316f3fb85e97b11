"""The examples of docs/bulk_api.md, pasted into one shell as they stand, against a real server with a worker."""

import json
import re
import shutil
import subprocess

import pytest

from config import ROOT, load_settings
from routes.errors import STATUS
from services.webhooks import _signature
from tests.conftest import accepts, environment_of, for_servers, free_port, wait_until

PAGE = (ROOT / "docs" / "bulk_api.md").read_text()
WRITTEN = "http://127.0.0.1:5000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.server
@pytest.mark.skipif(shutil.which("curl") is None, reason="the examples call curl")
def test_every_example_works_when_it_is_pasted(tmp_path, toy_models, redis_url, start_program):
    settings = load_settings(
        {"VAR_DIR": str(tmp_path / "var"), "MODELS_DIR": str(toy_models), "PORT": str(free_port())}
    )
    settings = for_servers(settings, redis_url)
    environ = environment_of(settings, PORT=str(settings.port))
    start_program(["gunicorn", "-w", "1", "app:create_app()"], environ)
    worker = start_program(["celery", "-A", "worker", "worker", "-c", "1"], environ)
    wait_until(lambda: accepts(settings.port) and "ready." in worker.log.read_text(), "the start of web and worker")
    pasted = "\necho; echo ==\n".join(blocks("sh")).replace(WRITTEN, f"http://127.0.0.1:{settings.port}")
    shell = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", pasted],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert shell.returncode == 0, shell.stdout + shell.stderr
    assert shell.stderr == ""
    said = shell.stdout.split("\n==\n")
    preview, upload, watched = json.loads(said[0]), json.loads(said[1]), said[2]
    assert (preview["total_rows"], upload["metadata"]["total_rows"]) == (5, 5)
    assert "event: completed" in watched
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 6
    assert (tmp_path / "predictions.xlsx").read_bytes().startswith(b"PK")
    assert "Idempotency-Replayed: true" in shell.stdout
    refused = set(re.findall(r'"error": ?"(\w+)"', shell.stdout)) - {"JobCancelled", "JobOver", "JobNotFinished"}
    assert not refused, shell.stdout


def test_the_example_of_a_receiver_knows_what_is_signed():
    (written,) = blocks("python")
    known: dict = {}
    exec(written, known)
    body = b'{"job_id": "1"}'
    signature = f"sha256={_signature('secret', '1790000000', body)}"
    assert known["is_genuine"]("secret", "1790000000", body, signature)
    assert not known["is_genuine"]("secret", "1790000001", body, signature)


def test_every_error_that_the_page_names_is_there_with_its_status():
    from routes import errors

    names = {
        name: errors.status_of(found)
        for module in (errors.pipeline, errors.services)
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, tuple(STATUS))
    }
    table = PAGE.split("## Errors")[1]
    for status, cells in re.findall(r"^\| (\d{3}) \| (.*) \|$", table, re.MULTILINE):
        for name in re.findall(r"`([A-Z]\w+)`", cells):
            if name != "RangeNotSatisfiable":
                assert names[name] == int(status), name


def test_every_call_of_a_bulk_job_is_on_the_page(client):
    for path, item in client.get("/openapi.json").json["paths"].items():
        if path.startswith("/bulk/"):
            for method in item:
                written = f"{method.upper()} {path.replace('{', '<').replace('}', '>')}"
                assert f"`{written}" in PAGE, written
