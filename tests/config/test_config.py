import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import ROOT, VARIABLES, VERSION, BadConfiguration, load_settings


def problems_of(**environ: str) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load_settings(environ)
    return str(caught.value)


def test_an_empty_environment_gives_the_documented_defaults():
    settings = load_settings({})
    assert (settings.port, settings.max_upload_mb, settings.flask_env) == (5000, 200, "production")
    assert settings.database_url == f"sqlite:///{ROOT / 'var' / 'jobs.sqlite3'}"
    assert settings.models_dir == ROOT / "models"
    assert settings.cors_origins == ()
    assert not settings.allow_anonymous


def test_an_empty_value_counts_as_not_set():
    assert load_settings({"PORT": "", "REDIS_URL": " "}) == load_settings({})


@pytest.mark.parametrize(
    "value", ["your_supabase_url", "your-key-here", "changeme", "change_me", "<your key>", "YOUR_KEY", "gsk_..."]
)
@pytest.mark.parametrize("name", ["SUPABASE_URL", "GROQ_API_KEY", "LLM_API_KEY", "LLM_BASE_URL"])
def test_a_placeholder_is_refused_by_the_name_of_its_variable(name, value):
    assert f"{name} still is the placeholder" in problems_of(**{name: value})


def test_everything_that_is_wrong_is_said_at_once():
    message = problems_of(PORT="eighty", ALLOW_ANONYMOUS="perhaps", FLASK_ENV="staging", MAX_UPLOAD_MB="-1")
    for name in ("PORT", "ALLOW_ANONYMOUS", "FLASK_ENV", "MAX_UPLOAD_MB"):
        assert name in message


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"PORT": "70000"}, "PORT"),
        ({"PORT": "50.5"}, "whole number"),
        ({"PORT": "nan"}, "PORT"),
        ({"CORS_ORIGINS": "shop.example.com"}, "scheme://host"),
        ({"CORS_ORIGINS": "https://shop.example.com/path"}, "scheme://host"),
        ({"REDIS_URL": "http://127.0.0.1"}, "redis://"),
        ({"REDIS_URL": "unix:///run/redis.sock"}, "redis://"),
        ({"DATABASE_URL": "mysql://host/name"}, "postgresql://"),
        ({"DATABASE_URL": "sqlite:///:memory:"}, "in memory"),
        ({"REDIS_URL": "redis://cache.example.com:6379/0"}, "SINGLE_HOST"),
        ({"LEASE_SECONDS": "2", "WATCHDOG_SECONDS": "5"}, "WATCHDOG_SECONDS"),
        ({"VAR_DIR": __file__}, "must be a folder"),
        ({"LLM_BASE_URL": "127.0.0.1:11434/v1", "LLM_MODEL": "llama3.2"}, "LLM_BASE_URL must be http://"),
        ({"LLM_BASE_URL": "ftp://127.0.0.1/v1", "LLM_MODEL": "llama3.2"}, "LLM_BASE_URL must be http://"),
        ({"LLM_BASE_URL": "http://me:hunter2@127.0.0.1/v1", "LLM_MODEL": "llama3.2"}, "The key is LLM_API_KEY"),
        ({"LLM_BASE_URL": "http://127.0.0.1:99999/v1", "LLM_MODEL": "llama3.2"}, "LLM_BASE_URL cannot be read"),
        ({"LLM_BASE_URL": "http://127.0.0.1:11434/v1"}, "without LLM_MODEL"),
        ({"LLM_API_KEY": "a-long-random-text"}, "without LLM_BASE_URL"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_the_rule(environ, said):
    assert said in problems_of(**environ)


def test_several_hosts_are_fine_with_postgres_and_its_short_spelling():
    settings = load_settings({"REDIS_URL": "redis://cache.example.com", "DATABASE_URL": "postgres://u:p@db/spend"})
    assert settings.database_url == "postgresql+psycopg://u:p@db/spend"


def test_no_message_repeats_a_password():
    assert "hunter2" not in problems_of(DATABASE_URL="mysql://me:hunter2@host/name", REDIS_URL="http://:hunter2@host")


def test_every_variable_is_in_the_example_commented_out_below_a_sentence():
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    assert all(line == "" or line.startswith("# ") for line in lines)
    written = {match[1]: number for number, line in enumerate(lines) if (match := re.match(r"# ([A-Z_]+)=", line))}
    assert set(written) == set(VARIABLES)
    for name, number in written.items():
        assert lines[number - 1].endswith("."), f"{name} has no sentence above it"


def test_the_values_in_the_example_can_be_used():
    examples = dict(re.findall(r"^# ([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))
    assert load_settings(examples).port == 5000


def test_validate_exits_with_words_when_something_is_wrong_and_with_0_when_not():
    command = [sys.executable, "-c", "from config import Config; Config.validate()"]
    environ = {"PATH": "/usr/bin:/bin", "PORT": "5000"}
    fine = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    wrong = subprocess.run(
        command, cwd=ROOT, env={**environ, "PORT": "no"}, capture_output=True, text=True, check=False
    )
    assert fine.returncode == 0
    assert wrong.returncode == 1
    assert "PORT is 'no'" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_the_version_is_that_of_the_project_file():
    assert f'version = "{VERSION}"' in (ROOT / "pyproject.toml").read_text("utf-8")


def test_nothing_else_reads_the_environment():
    rooms = [
        ROOT / "app.py",
        *(path for room in ("routes", "services", "worker") for path in (ROOT / room).rglob("*.py")),
    ]
    readers = [
        path for path in rooms if path.exists() and re.search(r"os\.environ|getenv", Path(path).read_text("utf-8"))
    ]
    assert readers == []


@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL"])
@pytest.mark.parametrize("place", ["host:port", "host:99999", "[::1", ":hunter2/x@host:6379", "host:0"])
def test_a_url_that_cannot_be_read_is_named_without_its_password(name, place):
    scheme = "redis" if name == "REDIS_URL" else "postgresql"
    with pytest.raises(BadConfiguration, match=f"{name} cannot be read as a URL") as caught:
        load_settings({name: f"{scheme}://{place}/0"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["sqlite:", "sqlite:jobs", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///?a=b"]
)
def test_a_sqlite_database_is_a_file(url):
    with pytest.raises(BadConfiguration, match="DATABASE_URL names no file"):
        load_settings({"DATABASE_URL": url})


def test_the_number_of_a_redis_database_is_a_number():
    with pytest.raises(BadConfiguration, match="REDIS_URL ends in no number"):
        load_settings({"REDIS_URL": "redis://localhost/jobs"})
    for url in (
        "redis://localhost",
        "redis://localhost/",
        "rediss://me:secret@localhost:6380/3",
    ):
        assert load_settings({"REDIS_URL": url}).redis_url == url
