import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import services.migrations
from config import ROOT
from services.database import Database, open_engine
from services.job_store import schema
from services.migrations import HEAD

STARTER = """
import sys
from services.database import Database, open_engine
from services.job_store import JobStore, NewJob
store = JobStore(Database(open_engine(sys.argv[1])), 15, 3)
for number in range(20):
    store.add(NewJob("bulk_predict", "bulk", "local", "r"))
"""


def test_the_newest_step_is_the_one_that_the_code_knows():
    config = Config()
    config.set_main_option("script_location", str(Path(services.migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgres", marks=pytest.mark.server)])
def test_many_processes_that_start_at_once_leave_one_schema_that_fits_the_code(kind, tmp_path, request):
    url = f"sqlite:///{tmp_path / 'jobs.sqlite3'}" if kind == "sqlite" else request.getfixturevalue("postgres_url")
    engine = open_engine(url)
    if kind == "postgres":
        with engine.begin() as connection:
            connection.execute(sa.text("DROP SCHEMA public CASCADE"))
            connection.execute(sa.text("CREATE SCHEMA public"))
    starters = [
        subprocess.Popen([sys.executable, "-c", STARTER, url], cwd=ROOT, stderr=subprocess.PIPE) for _ in range(4)
    ]
    problems = [starter.communicate()[1] for starter in starters]
    assert [starter.returncode for starter in starters] == [0] * 4, problems
    with Database(engine).reading() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM jobs")).scalar() == 80
        assert compare_metadata(MigrationContext.configure(connection), schema) == []
    engine.dispose()
