import re
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.accuracy_page import DataSetReport, Row, render
from benchmarks.answers import ask
from benchmarks.goals import BEATEN_ON, GOALS, Goal, Goals, compare
from benchmarks.peer_bg_nbd import probability_of_buying, summarise
from benchmarks.peer_features import features_at, learning_rows
from benchmarks.peer_zero_inflated_log_normal import gradients_of, loss_and_slope, run_network, start_weights
from benchmarks.peers import Peer, Question, predict_last_90_days_over_3, predict_lifetime_rate, weighted_rate
from benchmarks.public_data import (
    CDNOW,
    COMPLETE_JOURNEY,
    DataSetMissing,
    package_file,
    read_cdnow,
    read_complete_journey,
    read_online_retail,
    window_at,
    write_cdnow,
    write_complete_journey,
)
from benchmarks.scores import Answer, Outcome, bootstrap_sd, mean_scores, score
from ml_pipeline.schema import HEADERS, LINES, PRODUCTS, load_dataset_config

PROJECT = Path(__file__).resolve().parents[2]
CDNOW_TEXT = """ customer_id  date number_of_cds  dollar_value
 00001 19970101  1   11.77
 00002 19970112  1   12.00
 00002 19970112  5   77.00
 00003 19970102  2   0.00
"""


def purchases(seed: int = 3, customers: int = 40, days: int = 240) -> pd.DataFrame:
    """A small shop: each customer buys on random days from the first of 2024 on."""
    random = np.random.default_rng(seed)
    size = customers * 20
    return pd.DataFrame(
        {
            "customer_id": random.integers(0, customers, size).astype(str),
            "day": pd.Timestamp("2024-01-01").as_unit("s") + pd.to_timedelta(random.integers(0, days, size), unit="D"),
            "transaction_id": np.arange(size).astype(str),
            "product_id": random.integers(0, 9, size).astype(str),
            "category": random.choice(["FUEL", "MEAT"], size),
            "quantity": 1,
            "amount": random.gamma(2.0, 10.0, size).round(2),
        }
    )


def a_window(day: date = date(2024, 7, 1)) -> Question:
    return Question.of(window_at(purchases(), day, {}))


@pytest.fixture
def complete_journey(tmp_path: Path) -> tuple[Path, Path]:
    transactions = pd.DataFrame(
        {
            "household_id": [1, 1, 2],
            "store_id": [7, 7, 8],
            "basket_id": [10, 10, 11],
            "product_id": [100, 101, 999],
            "quantity": [1, 0, 8_000],
            "sales_value": [2.5, 0.0, 20.0],
            # 03:30 UTC is still the evening before in the shop, in winter and in summer
            "transaction_timestamp": pd.to_datetime(["2017-01-02 03:30", "2017-01-02 03:30", "2017-07-02 03:30"]),
        }
    )
    products = pd.DataFrame({"product_id": [100, 101], "product_type": ["BEEF", "CANDY"], "department": ["MEAT", None]})
    files = tmp_path / "transactions.parquet", tmp_path / "products.parquet"
    transactions.to_parquet(files[0])
    products.to_parquet(files[1])
    return files


# ---- loaders


def test_cdnow_becomes_a_header_alone_with_ids_as_text_and_no_targets(tmp_path: Path) -> None:
    source = tmp_path / "master.txt"
    source.write_text(CDNOW_TEXT)
    folder = tmp_path / "tables"
    folder.mkdir()
    write_cdnow(CDNOW, (source,), folder)
    header = pd.read_csv(folder / f"{HEADERS.name}.csv", dtype=str)
    assert header.to_numpy().tolist() == [
        ["1", "00001", "1997-01-01", "11.77"],
        ["2", "00002", "1997-01-12", "12.00"],
        ["3", "00002", "1997-01-12", "77.00"],
        ["4", "00003", "1997-01-02", "0.00"],
    ]
    config = load_dataset_config(folder)
    assert (config.target_names, config.required_tables, config.currency) == ((), (HEADERS.name,), "USD")


def test_cdnow_purchases_keep_every_row_of_a_day(tmp_path: Path) -> None:
    source = tmp_path / "master.txt"
    source.write_text(CDNOW_TEXT)
    rows = read_cdnow((source,))
    assert rows["amount"].tolist() == [11.77, 12.0, 77.0, 0.0]
    assert rows["day"].dt.date.tolist()[1:3] == [date(1997, 1, 12)] * 2


