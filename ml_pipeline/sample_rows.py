"""The sample shop's numbers as the text rows of its seven tables, flaws of the small tables included."""

from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.sample_flaws import (
    DAY_FIRST,
    EMPTY,
    ISO,
    MONTH_FIRST,
    SECONDS_PER_DAY,
    SLASH,
    UNREADABLE,
    UNREADABLE_DATES,
    FlawCounts,
    Ledger,
    RowPicker,
    add_category_noise,
    add_duplicates,
    add_nulls,
)
from ml_pipeline.sample_model import Ints, Latents, Purchases, Shop

TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "customer_details": (
        "customer_id",
        "first_name",
        "email",
        "loyalty_status",
        "total_loyalty_points",
        "last_purchase_date",
        "segment_id",
        "customer_phone",
        "customer_since",
    ),
    "products": ("product_id", "product_name", "product_category", "unit_price", "current_stock_level"),
    "stores": ("store_id", "store_name", "store_city", "store_region", "opening_date"),
    "store_sales_header": (
        "transaction_id",
        "customer_id",
        "store_id",
        "transaction_date",
        "total_amount",
        "customer_phone",
    ),
    "store_sales_line_items": (
        "line_item_id",
        "transaction_id",
        "product_id",
        "promotion_id",
        "quantity",
        "line_item_amount",
    ),
    "promotion_details": (
        "promotion_id",
        "promotion_name",
        "start_date",
        "end_date",
        "discount_percentage",
        "applicable_category",
    ),
    "loyalty_rules": ("rule_id", "rule_name", "points_per_unit_spend", "min_spend_threshold", "bonus_points"),
}
FIRST_PRODUCT = 1001
_COMMON_FLAWS, _PEOPLE = 11, 12
_TIER_NAMES = ("Basic", "Value", "Classic", "Select", "Premium")
_FIRST_NAMES = (
    *("Aarav", "Aditi", "Ananya", "Arjun", "Asha", "Bhavna", "Chetan", "Deepa", "Dev", "Divya", "Farah", "Gauri"),
    *("Harish", "Isha", "Jaya", "Kabir", "Kavya", "Kiran", "Lakshmi", "Manish", "Meera", "Mohan", "Nandini", "Neel"),
    *("Nikhil", "Pooja", "Pranav", "Priya", "Rahul", "Ravi", "Rekha", "Rohan", "Sana", "Sanjay", "Tara", "Vikram"),
)
_PLACES = (
    ("Mumbai", "West"),
    ("Delhi", "North"),
    ("Bengaluru", "South"),
    ("Kolkata", "East"),
    ("Chennai", "South"),
    ("Pune", "West"),
    ("Jaipur", "North"),
)
_SEGMENT_DAYS = (("LR", 30), ("AR", 90), ("HR", 180))  # low, some, high risk of loss; LP lapsed; NR never bought


@dataclass(frozen=True)
class Block:
    """One block of customers with their truth; `first_customer` is the number of its first one (1-based)."""

    number: int
    first_customer: int
    latents: Latents
    purchases: Purchases

    @property
    def size(self) -> int:
        """Customers in the block."""
        return self.latents.enters.size

    @property
    def customer_numbers(self) -> Ints:
        """Number of each customer, shape (size,)."""
        return self.first_customer + np.arange(self.size)


def customer_ids(numbers: Ints, width: int) -> pa.Array:
    """`00042`; null for 0."""
    text = pc.utf8_lpad(_digits(numbers), width, "0")
    return pc.if_else(pa.array(np.asarray(numbers) > 0), text, pa.scalar(None, pa.string()))


