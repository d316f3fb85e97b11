"""Cancelled lines of sales: matched beyond doubt, counted, and known to no day before the cancellation."""

import random
from collections import defaultdict
from datetime import date, timedelta
from pathlib import Path

import ibis
import numpy as np
import pyarrow as pa
import pytest

from ml_pipeline.cancellations import CANCELLATION_COLUMNS, find_cancellations, with_cancellations
from ml_pipeline.engine import open_engine
from ml_pipeline.explore import explore_dataset
from ml_pipeline.features import build_features, feature_names, read_matrix
from ml_pipeline.history import HistoryFeatures
from ml_pipeline.targets import build_targets
from tests.ml_pipeline.feature_oracle import describe_customers
from tests.ml_pipeline.purchase_rows import (
    AS_OF,
    TARGETS,
    Row,
    customers_table,
    purchase,
    purchases_table,
    random_purchases,
)
from tests.ml_pipeline.small_shop import prepare_shop, purchase_rows, write_shop

EQUAL = ("customer_id", "product_id", "category", "quantity_milli")
SEVERAL_DAYS = [AS_OF - timedelta(days=ago) for ago in (320, 200, 123, 122, 60, 31, 30, 1, 0)]


@pytest.fixture(scope="module")
def engine():
    return open_engine(threads=1)


def matched(engine, rows: list[Row]) -> list[Row]:
    """The rows with what is found of cancellations among them, in their order."""
    numbered = purchases_table(rows).drop(CANCELLATION_COLUMNS)
    lines = ibis.memtable(numbered.append_column("number", pa.array(range(len(rows)), pa.int64())))
    found = engine.to_pyarrow(with_cancellations(lines, find_cancellations(lines))).sort_by("number")
    return found.drop("number").to_pylist()


def sold(days_ago: int, money: float = 10, **columns: object) -> Row:
    return purchase(**{"days_ago": days_ago, "money": money, "product_id": "P1", **columns})  # type: ignore[arg-type]


def given_back(days_ago: int, money: float = 10, **columns: object) -> Row:
    return sold(days_ago, -money, **columns)


def cancelled_ago(engine, *rows: Row) -> list[int | None]:
    """How many days before AS_OF each sale among the rows was cancelled."""
    days = [row["cancelled_on"] for row in matched(engine, list(rows)) if row["spend_units"]]
    return [None if day is None else (AS_OF - day).days for day in days]


def shop_with_cancellations(seed: int, net: bool = False) -> list[Row]:
    """A random shop in which some lines and some whole transactions are taken back, at once or weeks later."""
    chance = random.Random(seed)
    rows = random_purchases(seed, net=net)
    for row in [row for row in rows if row["spend_units"]]:
        if chance.random() < 0.3:
            later = chance.choice((0, 0, 1, 20, 100))
            units = row["spend_units"]
            back = {"spend_units": 0, "return_units": units, "amount_units": -units if net else 0}
            number = f"B{len(rows)}"
            rows.append(row | back | {"transaction_id": number, "day": row["day"] + timedelta(days=later)})
    return rows


def as_known_before(rows: list[Row], day: date) -> list[Row]:
    """The rows as a loop sees them that knows of all cancellations before the day."""
    gone = {"spend_units": 0}
    return [
        row | gone | {"amount_units": row["amount_units"] - row["cancelled_units"]}
        if row["cancelled_on"] is not None and row["cancelled_on"] < day
        else row
        for row in rows
    ]


def slow_cancelled_on(rows: list[Row]) -> list[date | None]:
    """By row: the first day on which every equal line sold until then had been given back, counted line by line."""
    equal = defaultdict(list)
    for number, row in enumerate(rows):
        units = row["spend_units"] + row["return_units"]
        equal[(*(row[name] for name in EQUAL), units)].append(number)
    cancelled: list[date | None] = [None] * len(rows)
    for numbers in equal.values():
        with_customer: list[int] = []
        back = 0
        for day in sorted({rows[number]["day"] for number in numbers}):
            today = [number for number in numbers if rows[number]["day"] == day]
            with_customer += [number for number in today if rows[number]["spend_units"]]
            back = min(back + sum(rows[number]["return_units"] > 0 for number in today), len(with_customer))
            if back == len(with_customer):
                for number in with_customer:
                    cancelled[number] = day
                with_customer, back = [], 0
    return cancelled


