import math
from dataclasses import replace

import numpy as np
import pytest

from ml_pipeline.features import feature_names
from ml_pipeline.summary_columns import COLUMN_OF_INPUT
from services.archetypes import (
    ARCHETYPES,
    AT_RISK,
    HABITUAL,
    HIGH_VALUE_ACTIVE,
    LOW_VALUE_INACTIVE,
    NEW,
    NO_PURCHASE_YET,
    NOBODY,
    STEADY,
    Described,
    Population,
    population_of,
)

NAMES = feature_names(("grocery",))
SHOP = Population(
    half_spend=1000.0,
    high_spend=5000.0,
    often=10.0,
    usual_value=100.0,
    least_value=5.0,
    most_value=900.0,
    gaps=(40, 35, 30, 20, 10, 5, 2),
)


class Customers:
    """A snapshot of nothing but features."""

    def __init__(self, rows):
        self.rows = np.full((len(rows), len(NAMES)), np.nan, dtype=np.float32)
        for row, known in zip(self.rows, rows, strict=True):
            for name, value in known.items():
                row[NAMES.index(COLUMN_OF_INPUT[name])] = value

    @property
    def n_customers(self):
        return len(self.rows)

    def features(self, positions):
        return self.rows[positions]


def bought(spend, transactions, gap=math.nan):
    return {
        "total_spend": spend,
        "transactions": transactions,
        "avg_transaction_value": spend / transactions,
        "avg_days_between": gap,
    }


def customer(spend, transactions, days_since_last, average=None):
    average = spend / max(transactions, 1) if average is None else average
    return Described(spend, average, transactions, 2.0 * transactions, transactions, days_since_last)


@pytest.mark.parametrize(
    ("described", "archetype"),
    [
        (customer(6000, 20, 3), HIGH_VALUE_ACTIVE),
        (customer(6000, 20, 30), HIGH_VALUE_ACTIVE),
        (customer(6000, 20, 31), AT_RISK),  # twice 10 days, but nobody is away before 30
        (customer(1001, 3, 71), AT_RISK),
        (customer(1001, 3, 70), STEADY),  # twice 35 days
        (customer(800, 11, 41), AT_RISK),  # little money, but often
        (customer(1000, 10, 41), LOW_VALUE_INACTIVE),
        (customer(50, 1, 200), LOW_VALUE_INACTIVE),
        (customer(50, 1, 30), NEW),
        (customer(9000, 2, 0), NEW),
        (customer(50, 2, 31), STEADY),
        (customer(50, 3, 5), STEADY),
        (customer(1100, 11, 5), HABITUAL),
        (customer(1101, 11, 5), STEADY),  # more than usual per purchase
        (customer(5000, 100, 5), HABITUAL),
        (customer(5001, 100, 5), HIGH_VALUE_ACTIVE),
        (customer(0, 0, math.inf), NO_PURCHASE_YET),
    ],
)
def test_every_customer_is_of_the_first_kind_that_fits(described, archetype):
    assert SHOP.archetype(described) == archetype


def test_where_nobody_bought_yet_everyone_still_is_of_a_kind():
    kinds = {NOBODY.archetype(customer(1e6, n, days)) for n in (0, 1, 5, 500) for days in (0, 31, 5000)}
    assert kinds == {NO_PURCHASE_YET, NEW, STEADY, LOW_VALUE_INACTIVE}
    assert kinds < set(ARCHETYPES)
    assert (NOBODY.usual_gap(3), NOBODY.away_after(3)) == (None, 30)


@pytest.mark.parametrize(
    ("transactions", "gap", "away"),
    [(1, 40, 80), (2, 40, 80), (3, 35, 70), (4, 35, 70), (5, 30, 60), (32, 10, 30), (64, 5, 30), (65, 2, 30)],
)
def test_the_usual_gap_is_that_of_customers_with_about_as_many_purchases(transactions, gap, away):
    assert (SHOP.usual_gap(transactions), SHOP.away_after(transactions)) == (gap, away)


def test_nobody_waits_longer_than_half_a_year_for_being_away():
    assert replace(SHOP, gaps=(400,) * 7).away_after(1) == 180


def test_what_is_usual_is_learned_from_those_who_have_bought():
    rows = [bought(spend, 2, gap=10) for spend in range(100)] + [{}] * 50
    found = population_of(Customers(rows), NAMES)
    assert found.half_spend == pytest.approx(49.5)
    assert found.high_spend == pytest.approx(79.2)
    assert (found.often, found.usual_value) == (2.0, pytest.approx(24.75))
    assert (found.least_value, found.most_value) == (pytest.approx(0.495), pytest.approx(49.005))
    assert found.gaps == (10,) * 7


def test_gaps_of_few_alike_are_those_of_all():
    often, seldom, few = [bought(9, 9, gap=3)] * 60, [bought(2, 2, gap=50)] * 40, [bought(70, 70, gap=1)] * 19
    assert population_of(Customers(often + seldom + few), NAMES).gaps == (50, 3, 3, 3, 3, 3, 3)


def test_a_shop_in_which_nobody_bought_twice_has_no_usual_gap():
    assert population_of(Customers([bought(5, 1)] * 30), NAMES).gaps is None
    assert population_of(Customers([{}] * 3), NAMES) is NOBODY


def test_a_large_shop_is_looked_at_evenly(monkeypatch):
    monkeypatch.setattr("services.archetypes.MOST_LOOKED_AT", 10)
    rows = [bought(spend, 2, gap=5) for spend in range(95)]
    assert population_of(Customers(rows), NAMES).half_spend == 45.0  # the median of 0, 10, 20, … 90
