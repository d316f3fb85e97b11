import random
from datetime import date, timedelta

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docs.make_features import PAGE, features_page
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadDatasetConfig
from ml_pipeline.features import (
    WINDOWS,
    build_features,
    decayed_rate_name,
    feature_names,
    feature_set,
    lifetime_spend_name,
    read_matrix,
    spend_window_name,
    transaction_count_name,
)
from ml_pipeline.history import HistoryFeatures
from tests.ml_pipeline.feature_oracle import describe_customers
from tests.ml_pipeline.purchase_rows import (
    AS_OF,
    TARGETS,
    customers_table,
    purchase,
    purchases_table,
    random_customers,
    random_purchases,
)

NAMES_OF_THE_CONTRACT = [
    "days_since_last_transaction",
    "days_since_first_transaction",
    "total_transactions",
    "avg_days_between_transactions",
    "customer_tenure_days",
    "transaction_count_7d",
    "transaction_count_30d",
    "transaction_count_60d",
    "transaction_count_90d",
    "transaction_count_31_60d",
    "transaction_count_61_120d",
    "total_spend_7d",
    "total_spend_30d",
    "total_spend_60d",
    "total_spend_90d",
    "total_spend_31_60d",
    "total_spend_61_120d",
    "lifetime_spend",
    "avg_transaction_value",
    "max_transaction_value",
    "min_transaction_value",
    "std_transaction_value",
    "spend_velocity",
    "num_distinct_products",
    "num_distinct_categories",
    "num_distinct_stores",
    "promotion_usage_rate",
    "promotion_usage_count",
    "purchase_momentum",
    "weekend_transaction_rate",
    "most_common_day_of_week",
    "avg_items_per_transaction",
    "max_items_per_transaction",
    "total_items_purchased",
    "transaction_density",
    "return_rate",
    "is_cold_start",
]
NAMES_PER_TARGET = ("spend_30d", "spend_90d", "txn_count", "days_since", "favorite_category")
SEVERAL_DAYS = [AS_OF - timedelta(days=ago) for ago in (330, 90, 61, 60, 30, 29, 7, 1, 0)] + [AS_OF + timedelta(20)]


@pytest.fixture(scope="module")
def engine():
    return open_engine(threads=2)


@pytest.fixture(scope="module")
def planned():
    return HistoryFeatures(open_engine(threads=1), TARGETS)


def features_of(engine, rows, customer_since=None, as_of_days=(AS_OF,), targets=TARGETS):
    """Sorted rows of build_features, as Arrow."""
    features = build_features(
        ibis.memtable(purchases_table(rows)),
        ibis.memtable(customers_table(customer_since or {})),
        list(as_of_days),
        targets,
    )
    return engine.to_pyarrow(features).sort_by([("as_of", "ascending"), ("customer_id", "ascending")])


def described(planned, rows, customer_since=None, as_of=AS_OF):
    """Features by name, float32, NaN = missing, by customer; the same expression as build_features, planned once."""
    found = planned.read(purchases_table(rows), customers_table(customer_since or {}), as_of)
    return {
        str(customer): dict(zip(feature_names(TARGETS), map(float, features), strict=True))
        for customer, features in zip(found.customer_id, found.features, strict=True)
    }


def assert_same_as_oracle(found, rows, customer_since, as_of_days, targets=TARGETS):
    expected = {
        (as_of, customer): features
        for as_of in set(as_of_days)
        for customer, features in describe_customers(rows, customer_since, as_of, targets).items()
    }
    rows_by_key = {(row.pop("as_of"), row.pop("customer_id")): row for row in found.to_pylist()}
    assert rows_by_key.keys() == expected.keys()
    for key, row in rows_by_key.items():
        assert row.keys() == expected[key].keys()
        for name, value in row.items():
            if name.startswith(("std_", "ew_")) and value is not None:
                assert value == pytest.approx(expected[key][name], rel=1e-14, abs=0), (key, name)
            else:
                assert value == expected[key][name], (key, name)


# Names


def test_the_columns_are_the_feature_names_all_float64(engine):
    found = features_of(engine, [purchase()])
    assert found.column_names == ["customer_id", "as_of", *feature_names(TARGETS)]
    assert set(found.schema.types[2:]) == {pa.float64()}


