from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.public_data import CDNOW, COMPLETE_JOURNEY, Converted, window_at
from benchmarks.trust_bounds import Bound, Measured, together
from benchmarks.trust_coherence import Compared, agreement_of, compare_columns, drawn_gains, gain
from benchmarks.trust_facts import Facts, History, summed_up
from benchmarks.trust_intervals import (
    Judged,
    empirical_interval,
    interval_score,
    judge_shares,
    outside_by_chance,
    shares_by_decile,
)
from benchmarks.trust_page import page, render
from benchmarks.trust_reasons import ReasonChecks, adjustment_share, checks_of, idle_features, permute, some_customers
from benchmarks.trust_record import TrustRecord, load_record, save_record
from benchmarks.trust_report import CustomersMissing, TrustWindow, aligned, interval_rows, items, report_on
from benchmarks.trust_sums import (
    SIZES,
    CustomerSet,
    coverage_of,
    judged_sums,
    past_errors,
    peer_ends,
    peer_intervals,
    random_sets,
    store_sets,
    with_peer,
)
from ml_pipeline.sums import fit_sums

FIRST = date(2024, 1, 1)


def a_shop(tmp_path: Path, customers: int = 60, days: int = 330, seed: int = 5) -> Converted:
    """Customers that buy in two categories and two stores on random days."""
    random = np.random.default_rng(seed)
    size = customers * 40
    purchases = pd.DataFrame(
        {
            "customer_id": random.integers(100, 100 + customers, size).astype(str),
            "day": pd.Timestamp(FIRST).as_unit("s") + pd.to_timedelta(random.integers(0, days, size), unit="D"),
            "transaction_id": np.arange(size).astype(str),
            "category": random.choice(["GROCERY", "FUEL", "CANDY"], size),
            "amount": random.gamma(2.0, 10.0, size).round(2),
        }
    )
    header = purchases[["transaction_id"]].assign(store_id=np.where(purchases["customer_id"] < "130", "north", "south"))
    header.to_parquet(tmp_path / "store_sales_header.parquet")
    return Converted(tmp_path, purchases, [], "x")


def a_history(tmp_path: Path) -> History:
    return summed_up(a_shop(tmp_path), {"grocery": "GROCERY", "fuel": "FUEL"})


def facts(n: int, day: date = FIRST, columns: int = 2, stores: list[str] | None = None) -> Facts:
    spend = np.arange(1.0, n + 1)[:, None] * np.ones(columns)
    ids = np.array([f"{number:04}" for number in range(n)])
    return Facts(day, ids, spend, spend.copy(), np.array(stores if stores else [""] * n))


# ---- facts


@pytest.mark.parametrize("passed", [4, 200])
def test_facts_are_those_of_the_window_and_other_is_the_rest(passed: int, tmp_path: Path) -> None:
    shop = a_shop(tmp_path)
    day = FIRST + timedelta(days=passed)
    targets = {"grocery": "GROCERY", "fuel": "FUEL"}
    window, told = window_at(shop.purchases, day, targets), summed_up(shop, targets).facts_at(day)
    assert told.customer_ids.tolist() == window.customer_ids.tolist()
    np.testing.assert_allclose(told.actual[:, 0], window.actual, atol=0.005)
    np.testing.assert_allclose(told.actual[:, 2], window.actual_of["fuel"], atol=0.005)
    np.testing.assert_allclose(told.actual[:, 3], window.actual - sum(window.actual_of.values()), atol=0.02)


def test_the_rule_is_a_third_of_the_ninety_days_before_the_day(tmp_path: Path) -> None:
    shop = a_shop(tmp_path)
    day = FIRST + timedelta(days=200)
    purchases = shop.purchases
    first, last = pd.Timestamp(day - timedelta(days=90)), pd.Timestamp(day - timedelta(days=1))
    expected = purchases[purchases["day"].between(first, last)].groupby("customer_id")["amount"].sum() / 3
    told = summed_up(shop, {}).facts_at(day)
    np.testing.assert_allclose(told.rule[:, 0], expected.reindex(told.customer_ids).to_numpy(), atol=0.005)


