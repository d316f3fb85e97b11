import json
from datetime import date

import numpy as np
import pytest

from benchmarks.ours import RunFailed
from benchmarks.summary_accuracy import DATA_SETS, _options, measure
from benchmarks.summary_accuracy_page import DataSetReport, Row, Window, page
from ml_pipeline.snapshot import load_snapshot
from tests.ml_pipeline.toy_models import AS_OF, write_toy_pair

CUSTOMERS = [f"C{number}" for number in range(60)]


@pytest.fixture
def pair(tmp_path):
    return tmp_path, write_toy_pair(tmp_path, CUSTOMERS)


def test_everybody_is_asked_for_in_each_way_and_scored_on_what_came(pair):
    models, served = pair
    told = load_snapshot(models, served.snapshot_id).columns(range(60))["predicted_total_spend"]
    ids = load_snapshot(models, served.snapshot_id).customer_ids(range(60))
    backtest = models / "versions" / served.bundle_id / "backtest.json"
    assert json.loads(backtest.read_text())["targets"]["total"]["best_rule"] == "zero"
    window = measure(models, dict(zip(ids, told.tolist(), strict=True)), AS_OF)
    assert window.scores["whole history: the full model"]["capped_r2"] == pytest.approx(1, abs=1e-6)
    assert window.scores["best simple rule of the whole history"]["bias"] == 0
    forms = [title for title in window.scores if title.endswith(": best")]
    assert forms == ["eighteen fields: best", "seven fields: best", "six features: best"]
    six = 250 * 60 / told.sum()  # the toy answers this form with a mean of 250
    assert window.scores["six features: best"]["bias"] == pytest.approx(six)
    assert window.customers == 60


def test_a_snapshot_of_another_day_or_without_somebody_is_refused(pair):
    models, _ = pair
    with pytest.raises(RunFailed, match="lacks 1 of 1 customers"):
        measure(models, {"nobody": 1.0}, AS_OF)
    with pytest.raises(RunFailed, match=f"snapshot of {AS_OF} lacks 0"):
        measure(models, {"C1": 1.0}, date(2026, 2, 1))


def test_the_page_has_the_means_and_each_window_of_what_is_served():
    scores = {
        "capped_r2": 0.5,
        "d2": 0.4,
        "normalised_gini": 0.8,
        "decile_mape": 0.1,
        "bias": 1.0,
        "auc": 0.9,
        "brier": None,
    }
    window = Window(date(2025, 1, 1), 10, 0.5, {"whole history: the full model": scores, "rule: zero": scores})
    rows = [Row("whole history: the full model", scores), Row("rule: zero", scores)]
    text = page([DataSetReport("A shop", "full", [window], rows, "abc")], date(2025, 2, 2))
    assert "| rule: zero | 0.500 | 0.400 | 0.800 | 0.100 | 1.000 | 0.900 | – |" in text
    assert "| whole history: the full model, 2025-01-01 | 0.500 |" in text
    assert "rule: zero, 2025-01-01" not in text
    again = Window.from_json(json.loads(json.dumps(window.as_json())))
    assert again == window
    assert np.isclose(again.bought, 0.5)


def test_the_page_is_only_written_of_everything(capsys):
    with pytest.raises(SystemExit):
        _options(["--write", "--profile", "quick"])
    assert "leave the other choices out" in capsys.readouterr().err
    assert [name for name, _ in _options([]).data_set] == list(DATA_SETS)