def test_complete_journey_days_are_those_of_the_shop(complete_journey: tuple[Path, Path]) -> None:
    lines = read_complete_journey(complete_journey)
    assert lines["day"].dt.date.tolist() == [date(2017, 1, 1), date(2017, 1, 1), date(2017, 7, 1)]
    assert lines["category"].tolist() == ["MEAT", "unknown", "unknown"]


def test_complete_journey_tables_are_those_of_the_schema(complete_journey: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    write_complete_journey(COMPLETE_JOURNEY, complete_journey, folder)
    config = load_dataset_config(folder)
    assert config.target_of_category["drug gm"] == "drug_gm"
    tables = {table: pd.read_parquet(folder / f"{table.name}.parquet") for table in (HEADERS, LINES, PRODUCTS)}
    for table, rows in tables.items():
        assert set(rows.columns) <= set(table.column_names)
    assert tables[HEADERS].to_numpy().tolist() == [
        ["10", "1", "7", "2017-01-01 22:30:00", "2.50"],
        ["11", "2", "8", "2017-07-01 23:30:00", "20.00"],
    ]
    assert tables[LINES]["line_item_amount"].tolist() == ["2.50", "0.00", "20.00"]


def test_online_retail_amounts_are_quantity_times_price_and_nobody_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "retail.parquet"
    pd.DataFrame(
        {
            "Invoice": ["1", "C2"],
            "StockCode": ["A", "A"],
            "Quantity": [3, -3],
            "InvoiceDate": pd.to_datetime(["2010-01-01 10:00", "2010-01-02 10:00"]),
            "Price": [1.5, 1.5],
            "Customer ID": [13085.0, None],
        }
    ).to_parquet(file)
    rows = read_online_retail((file,))
    assert rows[["customer_id", "amount"]].to_numpy().tolist() == [["13085", 4.5]]


def test_a_package_that_is_not_installed_is_named_with_the_way_out() -> None:
    with pytest.raises(DataSetMissing, match=r"no_such_package/data\.txt is not installed.*requirements-bench\.txt"):
        package_file("no_such_package", "data.txt")


# ---- windows and scores


@pytest.mark.parametrize(("bought_on", "expected"), [(-1, 0.0), (0, 5.0), (29, 5.0), (30, 0.0)])
def test_a_window_counts_its_thirty_days_and_no_other(bought_on: int, expected: float) -> None:
    day = date(2024, 3, 1)
    rows = purchases().iloc[:3].assign(customer_id="1", category="MEAT", amount=[1.0, 5.0, 1.0])
    rows["day"] = pd.Timestamp(day) + pd.to_timedelta([-50, bought_on, 90], unit="D")
    window = window_at(rows, day, {"meat": "MEAT", "fuel": "FUEL"})
    assert (window.actual.tolist(), window.actual_of["meat"].tolist()) == ([expected], [expected])
    assert window.actual_of["fuel"].tolist() == [0.0]
    assert (window.past["day"] < pd.Timestamp(day)).all()


def test_a_window_that_the_data_does_not_reach_is_refused() -> None:
    with pytest.raises(ValueError, match="The data ends on"):
        window_at(purchases(), date(2024, 9, 1), {})


def test_the_noise_of_a_mean_over_windows_is_that_of_drawing_customers_anew() -> None:
    random = np.random.default_rng(1)
    predicted = random.gamma(1.0, 20.0, 2_000)
    actual = random.poisson(predicted).astype(float)
    outcome = Outcome(np.arange(2_000).astype(str), actual)
    once = bootstrap_sd([outcome], [Answer(predicted)])
    # the same customers with the same numbers in three windows bring no more information than one
    thrice = bootstrap_sd([outcome] * 3, [Answer(predicted)] * 3)
    assert thrice == pytest.approx(once)
    assert 0.0005 < once["normalised_gini"] < 0.05


def test_a_metric_that_one_window_does_not_have_has_no_mean() -> None:
    assert mean_scores([{"auc": None, "d2": 0.5}, {"auc": 0.5, "d2": 0.7}]) == {"auc": None, "d2": pytest.approx(0.6)}


# ---- goals


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal("d2", least=0.549, sd=0.013), 0.5426, True),  # .543 is not below .549 - .0065
        (Goal("d2", least=0.549, sd=0.013), 0.542, False),
        (Goal("decile_mape", most=0.065), 0.0654, True),
        (Goal("decile_mape", most=0.065), 0.066, False),
        (Goal("brier", most=0.0486, digits=4), 0.04866, False),
        (Goal("bias", least=0.93, most=1.05), 1.06, False),
        (Goal("auc", least=0.881), None, False),
    ],
)
def test_a_goal_allows_half_a_bootstrap_sd_and_the_printed_digits_only(goal: Goal, value: float, reached: bool) -> None:
    assert goal.reached(value) is reached


