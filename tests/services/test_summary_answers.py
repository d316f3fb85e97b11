import datetime as dt
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline.btyd import BgNbd
from ml_pipeline.summary_members import SummaryMembers
from routes.summary_messages import DOCUMENTED_SUMMARY, EIGHTEEN_FIELD_SUMMARY, SummaryAnswer
from services.errors import InvalidRequest, ModelTypeAbsent, ServiceError
from services.model_registry import Model, ModelRegistry
from services.summary_answers import HORIZONS, SummaryOptions, longer_by, summary_answers
from services.summary_requests import SUMMARY_FIELDS
from tests.ml_pipeline.booster_pair import PRIOR, write_booster_pair
from tests.ml_pipeline.summary_boosters import summary_members
from tests.services.test_summary_requests import anything, consistent_summaries, plausible

quick = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
LONGER = [SummaryOptions(horizon_days=days) for days in HORIZONS]
UNKNOWN = "The expected purchases and the probabilities of being alive and of churn are null"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Model:
    """A small real pair whose summary model has every type; read-only."""
    return served_by(tmp_path_factory.mktemp("summaries"), summary_members())


@pytest.fixture(scope="module")
def rules_model(tmp_path_factory) -> Model:
    """One of a shop that is too young for models; read-only."""
    return served_by(tmp_path_factory.mktemp("rules"), None)


def served_by(folder, members: SummaryMembers | None) -> Model:
    write_booster_pair(folder, [f"B{number:02d}" for number in range(30)], ["never"], summary=members)
    return ModelRegistry(folder).serving()


def one_answer(model, request, **options):
    (answer,) = summary_answers(model, [request], SummaryOptions(**options))
    if isinstance(answer, ServiceError):
        raise answer
    return answer


def test_the_documented_request_is_answered_with_every_documented_field(model):
    answer = one_answer(model, DOCUMENTED_SUMMARY)
    assert set(answer) == set(SummaryAnswer.model_fields)
    assert SummaryAnswer.model_validate(answer).model_dump(exclude_unset=True) == answer
    assert (answer["customer_id"], answer["horizon_days"], answer["ignored_inputs"]) == ("CUST_001", 30, [])
    assert answer["predicted_clv"] == answer["predicted_30d_spend"]["total"] > 0
    interval = answer["intervals"]["total"]
    assert 0 <= interval["lower"] <= answer["predicted_clv"] <= interval["upper"]
    assert 0 < answer["probability_alive"] < 1
    assert answer["churn_probability"] == round(1 - answer["probability_alive"], 4)
    expected = [answer[f"expected_purchases_next_{days}_days"] for days in HORIZONS]
    assert 0 < expected[0] < expected[1] < expected[2]
    assert 0 <= answer["purchase_probability_30d"] <= 1
    assert answer["warnings"] == [
        "days_between_purchases is 36, but (tenure − recency) / (total_orders − 1) = (180 − 30) / 4 = 37.5; 37.5 was used."
    ]
    assert (answer["currency"], answer["as_of"], answer["model_version"]) == ("INR", "2026-01-01", model.version)
    assert dt.date.fromisoformat(answer["prediction_date"]) <= dt.datetime.now(dt.UTC).date()
    assert (answer["cold_start"], answer["cold_start_reason"]) == (False, None)
    json.dumps(answer, allow_nan=False)


def test_what_lies_outside_of_what_was_trained_on_is_named_with_its_value_and_the_trained_range(model):
    usual = {"total_orders": 3, "recency": 2, "tenure": 6, "monetary_value": 600}
    assert not one_answer(model, usual)["extrapolated"]
    assert "extrapolated_features" not in one_answer(model, usual)
    answer = one_answer(model, {**usual, "monetary_value": 0.03})
    assert answer["extrapolated"]
    assert {one["feature"]: one["value"] for one in answer["extrapolated_features"]} == {
        "lifetime_spend": 0.03,
        "avg_transaction_value": 0.01,  # derived
    }
    assert all(0.03 < low < high for low, high in (one["trained"] for one in answer["extrapolated_features"]))


