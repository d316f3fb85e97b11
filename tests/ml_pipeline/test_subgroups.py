"""Who belongs to a group, what is measured of it, and which region a customer's usual store has, as it was known then."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest

from ml_pipeline.features import DAYS_SINCE_FIRST, DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name
from ml_pipeline.subgroups import (
    ACTIVITIES,
    FEWEST,
    MOST_REGIONS,
    OTHER_REGIONS,
    UNKNOWN_REGION,
    ReportedRows,
    bias_error,
    find_regions,
    group_by_activity,
    merge_regions,
    report_subgroups,
)
from ml_pipeline.training_set import Observations
from tests.ml_pipeline.small_shop import prepare_shop, write_shop

AS_OF, LATER = date(2025, 3, 1), date(2025, 4, 1)
NAMES = (transaction_count_name(90), DAYS_SINCE_FIRST, DAYS_SINCE_LAST, TOTAL_TRANSACTIONS)

STORES = "store_id,store_region\ns1,North\ns2,South\ns3, north \ns4,\n"
SALES = """transaction_id,customer_id,store_id,transaction_date,total_amount
a1,most,s1,2025-01-02,10
a2,most,s1,2025-01-03,10
a3,most,s2,2025-02-20,500
b1,tie,s1,2025-01-02,10
b2,tie,s2,2025-01-03,10
c1,later,s1,2025-01-02,10
c2,later,s2,2025-03-01,10
c3,later,s2,2025-03-02,10
d1,nowhere,,2025-01-02,10
e1,elsewhere,s9,2025-01-02,10
f1,nameless,s4,2025-01-02,10
g1,lower,s3,2025-01-02,10
h1,returned,s1,2025-01-02,10
h2,returned,s2,2025-01-03,20
h3,returned,s2,2025-01-04,30
h4,returned,s2,2025-01-05,-20
h5,returned,s2,2025-01-06,-30
i1,alike,s2,2025-01-02,10
i2,alike,s1,2025-01-02,10
"""


def rows_of(customers, features=None, as_of=AS_OF):
    n = len(customers)
    features = np.zeros((n, len(NAMES))) if features is None else features
    zeros = np.zeros(n)
    return Observations(
        as_of=np.full(n, np.datetime64(as_of)),
        customer_id=np.array(customers),
        features=np.asarray(features, dtype=np.float32),
        names=NAMES,
        spend={"total": zeros, "other": zeros},
        bought=zeros,
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    tables = {"stores": STORES, "store_sales_header": SALES}
    return prepare_shop(write_shop(folder / "data", tables, "[targets]\n"), folder / "out")


def region_of(shop, customer, as_of=AS_OF):
    engine = shop.purchases.get_backend()
    observed = rows_of(sorted({customer, "tie", "most"}), as_of=as_of)
    found = find_regions(engine, shop.purchases, shop.stores, observed, [as_of])[as_of]
    return found[observed.customer_id.tolist().index(customer)]


# Regions


@pytest.mark.parametrize(
    ("customer", "region"),
    [
        ("most", "North"),  # two transactions count more than one of more money
        ("tie", "South"),  # of equally many the store of the latest
        ("alike", "North"),  # on the same day the lower id
        ("nowhere", ""),
        ("elsewhere", ""),
        ("nameless", ""),
        ("lower", "North"),  # spelled in another way, the same region
        ("unheard of", ""),
    ],
)
def test_a_customers_region_is_that_of_the_store_used_most(shop, customer, region):
    assert region_of(shop, customer) == region


def test_purchases_on_or_after_as_of_do_not_move_anybody(shop):
    assert region_of(shop, "later") == "North"
    assert region_of(shop, "later", date(2025, 3, 2)) == "South"  # one each by then, the later one wins


def test_what_had_been_taken_back_before_as_of_does_not_count(shop):
    assert region_of(shop, "returned", date(2025, 1, 5)) == "South"
    assert region_of(shop, "returned", date(2025, 1, 7)) == "North"


def test_without_a_table_of_stores_no_region_is_known(shop):
    engine = shop.purchases.get_backend()
    found = find_regions(engine, shop.purchases, None, rows_of(["most", "tie"]), [AS_OF])
    assert found[AS_OF].tolist() == ["", ""]


def test_each_day_has_its_own_regions_in_the_order_of_its_rows(shop):
    both = [rows_of(["later", "most"]), rows_of(["later", "most", "tie"], as_of=LATER)]
    joined = replace(
        both[0],
        as_of=np.concatenate([each.as_of for each in both]),
        customer_id=np.concatenate([each.customer_id for each in both]),
    )
    found = find_regions(shop.purchases.get_backend(), shop.purchases, shop.stores, joined, [AS_OF, LATER])
    assert found[AS_OF].tolist() == ["North", "North"]
    assert found[LATER].tolist() == ["South", "North", "South"]


def test_small_regions_are_put_together_by_customers_and_not_by_rows():
    region = np.array(["big"] * FEWEST + ["small"] * FEWEST + [""] * FEWEST)
    customer = np.array([*range(FEWEST), *[7] * FEWEST, *range(FEWEST)]).astype(str)
    named, merged = merge_regions(region, customer)
    assert merged == ["small"]
    assert sorted(set(named.tolist())) == sorted({"big", OTHER_REGIONS, UNKNOWN_REGION})


def test_no_more_than_the_largest_regions_get_figures_of_their_own():
    sizes = {f"r{number:02}": FEWEST + number for number in range(MOST_REGIONS + 3)}
    region = np.concatenate([np.full(size, name) for name, size in sizes.items()])
    named, merged = merge_regions(region, np.arange(len(region)).astype(str))
    assert merged == ["r00", "r01", "r02"]
    assert len(set(named.tolist())) == MOST_REGIONS + 1


# Activity


@pytest.mark.parametrize(
    ("group", "features", "belongs"),
    [
        ("active_90d", (1, 400, 90, 5), True),
        ("active_90d", (0, 400, 91, 5), False),
        ("new", (1, 90, 1, 5), True),
        ("new", (1, 91, 1, 5), False),
        ("dormant", (0, 400, 181, 5), True),
        ("dormant", (0, 400, 180, 5), False),
        ("one_purchase", (0, 400, 200, 1), True),
        ("one_purchase", (0, 400, 200, 2), False),
    ],
)
def test_the_edges_of_the_groups(group, features, belongs):
    assert group_by_activity(rows_of(["c"], [features]), [AS_OF])[group].tolist() == [belongs]


def test_a_group_whose_feature_nobody_knows_is_not_called_empty():
    features = np.ones((60, len(NAMES)))
    features[:, NAMES.index(DAYS_SINCE_FIRST)] = np.nan
    activity = group_by_activity(rows_of([f"{number:02}" for number in range(60)], features), [AS_OF])
    assert activity["new"] is None
    (new,) = (group for group in report_subgroups(reported(60, activity=activity))["groups"] if group["name"] == "new")
    assert new["rows"] is None
    assert "not known" in new["why"]


# Figures


def reported(n, **changed):
    """Customers who all were told 10 ± 5, of whom every second spent 20."""
    actual = np.where(np.arange(n) % 2 == 0, 20.0, 0.0)
    facts = {
        "customer": np.array([f"{number:05}" for number in range(n)]),
        "actual": actual,
        "predicted": np.linspace(8.0, 12.0, n),
        "rule": np.full(n, 20.0),
        "lower": np.full(n, 5.0),
        "upper": np.full(n, 15.0),
        "bought": (actual > 0).astype(float),
        "probability": np.full(n, 0.5),
        "activity": {activity.name: np.arange(n) < 60 for activity in ACTIVITIES},
        "region": np.where(np.arange(n) % 4 < 2, "North", "South"),
    }
    return ReportedRows(**{**facts, **changed})


def group_called(name, rows):
    return next(group for group in report_subgroups(rows)["groups"] if group["name"] == name)


def test_the_figures_of_a_group_are_those_of_its_rows_alone():
    rows = reported(200, predicted=np.where(np.arange(200) < 60, 30.0, 10.0))
    figures = group_called("dormant", rows)["figures"]
    assert (figures["mean_actual"], figures["mean_predicted"], figures["bias"]) == (10.0, 30.0, 3.0)
    assert (figures["below"], figures["above"], figures["covered"]) == (0.5, 0.5, 0.0)
    assert (figures["share_buying"], figures["brier"], figures["auc"]) == (0.5, 0.25, 0.5)
    assert figures["mae"] == 20.0
    assert figures["best_rule"]["bias"] == 2.0
    assert group_called("everyone", rows)["figures"]["bias"] == pytest.approx(1.6)


def test_groups_of_few_customers_get_a_count_and_no_figures():
    few = {activity.name: np.arange(200) < FEWEST - 1 for activity in ACTIVITIES}
    group = group_called("new", reported(200, activity=few))
    assert (group["customers"], group["figures"]) == (FEWEST - 1, None)
    assert group["why"] == f"fewer than {FEWEST} customers"
    nobody = {activity.name: np.zeros(200, dtype=bool) for activity in ACTIVITIES}
    assert group_called("new", reported(200, activity=nobody))["why"] == "nobody"


def test_a_customer_in_two_windows_is_one_customer():
    twice = np.tile([f"{number:03}" for number in range(100)], 2)
    group = group_called("everyone", reported(200, customer=twice))
    assert (group["rows"], group["customers"]) == (200, 100)


def test_regions_are_named_and_counted_only_where_stores_name_some():
    known = report_subgroups(reported(200))
    assert [group["name"] for group in known["groups"] if group["kind"] == "store region"] == ["North", "South"]
    assert known["regions_known"] == 1.0
    unknown = report_subgroups(reported(200, region=np.full(200, "")))
    assert unknown["regions_known"] == 0.0
    assert all(group["kind"] != "store region" for group in unknown["groups"])


def test_the_error_of_the_bias_is_what_drawing_customers_anew_gives():
    rng = np.random.default_rng(2)
    actual = rng.gamma(0.5, 100.0, 400)
    predicted = actual + rng.gamma(0.5, 100.0, 400)
    draws = [rng.integers(0, 400, 400) for _ in range(600)]
    expected = np.std([predicted[rows].sum() / actual[rows].sum() for rows in draws])
    assert bias_error(actual, predicted) == pytest.approx(expected, rel=0.1)
    assert bias_error(np.zeros(3), np.ones(3)) is None