def slowly_matched(rows: list[Row]) -> list[Row]:
    """The rows (of gross mode) as the slow loop matches them."""
    days = slow_cancelled_on(rows)
    return [
        row | {"cancelled_on": day, "cancelled_units": row["spend_units"] if day else 0}
        for row, day in zip(rows, days, strict=True)
    ]


def tied_rows(seed: int) -> list[Row]:
    """Sales and returns on few days, most alike in everything but the product, the customer or the day."""
    chance = random.Random(seed)
    return [
        chance.choice((sold, sold, given_back))(
            chance.choice((5, 30, 31, 90, 130)),
            money=chance.choice((2, 2, 2, 3)),
            customer_id=f"C{chance.randrange(30)}",
            product_id=chance.choice((None, "P1", "P2", "P3", "P4", "P5", "P6")),
        )
        for _ in range(1_200)
    ]


# ---- which lines match


def test_a_line_given_back_whole_is_cancelled_on_the_day_of_the_return(engine):
    assert cancelled_ago(engine, sold(50), given_back(20)) == [20]


def test_a_line_given_back_on_its_own_day_is_cancelled_on_that_day(engine):
    assert cancelled_ago(engine, given_back(50), sold(50)) == [50]


@pytest.mark.parametrize(
    "other",
    [
        {"customer_id": "C2"},
        {"product_id": "P2"},
        {"product_id": None},
        {"category": "grocery"},
        {"quantity_milli": 500},
        {"return_units": 99_999},
    ],
)
def test_a_return_of_something_else_cancels_nothing(engine, other):
    assert cancelled_ago(engine, sold(50), given_back(20, **other)) == [None]


def test_a_return_before_the_sale_cancels_nothing(engine):
    assert cancelled_ago(engine, given_back(51), sold(50)) == [None]


def test_a_return_of_what_was_sold_before_the_data_begin_does_not_count_against_later_sales(engine):
    assert cancelled_ago(engine, given_back(60), sold(50), sold(40), given_back(30)) == [None, None]
    assert cancelled_ago(engine, given_back(60), sold(50), given_back(30)) == [30]


def test_one_return_of_two_equal_sales_is_ambiguous_until_the_second_comes(engine):
    rows = [sold(50), sold(40), given_back(30)]
    assert cancelled_ago(engine, *rows) == [None, None]
    assert cancelled_ago(engine, *rows, given_back(10)) == [10, 10]


def test_as_many_returns_as_equal_sales_cancel_them_all(engine):
    assert cancelled_ago(engine, sold(50), sold(50), given_back(20), given_back(20)) == [20, 20]


def test_what_is_bought_again_after_a_cancellation_counts(engine):
    assert cancelled_ago(engine, sold(50), given_back(40), sold(39)) == [40, None]


def test_lines_without_a_product_match_by_category_and_amount(engine):
    assert cancelled_ago(engine, sold(50, product_id=None), given_back(20, product_id=None)) == [20]


def test_random_shops_match_as_the_slow_loop_does(engine):
    chance = random.Random(5)
    rows = [
        chance.choice((sold, sold, given_back))(chance.randrange(1, 60), money=chance.choice((1, 2)), customer_id=name)
        for name in ("C1", "C2", "C3", "C4", "C5", "C6")
        for _ in range(chance.randrange(1, 40))
    ]
    rows += shop_with_cancellations(6)
    found = [row["cancelled_on"] for row in matched(engine, rows)]
    assert found == slow_cancelled_on(rows)
    assert len([day for day in found if day]) > 50


def test_a_line_is_not_taken_for_one_that_differs_in_the_product_alone(engine):
    twins = [sold(50), sold(50, product_id="P2"), sold(50, product_id=None)]
    assert cancelled_ago(engine, *twins, given_back(20)) == [20, None, None]
    assert cancelled_ago(engine, *twins, given_back(20), given_back(10, product_id="P2")) == [20, 10, None]


