import json

import numpy as np
import pytest

from ml_pipeline.customer_flags import AT_RISK, CATEGORY_LOYAL, CROSS_SELL, FLAGS, HIGH_VALUE
from ml_pipeline.errors import ImpossiblePage, ImpossibleThreshold, UnknownFlag, UnknownSegment
from ml_pipeline.file_statistics import list_customers, statistics_of
from ml_pipeline.snapshot import SEGMENTS
from ml_pipeline.spend_sums import sum_spend
from tests.ml_pipeline.habit_shop import Customer, HabitShop, habit_shop, random_customers

THREE = ("electronics", "grocery", "sports")
N = 300
KEYS = (
    "total_predicted_spend",
    "total_predicted_spend_lower",
    "total_predicted_spend_upper",
    "per_target",
    "average_predicted_spend",
    "min_predicted_spend",
    "max_predicted_spend",
    "horizon_days",
    "expected_buyers",
    "per_segment",
    "flags",
    "top_customers",
    "currency",
    "rows",
    "rows_failed",
    "distinct_customers",
    "model_version",
    "as_of",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return habit_shop(tmp_path_factory.mktemp("models"), THREE, random_customers(N, 4, seed=3))


def statistics(shop: HabitShop, positions=None, **options):
    wanted = shop.everyone if positions is None else positions
    return statistics_of(shop.snapshot, shop.content, wanted, rows=len(wanted) + 2, rows_failed=2, **options)


def listed(shop: HabitShop, positions=None, **options):
    wanted = shop.everyone if positions is None else positions
    return list_customers(shop.snapshot, shop.content, wanted, **options)


def cents(money: float) -> int:
    return round(money * 100)


# ---- statistics


def test_money_is_that_of_the_distinct_customers(shop):
    rows = [3, 200, 7, 3, 3, 42]
    found, spend = statistics(shop, rows), shop.snapshot.columns([3, 7, 42, 200])
    totals = [cents(money) for money in spend["predicted_total_spend"]]
    assert tuple(found) == KEYS
    assert cents(found["total_predicted_spend"]) == sum(totals)
    assert found["average_predicted_spend"] == round(sum(totals) / 100 / 4, 2)
    assert (cents(found["min_predicted_spend"]), cents(found["max_predicted_spend"])) == (min(totals), max(totals))
    for name in (*THREE, "other"):
        expected = sum(cents(money) for money in spend[f"predicted_{name}_spend"])
        assert cents(found["per_target"][name]["predicted_spend"]) == expected
    assert found["expected_buyers"] == pytest.approx(spend["purchase_probability_30d"].sum(), abs=0.01)
    assert (found["rows"], found["rows_failed"], found["distinct_customers"]) == (8, 2, 4)
    assert (found["currency"], found["as_of"], found["horizon_days"]) == ("INR", "2026-01-01", 30)
    assert found["model_version"] == shop.snapshot.bundle_id


def test_intervals_are_those_of_the_sum(shop):
    found = statistics(shop)
    expected = sum_spend(shop.snapshot, shop.content["sums"], shop.everyone).intervals
    assert found["total_predicted_spend_lower"] == expected["total"]["lower"]
    assert found["total_predicted_spend_upper"] == expected["total"]["upper"]
    for name in (*THREE, "other"):
        assert {end: found["per_target"][name][end] for end in ("lower", "upper")} == expected[name]


def test_segments_add_up_to_the_file_to_the_cent(shop):
    rows = np.random.default_rng(2).choice(N, 120)
    found = statistics(shop, rows)
    parts = found["per_segment"]
    assert tuple(parts) == SEGMENTS
    assert sum(part["customers"] for part in parts.values()) == found["distinct_customers"]
    assert sum(cents(part["predicted_spend"]) for part in parts.values()) == cents(found["total_predicted_spend"])
    for name in (*THREE, "other"):
        expected = cents(found["per_target"][name]["predicted_spend"])
        assert sum(cents(part["per_target"][name]) for part in parts.values()) == expected
    for part in parts.values():
        assert sum(cents(money) for money in part["per_target"].values()) == cents(part["predicted_spend"])


def test_a_segments_interval_is_that_of_its_customers_in_the_file(shop):
    rows = shop.everyone[::2]
    inside = np.intersect1d(rows, shop.snapshot.in_segment(SEGMENTS[1]))
    expected = sum_spend(shop.snapshot, shop.content["sums"], inside)
    found = statistics(shop, rows)["per_segment"][SEGMENTS[1]]
    assert found == {
        "customers": len(inside),
        "predicted_spend": expected.money["total"],
        **expected.intervals["total"],
        "per_target": {name: money for name, money in expected.money.items() if name != "total"},
    }


def test_flags_are_counted_as_they_are_listed(shop):
    found = statistics(shop)["flags"]
    assert tuple(found) == FLAGS
    for flag, told in found.items():
        having = listed(shop, flag=flag, limit=N)
        assert told["customers"] == having["total"] > 0
        assert cents(told["predicted_spend"]) == sum(cents(one["predicted_total_spend"]) for one in having["customers"])
        assert told["definition"].endswith(".")
    for flag, key in ((CATEGORY_LOYAL, "loyal_category"), (CROSS_SELL, "cross_sell_category")):
        categories = [one[key] for one in listed(shop, flag=flag, limit=N)["customers"]]
        assert found[flag]["customers_per_target"] == {name: categories.count(name) for name in THREE}


def test_the_top_are_the_first_of_the_list(shop):
    found = statistics(shop)["top_customers"]
    first = listed(shop, limit=10)["customers"]
    assert found == [{key: value for key, value in one.items() if key != "predicted_spend"} for one in first]


def test_equal_totals_are_in_the_order_of_the_ids(tmp_path):
    shop = habit_shop(tmp_path, THREE, [Customer([100 * (number % 2)] * 4) for number in range(30)])
    found = statistics(shop, shop.everyone[::-1])["top_customers"]
    assert [one["customer_id"] for one in found] == [f"C{number:04d}" for number in range(1, 21, 2)]


def test_neither_order_nor_repetition_changes_anything(shop):
    rows = np.random.default_rng(1).permutation(N)[:100]
    again = np.concatenate([rows[::-1], rows[:10]])
    for made in (
        lambda rows: statistics_of(shop.snapshot, shop.content, rows, 1, 0),
        lambda rows: listed(shop, rows, flag=AT_RISK),
        lambda rows: listed(shop, rows, limit=1000),
    ):
        assert made(rows) == made(again) == made(np.sort(rows).tolist())


@pytest.mark.parametrize("targets", [(), ("food",), THREE, tuple("abcdefghijkl")], ids=len)
def test_a_file_without_a_customer_is_told_without_a_number_that_is_none(tmp_path, targets):
    shop = habit_shop(tmp_path, targets, random_customers(5, len(targets) + 1, seed=1))
    found = statistics(shop, [])
    assert tuple(found) == KEYS
    for name in ("average_predicted_spend", "min_predicted_spend", "max_predicted_spend"):
        assert found[name] is None
    assert found["total_predicted_spend_upper"] == found["expected_buyers"] == 0
    assert [part["customers"] for part in found["per_segment"].values()] == [0, 0, 0]
    assert [told["customers"] for told in found["flags"].values()] == [0] * len(FLAGS)
    assert found["top_customers"] == []
    assert listed(shop, []) == {"total": 0, "limit": 100, "offset": 0, "customers": []}


def test_a_snapshot_of_nobody_has_statistics(tmp_path):
    assert statistics(habit_shop(tmp_path, THREE, []))["distinct_customers"] == 0


@pytest.mark.parametrize("targets", [(), ("food",), THREE, tuple("abcdefghijkl")], ids=len)
def test_all_of_it_is_plain_json(tmp_path, targets):
    shop = habit_shop(tmp_path, targets, random_customers(50, len(targets) + 1, seed=1))
    for found in (statistics(shop), listed(shop), listed(shop, flag=CROSS_SELL)):
        assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert tuple(statistics(shop)["per_target"]) == (*targets, "other")


def test_a_threshold_that_is_given_counts_everywhere(shop):
    definition = statistics(shop, high_value_over=5)["flags"][HIGH_VALUE]["definition"]
    assert "above 5.00 INR" in definition
    counted = statistics(shop, high_value_over=5)["flags"][HIGH_VALUE]["customers"]
    assert counted == listed(shop, flag=HIGH_VALUE, high_value_over=5)["total"] > listed(shop, flag=HIGH_VALUE)["total"]
    with pytest.raises(ImpossibleThreshold):
        statistics(shop, high_value_over=-1)


# ---- lists


def test_a_list_has_the_numbers_of_the_result_file(shop):
    found = listed(shop, limit=N)["customers"]
    assert len(found) == N
    for one in found:
        columns = shop.snapshot.columns(shop.snapshot.positions([one["customer_id"]]))
        assert one["predicted_total_spend"] == columns["predicted_total_spend"][0]
        assert (one["lower"], one["upper"]) == (
            columns["predicted_total_spend_lower"][0],
            columns["predicted_total_spend_upper"][0],
        )
        assert one["predicted_spend"] == {name: columns[f"predicted_{name}_spend"][0] for name in (*THREE, "other")}
        assert one["purchase_probability_30d"] == columns["purchase_probability_30d"][0]
        assert one["segment"] == columns["segment"][0]
        assert ("cross_sell_category" in one) == (CROSS_SELL in one["flags"])
        assert ("loyal_category" in one) == (CATEGORY_LOYAL in one["flags"])


@pytest.mark.parametrize("options", [{}, {"flag": HIGH_VALUE}, {"segment": "low value"}], ids=str)
def test_pages_are_parts_of_the_whole_sorted_list(shop, options):
    whole = listed(shop, limit=N, **options)["customers"]
    order = [(-one["predicted_total_spend"], one["customer_id"]) for one in whole]
    assert order == sorted(order)
    for size in (1, 7, 50):
        pages = [listed(shop, limit=size, offset=start, **options) for start in range(0, len(whole) + size, size)]
        assert [one for page in pages for one in page["customers"]] == whole
        assert {page["total"] for page in pages} == {len(whole)}
    assert listed(shop, limit=0, **options) == {"total": len(whole), "limit": 0, "offset": 0, "customers": []}


@pytest.mark.parametrize("flag", [None, *FLAGS, " At_Risk "])
@pytest.mark.parametrize("segment", [None, *SEGMENTS, "high value"])
def test_a_filtered_list_is_the_whole_one_less_the_others(shop, flag, segment):
    expected = [
        one
        for one in listed(shop, limit=N)["customers"]
        if (flag is None or flag.strip().lower() in one["flags"])
        and (segment is None or one["segment"].lower() == segment.lower())
    ]
    found = listed(shop, flag=flag, segment=segment, limit=N)
    assert found["customers"] == expected
    assert found["total"] == len(expected)


def test_only_customers_of_the_file_are_listed(shop):
    found = listed(shop, [5, 9, 5])
    assert sorted(one["customer_id"] for one in found["customers"]) == ["C0005", "C0009"]


@pytest.mark.parametrize(
    ("options", "problem", "said"),
    [
        ({"flag": "vip"}, UnknownFlag, "flag is 'vip'; it must be one of high_value, multi_category_vip"),
        ({"flag": ""}, UnknownFlag, "or left out for everyone"),
        ({"flag": "x" * 1000}, UnknownFlag, "flag is 'x{40}';"),
        ({"segment": "Gold"}, UnknownSegment, "segment is 'Gold'; it must be one of Low Value, Medium Value, High"),
        ({"limit": -1}, ImpossiblePage, "limit is -1 and offset 0; both must be 0 or more"),
        ({"offset": -1}, ImpossiblePage, "offset -1"),
        ({"high_value_over": -1}, ImpossibleThreshold, "high_value_over is -1"),
    ],
)
def test_a_question_that_has_no_answer_is_told_the_way_out(shop, options, problem, said):
    with pytest.raises(problem, match=said):
        listed(shop, **options)