def test_a_peer_is_beaten_only_when_it_is_on_all_three_together() -> None:
    ours = {"d2": 0.55, "normalised_gini": 0.84, "decile_mape": 0.06}
    assert compare(ours, {"d2": 0.54, "normalised_gini": 0.83, "decile_mape": 0.07}).together
    for metric, better in (("d2", 0.55), ("normalised_gini", 0.85), ("decile_mape", 0.06)):
        peer = {"d2": 0.54, "normalised_gini": 0.83, "decile_mape": 0.07, metric: better}
        assert not compare(ours, peer).together
    assert set(compare(ours, {"d2": 0.0, "normalised_gini": 0.0, "decile_mape": 0.01}).by_metric) == set(BEATEN_ON[:2])


def test_the_page_says_yes_and_no() -> None:
    window = window_at(purchases(), date(2024, 7, 1), {})
    told = {"d2": 0.5, "normalised_gini": 0.8, "decile_mape": 0.2}
    report = DataSetReport(
        CDNOW,
        [window],
        Goals((Goal("d2", least=0.4), Goal("decile_mape", most=0.1))),
        "",
        peers=[Row("rule", "a rule", told | {"d2": 0.4}, [told], 0.0)],
        ours=Row("ours", "ours", told, [told], 1.0),
        prediction_seconds=[1.0],
    )
    text = render(report)
    assert re.search(r"\| total +\| +D² \| +≥ 0\.400 \| +\| +0\.500 \| +yes \|", text)
    assert re.search(r"\| total +\| decile MAPE \| +≤ 0\.100 \| +\| +0\.200 \| +\*\*no\*\* \|", text)
    assert re.search(r"\| a rule +\| yes \| \*\*no\*\* \| +\*\*no\*\* \| +\*\*no\*\* \|", text)


def test_the_goals_are_those_of_the_two_data_sets_that_packages_bring() -> None:
    assert set(GOALS) == {COMPLETE_JOURNEY.name, CDNOW.name}
    for data_set in (COMPLETE_JOURNEY, CDNOW):
        assert max(data_set.development_days) < min(data_set.days)


# ---- peers


def test_rules_are_what_a_spreadsheet_says() -> None:
    rows = purchases().iloc[:3].assign(customer_id="1", amount=[90.0, 30.0, 12.0])
    day = date(2024, 6, 29)
    rows["day"] = pd.Timestamp(day) - pd.to_timedelta([120, 90, 1], unit="D")
    question = Question(day, rows, np.array(["1"]))
    assert predict_last_90_days_over_3(question).predicted.tolist() == [14.0]
    assert predict_lifetime_rate(question).predicted.tolist() == [33.0]


def test_a_weighted_rate_with_an_endless_half_life_is_the_lifetime_rate() -> None:
    question = a_window()
    endless = weighted_rate(question.past, question.day, question.customer_ids, 10**7)
    assert endless == pytest.approx(predict_lifetime_rate(question).predicted, rel=1e-4)


def test_no_peer_feature_sees_the_day_or_later() -> None:
    lines, day = purchases(), date(2024, 7, 1)
    past = lines[lines["day"] < pd.Timestamp(day)]
    pd.testing.assert_frame_equal(features_at(lines, day), features_at(past, day))
    assert features_at(lines, day).shape[1] == 36
    assert not features_at(lines, day).isna().any(axis=None)


