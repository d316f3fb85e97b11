import math
import random

import pytest

from ml_pipeline.customer_flags import AT_RISK, CATEGORY_LOYAL, CROSS_SELL, FLAGS
from ml_pipeline.snapshot import SEGMENTS
from services.archetypes import ARCHETYPES, NOBODY, Described, Population
from services.insight_check import refusal
from services.insight_facts import CustomerFacts, GroupFacts, Part, amount
from services.insight_question import fit_facts
from services.insight_rules import OF_ARCHETYPE, customer_wording, group_wording, percent
from services.insights import CUSTOMER_TASK, GROUP_TASK

SHOP = Population(
    half_spend=1000.0,
    high_spend=5000.0,
    often=10.0,
    usual_value=100.0,
    least_value=5.0,
    most_value=900.0,
    gaps=(26, 24, 23, 18, 13, 8, 1),
)
NONE_OF_THEM = dict.fromkeys(FLAGS, Part(0, 0.0))


def facts_of(customer: Described, shop: Population = SHOP, **more) -> CustomerFacts:
    known = {
        "archetype": shop.archetype(customer),
        "segment": SEGMENTS[1],
        "customer": customer,
        "predicted": 812.4,
        "lower": 90.55,
        "upper": 2410.0,
        "probability": 0.83,
        "usual_gap": shop.usual_gap(customer.transactions),
        "away_after": shop.away_after(customer.transactions),
        "spent_more": customer.total_spend > shop.high_spend,
        "bought_more": customer.transactions > shop.often,
        "extrapolated": False,
        "currency": "INR",
    }
    return CustomerFacts(**{**known, **more})


def any_customer(draw: random.Random) -> CustomerFacts:
    transactions = draw.choice([0, 1, 1, 2, 3, 5, 9, 11, 40, 200])
    spend = round(10 ** draw.uniform(-1, 6), draw.choice([0, 1, 2, 3])) if transactions else 0.0
    customer = Described(
        total_spend=spend,
        average_spend=spend / max(transactions, 1),
        transactions=transactions,
        units=draw.choice([0, 1, 2.5, 400]),
        products=draw.choice([0, 1, 7, 1200]),
        days_since_last=draw.choice([0, 0.2, 1, 3.5, 12.5, 30, 100, 900]) if transactions else math.inf,
    )
    predicted = round(10 ** draw.uniform(-2, 6), 2)
    return facts_of(
        customer,
        segment=draw.choice(SEGMENTS),
        predicted=predicted,
        lower=round(predicted * draw.random(), 2),
        upper=round(predicted * (1 + draw.random()), 2),
        probability=draw.randint(5, 95) / 100,
        extrapolated=draw.random() < 0.3,
        currency=draw.choice(["INR", "EUR", "USD"]),
    )


def group(customers: int = 100, predicted: float = 1000.0, **more) -> GroupFacts:
    known = {
        "customers": customers,
        "currency": "INR",
        "as_of": "2026-05-01",
        "predicted": predicted,
        "lower": round(0.8 * predicted, 2),
        "upper": round(1.3 * predicted, 2),
        "average": round(predicted / customers, 2),
        "buyers": round(0.4 * customers, 2),
        "targets": {"grocery": 0.6 * predicted, "home_garden": 0.0, "other": 0.4 * predicted},
        "segments": {name: Part(0, 0.0) for name in SEGMENTS},
        "flags": NONE_OF_THEM,
        "offer": None,
        "loyal_to": None,
    }
    return GroupFacts(**{**known, **more})


def any_group(draw: random.Random) -> GroupFacts:
    customers = draw.choice([1, 2, 3, 10, 1240, 2_000_000])
    predicted = round(customers * 10 ** draw.uniform(-1, 4), 2)
    low, medium = sorted(draw.randint(0, customers) for _ in range(2))
    best = round(predicted * draw.random(), 2) if medium < customers else 0.0

    def part() -> Part:
        return Part(draw.randint(0, customers), round(predicted * draw.random(), 2))

    return group(
        customers,
        predicted,
        buyers=round(customers * draw.choice([0, draw.random(), 0.05, 0.997, 1]), 2),
        segments=dict(
            zip(SEGMENTS, (Part(low, 0.0), Part(medium - low, 0.0), Part(customers - medium, best)), strict=True)
        ),
        flags={flag: draw.choice([part(), Part(0, 0.0)]) for flag in FLAGS},
        offer=draw.choice([None, "grocery", "home_garden"]),
        loyal_to=draw.choice([None, "grocery"]),
    )


def test_the_rules_state_no_number_that_is_not_among_the_facts():
    draw, seen = random.Random(5), set()
    for _ in range(700):
        facts = any_customer(draw)
        wording = customer_wording(facts)
        seen.add(facts.archetype)
        assert refusal(wording, fit_facts(facts.as_json()), CUSTOMER_TASK) is None, wording
    assert seen == set(ARCHETYPES)