@pytest.mark.parametrize("threads", [1, 2])
def test_tied_lines_stay_as_many_as_they_are_however_often_they_are_matched(threads):
    rows = tied_rows(11)
    engine = open_engine(threads=threads)
    known = slowly_matched(rows)
    assert len([row for row in known if row["cancelled_on"]]) > 100
    for _ in range(3):
        assert matched(engine, rows) == known


def test_what_is_matched_does_not_depend_on_whether_the_matches_were_stored_before(engine):
    rows = tied_rows(12)
    lines = engine.create_table("tied_lines", purchases_table(rows).drop(CANCELLATION_COLUMNS), temp=True)
    found = find_cancellations(lines)
    stored = engine.create_table("tied_matches", found, temp=True)
    at_once, later = (engine.to_pyarrow(with_cancellations(lines, matches)) for matches in (found, stored))
    in_order = [(name, "ascending") for name in ("transaction_id", "day")]
    assert at_once.sort_by(in_order) == later.sort_by(in_order)
    assert at_once.num_rows == len(rows)


def test_a_match_rests_on_no_later_row(engine):
    rows = shop_with_cancellations(7)
    known = matched(engine, rows)
    for day in SEVERAL_DAYS:
        before = [row for row in rows if row["day"] < day]
        expected = [row["cancelled_on"] for row in known if row["day"] < day]
        expected = [on if on is not None and on < day else None for on in expected]
        assert [row["cancelled_on"] for row in matched(engine, before)] == expected


@pytest.mark.parametrize(("net", "units"), [(False, 100_000), (True, 0)])
def test_in_net_mode_the_return_subtracts_the_money_and_the_cancellation_does_not_again(engine, net, units):
    line, back = matched(engine, [sold(50), given_back(20, net=net)])
    assert (line["cancelled_units"], back["cancelled_units"]) == (units, 0)
    assert line["amount_units"] - line["cancelled_units"] + back["amount_units"] == 0


# ---- features


@pytest.mark.parametrize("net", [False, True])
def test_features_of_all_days_at_once_are_those_of_the_slow_loop_that_knows_of_earlier_cancellations(engine, net):
    rows = matched(engine, shop_with_cancellations(8, net=net))
    purchases, customers = ibis.memtable(purchases_table(rows)), ibis.memtable(customers_table({}))
    found = engine.to_pyarrow(build_features(purchases, customers, SEVERAL_DAYS, TARGETS)).to_pylist()
    expected = {
        (day, customer): features
        for day in SEVERAL_DAYS
        for customer, features in describe_customers(as_known_before(rows, day), {}, day, TARGETS).items()
    }
    assert {(row["as_of"], row["customer_id"]) for row in found} == expected.keys()
    assert len(found) == len(expected) > 100
    for row in found:
        features = expected[row["as_of"], row["customer_id"]]
        for name in feature_names(TARGETS):
            wanted = features[name]
            assert row[name] == (None if wanted is None else pytest.approx(wanted, rel=1e-14)), (row["as_of"], name)


def described(engine, rows: list[Row], *days_ago: int) -> list[dict[str, object]]:
    """The features of C1, one row per day that knows the customer, in time."""
    purchases, customers = ibis.memtable(purchases_table(matched(engine, rows))), ibis.memtable(customers_table({}))
    days = [AS_OF - timedelta(days=ago) for ago in days_ago]
    found = build_features(purchases, customers, days, TARGETS).order_by("as_of")
    return engine.to_pyarrow(found).to_pylist()


def test_the_day_of_the_cancellation_still_sees_the_order_and_the_day_after_does_not(engine):
    rows = [sold(80, money=5), sold(50, money=1000), given_back(20, money=1000)]
    before, on_the_day, after = described(engine, rows, 21, 20, 19)
    assert before["max_transaction_value"] == on_the_day["max_transaction_value"] == 1000
    assert (on_the_day["total_transactions"], on_the_day["lifetime_spend"]) == (2, 1005)
    assert (after["total_transactions"], after["lifetime_spend"], after["max_transaction_value"]) == (1, 5, 5)
    assert after["days_since_last_transaction"] == 61