def test_labels_of_peers_end_before_the_day_and_before_the_window_that_stops_them() -> None:
    question = a_window()
    learning = learning_rows(question.past, question.day)
    number = (question.day - date(1970, 1, 1)).days
    assert learning.day.max() + 30 == number
    assert learning.day[learning.earlier].max() + 30 <= learning.day[learning.latest].min()
    latest = window_at(question.past, date(2024, 6, 1), {})
    assert learning.spend[learning.latest] == pytest.approx(latest.actual)


def test_the_gradient_of_the_network_is_that_of_its_loss() -> None:
    random = np.random.default_rng(5)
    inputs, spend = random.normal(size=(30, 4)), random.gamma(1.0, 20.0, 30) * (random.random(30) < 0.6)
    weights = start_weights(4, spend, 1)
    _, gradients = gradients_of(weights, inputs, spend)
    for layer, place in ((0, (1, 3)), (1, (2, 5)), (2, (7, 0)), (2, (7, 1)), (2, (7, 2))):
        matrix, step, losses = weights[layer][0], 1e-6, []
        for sign in (1, -1):
            matrix[place] += sign * step
            losses.append(loss_and_slope(run_network(weights, inputs)[-1], spend)[0])
            matrix[place] -= sign * step
        assert gradients[layer][0][place] == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-7)


def test_recency_of_bg_nbd_is_the_age_at_the_last_purchase() -> None:
    rows = purchases().iloc[:3].assign(customer_id="1", amount=[9.0, 30.0, 12.0])
    day = date(2024, 6, 29)
    rows["day"] = pd.Timestamp(day) - pd.to_timedelta([100, 40, 40], unit="D")
    summary = summarise(Question(day, rows, np.array(["1"])))
    assert (summary.x[0], summary.t_x[0], summary.T[0], summary.m[0]) == (1.0, 60.0, 100.0, 42.0)
    assert probability_of_buying(np.array([0.5]), 1.0, 70.0, summary)[0] == pytest.approx(0.5 * (1 - (170 / 200) ** 2))


def test_a_peer_is_asked_once_and_again_when_the_purchases_are_others(tmp_path: Path) -> None:
    asked: list[int] = []

    def predict(question: Question) -> Answer:
        asked.append(1)
        return Answer(np.ones(len(question.customer_ids)), np.full(len(question.customer_ids), 0.5))

    peer, question = Peer("ones", "ones", predict), a_window()
    first, second = (ask(peer, question, "same", tmp_path) for _ in range(2))
    assert len(asked) == 1
    assert second.answer.probability is not None
    assert first.answer.predicted.tolist() == second.answer.predicted.tolist()
    ask(peer, question, "other", tmp_path)
    assert len(asked) == 2


def test_a_peer_that_does_not_answer_everybody_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="answers every customer with one finite number"):
        ask(Peer("short", "short", lambda question: Answer(np.ones(2))), a_window(), "", tmp_path)


def test_auc_and_brier_need_a_probability() -> None:
    actual = np.array([0.0, 1.0, 2.0])
    assert score(actual, Answer(actual))["brier"] is None
    assert score(actual, Answer(actual, np.array([0.0, 1.0, 1.0])))["brier"] == 0.0


# ---- packages


def test_every_package_of_the_benchmarks_is_documented_and_locked() -> None:
    lines = [line.split("#")[0].strip() for line in (PROJECT / "requirements-bench.in").read_text().splitlines()]
    named = {line for line in lines if line and not line.startswith("-")}
    section = (PROJECT / "docs" / "dependencies.md").read_text().split("## Benchmarks\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in section.splitlines() if line.startswith("|")]
    assert set(rows[2:]) == named
    locked = (PROJECT / "requirements-bench.txt").read_text()
    assert all(f"{name}==" in locked for name in named)


def test_the_lock_of_the_benchmarks_fits_beside_that_of_the_product() -> None:
    def versions(file: str) -> dict[str, str]:
        pairs = (line.split(";")[0].strip().split("==") for line in (PROJECT / file).read_text().splitlines() if line)
        return dict(pairs)

    product, bench = versions("requirements.txt"), versions("requirements-bench.txt")
    shared = product.keys() & bench.keys()
    assert shared
    assert {name: bench[name] for name in shared} == {name: product[name] for name in shared}
