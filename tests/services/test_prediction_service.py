import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from config import ROOT
from ml_pipeline.bundle import ServingPair, write_pointer
from ml_pipeline.errors import BundleMismatch
from ml_pipeline.features import feature_names
from ml_pipeline.predictor import load_predictor
from ml_pipeline.snapshot import load_snapshot, write_snapshot
from services.errors import InvalidRequest, RequestTooLarge, UnknownCustomer
from services.ignored_inputs import MOST_LISTED
from services.model_registry import ModelRegistry
from services.prediction_service import BATCH_LIMIT, EXPLAINED_BATCH_LIMIT, PredictionService
from services.summary_answers import SummaryOptions
from services.summary_requests import SUMMARY_FIELDS
from tests.conftest import CUSTOMERS
from tests.ml_pipeline.booster_pair import PRIOR, write_booster_pair
from tests.ml_pipeline.toy_models import TARGETS

BUYERS = tuple(f"B{number:02d}" for number in range(30))


@pytest.fixture(scope="module")
def booster_models(tmp_path_factory):
    """A models folder with a pair that can be explained; read-only."""
    folder = tmp_path_factory.mktemp("boosters")
    write_booster_pair(folder, BUYERS, ["never"])
    return folder


@pytest.fixture
def explaining(booster_models):
    return PredictionService(ModelRegistry(booster_models))


def cents(money: float) -> int:
    return round(money * 100)


def test_an_answer_has_the_documented_fields_and_its_cents_add_up(services):
    answer = services.predictions.predict({"customer_id": CUSTOMERS[0]})
    spend = answer["predicted_30d_spend"]
    assert list(spend) == ["total", "electronics", "grocery", "sports", "other"]
    assert cents(spend["total"]) == sum(cents(money) for name, money in spend.items() if name != "total")
    assert set(answer) == {
        "customer_id", "predicted_30d_spend", "currency", "model_version", "model_info", "as_of", "horizon_days",
        "purchase_probability_30d", "intervals", "segment", "cold_start",
        "cold_start_reason", "extrapolated",
    }  # fmt: skip
    assert answer["model_info"] == {"trained_on": "2026-01-01", "num_features": len(feature_names(TARGETS))}
    assert set(answer["intervals"]["total"]) == {"lower", "upper"}


@pytest.mark.parametrize("value", ["12345", " 12345 ", "12345.0", 12345, 12345.0])
def test_an_id_is_found_as_text_or_number(services, value):
    assert services.predictions.predict({"customer_id": value})["customer_id"] == "12345"


def test_zeros_in_front_belong_to_the_id(services):
    assert services.predictions.predict({"customer_id": "00042"})["customer_id"] == "00042"
    with pytest.raises(UnknownCustomer):
        services.predictions.predict({"customer_id": 42})


@pytest.mark.parametrize("value", ["nobody", "C00001\0", "x" * 10_000, 10**400, -1, 1.5, "ü" * 100])
def test_an_unknown_id_is_named(services, value):
    with pytest.raises(UnknownCustomer, match="There is no customer"):
        services.predictions.predict({"customer_id": value})


@pytest.mark.parametrize("value", [None, "", "  ", "null", [], {}, True, False, math.nan, math.inf])
def test_what_is_no_id_is_refused(services, value):
    with pytest.raises(InvalidRequest):
        services.predictions.predict({"customer_id": value})


def test_raw_numbers_and_reasons_come_only_when_asked_for(explaining):
    assert not {"raw", "explanation"} & set(explaining.predict({"customer_id": "B01"}))
    answer = explaining.predict({"customer_id": "B01"}, explain=True)
    assert isinstance(answer["raw"]["xgboost_total_spend"], float)
    assert {"baseline", "reasons", "adjustment", "prediction", "contributions"} < set(answer["explanation"])


def test_two_ways_in_at_once_contradict_each_other(services):
    with pytest.raises(InvalidRequest, match="together") as caught:
        services.predictions.predict({"transactions": [], "recency": 3})
    assert type(caught.value) is InvalidRequest


def test_what_is_not_used_is_listed_with_the_reason(services):
    answer = services.predictions.predict({"customer_id": CUSTOMERS[0], "age": 30})
    assert [ignored["field"] for ignored in answer["ignored_inputs"]] == ["age"]


def test_a_batch_says_the_model_that_was_asked_for_else_the_one_that_answers_known_customers(explaining):
    serving = explaining.predict_batch(["B01"])["model_type"]
    asked = explaining.predict_batch(["B01", {"total_orders": 0}], options=SummaryOptions("bg_nbd"))["model_type"]
    assert (asked, serving != "bg_nbd") == ("bg_nbd", True)


