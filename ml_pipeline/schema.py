"""The tables a retailer hands over, their columns, the units of numbers, ids as text, and `dataset.toml`."""

import math
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ml_pipeline.errors import BadDatasetConfig, MissingDataFolder

AMOUNT_SCALE = 10_000
"""Money is summed as integers of 1/10,000 of the currency unit."""
QUANTITY_SCALE = 1_000
"""Quantities are integers of 1/1,000 of a piece."""
HORIZON_DAYS = 30
"""The target is the spend on the days as_of .. as_of + 29."""
AMOUNT_LIMIT = 10**11
"""Amounts of more currency units than this are no sale of a shop; sums stay far inside 64 bits."""
QUANTITY_LIMIT = 10**9
"""Quantities beyond this are no sale of a shop."""
MAX_ID_LENGTH = 128
"""Longer ids are a broken file (a shifted column, a lost quote), not an id."""

UNKNOWN_CATEGORY = "unknown"
OTHER_TARGET = "other"
TOTAL_TARGET = "total"
RESERVED_TARGETS = (TOTAL_TARGET, OTHER_TARGET)
CONFIG_FILE = "dataset.toml"

# ---- ids: the same constants make the Python function below and the Ibis expression in tables.py

WHITESPACE = " \t\r\n\f\v\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
"""A regex character class without its brackets: blanks that files carry, no-break spaces and byte order marks included."""
OUTER_WHITESPACE = f"^[{WHITESPACE}]+|[{WHITESPACE}]+$"
_BLANKS = "".join(filter(re.compile(f"[{WHITESPACE}]").match, map(chr, range(0x10000))))
"""The same characters for Python, whose patterns, unlike the engine's, take quadratic time over blanks within a text."""
SPREADSHEET_INTEGER = r"^([+-]?[0-9]+)\.0+$"
"""12345.0 is how a spreadsheet writes the id 12345; 00042 and 1.5 are left alone."""
NULL_TEXT = "^(?i:nan|none|null|na|n/a|<na>|nat)$"
"""Texts, in any case, by which programs write that there is nothing."""


def canonical_text(value: str) -> str:
    """The text without outer blanks, '' for a text that means nothing ('NaN', 'null', ...)."""
    return re.sub(NULL_TEXT, "", value.strip(_BLANKS))


