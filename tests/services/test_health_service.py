import datetime as dt
from dataclasses import replace

import pytest

from services.bootstrap import build_services
from services.job_table import Worker
from tests.ml_pipeline.toy_models import write_toy_pair


def alive(services) -> None:
    services.steps.heartbeat(Worker("w1", "host", 1, ["bulk", "finishing"], 0, 0))


def test_everything_well_is_ok(services):
    alive(services)
    report = services.health.report()
    assert (report["status"], report["degraded"]) == ("ok", [])
    assert report["workers"] == {"status": "ok", "count": 1, "queues": ["bulk", "finishing"]}


def test_without_a_worker_it_is_degraded_and_says_how_to_start_one(services):
    report = services.health.report()
    assert (report["status"], report["degraded"]) == ("degraded", ["workers"])
    assert "celery -A worker worker" in report["workers"]["message"]


def test_a_queue_that_is_away_is_named(services, queue):
    alive(services)
    queue.away = True
    report = services.health.report()
    assert (report["status"], report["degraded"]) == ("degraded", ["queue"])
    assert report["queue"]["error"] == "QueueUnavailable"


def test_a_job_store_that_is_away_is_named_and_the_workers_with_it(settings, queue, tmp_path):
    (tmp_path / "folder").mkdir()
    broken = replace(settings, database_url=f"sqlite:///{tmp_path / 'folder'}")
    report = build_services(broken, queue).health.report()
    assert (report["status"], report["degraded"]) == ("degraded", ["workers", "job_store"])


def test_an_object_store_that_is_away_is_named(services, settings):
    alive(services)
    (settings.var_dir / "objects").write_text("a file where the folder should be")
    assert services.health.report()["degraded"] == ["object_store"]


def test_without_a_model_it_is_unavailable(settings, queue, tmp_path):
    health = build_services(replace(settings, models_dir=tmp_path / "none"), queue).health
    assert health.report()["status"] == "unavailable"
    assert health.can_predict()["error"] == "NoServingModel"


@pytest.mark.parametrize(("days", "warned"), [(0, False), (29, False), (30, True), (400, True)])
def test_an_old_as_of_is_warned_of(settings, queue, tmp_path, days, warned):
    write_toy_pair(tmp_path, ["C1"], as_of=dt.datetime.now(dt.UTC).date() - dt.timedelta(days=days))
    report = build_services(replace(settings, models_dir=tmp_path), queue).health.report()
    assert report["as_of_age_days"] == days
    assert bool(report["warnings"]) == warned
    assert report["status"] == "degraded"
