import math
from fractions import Fraction

import numpy as np
import pytest

from ml_pipeline import customer_flags
from ml_pipeline.customer_flags import (
    AT_RISK,
    CATEGORY_LOYAL,
    CROSS_SELL,
    FLAGS,
    HIGH_VALUE,
    MULTI_CATEGORY_VIP,
    Flagged,
    flag_customers,
    flag_rules,
    whole_cents,
)
from ml_pipeline.errors import ImpossibleThreshold
from ml_pipeline.features import DAYS_FIRST_TO_LAST, DAYS_SINCE_LAST, TOTAL_PURCHASE_DAYS
from ml_pipeline.snapshot import SEGMENTS
from tests.ml_pipeline.habit_shop import Customer, HabitShop, habit_shop, random_customers

THREE = ("electronics", "grocery", "sports")
SHOPS = {
    "no category": (),
    "one category": ("food",),
    "two categories": ("food", "toys"),
    "three categories": THREE,
    "five categories": tuple("abcde"),
    "seven categories": tuple("abcdefg"),
    "twelve categories": tuple("abcdefghijkl"),
}
LIMITS = {  # of multi_category_vip, worked out by hand: so many categories, each with so many per cent
    0: (2, 20),
    1: (2, 20),
    2: (2, 20),
    3: (2, 20),
    5: (2, 16),
    7: (3, 12),
    12: (4, 7),
}


def flagged(shop: HabitShop, high_value_over: float | None = None) -> Flagged:
    rules = flag_rules(shop.snapshot, shop.content, high_value_over)
    return flag_customers(shop.snapshot, rules, shop.everyone)


def flags_of(folder, *customers: Customer, usual_shares=None) -> list[list[str]]:
    shop = habit_shop(folder, THREE, customers, usual_shares)
    return [[flag for flag, has in zip(FLAGS, row, strict=True) if has] for row in flagged(shop).flags]


def obvious_flags(shop: HabitShop, position: int, over: Fraction) -> tuple[set[str], str | None, str | None]:
    """The flags of one customer, his one category and the one to offer, by the definitions read one by one."""
    targets, found = shop.snapshot.targets, set()
    columns = {name: values[0] for name, values in shop.snapshot.columns([position]).items()}
    features = dict(zip(shop.content["features"], shop.snapshot.features([position])[0].tolist(), strict=True))
    total = Fraction(str(columns["predicted_total_spend"]))
    spend = {name: Fraction(str(columns[f"predicted_{name}_spend"])) for name in targets}
    probability = columns["purchase_probability_30d"]

    if total > over:
        found.add(HIGH_VALUE)
        categories, percent = LIMITS[len(targets)]
        if sum(money >= total * percent / 100 for money in spend.values()) >= categories:
            found.add(MULTI_CATEGORY_VIP)
    loyal_to = next((name for name in targets if spend[name] > total * 7 / 10), None)
    if loyal_to is not None:
        found.add(CATEGORY_LOYAL)
    offer, most = None, Fraction(0)
    for name, share in zip(targets, shop.content["usual_shares"], strict=False):
        usual = Fraction(round(share * 1000), 1000)
        lacking = total * usual - spend[name]
        if usual >= Fraction(5, 100) and spend[name] < total * usual / 5 and lacking > most:
            offer, most = name, lacking
    if offer is not None and probability >= 0.5:
        found.add(CROSS_SELL)
    if probability < 0.5 and not math.isnan(features[DAYS_SINCE_LAST]) and features[TOTAL_PURCHASE_DAYS] >= 3:
        usual_gap = Fraction(int(features[DAYS_FIRST_TO_LAST]), int(features[TOTAL_PURCHASE_DAYS]) - 1)
        if features[DAYS_SINCE_LAST] > 2 * usual_gap:
            found.add(AT_RISK)
    return found, loyal_to, offer if CROSS_SELL in found else None


@pytest.mark.parametrize("targets", SHOPS.values(), ids=SHOPS)
@pytest.mark.parametrize("over", [None, 25.0])
def test_flags_are_those_of_a_slow_obvious_loop(tmp_path, targets, over):
    customers = random_customers(300, len(targets) + 1, seed=len(targets))
    shop = habit_shop(tmp_path, targets, customers)
    found = flagged(shop, over)
    for position in shop.everyone.tolist():
        expected, loyal_to, offer = obvious_flags(shop, position, Fraction(str(over or 30.0)))
        assert {flag for flag in FLAGS if found.having(flag)[position]} == expected
        assert (found.loyal_to[position], found.offer[position]) == (
            targets.index(loyal_to) if loyal_to else -1,
            targets.index(offer) if offer else -1,
        )


