import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import services.migrations
from config import ROOT
from services.database import Database, open_engine
from services.job_store import JobStore
from services.job_table import CONVERT, READ, SCORE, schema
from services.migrations import HEAD
from services.step_store import StepStore

STARTER = """
import sys
from services.database import Database, open_engine
from services.job_store import JobStore
from services.job_table import READ, NewJob
store = JobStore(Database(open_engine(sys.argv[1])))
for number in range(20):
    store.add(NewJob("bulk_predict", "local", "r", READ))
"""


def test_the_newest_step_is_the_one_that_the_code_knows():
    config = Config()
    config.set_main_option("script_location", str(Path(services.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def engine(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    else:
        url = request.getfixturevalue("postgres_url")
        with open_engine(url).begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    engine = open_engine(url)
    yield engine
    engine.dispose()


def test_many_processes_that_start_at_once_leave_one_schema_that_fits_the_code(engine):
    url = engine.url.render_as_string(hide_password=False)
    starters = [
        subprocess.Popen([sys.executable, "-c", STARTER, url], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)
    ]
    problems = [starter.communicate()[1] for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 4, problems
    with Database(engine).reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar() == 80
        assert compare_metadata(MigrationContext.configure(connection), schema) == []


def upgrade(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(services.migrations.__file__).parent))
    with engine.execution_options(writes=True).begin() as connection:
        config.attributes["connection"] = connection
        (command.upgrade if revision == HEAD else command.downgrade)(config, revision)


def test_jobs_of_before_there_were_steps_begin_anew_unless_they_are_completed_and_the_way_back_is_there(engine):
    upgrade(engine, HEAD)
    upgrade(engine, "0001")
    row = "INSERT INTO jobs (job_id, kind, queue, owner, request_id, status, parameters, metadata, rows_processed, created_at, updated_at) "
    with engine.execution_options(writes=True).begin() as connection:
        for job_id, kind, status in (
            ("waits", "bulk_predict", "queued"),
            ("runs", "bulk_predict", "processing"),
            ("done", "bulk_predict", "completed"),
            ("turns", "convert_result", "queued"),
            ("failed", "bulk_predict", "failed"),
        ):
            parameters = '{"shape": {"format": "xlsx"}}' if kind == "bulk_predict" else "{}"
            connection.execute(
                sa.text(f"{row} VALUES (:job_id, :kind, 'bulk', 'local', 'r', :status, :parameters, '{{}}', 7, 1, 1)"),
                {"job_id": job_id, "kind": kind, "status": status, "parameters": parameters},
            )
        connection.execute(sa.text("UPDATE jobs SET rows_total = 120000 WHERE job_id = 'done'"))
    store, steps = JobStore(Database(engine)), StepStore(Database(engine), 15, 3)
    assert steps.claim("waits", "w")[1].kind == READ
    assert steps.claim("runs", "w")[1].kind == READ
    assert steps.claim("turns", "w")[1].kind == CONVERT
    assert steps.claim("done", "w") is None
    assert (store.get("runs").rows_processed, store.get("done").rows_processed) == (0, 7)
    assert store.get("done").parameters["result_format"] == "xlsx"
    assert [(step.kind, step.first_row, step.rows) for step in store.steps("done")] == [
        (SCORE, 0, 50_000),
        (SCORE, 50_000, 50_000),
        (SCORE, 100_000, 20_000),
    ]
    assert steps.claim("failed", "w") is None
    assert store.retry("failed").rows_processed == 0
    assert steps.claim("failed", "w")[1].kind == READ
