"""Every rule and flag of cleaning on tables small enough to count by hand, and on the sample's stated flaws."""

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis
import pytest

from ml_pipeline.data_report import FLAGS, RULES, CleaningReport, money_text
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import NotEnoughHistory, RowsLost
from ml_pipeline.judging import Judge
from ml_pipeline.prepare import Prepared
from ml_pipeline.sales_headers import doubtful_end, find_last_day
from ml_pipeline.sales_lines import check_money
from ml_pipeline.sample_data import write_sample_tables
from ml_pipeline.sample_model import SampleParameters
from ml_pipeline.schema import TABLES, DatasetConfig
from ml_pipeline.tables import read_tables
from tests.ml_pipeline.small_shop import DIRTY, dirty_shop, prepare_shop, purchase_rows, write_shop

HEADERS, LINES = "store_sales_header", "store_sales_line_items"

DIRTY_RULES = {
    "customer_details": {"duplicate_customer_id": 1, "empty_customer_id": 1, "overlong_id": 1},
    "products": {"duplicate_product_id": 1, "empty_product_id": 1},
    "stores": {"duplicate_store_id": 1, "empty_store_id": 1},
    "promotion_details": {},
    "loyalty_rules": {},
    HEADERS: {
        "empty_customer_id": (1, "10.00"),
        "empty_transaction_id": (1, "11.00"),
        "empty_date": (1, "12.00"),
        "unreadable_date": (1, "13.00"),
        "contradicting_date": (1, "14.00"),
        "implausible_date": (1, "15.00"),
        "overlong_id": (1, "16.00"),
        "future_date": (1, "50.00"),
        "duplicate_transaction_id": (1, "999.00"),
    },
    LINES: {
        "header_quarantined": (2, "60.00"),
        "no_header": (1, "11.00"),
        "empty_transaction_id": (1, "12.00"),
        "duplicate_line_item_id": (1, "13.00"),
        "missing_amount": (1, "0.00"),
        "unreadable_amount": (1, "0.00"),
        "amount_out_of_range": (1, "0.00"),
        "unreadable_quantity": (1, "5.00"),
        "quantity_out_of_range": (1, "6.00"),
        "overlong_id": (1, "7.00"),
    },
}
DIRTY_FLAGS = {
    "unknown_product": (1, "10.00"),
    "product_without_category": (1, "5.00"),
    "unknown_promotion": (1, "5.00"),
    "missing_line_item_id": (1, "1.00"),
    "return_line": (1, "-100.00"),
    "zero_line": (2, "5.00"),
    "customer_not_in_details": (1, "33.00"),
    "date_before_customer_since": (1, "2.50"),
    "unknown_store": (1, "15.00"),
    "missing_store_id": (1, "7.50"),
    "total_contradicts_lines": (1, "5.01"),
    "unreadable_total": (1, "2.50"),
    "header_without_lines": (1, "33.00"),
    "return_header": (1, "-5.00"),
    "header_without_amount": (1, "0.00"),
    "customer_since_unreadable": (1, None),
    "unit_price_unreadable": (1, None),
}


@pytest.fixture(scope="module")
def dirty() -> Prepared:
    """The hand-written shop with every flaw once."""
    return dirty_shop()


def _rules(report: dict[str, Any], table: str) -> dict[str, Any]:
    return {
        name: rule["rows"] if rule["money"] is None else (rule["rows"], rule["money"])
        for name, rule in report["tables"][table]["rules"].items()
    }


@pytest.mark.parametrize("table", list(DIRTY_RULES))
def test_every_rule_counts_its_rows_and_money(dirty: Prepared, table: str) -> None:
    assert _rules(dirty.report, table) == DIRTY_RULES[table]


def test_every_flag_counts_its_rows_and_money(dirty: Prepared) -> None:
    flags: Any = dirty.report["flags"]
    assert {name: (flag["rows"], flag["money"]) for name, flag in flags.items()} == DIRTY_FLAGS


def _check_conservation(report: dict[str, Any], rows_of_files: dict[str, int]) -> None:
    for name, table in report["tables"].items():
        assert table["rows_in"] == table["kept"] + table["quarantined"] == rows_of_files[name], name
        assert table["quarantined"] == sum(rule["rows"] for rule in table["rules"].values())
        if table["money_in"] is not None:
            set_aside = sum(Decimal(rule["money"]) for rule in table["rules"].values() if rule["money"] is not None)
            assert Decimal(table["money_in"]) == Decimal(table["money_kept"]) + set_aside