def canonical_id(value: object) -> str:
    """An id as the pipeline knows it: text without outer blanks, 12345.0 as 12345, 00042 as it is, '' for nothing.

    Numbers keep all their digits; a float that is no integer keeps its own text.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        value = _number_as_text(value)
    return re.sub(SPREADSHEET_INTEGER, r"\1", canonical_text(value))


def _number_as_text(value: Any) -> str:
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and value == value.to_integral_value():
        return str(int(value))
    return str(value)


# ---- tables


@dataclass(frozen=True)
class Column:
    """A column of one of our tables; `feeds` says in words what stays unknown without it ('' = nothing).

    aliases: names under which known files carry it.
    """

    name: str
    kind: Literal["id", "text", "date", "amount", "quantity"] = "text"
    required: bool = False
    personal: bool = False
    feeds: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSchema:
    """One table: its stem, its columns in order, the column that names a row, and what it is for."""

    name: str
    key: str
    columns: tuple[Column, ...]
    feeds: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        """Our names, in order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name."""
        return next(column for column in self.columns if column.name == name)


CUSTOMERS = TableSchema(
    "customer_details",
    "customer_id",
    (
        Column("customer_id", "id", required=True),
        Column("first_name", personal=True),
        Column("email", personal=True),
        Column("loyalty_status"),
        Column("total_loyalty_points"),
        Column("last_purchase_date"),
        Column("segment_id", "id"),
        Column("customer_phone", personal=True),
        Column("customer_since", "date", feeds="tenure counts from the first purchase, not from the registration"),
    ),
    feeds="tenure counts from the first purchase, not from the registration; customers who never bought are not listed",
)
PRODUCTS = TableSchema(
    "products",
    "product_id",
    (
        Column("product_id", "id", required=True),
        Column("product_name"),
        Column("product_category", required=True, feeds="spend per category, number of distinct categories"),
        Column("unit_price", "amount", feeds="a missing line amount cannot be computed as quantity x unit_price"),
        Column("current_stock_level"),
    ),
    feeds="spend per category, number of distinct categories",
)
STORES = TableSchema(
    "stores",
    "store_id",
    (
        Column("store_id", "id", required=True),
        Column("store_name"),
        Column("store_city"),
        Column("store_region"),
        Column("opening_date"),
    ),
    feeds="store ids cannot be checked; they count as they are",
)
HEADERS = TableSchema(
    "store_sales_header",
    "transaction_id",
    (
        Column("transaction_id", "id", required=True),
        Column("customer_id", "id", required=True),
        Column("store_id", "id", feeds="number of distinct stores"),
        Column("transaction_date", "date", required=True),
        Column("total_amount", "amount", feeds="a transaction without any line has no amount"),
        Column("customer_phone", personal=True),
    ),
)
LINES = TableSchema(
    "store_sales_line_items",
    "line_item_id",
    (
        Column("line_item_id", "id", feeds="lines that were delivered twice cannot be told"),
        Column("transaction_id", "id", required=True),
        Column("product_id", "id", required=True),
        Column("promotion_id", "id", feeds="use of promotions"),
        Column("quantity", "quantity", required=True),
        Column("line_item_amount", "amount", required=True),
    ),
    feeds="spend per category, number of distinct products and categories, items per transaction, use of promotions",
)
PROMOTIONS = TableSchema(
    "promotion_details",
    "promotion_id",
    (
        Column("promotion_id", "id", required=True),
        Column("promotion_name"),
        Column("start_date"),
        Column("end_date"),
        Column("discount_percentage"),
        Column("applicable_category"),
    ),
    feeds="promotion ids cannot be checked; they count as they are",
)
LOYALTY_RULES = TableSchema(
    "loyalty_rules",
    "rule_id",
    (
        Column("rule_id", "id", required=True),
        Column("rule_name"),
        Column("points_per_unit_spend"),
        Column("min_spend_threshold"),
        Column("bonus_points"),
    ),
    feeds="",
)
TABLES: Mapping[str, TableSchema] = MappingProxyType(
    {table.name: table for table in (CUSTOMERS, PRODUCTS, STORES, HEADERS, LINES, PROMOTIONS, LOYALTY_RULES)}
)

PERSONAL_COLUMN = re.compile(r"name|mail|phone|mobile|contact|address|street|birth|\bdob\b", re.IGNORECASE)
"""Columns that a shop adds and that are called like this are taken for personal data."""
IMPERSONAL_COLUMNS = frozenset({"product_name", "store_name", "promotion_name", "rule_name"})


def is_personal(table: str, column: str) -> bool:
    """Whether the values of a column (by our name, or an extra one by its own) must not leave the retailer's file."""
    known = {c.name: c.personal for c in TABLES[table].columns} if table in TABLES else {}
    if column in known:
        return known[column]
    return column not in IMPERSONAL_COLUMNS and PERSONAL_COLUMN.search(column) is not None


# ---- dataset.toml

DEFAULT_TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"electronics": ("Electronics",), "grocery": ("Grocery",), "sports": ("Sports",)}
)


@dataclass(frozen=True)
class DatasetConfig:
    """What `dataset.toml` says about a folder of tables; the defaults fit the documented schema."""

    currency: str = "INR"
    timezone: str | None = None
    spend: Literal["gross", "net"] = "gross"
    dayfirst: bool | None = None
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: dict(DEFAULT_TARGETS))
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets in the file's order, without total and other."""
        return tuple(self.targets)

    @property
    def target_of_category(self) -> dict[str, str]:
        """Target by category, the category as purchases spell it (no outer blanks, lower case)."""
        return {category_key(c): target for target, categories in self.targets.items() for c in categories}

    @property
    def required_tables(self) -> tuple[str, ...]:
        """The header always; lines and products unless there are no category targets."""
        return (HEADERS.name, LINES.name, PRODUCTS.name) if self.targets else (HEADERS.name,)


def category_key(category: str) -> str:
    """A category as purchases spell it: without outer blanks, in lower case."""
    return canonical_text(category).lower()


def load_dataset_config(data_dir: Path) -> DatasetConfig:
    """The folder's `dataset.toml`, or the defaults where there is none.

    Raises MissingDataFolder, and BadDatasetConfig naming everything that is wrong at once.
    """
    if not data_dir.is_dir():
        raise MissingDataFolder(
            f"{data_dir} is not a folder; name the folder that holds {HEADERS.name}.csv and the other tables."
        )
    path = data_dir / CONFIG_FILE
    if not path.is_file():
        return DatasetConfig()
    try:
        settings = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadDatasetConfig(f"{path} is not TOML in UTF-8: {error}. docs/data.md shows an example.") from error
    config, problems = _read_settings(settings)
    if problems:
        raise BadDatasetConfig(f"{path} has {len(problems)} problem(s): " + " | ".join(problems))
    return config