def test_what_is_null_is_as_good_as_absent_in_every_way_in(services):
    nulls = dict.fromkeys((*SUMMARY_FIELDS, "transactions", "as_of", "customer_since", "age", "explain"))
    for way in ({"customer_id": CUSTOMERS[0]}, {"transactions": []}, {"total_orders": 0}):
        assert services.predictions.predict({**nulls, **way}) == services.predictions.predict(way)
        assert services.predictions.predict({"recency": " ", **way}) == services.predictions.predict(way)
    with pytest.raises(InvalidRequest, match="nothing of it is known"):
        services.predictions.predict(nulls)


@pytest.mark.parametrize("way", [{"customer_id": CUSTOMERS[0]}, {"total_orders": 0}, {"transactions": []}])
def test_of_very_many_unknown_fields_the_first_are_listed_and_the_others_counted(services, way):
    more = {f"{number}{'x' * 100}": 1 for number in range(1000)}
    listed = services.predictions.predict({**way, **more})["ignored_inputs"]
    assert len(listed) == MOST_LISTED + 1
    assert listed[0]["field"] == f"0{'x' * 39}"
    assert listed[-1]["field"] == f"and {1000 - MOST_LISTED} more"


@pytest.mark.parametrize("way", [{"total_orders": 0}, {"transactions": []}])
def test_an_id_that_is_only_given_back_may_be_absent_and_not_endless(services, way):
    for nothing in ({}, {"customer_id": None}, {"customer_id": " "}):
        assert services.predictions.predict({**way, **nothing})["customer_id"] is None
    with pytest.raises(InvalidRequest, match="of 100,000 characters"):
        services.predictions.predict({**way, "customer_id": "9" * 100_000})


def test_a_batch_answers_in_order_with_errors_in_place(services):
    batch = [
        CUSTOMERS[1],
        {"customer_id": CUSTOMERS[0]},
        "nobody",
        None,
        {"recency": -3},
        [1],
        12345,
        True,
        {"customer_id": "", "x": 1},
    ]
    result = services.predictions.predict_batch(batch)
    rows = result["predictions"]
    assert [row.get("error") for row in rows] == [
        None, None, "UnknownCustomer", "InvalidRequest", "InvalidRequest", "InvalidRequest", None, "InvalidRequest", "InvalidRequest",
    ]  # fmt: skip
    assert [row.get("customer_id") for row in rows[:3]] == [CUSTOMERS[1], CUSTOMERS[0], "nobody"]
    assert "customer_id" not in rows[7]
    assert (result["total_predictions"], result["successful"], result["failed"]) == (9, 3, 6)
    assert rows[1] == services.predictions.predict({"customer_id": CUSTOMERS[0]})


def test_what_is_no_id_is_not_given_back_as_one(services):
    rows = services.predictions.predict_batch([True, math.nan, math.inf, {"customer_id": False}, 1.5])["predictions"]
    assert [row.get("customer_id") for row in rows] == [None, None, None, None, "1.5"]


def test_an_empty_batch_is_answered_with_nothing(services):
    assert services.predictions.predict_batch([])["predictions"] == []


def test_a_batch_over_the_limit_is_refused(services):
    with pytest.raises(RequestTooLarge, match="10,000"):
        services.predictions.predict_batch(["C1"] * (BATCH_LIMIT + 1))


# ---- reasons


def accounts(answer):
    """(what is explained, the money that is served) of the total and of each part."""
    explanation, spend = answer["explanation"], answer["predicted_30d_spend"]
    yield explanation, spend["total"]
    assert list(explanation["by_target"]) == [name for name in spend if name != "total"]
    for name, account in explanation["by_target"].items():
        yield account, spend[name]


def test_baseline_reasons_and_adjustment_add_up_to_what_is_served_to_the_cent(explaining):
    for customer in BUYERS:
        for account, served in accounts(explaining.predict({"customer_id": customer}, explain=True)):
            parts = [account["baseline"], account["adjustment"], *(reason["amount"] for reason in account["reasons"])]
            assert sum(map(cents, parts)) == cents(served) == cents(account["prediction"])


def test_every_buyer_starts_at_one_baseline_and_next_to_nothing_is_left_to_adjust(explaining):
    answers = [explaining.predict({"customer_id": customer}, explain=True) for customer in BUYERS]
    for column in zip(*map(accounts, answers), strict=True):
        assert len({account["baseline"] for account, _served in column}) == 1
        assert column[0][0]["baseline"] > 0
        assert max(abs(account["adjustment"]) for account, _served in column) <= 0.02


def test_reasons_are_in_words_and_contributions_in_the_order_of_their_money(explaining):
    explanation = explaining.predict({"customer_id": BUYERS[3]}, explain=True)["explanation"]
    assert explanation["currency"] == "INR"
    assert explanation["reasons"]
    for reason in explanation["reasons"]:
        assert "_" not in reason["theme"] + reason["words"]
        assert set(reason["features"]) <= set(feature_names(TARGETS))
    amounts = [abs(one["amount"]) for one in explanation["contributions"]]
    assert amounts == sorted(amounts, reverse=True)
    assert min(amounts) >= 0.01


