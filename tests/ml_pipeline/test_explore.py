"""The profile of a folder of tables."""

import json
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.command import run_command
from ml_pipeline.engine import open_engine
from ml_pipeline.explore import explore_dataset, main
from tests.ml_pipeline.small_shop import DIRTY, write_shop


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the hand-written shop."""
    return explore_dataset(open_engine(threads=2), write_shop(tmp_path_factory.mktemp("data"), DIRTY))


def _column(profile: dict[str, Any], table: str, name: str) -> dict[str, Any]:
    return next(column for column in profile["tables"][table]["columns"] if column["column"] == name)


def test_columns_say_what_they_hold(profile: dict[str, Any]) -> None:
    assert profile["tables"]["products"]["rows"] == 6
    assert _column(profile, "products", "product_id") == {
        "column": "product_id", "empty": 1, "distinct": 4, "smallest": "p1", "largest": "p4",
    }  # fmt: skip
    assert _column(profile, "stores", "store_name")["largest"] == "Main again"
    assert _column(profile, "store_sales_header", "total_amount")["empty"] == 1


def test_a_column_of_numbers_has_the_range_of_numbers(tmp_path: Path) -> None:
    text = "transaction_id,customer_id,transaction_date,total_amount\nt1,c,2025-01-01,9\nt2,c,2025-01-02,10\nt3,c,2025-01-02,-1\n"
    profile: Any = explore_dataset(
        open_engine(threads=1), write_shop(tmp_path, {"store_sales_header": text}, "[targets]\n")
    )
    column = _column(profile, "store_sales_header", "total_amount")
    assert (column["smallest"], column["largest"]) == ("-1", "10")


def test_personal_columns_only_say_how_many_are_filled(profile: dict[str, Any]) -> None:
    assert _column(profile, "customer_details", "email") == {
        "column": "email", "empty": 0, "distinct": None, "smallest": None, "largest": None,
    }  # fmt: skip
    assert "asha" not in json.dumps(profile)


def test_money_is_told_by_category_target_and_month(profile: dict[str, Any]) -> None:
    categories = {row["category"]: (row["lines"], row["customers"], row["spend"]) for row in profile["categories"]}
    assert categories == {"electronics": (2, 1, "200.00"), "unknown": (4, 3, "48.00"), "grocery": (5, 3, "25.00")}
    assert sum(row["share"] for row in profile["categories"]) == pytest.approx(1, abs=1e-3)
    assert profile["months"] == [
        {"month": "2025-01", "transactions": 7, "customers": 4, "spend": "273.00", "returned": "105.00"}
    ]


def test_customers_are_counted_by_recency_and_transactions(profile: dict[str, Any]) -> None:
    recency = {row["days since the last transaction"]: row["customers"] for row in profile["recency"]}
    assert recency == {
        "1 to 7": 1,
        "8 to 30": 3,
        "31 to 60": 0,
        "61 to 90": 0,
        "91 to 180": 0,
        "181 to 365": 0,
        "over 365": 0,
    }
    transactions = {row["transactions"]: row["customers"] for row in profile["transactions"]}
    assert transactions["1"] == 2
    assert transactions["2"] == 2


def test_the_command_prints_a_page_and_writes_it_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shop(tmp_path / "data", DIRTY)
    assert run_command(main, ["--data", str(data), "--out", str(tmp_path / "out")]) == 0
    page = capsys.readouterr().out
    assert page == (tmp_path / "out" / "profile.md").read_text()
    assert "## Categories" in page
    assert "electronics" in page
    assert json.loads((tmp_path / "out" / "profile.json").read_text())["last_day"] == "2025-01-16"