def test_the_eighteen_fields_are_answered_and_their_category_counts(model):
    answer = one_answer(model, EIGHTEEN_FIELD_SUMMARY)
    assert answer["warnings"] == []
    assert [one["field"] for one in answer["ignored_inputs"]] == [
        "segment_id", "loyalty_status", "total_loyalty_points", "is_cold_start",
    ]  # fmt: skip
    unseen = one_answer(model, {**EIGHTEEN_FIELD_SUMMARY, "dominant_category": "Toys"})
    (warning,) = unseen["warnings"]
    assert warning.startswith("dominant_category is 'Toys', which is none of the categories that the model tells apart")
    assert one_answer(model, {**EIGHTEEN_FIELD_SUMMARY, "dominant_category": " GROCERY "})["warnings"] == []


@pytest.mark.parametrize("model_type", ["xgboost", "lightgbm", "bg_nbd"])
def test_the_model_that_is_asked_for_answers(model, model_type):
    answer = one_answer(model, DOCUMENTED_SUMMARY, model_type=model_type)
    assert answer["model_used"] == model_type
    assert answer["horizon_days"] == (365 if model_type == "bg_nbd" else 30)
    assert one_answer(model, DOCUMENTED_SUMMARY, model_type=model_type, horizon_days=90)["horizon_days"] == 90


def test_longer_horizons_are_anchored_to_the_thirty_days(model):
    by_days = {days: one_answer(model, DOCUMENTED_SUMMARY, horizon_days=days) for days in HORIZONS}
    month = by_days[30]
    for days, answer in by_days.items():
        assert answer["predicted_30d_spend"] == month["predicted_30d_spend"]
        times = month[f"expected_purchases_next_{days}_days"] / month["expected_purchases_next_30_days"]
        assert answer["predicted_clv"] == pytest.approx(month["predicted_clv"] * times, rel=1e-3)
    assert by_days[30]["predicted_clv"] < by_days[90]["predicted_clv"] < by_days[365]["predicted_clv"]


@quick
@given(st.lists(consistent_summaries(), min_size=1, max_size=8))
def test_any_part_of_a_real_history_is_answered_and_no_horizon_contradicts_another(model, requests):
    by_days = [summary_answers(model, requests, options) for options in LONGER]
    for month, *longer in zip(*by_days, strict=True):
        assert not isinstance(month, ServiceError), month
        assert json.loads(json.dumps(month, allow_nan=False)) == SummaryAnswer.model_validate(month).model_dump(
            exclude_unset=True
        )
        told = month["expected_purchases_next_30_days"] is not None
        assert told == all(isinstance(one, dict) for one in longer) == any(isinstance(one, dict) for one in longer)
        assert told == (not any(warning.startswith(UNKNOWN) for warning in month["warnings"]))
        if told:
            values = [one["predicted_clv"] for one in (month, *longer)]
            assert values == sorted(values)
            assert all(value <= values[0] * days / 30 + 0.01 for value, days in zip(values, HORIZONS, strict=True))


@quick
@given(
    st.lists(
        st.dictionaries(st.sampled_from([*SUMMARY_FIELDS, "customer_id", "odd"]), plausible | anything, max_size=8),
        max_size=8,
    )
)
def test_whatever_comes_is_answered_or_refused_in_its_place(model, requests):
    answers = summary_answers(model, requests)
    assert len(answers) == len(requests)
    for answer in answers:
        if not isinstance(answer, ServiceError):
            json.dumps(answer, allow_nan=False)
            assert answer["predicted_clv"] >= 0
            assert all(len(warning) < 700 for warning in answer["warnings"])


