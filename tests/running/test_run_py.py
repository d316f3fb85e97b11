"""What `python run.py` says and refuses before it starts anything."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from running.lock import RunLock
from running.ports import free_port
from running.service import WORKERS
from worker.celery_app import QUEUES

PROJECT = Path(__file__).resolve().parents[2]


def run_py(tmp_path: Path, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """`python run.py` with folders of its own; it ends by itself in all these tests."""
    folders = {name: str(tmp_path / name.lower()) for name in ("DATA_DIR", "MODELS_DIR", "VAR_DIR")}
    defaults = {**folders, "PORT": str(free_port()), "LOG_LEVEL": "WARNING", "REDIS_URL": ""}
    return subprocess.run(
        [sys.executable, "run.py", *options],
        cwd=PROJECT,
        env={**os.environ, **defaults, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_queue_has_one_worker_that_consumes_it() -> None:
    assert sorted(queue for _name, queues, _processes in WORKERS for queue in queues.split(",")) == sorted(QUEUES)


def test_a_taken_port_is_named_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ended = run_py(tmp_path, PORT=str(port))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"run.py: port {port} is in use by another program. ")
    assert f"PORT={port + 1} python run.py" in ended.stderr


def test_a_port_taken_on_all_addresses_is_found_too(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        ended = run_py(tmp_path, "--port", str(server.getsockname()[1]))
    assert ended.returncode == 1
    assert "is in use by another program" in ended.stderr


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    lock = RunLock(tmp_path / "var_dir" / "run.lock")
    lock.take()
    ended = run_py(tmp_path)
    lock.release()
    assert ended.returncode == 1
    assert f"it runs already in {tmp_path / 'var_dir'} (process {os.getpid()})" in ended.stderr
    assert "VAR_DIR=" in ended.stderr


def test_a_folder_of_tables_that_does_not_exist_is_not_filled_with_samples(tmp_path: Path) -> None:
    ended = run_py(tmp_path, DATA_DIR=str(tmp_path / "tabels"))
    assert ended.returncode == 1
    assert f"the folder of tables, {tmp_path / 'tabels'}, does not exist" in ended.stderr
    assert not (tmp_path / "tabels").exists()


def test_a_wrong_setting_is_said_in_words(tmp_path: Path) -> None:
    ended = run_py(tmp_path, "--port", "80000000")
    assert ended.returncode == 1
    assert "PORT is '80000000'; it must be a number from 1 to 65535." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_tables_that_cannot_be_learned_from_end_the_run_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "data_dir").mkdir()
    (tmp_path / "data_dir" / "stores.csv").write_text("store_id\n1\n")
    ended = run_py(tmp_path)
    assert ended.returncode == 1
    assert "store_sales_header" in ended.stderr
    assert "run_pipeline.py" in ended.stderr.splitlines()[-1]


def test_a_machine_without_the_packages_is_told_how_to_get_them(tmp_path: Path) -> None:
    bare = [sys.executable, "-I", "-S", "-c", "import sys; sys.path.insert(0, '.'); import run; sys.exit(run.main())"]
    ended = subprocess.run(bare, cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "is not installed for" in ended.stderr
    assert "make run" in ended.stderr
