import json
import re
import shutil
import threading
from datetime import date

import numpy as np
import pytest

from ml_pipeline.bundle import digests_below, load_metadata, read_pointer, versions_dir
from ml_pipeline.features import feature_names
from ml_pipeline.model_card import write_model_card
from ml_pipeline.snapshot import SEGMENTS, money_columns
from ml_pipeline.train import net_floor, never_bought_prior, promote
from ml_pipeline.turns import taking_turns
from tests.ml_pipeline.small_shop import prepare_shop, write_shop
from tests.ml_pipeline.toy_models import write_toy_pair

LEARNERS = ("random_forest", "xgboost", "lightgbm")


def test_twelve_models_are_trained_and_the_metadata_lists_the_inputs_in_order(trained_shop):
    members = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content["members"]
    expected = {
        f"{library}_{name}" for library in LEARNERS for name in ("total_spend", "electronics", "grocery", "sports")
    }
    assert expected < set(members)
    assert set(members) - expected == {"lightgbm_purchase"}
    enhanced = json.loads((trained_shop.models / "model_metadata_enhanced.json").read_text())
    assert tuple(enhanced["features"]) == feature_names(("electronics", "grocery", "sports"))


@pytest.mark.parametrize(
    "name",
    [
        *(f"xgboost_{target}.json" for target in ("total_spend", "electronics", "grocery", "sports")),
        *(f"lightgbm_{target}.txt" for target in ("total_spend", "electronics", "grocery", "sports")),
        "model_metadata_enhanced.json",
        "MODEL_CARD.md",
        "current.json",
    ],
)
def test_the_documented_files_stand_at_their_names(trained_shop, name):
    assert (trained_shop.models / name).stat().st_size > 0


@pytest.mark.parametrize("target", ["total_spend", "electronics", "grocery", "sports"])
def test_plain_xgboost_and_the_metadata_give_the_number_that_is_reported_as_raw(trained_shop, target):
    """The integrator's snippet: nothing of ours but the files."""
    import xgboost

    metadata = json.loads((trained_shop.models / "model_metadata_enhanced.json").read_text())
    booster = xgboost.Booster(model_file=trained_shop.models / f"xgboost_{target}.json")
    rows = np.flatnonzero(~np.isnan(trained_shop.snapshot.features(range(400))).all(axis=1))[:100]
    inputs = trained_shop.snapshot.features(rows)
    plain = booster.predict(xgboost.DMatrix(inputs, feature_names=metadata["features"], missing=np.nan))
    reported = trained_shop.snapshot.raw(rows)[f"xgboost_{target}"]
    assert len(rows) == 100
    np.testing.assert_allclose(plain, reported, rtol=1e-6)
    assert plain.mean() > 1  # money, not a log or a rate


def test_plain_lightgbm_gives_the_number_that_is_reported_as_raw(trained_shop):
    import lightgbm

    booster = lightgbm.Booster(model_file=str(trained_shop.models / "lightgbm_total_spend.txt"))
    inputs = trained_shop.snapshot.features(range(400))
    rows = ~np.isnan(inputs).all(axis=1)
    reported = trained_shop.snapshot.raw(range(400))["lightgbm_total_spend"]
    np.testing.assert_allclose(booster.predict(inputs[rows]), reported[rows], rtol=1e-9)


def test_the_pointer_names_the_pair_and_the_bundle_is_what_was_sealed(trained_shop):
    assert read_pointer(trained_shop.models) == trained_shop.pair
    folder = versions_dir(trained_shop.models) / trained_shop.pair.bundle_id
    sealed = json.loads((folder / "metadata.json").read_text())["files"]
    found = digests_below(folder)
    del found["metadata.json"], found["timings.json"]
    assert found == sealed


