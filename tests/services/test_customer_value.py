import json
import random

import pytest

from ml_pipeline.errors import NoServingModel
from services.archetypes import ARCHETYPES
from services.customer_value import CustomerValues, purchase_probability
from services.errors import InvalidRequest
from services.insight_check import Wording
from services.insights import Insights
from services.model_registry import ModelRegistry
from services.summary_answers import summary_answers
from tests.ml_pipeline.booster_pair import write_booster_pair
from tests.services.test_insights import Writer

NAMES = ("total_spend", "avg_spend", "num_transactions", "total_units", "unique_products", "recency_days")
DOCUMENTED = {"customer_id": "13085", "features": [345.7, 49.3, 7, 12, 5, 4]}


@pytest.fixture(scope="module")
def registry(tmp_path_factory) -> ModelRegistry:
    folder = tmp_path_factory.mktemp("values")
    write_booster_pair(folder, [f"B{number:02d}" for number in range(30)], ["never"])
    return ModelRegistry(folder)


def values_of(registry, says=None) -> CustomerValues:
    return CustomerValues(registry, Insights(Writer(says, configured=says is not None)))


@pytest.fixture
def values(registry) -> CustomerValues:
    return values_of(registry)


def by_name(features) -> dict:
    return dict(zip(NAMES, features, strict=True))


def asked(values, *features):
    return values.predict({"customer_id": "1", "features": list(features)})


@pytest.mark.parametrize(
    ("recency", "transactions", "probability"),
    [
        (4, 7, 0.83),  # the documented example: 0.6 × 41/45 + 0.28 = 0.8267
        (0, 1, 0.64),
        (0, 10, 0.95),  # 1.0, cut off
        (0, 0, 0.60),
        (9, 5, 0.68),  # 0.48 + 0.2
        (30, 3, 0.32),
        (45, 10, 0.40),
        (44, 10, 0.41),
        (45, 1, 0.05),  # 0.04, raised
        (45, 2, 0.08),
        (400, 0, 0.05),
        (400, 500, 0.40),
        (22.5, 5, 0.50),
    ],
)
def test_the_chance_of_a_purchase_is_the_documented_rule_of_thumb(recency, transactions, probability):
    assert purchase_probability(recency, transactions) == probability


def test_the_documented_request_is_answered_with_every_documented_field(values):
    answer = values.predict(DOCUMENTED)
    assert list(answer) == [
        "customer_id", "predicted_future_spend_30d", "purchase_probability_30d", "customer_segment", "insight",
        "recommended_action", "insight_source", "archetype", "interval", "currency", "horizon_days", "model_version",
        "model_used", "extrapolated", "warnings",
    ]  # fmt: skip
    assert (answer["customer_id"], answer["purchase_probability_30d"]) == ("13085", 0.83)
    assert 0 <= answer["interval"]["lower"] <= answer["predicted_future_spend_30d"] <= answer["interval"]["upper"]
    assert answer["insight_source"] == "rules"
    assert all(warning.startswith("49.39 INR per purchase are less than") for warning in answer["warnings"])
    assert answer["archetype"] in ARCHETYPES
    json.dumps(answer, allow_nan=False)


def test_by_name_in_any_order_is_the_same_as_in_order(values):
    names = by_name(DOCUMENTED["features"])
    for features in (names, dict(reversed(names.items()))):
        assert values.predict({**DOCUMENTED, "features": features}) == values.predict(DOCUMENTED)


def test_the_spend_is_that_of_the_summary_way_in(values, registry):
    (summary,) = summary_answers(
        registry.serving(),
        [
            {
                "total_spend": 345.7,
                "avg_order_value": 49.3,
                "total_transactions": 7,
                "unique_products": 5,
                "recency_days": 4,
            }
        ],
    )
    units_unknown = summary["predicted_30d_spend"]["total"]
    found = values.predict(DOCUMENTED)
    assert found["model_used"] == summary["model_used"]
    assert found["predicted_future_spend_30d"] == pytest.approx(units_unknown, rel=0.5)
    assert found["model_version"] == summary["model_version"]


@pytest.mark.parametrize(
    ("customer_id", "told"), [(13085, "13085"), ("13085.0", "13085"), (13085.0, "13085"), (" 00042 ", "00042")]
)
def test_an_id_is_told_as_it_is_looked_up_elsewhere(values, customer_id, told):
    assert values.predict({**DOCUMENTED, "customer_id": customer_id})["customer_id"] == told