def test_every_name_of_the_contract_is_there():
    per_target = [f"{name}_{target}" for name in NAMES_PER_TARGET for target in TARGETS]
    assert not {*NAMES_OF_THE_CONTRACT, *per_target} - set(feature_names(TARGETS))


@pytest.mark.parametrize("targets", [(), ("wine",), tuple(f"t{number}" for number in range(12))])
def test_a_shop_may_have_other_targets_or_none(engine, targets):
    rows = [purchase(target=target) for target in targets] or [purchase(target="other")]
    found = features_of(engine, rows, targets=targets)
    assert found.column_names[2:] == list(feature_names(targets))
    assert_same_as_oracle(found, rows, {}, [AS_OF], targets)


def test_a_target_that_would_take_another_features_name_is_refused_with_the_name():
    with pytest.raises(BadDatasetConfig, match=r"days_since_last_transaction.*rename"):
        feature_set(("last_transaction",))


def test_names_for_rules_exist_and_unknown_windows_are_refused():
    names = set(feature_names(TARGETS))
    assert {spend_window_name(30), spend_window_name(90, "grocery"), lifetime_spend_name("sports")} <= names
    assert {lifetime_spend_name(), transaction_count_name(90)} <= names
    assert {decayed_rate_name(20), decayed_rate_name(45, "grocery")} <= names
    with pytest.raises(ValueError, match="14 days; choose one of 7, 30, 60, 90, 180, 365"):
        spend_window_name(14)
    with pytest.raises(ValueError, match="60 days; choose one of 30, 90"):
        spend_window_name(60, "grocery")
    with pytest.raises(ValueError, match="choose one of"):
        transaction_count_name(14)
    with pytest.raises(ValueError, match="half-life of 20 days; choose one of 45, 120"):
        decayed_rate_name(20, "grocery")


def test_no_as_of_day_is_refused(engine):
    with pytest.raises(ValueError, match="name at least one"):
        features_of(engine, [purchase()], as_of_days=())


# The slow loop as the oracle


@pytest.mark.parametrize("net", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_random_shops_equal_the_slow_loop_on_all_days_at_once(engine, seed, net):
    rows, since = random_purchases(seed, net=net), random_customers(seed)
    found = features_of(engine, rows, since, as_of_days=SEVERAL_DAYS)
    assert_same_as_oracle(found, rows, since, SEVERAL_DAYS)


LINES = st.fixed_dictionaries(
    {
        "customer_id": st.sampled_from(["a", "B", "ä"]),
        "days_ago": st.one_of(st.integers(-2, 130), st.integers(-400, 4_000)),
        "money": st.one_of(st.integers(-3, 3).filter(bool), st.floats(0.0001, 1e7), st.floats(-1e7, -0.0001)),
        "category": st.sampled_from(["electronics", "grocery", "sports", "toys", "unknown"]),
        "transaction_id": st.sampled_from(["1", "2", "3"]),
        "product_id": st.sampled_from([None, "p", "q"]),
        "store_id": st.sampled_from([None, "s", "t"]),
        "quantity_milli": st.sampled_from([500, 1_000, 3_000]),
        "has_promotion": st.sampled_from([None, True, False]),
        "net": st.just(True),
    }
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(LINES, max_size=12), since=st.integers(-3, 500))
def test_any_history_equals_the_slow_loop(planned, lines, since):
    rows = [purchase(**line) for line in lines if round(line["money"] * 10_000)]
    customer_since = {"a": AS_OF - timedelta(days=since), "B": None}
    found = planned.read(purchases_table(rows), customers_table(customer_since), AS_OF)
    expected = describe_customers(rows, customer_since, AS_OF, TARGETS)
    assert list(found.customer_id) == sorted(expected)
    table = [[expected[customer][name] for name in feature_names(TARGETS)] for customer in found.customer_id]
    wanted = np.array(table, dtype=np.float64).astype(np.float32).reshape(len(table), len(feature_names(TARGETS)))
    np.testing.assert_array_max_ulp(found.features, wanted, maxulp=1)


# Time


def test_rows_on_or_after_as_of_are_invisible(engine):
    rows = random_purchases(1)
    past = [row for row in rows if row["day"] < AS_OF]
    future = [purchase("C001", days_ago=0, money=1e6), purchase("C001", -1, -1e6), purchase("new", -9_999, 5)]
    later = [{**row, "day": AS_OF + (AS_OF - row["day"])} for row in past]
    assert features_of(engine, past) == features_of(engine, rows) == features_of(engine, past + future + later)


def test_a_transaction_with_lines_on_both_sides_of_as_of_shows_only_its_past(engine):
    rows = [purchase(days_ago=1, money=3, transaction_id="T"), purchase(days_ago=0, money=4, transaction_id="T")]
    assert features_of(engine, rows) == features_of(engine, rows[:1])


@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.label)
def test_a_window_sees_its_first_and_its_last_day_and_not_their_neighbours(planned, window):
    edges = {
        window.newest - 1: False,
        window.newest: True,
        window.oldest: True,
        window.oldest + 1: False,
    }
    old = [purchase(f"{days_ago} days ago", days_ago=3_000, money=1) for days_ago in edges]
    rows = described(planned, old + [purchase(f"{days_ago} days ago", days_ago, money=7) for days_ago in edges])
    counts = {days_ago: rows[f"{days_ago} days ago"][f"transaction_count_{window.label}"] for days_ago in edges}
    spends = {days_ago: rows[f"{days_ago} days ago"][f"total_spend_{window.label}"] for days_ago in edges}
    assert counts == edges
    assert spends == {days_ago: 7 * seen for days_ago, seen in edges.items()}


