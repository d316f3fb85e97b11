import json
import shutil
from dataclasses import replace

import pytest

from ml_pipeline.bundle import versions_dir
from ml_pipeline.errors import NothingToRollBackTo, UnknownVersion
from ml_pipeline.pointer import read_serving, write_pointer
from ml_pipeline.snapshot import snapshots_dir
from services.bootstrap import build_services
from services.errors import VersionUnusable
from services.job_table import BULK, READ, NewJob
from tests.ml_pipeline.spoiled_pairs import damage, file_of, remade_snapshot, with_other_golden
from tests.ml_pipeline.toy_models import write_toy_pair


@pytest.fixture
def models(tmp_path):
    folder = tmp_path / "own_models"
    folder.mkdir()
    return folder


@pytest.fixture
def pairs(models):
    """Three, of which the last serves."""
    return [write_toy_pair(models, ["C1", "C2"], seed=seed) for seed in (1, 2, 3)]


@pytest.fixture
def shop(settings, queue, models, pairs):
    built = build_services(replace(settings, models_dir=models), queue)
    yield built
    built.store.close()


def listed(shop):
    return {version["bundle"]: version for version in shop.versions.versions()["versions"]}


def test_what_serves_comes_first_then_those_before_it_then_the_others(shop, models, pairs):
    never = with_other_golden(models, pairs[0])
    answer = shop.versions.versions()
    order = [(version["bundle"], version["serving"], version["previous"]) for version in answer["versions"]]
    first, second, third = (pair.bundle_id for pair in pairs)
    assert order == [(third, True, None), (second, False, 1), (first, False, 2), (never.bundle_id, False, None)]
    assert (answer["model_version"], answer["generation"]) == (third, 3)


def test_a_version_says_when_it_was_made_how_large_and_how_good_it_is(shop, models, pairs):
    version = listed(shop)[pairs[2].bundle_id]
    assert (version["as_of"], version["refused"], version["pinned_by"]) == ("2026-01-01", None, 0)
    assert version["created"].endswith("+00:00")
    files = [
        *(versions_dir(models) / pairs[2].bundle_id).rglob("*"),
        *(snapshots_dir(models) / pairs[2].snapshot_id).rglob("*"),
    ]
    assert version["size_bytes"] == sum(path.stat().st_size for path in files if path.is_file())
    assert version["snapshots"][0]["customers"] == 2
    assert version["snapshots"][0]["serving"]
    assert (version["metrics"]["served"], version["metrics"]["best_rule"]) == ("zero", "zero")


def test_the_figures_are_those_of_what_serves_beside_the_best_rule(shop, models, pairs):
    path = versions_dir(models) / pairs[2].bundle_id / "backtest.json"
    backtest = json.loads(path.read_text())
    rule = {"name": "mean", "kind": "rule", "metrics": {"all": {"capped_r2": 0.1, "d2": 0.2, "normalised_gini": 0.0}}}
    total = {**backtest["targets"]["total"], "best_rule": "mean"}
    total["candidates"] = [*total["candidates"], rule]
    total["reconciled"] = {"all": {"capped_r2": 0.5, "d2": 0.6, "normalised_gini": 0.7}}
    path.write_text(json.dumps({**backtest, "targets": {"total": total}}))
    assert listed(shop)[pairs[2].bundle_id]["metrics"] == {
        "served": "zero",
        "best_rule": "mean",
        "capped_r2": {"served": 0.5, "best_rule": 0.1},
        "d2": {"served": 0.6, "best_rule": 0.2},
        "normalised_gini": {"served": 0.7, "best_rule": 0.0},
    }


def test_jobs_that_are_tied_to_a_bundle_are_counted(shop, pairs):
    for _ in range(2):
        shop.store.add(NewJob(BULK, "local", "r", READ, bundle_id=pairs[0].bundle_id, snapshot_id=pairs[0].snapshot_id))
    shop.store.add(NewJob(BULK, "local", "r", READ))
    assert [listed(shop)[pair.bundle_id]["pinned_by"] for pair in pairs] == [2, 0, 0]