@pytest.mark.parametrize(
    ("request_body", "said"),
    [
        ({"features": DOCUMENTED["features"]}, "customer_id is missing. Send {"),
        ({"customer_id": None, "features": DOCUMENTED["features"]}, "customer_id is missing"),
        ({"customer_id": True, "features": DOCUMENTED["features"]}, "customer_id is a boolean"),
        ({"customer_id": " ", "features": DOCUMENTED["features"]}, "customer_id is empty"),
        ({"customer_id": "9" * 5000, "features": DOCUMENTED["features"]}, "of 5,000 characters"),
        ({"customer_id": "1"}, "features is missing. Send {"),
        ({"customer_id": "1", "features": None}, "features is missing"),
        ({"customer_id": "1", "features": "345.7"}, "features is a text"),
        ({"customer_id": "1", "features": []}, "features has 0 entries"),
        ({"customer_id": "1", "features": [1, 1, 1, 1, 1]}, "features has 5 entries"),
        ({"customer_id": "1", "features": [1, 1, 1, 1, 1, 1, 1]}, "features has 7 entries"),
        ({"customer_id": "1", "features": [1, 1, True, 1, 1, 1]}, "num_transactions is a boolean"),
        ({"customer_id": "1", "features": [-1, 1, 1, 1, 1, 1]}, "total_spend is -1"),
        ({"customer_id": "1", "features": [1, 1, 1, 1, 1, -4]}, "recency_days is -4"),
        ({"customer_id": "1", "features": [1, 1, 1.5, 1, 1, 1]}, "num_transactions is 1.5"),
        ({"customer_id": "1", "features": [1, 1, 1, 1, "five", 1]}, "unique_products is 'five'"),
        ({"customer_id": "1", "features": [1, 1, 1, None, 1, 1]}, "total_units is null"),
        ({"customer_id": "1", "features": {**by_name([1] * 6), "age": 3}}, "features has age"),
        ({"customer_id": "1", "features": {"total_spend": 1}}, "features lacks avg_spend"),
    ],
)
def test_what_cannot_be_is_refused_with_its_name_and_the_way_out(values, request_body, said):
    with pytest.raises(InvalidRequest) as caught:
        values.predict(request_body)
    assert said in str(caught.value)


def test_money_that_does_not_fit_is_answered_with_a_warning(values):
    answer = asked(values, 1000, 500, 4, 8, 3, 10)
    assert len(answer["warnings"]) == 1
    assert "total_spend is 1000" in answer["warnings"][0]


def test_money_at_another_scale_than_the_shops_is_answered_with_a_warning(values):
    (little,), (much,) = (asked(values, 3 * each, each, 3, 8, 3, 10)["warnings"] for each in (0.02, 50_000))
    assert little.startswith("0.02 INR per purchase are less than 99 % of the shop's customers spend per purchase (")
    assert much.startswith(
        "50,000 INR per purchase are more than 99 % of the shop's customers spend per purchase (up to "
    )
    assert much.endswith(
        "Check that the money is in INR: what is predicted is learned from customers who spend at the shop's scale."
    )


def test_what_is_sent_beside_the_six_is_said_not_to_be_used(values):
    answer = values.predict({**DOCUMENTED, "name": "Ann"})
    assert answer["ignored_inputs"] == [{"field": "name", "reason": "Only the six features are used."}]
    assert "Ann" not in json.dumps(answer)


def test_who_has_not_bought_yet_is_told_so(values):
    answer = asked(values, 0, 0, 0, 0, 0, 0)
    assert (answer["archetype"], answer["model_used"]) == ("no_purchase_yet", "never_bought")
    assert answer["insight"].startswith("No purchase yet")
    assert (answer["purchase_probability_30d"], answer["predicted_future_spend_30d"]) == (0.05, 40.0)


def test_numbers_do_not_depend_on_who_words_them(registry, values):
    said = Wording("Buys at times.", "Write.")
    for says in (said, RuntimeError("away")):
        worded = values_of(registry, says).predict(DOCUMENTED)
        plain = values.predict(DOCUMENTED)
        words = {"insight", "recommended_action", "insight_source"}
        assert {k: v for k, v in worded.items() if k not in words} == {k: v for k, v in plain.items() if k not in words}
        assert worded["insight_source"] == ("language_model" if says is said else "rules")


def test_the_language_model_is_not_told_who_it_is(registry):
    writer = Writer(None)
    CustomerValues(registry, Insights(writer)).predict({**DOCUMENTED, "customer_id": "ann@example.com", "name": "Ann"})
    ((facts, task),) = writer.asked
    assert "ann" not in (json.dumps(facts) + task).casefold()


def test_everyone_who_can_be_is_answered(values):
    draw = random.Random(3)
    for _ in range(60):
        spend, transactions = 10 ** draw.uniform(-2, 7), draw.choice([1, 2, 3, 10, 500])
        answer = asked(
            values, spend, spend / transactions, transactions, draw.randint(0, 900), 1, draw.choice([0, 30, 5000])
        )
        assert answer["predicted_future_spend_30d"] >= 0
        assert answer["insight"]
        assert answer["recommended_action"]
    assert answer["customer_segment"] in ("Low Value", "Medium Value", "High Value")


def test_without_a_model_the_request_is_still_checked_first(tmp_path):
    values = values_of(ModelRegistry(tmp_path))
    with pytest.raises(InvalidRequest):
        asked(values, 1, 1)
    with pytest.raises(NoServingModel):
        values.predict(DOCUMENTED)
