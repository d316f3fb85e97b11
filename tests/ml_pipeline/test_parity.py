"""One customer at one day has one description, whichever way it is asked for."""

from collections import defaultdict
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.features import build_features, feature_names, read_matrix
from ml_pipeline.history import CUSTOMERS_SCHEMA, HistoryFeatures, purchases_from_history
from ml_pipeline.schema import AMOUNT_SCALE, QUANTITY_SCALE
from ml_pipeline.training_set import build_observations
from services.model_registry import ModelRegistry
from services.prediction_service import PredictionService

N_CUSTOMERS, N_ALONE = 200, 10


@pytest.fixture(scope="module")
def days(trained_shop):
    return [trained_shop.prepared.as_of - timedelta(days=back) for back in (37, 91, 150)]


@pytest.fixture(scope="module")
def training_rows(trained_shop, days):
    prepared = trained_shop.prepared
    targets = prepared.config.target_names
    return build_observations(trained_shop.engine, prepared.purchases, prepared.customers, days, targets)


def rows_on(rows, day):
    chosen = rows.as_of == np.datetime64(day)
    return dict(zip(rows.customer_id[chosen].tolist(), rows.features[chosen], strict=True))


def raw_histories(trained_shop):
    """Customer -> his lines as a shop would send them in a request: decimal amounts, negative for returns."""
    lines = trained_shop.engine.to_pyarrow(trained_shop.prepared.purchases).to_pylist()
    histories = defaultdict(list)
    for line in lines:
        sign = -1 if line["return_units"] else 1
        units = line["spend_units"] or line["return_units"]
        histories[line["customer_id"]].append(
            {
                "transaction_date": line["day"],
                "amount": f"{sign * units / AMOUNT_SCALE:.4f}",
                "quantity": f"{line['quantity_milli'] / QUANTITY_SCALE:.3f}",
                **{
                    name: line[name]
                    for name in ("category", "transaction_id", "product_id", "store_id", "has_promotion")
                },
            }
        )
    return histories


@pytest.fixture(scope="module")
def histories(trained_shop):
    return raw_histories(trained_shop)


@pytest.fixture(scope="module")
def request_features(trained_shop):
    engine = open_engine(threads=1)
    yield HistoryFeatures(engine, trained_shop.prepared.config.target_names)
    engine.disconnect()


def read_raw(trained_shop, histories, request_features, customers, day):
    """What requests with these customers' raw histories are answered from: customer -> features."""
    config = trained_shop.prepared.config
    since = trained_shop.engine.to_pyarrow(trained_shop.prepared.customers)
    asked = pyarrow.compute.is_in(since["customer_id"], pa.array(customers))
    registered = since.filter(asked).select(CUSTOMERS_SCHEMA.names).cast(CUSTOMERS_SCHEMA)
    purchases = pa.concat_tables([purchases_from_history(each, histories[each], config) for each in customers])
    rows = request_features.read(purchases, registered, day)
    return dict(zip(rows.customer_id.tolist(), rows.features, strict=True))