@pytest.mark.parametrize("days", [30, 90])
def test_a_targets_window_sees_its_last_day_and_not_the_one_before(planned, days):
    rows = [purchase(days_ago=ago, money=ago, category="grocery") for ago in (0, 1, days, days + 1)]
    assert described(planned, rows)["C1"][spend_window_name(days, "grocery")] == 1 + days


@pytest.mark.parametrize("days_ago", [1, 7, 120, 365, 366, 5_000])
def test_lifetime_sees_every_day_before_as_of(planned, days_ago):
    row = described(planned, [purchase(days_ago=days_ago, money=2.5), purchase(days_ago=0)])["C1"]
    assert (row["lifetime_spend"], row["total_transactions"]) == (2.5, 1)
    assert row["days_since_first_transaction"] == row["days_since_last_transaction"] == days_ago


def test_a_day_of_two_purchases_is_one_purchase_day_and_the_first_is_no_repeat(planned):
    rows = [purchase(days_ago=50, money=10), purchase(days_ago=50, money=20), purchase(days_ago=20, money=4)]
    row = described(planned, [*rows, purchase(days_ago=5, money=8), purchase(days_ago=5, money=-1)])["C1"]
    assert (row["total_transactions"], row["total_purchase_days"], row["days_first_to_last"]) == (4, 3, 45)
    assert (row["mean_purchase_day_value"], row["mean_repeat_value"]) == (14, 6)


def test_a_customer_of_one_day_has_no_repeat_value(planned):
    row = described(planned, [purchase(days_ago=9, money=6), purchase(days_ago=9, money=2)])["C1"]
    assert (row["total_purchase_days"], row["days_first_to_last"], row["mean_purchase_day_value"]) == (1, 0, 8)
    assert np.isnan(row["mean_repeat_value"])


def test_gaps_lie_between_days_with_a_purchase_and_say_when_the_next_is_due(planned):
    rows = [purchase(days_ago=ago, money=ago) for ago in (40, 40, 30, 10)] + [purchase(days_ago=2, money=-1)]
    row = described(planned, rows)["C1"]
    assert (row["std_days_between_transactions"], row["max_days_between_transactions"]) == (5, 20)
    assert (row["days_until_due"], row["last_transaction_value"]) == (15 - 10, 10)
    assert described(planned, rows, as_of=AS_OF + timedelta(days=10))["C1"]["days_until_due"] == 15 - 20


def test_one_day_of_purchases_has_no_gaps_and_is_its_own_last_value(planned):
    row = described(planned, [purchase(days_ago=9, money=6), purchase(days_ago=9, money=2)])["C1"]
    assert row["last_transaction_value"] == 8
    gaps = ("std_days_between_transactions", "max_days_between_transactions", "days_until_due")
    assert all(np.isnan(row[name]) for name in gaps)


