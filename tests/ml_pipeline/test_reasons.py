import itertools
import math
import re
from datetime import date

import numpy as np
import pytest

from ml_pipeline.calendar_features import TargetDaysToYearEnd, TargetMonthCos, TargetMonthSin
from ml_pipeline.features import feature_names, feature_set
from ml_pipeline.reasons import EVERYTHING_ELSE, NOT_BOUGHT_YET, explain_customers, tell, themes_of
from ml_pipeline.reconcile import cents_that_add_up
from ml_pipeline.schema import DatasetConfig
from ml_pipeline.wording import Occasion, money, number, pace, share

OCCASION = Occasion("INR", date(2026, 1, 1))
SETTINGS = [
    (),
    DatasetConfig().target_names,
    ("home_garden",),
    tuple(f"target_{number}" for number in range(12)),
]
VALUES = {
    "0 or 1": (0.0, 1.0),
    "0 to 6": (0.0, 1.0, 6.0),
    "-1 to 1": (-1.0, 0.0, 0.5, 1.0),
    "share": (0.0, 0.004, 0.37, 0.999, 1.0),
}
NOUN = "(?:day|weekend day|item|time|product|store|categorie|category)"
NUMBERS = (0.0, 0.37, 1.0, 1.04, 2.0, 9.96, 14.0, 3410.256, 1_234_567.0)


def values_of(feature):
    """Zero, one and what else occurs, by the feature's unit."""
    typical = VALUES.get(feature.unit, NUMBERS)
    return (*typical, -4.0, -1.0) if feature.name == "days_until_due" else typical


def all_features():
    return {feature.name: feature for targets in SETTINGS for feature in feature_set(targets)}.values()


def words(name, value, targets=("grocery", "sports")):
    features = {feature.name: feature for feature in feature_set(targets)}
    return features[name].words(value, OCCASION)


# ---- words


@pytest.mark.parametrize("feature", all_features(), ids=lambda feature: feature.name)
def test_every_feature_says_every_value_in_words(feature):
    columns = {name for targets in SETTINGS for name in feature_names(targets)}
    for value in (*values_of(feature), math.nan):
        said = feature.words(value, OCCASION)
        assert said == said.strip()
        assert said
        assert "nan" not in said.split()
        assert "_" not in said
        assert not columns & set(said.split())
        assert not re.search(r"\d\.\d{3,}", said), f"{said}: more decimals than people read"
        assert not re.search(rf"(?<![\d.,])1 {NOUN}s\b", said), f"{said}: one of many"
        assert not re.search(rf"(?<![\d.,])(?!1 )[\d.,]+ {NOUN}\b", said), f"{said}: many of one"


@pytest.mark.parametrize("feature", all_features(), ids=lambda feature: feature.name)
def test_words_tell_nothing_from_something_and_theme_is_for_people(feature):
    low, *_between, high = VALUES.get(feature.unit, (0.0, 14.0))
    if not isinstance(feature, TargetMonthSin | TargetMonthCos | TargetDaysToYearEnd):  # these are told from as_of
        assert feature.words(low, OCCASION) != feature.words(high, OCCASION)
    assert feature.theme
    assert "_" not in feature.theme


def test_missing_has_words_of_its_own_where_a_buyer_can_lack_the_value():
    for feature in all_features():
        if feature.missing != "never":
            assert feature.words(math.nan, OCCASION) != "no purchase so far", feature.name


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("transaction_count_30d", 2.0, "bought twice in the last 30 days"),
        ("transaction_count_30d", 1.0, "bought once in the last 30 days"),
        ("transaction_count_30d", 0.0, "bought nothing in the last 30 days"),
        ("transaction_count_31_60d", 3.0, "bought 3 times between 31 and 60 days ago"),
        ("days_since_last_transaction", 12.0, "last purchase 12 days ago"),
        ("days_since_last_transaction", 1.0, "last purchase 1 day ago"),
        ("avg_days_between_transactions", 9.0, "usually buys every 9 days"),
        ("avg_days_between_transactions", 1.0, "usually buys every day"),
        ("avg_days_between_transactions", math.nan, "only one purchase so far"),
        ("days_until_due", -4.0, "next purchase 4 days overdue by the usual rhythm"),
        ("days_until_due", 1.0, "next purchase due in 1 day by the usual rhythm"),
        ("recency_ratio", 0.4, "40 % of the usual time between purchases has passed since the last one"),
        ("recency_ratio", 2.0, "twice the usual time between purchases has passed since the last one"),
        ("recency_ratio", 0.96, "about the usual time between purchases has passed since the last one"),
        ("std_days_between_transactions", 0.0, "bought on only two days so far, or at even intervals"),
        ("std_days_between_transactions", 3.0, "time between purchases varies by 3 days"),
        ("spend_90d_grocery", 3410.0, "spent 3,410.00 INR on grocery in the last 90 days"),
        ("spend_90d_grocery", 0.0, "spent nothing on grocery in the last 90 days"),
        ("days_since_sports", math.nan, "never bought sports"),
        ("txn_count_sports", 0.0, "never bought sports"),
        ("txn_count_sports", 2.0, "bought sports twice so far"),
        ("purchase_momentum", 0.0, "bought in the last 90 days, but nothing in the last 30 days"),
        ("purchase_momentum", 0.37, "bought 37 % as often in the last 30 days as over the 90 days up to now"),
        ("spend_momentum_30d_over_31_60d", 1.5, "spent 1.5 times as much per day in the last 30 days as between 31 and 60 days ago"),
        ("most_common_day_of_week", 6.0, "buys most often on Sundays"),
        ("weekend_transaction_rate", 0.25, "25 % of the purchases on weekends"),
        ("num_distinct_categories", 1.0, "bought from only one category"),
        ("promotion_usage_rate", 1.0, "every purchase had a promotion"),
        ("ew_transaction_rate_45d", 0.25, "buys about once every 120 days, judged mostly by the last 45 days"),
        ("target_month_sin", 0.0, "the 30 days lie in January"),
        ("target_days_to_year_end", 364.0, "the 30 days begin on 1 January"),
    ],
)  # fmt: skip
def test_words_read_as_a_person_would_say_them(name, value, expected):
    assert words(name, value) == expected