def test_what_cannot_serve_says_why(shop, models, pairs):
    path = file_of(models, pairs[0], "metadata.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    shutil.rmtree(snapshots_dir(models) / pairs[1].snapshot_id)
    bad = with_other_golden(models, pairs[2])
    write_pointer(models, bad)
    shop.registry.check_now()
    refused = {bundle: version["refused"] for bundle, version in listed(shop).items()}
    assert "has format 1" in refused[pairs[0].bundle_id]
    assert "no complete snapshot" in refused[pairs[1].bundle_id]
    assert "golden" in refused[bad.bundle_id]
    assert refused[pairs[2].bundle_id] is None


def test_a_bundle_whose_files_are_gone_is_still_remembered_by_name(shop, models, pairs):
    shutil.rmtree(versions_dir(models) / pairs[0].bundle_id)
    gone = listed(shop)[pairs[0].bundle_id]
    assert (gone["as_of"], gone["created"], gone["metrics"]) == (None, None, None)
    assert "There is no bundle" in gone["refused"]


def test_without_a_model_the_list_is_empty(settings, queue, tmp_path):
    built = build_services(replace(settings, models_dir=tmp_path / "none"), queue)
    assert built.versions.versions() == {"model_version": None, "snapshot": None, "generation": None, "versions": []}


def test_while_the_job_table_is_away_the_list_says_what_it_can(settings, queue, models, pairs, tmp_path):
    (tmp_path / "folder").mkdir()
    broken = replace(settings, models_dir=models, database_url=f"sqlite:///{tmp_path / 'folder'}")
    assert listed(build_services(broken, queue))[pairs[2].bundle_id]["pinned_by"] is None


def test_a_rollback_is_over_when_its_answer_comes(shop, models, pairs):
    assert shop.registry.serving().pair == pairs[2]
    answer = shop.versions.roll_back(None)
    assert shop.registry.serving().pair == pairs[1]
    assert answer == {
        "model_version": pairs[1].bundle_id,
        "snapshot": pairs[1].snapshot_id,
        "as_of": "2026-01-01",
        "previous_model_version": pairs[2].bundle_id,
        "generation": 4,
    }
    assert shop.versions.roll_back(pairs[2].bundle_id)["generation"] == 5
    assert shop.registry.serving().pair == pairs[2]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("how", ["golden", "money.npy", "features.npy", "backtest.json"])
def test_a_bundle_that_does_not_pass_its_checks_is_refused_before_anything_changes(shop, models, pairs, how, named):
    if how == "golden":
        bad = with_other_golden(models, pairs[1])
        write_pointer(models, bad)
        write_pointer(models, pairs[2])
    else:
        bad = pairs[1]
        damage(file_of(models, bad, how))
    before = read_serving(models)
    with pytest.raises(VersionUnusable, match=f"{bad.bundle_id} cannot serve, so nothing was changed"):
        shop.versions.roll_back(bad.bundle_id if named else None)
    assert read_serving(models) == before
    assert shop.registry.serving().pair == pairs[2]
    assert shop.registry.refusals() == []


def test_from_a_bad_bundle_a_rollback_leads_to_what_serves_in_its_place(shop, models, pairs):
    bad = with_other_golden(models, pairs[2])
    write_pointer(models, bad)
    shop.registry.check_now()
    assert shop.versions.roll_back(None)["model_version"] == pairs[2].bundle_id
    assert shop.registry.refusals() == []


def test_what_is_not_there_is_not_gone_back_to(shop, models, pairs):
    with pytest.raises(UnknownVersion):
        shop.versions.roll_back("20200101-abcdefabcdef")
    with pytest.raises(NothingToRollBackTo):
        shop.versions.roll_back(pairs[2].bundle_id)


def test_an_earlier_snapshot_of_the_same_bundle_is_gone_back_to_as_well(shop, models, pairs):
    other = type(pairs[2])(pairs[2].bundle_id, remade_snapshot(models, pairs[0].snapshot_id, pairs[2].bundle_id))
    write_pointer(models, other)
    shop.registry.check_now()
    assert shop.registry.serving().pair == other
    assert shop.versions.roll_back(None)["snapshot"] == pairs[2].snapshot_id
    assert shop.registry.serving().pair == pairs[2]
