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