def test_a_cancelled_order_stays_in_the_rate_of_returns(engine):
    (row,) = described(engine, [sold(80, money=5), sold(50, money=1000), given_back(20, money=1000)], 0)
    assert row["return_rate"] == pytest.approx(1 / 3)


def test_who_has_cancelled_everything_has_bought_nothing(engine):
    assert [row["as_of"] for row in described(engine, [sold(50), given_back(20)], 30, 10)] == [
        AS_OF - timedelta(days=30)
    ]


def test_features_do_not_change_when_everything_on_and_after_the_day_is_deleted(engine):
    rows = shop_with_cancellations(9)
    known = ibis.memtable(purchases_table(matched(engine, rows)))
    customers = ibis.memtable(customers_table({}))
    together = read_matrix(engine, build_features(known, customers, SEVERAL_DAYS, TARGETS), feature_names(TARGETS))
    for day in (SEVERAL_DAYS[2], SEVERAL_DAYS[5]):
        earlier = purchases_table(matched(engine, [row for row in rows if row["day"] < day]))
        alone = build_features(ibis.memtable(earlier), customers, [day], TARGETS)
        rebuilt = read_matrix(engine, alone, feature_names(TARGETS))
        chosen = together.as_of == rebuilt.as_of[0]
        assert together.customer_id[chosen].tolist() == rebuilt.customer_id.tolist()
        assert together.features[chosen].tobytes() == rebuilt.features.tobytes()


def test_a_raw_history_finds_the_same_cancellations(engine):
    rows = shop_with_cancellations(10)
    known, customers = purchases_table(matched(engine, rows)), customers_table({})
    assert_raw_history_equals(engine, rows, known, customers)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_raw_history_of_tied_lines_is_described_as_the_slow_loop_matches_it(threads):
    rows = tied_rows(13)
    known = purchases_table(slowly_matched(rows))
    assert_raw_history_equals(open_engine(threads=threads), rows, known, customers_table({}))


def assert_raw_history_equals(engine, rows: list[Row], known: pa.Table, customers: pa.Table) -> None:
    """The features of the bare rows are those of the known purchases, to the last bit, also when asked again."""
    table = build_features(ibis.memtable(known), ibis.memtable(customers), SEVERAL_DAYS, TARGETS)
    shop = read_matrix(engine, table, feature_names(TARGETS))
    requests = HistoryFeatures(engine, TARGETS)
    for day in (AS_OF, SEVERAL_DAYS[2], SEVERAL_DAYS[4], AS_OF):
        raw = requests.read(purchases_table(rows), customers, day)
        chosen = shop.as_of == np.datetime64(day)
        assert chosen.sum() > 10
        assert raw.customer_id.tolist() == shop.customer_id[chosen].tolist()
        assert raw.features.tobytes() == shop.features[chosen].tobytes()


# ---- labels


def labels_of(engine, rows: list[Row], *days: date) -> list[dict[str, object]]:
    found = engine.to_pyarrow(build_targets(ibis.memtable(purchases_table(rows)), days, TARGETS))
    return found.sort_by([("as_of", "ascending"), ("customer_id", "ascending")]).to_pylist()


@pytest.mark.parametrize(("sold_ahead", "back_ahead"), [(0, 0), (3, 3), (3, 29), (3, 30), (29, 45)])
def test_an_order_counts_in_its_window_whether_it_is_cancelled_within_it_or_later(engine, sold_ahead, back_ahead):
    rows = [
        sold(-2, money=5, category="grocery"),
        sold(-sold_ahead, money=1000, category="sports"),
        given_back(-back_ahead, money=1000, category="sports"),
    ]
    known = matched(engine, rows)
    assert known[1]["cancelled_on"] is not None
    (label,) = labels_of(engine, known, AS_OF)
    assert (label["total"], label["grocery"], label["sports"], label["transactions"]) == (1005, 5, 1000, 2)