def test_rows_and_money_in_are_kept_plus_set_aside(dirty: Prepared) -> None:
    _check_conservation(dirty.report, {name: text.count("\n") - 1 for name, text in DIRTY.items()})
    tables: Any = dirty.report["tables"]
    assert tables[LINES]["money_in"] == "259.00"  # the sum of the readable amounts above, and 10 imputed


def test_a_row_lost_between_reading_and_judging_stops_the_cleaning(tmp_path: Path) -> None:
    engine = open_engine(threads=2)
    raw = read_tables(engine, write_shop(tmp_path / "data", DIRTY), DatasetConfig())
    judge = Judge(engine, raw, DatasetConfig(), None, CleaningReport("INR", "gross", None))
    stores = raw["stores"].mutate(rule=ibis.null("string"))
    with pytest.raises(RowsLost, match="stores: 3 rows came in, 2 kept"):
        judge.settle(stores.filter(stores.row_number > 1), "stores", None)


@pytest.mark.parametrize("units", [[100, 200], [100, 200, 300, 300], [100, 200, 301]])
def test_money_lost_or_won_by_the_joins_stops_the_cleaning(units: list[int]) -> None:
    read = ibis.memtable({"amount_units": [100, 200, 300]})
    with pytest.raises(RowsLost):
        check_money(read, ibis.memtable({"amount_units": units, "amount_imputed": [False] * len(units)}))
    check_money(read, ibis.memtable({"amount_units": [300, 200, 100, 5], "amount_imputed": [False] * 3 + [True]}))


def test_lines_of_quarantined_headers_are_told_by_the_headers_rule(dirty: Prepared) -> None:
    lost: Any = dirty.report["lines_of_quarantined_headers"]
    assert {rule: (count["rows"], count["money"]) for rule, count in lost.items()} == {
        "empty_customer_id": (1, "10.00"),
        "future_date": (1, "50.00"),
    }


def test_what_is_filled_in_is_reported_with_its_money(dirty: Prepared) -> None:
    imputed: Any = dirty.report["imputed"]
    assert [(entry["column"], entry["rows"], entry["money"]) for entry in imputed] == [
        (f"{LINES}.quantity", 1, "4.00"),
        (f"{LINES}.line_item_amount", 1, "10.00"),
    ]


def test_the_report_says_how_dates_were_read(dirty: Prepared) -> None:
    reading: Any = next(d for d in dirty.report["dates"] if d["column"].startswith(HEADERS))  # type: ignore[attr-defined]
    assert (reading["day_first"], reading["decided_by"]) == (True, "rows")
    assert (reading["day_first_rows"], reading["month_first_rows"], reading["either_rows"]) == (2, 1, 0)


def test_every_name_in_a_report_is_a_known_rule_or_flag(dirty: Prepared) -> None:
    used = {rule for rules in DIRTY_RULES.values() for rule in rules}
    assert used | {"malformed_row", "on_or_after_as_of", "empty_promotion_id", "empty_rule_id"} | {
        "duplicate_promotion_id",
        "duplicate_rule_id",
    } == set(RULES)
    cancellations = {"order_line_cancelled", "cancellation_matched", "cancellation_ambiguous"}
    assert set(DIRTY_FLAGS) | {"outlier_line", "outlier_header"} | cancellations == set(FLAGS)


# ---- the last day


def test_a_row_dated_2099_does_not_move_as_of(dirty: Prepared) -> None:
    assert (dirty.last_day, dirty.as_of) == (date(2025, 1, 16), date(2025, 1, 17))


JAN_1 = date(2025, 1, 1)


def _days(*pairs: tuple[int, int]) -> list[tuple[date, int]]:
    return [(JAN_1 + timedelta(days=day), rows) for day, rows in pairs]