def build_ledger(shop: Shop, block: Block, first_transaction: int, first_line: int) -> Ledger:
    """The clean transactions of a block as a ledger."""
    purchases = block.purchases
    n_headers, n_lines = purchases.customer.size, purchases.quantity.size
    cents = np.bincount(purchases.line_transaction, weights=purchases.amount_cents, minlength=n_headers)
    headers = pd.DataFrame(
        {
            "transaction": first_transaction + np.arange(n_headers),
            "customer": block.first_customer + purchases.customer,
            "store": purchases.store + 1,
            "second": day_seconds(shop.first_day) + purchases.day * SECONDS_PER_DAY + purchases.second,
            "total_cents": np.rint(cents).astype(np.int64),
            "date_style": np.full(n_headers, ISO),
            "as_float": np.zeros(n_headers, dtype=bool),
            "with_phone": np.ones(n_headers, dtype=bool),
            "stays": np.ones(n_headers, dtype=bool),
        }
    )
    lines = pd.DataFrame(
        {
            "line": first_line + np.arange(n_lines),
            "transaction": first_transaction + purchases.line_transaction,
            "product": FIRST_PRODUCT + purchases.product,
            "promotion": purchases.promotion,
            "quantity": purchases.quantity,
            "amount_cents": purchases.amount_cents,
            "as_float": np.zeros(n_lines, dtype=bool),
        }
    )
    return Ledger(headers, lines, first_transaction, first_line)


def header_rows(headers: pd.DataFrame, width: int) -> pa.Table:
    """store_sales_header as text."""
    customers, stores = headers["customer"].to_numpy(), headers["store"].to_numpy()
    store_text = _maybe_float(stores, headers["as_float"].to_numpy())
    return pa.table(
        {
            "transaction_id": _prefixed("T", headers["transaction"].to_numpy()),
            "customer_id": customer_ids(customers, width),
            "store_id": _only_where(stores > 0, store_text),
            "transaction_date": _moment_text(headers["second"].to_numpy(), headers["date_style"].to_numpy()),
            "total_amount": _money(headers["total_cents"].to_numpy()),
            "customer_phone": _only_where(headers["with_phone"].to_numpy(), _phones(customers)),
        }
    )


def line_rows(lines: pd.DataFrame) -> pa.Table:
    """store_sales_line_items as text."""
    promotions = lines["promotion"].to_numpy()
    return pa.table(
        {
            "line_item_id": _prefixed("L", lines["line"].to_numpy()),
            "transaction_id": _prefixed("T", lines["transaction"].to_numpy()),
            "product_id": _maybe_float(lines["product"].to_numpy(), lines["as_float"].to_numpy()),
            "promotion_id": _only_where(promotions >= 0, _promotion_ids(promotions)),
            "quantity": _digits(lines["quantity"].to_numpy()),
            "line_item_amount": _money(lines["amount_cents"].to_numpy()),
        }
    )


def customer_rows(shop: Shop, block: Block, width: int, headers: pd.DataFrame, counts: FlawCounts) -> pa.Table:
    """customer_details of a block with its flaws; `headers` (as written) are only counted."""
    draw, rates = shop.generator(_PEOPLE, block.number), shop.parameters.flaws
    first, last, cents = _histories(shop, block)
    buyers = RowPicker(np.flatnonzero(first < shop.n_days - 1), draw)
    missing = buyers.take(rates.customers_missing_from_details)
    late = buyers.take(rates.customers_signed_up_later)
    since = block.latents.since.copy()
    since[late] = np.minimum(first[late] + draw.integers(1, 31, late.size), shop.n_days - 1)
    _count_customers(shop, block, headers, since, missing, late, counts)
    customers = _clean_customers(shop, block, width, since, last, cents, draw)
    bought = np.flatnonzero((last >= 0) & ~np.isin(np.arange(block.size), np.concatenate([missing, late])))
    picker = RowPicker(bought, draw)
    for column in TABLE_COLUMNS["customer_details"][1:]:
        add_nulls(customers, "customer_details", column, picker.take(rates.null_customer_column), counts)
    conflict = ("loyalty_status", lambda status: status.map({"Gold": "Silver"}).fillna("Gold"))
    customers = add_duplicates(customers, "customer_details", rates, picker, conflict, counts)
    return _as_text(customers.drop(index=missing.tolist()))