def test_one_alone_is_one_among_others(model):
    requests = [
        {
            "customer_id": number,
            "recency": number,
            "tenure": 3 * number,
            "total_orders": number,
            "monetary_value": 90 * number,
        }
        for number in range(1, 40)
    ]
    together = summary_answers(model, [*requests, {"recency": 5}, {"total_orders": 0}, {"recency": -1}])
    assert [answer["customer_id"] for answer in together[:39]] == [str(number) for number in range(1, 40)]
    assert together[:39] == [one_answer(model, request) for request in requests]
    assert isinstance(together[-1], InvalidRequest)


def test_what_bg_nbd_cannot_know_is_null_and_named(model):
    answer = one_answer(model, {"monetary_value": 900, "total_orders": 3, "recency": 10})
    assert [answer[f"expected_purchases_next_{days}_days"] for days in HORIZONS] == [None] * 3
    assert (answer["probability_alive"], answer["churn_probability"]) == (None, None)
    assert answer["warnings"] == [
        f"{UNKNOWN}: BG/NBD needs total_orders, recency, tenure, and tenure cannot be told from the request."
    ]
    unknown = one_answer(model, {"monetary_value": 900})
    assert "total_orders and recency and tenure cannot be told" in unknown["warnings"][0]
    assert unknown["cold_start"] is None


@pytest.mark.parametrize(
    "options", [{"horizon_days": 90}, {"model_type": "bg_nbd"}, {"model_type": "bg_nbd", "horizon_days": 30}]
)
def test_a_longer_horizon_and_bg_nbd_need_orders_recency_and_tenure(model, options):
    with pytest.raises(InvalidRequest, match="needs total_orders, recency, tenure, and tenure cannot be told"):
        one_answer(model, {"monetary_value": 900, "total_orders": 3, "recency": 10}, **options)
    with pytest.raises(InvalidRequest, match="this customer has 0 orders"):
        one_answer(model, {"total_orders": 0}, **options)
    derived = one_answer(model, {"total_orders": 3, "recency": 10, "days_between_purchases": 40}, **options)
    whole = one_answer(model, {"total_orders": 3, "recency": 10, "tenure": 90, "days_between_purchases": 40}, **options)
    assert derived == whole


@pytest.mark.parametrize(
    "request_body", [{"total_orders": 1, "recency": 10}, {"total_orders": 3, "recency": 9, "tenure": 9}]
)
def test_after_purchases_on_a_single_day_alive_is_one_by_definition_and_said(model, request_body):
    answer = one_answer(model, request_body, model_type="bg_nbd")
    assert (answer["probability_alive"], answer["churn_probability"]) == (1, 0)
    assert answer["warnings"][0].startswith("probability_alive is 1 by definition after ")
    assert answer["cold_start_reason"] == ("one_purchase" if request_body["total_orders"] == 1 else None)


def test_money_that_is_known_to_be_0_is_not_taken_for_unknown(model):
    known = {"total_orders": 4, "recency": 2, "tenure": 6}
    nothing, a_cent, unknown = (
        one_answer(model, {**known, **money}, model_type="bg_nbd", horizon_days=30)["predicted_clv"]
        for money in ({"monetary_value": 0}, {"monetary_value": 0.01}, {})
    )
    assert nothing == pytest.approx(a_cent, abs=0.02)
    assert unknown > 1.5 * nothing


def test_one_who_never_bought_is_answered_by_what_such_customers_did(model):
    answer = one_answer(model, {"customer_id": "new", "total_orders": 0, "monetary_value": 0, "tenure": 45})
    assert set(answer) == set(SummaryAnswer.model_fields) - {"extrapolated_features"}
    assert answer["predicted_clv"] == answer["predicted_30d_spend"]["total"] == PRIOR["total"]
    assert (answer["model_used"], answer["cold_start_reason"]) == ("never_bought", "never_bought")
    assert (answer["probability_alive"], answer["expected_purchases_next_365_days"]) == (None, None)
    assert "such customers 45 days after they registered" in answer["warnings"][0]
    assert answer["warnings"][1].startswith(UNKNOWN)


