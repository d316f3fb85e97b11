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

N_CUSTOMERS = 200


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


def test_training_snapshot_and_raw_history_describe_a_customer_alike_to_the_last_bit(trained_shop, days, training_rows):
    prepared = trained_shop.prepared
    targets = prepared.config.target_names
    histories = raw_histories(trained_shop)
    since = trained_shop.engine.to_pyarrow(prepared.customers)
    engine = open_engine(threads=1)
    request = HistoryFeatures(engine, targets)
    for day in days:
        trained = rows_on(training_rows, day)
        snapshot = build_features(prepared.purchases, prepared.customers, [day], targets)
        served = rows_on(read_matrix(trained_shop.engine, snapshot, feature_names(targets)), day)
        assert set(trained) == set(served)
        asked = sorted(trained)[:: max(len(trained) // N_CUSTOMERS, 1)][:N_CUSTOMERS]
        assert len(asked) == N_CUSTOMERS
        for customer in asked:
            registered = since.filter(pa.compute.equal(since["customer_id"], customer)).select(CUSTOMERS_SCHEMA.names)
            purchases = purchases_from_history(customer, histories[customer], prepared.config)
            raw = request.read(purchases, registered.cast(CUSTOMERS_SCHEMA), day)
            np.testing.assert_array_equal(trained[customer], served[customer])
            np.testing.assert_array_equal(raw.features[0], trained[customer])
    engine.disconnect()