def test_a_promotion_takes_away_its_forerunners_copies_and_nothing_else(trained_shop, tmp_path):
    models = tmp_path / "models"
    pair = write_toy_pair(models, ["c1"])  # a bundle without boosters
    shutil.copytree(versions_dir(trained_shop.models), versions_dir(models), dirs_exist_ok=True)
    promote(models, trained_shop.pair)
    (models / "xgboost_notes.txt").write_text("mine")
    content = json.loads((versions_dir(models) / pair.bundle_id / "metadata.json").read_text())
    assert not content["members"]
    promote(models, pair)
    assert [path.name for path in models.glob("*gb*")] == ["xgboost_notes.txt"]
    assert read_pointer(models) == pair


def test_a_promotion_waits_for_the_one_that_is_under_way(trained_shop, tmp_path):
    models = tmp_path / "models"
    before = write_toy_pair(models, ["c1"])
    shutil.copytree(versions_dir(trained_shop.models), versions_dir(models), dirs_exist_ok=True)
    with taking_turns(models):
        waiting = threading.Thread(target=promote, args=(models, trained_shop.pair))
        waiting.start()
        waiting.join(0.3)
        assert (waiting.is_alive(), read_pointer(models)) == (True, before)
        assert not (models / "model_metadata_enhanced.json").exists()
    waiting.join()
    assert read_pointer(models) == trained_shop.pair


def test_every_known_customer_is_in_the_snapshot_whether_he_bought_or_not(trained_shop):
    known = trained_shop.engine.to_pyarrow(trained_shop.prepared.customers.select("customer_id"))[
        "customer_id"
    ].to_pylist()
    positions = trained_shop.snapshot.positions(known)
    assert (positions >= 0).all()
    assert trained_shop.snapshot.n_customers == len(known)
    never = np.isnan(trained_shop.snapshot.features(positions)).all(axis=1)
    answers = trained_shop.snapshot.columns(positions[never])
    assert 0 < never.sum() < len(known)
    assert answers["cold_start"].all()
    assert len(np.unique(answers["predicted_total_spend"])) == 1


def test_answers_are_finite_not_negative_in_order_and_capped(trained_shop):
    content = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    answers = trained_shop.snapshot.columns(range(trained_shop.snapshot.n_customers))
    for name in money_columns(trained_shop.snapshot.targets):
        middle = answers[f"predicted_{name}_spend"]
        lower, upper = answers[f"predicted_{name}_spend_lower"], answers[f"predicted_{name}_spend_upper"]
        assert np.isfinite(middle).all()
        assert (lower >= 0).all()
        assert (lower <= middle).all()
        assert (middle <= upper).all()
    assert answers["predicted_total_spend"].max() <= content["serving"]["total"]["cap"] + 0.01
    assert 0 <= answers["purchase_probability_30d"].min() <= answers["purchase_probability_30d"].max() <= 1
    low, high = content["segments"]["thresholds"]
    assert low < high
    of_segment = {name: answers["predicted_total_spend"][answers["segment"] == name] for name in SEGMENTS}
    assert [of_segment[name].max() <= end + 0.01 for name, end in zip(SEGMENTS, (low, high), strict=False)] == [
        True
    ] * 2
    assert of_segment[SEGMENTS[2]].min() > high - 0.01


def test_predictions_tell_buyers_apart_on_the_windows_that_chose_nothing(trained_shop):
    total = trained_shop.report["targets"]["total"]
    served = next(c for c in total["candidates"] if c["name"] == total["served"])["metrics"]["all"]
    zero = next(c for c in total["candidates"] if c["name"] == "zero")["metrics"]["all"]
    assert served["normalised_gini"] > 0.5
    assert served["d2"] > zero["d2"]
    assert trained_shop.report["probability"]["served"]["auc"] > 0.7


def test_the_card_shows_every_candidate_of_every_target_beside_the_rules(trained_shop):
    card = (trained_shop.models / "MODEL_CARD.md").read_text()
    for target in money_columns(trained_shop.snapshot.targets):
        table = card.split(f"## {target}: every customer")[1].split("\n## ")[0]
        assert table.index("last 90 days ÷ 3") < (table.index("xgboost") if target != "other" else len(table))
    assert re.search(r"Trained as of \d{4}-\d\d-\d\d", card)
    assert not re.search(r"\bnan\b|\bNone\b", card)


