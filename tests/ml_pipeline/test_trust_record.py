"""What the benchmark of trust collects, from the bundle that the tests of the pipeline train."""

import numpy as np

from benchmarks.trust_coherence import agreement_of
from benchmarks.trust_record import collect


def test_a_record_is_collected_from_a_models_folder_and_its_reasons_hold(trained_shop):
    record = collect(trained_shop.models)
    snapshot = trained_shop.snapshot
    money, _ = snapshot.money(snapshot.positions(record.customer_ids.tolist()))
    assert (record.money == money).all()
    assert record.columns == ("total", *snapshot.targets, "other")
    assert set(record.sums) == set(record.columns)
    assert (record.lower <= record.money).all()
    assert (record.money <= record.upper).all()
    agreement = agreement_of(record.money)
    assert (agreement.over_total, agreement.not_adding_up) == (0, 0)
    assert record.unreconciled.shape == record.money.shape
    np.testing.assert_allclose(record.unreconciled[:, 1:].sum(), record.money[:, 0].sum(), rtol=0.2)
    assert len(record.reasons.gap) == 1_000
    assert np.abs(record.reasons.gap).max() <= 0.01
    assert record.reasons.changed == 0


def test_who_never_bought_is_recorded_too_and_agrees_as_he_is_told(trained_shop):
    """Somebody whose every purchase was taken back counts as one who never bought, and yet had bought before the day."""
    snapshot, record = trained_shop.snapshot, collect(trained_shop.models)
    assert len(record.customer_ids) == snapshot.n_customers
    never = np.isnan(snapshot.features(range(snapshot.n_customers))).all(axis=1)
    assert never.any()
    ids = snapshot.customer_ids(np.flatnonzero(never))
    rows = np.isin(record.customer_ids, ids)
    assert (record.unreconciled[rows] == record.money[rows]).all()
    assert (record.unreconciled[~rows] != record.money[~rows]).any()
