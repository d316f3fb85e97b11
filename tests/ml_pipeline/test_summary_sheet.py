import zipfile

import openpyxl
import pytest

from ml_pipeline.file_statistics import statistics_of
from ml_pipeline.result_files import assemble_result


@pytest.fixture(scope="module")
def statistics(trained_shop):
    snapshot = trained_shop.snapshot
    told = statistics_of(snapshot, trained_shop.predictor.metadata.content, range(300), rows=320, rows_failed=7)
    return {**told, "filename": "=customers.csv"}


def workbook(folder, summary):
    assemble_result(folder / "r.xlsx", "xlsx", ["customer_id"], [], summary)
    return openpyxl.load_workbook(folder / "r.xlsx")


def lines_of(sheet) -> list[tuple[object, ...]]:
    return [tuple(cell for cell in row if cell is not None) for row in sheet.iter_rows(values_only=True)]


def test_the_summary_has_the_numbers_of_the_statistics(tmp_path, statistics):
    book = workbook(tmp_path, statistics)
    assert book.sheetnames == ["predictions", "summary"]
    lines = lines_of(book["summary"])
    assert ("File", "'=customers.csv") in lines
    assert ("Rows", 320) in lines
    assert ("Rows without a prediction", 7) in lines
    assert ("Distinct customers", 300) in lines
    assert ("Predicted spend", statistics["total_predicted_spend"]) in lines
    assert ("Model", statistics["model_version"]) in lines
    for name, sums in statistics["per_target"].items():
        share = round(sums["predicted_spend"] / statistics["total_predicted_spend"], 4)
        assert (name.capitalize(), sums["predicted_spend"], sums["lower"], sums["upper"], share) in lines
    for name, sums in statistics["per_segment"].items():
        line = next(line for line in lines if line and line[0] == name)
        assert line[1:4] + line[5:] == (sums["predicted_spend"], sums["lower"], sums["upper"], sums["customers"])
    for flag in statistics["flags"].values():
        assert any(
            line[1:] == (flag["customers"], flag["predicted_spend"], flag["definition"]) for line in lines if line
        )
    for customer in statistics["top_customers"]:
        line = next(line for line in lines if line and line[0] == customer["customer_id"])
        assert line[1:4] == (customer["predicted_total_spend"], customer["lower"], customer["upper"])


def test_the_charts_draw_the_cells_of_the_tables(tmp_path, statistics):
    sheet = workbook(tmp_path, statistics)["summary"]
    drawn = [chart.series[0] for chart in sheet._charts]
    assert len(drawn) == 2
    for series, sums in zip(drawn, (statistics["per_target"], statistics["per_segment"]), strict=True):
        names, values = (
            [cell.value for (cell,) in sheet[reference.split("!")[1].replace("$", "")]]
            for reference in (series.cat.strRef.f, series.val.numRef.f)
        )
        assert values == [each["predicted_spend"] for each in sums.values()]
        assert [name.lower() for name in names] == [name.lower() for name in sums]


def test_numbers_of_the_summary_have_formats(tmp_path, statistics):
    formats = {}
    for row in workbook(tmp_path, statistics)["summary"].iter_rows(max_col=2):
        formats.setdefault(row[0].value, row[1].number_format)
    assert formats["Rows"] == "#,##0"
    assert formats["Predicted spend"] == "#,##0.00"


@pytest.mark.parametrize(
    "summary", [{}, {"rows": 3}, {"total_predicted_spend": None, "per_target": {}, "flags": {}, "top_customers": []}]
)
def test_what_the_statistics_do_not_say_is_left_out(tmp_path, summary):
    sheet = workbook(tmp_path, summary)["summary"]
    assert len([line for line in lines_of(sheet) if line]) == 1 + ("rows" in summary)
    assert not sheet._charts


def test_a_file_of_nobody_has_a_summary_without_averages(tmp_path, trained_shop):
    nobody = statistics_of(trained_shop.snapshot, trained_shop.predictor.metadata.content, [], rows=2, rows_failed=2)
    lines = lines_of(workbook(tmp_path, nobody)["summary"])
    assert ("Distinct customers", 0) in lines
    assert not any(line and line[0] == "Mean per customer" for line in lines)


def test_a_workbook_without_a_summary_has_one_sheet(tmp_path):
    assert workbook(tmp_path, None).sheetnames == ["predictions"]
    with zipfile.ZipFile(tmp_path / "r.xlsx") as packed:
        assert not [name for name in packed.namelist() if "chart" in name]
