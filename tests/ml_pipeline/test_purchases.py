"""Purchases and customers of the hand-written shop, row by row."""

from datetime import date
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ml_pipeline.prepare import Prepared
from ml_pipeline.purchases import PURCHASE_COLUMNS
from tests.ml_pipeline.small_shop import DIRTY, dirty_shop, prepare_shop, purchase_rows, write_shop

UNIT = 10_000
PIECE = 1_000


@pytest.fixture(scope="module")
def gross() -> Prepared:
    """The dirty shop, prepared in gross mode."""
    return dirty_shop()


def _row(
    customer: str, transaction: str, day: date, category: str, product: str | None, store: str | None, pieces: int,
    spend: float, returned: float = 0, promotion: bool | None = False,
) -> dict[str, Any]:  # fmt: skip
    spend_units, return_units = round(spend * UNIT), round(returned * UNIT)
    target = category if category in ("electronics", "grocery", "sports") else "other"
    values = (
        customer, transaction, day, category, target, product, store, pieces * PIECE, spend_units, return_units,
        spend_units, promotion, None, 0,
    )  # fmt: skip
    return dict(zip(PURCHASE_COLUMNS, values, strict=True))


JAN_2, JAN_6, JAN_16 = date(2025, 1, 2), date(2025, 1, 6), date(2025, 1, 16)
EXPECTED = [
    _row("c1", "t1", JAN_2, "electronics", "p1", "s1", 2, 200, promotion=True),
    _row("c1", "t13", date(2025, 1, 5), "unknown", None, "s1", 1, 0, 5, promotion=None),
    _row("c1", "t17", JAN_6, "electronics", "p1", "s1", 1, 0, 100),
    _row("c1", "t17", JAN_6, "grocery", "p2", "s1", 1, 1),
    _row("c1", "t17", JAN_6, "grocery", "p2", "s1", 1, 4),
    _row("c1", "t17", JAN_6, "grocery", "p2", "s1", 4, 10),
    _row("c2", "t2", date(2025, 1, 15), "grocery", "p2", None, 3, 7.5),
    _row("c2", "t9", JAN_16, "unknown", "p3", "s9", 1, 5, promotion=True),
    _row("c2", "t9", JAN_16, "unknown", "p9", "s9", 1, 10),
    _row("c5", "t15", JAN_2, "grocery", "p2", "s1", 1, 2.5),
    _row("c9", "t12", date(2025, 1, 4), "unknown", None, "s1", 1, 33, promotion=None),
]


def _sorted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def test_purchases_are_the_kept_lines_and_the_headers_without_lines(gross: Prepared) -> None:
    assert purchase_rows(gross.out_dir) == _sorted(EXPECTED)


def test_the_engines_table_is_the_written_one(gross: Prepared) -> None:
    assert _sorted(gross.purchases.to_pyarrow().to_pylist()) == purchase_rows(gross.out_dir)
    assert gross.purchases.columns == PURCHASE_COLUMNS
    kinds = {name: str(kind) for name, kind in gross.purchases.schema().items()}
    assert kinds["day"] == "date"
    assert {kinds[name] for name in kinds if name.endswith(("_units", "_milli"))} == {"int64"}


def test_every_connection_of_the_engine_sees_purchases_and_customers(gross: Prepared) -> None:
    for rows, count in ((gross.purchases, len(EXPECTED)), (gross.customers, 5)):
        cursor = rows.get_backend().con.cursor()
        assert cursor.execute(f"SELECT count(*) FROM {rows.get_name()}").fetchall() == [(count,)]


def test_in_net_mode_returns_are_subtracted_and_nothing_else_changes(tmp_path: Path, gross: Prepared) -> None:
    prepare_shop(write_shop(tmp_path / "data", DIRTY, 'spend = "net"\n'), tmp_path / "out")
    net = [row | {"amount_units": row["spend_units"] - row["return_units"]} for row in EXPECTED]
    assert purchase_rows(tmp_path / "out") == _sorted(net)


def test_customers_are_those_of_the_details_and_of_the_headers_once_each(gross: Prepared) -> None:
    rows = pq.read_table(gross.out_dir / "customers.parquet").to_pylist()
    assert {row["customer_id"]: row["customer_since"] for row in rows} == {
        "c1": date(2024, 1, 1),
        "c2": None,
        "c4": None,
        "c5": date(2025, 1, 3),
        "c9": None,
    }
    assert len(rows) == 5


def test_targets_and_totals_are_in_the_report(gross: Prepared) -> None:
    targets: Any = gross.report["targets"]
    assert {name: (target["lines"], target["spend"]) for name, target in targets.items()} == {
        "electronics": (2, "200.00"),
        "grocery": (5, "25.00"),
        "sports": (0, "0.00"),
        "other": (4, "48.00"),
    }
    assert gross.report["purchases"] == {
        "rows": 11,
        "customers": 4,
        "spend": "273.00",
        "returned": "105.00",
        "cancelled": "0.00",
    }


def test_without_products_and_promotions_lines_count_as_other_and_nobody_knows_of_promotions(tmp_path: Path) -> None:
    lines = DIRTY["store_sales_line_items"].replace("promotion_id", "leaflet")
    tables = {name: text for name, text in DIRTY.items() if name != "products"} | {"store_sales_line_items": lines}
    prepare_shop(write_shop(tmp_path / "data", tables, "[targets]\n"), tmp_path / "out")
    rows = purchase_rows(tmp_path / "out")
    assert {(row["category"], row["target"], row["has_promotion"]) for row in rows} == {("unknown", "other", None)}
    assert sum(row["spend_units"] for row in rows) == 263 * UNIT  # type: ignore[misc] # a price is missing for one line