def test_the_same_window_last_year_is_unknown_until_the_customer_is_a_year_old(planned):
    rows = [purchase(f"{ago}", ago, money=7) for ago in (335, 336, 364, 365)]
    rows += [purchase(str(ago), 400, money=1) for ago in (335, 336)]
    found = described(planned, [*rows, purchase("366", 366, money=7)])
    spends = {customer: row["spend_same_window_last_year"] for customer, row in found.items()}
    assert np.isnan(spends.pop("364"))
    assert spends == {"335": 0, "336": 7, "365": 7, "366": 0}


def test_a_steady_customer_has_the_same_weighted_rate_at_every_half_life_and_age(planned):
    rows = [purchase(f"{days} days", ago, money=2) for days in (30, 365, 900) for ago in range(1, days + 1)]
    for row in described(planned, rows).values():
        rates = {name: value for name, value in row.items() if name.startswith("ew_")}
        assert {round(value, 4) for name, value in rates.items() if name.startswith("ew_transaction")} == {30}
        assert {round(value, 4) for name, value in rates.items() if name[-1] == "d" and "spend" in name} == {60}


def test_a_weighted_rate_forgets_faster_with_a_shorter_half_life_and_new_customers_have_thirty_days(planned):
    old = [purchase(days_ago=300, money=90), purchase("new", days_ago=1, money=30)]
    rows = described(planned, [*old, purchase("older", days_ago=900, money=90)])
    rates = {name: [row[f"ew_spend_rate_{days}d"] for days in (20, 45, 120)] for name, row in rows.items()}
    assert 0 < rates["C1"][0] < rates["C1"][1] < rates["C1"][2] < 9
    assert 0 < rates["older"][0] < rates["older"][2] < rates["C1"][2]
    assert 30 < rates["new"][2] < rates["new"][0] < 60


def test_a_weighted_rate_of_a_target_counts_only_the_target_over_the_tenure_of_everything(planned):
    rows = [purchase(days_ago=200, money=4), purchase(days_ago=2, money=8, category="grocery")]
    row = described(planned, rows)["C1"]
    assert row["ew_spend_rate_45d_sports"] == 0
    assert 0 < row["ew_spend_rate_45d_grocery"] < row["ew_spend_rate_45d"]


def test_monday_is_0_and_sunday_6(planned):
    week = [date(2025, 2, 10) + timedelta(days=ahead) for ahead in range(7)]
    assert week[0].strftime("%A") == "Monday"
    rows = described(planned, [purchase(f"{day:%A}", day=day) for day in week])
    assert [rows[f"{day:%A}"]["most_common_day_of_week"] for day in week] == list(range(7))
    assert [rows[f"{day:%A}"]["weekend_transaction_rate"] for day in week] == [0, 0, 0, 0, 0, 1, 1]


def test_of_equally_common_days_of_the_week_the_earliest_counts(planned):
    sunday, wednesday = date(2025, 2, 23), date(2025, 2, 26)
    row = described(planned, [purchase(day=sunday), purchase(day=wednesday)])["C1"]
    assert row["most_common_day_of_week"] == 2


def test_the_calendar_features_describe_the_window_to_come(planned):
    december, january = (
        described(planned, [purchase(days_ago=99)], as_of=day)["C1"] for day in (date(2025, 12, 17), date(2025, 12, 18))
    )
    assert (december["target_month_sin"], december["target_month_cos"]) == pytest.approx((-0.5, 3**0.5 / 2))
    assert (january["target_month_sin"], january["target_month_cos"]) == (0, 1)
    assert (december["target_days_to_year_end"], january["target_days_to_year_end"]) == (14, 13)
    assert december["target_weekend_days"] == 8  # Saturdays 20, 27, 3, 10 and the Sundays after


# The same row, however it is asked for


def test_the_order_of_the_rows_does_not_matter(engine):
    rows = random_purchases(2, net=True)
    shuffled = random.Random(0).sample(rows, len(rows))
    assert features_of(engine, rows) == features_of(engine, shuffled)