def common_rows(shop: Shop, counts: FlawCounts) -> dict[str, pa.Table]:
    """products, stores, promotion_details and loyalty_rules as text, with their flaws."""
    draw = shop.generator(_COMMON_FLAWS)
    products = _spoil_products(shop, _clean_products(shop, draw), draw, counts)
    return {
        "products": _as_text(products),
        "stores": _as_text(_spoil_stores(shop, _clean_stores(shop), draw, counts)),
        "promotion_details": _as_text(_spoil_promotions(shop, _clean_promotions(shop), draw, counts)),
        "loyalty_rules": _as_text(_spoil_loyalty_rules(shop, _clean_loyalty_rules(shop), draw, counts)),
    }


def product_ids(shop: Shop) -> pa.Array:
    """Id of each product of the catalogue."""
    return _digits(FIRST_PRODUCT + np.arange(shop.catalogue.tier.size))


def day_seconds(day: date) -> int:
    """Seconds from 1970 to the start of the day."""
    return (day - date(1970, 1, 1)).days * SECONDS_PER_DAY


def _histories(shop: Shop, block: Block) -> tuple[Ints, Ints, Ints]:
    """First and last day of purchase (n_days and -1 without) and clean spend in cents of each customer."""
    purchases = block.purchases
    first, last = np.full(block.size, shop.n_days), np.full(block.size, -1)
    np.minimum.at(first, purchases.customer, purchases.day)
    np.maximum.at(last, purchases.customer, purchases.day)
    cents = np.zeros(block.size, dtype=np.int64)
    np.add.at(cents, purchases.customer[purchases.line_transaction], purchases.amount_cents)
    return first, last, cents


def _clean_customers(
    shop: Shop, block: Block, width: int, since: Ints, last: Ints, cents: Ints, draw: np.random.Generator
) -> pd.DataFrame:
    rules, day_first = shop.parameters.loyalty, shop.parameters.flaws.day_first_dates
    rule = np.searchsorted([tier.min_spend * 100 for tier in rules], cents, side="right") - 1
    per_unit = np.array([tier.points_per_unit for tier in rules])[rule]
    bonus = np.array([tier.bonus_points for tier in rules])[rule]
    first_names = np.array(_FIRST_NAMES)[draw.integers(0, len(_FIRST_NAMES), block.size)]
    ids = customer_ids(block.customer_numbers, width).to_pylist()
    last_text = _day_text(shop, last, draw.random(block.size) < day_first)
    return pd.DataFrame(
        {
            "customer_id": ids,
            "first_name": first_names,
            "email": [f"{name.lower()}.{number}@example.com" for name, number in zip(first_names, ids, strict=True)],
            "loyalty_status": np.array([tier.status for tier in rules])[rule],
            "total_loyalty_points": (np.floor(cents / 100 * per_unit) + bonus).astype(np.int64).astype(str),
            "last_purchase_date": _only_where(last >= 0, last_text).to_pylist(),
            "segment_id": _segments(shop, last),
            "customer_phone": _phones(block.customer_numbers).to_pylist(),
            "customer_since": _day_text(shop, since, draw.random(block.size) < day_first).to_pylist(),
        },
        dtype=object,
    )


def _segments(shop: Shop, last: Ints) -> npt.NDArray[np.str_]:
    """By days since the last purchase: LR <= 30, AR <= 90, HR <= 180, LP longer; NR never bought."""
    silent = shop.n_days - last
    limits = [silent <= days for _, days in _SEGMENT_DAYS]
    return np.select([last < 0, *limits], ["NR", *(name for name, _ in _SEGMENT_DAYS)], default="LP")


def _count_customers(
    shop: Shop, block: Block, headers: pd.DataFrame, since: Ints, missing: Ints, late: Ints, counts: FlawCounts
) -> None:
    """How many kept headers belong to missing customers or lie before the sign-up that the table shows."""
    kept = headers[headers["stays"]]
    position = kept["customer"].to_numpy() - block.first_customer
    day = (kept["second"].to_numpy() - day_seconds(shop.first_day)) // SECONDS_PER_DAY
    early = np.isin(position, late) & (day < since[position])
    of_missing = np.isin(position, missing)
    counts.add("customer_details.missing_customer", rows=missing.size, headers=of_missing.sum())
    counts.add("customer_details.signed_up_after_purchase", rows=late.size, headers=early.sum())


