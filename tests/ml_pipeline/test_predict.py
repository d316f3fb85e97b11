import csv
import json
import shutil

import openpyxl
import pytest

from ml_pipeline.command import run_command
from ml_pipeline.errors import MissingHeader
from ml_pipeline.predict import main, predict_file
from ml_pipeline.snapshot import result_columns


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def ids(trained_shop, tmp_path):
    """Three known customers, one twice, a stranger, a blank and a column of the retailer's own."""
    known = trained_shop.snapshot.customer_ids(range(3))
    path = tmp_path / "customers.csv"
    rows = [*known, "nobody", known[0], ""]
    path.write_text("note,Customer ID\n" + "".join(f"row {n},{customer}\n" for n, customer in enumerate(rows)))
    return path


def predict(trained_shop, ids, out, *more, data=None):
    options = ["--data", str(data or trained_shop.tables), "--models", str(trained_shop.models)]
    return run_command(main, [*options, "--ids", str(ids), "--out", str(out), "--threads", "1", *more])


def test_file_and_sums_come_back_with_the_numbers_that_are_served(trained_shop, ids, tmp_path):
    assert predict(trained_shop, ids, tmp_path / "out.csv", "--sums", str(tmp_path / "sums" / "sums.json")) == 0
    assert_row_by_row(trained_shop, read_csv(tmp_path / "out.csv"))
    assert_summed(trained_shop, json.loads((tmp_path / "sums" / "sums.json").read_text()))


def assert_row_by_row(trained_shop, rows):
    assert list(rows[0]) == ["note", "Customer ID", *result_columns(trained_shop.snapshot.targets)]
    assert [row["note"] for row in rows] == [f"row {n}" for n in range(6)]
    assert [row["status"] for row in rows] == ["success", "success", "success", "failed", "success", "failed"]
    served = trained_shop.snapshot.columns(range(3))
    for row, position in zip([*rows[:3], rows[4]], [0, 1, 2, 0], strict=True):
        for name in result_columns(trained_shop.snapshot.targets)[:8]:
            value = served[name][position]
            assert row[name] == str(value) if isinstance(value, str) else float(row[name]) == value, name
        assert row["model_version"] == trained_shop.pair.bundle_id
    assert "nobody" not in rows[3]["error"]
    assert rows[3]["predicted_total_spend"] == ""


def assert_summed(trained_shop, sums):
    spend = trained_shop.snapshot.columns(range(3))["predicted_total_spend"]
    assert sums["predicted_30d_spend"]["total"] == round(spend.sum(), 2)
    assert (sums["rows"], sums["rows_failed"], sums["customers"]) == (6, 2, 3)
    interval = sums["intervals"]["total"]
    assert 0 <= interval["lower"] <= sums["predicted_30d_spend"]["total"] <= interval["upper"]
    assert sums["model_version"] == trained_shop.pair.bundle_id


def test_the_ending_of_the_output_decides_its_format(trained_shop, ids, tmp_path):
    predict_file(trained_shop.snapshot, trained_shop.predictor.metadata, ids, tmp_path / "out.xlsx")
    book = openpyxl.load_workbook(tmp_path / "out.xlsx")
    cells = list(book["predictions"].iter_rows(values_only=True))
    assert len(cells) == 7
    assert [cell.value for cell in book["summary"]["B"]][2:6] == ["customers.csv", 6, 2, 3]
    assert cells[0][:2] == ("note", "Customer ID")
    assert isinstance(cells[1][2], float | int)


def test_the_bytes_do_not_depend_on_how_the_rows_are_sliced(trained_shop, ids, tmp_path, monkeypatch):
    written = []
    for rows in (50_000, 4, 1):
        monkeypatch.setattr("ml_pipeline.predict.ROWS_PER_SLICE", rows)
        predict_file(trained_shop.snapshot, trained_shop.predictor.metadata, ids, tmp_path / "out.csv")
        written.append((tmp_path / "out.csv").read_bytes())
    assert written[0] == written[1] == written[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["customers.csv", "out.csv"]


def test_a_first_row_that_is_a_customer_is_not_lost_as_a_header(trained_shop, tmp_path):
    first, second = trained_shop.snapshot.customer_ids([0, 1])
    (tmp_path / "ids.csv").write_text(f"{first}\n{second}\n")
    with pytest.raises(MissingHeader, match=first):
        predict_file(trained_shop.snapshot, trained_shop.predictor.metadata, tmp_path / "ids.csv", tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("out", "error"), [("out.pdf", "UnsupportedFileType: out.pdf"), ("out", "UnsupportedFileType: out")]
)
def test_an_ending_that_is_not_written_is_refused_and_leaves_nothing(trained_shop, ids, tmp_path, capsys, out, error):
    assert predict(trained_shop, ids, tmp_path / out) == 2
    assert error in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["customers.csv"]


def test_tables_with_other_targets_than_the_bundle_are_refused_by_name(trained_shop, ids, tmp_path, capsys):
    tables = shutil.copytree(trained_shop.tables, tmp_path / "tables")
    (tables / "dataset.toml").write_text('currency = "EUR"\n[targets]\nhome = ["Home"]\n')
    assert predict(trained_shop, ids, tmp_path / "out.csv", data=tables) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("BundleMismatch: ")
    assert "'home'" in error
    assert "currency = 'EUR' (bundle: 'INR')" in error


def test_a_folder_without_a_model_says_what_to_run(trained_shop, ids, tmp_path, capsys):
    options = ["--data", str(trained_shop.tables), "--models", str(tmp_path / "nothing")]
    assert run_command(main, [*options, "--ids", str(ids), "--out", str(tmp_path / "out.csv")]) == 2
    assert "NoServingModel" in capsys.readouterr().err
