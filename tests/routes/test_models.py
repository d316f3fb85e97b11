from dataclasses import replace

import pytest

from app import create_app
from ml_pipeline.pointer import read_serving
from services.bootstrap import build_services
from tests.ml_pipeline.spoiled_pairs import damage, file_of
from tests.ml_pipeline.toy_models import write_toy_pair


@pytest.fixture
def pairs(tmp_path):
    return [write_toy_pair(tmp_path / "own_models", ["C1"], seed=seed) for seed in (1, 2)]


@pytest.fixture
def client(settings, queue, pairs, tmp_path):
    built = build_services(replace(settings, models_dir=tmp_path / "own_models"), queue)
    yield create_app(services=built).test_client()
    built.store.close()


def test_versions_are_listed(client, pairs):
    answer = client.get("/model/versions")
    assert answer.status_code == 200
    body = answer.get_json()
    assert body["model_version"] == pairs[1].bundle_id
    assert [version["bundle"] for version in body["versions"]] == [pairs[1].bundle_id, pairs[0].bundle_id]
    assert {"created", "metrics", "pinned_by", "size_bytes", "snapshots", "refused"} <= set(body["versions"][0])


@pytest.mark.parametrize("body", [{}, {"json": {}}, {"json": {"bundle": None}}, {"json": "named"}])
def test_a_rollback_needs_no_body_and_the_next_prediction_is_the_other_models(client, pairs, body):
    before = client.post("/predict", json={"customer_id": "C1"}).get_json()
    asked = {"json": {"bundle": pairs[0].bundle_id}} if body.get("json") == "named" else body
    answer = client.post("/model/rollback", **asked)
    assert answer.status_code == 200
    told = answer.get_json()
    assert (told["model_version"], told["previous_model_version"]) == (pairs[0].bundle_id, pairs[1].bundle_id)
    after = client.post("/predict", json={"customer_id": "C1"}).get_json()
    assert (before["model_version"], after["model_version"]) == (pairs[1].bundle_id, pairs[0].bundle_id)
    assert before["predicted_30d_spend"] != after["predicted_30d_spend"]


@pytest.mark.parametrize("body", [[], "x", {"bundle": 7}, {"bundle": ["x"]}, {"version": "x"}])
def test_a_rollback_of_another_shape_is_a_bad_request(client, body):
    answer = client.post("/model/rollback", json=body)
    assert (answer.status_code, set(answer.get_json())) == (400, {"error", "message"})


def test_refused_rollbacks_say_why_and_change_nothing(client, pairs, tmp_path):
    models = tmp_path / "own_models"
    unknown = client.post("/model/rollback", json={"bundle": "20200101-abcdefabcdef"})
    assert (unknown.status_code, unknown.get_json()["error"]) == (404, "UnknownVersion")
    serving = client.post("/model/rollback", json={"bundle": pairs[1].bundle_id})
    assert (serving.status_code, serving.get_json()["error"]) == (409, "NothingToRollBackTo")
    damage(file_of(models, pairs[0], "money.npy"))
    unfit = client.post("/model/rollback")
    assert (unfit.status_code, unfit.get_json()["error"]) == (409, "VersionUnusable")
    file_of(models, pairs[0], "money.npy").unlink()
    nothing = client.post("/model/rollback")
    assert (nothing.status_code, nothing.get_json()["error"]) == (409, "NothingToRollBackTo")
    assert read_serving(models).generation == 2


def test_without_a_model_a_rollback_is_503(settings, queue, tmp_path):
    client = create_app(services=build_services(replace(settings, models_dir=tmp_path / "none"), queue)).test_client()
    assert client.post("/model/rollback").status_code == 503
    assert client.get("/model/versions").get_json()["versions"] == []


def test_probes_stay_200_while_a_bad_model_is_refused(client, pairs, tmp_path):
    models = tmp_path / "own_models"
    assert client.get("/health/ready").get_json()["status"] == "ok"
    bad = write_toy_pair(models, ["C1"], seed=3)
    damage(file_of(models, bad, "money.npy"))
    client.application.extensions["customer_spend"].registry.check_now()
    ready, health = client.get("/health/ready"), client.get("/health")
    assert (ready.status_code, ready.get_json()["status"]) == (200, "degraded")
    assert (health.status_code, health.get_json()["model"]["status"]) == (200, "degraded")
    assert f"bundle {bad.bundle_id} was refused" in health.get_json()["warnings"][-1]
    assert client.post("/predict", json={"customer_id": "C1"}).get_json()["model_version"] == pairs[1].bundle_id