def test_a_customer_alone_is_the_same_as_among_all(engine):
    rows, since = random_purchases(3, net=True), random_customers(3)
    everyone = features_of(engine, rows, since, as_of_days=SEVERAL_DAYS)
    for customer in ("C000", "C007", "C012"):
        own = [row for row in rows if row["customer_id"] == customer]
        alone = features_of(engine, own, {customer: since.get(customer)}, as_of_days=SEVERAL_DAYS)
        among = everyone.filter(pc.equal(everyone["customer_id"], customer))
        assert alone.num_rows > 0
        assert alone == among


def test_many_as_of_days_at_once_equal_one_at_a_time(engine):
    rows, since = random_purchases(4, net=True), random_customers(4)
    days = [SEVERAL_DAYS[3], SEVERAL_DAYS[0], SEVERAL_DAYS[8], SEVERAL_DAYS[3], date(1999, 1, 1)]
    together = features_of(engine, rows, since, as_of_days=days)
    apart = [features_of(engine, rows, since, as_of_days=[day]) for day in sorted(set(days))]
    assert together == pa.concat_tables(apart)


def test_one_thread_and_two_give_the_same_bits(engine):
    rows = [row | {"customer_id": f"{row['customer_id']}-{copy}"} for copy in range(40) for row in random_purchases(5)]
    assert features_of(open_engine(threads=1), rows, as_of_days=SEVERAL_DAYS) == features_of(
        engine, rows, as_of_days=SEVERAL_DAYS
    )


def test_a_planned_raw_history_equals_the_same_customer_among_all(engine, planned):
    rows, since = random_purchases(6), random_customers(6)
    days = SEVERAL_DAYS[-3:]
    features = build_features(
        ibis.memtable(purchases_table(rows)), ibis.memtable(customers_table(since)), days, TARGETS
    )
    everyone = read_matrix(engine, features, feature_names(TARGETS))
    for position in range(0, len(everyone.customer_id), 7):
        customer, as_of = str(everyone.customer_id[position]), everyone.as_of[position].item()
        own = [row for row in rows if row["customer_id"] == customer]
        alone = planned.read(purchases_table(own), customers_table({customer: since.get(customer)}), as_of)
        assert list(alone.customer_id) == [customer]
        np.testing.assert_array_equal(alone.features[0], everyone.features[position])


def test_a_planned_call_remembers_nothing_of_the_one_before(planned):
    nobody = customers_table({})
    first = planned.read(purchases_table([purchase("A")]), nobody, AS_OF)
    assert list(planned.read(purchases_table([purchase("B")]), nobody, AS_OF).customer_id) == ["B"]
    assert len(planned.read(purchases_table([]), nobody, AS_OF).customer_id) == 0
    again = planned.read(purchases_table([purchase("A")]), nobody, AS_OF)
    np.testing.assert_array_equal(first.features, again.features)


# Who is there


def test_there_is_never_more_than_one_row_of_a_customer_and_as_of(engine):
    rows = random_purchases(7)
    twice = pa.concat_tables([customers_table(random_customers(7))] * 2)
    features = build_features(
        ibis.memtable(purchases_table(rows)), ibis.memtable(twice), [*SEVERAL_DAYS, AS_OF], TARGETS
    )
    keys = engine.to_pyarrow(features.select("customer_id", "as_of")).to_pylist()
    assert len(keys) == len({(key["customer_id"], key["as_of"]) for key in keys}) > 0


def test_a_customer_who_only_returned_is_not_described(engine):
    assert features_of(engine, [purchase(money=-5), purchase("C2", days_ago=-1)]).num_rows == 0


@pytest.mark.parametrize(
    ("since_ago", "tenure"), [(40, 40), (12, 12), (5, 12), (0, 12), (-3, 12), (None, 12), ("not listed", 12)]
)
def test_tenure_counts_from_customer_since_where_that_is_earlier(planned, since_ago, tenure):
    since = {} if since_ago == "not listed" else {"C1": None if since_ago is None else AS_OF - timedelta(since_ago)}
    assert described(planned, [purchase(days_ago=12)], since)["C1"]["customer_tenure_days"] == tenure


# Returns and net spend