def test_a_customer_belongs_to_the_store_of_most_visits_before_the_day_and_the_first_by_name_among_equals() -> None:
    visits = pd.DataFrame(
        [(0, 1, "b", 2), (0, 2, "a", 1), (0, 9, "a", 7), (1, 1, "z", 1), (1, 2, "c", 1)],
        columns=["customer", "day", "store_id", "visits"],
    )
    visits["day"] = pd.Timestamp(FIRST) + pd.to_timedelta(visits["day"], unit="D")
    spend = pd.DataFrame({"customer": [0, 1, 2], "day": pd.Timestamp(FIRST), "part": 1, "amount": 1.0})
    history = History(np.array(["x", "y", "z"]), ("total", "other"), spend, visits)
    assert history.facts_at(FIRST + timedelta(days=5)).stores.tolist() == ["b", "c", ""]
    assert history.facts_at(FIRST + timedelta(days=20)).stores.tolist() == ["a", "c", ""]


def test_earlier_windows_end_before_the_day_and_leave_the_rule_its_ninety_days(tmp_path: Path) -> None:
    history = a_history(tmp_path)
    days = [each.day for each in history.facts_before(FIRST + timedelta(days=200))]
    assert days == [FIRST + timedelta(days=passed) for passed in (170, 140, 110)]


# ---- intervals


