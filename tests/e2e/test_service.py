"""The whole service, started by one command, used as its users use it, and killed in parts."""

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import requests

from docs import make_readme
from running.embedded_redis import prepare_redis
from running.ports import free_port
from tests.e2e.service import PROJECT, Service, left_behind, make_tables, until
from tests.services.bulk_files import ADDED

pytestmark = pytest.mark.server

PARTS = ("redis", "web", "worker", "finisher", "trainer")
MONEY = ADDED[:4]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started once: run.py trains on the small sample first, as on a fresh machine."""
    folder = tmp_path_factory.mktemp("service")
    make_tables(folder / "tables")
    running = Service(folder)
    try:
        running.await_welcome()
        yield running
    finally:
        running.end()


@pytest.fixture(scope="module")
def known_ids(service: Service) -> list[str]:
    """Ids, as the customer table writes them, of customers that are written in the same way in the sales."""
    details, headers = (
        set(pd.read_csv(service.folder / "tables" / f"{table}.csv", dtype=str)["customer_id"].dropna())
        for table in ("customer_details", "store_sales_header")
    )
    return sorted(number for number in details & headers if number.isdigit())


def uploaded_rows(known_ids: list[str], n_rows: int) -> pd.DataFrame:
    """Rows in no order, with repetitions and with every tenth id unknown."""
    chance = random.Random(1)
    ids = [f"nobody-{row}" if row % 10 == 3 else chance.choice(known_ids) for row in range(n_rows)]
    return pd.DataFrame({"campaign": [f"row {row}" for row in range(n_rows)], "customer_id": ids, "notes": 'ä, "b"'})


def assert_right(result: pd.DataFrame, uploaded: pd.DataFrame, service: Service) -> None:
    """The uploaded columns and rows in their order, the known priced as by /predict, the unknown marked."""
    assert list(result.columns) == [*uploaded.columns, *ADDED]
    assert result[list(uploaded.columns)].astype(str).equals(uploaded.astype(str))
    unknown = uploaded["customer_id"].str.startswith("nobody-").to_numpy()
    assert (result.loc[unknown, "status"] == "failed").all()
    assert result.loc[unknown, "error"].str.len().gt(0).all()
    assert result.loc[unknown, MONEY].isna().all().all()
    assert (result.loc[~unknown, "status"] == "success").all()
    first = result.loc[~unknown].iloc[0]
    answer = requests.post(f"{service.url}/predict", json={"customer_id": first["customer_id"]}, timeout=10).json()
    assert float(first["predicted_total_spend"]) == answer["predicted_30d_spend"]["total"]


def test_health_is_ready_and_names_every_part_as_fine(service: Service) -> None:
    assert requests.get(f"{service.url}/health/ready", timeout=10).status_code == 200
    assert requests.get(f"{service.url}/health", timeout=10).json()["status"] == "ok"


def test_the_three_printed_commands_work_as_they_stand(service: Service, tmp_path: Path) -> None:
    said = [
        subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=40, check=True
        ).stdout
        for command in service.commands
    ]
    prediction, upload, table = json.loads(said[0]), json.loads(said[1]), said[2].lstrip("\ufeff").splitlines()
    assert prediction["customer_id"] in service.customer_ids()
    assert prediction["predicted_30d_spend"]["total"] >= 0
    assert upload["status"] == "queued"
    assert table[0].startswith("customer_id,customer_name,notes,predicted_total_spend")
    assert len(table) == 6


def test_the_answers_in_the_readme_have_the_shape_of_the_real_ones(service: Service, tmp_path: Path) -> None:
    readme = (PROJECT / "README.md").read_text("utf-8")
    shown = {block["name"]: block["body"] for block in make_readme.BLOCK.finditer(readme)}
    for name, command in zip(("predict", "upload"), service.commands, strict=False):
        said = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=40, check=True
        )
        assert _shape(json.loads(shown[name][shown[name].index("{\n") :].split("```")[0])) == _shape(
            json.loads(said.stdout)
        )


def _shape(value: object) -> object:
    """The names in a JSON value, without what stands under them."""
    return {name: _shape(inner) for name, inner in value.items()} if isinstance(value, dict) else None


def test_the_smoke_client_passes(service: Service) -> None:
    environment = {**service.environment, "BASE_URL": service.url}
    command = [sys.executable, "test.py"]
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("ending", ["csv", "xlsx"])
def test_a_file_of_a_thousand_rows_comes_back_right(
    service: Service, known_ids: list[str], tmp_path: Path, ending: str
) -> None:
    uploaded = uploaded_rows(known_ids, 1000)
    path = tmp_path / f"customers.{ending}"
    if ending == "csv":
        uploaded.to_csv(path, index=False)
    else:
        uploaded.to_excel(path, index=False)
    status = service.await_job(service.upload(path)["job_id"])
    assert status["status"] == "completed", status
    counted = {"total": 1000, "processed": 1000, "successful": 900, "failed": 100, "percentage": 100.0}
    assert status["progress"].items() >= counted.items()
    made = service.download(status["job_id"], tmp_path / f"result.{ending}")
    result = (
        pd.read_csv(made, dtype={"customer_id": str})
        if ending == "csv"
        else pd.read_excel(made, dtype={"customer_id": str}, engine="openpyxl")
    )
    assert_right(result, uploaded, service)


def test_a_job_whose_worker_is_killed_is_completed_and_right(
    service: Service, known_ids: list[str], tmp_path: Path
) -> None:
    uploaded = uploaded_rows(known_ids, 200_000)
    path = tmp_path / "many.csv"
    uploaded.to_csv(path, index=False)
    job_id = service.upload(path)["job_id"]
    until(lambda: service.status(job_id)["status"] == "processing")
    service.kill("worker")
    assert service.status(job_id)["status"] != "completed", (
        "the job was over before the worker died: make the file larger"
    )
    status = service.await_job(job_id)
    assert status["status"] == "completed", status
    result = pd.read_csv(service.download(job_id, tmp_path / "result.csv"), dtype={"customer_id": str})
    assert_right(result, uploaded, service)


def test_a_killed_queue_comes_back_and_takes_jobs(service: Service, known_ids: list[str], tmp_path: Path) -> None:
    service.kill("redis")
    path = tmp_path / "few.csv"
    uploaded_rows(known_ids, 20).to_csv(path, index=False)
    until(lambda: _health(service.url).get("status") == "ok")
    assert service.await_job(service.upload(path)["job_id"])["status"] == "completed"


def test_a_killed_web_comes_back(service: Service) -> None:
    service.kill("web")

    def ready() -> bool:
        try:
            return requests.get(f"{service.url}/health/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    assert until(ready)


def test_a_second_run_in_the_same_folder_is_refused(service: Service) -> None:
    second = [sys.executable, "run.py", "--port", str(free_port())]
    ended = subprocess.run(second, cwd=PROJECT, env=service.environment, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert f"(process {service.process.pid})" in ended.stderr


def test_the_log_of_every_part_is_json(service: Service) -> None:
    lines = service.lines
    welcome = next(number for number, line in enumerate(lines) if line.startswith("Serving."))
    after = [line for line in lines[welcome:] if line.startswith("{")]
    assert {json.loads(line)["level"] for line in after} <= {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    assert any('"request answered"' in line for line in after)
    assert not [line for line in lines[welcome:] if line.startswith(("Traceback", "INFO:", "ERROR:", "WARNING:"))]


# The tests from here on end the service.


def test_sigterm_leaves_no_process_behind(service: Service) -> None:
    sessions = [pid for part in PARTS for pid in service.starts(part)]
    assert len(left_behind(sessions)) >= len(PARTS)
    assert service.end(signal.SIGTERM) == 0
    until(lambda: not left_behind(sessions), 2)  # on a busy machine what was killed takes a moment to be gone
    assert service.lines[-1] == "Stopped."


@pytest.mark.parametrize("name", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill -9"])
def test_a_second_start_serves_again_and_leaves_nothing(service: Service, name: signal.Signals) -> None:
    service.end()
    again = Service(service.folder)
    again.await_welcome(30)
    assert not any("No model" in line for line in again.lines)
    sessions = [pid for part in PARTS for pid in again.starts(part)]
    again.end(name)
    until(lambda: not left_behind(sessions), 15)


def test_gunicorn_and_celery_as_documented(service: Service, known_ids: list[str], tmp_path: Path) -> None:
    service.end()
    redis = prepare_redis(tmp_path / "redis")
    environment = {
        **service.environment,
        "REDIS_URL": redis.url,
        "PATH": f"{Path(sys.executable).parent}:{service.environment['PATH']}",
    }
    port = environment["PORT"]
    commands = [
        list(redis.command),
        ["gunicorn", "-w", "4", "-b", f"0.0.0.0:{port}", "app:create_app()"],
        ["celery", "-A", "worker", "worker"],
    ]
    folders = [redis.folder, PROJECT, PROJECT]
    with (tmp_path / "said.log").open("wb") as said:
        started = [
            subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said, start_new_session=True)
            for command, folder in zip(commands, folders, strict=True)
        ]
    try:
        until(lambda: _health(service.url).get("status") == "ok")
        path = tmp_path / "few.csv"
        uploaded_rows(known_ids, 20).to_csv(path, index=False)
        assert service.await_job(service.upload(path)["job_id"])["status"] == "completed"
    finally:
        codes = [_ended(process) for process in reversed(started)]
    assert codes == [0, 0, 0]
    assert left_behind([process.pid for process in started]) == []


def _ended(process: "subprocess.Popen[bytes]") -> int:
    process.terminate()
    return process.wait(30)


def _health(url: str) -> dict[str, object]:
    try:
        return dict(requests.get(f"{url}/health", timeout=10).json())
    except requests.RequestException:
        return {}


def test_a_model_that_does_not_fit_the_code_is_named_instead_of_served(service: Service, tmp_path: Path) -> None:
    service.end()
    shutil.copytree(service.folder / "models", tmp_path / "models")
    pointer = json.loads((tmp_path / "models" / "current.json").read_text())
    metadata = tmp_path / "models" / "versions" / pointer["bundle"] / "metadata.json"
    content = json.loads(metadata.read_text())
    removed = content["features"].pop()
    metadata.chmod(0o644)
    metadata.write_text(json.dumps(content))
    broken = Service(tmp_path, MODELS_DIR=str(tmp_path / "models"))
    assert broken.process.wait(60) == 1
    said = "\n".join(broken.lines)
    assert "the API cannot serve" in said
    assert removed in said or pointer["bundle"] in said