@pytest.mark.parametrize(
    ("rows_by_day", "last"),
    [
        (_days((0, 5)), 0),
        (_days((0, 999), (31, 1)), 0),
        (_days((0, 999), (30, 1)), 30),
        (_days((0, 998), (31, 2)), 31),
        (_days((0, 10_000), (40, 5), (80, 5)), 0),
        (_days((0, 5_000), (40, 4_995), (80, 5)), 40),
        (_days((0, 10_000), (40, 5), (80, 6)), 40),
        (_days((0, 10_000), (40, 50), (80, 1)), 40),
        (_days((0, 10), (366, 1)), 0),
        (_days((0, 10), (365, 1)), 365),
        (_days((0, 10), (366, 2)), 366),
        (_days((0, 10), (400, 1), (800, 1)), 400),
        (_days((0, 1), (400, 1)), 0),
        (_days((0, 1_000), (400, 1)), 0),
        (_days((0, 1_000), (400, 2)), 400),
    ],
)
def test_the_last_day_is_where_almost_nothing_follows_behind_a_gap(
    rows_by_day: list[tuple[date, int]], last: int
) -> None:
    assert find_last_day(rows_by_day) == JAN_1 + timedelta(days=last)


def test_nothing_on_or_after_a_given_as_of_is_read(tmp_path: Path) -> None:
    prepared = prepare_shop(write_shop(tmp_path / "data", DIRTY), tmp_path / "out", as_of=date(2025, 1, 5))
    assert (prepared.last_day, prepared.as_of) == (date(2025, 1, 4), date(2025, 1, 5))
    assert _rules(prepared.report, HEADERS)["on_or_after_as_of"] == (6, "-17.51")
    assert "future_date" not in _rules(prepared.report, HEADERS)
    assert {row["day"] for row in purchase_rows(tmp_path / "out")} == {date(2025, 1, 2), date(2025, 1, 4)}
    _check_conservation(prepared.report, {name: text.count("\n") - 1 for name, text in DIRTY.items()})


def test_a_customer_who_signed_up_on_or_after_a_given_as_of_is_not_known_yet(tmp_path: Path) -> None:
    tables = {
        "customer_details": "customer_id,customer_since\nearly,2025-01-04\nlate,2025-01-05\nundated,\nbuyer,2025-02-01\n",
        HEADERS: "transaction_id,customer_id,transaction_date,total_amount\nt1,buyer,2025-01-02,5\n",
    }
    shop = write_shop(tmp_path / "data", tables, "[targets]\n")
    prepared = prepare_shop(shop, tmp_path / "out", as_of=date(2025, 1, 5))
    known = {row["customer_id"]: row["customer_since"] for row in prepared.customers.to_pyarrow().to_pylist()}
    assert known == {"early": date(2025, 1, 4), "undated": None, "buyer": None}
    assert _rules(prepared.report, "customer_details")["on_or_after_as_of"] == 2


def test_a_last_day_that_few_rows_behind_a_long_gap_decide_is_a_warning() -> None:
    rows_by_day = [*_days((0, 500), (1, 497)), (date(2099, 2, 7), 3)]
    last_day = find_last_day(rows_by_day)
    assert last_day == date(2099, 2, 7)
    (warning,) = doubtful_end(rows_by_day, last_day)
    assert "3 rows follow 2025-01-02" in warning
    assert "2099-02-07" in warning
    creeping = [*_days((0, 500), (1, 496)), (date(2099, 2, 7), 1), (date(2099, 5, 5), 1)]
    assert "2 rows follow" in doubtful_end(creeping, find_last_day(creeping))[0]
    assert doubtful_end(_days((0, 1_000), (400, 20)), JAN_1 + timedelta(days=400)) == []
    assert doubtful_end(_days((0, 1_000), (400, 1)), JAN_1) == []


def test_an_as_of_far_behind_the_data_is_a_warning_and_years_behind_is_refused(tmp_path: Path) -> None:
    header = "transaction_id,customer_id,transaction_date,total_amount\nt1,c1,2025-01-16,10\n"
    shop = write_shop(tmp_path / "data", {HEADERS: header}, "[targets]\n")
    near, far = (
        prepare_shop(shop, tmp_path / "out", as_of=as_of).report["warnings"]
        for as_of in (date(2025, 2, 10), date(2025, 3, 10))
    )
    assert isinstance(near, list)
    assert isinstance(far, list)
    assert not [warning for warning in near if "as_of" in warning]
    assert [warning for warning in far if "as_of 2025-03-10 is 53 days after the last day" in warning]
    with pytest.raises(NotEnoughHistory, match="9999-12-31"):
        prepare_shop(shop, tmp_path / "out", as_of=date(9999, 12, 31))