def test_a_target_of_two_words_is_written_as_two():
    assert words("txn_count_home_garden", 1.0, ("home_garden",)) == "bought home garden once so far"


def test_numbers_are_rounded_to_what_is_meant():
    assert [number(value) for value in (0.04, 2.34, 9.96, 12.4, -0.01, 1240.0)] == [
        "0",
        "2.3",
        "10",
        "12",
        "0",
        "1,240",
    ]
    assert [share(value) for value in (0.0002, 0.0104, 0.997, 1.0)] == [
        "less than 0.1 %",
        "1 %",
        "more than 99 %",
        "100 %",
    ]
    assert [pace(value) for value in (0.0, 1e-6, 0.97, 0.5, 2.3)] == [
        "less than once a year", "less than once a year", "about once per 30 days", "about once every 60 days", "about 2.3 times per 30 days",
    ]  # fmt: skip
    assert money(1_234_567.875, "EUR") == "1,234,568 EUR"  # a float32 does not hold its cents


# ---- amounts


def told(contributions, baseline=100.0, served=None, values=None, top=5, targets=("grocery", "sports")):
    """Reasons for one column of money of n customers; contributions: {feature: money} each."""
    names = feature_names(targets)
    matrix = np.array([[one.get(name, 0.0) for name in names] for one in contributions])
    money_of = np.full(len(matrix), baseline) + matrix.sum(axis=1)
    cents = np.rint(money_of * 100).astype(np.int64) if served is None else np.array(served, dtype=np.int64)
    return tell(
        feature_set(targets),
        OCCASION,
        values=np.ones(matrix.shape, dtype=np.float32) if values is None else values,
        never_bought=np.zeros(len(matrix), dtype=bool),
        baseline=np.full((len(matrix), 1), baseline),
        contributions=matrix[:, None, :],
        served=cents[:, None],
        top=top,
    )


def cents_of(account):
    return [
        round(100 * amount) for amount in (account.baseline, account.adjustment, *(r.amount for r in account.reasons))
    ]


def test_related_features_are_one_reason_in_the_words_of_the_strongest_in_its_direction():
    moved = {
        "transaction_count_30d": 40.0,
        "total_spend_60d": -50.0,
        "total_spend_30d": 30.0,
        "days_since_grocery": 7.0,
    }
    account = told([moved]).account(0, 0)
    assert [(reason.theme, reason.amount) for reason in account.reasons] == [
        ("recent buying", 20.0),
        ("buying grocery", 7.0),
    ]
    assert account.reasons[0].words == "bought once in the last 30 days"
    assert account.reasons[0].features == ("total_spend_60d", "transaction_count_30d", "total_spend_30d")
    assert (account.baseline, account.adjustment, account.prediction) == (100.0, 0.0, 127.0)


def test_a_theme_that_lowers_the_prediction_speaks_by_what_lowered_it():
    account = told([{"transaction_count_30d": 40.0, "total_spend_60d": -50.0}]).account(0, 0)
    assert account.reasons[0].amount == -10.0
    assert account.reasons[0].words == "spent 1.00 INR in the last 60 days"


def test_reasons_are_ordered_by_money_and_the_rest_comes_last():
    moved = {"transaction_count_30d": 5.0, "recency_ratio": -30.0, "lifetime_spend": 20.0, "return_rate": 1.0}
    account = told([moved], top=2).account(0, 0)
    assert [reason.amount for reason in account.reasons] == [-30.0, 20.0, 6.0]
    assert account.reasons[-1].theme == EVERYTHING_ELSE
    assert account.reasons[-1].features == ("transaction_count_30d", "return_rate")


