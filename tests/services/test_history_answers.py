"""Raw histories answered: by engines that are lent, alone and in batches, beside the other ways to ask."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from services import history_answers as of_histories
from services.errors import InvalidRequest, RequestTooLarge, ServiceError
from services.history_answers import BATCH_DAYS_LIMIT, history_answers
from services.history_engines import HistoryEngines
from services.model_registry import ModelRegistry
from services.prediction_service import PredictionService
from services.summary_answers import SummaryOptions
from tests.ml_pipeline.booster_pair import PRIOR, write_booster_pair
from tests.ml_pipeline.toy_models import AS_OF, TARGETS

BUYERS = [f"B{number:02d}" for number in range(20)]


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory):
    """A models folder with a small real pair; read-only."""
    folder = tmp_path_factory.mktemp("boosters")
    write_booster_pair(folder, BUYERS, ["never"])
    return folder


@pytest.fixture(scope="module")
def predictions(models_dir):
    return PredictionService(ModelRegistry(models_dir))


def bought(days_ago, amount, **more):
    return {"transaction_date": (AS_OF - timedelta(days=days_ago)).isoformat(), "amount": amount, **more}


def history(*lines, **more):
    return {"transactions": list(lines), **more}


def some_history(seed):
    rng = random.Random(seed)
    categories = ("Electronics", "grocery ", "SPORTS", "toys", None)
    lines = [
        bought(rng.randrange(1, 300), round(rng.gauss(80, 60), 2) or 1, category=rng.choice(categories), quantity=rng.randrange(1, 4))
        for _ in range(rng.randrange(1, 9))
    ]  # fmt: skip
    return history(*lines, customer_id=f"H{seed}")


def test_a_history_has_the_fields_of_a_known_customer(predictions):
    stored = predictions.predict({"customer_id": BUYERS[0]})
    answer = predictions.predict(history(bought(5, 40, category="Grocery"), bought(50, 60, category="Sports")))
    assert set(stored) - set(answer) <= {"extrapolated_features"}
    assert (answer["customer_id"], answer["cold_start"]) == (None, False)
    assert answer["as_of"] == AS_OF.isoformat()
    spend = answer["predicted_30d_spend"]
    assert round(spend["total"] * 100) == sum(round(spend[name] * 100) for name in (*TARGETS, "other"))


def test_what_was_bought_later_is_predicted_later(predictions):
    answer = predictions.predict(history(bought(-40, 10, category="Grocery")))
    assert answer["as_of"] == (AS_OF + timedelta(days=41)).isoformat()
    assert answer["cold_start_reason"] == "one_purchase"


def test_another_as_of_is_another_prediction(predictions):
    lines = [bought(200, 500, category="Grocery"), bought(170, 500, category="Grocery")]
    now, then = (predictions.predict(history(*lines, **day)) for day in ({}, {"as_of": "2025-07-20"}))
    assert then["as_of"] == "2025-07-20"
    assert then["predicted_30d_spend"]["total"] > now["predicted_30d_spend"]["total"]


@pytest.mark.parametrize("lines", [[], [("-5", 1)], [(0, 1), (5, 0)], [(5, -1)]])
def test_a_history_without_a_purchase_is_that_of_who_never_bought(predictions, lines):
    answer = predictions.predict(
        history(*(bought(9, amount, quantity=quantity) for amount, quantity in lines)), explain=True
    )
    assert (answer["cold_start"], answer["cold_start_reason"]) == (True, "never_bought")
    assert answer["predicted_30d_spend"] == PRIOR
    assert answer["explanation"]["prediction"] == PRIOR["total"]


def test_lines_without_a_transaction_id_stand_alone_whatever_others_are_called(predictions):
    apart = predictions.predict(history(bought(9, 5, transaction_id="line 2"), bought(9, 5)))
    together = predictions.predict(history(bought(9, 5, transaction_id="x"), bought(9, 5, transaction_id="x")))
    assert (apart["cold_start"], together["cold_start"]) == (False, True)


# ---- many at once


def mixture(seed):
    rng = random.Random(seed)
    entries = [
        *BUYERS[:5], {"customer_id": "never", "age": 3}, "nobody", None, True, {"recency": -1}, {"customer_id": "x", "transactions": None},
        *(some_history(one) for one in range(6)),
        history(), history(bought(3, -4), customer_id="B01"), history(bought(-5, 9), customer_id="B01"),
        history(bought(9, 4), as_of="2025-12-30"), history(bought(9, 4), as_of="2025-01-01"), history({"amount": 1}),
        {"transactions": "none"}, {**history(bought(9, 4)), "recency": 3},
        {"recency": 30, "frequency": 5, "monetary_value": 1500.0, "tenure": 180}, {"recency_days": 3, "tenure_days": 9},
    ]  # fmt: skip
    rng.shuffle(entries)
    return entries


@pytest.mark.parametrize(("explain", "options"), [(True, SummaryOptions()), (False, SummaryOptions(horizon_days=90))])
def test_a_batch_of_all_ways_in_any_order_says_what_each_says_alone(predictions, explain, options):
    entries = mixture(len(repr(options)))
    result = predictions.predict_batch(entries, explain, options)
    for entry, row in zip(entries, result["predictions"], strict=True):
        request = entry if isinstance(entry, dict) else {"customer_id": entry}
        if "error" in row:
            with pytest.raises(ServiceError) as caught:
                predictions.predict(request, explain, options)
            assert (row["error"], row["message"]) == (type(caught.value).__name__, str(caught.value))
        else:
            assert row == predictions.predict(request, explain, options)
    assert result["successful"] + result["failed"] == result["total_predictions"] == len(entries)


def test_equal_ids_in_a_batch_are_not_one_customer(predictions):
    entries = [history(bought(9, 100 * place), customer_id="same") for place in (1, 2, 3)]
    rows = predictions.predict_batch(entries)["predictions"]
    assert [row["customer_id"] for row in rows] == ["same"] * 3
    assert rows == [predictions.predict(entry) for entry in entries]


def test_what_holds_for_summaries_alone_is_listed_where_it_is_not_used(predictions):
    options = SummaryOptions(model_type="bg_nbd", horizon_days=365)
    for request in ({"customer_id": BUYERS[0]}, history(bought(3, 4))):
        ignored = predictions.predict(request, options=options)["ignored_inputs"]
        assert [one["field"] for one in ignored] == ["model_type", "horizon_days"]
    assert "ignored_inputs" not in predictions.predict({"customer_id": BUYERS[0]}, options=SummaryOptions("best", 30))


def test_a_day_beside_an_id_alone_is_listed_with_the_way_out(predictions):
    (ignored,) = predictions.predict({"customer_id": BUYERS[0], "as_of": "2025-01-01", "transactions": None})[
        "ignored_inputs"
    ]
    assert ignored["field"] == "as_of"
    assert "Send his transactions" in ignored["reason"]


def test_histories_of_a_batch_have_limits_together(predictions, monkeypatch):
    many = [history(bought(day, 1), as_of=(AS_OF + timedelta(days=day)).isoformat()) for day in range(1, BATCH_DAYS_LIMIT + 2)]  # fmt: skip
    with pytest.raises(RequestTooLarge, match="101 different as_of days; at most 100"):
        predictions.predict_batch(many)
    monkeypatch.setattr(of_histories, "BATCH_TRANSACTIONS_LIMIT", 5)
    with pytest.raises(RequestTooLarge, match="6 transactions; at most 5"):
        predictions.predict_batch([history(*[bought(3, 4)] * 3)] * 2)


def test_many_lines_are_read_in_several_turns_with_one_result(predictions, monkeypatch):
    entries = [some_history(seed) for seed in range(12)]
    whole = predictions.predict_batch(entries)["predictions"]
    monkeypatch.setattr(of_histories, "LINES_AT_ONCE", 4)
    assert predictions.predict_batch(entries)["predictions"] == whole


# ---- engines


def test_two_threads_at_once_get_what_each_gets_alone(predictions):
    requests = [some_history(seed) for seed in range(6)]
    alone = [predictions.predict(request) for request in requests]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(predictions.predict, requests)) == alone


def test_engines_are_few_and_used_again(monkeypatch):
    engines, opened = HistoryEngines(most=1), []
    monkeypatch.setattr(of_histories, "ENGINES", engines)
    with engines.borrow(TARGETS) as first:
        waiting = threading.Thread(target=lambda: opened.append(engines.borrow(TARGETS).__enter__()))
        waiting.daemon = True
        waiting.start()
        waiting.join(0.2)
        assert opened == []
    waiting.join(10)
    assert opened == [first]


def test_an_engine_in_trouble_is_not_lent_again():
    engines = HistoryEngines(most=1)
    with pytest.raises(ZeroDivisionError), engines.borrow(TARGETS) as broken:
        raise ZeroDivisionError
    with engines.borrow(TARGETS) as another:
        assert another is not broken


def test_a_bundle_with_other_targets_gets_engines_of_its_own():
    engines = HistoryEngines(most=1)
    with engines.borrow(TARGETS) as first:
        pass
    with engines.borrow(("toys",)) as other:
        assert other is not first
    with engines.borrow(("toys",)) as again:
        assert again is other


def test_trouble_of_one_request_is_not_the_next_ones(predictions, models_dir, monkeypatch):
    monkeypatch.setattr(of_histories, "ENGINES", HistoryEngines(most=1))
    request = some_history(3)
    expected = predictions.predict(request)
    model = ModelRegistry(models_dir).serving()
    with of_histories.ENGINES.borrow(TARGETS) as engine:
        engine._engine.con.execute("DROP TABLE history_days")  # as if a read had been torn
    with pytest.raises(Exception, match="history_days"):
        history_answers(model, [request])
    assert history_answers(model, [request]) == [expected]


def test_a_line_that_cannot_be_is_refused_alone(predictions):
    with pytest.raises(InvalidRequest, match="transaction 2: amount is 'x'"):
        predictions.predict(history(bought(3, 4), bought(3, "x")))
