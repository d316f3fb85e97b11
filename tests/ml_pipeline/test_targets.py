from collections import defaultdict
from datetime import timedelta
from fractions import Fraction

import ibis
import pyarrow.compute as pc
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.targets import build_targets, net_floor_report
from tests.ml_pipeline.purchase_rows import AS_OF, TARGETS, purchase, purchases_table, random_purchases

SEVERAL_DAYS = [AS_OF - timedelta(days=ago) for ago in (200, 45, 30, 29, 0)]
MONEY = ("total", *TARGETS, "other")


@pytest.fixture(scope="module")
def engine():
    return open_engine(threads=2)


def targets_of(engine, rows, as_of_days=(AS_OF,), targets=TARGETS, **options):
    found = build_targets(ibis.memtable(purchases_table(rows)), list(as_of_days), targets, **options)
    return engine.to_pyarrow(found).sort_by([("as_of", "ascending"), ("customer_id", "ascending")])


def spent_on(days_ahead, money=7, **columns):
    """A purchase days_ahead days after AS_OF; 0 is AS_OF itself."""
    return purchase(days_ago=-days_ahead, money=money, **columns)


def slow_targets(rows, as_of, targets):
    """By customer: the money of the window, per target, and its transactions."""
    window = [row for row in rows if 0 <= (row["day"] - as_of).days <= 29]
    lines_of = defaultdict(list)
    for row in window:
        lines_of[row["customer_id"]].append(row)

    def money(lines):
        return float(Fraction(max(sum(line["amount_units"] for line in lines), 0), 10_000))

    return {
        customer: {
            "total": money(lines),
            **{target: money([line for line in lines if line["target"] == target]) for target in targets},
            "other": money([line for line in lines if line["target"] not in targets]),
            "transactions": len({(line["transaction_id"], line["day"]) for line in lines if line["spend_units"] > 0}),
        }
        for customer, lines in lines_of.items()
    }


@pytest.mark.parametrize("net", [False, True])
@pytest.mark.parametrize("targets", [TARGETS, ("grocery",), ()])
def test_random_shops_equal_the_slow_loop_on_all_days_at_once(engine, net, targets):
    rows = random_purchases(11, net=net)
    found = targets_of(engine, rows, [*SEVERAL_DAYS, AS_OF], targets).to_pylist()
    expected = {
        (as_of, customer): spend
        for as_of in SEVERAL_DAYS
        for customer, spend in slow_targets(rows, as_of, targets).items()
    }
    assert len(found) == len(expected) > 20
    for row in found:
        assert (
            row
            == {"as_of": row["as_of"], "customer_id": row["customer_id"]} | expected[row["as_of"], row["customer_id"]]
        )


@pytest.mark.parametrize(("days_ahead", "seen"), [(-1, False), (0, True), (29, True), (30, False)])
def test_the_window_is_as_of_and_the_29_days_after_it(engine, days_ahead, seen):
    assert targets_of(engine, [spent_on(days_ahead)])["total"].to_pylist() == [7] * seen


def test_the_horizon_may_be_another(engine):
    rows = [spent_on(6), spent_on(7)]
    assert targets_of(engine, rows, horizon_days=7)["total"].to_pylist() == [7]
    with pytest.raises(ValueError, match="horizon_days=0: a window has at least 1 day"):
        targets_of(engine, rows, horizon_days=0)


def test_no_as_of_day_is_refused(engine):
    with pytest.raises(ValueError, match="name at least one"):
        targets_of(engine, [spent_on(0)], as_of_days=())


def test_targets_and_other_are_the_total_in_gross_mode(engine):
    for row in targets_of(engine, random_purchases(12), SEVERAL_DAYS).to_pylist():
        units = {name: round(row[name] * 10_000) for name in MONEY}
        assert sum(units.values()) == 2 * units["total"]


def test_lines_of_one_transaction_are_one_transaction_and_returns_none(engine):
    rows = [spent_on(3, transaction_id="T"), spent_on(3, transaction_id="T"), spent_on(4), spent_on(5, money=-2)]
    assert targets_of(engine, rows)["transactions"].to_pylist() == [2]


def test_the_order_of_the_rows_and_the_threads_do_not_matter(engine):
    rows = random_purchases(13, net=True)
    assert targets_of(engine, rows, SEVERAL_DAYS) == targets_of(open_engine(threads=1), rows[::-1], SEVERAL_DAYS)


def test_net_spend_stops_at_0_for_each_target_on_its_own(engine):
    rows = [spent_on(1, 10, net=True, category="grocery"), spent_on(2, -4, net=True, category="sports")]
    (row,) = targets_of(engine, rows).to_pylist()
    assert [row[name] for name in MONEY] == [6, 0, 10, 0, 0]


def test_the_floor_report_says_how_often_and_how_much(engine):
    rows = [
        spent_on(1, 10, net=True, category="grocery"),
        spent_on(2, -4.5, net=True, category="sports"),
        spent_on(2, -1, net=True, category="sports", customer_id="C2"),
    ]
    report = engine.to_pyarrow(net_floor_report(ibis.memtable(purchases_table(rows)), [AS_OF], TARGETS))
    assert {row.pop("target"): row for row in report.to_pylist()} == {
        "total": {"rows": 2, "floored_rows": 1, "floored_money": 1},
        "electronics": {"rows": 2, "floored_rows": 0, "floored_money": 0},
        "grocery": {"rows": 2, "floored_rows": 0, "floored_money": 0},
        "sports": {"rows": 2, "floored_rows": 2, "floored_money": 5.5},
        "other": {"rows": 2, "floored_rows": 0, "floored_money": 0},
    }


def test_gross_spend_is_never_floored(engine):
    report = engine.to_pyarrow(
        net_floor_report(ibis.memtable(purchases_table(random_purchases(14))), SEVERAL_DAYS, TARGETS)
    )
    assert pc.sum(report["floored_rows"]).as_py() == 0