@pytest.mark.parametrize(
    ("tenure", "age"), [(30, "up_to_30_days"), (31, "31_to_90_days"), (400, "over_365_days"), (None, "unknown")]
)
def test_of_one_who_never_bought_tenure_is_the_time_since_the_registration(model, monkeypatch, tenure, age):
    ages = model.predictor.get().metadata.content["never_bought"]["ages"]
    monkeypatch.setitem(ages, age, {**ages[age], "probability": 0.77})
    assert one_answer(model, {"total_orders": 0, "tenure": tenure})["purchase_probability_30d"] == 0.77
    assert one_answer(model, {"total_orders": 0, "tenure": 200})["purchase_probability_30d"] == 0.1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model_type": "catboost"}, "model_type is 'catboost'; there are xgboost, lightgbm, bg_nbd, best"),
        ({"model_type": "random_forest"}, "there are xgboost, lightgbm, bg_nbd, best"),
        ({"horizon_days": 60}, "horizon_days is 60; it can be 30, 90 or 365"),
        ({"horizon_days": 0}, "horizon_days is 0"),
    ],
)
def test_options_that_there_are_not_are_refused(options, said):
    with pytest.raises(InvalidRequest) as refused:
        SummaryOptions(**options)
    assert said in str(refused.value)


def test_nobody_has_no_answers(model):
    assert summary_answers(model, []) == []


# ---- the ratio

rows = st.tuples(st.integers(0, 400), st.integers(1, 4000), st.integers(0, 6000))
parameters = st.tuples(*(st.floats(0.02, 20) for _ in range(2)), *(st.floats(0.02, 5) for _ in range(2)))


@quick
@given(st.lists(rows, min_size=1, max_size=20), parameters)
def test_the_ratio_is_finite_bounded_and_rises_with_the_horizon(histories, values):
    r, alpha, a, b = values
    bg_nbd = BgNbd(r, alpha, a, b, 0.0, 1)
    x = np.array([n for n, _, _ in histories], dtype=float)
    t_x = np.where(x > 0, [first for _, first, _ in histories], 0.0)
    T = t_x + [since for _, _, since in histories]
    expected = np.column_stack([bg_nbd.expected_purchases(x, t_x, T, days) for days in HORIZONS])
    quarter, year = longer_by(expected, 90), longer_by(expected, 365)
    assert np.isfinite(year).all()
    assert ((quarter >= 1) & (quarter <= 3) & (year >= quarter) & (year <= 365 / 30)).all()
    seen = expected[:, 0] > 1e-300
    assert year[seen] == pytest.approx(expected[seen, 2] / expected[seen, 0], rel=1e-6)


def test_where_no_purchase_is_expected_the_ratio_is_one():
    expected = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 5e-324], [5e-324, 5e-324, 1e-300], [0.1, 0.3, 0.6]])
    assert longer_by(expected, 90).tolist() == pytest.approx([1, 1, 1, 3])
    assert longer_by(expected, 365).tolist() == pytest.approx([1, 365 / 30, 365 / 30, 6])


def test_rounding_makes_no_longer_horizon_worth_less():
    expected = np.array([[0.2, 0.3, np.nextafter(0.3, 0)]])
    assert longer_by(expected, 365) >= longer_by(expected, 90)


# ---- shops that are too young for models


def test_a_bundle_of_rules_answers_the_thirty_days_and_names_what_it_lacks(rules_model):
    answer = one_answer(rules_model, DOCUMENTED_SUMMARY)
    assert answer["model_used"] not in ("xgboost", "lightgbm", "bg_nbd")
    assert answer["probability_alive"] is None
    assert any("too little history to train one for the serving bundle" in warning for warning in answer["warnings"])
    for options in ({"model_type": "xgboost"}, {"model_type": "bg_nbd"}, {"horizon_days": 90}):
        with pytest.raises(ModelTypeAbsent, match="is not to be had from the serving bundle"):
            one_answer(rules_model, DOCUMENTED_SUMMARY, **options)
