import csv
from dataclasses import replace
from itertools import groupby

import numpy as np
import openpyxl
import pyarrow.parquet as pq
import pytest

from ml_pipeline import explain as explain_module
from ml_pipeline.bundle import ServingPair, write_pointer
from ml_pipeline.command import run_command
from ml_pipeline.explain import COLUMNS, main
from ml_pipeline.predictor import load_predictor
from ml_pipeline.reasons import explain_customers
from ml_pipeline.snapshot import load_snapshot, money_columns, write_snapshot
from tests.ml_pipeline.booster_pair import PRIOR, write_booster_pair

BUYERS = ("00042", *(f"B{number:02d}" for number in range(25)))
TARGETS = ("total", "electronics", "grocery", "sports", "other")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    pair = write_booster_pair(folder, BUYERS, ["never"])
    return folder, pair


@pytest.fixture
def ids(tmp_path):
    """Known customers, one twice, a stranger, one who never bought, a blank and a column of the retailer's own."""
    path = tmp_path / "customers.csv"
    customers = ["B03", "nobody", "00042", "never", "B03", "", "B07"]
    path.write_text("note,Customer ID\n" + "".join(f"row {n},{customer}\n" for n, customer in enumerate(customers)))
    return path


def explain(models, ids, out, *more):
    return run_command(
        main, ["--models", str(models[0]), "--ids", str(ids), "--out", str(out), "--threads", "1", *more]
    )


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def cents(text):
    return round(float(text) * 100)


def numbers_of(rows):
    """The rows of each explained number, as they follow each other."""
    explained = [row for row in rows if row["status"] == "success"]
    return [list(group) for _key, group in groupby(explained, key=lambda row: (row["customer_id"], row["target"]))]


def test_each_number_has_ranked_reasons_whose_amounts_add_up_to_it(models, ids, tmp_path):
    assert explain(models, ids, tmp_path / "out.csv") == 0
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == ["customer_id", *COLUMNS]
    snapshot = load_snapshot(models[0], models[1].snapshot_id)
    numbers = numbers_of(rows)
    assert [(number[0]["customer_id"], number[0]["target"]) for number in numbers] == [
        (customer, target) for customer in ("B03", "00042", "never", "B03", "B07") for target in TARGETS
    ]
    for number in numbers:
        assert [int(row["rank"]) for row in number] == list(range(1, len(number) + 1))
        told = cents(number[0]["baseline"]) + sum(cents(row["amount"]) for row in number)
        position = snapshot.positions([number[0]["customer_id"]])
        served = snapshot.money(position)[0][0, TARGETS.index(number[0]["target"])]
        assert told == cents(number[0]["prediction"]) == cents(served)
        assert {row["model_version"] for row in number} == {models[1].bundle_id}
        assert {row["currency"] for row in number} == {"INR"}