def _read_settings(settings: dict[str, Any]) -> tuple[DatasetConfig, list[str]]:
    problems: list[str] = []
    known = ("currency", "timezone", "spend", "dayfirst", "targets", "columns")
    problems.extend(f"unknown setting {key!r}; known are {', '.join(known)}" for key in settings if key not in known)
    config = DatasetConfig(
        currency=_read_currency(settings.get("currency", "INR"), problems),
        timezone=_read_timezone(settings.get("timezone"), problems),
        spend=_read_spend(settings.get("spend", "gross"), problems),
        dayfirst=_read_dayfirst(settings.get("dayfirst"), problems),
        targets=_read_targets(settings["targets"], problems) if "targets" in settings else dict(DEFAULT_TARGETS),
        columns=_read_columns(settings.get("columns", {}), problems),
    )
    return config, problems


def _read_currency(value: object, problems: list[str]) -> str:
    if isinstance(value, str) and re.fullmatch(r"\S{1,12}", value.strip()):
        return value.strip()
    problems.append(f'currency = {value!r} is no currency; write a code such as "INR"')
    return "INR"


def _read_timezone(value: object, problems: list[str]) -> str | None:
    if value is None:
        return None
    try:
        return zoneinfo.ZoneInfo(value).key if isinstance(value, str) and value else _no_zone(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        problems.append(f'timezone = {value!r} is not a known zone; write one such as "Asia/Kolkata"')
        return None


def _no_zone(value: object) -> str:
    raise ValueError(value)


def _read_spend(value: object, problems: list[str]) -> Literal["gross", "net"]:
    if value == "net":
        return "net"
    if value != "gross":
        problems.append(f'spend = {value!r}; write "gross" or "net"')
    return "gross"


def _read_dayfirst(value: object, problems: list[str]) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    problems.append(f"dayfirst = {value!r}; write true or false, or leave it out")
    return None


def _read_targets(value: object, problems: list[str]) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        problems.append(f"targets = {value!r}; write a table [targets] with one list of categories per target")
        return {}
    targets: dict[str, tuple[str, ...]] = {}
    owner: dict[str, str] = {}
    for name, categories in value.items():
        if not re.fullmatch(r"[a-z0-9_]+", name) or name in RESERVED_TARGETS:
            problems.append(f"target name {name!r}; use a-z, 0-9 and _, and neither 'total' nor 'other'")
        if not isinstance(categories, list) or not categories or not all(isinstance(c, str) for c in categories):
            problems.append(f"target {name!r} = {categories!r}; write a list of product_category values")
            continue
        for category in categories:
            _claim_category(name, category, owner, problems)
        targets[name] = tuple(categories)
    return targets


def _claim_category(target: str, category: str, owner: dict[str, str], problems: list[str]) -> None:
    key = category_key(category)
    if key in ("", UNKNOWN_CATEGORY):
        problems.append(f"target {target!r} names the category {category!r}, which stands for products nobody knows")
    elif key in owner:
        problems.append(f"category {category!r} is in target {owner[key]!r} and again in {target!r}; it can be in one")
    else:
        owner[key] = target


def _read_columns(value: object, problems: list[str]) -> dict[str, dict[str, str]]:
    if not isinstance(value, dict):
        problems.append(f"columns = {value!r}; write tables such as [columns.{HEADERS.name}]")
        return {}
    columns: dict[str, dict[str, str]] = {}
    for table, mapping in value.items():
        if table not in TABLES:
            problems.append(f"[columns.{table}] is no table of ours; they are {', '.join(TABLES)}")
        elif not isinstance(mapping, dict):
            problems.append(f'[columns.{table}] = {mapping!r}; write lines of the form ours = "theirs"')
        else:
            columns[table] = _read_mapping(table, mapping, problems)
    return columns


def _read_mapping(table: str, mapping: dict[str, Any], problems: list[str]) -> dict[str, str]:
    ours_by_theirs: dict[str, str] = {}
    names = TABLES[table].column_names
    for ours, theirs in mapping.items():
        if ours not in names:
            problems.append(f"[columns.{table}] {ours!r} is no column of ours; they are {', '.join(names)}")
        elif not isinstance(theirs, str) or not theirs.strip():
            problems.append(f"[columns.{table}] {ours} = {theirs!r}; write the name of a column in your file")
        elif theirs in ours_by_theirs:
            problems.append(f"[columns.{table}] {theirs!r} stands for {ours_by_theirs[theirs]!r} and for {ours!r}")
        else:
            ours_by_theirs[theirs] = ours
    return {ours: theirs for theirs, ours in ours_by_theirs.items()}