def judged(n: int = 1_000, buying: float = 1.0, upper: float = 0.9) -> Judged:
    """Actual values even on 0 … 1 within every tenth of prediction; below 1 − buying they are 0."""
    within = (np.arange(n) * 7_919 % (n // 10) + 0.5) / (n // 10)
    actual = np.where(within >= 1 - buying, within, 0.0)
    predicted = np.arange(n) // (n // 10) + 0.5
    ids = np.array([f"{number:05}" for number in range(n)])
    return Judged(ids, actual, predicted, np.full(n, 0.1), np.full(n, upper))


def test_shares_outside_are_counted_by_tenth_and_in_all() -> None:
    window = judged()
    window.upper[900:] = 0.5  # the highest tenth
    shares = shares_by_decile([window], draws=20)
    np.testing.assert_allclose(shares.above, [*[0.1] * 9, 0.5, 0.14])
    np.testing.assert_allclose(shares.below, 0.1)
    np.testing.assert_allclose(shares.covered[9], 0.4)
    assert shares.customers.tolist() == [*[100] * 10, 1_000]


def test_tenths_are_made_in_each_window_and_then_taken_together() -> None:
    one, two = judged(), judged()
    together_ = shares_by_decile([one, replace(two, predicted=two.predicted * 1_000, upper=two.upper - 0.2)], draws=20)
    np.testing.assert_allclose(together_.above, 0.2)
    assert together_.customers[0] == 200


def test_the_noise_of_a_share_is_that_of_drawing_customers() -> None:
    shares = shares_by_decile([judged(4_000)], draws=400)
    np.testing.assert_allclose(shares.above_sd[:10], np.sqrt(0.1 * 0.9 / 400), rtol=0.2)
    np.testing.assert_allclose(shares.above_sd[10], np.sqrt(0.1 * 0.9 / 4_000), rtol=0.2)


def test_a_customer_is_drawn_with_all_of_his_windows() -> None:
    once, thrice = shares_by_decile([judged()], draws=200), shares_by_decile([judged()] * 3, draws=200)
    np.testing.assert_allclose(once.above_sd, thrice.above_sd)


@pytest.mark.parametrize(
    ("buying", "upper", "missed"),
    [
        (1.0, 0.9, []),
        (
            1.0,
            0.85,
            ["above, all customers", "above, tenths where ≥ 20 % buy", "covered, tenths where ≤ 10 % spend nothing"],
        ),
        (
            1.0,
            1.0,
            ["above, all customers", "above, tenths where ≥ 20 % buy", "covered, tenths where ≤ 10 % spend nothing"],
        ),
        (0.15, 0.9, ["below, tenths and all"]),
        (0.15, 0.86, ["above, all customers", "above, other tenths", "below, tenths and all"]),
    ],
)
def test_each_figure_of_coverage_is_judged_where_its_goal_says_so(
    buying: float, upper: float, missed: list[str]
) -> None:
    figures = judge_shares(shares_by_decile([judged(buying=buying, upper=upper)], draws=5))
    assert [figure.figure for figure in figures if not figure.reached] == missed


def test_categories_are_allowed_more_on_each_side() -> None:
    shares = shares_by_decile([judged(upper=0.865)], draws=5)  # 14 % above, 76 % covered
    assert not all(figure.reached for figure in judge_shares(shares))
    assert all(figure.reached for figure in judge_shares(shares, 0.02))


def test_chance_is_the_more_the_fewer_customers() -> None:
    few, many = (outside_by_chance(shares_by_decile([judged(n)], draws=100)) for n in (500, 20_000))
    assert few[:2] == many[:2] == (0, 10)
    assert few[2] > 4 > 0.5 > many[2]


def test_the_interval_score_is_the_width_and_ten_times_how_far_outside() -> None:
    actual, lower, upper = np.array([5.0, 1.0, 12.0]), np.full(3, 2.0), np.full(3, 10.0)
    np.testing.assert_allclose(interval_score(actual, lower, upper), [8.0, 18.0, 28.0])


def test_the_reference_is_the_quantiles_of_the_same_tenth_of_the_window_before() -> None:
    level = np.arange(1_000.0)
    spent = np.where(level < 100, 0.0, level)
    lower, upper = empirical_interval(level, spent, np.array([*range(9), 1_000_000.0]))
    assert (lower[0], upper[0]) == (0.0, 0.0)
    np.testing.assert_allclose((lower[9], upper[9]), (909.9, 989.1))


# ---- sums


def test_store_sets_are_the_stores_with_enough_customers() -> None:
    sets = store_sets(np.array(["a"] * 20 + ["b"] * 19 + [""] * 30))
    assert [each.members.tolist() for each in sets] == [list(range(20))]


def test_random_sets_are_seeded_within_their_sizes_and_hold_nobody_twice() -> None:
    sets, again = random_sets(5_000), random_sets(5_000)
    sizes = [len(each.members) for each in sets]
    assert min(sizes) >= 50
    assert max(sizes) <= 2_000
    assert all(len(np.unique(each.members)) == len(each.members) for each in sets)
    assert len({each.kind for each in sets}) == len(SIZES)
    assert all((one.members == two.members).all() for one, two in zip(sets, again, strict=True))
    assert max(len(each.members) for each in random_sets(90)) == 90


def test_our_sums_are_those_of_the_bundle_around_the_sets_customers() -> None:
    random = np.random.default_rng(1)
    predicted = random.gamma(2.0, 20.0, 400)
    learned = fit_sums([(predicted * random.gamma(4.0, 0.25, 400), predicted) for _ in range(4)])
    variance = learned.variance(predicted)
    told = facts(400, columns=1)
    members = np.arange(30, 90)
    row = judged_sums(
        told,
        [CustomerSet("k", members)],
        {"total": 0},
        predicted[:, None],
        variance[:, None],
        {"total": learned.as_json()},
    ).iloc[0]
    assert (row.point, row.lower, row.upper) == learned.around(predicted[members], variance[members])
    assert row.actual == told.actual[members].sum()
    assert (row.kind, row.customers) == ("k", 60)


def test_the_peer_learns_relative_errors_of_the_same_kind_and_column() -> None:
    stores = ["s"] * 25 + ["t"] * 25
    window = facts(50, stores=stores)
    window.actual[:25] *= 3
    errors = past_errors([window], {"total": 0, "other": 1}, stores=True)
    assert errors["error"].tolist() == pytest.approx([2, 2, 0, 0])
    assert errors["column"].tolist() == ["total", "other"] * 2


def test_more_reach_contains_less_and_beyond_all_errors_it_stretches() -> None:
    errors = np.linspace(-0.5, 1.0, 31)
    reaches = [peer_ends(errors, reach) for reach in (0, 0.4, 0.8, 1, 2)]
    assert reaches[0] == (0.25, 0.25)
    assert reaches[3] == (-0.5, 1.0)
    assert reaches[4] == (-1.25, 1.75)
    assert all(outer[0] <= inner[0] <= inner[1] <= outer[1] for inner, outer in pairwise(reaches))


def some_sums(n: int = 200) -> tuple[pd.DataFrame, dict[date, pd.DataFrame]]:
    """Rules that were wrong by −50 … +50 % before and are so again; ours hold in 80 % of the sums."""
    random = np.random.default_rng(7)
    rule = random.uniform(500, 1_500, n)
    sums = pd.DataFrame(
        {
            "day": FIRST,
            "kind": "k",
            "column": "total",
            "customers": 50,
            "actual": rule * (1 + random.permutation(np.linspace(-0.5, 0.5, n))),
            "rule": rule,
            "point": rule,
        }
    )
    missed = np.arange(n) < n // 5
    sums["lower"] = np.where(missed, sums["actual"] + 1, sums["actual"] - 100)
    sums["upper"] = sums["lower"] + 200
    errors = pd.DataFrame({"kind": "k", "column": "total", "error": np.linspace(-0.5, 0.5, 101)})
    return sums, {FIRST: errors}


def test_the_peer_is_made_to_cover_as_many_as_ours_and_no_more() -> None:
    sums, errors = some_sums()
    both = coverage_of(with_peer(sums, errors))
    assert both.covered == pytest.approx(0.8)
    assert both.peer_covered == pytest.approx(0.8, abs=0.005)
    assert both.peer_width == pytest.approx(0.8, abs=0.02)  # of errors even on −50 … +50 %
    assert both.width == pytest.approx((200 / sums["point"]).mean())
    assert both.ratio == pytest.approx(both.width / both.peer_width)


def test_the_peer_reaches_beyond_what_it_has_seen_when_ours_cover_more() -> None:
    sums, errors = some_sums()
    sums["lower"], sums["upper"] = 0.0, 10_000.0
    small = {FIRST: errors[FIRST].assign(error=errors[FIRST]["error"] / 10)}
    both = coverage_of(with_peer(sums, small))
    assert both.peer_covered == both.covered == 1.0
    assert both.peer_width == pytest.approx(1.0, abs=0.02)


def test_the_peer_is_matched_and_compared_in_each_column_apart() -> None:
    sums, errors = some_sums()
    other = sums.assign(column="other", lower=sums["actual"] - 1, upper=sums["actual"] + 1)
    past = {FIRST: pd.concat([errors[FIRST], errors[FIRST].assign(column="other")])}
    both = with_peer(pd.concat([sums, other]), past)
    apart = [coverage_of(rows) for _, rows in both.groupby("column")]
    assert [each.peer_covered for each in apart] == pytest.approx([1.0, 0.8], abs=0.005)
    assert coverage_of(both).ratio == pytest.approx(np.mean([each.ratio for each in apart]))
    assert coverage_of(both).money_ratio == pytest.approx(np.mean([each.money_ratio for each in apart]))
    assert coverage_of(both).money_ratio != pytest.approx(coverage_of(both).ratio)


def test_the_peer_says_its_sum_where_nothing_like_a_set_was_there_before() -> None:
    sums, errors = some_sums()
    lower, upper = peer_intervals(sums.assign(kind="new"), errors, 0.8)
    assert (lower == sums["rule"]).all()
    assert (upper == sums["rule"]).all()


# ---- coherence


def test_agreement_counts_who_exceeds_the_total_and_whose_cents_do_not_add_up() -> None:
    money = np.array(
        [
            [10.0, 6.0, 3.0, 1.0],
            [10.0, 8.0, 2.01, 0.0],
            [0.3, 0.1, 0.2, 0.0],
            [5.0, 1.0, 1.0, 2.99],
            [9.0, 6.0, 3.0, 1.0],
        ]
    )
    told = agreement_of(money)
    assert (told.customers, told.over_total, told.not_adding_up) == (5, 1, 3)


@pytest.mark.parametrize(
    ("metric", "before", "after", "expected"),
    [
        ("d2", 0.5, 0.49, -0.02),
        ("d2", -0.5, -0.49, 0.02),
        ("decile_mape", 0.1, 0.11, -0.1),
        ("bias", 0.9, 0.99, 0.1),
        ("bias", 1.0, 1.1, -0.1),
        ("bias", 1.1, 0.99, 0.1),
        ("d2", None, 0.5, None),
    ],
)
def test_a_gain_is_positive_where_the_metric_became_better(
    metric: str, before: float | None, after: float | None, expected: float | None
) -> None:
    assert gain(metric, before, after) == (expected if expected is None else pytest.approx(expected))


def test_the_noise_of_a_gain_is_that_of_two_predictions_of_the_same_customers() -> None:
    random = np.random.default_rng(2)
    actual = random.gamma(1.0, 50.0, (800, 2))
    told = actual * random.gamma(4.0, 0.25, actual.shape)
    ids = np.array([f"{number:04}" for number in range(800)])
    same, worse = Compared(ids, actual, told, told), Compared(ids, actual, told, told[::-1])
    columns, groups = {"total": 0, "other": 1}, {"both": ["total", "other"]}
    assert set(drawn_gains([same], columns, groups, draws=5)["both"].values()) == {0.0}
    assert drawn_gains([worse], columns, groups, draws=5)["both"]["d2"] > 0
    before, after = compare_columns([worse, same], [1])[1]
    assert before["d2"] > after["d2"]


# ---- contributions


@dataclass(frozen=True)
class Told:
    """Reasons of customers whose prediction is 2 × the first input + 3 × the third, of which the third is kept silent."""

    baseline: np.ndarray
    contributions: np.ndarray
    adjustment: np.ndarray


def cents(features: np.ndarray) -> np.ndarray:
    return np.rint(100 * (2 * features[:, :1] + 3 * features[:, 2:3])).astype(np.int64)


@pytest.mark.parametrize(("third", "changes"), [(0.0, False), (1.0, True)])
def test_an_input_that_is_said_to_contribute_nothing_and_does_is_found(third: float, changes: bool) -> None:
    features = np.column_stack([np.arange(50.0), np.arange(50.0), third * np.arange(50.0)]).astype(np.float32)
    contributions = np.zeros((50, 1, 3))
    contributions[:, 0, 0] = 2 * features[:, 0] - 1.5
    told = Told(np.ones(1), contributions, np.full((50, 1), 0.5))
    checks = checks_of(told, cents, features, cents(features) / 100, seconds=0.0)
    assert checks.idle == 2
    assert (checks.changed > 0) == changes
    assert (np.abs(checks.gap).max() > 0.01) == changes
    assert checks.distance[3, 0] == 2 * 3 + third * 3 * 3 - 1


def test_idle_inputs_contribute_exactly_nothing_to_everything_of_everyone() -> None:
    contributions = np.zeros((3, 2, 4))
    contributions[0, 0, 0] = contributions[2, 1, 3] = -1e-9
    assert idle_features(contributions).tolist() == [1, 2]


def test_permuting_moves_these_inputs_and_no_others() -> None:
    features = np.arange(300, dtype=np.float32).reshape(100, 3)
    permuted = permute(features, np.array([1]))
    assert (permuted[:, [0, 2]] == features[:, [0, 2]]).all()
    assert (permuted[:, 1] != features[:, 1]).any()
    assert sorted(permuted[:, 1]) == sorted(features[:, 1])


def test_an_adjustment_is_held_against_the_distance_from_the_baseline_and_a_cent_is_none() -> None:
    checks = ReasonChecks(
        gap=np.zeros((4, 1)),
        adjustment=np.array([[1.0], [0.01], [-2.0], [0.0]]),
        distance=np.array([[10.0], [0.0], [0.0], [0.0]]),
        idle=0,
        changed=0,
        seconds=0.0,
    )
    assert adjustment_share(checks)[:, 0].tolist() == [0.1, 0.0, np.inf, 0.0]


def test_those_who_are_explained_are_seeded_and_all_where_there_are_not_more() -> None:
    assert some_customers(10).tolist() == list(range(10))
    assert len(np.unique(some_customers(5_000))) == 1_000
    assert (some_customers(5_000) == some_customers(5_000)).all()


# ---- bounds


@pytest.mark.parametrize(
    ("bound", "inside", "outside", "words"),
    [
        (Bound(0.08, 0.12), (0.08, 0.1204), (0.0794, 0.1206, np.nan), "8 to 12 %"),
        (Bound(most=1.0, percent=False, strict=True), (0.999,), (1.0, np.inf, np.nan), "< 1"),
        (Bound(least=-0.003, digits=5), (-0.003, 1.0), (-0.00302, np.nan), "≥ -0.300 %"),
        (Bound(most=0, percent=False, digits=0), (0,), (1,), "0"),
    ],
)
def test_a_bound_is_met_to_the_printed_digit(
    bound: Bound, inside: tuple[float, ...], outside: tuple[float, ...], words: str
) -> None:
    assert all(bound.holds(value) for value in inside)
    assert not any(bound.holds(value) for value in outside)
    assert bound.words == words


def test_figures_of_several_rows_are_reached_together_only() -> None:
    bound = Bound(0.08, 0.12)
    both = together([Measured("above", bound, (0.09,)), Measured("above", bound, (0.11, 0.13))])
    assert (both.misses, both.reached, both.words) == (1, False, "9 to 13 %")
    assert Measured("above", bound, ()).words == "none"


# ---- record, report and page


def a_record(told: Facts, columns: tuple[str, ...]) -> TrustRecord:
    random = np.random.default_rng(told.day.toordinal())
    parts = np.round(told.actual[:, 1:] * random.uniform(0.5, 1.5, told.actual[:, 1:].shape), 2)
    money = np.column_stack([parts.sum(axis=1), parts])
    learned = fit_sums([(told.actual[:, 0], money[:, 0])])
    reasons = ReasonChecks(np.zeros((5, 2)), np.zeros((5, 2)), np.ones((5, 2)), 3, 0, 1.5)
    return TrustRecord(
        columns,
        told.customer_ids,
        money,
        money * 0.5,
        money * 1.5 + 5,
        money * 1.001,
        np.column_stack([learned.variance(money[:, index]) for index in range(len(columns))]),
        np.full(len(money), 0.5),
        {name: learned.as_json() for name in columns},
        '{"name": "top_down"}',
        reasons,
    )


def test_a_record_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    record = a_record(facts(30), ("total", "other"))
    save_record(record, tmp_path / "trust.npz")
    again = load_record(tmp_path / "trust.npz")
    assert (again.columns, again.sums, again.method) == (record.columns, record.sums, record.method)
    assert again.customer_ids.tolist() == record.customer_ids.tolist()
    assert (again.upper == record.upper).all()
    assert (again.reasons.idle, again.reasons.seconds) == (3, 1.5)


def test_a_record_is_put_in_the_order_of_the_customers_and_nobody_may_be_missing() -> None:
    told = facts(10)
    record = a_record(told, ("total", "other"))
    backwards = replace(told, customer_ids=told.customer_ids[::-1])
    assert (aligned(record, backwards).money == record.money[::-1]).all()
    stranger = replace(told, customer_ids=np.array([*told.customer_ids[:-1], "stranger"]))
    with pytest.raises(CustomersMissing, match="'stranger'"):
        aligned(record, stranger)


def test_the_page_tells_every_figure_of_a_shop_with_stores_and_categories(tmp_path: Path) -> None:
    history = a_history(tmp_path)
    days = [FIRST + timedelta(days=passed) for passed in (240, 270)]
    told = {day: history.facts_at(day) for each in days for day in (each, each - timedelta(days=30))}
    records = {day: a_record(each, history.columns) for day, each in told.items()}
    windows = [
        TrustWindow(told[day], records[day], told[day - timedelta(days=30)], records[day - timedelta(days=30)])
        for day in days
    ]
    report = report_on(COMPLETE_JOURNEY, windows, {day: history.facts_before(day) for day in days}, "abc")
    assert {(row.of, row.windows) for row in report.intervals} == {
        (name, when) for name in history.columns for when in ("all windows", *map(str, days))
    }
    assert {(row.of, row.points) for row in report.intervals} == {
        (name, 0.0 if name == "total" else 0.02) for name in history.columns
    }
    assert [row.coverage.sums for row in report.sums if row.judged] == [2 * 200 * 4, 2 * 2 * 4]
    assert [row.of for row in report.coherence] == ["total", "mean of targets", *history.columns[1:]]
    text = render(report)
    for item in items(report):
        assert f"| {item.of}" in text
        assert item.measured.figure in text
    assert "0 whose parts do not add up" in text
    assert text in page([report], FIRST)


def test_the_references_learn_from_the_window_thirty_days_before_and_from_nothing_later(tmp_path: Path) -> None:
    history = summed_up(a_shop(tmp_path), {})
    day = FIRST + timedelta(days=240)
    told, before = history.facts_at(day), history.facts_at(day - timedelta(days=30))
    record, earlier = a_record(told, history.columns), a_record(before, history.columns)
    row = interval_rows([TrustWindow(told, record, before, earlier)], "total", 0)[0]
    said, past = record.money[:, 0], before.actual[:, 0]
    expected = (
        empirical_interval(earlier.money[:, 0], past, said),
        empirical_interval(before.rule[:, 0], past, told.rule[:, 0]),
    )
    assert (row.by_prediction, row.by_rule) == tuple(
        interval_score(told.actual[:, 0], *ends).mean() for ends in expected
    )
    assert row.score == interval_score(told.actual[:, 0], record.lower[:, 0], record.upper[:, 0]).mean()


def test_without_categories_other_is_not_judged_a_second_time(tmp_path: Path) -> None:
    history = summed_up(a_shop(tmp_path), {})
    day = FIRST + timedelta(days=240)
    told, before = history.facts_at(day), history.facts_at(day - timedelta(days=30))
    window = TrustWindow(told, a_record(told, history.columns), before, a_record(before, history.columns))
    report = report_on(CDNOW, [window], {day: history.facts_before(day)}, "abc")
    assert {row.of for row in report.intervals} == {"total"}
    assert [row.of for row in report.coherence] == ["total"]
    assert "categories, " not in render(report)