def test_who_has_no_prediction_has_one_row_that_says_why_in_his_place(models, ids, tmp_path):
    explain(models, ids, tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    assert [customer for customer, _rows in groupby(row["customer_id"] for row in rows)] == [
        "B03", "nobody", "00042", "never", "B03", "", "B07",
    ]  # fmt: skip
    failed = [row for row in rows if row["status"] == "failed"]
    assert [row["error"].split(":")[0] for row in failed] == ["UnknownCustomer", "EmptyCustomerId"]
    assert "nobody" not in failed[0]["error"]
    assert {row[name] for row in failed for name in COLUMNS if name not in ("status", "error")} == {""}


def test_the_rows_say_what_the_api_says(models, ids, tmp_path):
    explain(models, ids, tmp_path / "out.csv")
    snapshot = load_snapshot(models[0], models[1].snapshot_id)
    reasons = explain_customers(load_predictor(*_bundle(models)), snapshot, snapshot.positions(["B07"]))
    rows = [row for row in read_csv(tmp_path / "out.csv") if row["customer_id"] == "B07"]
    for column, target in enumerate(money_columns(snapshot.targets)):
        account = reasons.account(0, column)
        expected = [(reason.theme, reason.words, reason.amount) for reason in account.reasons]
        found = [(row["theme"], row["words"], float(row["amount"])) for row in rows if row["target"] == target]
        assert [row for row in found if row[0] != "adjustment"] == expected
        assert sum(row[2] for row in found if row[0] == "adjustment") == account.adjustment


def _bundle(models):
    return models[0], models[1].bundle_id


def test_who_never_bought_has_one_reason_per_number(models, ids, tmp_path):
    explain(models, ids, tmp_path / "out.csv")
    rows = [row for row in read_csv(tmp_path / "out.csv") if row["customer_id"] == "never"]
    assert [(row["target"], float(row["baseline"]), float(row["amount"])) for row in rows] == [
        (target, PRIOR[target], 0.0) for target in TARGETS
    ]
    assert {row["words"] for row in rows} == {"has not bought yet: what such customers usually spend"}


def test_what_belongs_to_no_fact_has_a_row_of_its_own_in_the_end(ids, tmp_path):
    """The snapshot's total is 7.00 more than the bundle says."""
    folder = tmp_path / "models"
    pair = write_booster_pair(folder, BUYERS, [])
    snapshot, predictor = load_snapshot(folder, pair.snapshot_id), load_predictor(folder, pair.bundle_id)
    features = snapshot.features(range(len(BUYERS)))
    answers = predictor.predict(features)
    moved = write_snapshot(
        folder, as_of=snapshot.as_of, bundle_id=pair.bundle_id, currency="INR", targets=snapshot.targets,
        raw_names=predictor.raw_names, customer_ids=snapshot.customer_ids(range(len(BUYERS))), features=features,
        answers=replace(answers, money=answers.money + np.array([700, 0, 0, 0, 700])),
    )  # fmt: skip
    write_pointer(folder, ServingPair(pair.bundle_id, moved))
    explain((folder, pair), ids, tmp_path / "out.csv")
    totals = [number for number in numbers_of(read_csv(tmp_path / "out.csv")) if number[0]["target"] == "total"]
    assert len(totals) == 4
    for number in totals:
        assert (number[-1]["theme"], number[-1]["words"]) == ("adjustment", "what belongs to no single fact")
        assert abs(cents(number[-1]["amount"]) - 700) <= 2


def test_slices_do_not_show_in_the_file(models, ids, tmp_path, monkeypatch):
    explain(models, ids, tmp_path / "whole.csv")
    monkeypatch.setattr(explain_module, "CUSTOMERS_PER_SLICE", 2)
    explain(models, ids, tmp_path / "sliced.csv")
    assert (tmp_path / "sliced.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_the_ending_of_the_output_decides_its_format(models, ids, tmp_path):
    for name in ("out.csv", "out.xlsx", "out.parquet"):
        assert explain(models, ids, tmp_path / name) == 0
    rows = read_csv(tmp_path / "out.csv")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    cells = list(openpyxl.load_workbook(tmp_path / "out.xlsx").active.iter_rows(values_only=True))
    assert cells[0] == ("customer_id", *COLUMNS)
    assert len(rows) == len(table) == len(cells) - 1
    first = next(n for n, row in enumerate(rows) if row["customer_id"] == "00042")
    assert table[first]["customer_id"] == cells[first + 1][0] == "00042"
    assert table[first]["amount"] == cells[first + 1][5] == float(rows[first]["amount"])
    assert table[first]["rank"] == cells[first + 1][2] == 1


def test_top_bounds_the_reasons_where_they_say_enough(models, ids, tmp_path):
    explain(models, ids, tmp_path / "few.csv", "--top", "1")
    explain(models, ids, tmp_path / "many.csv", "--top", "50")
    few, many = (numbers_of(read_csv(tmp_path / name)) for name in ("few.csv", "many.csv"))
    assert sum(map(len, few)) < sum(map(len, many))
    for number in few:
        if number[0]["customer_id"] != "never":
            told = [abs(float(row["amount"])) for row in number if row["theme"] != "everything else"]
            assert np.all(np.diff(told[: len(told) - (number[-1]["theme"] == "adjustment")]) <= 0.011)


@pytest.mark.parametrize("top", ["0", "-1", "many", "1.5"])
def test_a_number_of_reasons_that_is_none_is_refused(models, ids, tmp_path, capsys, top):
    with pytest.raises(SystemExit):
        explain(models, ids, tmp_path / "out.csv", "--top", top)
    assert "give a whole number from 1 on" in capsys.readouterr().err


def test_an_ending_that_is_not_written_is_refused_and_leaves_nothing(models, ids, tmp_path, capsys):
    assert explain(models, ids, tmp_path / "out.pdf") == 2
    assert "UnsupportedFileType: out.pdf" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["customers.csv"]


def test_a_first_row_that_is_a_customer_is_not_lost_as_a_header(models, tmp_path, capsys):
    (tmp_path / "ids.csv").write_text("B01\nB02\n")
    assert explain(models, tmp_path / "ids.csv", tmp_path / "out.csv") == 2
    assert "MissingHeader: The first row has the known customer 'B01'" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_an_id_that_a_spreadsheet_would_run_is_neutralised(models, tmp_path):
    (tmp_path / "ids.csv").write_text("customer_id\n=1+1\n")
    explain(models, tmp_path / "ids.csv", tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv")[0]["customer_id"] == "'=1+1"


def test_a_folder_without_a_model_says_what_to_run(models, ids, tmp_path, capsys):
    assert run_command(main, ["--models", str(tmp_path), "--ids", str(ids), "--out", str(tmp_path / "out.csv")]) == 2
    assert "NoServingModel" in capsys.readouterr().err