def test_a_shop_without_any_row_to_keep_is_refused_with_the_rules(tmp_path: Path) -> None:
    text = "transaction_id,customer_id,transaction_date,total_amount\nt1,,2025-01-01,1\nt2,c,soon,1\n"
    folder = write_shop(tmp_path / "data", {HEADERS: text}, "[targets]\n")
    with pytest.raises(NotEnoughHistory, match="1 empty_customer_id, 1 unreadable_date"):
        prepare_shop(folder, tmp_path / "out")


# ---- shops of other shapes


@pytest.fixture(scope="module")
def odd_lines(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """200 transactions of two lines numbered 1 and 2; one line repeated, one far above all others."""
    folder = tmp_path_factory.mktemp("odd")
    headers = ["transaction_id,customer_id,transaction_date"]
    lines = ["line_item_id,transaction_id,product_id,quantity,line_item_amount"]
    for i in range(200):
        headers.append(f"t{i},c{i % 7},2025-01-{i % 28 + 1:02d}")
        lines += [f"1,t{i},p1,1,10", f"2,t{i},p2,1,{2000 if i == 50 else 12}"]
    lines.append("2,t7,p2,1,12")
    tables = {
        HEADERS: "\n".join(headers) + "\n",
        LINES: "\n".join(lines) + "\n",
        "products": "product_id,product_category\np1,A\np2,B\n",
    }
    return prepare_shop(write_shop(folder / "data", tables, '[targets]\na = ["A"]\nc = ["C"]\n'), folder / "out")


def test_line_ids_that_start_anew_in_every_transaction_are_no_repeats(odd_lines: Prepared) -> None:
    assert _rules(odd_lines.report, LINES) == {"duplicate_line_item_id": (1, "12.00")}
    assert any("number the lines" in warning for warning in odd_lines.report["warnings"])  # type: ignore[attr-defined]


def test_a_line_far_above_its_category_is_flagged_and_kept_as_it_is(odd_lines: Prepared) -> None:
    flags: Any = odd_lines.report["flags"]
    assert (flags["outlier_line"]["rows"], flags["outlier_line"]["money"]) == (1, "2000.00")
    assert odd_lines.report["purchases"]["spend"] == "6388.00"  # type: ignore[index]


def test_a_target_that_no_product_feeds_is_a_warning(odd_lines: Prepared) -> None:
    assert any("target c" in warning and "a, b" in warning for warning in odd_lines.report["warnings"])  # type: ignore[attr-defined]


def test_missing_tables_and_columns_are_named_with_what_stays_unknown(odd_lines: Prepared) -> None:
    missing: Any = odd_lines.report["missing"]
    said = {entry["what"]: entry["unknown"] for entry in missing}
    assert "use of promotions" in said[f"column {LINES}.promotion_id"]
    assert "stores" in said[f"column {HEADERS}.store_id"]
    assert "table customer_details" in said
    assert odd_lines.report["left_out"][0]["feature"] == "loyalty_efficiency"  # type: ignore[index]


def test_a_shop_of_headers_only_counts_their_totals(tmp_path: Path) -> None:
    rows = ["transaction_id,customer_id,transaction_date,total_amount"]
    rows += [f"t{i},c{i % 3},2025-01-{i % 28 + 1:02d},10" for i in range(150)]
    rows += [
        "x1,c1,2025-01-05,",
        "x2,c1,2025-01-05,ten",
        "x3,c1,2025-01-05,1e15",
        "x4,c1,2025-01-05,-20",
        "x5,c2,2025-01-06,5000",
    ]
    folder = write_shop(tmp_path / "data", {HEADERS: "\n".join(rows) + "\n"}, "[targets]\n")
    prepared = prepare_shop(folder, tmp_path / "out")
    assert _rules(prepared.report, HEADERS) == {
        "missing_amount": (1, "0.00"),
        "unreadable_amount": (1, "0.00"),
        "amount_out_of_range": (1, "0.00"),
    }
    flags: Any = prepared.report["flags"]
    assert {name: flag["rows"] for name, flag in flags.items()} == {"return_header": 1, "outlier_header": 1}
    purchases: Any = prepared.report["purchases"]
    assert (purchases["rows"], purchases["customers"]) == (152, 3)
    assert (purchases["spend"], purchases["returned"], purchases["cancelled"]) == ("6500.00", "20.00", "0.00")


def test_a_table_of_lines_without_rows_leaves_every_header_to_its_total(tmp_path: Path) -> None:
    tables = {
        HEADERS: "transaction_id,customer_id,transaction_date,total_amount\nt1,c,2025-01-01,7\nt2,c,2025-01-02,soon\n",
        LINES: "line_item_id,transaction_id,product_id,quantity,line_item_amount\n",
        "products": "product_id,product_category\n",
    }
    prepared = prepare_shop(write_shop(tmp_path / "data", tables), tmp_path / "out")
    flags: Any = prepared.report["flags"]
    assert {name: flag["rows"] for name, flag in flags.items()} == {
        "header_without_lines": 1,
        "header_without_amount": 1,
        "unreadable_total": 1,
    }
    assert [row["spend_units"] for row in purchase_rows(tmp_path / "out")] == [70_000]


def test_timestamps_with_offsets_are_reported_and_move_to_the_shops_clocks(tmp_path: Path) -> None:
    text = "transaction_id,customer_id,transaction_date,total_amount\nt1,c,2025-01-01T20:00:00Z,1\nt2,c,2025-01-01,1\n"
    for zone, day, warned in (("", date(2025, 1, 1), True), ('timezone = "Asia/Kolkata"\n', date(2025, 1, 2), False)):
        folder = write_shop(tmp_path / f"data{warned}", {HEADERS: text}, f"{zone}[targets]\n")
        prepared = prepare_shop(folder, tmp_path / f"out{warned}")
        assert purchase_rows(tmp_path / f"out{warned}")[0]["day"] == day
        assert prepared.report["dates"][0]["rows_with_offset"] == 1  # type: ignore[index]
        assert any("offset" in warning for warning in prepared.report["warnings"]) is warned  # type: ignore[attr-defined]


def test_malformed_rows_are_a_rule_of_their_own(tmp_path: Path) -> None:
    text = "transaction_id,customer_id,transaction_date,total_amount\nt1,c,2025-01-01,1\nt2,c\n"
    prepared = prepare_shop(write_shop(tmp_path / "data", {HEADERS: text}, "[targets]\n"), tmp_path / "out")
    assert _rules(prepared.report, HEADERS) == {"malformed_row": 1}
    _check_conservation(prepared.report, {HEADERS: 2})
    written = (tmp_path / "out" / "quarantine" / f"{HEADERS}.malformed_row.csv").read_text()
    assert '2,malformed_row,2,"t2,c"' in written


@pytest.mark.parametrize(
    ("units", "text"),
    [(1_234_500, "123.45"), (-5, "-0.0005"), (0, "0.00"), (None, "0.00"), (10**15, "100000000000.00")],
)
def test_money_is_exact_text(units: int | None, text: str) -> None:
    assert money_text(units) == text


# ---- the sample's own counts


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, dict[str, Any]]:
    """400 customers with every flaw at five times its usual rate, and what was injected."""
    folder = tmp_path_factory.mktemp("sample")
    parameters = SampleParameters()
    often = {name: min(5 * rate, 0.3) for name, rate in vars(parameters.flaws).items()}
    parameters = replace(parameters, flaws=replace(parameters.flaws, **often))
    summary = write_sample_tables(folder / "data", folder / "truth", n_customers=400, months=14, parameters=parameters)
    prepared = prepare_shop(folder / "data", folder / "out")
    return prepared, json.loads((summary.truth_dir / "flaws.json").read_text())


