import io
import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from ml_pipeline.bundle import read_pointer, write_pointer
from ml_pipeline.command import run_command
from ml_pipeline.engine import ENGINE_PREFIX, engine_in
from ml_pipeline.errors import BundleMismatch, OlderTables
from ml_pipeline.progress import Progress
from ml_pipeline.refresh import main, refresh
from ml_pipeline.snapshot import load_snapshot, snapshot_day
from tests.ml_pipeline.spoiled_pairs import resealed

QUIET = Progress(bars=False)


@pytest.fixture
def models(trained_shop, tmp_path):
    """A folder of one's own in which the trained pair serves."""
    shutil.copytree(trained_shop.models, tmp_path / "models")
    return tmp_path / "models"


def days_ago(trained_shop, days):
    return replace(trained_shop.prepared, as_of=trained_shop.prepared.as_of - timedelta(days=days))


def test_the_same_tables_change_nothing(trained_shop, models):
    before = (models / "current.json").read_bytes()
    found = refresh(trained_shop.engine, trained_shop.prepared, models, QUIET)
    assert (found.pair, found.changed) == (trained_shop.pair, False)
    assert (models / "current.json").read_bytes() == before


def test_the_day_moves_on_with_the_tables_and_back_on_request_only(trained_shop, models):
    older = days_ago(trained_shop, 20)
    with pytest.raises(OlderTables, match=f"{older.as_of}.*{trained_shop.prepared.as_of}.*--force"):
        refresh(trained_shop.engine, older, models, QUIET)
    assert read_pointer(models) == trained_shop.pair
    back = refresh(trained_shop.engine, older, models, QUIET, force=True)
    assert (back.as_of, back.previous_as_of, back.changed) == (older.as_of, trained_shop.prepared.as_of, True)
    assert snapshot_day(models, read_pointer(models).snapshot_id) == older.as_of
    on = refresh(trained_shop.engine, trained_shop.prepared, models, QUIET)
    assert (on.as_of, on.previous_as_of) == (trained_shop.prepared.as_of, older.as_of)
    assert on.pair == read_pointer(models) == trained_shop.pair
    assert on.customers == load_snapshot(models, on.pair.snapshot_id).n_customers


def test_tables_of_another_shop_are_refused_by_name(trained_shop, models):
    euros = replace(trained_shop.prepared, config=replace(trained_shop.prepared.config, currency="EUR"))
    with pytest.raises(BundleMismatch, match="currency = 'EUR'"):
        refresh(trained_shop.engine, euros, models, QUIET)
    assert read_pointer(models) == trained_shop.pair


@pytest.mark.parametrize("lacking", ["ranges", "reconciliation", "target_categories", "spend"])
def test_a_bundle_of_another_version_of_this_code_is_refused_by_name(trained_shop, models, lacking):
    other = resealed(models, trained_shop.pair, lambda _folder, content: content.pop(lacking))
    write_pointer(models, other)
    with pytest.raises(BundleMismatch, match="train again"):
        refresh(trained_shop.engine, trained_shop.prepared, models, QUIET)
    assert read_pointer(models) == other


@pytest.fixture
def logs_stay_as_they_are():
    """A command takes over the logs of its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_the_command_reads_the_tables_and_tells_its_phases_and_its_outcome(
    trained_shop, models, tmp_path, capsys, logs_stay_as_they_are
):
    options = ["--data", str(trained_shop.tables), "--models", str(models), "--work", str(tmp_path / "work")]
    options += ["--threads", "1", "--memory-mb", "1024", "--progress", "json"]
    assert run_command(main, options) == 0
    *phases, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert list(dict.fromkeys(line["phase"] for line in phases)) == ["read tables", "clean", "write", "refresh"]
    as_of = trained_shop.prepared.as_of.isoformat()
    assert last["outcome"] == {
        "bundle": trained_shop.pair.bundle_id,
        "snapshot": trained_shop.pair.snapshot_id,
        "as_of": as_of,
        "previous_as_of": as_of,
        "customers": trained_shop.snapshot.n_customers,
        "promoted": False,
    }
    assert not list((tmp_path / "work").glob(f"{ENGINE_PREFIX}*"))
    assert run_command(main, [*options, "--models", str(tmp_path / "nothing")]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["error"]["name"] == "NoServingModel"


def test_it_asks_before_anything_changes_where_that_is_wanted(
    trained_shop, models, tmp_path, capsys, monkeypatch, logs_stay_as_they_are
):
    options = ["--data", str(trained_shop.tables), "--models", str(models), "--work", str(tmp_path / "work")]
    earlier = days_ago(trained_shop, 20).as_of.isoformat()
    options += ["--threads", "1", "--progress", "json", "--as-of", earlier, "--force", "--ask"]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert run_command(main, options) == 2
    *_, asked, refused = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (asked, refused["error"]["name"]) == ({"asks": "promote"}, "NotAllowedToServe")
    assert read_pointer(models) == trained_shop.pair
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    assert run_command(main, options) == 0
    assert read_pointer(models) != trained_shop.pair


def test_an_engine_is_bounded_and_takes_away_what_killed_ones_left_behind(tmp_path):
    killed = tmp_path / f"{ENGINE_PREFIX}killed"
    killed.mkdir()
    (killed / "engine.duckdb").write_bytes(b"left behind")
    with engine_in(tmp_path, threads=1, memory_mb=1000) as engine:
        assert not killed.exists()
        limit = engine.raw_sql("SELECT current_setting('memory_limit')").fetchone()[0]
        assert limit in ("476.8 MiB", "500.0 MB")
        with engine_in(tmp_path, threads=1):
            assert len(list(tmp_path.glob(f"{ENGINE_PREFIX}*"))) == 2  # the one at work stays
    assert not list(tmp_path.glob(f"{ENGINE_PREFIX}*"))


def test_a_training_that_is_stopped_leaves_nothing_half_made(trained_shop, tmp_path):
    models, work = tmp_path / "models", tmp_path / "work"
    options = ["--data", trained_shop.tables, "--models", models, "--work", work, "--threads", "1"]
    command = [sys.executable, "-m", "ml_pipeline.train", *options, "--profile", "quick", "--progress", "json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if json.loads(line).get("phase") == "read tables":
            break
    process.send_signal(signal.SIGTERM)
    started = time.monotonic()
    assert process.wait(timeout=30) == 143
    assert time.monotonic() - started < 20
    process.stdout.close()
    assert not models.exists()
    assert not list(work.glob(f"{ENGINE_PREFIX}*"))