def _clean_products(shop: Shop, draw: np.random.Generator) -> pd.DataFrame:
    catalogue, names = shop.catalogue, shop.parameters.category_names
    numbers = FIRST_PRODUCT + np.arange(catalogue.tier.size)
    kinds = zip(catalogue.category, catalogue.tier, numbers, strict=True)
    return pd.DataFrame(
        {
            "product_id": product_ids(shop).to_pylist(),
            "product_name": [f"{_TIER_NAMES[tier]} {names[category]} {number}" for category, tier, number in kinds],
            "product_category": np.array(names)[catalogue.category],
            "unit_price": _money(catalogue.price_cents).to_pylist(),
            "current_stock_level": draw.integers(0, 500, numbers.size).astype(str),
        },
        dtype=object,
    )


def _spoil_products(shop: Shop, products: pd.DataFrame, draw: np.random.Generator, counts: FlawCounts) -> pd.DataFrame:
    rates, picker = shop.parameters.flaws, RowPicker(np.arange(len(products)), draw)
    noisy = picker.take(rates.category_noise)
    add_category_noise(products, "products", "product_category", noisy, counts)
    for column in ("product_name", "current_stock_level"):
        add_nulls(products, "products", column, picker.take(rates.null_product_column), counts)
    conflict = ("unit_price", lambda price: price.map(lambda text: f"{float(text) * 1.1:.2f}"))
    return add_duplicates(products, "products", rates, picker, conflict, counts)


def _clean_stores(shop: Shop) -> pd.DataFrame:
    numbers = np.arange(shop.n_stores)
    places = [_PLACES[number % len(_PLACES)] for number in numbers]
    opened = [shop.first_day - timedelta(days=400 + 210 * int(number % 10)) for number in numbers]
    return pd.DataFrame(
        {
            "store_id": (numbers + 1).astype(str),
            "store_name": [f"Store {number + 1} {city}" for number, (city, _) in enumerate(places)],
            "store_city": [city for city, _ in places],
            "store_region": [region for _, region in places],
            "opening_date": [day.isoformat() for day in opened],
        },
        dtype=object,
    )


def _spoil_stores(shop: Shop, stores: pd.DataFrame, draw: np.random.Generator, counts: FlawCounts) -> pd.DataFrame:
    rates, picker = shop.parameters.flaws, RowPicker(np.arange(len(stores)), draw)
    add_nulls(stores, "stores", "store_region", picker.take(rates.null_store_region), counts)
    conflict = ("store_name", lambda name: name + " (old)")
    return add_duplicates(stores, "stores", rates, picker, conflict, counts)


def _clean_promotions(shop: Shop) -> pd.DataFrame:
    runs = shop.promotions
    return pd.DataFrame(
        {
            "promotion_id": _promotion_ids(np.arange(len(runs))).to_pylist(),
            "promotion_name": [f"{run.plan.name} {run.start.year}" for run in runs],
            "start_date": [run.start.isoformat() for run in runs],
            "end_date": [run.end.isoformat() for run in runs],
            "discount_percentage": [str(run.plan.discount_percent) for run in runs],
            "applicable_category": [run.plan.category for run in runs],
        },
        dtype=object,
    )


def _spoil_promotions(
    shop: Shop, promotions: pd.DataFrame, draw: np.random.Generator, counts: FlawCounts
) -> pd.DataFrame:
    rates, picker = shop.parameters.flaws, RowPicker(np.arange(len(promotions)), draw)
    noisy = picker.take(rates.category_noise)
    add_category_noise(promotions, "promotion_details", "applicable_category", noisy, counts)
    conflict = ("discount_percentage", lambda percent: percent + "0")
    return add_duplicates(promotions, "promotion_details", rates, picker, conflict, counts)