def test_the_card_says_how_often_and_how_much_the_floor_at_0_took_in_net_mode(trained_shop, tmp_path):
    header = "transaction_id,customer_id,transaction_date,total_amount\n"
    sales = (
        "t1,c1,2025-01-02,100\nt2,c1,2025-01-20,-130.5\nt3,c2,2025-01-05,40\nt4,c2,2025-02-01,-5\nt5,c2,2025-02-20,1\n"
    )
    shop = write_shop(tmp_path / "data", {"store_sales_header": header + sales}, 'spend = "net"\n[targets]\n')
    prepared = prepare_shop(shop, tmp_path / "out")
    days = [date(2025, 1, 2), date(2025, 2, 1)]
    floor = net_floor(prepared.purchases.get_backend(), prepared, days, ())
    assert floor["total"] == {"rows": 3, "floored_rows": 2, "floored_money": 34.5}
    assert net_floor(trained_shop.engine, trained_shop.prepared, days, ()) is None
    metadata = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    write_model_card(
        tmp_path / "card.md", {**metadata, "net_floor": floor}, trained_shop.report, trained_shop.prepared.report, ()
    )
    assert "purchases of total in 2 of 3 training windows" in (tmp_path / "card.md").read_text()
    assert "34.50 of returns" in (tmp_path / "card.md").read_text()


def test_the_prior_of_customers_who_never_bought_is_counted_over_those_who_were_there_and_waited(tmp_path):
    """On 10 January `quick` and `never` wait, on 10 February `slow` and `never`; `buyer` and `undated` never do."""
    customers = (
        "customer_id,customer_since\nquick,2025-01-01\nslow,2025-01-10\nnever,2025-01-01\nbuyer,2024-01-01\nundated,\n"
    )
    header = "transaction_id,customer_id,transaction_date,total_amount\n"
    sales = "t1,quick,2025-01-15,10\nt2,slow,2025-02-15,100\nt3,buyer,2025-01-02,7\nt4,buyer,2025-02-12,7\nt5,quick,2025-02-12,7\nt6,undated,2025-02-12,7\n"
    tables = {"customer_details": customers, "store_sales_header": header + sales}
    prepared = prepare_shop(write_shop(tmp_path / "data", tables, "[targets]\n"), tmp_path / "out")
    days = [date(2025, 1, 10), date(2025, 2, 10)]
    prior = never_bought_prior(prepared.purchases.get_backend(), prepared, days, ())
    assert prior == {
        "observations": 4,
        "spend": {"total": 27.5, "other": 27.5},
        "probability": 0.5,
        "upper": [100.0, 100.0],
    }


def test_the_card_calls_a_zero_without_any_observation_no_estimate(trained_shop, tmp_path):
    metadata = load_metadata(trained_shop.models, trained_shop.pair.bundle_id).content
    nobody = {"observations": 0, "spend": dict.fromkeys(metadata["never_bought"]["spend"], 0.0), "probability": 0.0}
    content = {**metadata, "never_bought": nobody}
    write_model_card(tmp_path / "card.md", content, trained_shop.report, trained_shop.prepared.report, ())
    assert "this is no estimate" in (tmp_path / "card.md").read_text()
    assert "mean of 0 past observations" not in (tmp_path / "card.md").read_text()


def test_nothing_personal_reaches_the_artifacts(trained_shop):
    for path in trained_shop.models.rglob("*"):
        if path.is_file():
            assert b"@example" not in path.read_bytes(), path


def test_two_runs_on_the_same_tables_give_the_same_bundle_and_snapshot(trained_shop, tmp_path):
    from ml_pipeline.engine import open_engine
    from ml_pipeline.prepare import prepare_dataset
    from ml_pipeline.progress import Progress
    from ml_pipeline.train import train
    from tests.ml_pipeline.conftest import SMALL

    engine = open_engine(tmp_path / "engine", threads=1)
    again = prepare_dataset(engine, trained_shop.tables, tmp_path / "work", progress=Progress(bars=False))
    pair, _ = train(engine, again, tmp_path / "models", SMALL, Progress(bars=False))
    engine.disconnect()
    assert pair == trained_shop.pair