def test_the_random_customers_have_every_flag_and_none(tmp_path):
    found = flagged(habit_shop(tmp_path, THREE, random_customers(300, 4, seed=3)))
    assert (found.flags.sum(axis=0) > 5).all()
    assert (~found.flags.any(axis=1)).any()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ((0, 0, 0, 3000), []),
        ((0, 0, 0, 3001), [HIGH_VALUE]),
        ((700, 100, 100, 100), []),
        ((701, 100, 100, 99), [CATEGORY_LOYAL]),
        ((100, 100, 100, 5000), [HIGH_VALUE]),
        ((800, 800, 0, 2400), [HIGH_VALUE, MULTI_CATEGORY_VIP]),
        ((800, 799, 0, 2401), [HIGH_VALUE]),
        ((800, 800, 0, 1400), []),
        ((0, 0, 0, 0), []),
    ],
)
def test_a_limit_that_is_only_reached_is_told_from_one_that_is_passed(tmp_path, parts, expected):
    assert flags_of(tmp_path, Customer(parts, probability=0.4)) == [expected]


@pytest.mark.parametrize(
    ("parts", "probability", "offer"),
    [
        ((49, 300, 300, 351), 0.5, 0),
        ((50, 300, 300, 350), 0.5, -1),
        ((49, 300, 300, 351), 0.49996, 0),
        ((49, 300, 300, 351), 0.49994, -1),
        ((0, 0, 0, 1000), 0.9, 1),
        ((1, 300, 0, 699), 0.9, 0),
        ((300, 300, 0, 400), 0.9, -1),
        ((0, 0, 0, 0), 0.9, -1),
    ],
)
def test_the_category_to_offer_is_usual_and_lacks_most(tmp_path, parts, probability, offer):
    shop = habit_shop(tmp_path, THREE, [Customer(parts, probability)], usual_shares=(0.25, 0.3, 0.049, 0.401))
    assert flagged(shop).offer.tolist() == [offer]


def test_a_category_that_is_not_offered_does_not_move_the_others(tmp_path):
    shop = habit_shop(tmp_path, THREE, [Customer((500, 500, 0, 0), 0.9)], usual_shares=(0.01, 0.4, 0.3, 0.29))
    assert flagged(shop).offer.tolist() == [2]


def test_of_equal_gaps_the_first_category_is_offered(tmp_path):
    shop = habit_shop(tmp_path, THREE, [Customer((500, 0, 0, 500), 0.9)])
    assert flagged(shop).offer.tolist() == [1]


@pytest.mark.parametrize(
    ("habit", "probability", "at_risk"),
    [
        ((21, 3, 20), 0.49, True),
        ((20, 3, 20), 0.49, False),
        ((21, 3, 20), 0.5, False),
        ((100, 2, 20), 0.1, False),
        ((21, 5, 40), 0.1, True),
        ((20, 5, 40), 0.1, False),
        ((np.nan, np.nan, np.nan), 0.0, False),
    ],
)
def test_at_risk_is_who_stays_away_for_longer_than_usual(tmp_path, habit, probability, at_risk):
    found = flags_of(tmp_path, Customer((0, 0, 0, 100), probability, habit))
    assert found == [[AT_RISK]] if at_risk else [[]]


def test_high_value_is_the_segment_unless_another_threshold_is_given(tmp_path):
    shop = habit_shop(tmp_path, THREE, random_customers(300, 4, seed=9))
    assert np.flatnonzero(flagged(shop).having(HIGH_VALUE)).tolist() == shop.snapshot.in_segment(SEGMENTS[-1]).tolist()
    assert flagged(shop, 5.0).having(HIGH_VALUE).sum() > flagged(shop).having(HIGH_VALUE).sum()


def test_a_threshold_in_whole_cents_decides_as_the_threshold_itself():
    rng = np.random.default_rng(5)
    amounts = np.arange(1, 1000) / 100
    around = [amounts, np.nextafter(amounts, 0), np.nextafter(amounts, np.inf), rng.random(300) * 1000]
    for threshold in [0.0, 1e9 / 3, 1e11, *np.concatenate(around)]:
        cents = whole_cents(float(threshold))
        assert cents / 100 <= threshold < (cents + 1) / 100