def _clean_loyalty_rules(shop: Shop) -> pd.DataFrame:
    rules = shop.parameters.loyalty
    return pd.DataFrame(
        {
            "rule_id": [f"R{number + 1}" for number in range(len(rules))],
            "rule_name": [f"{rule.status} earning" for rule in rules],
            "points_per_unit_spend": [str(rule.points_per_unit) for rule in rules],
            "min_spend_threshold": [str(rule.min_spend) for rule in rules],
            "bonus_points": [str(rule.bonus_points) for rule in rules],
        },
        dtype=object,
    )


def _spoil_loyalty_rules(
    shop: Shop, rules: pd.DataFrame, draw: np.random.Generator, counts: FlawCounts
) -> pd.DataFrame:
    picker = RowPicker(np.arange(len(rules)), draw)
    conflict = ("bonus_points", lambda bonus: bonus + "5")
    return add_duplicates(rules, "loyalty_rules", shop.parameters.flaws, picker, conflict, counts)


def _as_text(rows: pd.DataFrame) -> pa.Table:
    return pa.table({column: pa.array(rows[column].tolist(), pa.string()) for column in rows.columns})


def _digits(numbers: Ints) -> pa.Array:
    return pc.cast(pa.array(np.asarray(numbers, dtype=np.int64)), pa.string())


def _prefixed(letter: str, numbers: Ints) -> pa.Array:
    return pc.binary_join_element_wise(letter, pc.utf8_lpad(_digits(numbers), 7, "0"), "")


def _promotion_ids(positions: Ints) -> pa.Array:
    return pc.binary_join_element_wise("PR", pc.utf8_lpad(_digits(positions + 1), 3, "0"), "")


def _phones(numbers: Ints) -> pa.Array:
    """Synthetic: no subscriber number begins with 0."""
    return pc.binary_join_element_wise("+91 0000", pc.utf8_lpad(_digits(numbers), 6, "0"), "")


def _maybe_float(numbers: Ints, as_float: npt.NDArray[np.bool_]) -> pa.Array:
    return pc.binary_join_element_wise(_digits(numbers), pc.if_else(pa.array(as_float), ".0", ""), "")


def _only_where(there: npt.NDArray[np.bool_], text: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(there), text, pa.scalar(None, pa.string()))


def _money(cents: Ints) -> pa.Array:
    """Cents as text with two decimals, without passing through floats."""
    whole, rest = np.divmod(np.abs(cents), 100)
    sign = pc.if_else(pa.array(cents < 0), "-", "")
    return pc.binary_join_element_wise(sign, _digits(whole), ".", pc.utf8_lpad(_digits(rest), 2, "0"), "")


def _moment_text(seconds: Ints, styles: Ints) -> pa.Array:
    """Each moment in its style: ISO with seconds, dd-mm-yyyy HH:MM, yyyy/mm/dd, empty, mm-dd-yyyy HH:MM, unreadable."""
    moments = pa.array(seconds.astype("datetime64[s]"))
    text = np.asarray(pc.cast(moments, pa.string()).to_numpy(zero_copy_only=False), dtype=object)
    for style, pattern in ((DAY_FIRST, "%d-%m-%Y %H:%M"), (SLASH, "%Y/%m/%d"), (MONTH_FIRST, "%m-%d-%Y %H:%M")):
        chosen = styles == style
        text[chosen] = pc.strftime(moments.filter(pa.array(chosen)), pattern).to_numpy(zero_copy_only=False)
    text[styles == EMPTY] = None
    for number, unreadable in enumerate(UNREADABLE_DATES):
        text[styles == UNREADABLE + number] = unreadable
    return pa.array(text, pa.string())


def _day_text(shop: Shop, days: Ints, day_first: npt.NDArray[np.bool_]) -> pa.Array:
    """Day numbers as yyyy-mm-dd or dd-mm-yyyy."""
    moments = pa.array((np.datetime64(shop.first_day, "D") + days).astype("datetime64[s]"))
    return pc.if_else(pa.array(day_first), pc.strftime(moments, "%d-%m-%Y"), pc.strftime(moments, "%Y-%m-%d"))
