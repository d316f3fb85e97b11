"""The sample shop: its files, its flaws held to their stated counts, and its oracle held to what customers then spend."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml_pipeline.command import run_command
from ml_pipeline.errors import BadSampleRequest, TablesExist
from ml_pipeline.sample_data import (
    TRUTH_FILES,
    SampleSummary,
    default_truth_dir,
    main,
    oracle_days,
    parameters_table,
    write_sample_tables,
)
from ml_pipeline.sample_model import (
    CategoryModel,
    Latents,
    SampleParameters,
    Shop,
    build_shop,
    day_factors,
    expected_basket_spend,
    expected_spend,
    purchase_probability,
    sample_latents,
    simulate_purchases,
)
from ml_pipeline.sample_rows import TABLE_COLUMNS

SIZES = {"n_customers": 400, "n_products": 60, "n_stores": 4, "months": 12, "seed": 11}
DOC = Path(__file__).parents[2] / "docs" / "sample_data.md"
MANY = 20_000
READABLE_DATE = {
    "iso": (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "%Y-%m-%d %H:%M:%S"),
    "day_first": (r"\d\d-\d\d-\d{4} \d\d:\d\d", "%d-%m-%Y %H:%M"),
    "slash": (r"\d{4}/\d\d/\d\d", "%Y/%m/%d"),
}


class Sample:
    """Tables as text and the truth of one small sample, split into two blocks of customers."""

    def __init__(self, summary: SampleSummary) -> None:
        self.summary = summary
        self.tables = {name: _text(summary.tables_dir / f"{name}.csv") for name in TABLE_COLUMNS}
        described = json.loads((summary.truth_dir / "flaws.json").read_text())
        self.flaws, self.clean = described["flaws"], described["clean"]

    def rows(self, flaw: str) -> int:
        """How often flaws.json says that the flaw occurs."""
        return self.flaws[flaw]["rows"]

    def headers(self) -> pd.DataFrame:
        """Headers with their day where it can be read."""
        headers = self.tables["store_sales_header"].copy()
        headers["day"] = _days(headers["transaction_date"])
        return headers


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    """400 customers in two blocks, flaws at five times the default rates so that each occurs."""
    chosen = SampleParameters(customers_per_block=250)
    often = {name: min(5 * rate, 0.3) for name, rate in vars(chosen.flaws).items()}
    chosen = replace(chosen, flaws=replace(chosen.flaws, **often))
    return Sample(write_sample_tables(tmp_path_factory.mktemp("shop") / "tables", **SIZES, parameters=chosen))


@pytest.fixture(scope="module")
def shop() -> Shop:
    """The default shop."""
    return build_shop(SampleParameters(), seed=5, n_products=300, n_stores=5, months=24)


@pytest.fixture(scope="module")
def latents(shop: Shop) -> Latents:
    """Many customers of it."""
    return sample_latents(shop, MANY)


def _text(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _days(texts: pd.Series) -> pd.Series:
    days = pd.Series(pd.NaT, index=texts.index, dtype="datetime64[s]")
    for pattern, form in READABLE_DATE.values():
        fits = texts.str.fullmatch(pattern)
        days[fits] = pd.to_datetime(texts[fits], format=form, errors="coerce").dt.floor("D")
    return days


def _cents(texts: pd.Series) -> pd.Series:
    return texts.str.replace(".", "", regex=False).astype("int64")


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _windows(shop: Shop) -> Iterator[date]:
    return (shop.last_day + timedelta(days=1 - back) for back in (30, 180, 330))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        write_sample_tables(tmp_path / name, n_customers=60, n_products=25, months=6, seed=seed)
    assert _files(tmp_path / "one") == _files(tmp_path / "again")
    assert _files(tmp_path / "one_truth") == _files(tmp_path / "again_truth")
    assert _files(tmp_path / "one") != _files(tmp_path / "other")


def test_each_table_has_exactly_its_columns_and_the_rows_that_were_reported(sample: Sample) -> None:
    for name, columns in TABLE_COLUMNS.items():
        assert tuple(sample.tables[name].columns) == columns
        assert len(sample.tables[name]) == sample.summary.rows[name] > 0


def test_the_truth_is_beside_the_tables_and_never_among_them(sample: Sample) -> None:
    assert set(_files(sample.summary.tables_dir)) == {f"{name}.csv" for name in TABLE_COLUMNS}
    assert set(_files(sample.summary.truth_dir)) == set(TRUTH_FILES)
    assert sample.summary.truth_dir == default_truth_dir(sample.summary.tables_dir)


def test_ids_and_amounts_are_written_without_float_accidents(sample: Sample) -> None:
    headers, lines = sample.tables["store_sales_header"], sample.tables["store_sales_line_items"]
    for texts, pattern in (
        (headers["transaction_id"], r"T\d{7}"),
        (headers["customer_id"], r"(\d{5})?"),
        (headers["store_id"], r"([1-4](\.0)?)?"),
        (headers["total_amount"], r"-?\d+\.\d\d"),
        (lines["line_item_id"], r"L\d{7}"),
        (lines["product_id"], r"\d{4,6}(\.0)?"),
        (lines["line_item_amount"], r"-?\d+\.\d\d"),
        (lines["quantity"], r"-?[1-9]\d*"),
        (lines["promotion_id"], r"(PR\d{3})?"),
        (sample.tables["customer_details"]["customer_id"], r"\d{5}"),
        (sample.tables["customer_details"]["email"], r"([a-z]+\.\d{5}@example\.com)?"),
    ):
        assert texts.str.fullmatch(pattern).all(), (texts.name, pattern)
    assert headers["customer_id"].str.startswith("0").any()


@pytest.mark.parametrize(
    "flaw", ["customer_details", "products", "stores", "store_sales_line_items", "promotion_details", "loyalty_rules"]
)
def test_repeated_keys_are_as_many_as_stated(sample: Sample, flaw: str) -> None:
    _check_repeats(sample, flaw)


def test_repeated_headers_are_as_many_as_stated_and_follow_the_true_one(sample: Sample) -> None:
    _check_repeats(sample, "store_sales_header")
    headers = sample.tables["store_sales_header"].drop_duplicates()
    twice = headers[headers["transaction_id"].duplicated(keep=False)]
    totals = _cents(twice["total_amount"]).groupby(twice["transaction_id"])
    assert (totals.last() - totals.first() == 5000).all()


def _check_repeats(sample: Sample, table: str) -> None:
    rows, key = sample.tables[table], TABLE_COLUMNS[table][0]
    repeated, full = rows[key].duplicated(), rows.duplicated()
    assert full.sum() == sample.rows(f"{table}.duplicate_full_row") > 0
    assert (repeated & ~full).sum() == sample.rows(f"{table}.duplicate_conflicting") > 0


def test_dates_are_mixed_as_stated(sample: Sample) -> None:
    texts = sample.tables["store_sales_header"]["transaction_date"]
    readable = _days(texts).notna()
    for style in ("iso", "slash"):
        fits = texts.str.fullmatch(READABLE_DATE[style][0]) & readable
        assert fits.sum() == sample.rows(f"store_sales_header.date_format_{style}") > 0
    month_first = texts[~readable & texts.str.fullmatch(r"\d\d-\d\d-\d{4} \d\d:\d\d") & ~texts.str.startswith("31-02")]
    assert (texts == "").sum() == sample.rows("store_sales_header.empty_date") > 0
    assert len(month_first) == sample.rows("store_sales_header.month_first_date") > 0
    unreadable = (~readable).sum() - len(month_first) - (texts == "").sum()
    assert unreadable == sample.rows("store_sales_header.unreadable_date") > 0


def test_rows_of_2099_are_too_few_to_be_the_end_of_the_data(sample: Sample) -> None:
    days = sample.headers()["day"]
    far = days > pd.Timestamp(2099, 1, 1) - pd.Timedelta(days=1)
    assert far.sum() == sample.rows("store_sales_header.future_date") > 0
    assert far.sum() <= 0.001 * len(days)
    assert days[~far].max() == pd.Timestamp(sample.summary.last_day)


def test_a_shop_in_which_one_row_would_be_the_end_of_the_data_has_none_of_2099(tmp_path: Path) -> None:
    summary = write_sample_tables(tmp_path / "tables", n_customers=40)
    assert 100 < summary.rows["store_sales_header"] < 2000
    assert b"2099" not in (tmp_path / "tables" / "store_sales_header.csv").read_bytes()


def test_dangling_rows_are_as_many_as_stated(sample: Sample) -> None:
    headers, lines = sample.tables["store_sales_header"], sample.tables["store_sales_line_items"]
    products = sample.tables["products"]["product_id"]
    without_header = ~lines["transaction_id"].isin(headers["transaction_id"])
    assert without_header.sum() == sample.rows("store_sales_line_items.without_header") > 0
    assert (headers["customer_id"] == "").sum() == sample.rows("store_sales_header.empty_customer_id") > 0
    unknown = ~lines["product_id"].str.removesuffix(".0").isin(products)
    assert unknown.sum() == sample.rows("store_sales_line_items.unknown_product") > 0
    without_lines = ~headers["transaction_id"].isin(lines["transaction_id"])
    assert without_lines.sum() == sample.rows("store_sales_header.without_lines") > 0
    known = sample.tables["customer_details"]["customer_id"]
    missing = {f"{number:05d}" for number in range(1, SIZES["n_customers"] + 1)} - set(known)
    assert len(missing) == sample.rows("customer_details.missing_customer") > 0
    kept = _kept(sample)
    assert kept["customer_id"].isin(missing).sum() == sample.flaws["customer_details.missing_customer"]["headers"] > 0


def test_spelling_flaws_are_as_many_as_stated(sample: Sample) -> None:
    names = set(SampleParameters().category_names)
    for table, column in (("products", "product_category"), ("promotion_details", "applicable_category")):
        noisy = ~sample.tables[table][column].isin(names)
        assert noisy.sum() == sample.rows(f"{table}.category_noise") > 0
        assert sample.tables[table][column].str.strip().str.title().isin(names).all()
    for table, column in (("store_sales_header", "store_id"), ("store_sales_line_items", "product_id")):
        as_float = sample.tables[table][column].str.endswith(".0")
        assert as_float.sum() == sample.rows(f"{table}.{column}_as_float") > 0


def test_empty_cells_are_as_many_as_stated(sample: Sample) -> None:
    customers = sample.tables["customer_details"]
    for column in TABLE_COLUMNS["customer_details"][1:]:
        empty = (customers[column] == "") & (customers["segment_id"] != "NR")
        assert empty.sum() == sample.rows(f"customer_details.null_{column}") > 0
    for table, column in (
        ("products", "product_name"),
        ("products", "current_stock_level"),
        ("stores", "store_region"),
        ("store_sales_header", "store_id"),
        ("store_sales_header", "customer_phone"),
    ):
        assert (sample.tables[table][column] == "").sum() == sample.rows(f"{table}.null_{column}") > 0


def test_purchases_before_sign_up_are_as_many_as_stated(sample: Sample) -> None:
    customers = sample.tables["customer_details"].drop_duplicates("customer_id").set_index("customer_id")
    texts = customers["customer_since"]
    since = pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce")
    since = since.fillna(pd.to_datetime(texts, format="%d-%m-%Y", errors="coerce"))
    kept = _kept(sample)
    early = kept[kept["day"] < kept["customer_id"].map(since)]
    flaw = sample.flaws["customer_details.signed_up_after_purchase"]
    assert len(early) == flaw["headers"] > 0
    assert early["customer_id"].nunique() == flaw["rows"]


def test_a_refund_gives_back_an_earlier_line_of_the_same_customer(sample: Sample) -> None:
    lines = sample.tables["store_sales_line_items"].drop_duplicates("line_item_id")
    lines = lines.merge(_kept(sample)[["transaction_id", "customer_id", "day"]], on="transaction_id")
    lines["cents"] = _cents(lines["line_item_amount"])
    back = lines[lines["cents"] < 0]
    assert len(back) == sample.rows("store_sales_header.refunds") > 0
    assert back["cents"].sum() == sample.flaws["store_sales_header.refunds"]["cents"]
    bought = lines.assign(cents=-lines["cents"])[["customer_id", "cents", "day"]]
    pairs = back.merge(bought, on=["customer_id", "cents"], suffixes=("", "_bought"))
    referred = pairs[pairs["day_bought"] < pairs["day"]]
    assert set(referred["line_item_id"]) == set(back["line_item_id"])
    assert back["quantity"].str.startswith("-").all()


def test_totals_that_contradict_their_lines_are_as_many_as_stated(sample: Sample) -> None:
    lines = sample.tables["store_sales_line_items"].drop_duplicates("line_item_id")
    sums = _cents(lines["line_item_amount"]).groupby(lines["transaction_id"]).sum()
    headers = sample.tables["store_sales_header"].drop_duplicates("transaction_id").set_index("transaction_id")
    totals = _cents(headers["total_amount"])
    differs = (totals - sums.reindex(totals.index)).fillna(0) != 0
    assert differs.sum() == sample.rows("store_sales_header.contradicting_total") > 0


def test_a_plain_cleaning_finds_the_true_spend_to_the_cent(sample: Sample) -> None:
    kept = _kept(sample)
    lines = sample.tables["store_sales_line_items"].drop_duplicates("line_item_id")
    lines = lines[lines["transaction_id"].isin(kept["transaction_id"])]
    cents = _cents(lines["line_item_amount"])
    alone = kept[~kept["transaction_id"].isin(lines["transaction_id"])]
    assert cents[cents > 0].sum() + _cents(alone["total_amount"]).sum() == sample.clean["spend_cents"]
    assert len(kept) == sample.clean["transactions"] + sample.rows("store_sales_header.refunds")
    products = sample.tables["products"].drop_duplicates("product_id").set_index("product_id")["product_category"]
    category = lines["product_id"].str.removesuffix(".0").map(products).str.strip().str.lower().fillna("unknown")
    found = cents[cents > 0].groupby(category).sum()
    true = {name: sample.clean[f"spend_cents_{name}"] for name in found.index if name != "unknown"}
    lost = sum(spent - found[name] for name, spent in true.items())
    assert found["unknown"] == sample.flaws["store_sales_line_items.unknown_product"]["cents"]
    assert lost == found["unknown"] + sample.flaws["store_sales_header.without_lines"]["cents"]


def _kept(sample: Sample) -> pd.DataFrame:
    """Headers that a reader keeps: the first of a key, with a customer and a day of the period."""
    headers = sample.headers().drop_duplicates("transaction_id")
    return headers[(headers["customer_id"] != "") & (headers["day"] <= pd.Timestamp(sample.summary.last_day))]


def test_the_oracle_file_has_one_row_per_signed_up_customer_and_day(sample: Sample) -> None:
    oracle = pd.read_parquet(sample.summary.truth_dir / "oracle.parquet")
    latents = pd.read_parquet(sample.summary.truth_dir / "latents.parquet")
    served = sample.summary.last_day + timedelta(days=1)
    assert set(oracle["as_of"]) == {served - timedelta(days=back) for back in range(0, 181, 30)}
    assert list(latents["customer_id"]) == [f"{number:05d}" for number in range(1, SIZES["n_customers"] + 1)]
    for as_of, rows in oracle.groupby("as_of"):
        signed_up = latents.loc[latents["customer_since"] < as_of, "customer_id"]
        assert list(rows["customer_id"]) == list(signed_up)
    named = oracle[["electronics", "grocery", "sports", "home", "beauty"]].sum(axis=1)
    np.testing.assert_allclose(named, oracle["total"])
    assert oracle["purchase_probability"].between(0, 1).all()


def test_the_oracle_is_the_mean_of_what_customers_then_spend(shop: Shop, latents: Latents) -> None:
    purchases = simulate_purchases(shop, latents)
    n_categories = len(shop.parameters.categories)
    for as_of in _windows(shop):
        expected = expected_spend(shop, latents, as_of)
        actual = purchases.spend(MANY, n_categories, shop.day_number(as_of), 30)
        misses = np.column_stack([actual - expected, (actual - expected).sum(axis=1)])
        standard_error = misses.std(axis=0) / np.sqrt(MANY)
        assert (np.abs(misses.mean(axis=0)) < 4 * standard_error).all()
        assert standard_error[-1] < 0.02 * expected.sum(axis=1).mean()  # so a bias of 8 percent would be seen


def test_the_oracle_is_right_for_low_and_high_spenders_over_a_year(shop: Shop, latents: Latents) -> None:
    purchases = simulate_purchases(shop, latents)
    as_of = shop.last_day - timedelta(days=359)
    expected = expected_spend(shop, latents, as_of, 360).sum(axis=1)
    actual = purchases.spend(MANY, len(shop.parameters.categories), shop.day_number(as_of), 360).sum(axis=1)
    for part in np.array_split(np.argsort(expected)[np.sort(expected) > 0], 5):
        miss = actual[part] - expected[part]
        assert abs(miss.mean()) < 4 * miss.std() / np.sqrt(part.size)


def test_the_purchase_probability_is_the_share_that_buys(shop: Shop, latents: Latents) -> None:
    purchases = simulate_purchases(shop, latents)
    for as_of in _windows(shop):
        start = shop.day_number(as_of)
        bought = np.zeros(MANY)
        bought[purchases.customer[(purchases.day >= start) & (purchases.day < start + 30)]] = 1
        probability = purchase_probability(shop, latents, as_of)
        for part in np.array_split(np.argsort(probability)[np.sort(probability) > 0], 4):
            spread = np.sqrt((probability[part] * (1 - probability[part])).sum())
            assert abs((bought[part] - probability[part]).sum()) < 4 * spread


def test_without_calendar_the_oracle_is_the_closed_form_of_exponential_lifetimes(latents: Latents) -> None:
    flat = SampleParameters(weekday_factors=(1.0,) * 7, month_factors=(1.0,) * 12, promotions=())
    shop = build_shop(flat, seed=5, n_products=300, n_stores=5, months=24)
    short_lived = replace(latents, enters=latents.enters * 0, dropout_at=latents.dropout_at + 1e6)
    short_lived = replace(short_lived, dropout_rate=latents.dropout_rate * 100 + 0.01)
    rate, hazard = short_lived.purchase_rate, short_lived.dropout_rate
    life = (1 - np.exp(-30 * hazard)) / hazard
    basket = expected_basket_spend(shop, short_lived).sum(axis=1)
    as_of = date(2025, 3, 1)
    np.testing.assert_allclose(expected_spend(shop, short_lived, as_of).sum(axis=1), rate * life * basket)
    buys = rate / (rate + hazard) * (1 - np.exp(-30 * (rate + hazard)))
    np.testing.assert_allclose(purchase_probability(shop, short_lived, as_of), buys, atol=1e-12)


def test_a_promotion_lowers_what_is_paid_in_its_category_alone(shop: Shop, latents: Latents) -> None:
    republic_days = date(2026, 1, 22)
    ignored = replace(shop, parameters=replace(shop.parameters, promotion_take_up=0.0))
    spend = expected_spend(shop, latents, republic_days, 6).sum(axis=0)
    undiscounted = expected_spend(ignored, latents, republic_days, 6).sum(axis=0)
    np.testing.assert_allclose(spend / undiscounted, [1 - 0.8 * 0.12, 1, 1, 1, 1])


def test_lines_under_a_promotion_are_of_its_days_and_category_and_pay_less(shop: Shop, latents: Latents) -> None:
    purchases = simulate_purchases(shop, latents)
    price = purchases.quantity * shop.catalogue.price_cents[purchases.product]
    paid = purchases.amount_cents / price
    full = purchases.promotion < 0
    np.testing.assert_allclose(paid[full], 1)
    day = purchases.day[purchases.line_transaction]
    for position, run in enumerate(shop.promotions):
        here = purchases.promotion == position
        start, end = shop.day_number(run.start), shop.day_number(run.end)
        row = shop.parameters.category_names.index(run.plan.category)
        eligible = (day >= start) & (day <= end) & (purchases.category == row)
        assert (here & ~eligible).sum() == 0
        assert here.sum() / eligible.sum() == pytest.approx(0.8, abs=0.05)
        np.testing.assert_allclose(paid[here], 1 - run.plan.discount_percent / 100, atol=0.001)


def test_each_block_has_other_customers(shop: Shop) -> None:
    assert not np.isin(sample_latents(shop, 50, 0).purchase_rate, sample_latents(shop, 50, 1).purchase_rate).any()


def test_who_has_dropped_out_is_expected_to_spend_nothing(shop: Shop, latents: Latents) -> None:
    as_of = date(2025, 7, 1)
    gone = latents.dropout_at <= shop.day_number(as_of)
    expected = expected_spend(shop, latents, as_of).sum(axis=1)
    assert 0.1 < gone.mean() < 0.9
    assert (expected[gone] == 0).all()
    assert (purchase_probability(shop, latents, as_of)[gone] == 0).all()
    assert (expected[~gone & (latents.enters <= shop.day_number(as_of))] > 0).all()


def test_day_factors_multiply_weekday_month_and_promotion() -> None:
    chosen = SampleParameters()
    sunday, festive_saturday = date(2025, 6, 1), date(2025, 10, 25)
    factors = day_factors(chosen, [sunday, festive_saturday])
    assert factors[0] == pytest.approx(1.12 * 0.93)
    assert factors[1] == pytest.approx(1.25 * 1.15 * 1.25 * 1.10)  # two festive promotions run
    assert sum(chosen.weekday_factors) == pytest.approx(7)
    assert sum(chosen.month_factors) == pytest.approx(12)


def test_twenty_thousand_customers_are_written_with_ids_unique_over_blocks(tmp_path: Path) -> None:
    summary = write_sample_tables(tmp_path / "tables", n_customers=MANY, months=4)
    headers = _text(tmp_path / "tables" / "store_sales_header.csv")
    flaws = json.loads((summary.truth_dir / "flaws.json").read_text())["flaws"]
    repeats = sum(flaws[f"store_sales_header.duplicate_{kind}"]["rows"] for kind in ("full_row", "conflicting"))
    assert headers["transaction_id"].duplicated().sum() == repeats
    assert headers["customer_id"].max() > "19900"
    assert summary.first_day == date(2025, 9, 1)


def test_existing_tables_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "products.csv.gz").write_bytes(b"mine")
    with pytest.raises(TablesExist, match=r"already holds tables: products\.csv\.gz\..*another folder"):
        write_sample_tables(tmp_path, tmp_path.parent / "truth", n_customers=5)
    assert _files(tmp_path) == {"products.csv.gz": b"mine"}
    assert not (tmp_path.parent / "truth").exists()


def test_an_existing_truth_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "tables_truth").mkdir()
    (tmp_path / "tables_truth" / "oracle.parquet").write_bytes(b"mine")
    with pytest.raises(TablesExist, match="truth of other sample tables"):
        write_sample_tables(tmp_path / "tables", n_customers=5)
    assert not (tmp_path / "tables").exists()


def test_a_folder_with_other_files_keeps_them(tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    tables.mkdir()
    (tables / "README.md").write_text("kept")
    write_sample_tables(tables, n_customers=5, n_products=25, months=1)
    assert set(_files(tables)) == {"README.md", *(f"{name}.csv" for name in TABLE_COLUMNS)}


@pytest.mark.parametrize("place", [".", "truth"])
def test_a_truth_among_the_tables_is_refused(tmp_path: Path, place: str) -> None:
    with pytest.raises(BadSampleRequest, match="outside the tables"):
        write_sample_tables(tmp_path, tmp_path / place, n_customers=5)
    assert _files(tmp_path) == {}


@pytest.mark.parametrize("sizes", [{"n_customers": 0}, {"n_products": 24}, {"n_stores": 0}, {"months": 0}])
def test_impossible_sizes_are_refused_by_value(tmp_path: Path, sizes: dict[str, int]) -> None:
    with pytest.raises(BadSampleRequest, match=str(next(iter(sizes.values())))):
        write_sample_tables(tmp_path / "tables", **sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_half_way_leaves_nothing_behind(tmp_path: Path) -> None:
    unwritable = CategoryModel("Home, Garden", affinity=1.0, base_price=10.0, extra_quantity=0.0)
    chosen = SampleParameters(categories=(unwritable,), promotions=())
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "README.md").write_text("kept")
    for name in ("new", "there"):
        with pytest.raises(pa.ArrowInvalid):
            write_sample_tables(tmp_path / name, n_customers=5, parameters=chosen)
    assert {path.name for path in tmp_path.rglob("*")} == {"there", "README.md"}


def test_a_shop_of_one_customer_has_all_tables(tmp_path: Path) -> None:
    summary = write_sample_tables(tmp_path / "tables", n_customers=1, n_products=25, n_stores=1, months=1)
    assert summary.rows["customer_details"] == 1
    assert set(_files(tmp_path / "tables")) == {f"{name}.csv" for name in TABLE_COLUMNS}


def test_the_oracle_days_of_a_short_history_lie_within_it() -> None:
    shop = build_shop(SampleParameters(), seed=1, n_products=25, n_stores=1, months=2)
    assert oracle_days(shop) == (date(2026, 1, 1), date(2025, 12, 2), date(2025, 11, 2))


def test_the_documented_parameters_are_those_of_the_code() -> None:
    assert parameters_table() in DOC.read_text(encoding="utf-8")


def test_the_command_writes_and_refuses_a_second_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    request = ["--into", str(tmp_path / "t"), "--truth", str(tmp_path / "u"), "--customers", "20", "--months", "2"]
    assert run_command(main, request) == 0
    written = _files(tmp_path / "t")
    assert re.search(r"headers and .* lines from 2025-11-01 to 2025-12-31", capsys.readouterr().out)
    assert set(_files(tmp_path / "u")) == set(TRUTH_FILES)
    assert run_command(main, request) == 2
    assert "already holds tables" in capsys.readouterr().err
    assert _files(tmp_path / "t") == written


def test_the_command_tells_the_program_that_started_it_what_it_does_and_what_came_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ["--into", str(tmp_path / "t"), "--truth", str(tmp_path / "u"), "--customers", "20", "--months", "2"]
    assert run_command(main, [*request, "--progress", "json"]) == 0
    *phases, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["phase"] for line in phases} == {"sample tables"}
    assert (phases[-1]["done"], phases[-1]["of"]) == (2, 2)
    assert (last["outcome"]["customers"], len(last["outcome"]["files"])) == (20, 7)
    assert set(last["outcome"]["rows"]) == {name.removesuffix(".csv") for name in last["outcome"]["files"]}


@pytest.mark.parametrize("customers", ["0", "10000001"])
def test_a_shop_of_nobody_or_of_more_than_fit_a_disk_is_refused_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], customers: str
) -> None:
    request = ["--into", str(tmp_path / "t"), "--customers", customers, "--progress=json"]
    assert run_command(main, request) == 2
    refusal = json.loads(capsys.readouterr().out)["error"]
    assert (refusal["name"], "1 to 10,000,000" in refusal["message"]) == ("BadSampleRequest", True)
    assert not (tmp_path / "t").exists()