def test_a_return_is_no_transaction_and_counts_as_a_line(planned):
    row = described(planned, [purchase(money=10, days_ago=40), purchase(money=-4, days_ago=2)])["C1"]
    assert (row["total_transactions"], row["transaction_count_7d"], row["days_since_last_transaction"]) == (1, 0, 40)
    assert (row["return_rate"], row["lifetime_spend"]) == (0.5, 10)


def test_net_spend_subtracts_returns_and_stops_at_0(planned):
    rows = [
        purchase(money=10, days_ago=40, net=True, category="grocery"),
        purchase(money=-4, days_ago=2, net=True, category="grocery"),
    ]
    row = described(planned, rows)["C1"]
    assert (row["lifetime_spend"], row["total_spend_60d"], row["total_spend_30d"]) == (6, 6, 0)
    assert (row["lifetime_spend_grocery"], row["spend_30d_grocery"]) == (6, 0)
    assert row["max_transaction_value"] == 10


def test_equal_favourites_share_and_nothing_bought_is_no_favourite(planned):
    rows = [purchase(category="grocery", money=5), purchase(category="sports", money=5), purchase(money=9)]
    row = described(planned, rows)["C1"]
    assert [row[f"favorite_category_{target}"] for target in TARGETS] == [0, 1, 1]


def test_what_the_shop_does_not_record_is_missing_and_not_0(planned):
    row = described(planned, [purchase(category="unknown")])["C1"]
    unknown = {name for name, value in row.items() if np.isnan(value)}
    assert unknown >= {
        "num_distinct_products",
        "num_distinct_categories",
        "num_distinct_stores",
        "promotion_usage_rate",
        "promotion_usage_count",
        "avg_days_between_transactions",
        "recency_ratio",
    }
    assert not unknown & {"lifetime_spend", "spend_30d_grocery", "std_transaction_value", "return_rate"}


def test_tiny_differences_of_large_amounts_survive_in_the_standard_deviation(engine):
    rows = [purchase(spend_units=units, amount_units=units) for units in (10**15, 10**15 + 1, 10**15 + 2)]
    (deviation,) = features_of(engine, rows)["std_transaction_value"].to_pylist()
    assert deviation == pytest.approx((2 / 3) ** 0.5 / 10_000, rel=1e-14)


def test_the_longest_history_of_the_largest_amounts_does_not_overflow(engine):
    rows = [purchase(spend_units=10**15, amount_units=10**15, days_ago=ago) for ago in range(1, 1_000)]
    found = features_of(engine, rows)
    assert found["lifetime_spend"].to_pylist() == [999 * 10.0**11]
    assert found["ew_spend_rate_45d"].to_pylist() == pytest.approx([30 * 10.0**11])


# Reading


def test_the_matrix_is_the_float32_of_the_features_in_order_with_nan_for_missing(engine):
    rows = random_purchases(8)
    features = build_features(
        ibis.memtable(purchases_table(rows)), ibis.memtable(customers_table({})), SEVERAL_DAYS, TARGETS
    )
    names = feature_names(TARGETS)[::-1]
    found = read_matrix(engine, features.mutate(label=ibis._.lifetime_spend / 3), names, batch_rows=17)
    frame = engine.to_pyarrow(features).to_pandas().sort_values(["as_of", "customer_id"])
    assert found.features.dtype == np.float32
    assert found.features.flags.c_contiguous
    np.testing.assert_array_equal(found.features, frame[list(names)].to_numpy(dtype=np.float64).astype(np.float32))
    assert list(found.customer_id) == list(frame["customer_id"])
    np.testing.assert_array_equal(found.as_of, frame["as_of"].to_numpy().astype("datetime64[D]"))
    np.testing.assert_array_equal(found.other["label"], frame["lifetime_spend"].to_numpy() / 3)
    assert np.isnan(found.features).any()


def test_reading_leaves_no_table_behind(engine):
    features = build_features(
        ibis.memtable(purchases_table([purchase()])), ibis.memtable(customers_table({})), [AS_OF], TARGETS
    )
    read_matrix(engine, features, feature_names(TARGETS))
    assert [name for name in engine.list_tables() if "memtable" not in name] == []


# The page


def test_the_page_of_features_is_what_the_features_say():
    assert PAGE.read_text(encoding="utf-8") == features_page(), "stale: run python -m docs.make_features"
