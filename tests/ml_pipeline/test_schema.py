"""What dataset.toml may say, and ids as text."""

from decimal import Decimal
from pathlib import Path

import ibis
import numpy as np
import pytest

from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadDatasetConfig, MissingDataFolder
from ml_pipeline.schema import canonical_id, canonical_text, is_personal, load_dataset_config
from ml_pipeline.tables import id_of, text_of

IDS = [
    ("00042", "00042"),
    ("12345.0", "12345"),
    ("12345.000", "12345"),
    ("-7.0", "-7"),
    ("1.50", "1.50"),
    ("1.05", "1.05"),
    ("C00001", "C00001"),
    ("C1.0", "C1.0"),
    (".0", ".0"),
    ("  a b\t", "a b"),
    ("\u00a0\ufeff12.0\u2009\u200b", "12"),
    ("x\n", "x"),
    ("", ""),
    ("   ", ""),
    ("NaN", ""),
    ("none", ""),
    ("NULL", ""),
    ("Na", ""),
    ("N/A", ""),
    ("<NA>", ""),
    ("NaT", ""),
    (" null ", ""),
    ("nano", "nano"),
    ("Nan0", "Nan0"),
    ("123456789012345678901234567890", "123456789012345678901234567890"),
    ("é€漢", "é€漢"),
    ("x.0", "x.0"),
    ("1.0.0", "1.0.0"),
]


@pytest.mark.parametrize(("text", "expected"), IDS)
def test_an_id_keeps_its_digits_and_loses_its_spreadsheet_ending(text: str, expected: str) -> None:
    assert canonical_id(text) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, "42"),
        (2**60 + 1, "1152921504606846977"),
        (12345.0, "12345"),
        (float("nan"), ""),
        (None, ""),
        (np.int64(7), "7"),
        (np.float64(7.0), "7"),
        (Decimal("12.00"), "12"),
        (1.5, "1.5"),
    ],
)
def test_a_number_as_id_becomes_its_digits(value: object, expected: str) -> None:
    assert canonical_id(value) == expected


def test_the_expression_and_the_function_agree_on_every_id() -> None:
    texts = [text for text, _ in IDS]
    rows = open_engine(threads=1).create_table("ids", ibis.memtable({"text": texts}))
    read = rows.select("text", key=id_of(rows.text), plain=text_of(rows.text)).to_pyarrow().to_pylist()
    assert len(read) == len(texts)
    for row in read:
        assert row["key"] == canonical_id(row["text"])
        assert row["plain"] == canonical_text(row["text"])


def _config(folder: Path, text: str):  # type: ignore[no-untyped-def]
    (folder / "dataset.toml").write_text(text, encoding="utf-8-sig")
    return load_dataset_config(folder)


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    config = load_dataset_config(tmp_path)
    assert (config.currency, config.timezone, config.spend, config.dayfirst) == ("INR", None, "gross", None)
    assert config.target_names == ("electronics", "grocery", "sports")


def test_a_full_file_is_read_in_its_order(tmp_path: Path) -> None:
    config = _config(
        tmp_path,
        'currency = "EUR"\ntimezone = "Europe/Berlin"\nspend = "net"\ndayfirst = true\n'
        '[targets]\nwine = [" Red Wine", "WHITE wine"]\nbread = ["Bread"]\n'
        '[columns.store_sales_header]\ntransaction_date = "sold_at"\n',
    )
    assert (config.currency, config.timezone, config.spend, config.dayfirst) == ("EUR", "Europe/Berlin", "net", True)
    assert config.target_names == ("wine", "bread")
    assert config.target_of_category == {"red wine": "wine", "white wine": "wine", "bread": "bread"}
    assert config.columns == {"store_sales_header": {"transaction_date": "sold_at"}}


def test_empty_targets_need_only_the_header(tmp_path: Path) -> None:
    assert _config(tmp_path, "[targets]\n").required_tables == ("store_sales_header",)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour = 1", "'colour'"),
        ("currency = 7", "currency = 7"),
        ('timezone = "Mars/Base"', "Mars/Base"),
        ('timezone = ""', "timezone = ''"),
        ('spend = "all"', "'all'"),
        ('dayfirst = "yes"', "'yes'"),
        ('targets = "x"', "[targets]"),
        ('[targets]\nTotal = ["a"]', "'Total'"),
        ('[targets]\ntotal = ["a"]', "'total'"),
        ('[targets]\nother = ["a"]', "'other'"),
        ("[targets]\na = []", "'a' = []"),
        ('[targets]\na = "Electronics"', "'Electronics'"),
        ('[targets]\na = ["X"]\nb = [" x "]', "' x '"),
        ('[targets]\na = ["Unknown"]', "'Unknown'"),
        ("[columns.shops]\na = 'b'", "shops"),
        ("[columns.products]\nprice = 'b'", "'price'"),
        ("[columns.products]\nunit_price = 3", "unit_price = 3"),
        ("[columns.products]\nunit_price = 'b'\nproduct_name = 'b'", "'b'"),
        ("currency = ", "not TOML"),
    ],
)
def test_an_impossible_setting_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(BadDatasetConfig) as refused:
        _config(tmp_path, text)
    assert named in str(refused.value)


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadDatasetConfig, match="3 problem") as refused:
        _config(tmp_path, 'colour = 1\nspend = "all"\n[targets]\nother = ["a"]')
    assert all(part in str(refused.value) for part in ("colour", "'all'", "'other'"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataFolder, match="nowhere"):
        load_dataset_config(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("table", "column", "personal"),
    [
        ("customer_details", "email", True),
        ("store_sales_header", "customer_phone", True),
        ("customer_details", "Last Name", True),
        ("products", "supplier_email", True),
        ("products", "product_name", False),
        ("customer_details", "customer_id", False),
        ("customer_details", "loyalty_status", False),
    ],
)
def test_personal_columns_are_known_by_name(table: str, column: str, personal: bool) -> None:
    assert is_personal(table, column) is personal


def test_an_id_full_of_blanks_is_read_in_linear_time() -> None:
    blanks = " \u2003" * 500_000
    assert canonical_id(f"{blanks}a{blanks}b{blanks}") == f"a{blanks}b"