def spread(customers, n):
    return sorted(customers)[:: max(len(customers) // n, 1)][:n]


@pytest.mark.parametrize("number", range(3))
def test_training_snapshot_and_raw_histories_describe_customers_alike_to_the_last_bit(
    trained_shop, days, training_rows, histories, request_features, number
):
    day, targets = days[number], trained_shop.prepared.config.target_names
    trained = rows_on(training_rows, day)
    snapshot = build_features(trained_shop.prepared.purchases, trained_shop.prepared.customers, [day], targets)
    served = rows_on(read_matrix(trained_shop.engine, snapshot, feature_names(targets)), day)
    assert set(trained) == set(served)
    for customer, row in trained.items():
        np.testing.assert_array_equal(row, served[customer])
    asked = spread(trained, N_CUSTOMERS)
    raw = read_raw(trained_shop, histories, request_features, asked, day)
    assert len(raw) == N_CUSTOMERS
    for customer in asked:
        np.testing.assert_array_equal(raw[customer], trained[customer])


def test_a_raw_history_alone_says_what_it_says_among_others(
    trained_shop, days, training_rows, histories, request_features
):
    trained = rows_on(training_rows, days[0])
    for customer in spread(trained, N_ALONE):
        alone = read_raw(trained_shop, histories, request_features, [customer], days[0])
        np.testing.assert_array_equal(alone[customer], trained[customer])


# ---- a raw history over the API is answered as the stored customer


N_ANSWERED, N_ANSWERED_ALONE, N_EXPLAINED = 500, 6, 40
OWN_WORDS = {"warnings", "ignored_inputs"}


@pytest.fixture(scope="module")
def predictions(trained_shop):
    return PredictionService(ModelRegistry(trained_shop.models))


@pytest.fixture(scope="module")
def asked_customers(trained_shop, histories):
    """500 customers: some of every kind that is rare, the others spread over the shop."""
    rare = [
        [who for who, lines in histories.items() if any(float(line["amount"]) < 0 for line in lines)],
        [who for who, lines in histories.items() if any(line["has_promotion"] for line in lines)],
        [who for who, lines in histories.items() if all(float(line["amount"]) < 0 for line in lines)],
        [who for who, lines in histories.items() if len({line["store_id"] for line in lines}) > 2],
    ]
    assert min(len(rare[0]), len(rare[1]), len(rare[3])) > 30
    chosen = dict.fromkeys([*(who for some in rare for who in spread(some, 60)), *spread(histories, len(histories))])
    return list(chosen)[:N_ANSWERED]


@pytest.fixture(scope="module")
def raw_requests(trained_shop, histories, asked_customers):
    customers = trained_shop.engine.to_pyarrow(trained_shop.prepared.customers).to_pylist()
    since = {row["customer_id"]: row["customer_since"] for row in customers}
    return [
        {
            "customer_id": who,
            "transactions": [
                {**line, "transaction_date": line["transaction_date"].isoformat()} for line in histories[who]
            ],
            "customer_since": since[who].isoformat() if since[who] else None,
        }
        for who in asked_customers
    ]


def without_own_words(rows):
    return [{name: value for name, value in row.items() if name not in OWN_WORDS} for row in rows]


def test_500_raw_histories_are_answered_as_their_stored_customers_to_the_last_digit(
    predictions, raw_requests, asked_customers
):
    raw = predictions.predict_batch(raw_requests)
    stored = predictions.predict_batch(asked_customers)
    assert raw["successful"] == stored["successful"] == N_ANSWERED
    assert without_own_words(raw["predictions"]) == stored["predictions"]
    assert not any("ignored_inputs" in row for row in raw["predictions"])


def test_a_raw_history_alone_is_answered_as_its_stored_customer(predictions, raw_requests, asked_customers):
    for place in range(0, N_ANSWERED, N_ANSWERED // N_ANSWERED_ALONE):
        (alone,) = without_own_words([predictions.predict(raw_requests[place], explain=True)])
        assert alone == predictions.predict({"customer_id": asked_customers[place]}, explain=True)


def test_a_raw_history_is_explained_as_its_stored_customer(predictions, raw_requests, asked_customers):
    some = slice(0, N_ANSWERED, N_ANSWERED // N_EXPLAINED)
    raw = predictions.predict_batch(raw_requests[some], explain=True)["predictions"]
    stored = predictions.predict_batch(asked_customers[some], explain=True)["predictions"]
    assert without_own_words(raw) == stored
    assert {"raw", "explanation"} <= set(raw[0])


def test_who_never_bought_is_answered_by_the_age_of_his_registration(predictions, trained_shop):
    as_of = trained_shop.snapshot.as_of
    customers = trained_shop.engine.to_pyarrow(trained_shop.prepared.customers).to_pylist()
    stored = predictions.predict_batch([customer["customer_id"] for customer in customers])["predictions"]
    both = zip(customers, stored, strict=True)
    never = [(customer, row) for customer, row in both if row["cold_start_reason"] == "never_bought"][:N_ANSWERED_ALONE]
    assert never
    for customer, row in never:
        since = customer["customer_since"]
        request = {
            "customer_id": customer["customer_id"],
            "transactions": [{"transaction_date": (as_of - timedelta(days=9)).isoformat(), "amount": -10}],
            "customer_since": since.isoformat() if since else None,
        }
        assert without_own_words([predictions.predict(request)]) == [row]
        assert without_own_words([predictions.predict({**request, "transactions": []})]) == [row]