def test_more_reasons_are_told_until_four_fifths_are_explained():
    even = {"transaction_count_30d": 10.0, "recency_ratio": 10.0, "lifetime_spend": 10.0, "return_rate": 10.0,
            "days_since_grocery": 10.0, "days_since_sports": 10.0, "target_month_sin": 10.0, "is_cold_start": 10.0,
            "num_distinct_stores": 10.0, "promotion_usage_rate": 10.0}  # fmt: skip
    (account,) = [told([even], top=5).account(0, 0)]
    assert len(account.reasons) == 8 + 1
    assert account.reasons[-1].amount == 20.0


def test_contributions_are_ordered_and_only_those_of_a_cent_or_more():
    values = np.full((1, len(feature_names(("grocery", "sports")))), np.nan, dtype=np.float32)
    account = told([{"return_rate": 0.004, "recency_ratio": -3.0, "lifetime_spend": 2.0}], values=values).account(0, 0)
    assert [(one.feature, one.amount) for one in account.contributions] == [
        ("recency_ratio", -3.0),
        ("lifetime_spend", 2.0),
    ]
    assert account.contributions[0].value is None


def test_what_the_model_says_otherwise_than_what_was_served_is_adjustment():
    account = told([{"recency_ratio": 20.0}], served=[13_000]).account(0, 0)
    assert (account.reasons[0].amount, account.adjustment, account.prediction) == (20.0, 10.0, 130.0)


def test_amounts_add_up_to_the_cent_whatever_they_are():
    rng = np.random.default_rng(5)
    names = feature_names(("grocery", "sports"))
    moved = [dict(zip(names, rng.normal(0, 10 ** rng.uniform(-4, 4), len(names)), strict=True)) for _ in range(200)]
    reasons = told(moved, baseline=812.3456)
    for customer in range(len(moved)):
        account = reasons.account(customer, 0)
        assert sum(cents_of(account)) == round(100 * account.prediction)
        assert account.prediction == reasons.served[customer, 0] / 100
        strengths = [abs(reason.amount) for reason in account.reasons[:-1]]
        assert all(one >= other - 0.011 for one, other in itertools.pairwise(strengths))


def test_each_amount_is_within_a_cent_of_its_own_and_nothing_stays_nothing():
    rng = np.random.default_rng(6)
    parts = rng.normal(0, 50, (500, 9))
    parts[:, 4] = 0.0
    parts[:, 8] = np.rint(parts[:, :8].sum(axis=1) * 100) / 100 - parts[:, :8].sum(axis=1)
    whole = np.rint(parts.sum(axis=1) * 100).astype(np.int64)
    cents = cents_that_add_up(parts * 100, whole)
    np.testing.assert_array_equal(cents.sum(axis=1), whole)
    assert np.abs(cents - parts * 100).max() < 1 + 1e-6
    assert not cents[:, 4].any()


def test_themes_hold_every_feature_once_and_each_target_has_one():
    themes, of_feature = themes_of(feature_set(("grocery", "home_garden")))
    assert {"buying grocery", "buying home garden", "recent buying", "time since the last purchase"} <= set(themes)
    assert len(of_feature) == len(feature_names(("grocery", "home_garden")))
    assert set(of_feature) == set(range(len(themes)))


# ---- of a trained bundle


def test_every_number_that_is_served_is_explained_to_the_cent(trained_shop):
    shop = trained_shop
    rows = np.arange(0, shop.snapshot.n_customers, 7)
    reasons = explain_customers(shop.predictor, shop.snapshot, rows)
    served = np.rint(shop.snapshot.money(rows)[0] * 100)
    for customer in range(len(rows)):
        for column in range(served.shape[1]):
            account = reasons.account(customer, column)
            assert sum(cents_of(account)) == served[customer, column]


def test_all_buyers_start_at_the_same_cents(trained_shop):
    every = np.arange(trained_shop.snapshot.n_customers)
    buyers = every[~np.isnan(trained_shop.snapshot.features(every)).all(axis=1)]
    cents = explain_customers(trained_shop.predictor, trained_shop.snapshot, buyers).cents
    assert (cents[..., 0] == cents[0, :, 0]).all()
    assert np.abs(cents[..., -1]).max() <= 1


def test_a_customer_alone_is_told_what_he_is_told_among_all(trained_shop):
    rows = np.arange(0, 60)
    among = explain_customers(trained_shop.predictor, trained_shop.snapshot, rows)
    for row in (0, 17, 59):
        alone = explain_customers(trained_shop.predictor, trained_shop.snapshot, [row])
        assert [alone.account(0, column) for column in range(5)] == [among.account(row, column) for column in range(5)]


def test_who_never_bought_starts_and_ends_at_what_such_customers_spend(trained_shop):
    every = np.arange(trained_shop.snapshot.n_customers)
    never = np.flatnonzero(np.isnan(trained_shop.snapshot.features(every)).all(axis=1))
    reasons = explain_customers(trained_shop.predictor, trained_shop.snapshot, [never[0], 0 if never[0] else 1])
    account = reasons.account(0, 0)
    assert account.baseline == account.prediction == trained_shop.snapshot.money([never[0]])[0][0, 0]
    assert [(reason.theme, reason.amount) for reason in account.reasons] == [(NOT_BOUGHT_YET, 0.0)]
    assert account.contributions == ()
    assert reasons.account(1, 0).contributions