def test_the_rules_on_groups_state_no_number_that_is_not_among_the_facts():
    draw, begun = random.Random(6), set()
    for _ in range(700):
        facts = any_group(draw)
        wording = group_wording(facts)
        begun.add(wording.recommended_action.split()[0])
        assert refusal(wording, fit_facts(facts.as_json()), GROUP_TASK) is None, wording
    assert begun == {"Begin", "Keep", "Look", "Make"}


def test_the_check_would_find_an_invented_number():
    facts = facts_of(Described(900.0, 300.0, 3, 4, 2, 5))
    said = customer_wording(facts)
    invented = type(said)(said.insight, f"{said.recommended_action} Give 15 % off.")
    assert refusal(invented, fit_facts(facts.as_json()), CUSTOMER_TASK) == "number"


def test_a_text_has_its_numbers_with_currency_and_without_false_precision():
    said = customer_wording(facts_of(Described(2640.5, 132.025, 20, 4, 2, 61), extrapolated=True))
    assert said.insight == (
        "A valuable customer who stays away: 2,640 INR in 20 purchases, but last bought 61 days ago, where customers with "
        "about as many usually buy every 13 days. Predicted for the next 30 days: 812 INR (90.55 INR to 2,410 INR), Medium "
        "Value; the chance of a purchase is 83 %. The figures lie outside of what was trained on: take the prediction as "
        "rough."
    )


def test_what_is_usual_is_left_out_where_it_is_not_known():
    said = customer_wording(facts_of(Described(90.0, 30.0, 3, 4, 2, 5), NOBODY))
    assert said.insight.startswith("A steady customer: 90.00 INR in 3 purchases, last bought 5 days ago. Predicted")


def test_every_kind_of_customer_has_its_own_insight_and_action():
    said = [kind(facts_of(Described(90.0, 30.0, 3, 4, 2, 5))) for kind in OF_ARCHETYPE.values()]
    assert set(OF_ARCHETYPE) == set(ARCHETYPES)
    assert len({insight for insight, _action in said}) == len({action for _insight, action in said}) == len(ARCHETYPES)


def test_no_fact_says_who_the_customer_is():
    names = set(facts_of(Described(90.0, 30.0, 3, 4, 2, 5)).as_json()) | set(group().as_json())
    assert not any(part in name for name in names for part in ("customer_id", "name", "mail", "phone"))


# ---- groups


def flags(**counts) -> dict[str, Part]:
    return {**NONE_OF_THEM, **{flag: Part(count, 0.0) for flag, count in counts.items()}}


BEST = {SEGMENTS[0]: Part(60, 50.0), SEGMENTS[1]: Part(20, 400.0), SEGMENTS[2]: Part(20, 550.0)}


@pytest.mark.parametrize(
    ("facts", "begins"),
    [
        (
            group(flags=flags(**{AT_RISK: 20}), segments=BEST),
            "Begin with winning back: a personal message to 20 customers",
        ),
        (group(flags=flags(**{AT_RISK: 19}), segments=BEST), "Look after 20 customers of the segment High Value"),
        (group(buyers=9.9, segments=BEST), "Keep the cost low: try a reactivation mailing"),
        (group(flags=flags(**{CROSS_SELL: 20}), offer="home_garden"), "Make offers across categories to 20 customers"),
        (group(flags=flags(**{CROSS_SELL: 19}), offer="home_garden"), "Keep to the regular mailings"),
        (group(flags=flags(**{CATEGORY_LOYAL: 30}), loyal_to="grocery"), "Make offers by category: 30 customers"),
        (group(predicted=0.0), "Keep to the regular mailings"),
    ],
)
def test_what_to_begin_with_follows_from_what_stands_out(facts, begins):
    assert group_wording(facts).recommended_action.startswith(begins)


def test_a_group_is_told_with_its_interval_its_best_and_its_largest_category():
    assert group_wording(group(segments=BEST, flags=flags(**{AT_RISK: 1}))).insight == (
        "100 customers are predicted to spend 1,000 INR (800 INR to 1,300 INR) in the 30 days from 2026-05-01 on; about 40 "
        "of them (40 %) will buy at all. 20 customers of the segment High Value stand for 550 INR of it. Of the categories "
        "grocery is the largest with 600 INR. 1 customer is at risk of staying away."
    )


def test_a_single_customer_is_told_in_the_singular():
    assert group_wording(group(customers=1, buyers=0.4)).insight.startswith(
        "1 customer is predicted to spend 1,000 INR (800 INR to 1,300 INR) in the 30 days from 2026-05-01 on; the chance of a "
        "purchase is 40 %."
    )


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0 INR"), (0.01, "0.01 INR"), (49.3, "49.30 INR"), (99.99, "99.99 INR"), (1234.5, "1,234 INR")],
)
def test_amounts_have_no_hundredths_from_a_hundred_on(value, said):
    assert amount(value, "INR") == said


@pytest.mark.parametrize(
    ("probability", "said"),
    [
        (0.0, "0 %"),
        (0.0004, "0.04 %"),
        (0.042, "4.2 %"),
        (0.05, "5 %"),
        (0.83, "83 %"),
        (0.9987, "99.87 %"),
        (1.0, "100 %"),
    ],
)
def test_a_chance_is_never_rounded_to_none_or_to_certainty(probability, said):
    assert percent(probability) == said
