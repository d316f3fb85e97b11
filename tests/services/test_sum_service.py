import pytest

from services.errors import InvalidRequest, RequestTooLarge
from services.sum_service import IDS_LIMIT
from tests.conftest import CUSTOMERS


def totals(services, customers):
    return [services.predictions.predict({"customer_id": one})["predicted_30d_spend"]["total"] for one in customers]


def test_a_list_is_summed_over_distinct_known_customers(services):
    asked = [CUSTOMERS[0], CUSTOMERS[1], f" {CUSTOMERS[0]} ", 12345, "12345.0", 12345.0, "nobody", "nobody", "x" * 5000]
    answer = services.sums.sum({"customer_ids": asked})
    assert answer["customers"] == 3
    assert answer["unknown_ids"] == {"count": 2, "first": ["nobody", "x" * 40]}
    assert answer["predicted_30d_spend"]["total"] == round(sum(totals(services, [*CUSTOMERS[:2], "12345"])), 2)


def test_the_answer_has_the_documented_fields_and_nobodys_name(services):
    answer = services.sums.sum({"customer_ids": list(CUSTOMERS[:10])})
    assert list(answer) == [
        "customers", "predicted_30d_spend", "intervals", "coverage", "expected_buyers", "unknown_ids", "currency",
        "model_version", "as_of", "horizon_days",
    ]  # fmt: skip
    assert list(answer["intervals"]) == list(answer["predicted_30d_spend"])
    assert (answer["currency"], answer["as_of"], answer["horizon_days"]) == ("INR", "2026-01-01", 30)
    assert not any(customer in str(answer) for customer in CUSTOMERS[:10])


@pytest.mark.parametrize("request_body", [{}, {"all": True}])
def test_everyone_is_summed_when_nobody_is_named(services, request_body):
    answer = services.sums.sum(request_body)
    assert answer["customers"] == len(CUSTOMERS)
    assert answer["predicted_30d_spend"]["total"] == round(sum(totals(services, CUSTOMERS)), 2)
    assert answer == services.sums.sum({"customer_ids": list(CUSTOMERS)})


def test_an_empty_list_is_nobody_and_not_everyone(services):
    answer = services.sums.sum({"customer_ids": []})
    assert (answer["customers"], answer["predicted_30d_spend"]["total"]) == (0, 0)
    assert services.sums.sum({"customer_ids": ["nobody"]})["customers"] == 0


@pytest.mark.parametrize("name", ["High Value", " high value "])
def test_a_segment_is_summed(services, name):
    high = [one for one in CUSTOMERS if services.predictions.predict({"customer_id": one})["segment"] == "High Value"]
    answer = services.sums.sum({"segment": name})
    assert answer["customers"] == len(high)
    assert answer["predicted_30d_spend"]["total"] == round(sum(totals(services, high)), 2)


def test_one_customer_has_his_own_interval(services):
    alone = services.predictions.predict({"customer_id": CUSTOMERS[3]})
    together = services.sums.sum({"customer_ids": [CUSTOMERS[3]]})
    assert together["predicted_30d_spend"] == alone["predicted_30d_spend"]
    assert together["intervals"] == alone["intervals"]


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"customer_ids": ["1"], "segment": "High Value"}, "customer_ids and segment were sent together"),
        ({"segment": "High Value", "all": True}, "segment and all were sent together"),
        ({"all": False}, "all can only be true"),
        ({"all": 1}, "all can only be true"),
        ({"store": "S1"}, "store: a sum knows no such field"),
        ({"customer_ids": ["1"], "stores": 3}, "stores: a sum knows no such field"),
        ({"segment": "VIP"}, "segment is 'VIP'; it must be one of Low Value, Medium Value, High Value"),
        ({"segment": None}, "segment is not a text"),
        ({"customer_ids": None}, "customer_ids must be a list"),
        ({"customer_ids": "12345"}, "customer_ids must be a list"),
        (
            {"customer_ids": ["1", None]},
            'Entry 1 of customer_ids (counted from 0) is null. Leave it out. Send {"customer_ids": ',
        ),
        ({"customer_ids": [[1]]}, "Entry 0 of customer_ids (counted from 0): customer_id is a list"),
        ({"customer_ids": [True]}, "customer_id is a boolean"),
        ({"customer_ids": [" "]}, "customer_id is empty"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_words(services, request_body, said):
    with pytest.raises(InvalidRequest) as caught:
        services.sums.sum(request_body)
    assert said in str(caught.value)


def test_too_long_a_list_is_shown_the_way_out(services):
    with pytest.raises(RequestTooLarge, match=r"100,001 entries; at most 100,000 .* POST /bulk/predict"):
        services.sums.sum({"customer_ids": ["C1"] * (IDS_LIMIT + 1)})
    assert services.sums.sum({"customer_ids": [CUSTOMERS[0]] * IDS_LIMIT})["customers"] == 1
