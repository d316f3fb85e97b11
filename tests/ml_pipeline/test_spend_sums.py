import numpy as np
import pytest

from ml_pipeline.bundle import load_metadata
from ml_pipeline.snapshot import SEGMENTS, load_snapshot, money_columns
from ml_pipeline.spend_sums import sum_spend
from ml_pipeline.sums import SumIntervals
from tests.ml_pipeline.toy_models import TARGETS, write_toy_pair

NAMES = money_columns(TARGETS)
N = 500


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A snapshot of 500 made-up customers and what its bundle learned of sums."""
    models = tmp_path_factory.mktemp("models")
    pair = write_toy_pair(models, [f"C{number}" for number in range(N)])
    return load_snapshot(models, pair.snapshot_id), load_metadata(models, pair.bundle_id).content["sums"]


def test_the_sum_is_exact_to_the_cent_and_the_parts_add_up(toy):
    snapshot, learned = toy
    columns = snapshot.columns(range(N))
    found = sum_spend(snapshot, learned, range(N))
    for name in NAMES:
        assert found.spend[name] == sum(round(money * 100) for money in columns[f"predicted_{name}_spend"].tolist())
    assert found.spend["total"] == sum(cents for name, cents in found.spend.items() if name != "total")
    assert found.money["total"] == found.spend["total"] / 100
    assert found.expected_buyers == pytest.approx(columns["purchase_probability_30d"].sum(), abs=0.05)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 50, N])
def test_the_ends_are_in_order_with_the_sum(toy, n):
    found = sum_spend(*toy, range(n))
    for name in NAMES:
        assert 0 <= found.lower[name] <= found.spend[name] <= found.upper[name]
    assert found.customers == n


def test_nobody_spends_nothing(toy):
    found = sum_spend(*toy, [])
    assert found.as_json() == {
        "customers": 0,
        "predicted_30d_spend": dict.fromkeys(NAMES, 0.0),
        "intervals": {name: {"lower": 0.0, "upper": 0.0} for name in NAMES},
        "coverage": 0.8,
        "expected_buyers": 0.0,
    }


def test_one_customers_interval_is_his_own(toy):
    snapshot, learned = toy
    columns = snapshot.columns([7])
    for found in (sum_spend(snapshot, learned, [7]), sum_spend(snapshot, learned, [7, 7])):
        for name in NAMES:
            assert found.intervals[name] == {
                end: columns[f"predicted_{name}_spend_{end}"][0] for end in ("lower", "upper")
            }


def test_of_many_the_interval_is_narrower_than_the_sum_of_their_own(toy):
    snapshot, learned = toy
    columns = snapshot.columns(range(N))
    own = (columns["predicted_total_spend_upper"] - columns["predicted_total_spend_lower"]).sum()
    interval = sum_spend(snapshot, learned, range(N)).intervals["total"]
    assert 0 < interval["upper"] - interval["lower"] < own / 2


@pytest.mark.parametrize("n", [2, 3, 10])
def test_many_do_not_spend_less_than_one_of_them(toy, n):
    snapshot, learned = toy
    money, _ = snapshot.money(range(N))
    rows = [*np.argsort(-money[:, 0])[: n - 1].tolist(), int(np.argmin(money[:, 0]))]
    found, (lower, upper) = sum_spend(snapshot, learned, rows), snapshot.ends(rows)
    for index, name in enumerate(NAMES):
        assert found.lower[name] >= lower[:, index].max() > 0
        assert found.upper[name] >= upper[:, index].max()


def test_no_end_of_a_part_lies_above_that_of_the_total(toy):
    snapshot, learned = toy
    unsure = SumIntervals(1.0, np.zeros(1), np.ones(1), 1.0, 6).as_json()
    money, _ = snapshot.money(range(N))
    mostly_one_part = np.argsort(-money[:, 1] / money[:, 0])[:2]
    found = sum_spend(snapshot, {**learned, NAMES[1]: unsure}, mostly_one_part)
    assert found.upper[NAMES[1]] == found.upper["total"]
    found = sum_spend(snapshot, {**learned, "total": unsure}, range(N))
    assert found.lower[NAMES[1]] == found.lower["total"]


def test_neither_order_nor_repetition_changes_a_bit(toy):
    rows = np.random.default_rng(1).permutation(N)[:100]
    first = sum_spend(*toy, rows)
    assert sum_spend(*toy, [*rows[::-1], *rows[:10]]) == first


def test_the_segments_make_up_everyone(toy):
    snapshot, learned = toy
    by_segment = [sum_spend(snapshot, learned, snapshot.in_segment(name)) for name in SEGMENTS]
    everyone = sum_spend(snapshot, learned, range(N))
    assert sum(found.customers for found in by_segment) == N
    assert sum(found.spend["total"] for found in by_segment) == everyone.spend["total"]