SAMPLE_RULES = {
    (HEADERS, "empty_customer_id"): ["empty_customer_id"],
    (HEADERS, "empty_date"): ["empty_date"],
    (HEADERS, "unreadable_date"): ["unreadable_date"],
    (HEADERS, "contradicting_date"): ["month_first_date"],
    (HEADERS, "future_date"): ["future_date"],
    (HEADERS, "duplicate_transaction_id"): ["duplicate_full_row", "duplicate_conflicting"],
    (LINES, "duplicate_line_item_id"): ["duplicate_full_row", "duplicate_conflicting"],
    (LINES, "no_header"): ["without_header"],
    ("customer_details", "duplicate_customer_id"): ["duplicate_full_row", "duplicate_conflicting"],
    ("products", "duplicate_product_id"): ["duplicate_full_row", "duplicate_conflicting"],
    ("promotion_details", "duplicate_promotion_id"): ["duplicate_full_row", "duplicate_conflicting"],
    ("loyalty_rules", "duplicate_rule_id"): ["duplicate_full_row", "duplicate_conflicting"],
    ("stores", "duplicate_store_id"): ["duplicate_full_row", "duplicate_conflicting"],
}


def test_the_rules_find_exactly_the_flaws_that_were_injected(sample: tuple[Prepared, dict[str, Any]]) -> None:
    prepared, truth = sample
    report: Any = prepared.report
    found = {(table, rule): _rules(report, table)[rule] for table in report["tables"] for rule in _rules(report, table)}
    lost = found.pop((LINES, "header_quarantined"))
    expected: dict[tuple[str, str], Any] = {}
    for (table, rule), flaws in SAMPLE_RULES.items():
        injected = [truth["flaws"][f"{table}.{flaw}"] for flaw in flaws]
        rows = sum(flaw["rows"] for flaw in injected)
        assert rows > 0, rule
        with_money = table in (HEADERS, LINES)
        expected[table, rule] = (rows, f"{sum(f['cents'] for f in injected) / 100:.2f}") if with_money else rows
    assert found == expected
    set_aside = [flaw for flaw in truth["flaws"].values() if "lines" in flaw and "headers" not in flaw]
    refunds = truth["flaws"][f"{HEADERS}.refunds"]["lines"]
    assert lost[0] == sum(flaw["lines"] for flaw in set_aside) - refunds


