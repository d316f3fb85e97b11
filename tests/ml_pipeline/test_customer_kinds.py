"""Five customers of the sample shop that anybody would tell apart, at the shop's own scale of money."""

import numpy as np
import pytest

from config import load_settings
from ml_pipeline.features import LIFETIME_SPEND, TOTAL_TRANSACTIONS
from services.archetypes import AT_RISK, HABITUAL, HIGH_VALUE_ACTIVE, LOW_VALUE_INACTIVE, NEW
from services.customer_value import CustomerValues
from services.insights import Insights
from services.language_model import LanguageModel
from services.model_registry import ModelRegistry


@pytest.fixture(scope="module")
def answers(trained_shop):
    """By kind: the answer to six numbers, whose money is in multiples of what customers of this shop spend."""
    known = trained_shop.snapshot.features(np.arange(trained_shop.snapshot.n_customers))
    names = trained_shop.predictor.metadata.features
    spend, purchases = known[:, names.index(LIFETIME_SPEND)], known[:, names.index(TOTAL_TRANSACTIONS)]
    much, often = float(np.nanquantile(spend, 0.95)), int(np.nanquantile(purchases, 0.9))
    usual = float(np.nanmedian(spend / purchases))
    six = {
        HIGH_VALUE_ACTIVE: [much, much / often, often, 3 * often, 25, 3],
        AT_RISK: [much, much / often, often, 3 * often, 25, 150],
        NEW: [usual, usual, 1, 2, 2, 4],
        HABITUAL: [usual / 3 * often, usual / 3, often, often, 12, 2],
        LOW_VALUE_INACTIVE: [usual, usual / 2, 2, 3, 2, 300],
    }
    values = CustomerValues(ModelRegistry(trained_shop.models), Insights(LanguageModel(load_settings({}))))
    return {kind: values.predict({"customer_id": "1", "features": features}) for kind, features in six.items()}


def test_each_is_told_as_what_it_is(answers):
    assert {kind: answer["archetype"] for kind, answer in answers.items()} == {kind: kind for kind in answers}


def test_each_has_an_insight_and_an_action_of_its_own(answers):
    for name in ("insight", "recommended_action"):
        assert len({answer[name] for answer in answers.values()}) == len(answers)


def test_segments_follow_what_is_to_be_expected(answers):
    segments = {kind: answer["customer_segment"] for kind, answer in answers.items()}
    assert segments[HIGH_VALUE_ACTIVE] == "High Value"
    assert segments[LOW_VALUE_INACTIVE] == "Low Value"
    assert segments[AT_RISK] != "High Value"
    assert len(set(segments.values())) > 1


def test_the_active_are_expected_to_spend_more_than_those_who_stay_away(answers):
    spend = {kind: answer["predicted_future_spend_30d"] for kind, answer in answers.items()}
    assert spend[HIGH_VALUE_ACTIVE] > 2 * spend[AT_RISK]
    assert spend[HIGH_VALUE_ACTIVE] > spend[HABITUAL] > spend[LOW_VALUE_INACTIVE]
    assert spend[NEW] > spend[LOW_VALUE_INACTIVE]
