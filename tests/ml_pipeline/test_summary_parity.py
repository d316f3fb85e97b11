"""What a shop counts by hand of a stored customer is what the summary model learned of such customers."""

from collections import defaultdict
from datetime import timedelta

import numpy as np
import pytest

from ml_pipeline.schema import AMOUNT_SCALE
from ml_pipeline.summary_columns import favorite_columns, select_summary, summary_columns, summary_matrix
from services.summary_requests import read_summary

N_CUSTOMERS = 200
WINDOWS = (30, 60, 90)


@pytest.fixture(scope="module")
def sales(trained_shop):
    """Customer -> the lines that he bought and did not give back whole, before the served day."""
    found = defaultdict(list)
    for line in trained_shop.engine.to_pyarrow(trained_shop.prepared.purchases).to_pylist():
        if line["spend_units"] and line["cancelled_on"] is None and line["day"] < trained_shop.snapshot.as_of:
            found[line["customer_id"]].append(line)
    return found


def counted_by_hand(lines, as_of):
    """The eighteen fields, without those that no prediction uses, as docs/summary_way_in.md describes them."""
    orders = {(line["transaction_id"], line["day"]) for line in lines}
    days = [day for _transaction, day in orders]
    spend = _money(lines)
    of_categories = defaultdict(list)
    for line in lines:
        of_categories[line["category"]].append(line)
    told = {
        "total_spend": spend,
        "total_transactions": len(orders),
        "avg_order_value": round(spend / len(orders), 2),
        "recency_days": (as_of - max(days)).days,
        "tenure_days": (as_of - min(days)).days,
        "unique_products": len({line["product_id"] for line in lines}),
        "unique_categories": len(of_categories.keys() - {"unknown"}),
        "dominant_category": max(of_categories, key=lambda name: _money(of_categories[name])),
    }
    for window in WINDOWS:
        since = as_of - timedelta(days=window)
        told[f"spend_last_{window}d"] = _money([line for line in lines if line["day"] >= since])
        told[f"tx_last_{window}d"] = sum(day >= since for day in days)
    return told


def _money(lines):
    return sum(line["spend_units"] for line in lines) / AMOUNT_SCALE


def test_a_customer_counted_by_hand_is_told_by_the_columns_that_the_model_learned_from(trained_shop, sales):
    bundle, snapshot = trained_shop.predictor.metadata, trained_shop.snapshot
    target_of = {each: target for target, names in bundle.content["target_categories"].items() for each in names}
    known = [who for who in sorted(sales) if all(line["product_id"] for line in sales[who])]
    asked = known[:: len(known) // N_CUSTOMERS][:N_CUSTOMERS]
    stored = select_summary(snapshot.features(snapshot.positions(asked).tolist()), bundle.features, bundle.targets)
    requests = [read_summary(counted_by_hand(sales[who], snapshot.as_of)) for who in asked]
    assert [one.warnings for one in requests] == [[]] * N_CUSTOMERS
    told = summary_matrix([one.inputs for one in requests], bundle.targets, target_of)
    favorites, of_a_target = favorite_columns(bundle.targets), told[:, -len(bundle.targets) :].any(axis=1)
    assert 30 < of_a_target.sum() < N_CUSTOMERS - 30
    for index, name in enumerate(summary_columns(bundle.targets)):
        if name == "total_items_purchased":  # of the six features alone
            assert np.isnan(told[:, index]).all()
        elif name in favorites:  # the favorite among the named targets, also where another category is dominant
            np.testing.assert_array_equal(told[of_a_target, index], stored[of_a_target, index], name)
            assert not told[~of_a_target, index].any()
        else:
            np.testing.assert_allclose(told[:, index], stored[:, index], rtol=1e-6, err_msg=name)