def test_a_cancellation_takes_nothing_out_of_a_window_after_the_order(engine):
    rows = matched(engine, [sold(5, money=1000), sold(-2, money=5), given_back(-10, money=1000)])
    (label,) = labels_of(engine, rows, AS_OF)
    assert (label["total"], label["transactions"]) == (5, 1)


def test_in_net_mode_a_window_subtracts_what_is_given_back_in_it_and_nothing_twice(engine):
    rows = [sold(-2, money=5), sold(-20, money=1000), given_back(-35, money=1000, net=True)]
    labels = labels_of(engine, matched(engine, rows), AS_OF, AS_OF + timedelta(days=10), AS_OF + timedelta(days=30))
    assert [(row["total"], row["transactions"]) for row in labels] == [(1005, 2), (0, 1), (0, 0)]


@pytest.mark.parametrize("net", [False, True])
def test_labels_do_not_depend_on_whether_cancellations_are_known(engine, net):
    rows = shop_with_cancellations(14, net=net)
    known = matched(engine, rows)
    assert any(row["cancelled_on"] for row in known)
    assert labels_of(engine, known, *SEVERAL_DAYS) == labels_of(engine, rows, *SEVERAL_DAYS)


# ---- the report

SHOP = {
    "store_sales_header": """transaction_id,customer_id,transaction_date,total_amount
t1,c1,2025-01-02,
t2,c1,2025-01-05,
t3,c1,2025-01-09,
t4,c2,2025-01-10,30
t5,c2,2025-01-20,-30
t6,c2,2025-01-21,8
""",
    "products": "product_id,product_name,product_category\np1,Radio,electronics\n",
    "store_sales_line_items": """line_item_id,transaction_id,product_id,quantity,line_item_amount
l1,t1,p1,4,400
l2,t1,p1,2,50
l3,t2,p1,2,50
l4,t3,p1,-4,-400
l5,t3,p1,-2,-50
l6,t3,p1,-1,-25
""",
}


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cancelled")
    prepare_shop(write_shop(folder / "data", SHOP), folder / "out")
    return folder / "out"


def test_purchases_name_the_day_of_the_cancellation(out):
    found = {(row["transaction_id"], row["quantity_milli"]): row for row in purchase_rows(out)}
    assert {key for key, row in found.items() if row["cancelled_on"]} == {("t1", 4_000), ("t4", 1_000)}
    assert found["t1", 4_000]["cancelled_on"] == date(2025, 1, 9)
    assert found["t1", 4_000]["cancelled_units"] == 4_000_000
    assert found["t4", 1_000]["cancelled_on"] == date(2025, 1, 20)
    assert {row["cancelled_units"] for row in found.values() if not row["cancelled_on"]} == {0}


def test_the_report_counts_lines_cancelled_matched_and_ambiguous_with_their_money(tmp_path):
    report = prepare_shop(write_shop(tmp_path / "data", SHOP), tmp_path / "out").report
    flags = report["flags"]
    counted = {name: (flags[name]["rows"], flags[name]["money"]) for name in flags if "cancel" in name}
    assert counted == {
        "order_line_cancelled": (2, "430.00"),
        "cancellation_matched": (2, "430.00"),
        "cancellation_ambiguous": (1, "50.00"),
    }
    assert flags["return_line"]["rows"] == 3
    assert report["purchases"]["cancelled"] == "430.00"
    for table in report["tables"].values():
        assert table["rows_in"] == table["kept"] + table["quarantined"]
    assert "| order_line_cancelled | 2 | 430.00 |  |" in (tmp_path / "out" / "data_report.md").read_text()


def test_the_profile_tells_all_money_and_what_was_cancelled_and_counts_customers_without_it(tmp_path):
    profile = explore_dataset(open_engine(threads=1), write_shop(tmp_path / "data", SHOP))
    money = {name: profile["purchases"][name] for name in ("spend", "returned", "cancelled")}
    assert money == {"spend": "538.00", "returned": "505.00", "cancelled": "430.00"}
    assert [row["spend"] for row in profile["months"]] == ["538.00"]
    counted = {row["transactions"]: row["customers"] for row in profile["transactions"]}
    assert (counted["1"], counted["2"]) == (1, 1)