def test_the_flags_find_exactly_the_flaws_that_were_injected(sample: tuple[Prepared, dict[str, Any]]) -> None:
    prepared, truth = sample
    flaws, flags = truth["flaws"], prepared.report["flags"]
    found = {name: flag["rows"] for name, flag in flags.items()}  # type: ignore[attr-defined]
    found.pop("outlier_line", None)
    refunds = flaws[f"{HEADERS}.refunds"]["lines"]
    matched, ambiguous = found.pop("cancellation_matched"), found.pop("cancellation_ambiguous")
    assert found.pop("order_line_cancelled") == matched > refunds / 2
    assert matched + ambiguous == refunds
    assert found == {
        "customer_not_in_details": flaws["customer_details.missing_customer"]["headers"],
        "date_before_customer_since": flaws["customer_details.signed_up_after_purchase"]["headers"],
        "header_without_lines": flaws[f"{HEADERS}.without_lines"]["rows"],
        "missing_store_id": flaws[f"{HEADERS}.null_store_id"]["rows"],
        "return_line": flaws[f"{HEADERS}.refunds"]["lines"],
        "total_contradicts_lines": flaws[f"{HEADERS}.contradicting_total"]["rows"],
        "unknown_product": flaws[f"{LINES}.unknown_product"]["rows"],
    }


def test_the_spend_after_cleaning_is_the_clean_truth_to_the_cent(sample: tuple[Prepared, dict[str, Any]]) -> None:
    prepared, truth = sample
    assert prepared.report["purchases"]["spend"] == f"{truth['clean']['spend_cents'] / 100:.2f}"  # type: ignore[index]
    _check_conservation(prepared.report, {f["table"]: f["rows"] for f in prepared.report["files"]})  # type: ignore[attr-defined]


# ---- the page about it


def test_the_page_lists_exactly_the_rules_and_flags_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    _, rules, flags, _ = re.split(r"^## (?:Rules|Flags|What is filled in).*$", page, flags=re.MULTILINE)
    assert _first_cells(rules) == set(RULES)
    assert _first_cells(flags) == set(FLAGS)


def test_the_page_lists_every_table_and_column() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    for table in TABLES.values():
        required = {column.name for column in table.columns if column.required}
        listed = ", ".join(f"**{name}**" if name in required else name for name in table.column_names)
        assert f"| {table.name} | {listed} |" in page


def _first_cells(section: str) -> set[str]:
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| ")]
    return {name.strip() for cell in cells for name in cell.split(",")} - {"rule", "flag", "---"}