def test_who_never_bought_is_explained_by_the_prior_that_is_served(explaining):
    explanation = explaining.predict({"customer_id": "never"}, explain=True)["explanation"]
    assert (explanation["baseline"], explanation["prediction"]) == (PRIOR["total"], PRIOR["total"])
    assert [reason["words"] for reason in explanation["reasons"]] == [
        "has not bought yet: what such customers usually spend"
    ]
    assert explanation["contributions"] == []
    assert explanation["by_target"]["grocery"]["baseline"] == PRIOR["grocery"]


def test_a_batch_is_explained_as_each_alone(explaining):
    rows = explaining.predict_batch([BUYERS[5], "nobody", "never", BUYERS[0]], explain=True)["predictions"]
    assert rows[1]["error"] == "UnknownCustomer"
    for row, customer in ((0, BUYERS[5]), (2, "never"), (3, BUYERS[0])):
        assert rows[row] == explaining.predict({"customer_id": customer}, explain=True)


def test_a_batch_over_the_limit_of_what_is_explained_is_refused_with_the_way_out(explaining):
    assert explaining.predict_batch(["nobody"] * EXPLAINED_BATCH_LIMIT, explain=True)["failed"] == EXPLAINED_BATCH_LIMIT
    with pytest.raises(RequestTooLarge, match=r"1,001 entries; at most 1,000 are explained.*ml_pipeline\.explain"):
        explaining.predict_batch(["nobody"] * (EXPLAINED_BATCH_LIMIT + 1), explain=True)
    assert explaining.predict_batch(["nobody"] * (EXPLAINED_BATCH_LIMIT + 1))["failed"] == EXPLAINED_BATCH_LIMIT + 1


def test_what_was_served_is_explained_even_where_the_model_would_say_otherwise_now(booster_models, tmp_path):
    """As after an upgrade that rounds differently: the snapshot's total is 7.00 more than the bundle's."""
    folder = tmp_path / "models"
    pair = write_booster_pair(folder, BUYERS, [])
    snapshot, predictor = load_snapshot(folder, pair.snapshot_id), load_predictor(folder, pair.bundle_id)
    features = snapshot.features(range(len(BUYERS)))
    answers = predictor.predict(features)
    more = np.array([700, 0, 0, 0, 700])
    other = write_snapshot(
        folder, as_of=snapshot.as_of, bundle_id=pair.bundle_id, currency="INR", targets=TARGETS,
        raw_names=predictor.raw_names, customer_ids=BUYERS, features=features,
        answers=replace(answers, money=answers.money + more),
    )  # fmt: skip
    before = PredictionService(ModelRegistry(folder)).predict({"customer_id": "B07"}, explain=True)
    write_pointer(folder, ServingPair(pair.bundle_id, other))
    after = PredictionService(ModelRegistry(folder)).predict({"customer_id": "B07"}, explain=True)
    gap = [cents(one["explanation"]["adjustment"]) for one in (before, after)]
    assert gap[1] - gap[0] == 700
    assert after["explanation"]["prediction"] == after["predicted_30d_spend"]["total"]
    assert before["explanation"]["contributions"] == after["explanation"]["contributions"]


def test_a_bundle_with_a_damaged_member_answers_nothing(tmp_path):
    folder = tmp_path / "models"
    pair = write_booster_pair(folder, BUYERS, [])
    next((folder / "versions" / pair.bundle_id / "members").iterdir()).write_text("{}")
    with pytest.raises(BundleMismatch, match="missing or differs"):
        PredictionService(ModelRegistry(folder)).predict({"customer_id": BUYERS[0]})


def test_a_worker_that_scores_files_never_loads_a_booster(booster_models):
    program = f"""
import json, sys
from pathlib import Path
from ml_pipeline.bundle import read_pointer
from services.model_registry import ModelRegistry

folder = Path({str(booster_models)!r})
registry, pair = ModelRegistry(folder), read_pointer(folder)
def loaded():
    return sorted({{"xgboost", "lightgbm", "sklearn", "ml_pipeline.predictor"}} & set(sys.modules))
registry.open_ahead()
model = registry.pair(pair.bundle_id, pair.snapshot_id)
model.snapshot.columns(model.snapshot.positions(["B01", "never"]))
before = loaded()
registry.serving()
print(json.dumps([before, loaded()]))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before == []
    assert {"ml_pipeline.predictor", "xgboost"} <= set(after)


def test_what_the_first_history_would_wait_for_can_be_opened_before(services, monkeypatch):
    from services import history_answers, history_engines

    engines = history_engines.HistoryEngines()
    monkeypatch.setattr(history_answers, "ENGINES", engines)
    services.predictions.warm()
    (opened,) = engines._idle
    services.predictions.predict({"transactions": [{"transaction_date": "2025-12-01", "amount": 10}]})
    assert engines._idle == [opened]
    opened.backend.disconnect()


def test_warming_without_a_model_is_no_error(tmp_path):
    PredictionService(ModelRegistry(tmp_path)).warm()