@pytest.mark.parametrize("threshold", [-0.01, math.nan, math.inf, 1e300])
def test_a_threshold_that_is_no_amount_is_refused(tmp_path, threshold):
    shop = habit_shop(tmp_path, THREE, [Customer((0, 0, 0, 0))])
    with pytest.raises(ImpossibleThreshold, match=r"high_value_over is .* from 0 to 100,000,000,000\. Leave it out"):
        flag_rules(shop.snapshot, shop.content, threshold)


def test_a_threshold_of_0_is_one(tmp_path):
    shop = habit_shop(tmp_path, THREE, [Customer((0, 0, 0, 0)), Customer((0, 0, 0, 1))])
    assert flagged(shop, 0.0).having(HIGH_VALUE).tolist() == [False, True]


def test_neither_order_nor_slices_nor_the_others_change_a_flag(tmp_path, monkeypatch):
    shop = habit_shop(tmp_path, THREE, random_customers(100, 4, seed=4))
    rules, whole = flag_rules(shop.snapshot, shop.content), flagged(shop)
    order = np.random.default_rng(1).permutation(100)
    monkeypatch.setattr(customer_flags, "ROWS_PER_SLICE", 7)
    shuffled = flag_customers(shop.snapshot, rules, order)
    for name in Flagged.__annotations__:
        np.testing.assert_array_equal(getattr(shuffled, name), getattr(whole, name)[order])
    alone = flag_customers(shop.snapshot, rules, order[:1])
    assert alone.flags[0].tolist() == shuffled.flags[0].tolist()


@pytest.mark.parametrize("targets", SHOPS.values(), ids=SHOPS)
def test_nobody_has_no_flags(tmp_path, targets):
    shop = habit_shop(tmp_path, targets, [])
    found = flagged(shop)
    assert found.flags.shape == (0, len(FLAGS))
    assert len(found.total) == 0


@pytest.mark.parametrize("cents", [0, 1000])
def test_where_all_are_predicted_alike_nobody_stands_out(tmp_path, cents):
    assert flags_of(tmp_path, *[Customer([cents] * 4)] * 5) == [[HIGH_VALUE, MULTI_CATEGORY_VIP] if cents else []] * 5


def test_definitions_have_the_numbers_that_decide(tmp_path):
    shop = habit_shop(tmp_path, THREE, [], usual_shares=(0.25, 0.3, 0.049, 0.401))
    shop.content["segments"]["thresholds"] = [10.0, 2931.00722952223]
    definitions = flag_rules(shop.snapshot, shop.content).definitions
    assert tuple(definitions) == FLAGS
    for flag, told in {
        HIGH_VALUE: ("above 2,931.00 INR", "30 days from 2026-01-01", "80 %", "High Value"),
        MULTI_CATEGORY_VIP: ("above 2,931.00 INR", "20 %", "at least 2 of the 3"),
        CATEGORY_LOYAL: ("More than 70 %", "other"),
        CROSS_SELL: ("50 % or more", "5 % in electronics", "6 % in grocery", "less than 5 % are not offered"),
        AT_RISK: ("3 days or more", "2 times", "under 50 %"),
    }.items():
        for words in told:
            assert words in definitions[flag]
    assert "in sports" not in definitions[CROSS_SELL]


def test_a_threshold_that_was_asked_for_is_told(tmp_path):
    shop = habit_shop(tmp_path, THREE, [])
    definition = flag_rules(shop.snapshot, shop.content, 1234.5).definitions[HIGH_VALUE]
    assert "above 1,234.50 INR" in definition
    assert "asked for" in definition
    assert "High Value" not in definition


@pytest.mark.parametrize(("targets", "impossible"), [((), 3), (("food",), 1), (("food", "toys"), 0)])
def test_a_shop_with_few_categories_is_told_which_flags_nobody_can_have(tmp_path, targets, impossible):
    shop = habit_shop(tmp_path, targets, [])
    definitions = flag_rules(shop.snapshot, shop.content).definitions
    nobody = [flag for flag in FLAGS if definitions[flag].startswith("Nobody: it takes")]
    assert nobody == [MULTI_CATEGORY_VIP, CATEGORY_LOYAL, CROSS_SELL][:impossible]


@pytest.mark.parametrize("n", [2, 3, 5, 12, 60])
def test_spend_spread_evenly_over_all_categories_is_that_of_a_multi_category_vip(tmp_path, n):
    shop = habit_shop(tmp_path, tuple(f"c{number}" for number in range(n)), [Customer([2000] * (n + 1))])
    assert flagged(shop).having(MULTI_CATEGORY_VIP).all()
