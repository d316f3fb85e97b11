"""What customers really did around a day, from the purchases alone: what they spent after it, before it, and where.

The pipeline has no part in it. Money is rounded to cents, as predictions are: a sum of floats must not lie above an upper
end that it equals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.public_data import HORIZON_DAYS, Converted, FloatArray
from ml_pipeline.snapshot import money_columns

RULE_DAYS = 90
NO_STORE = ""
HEADER = "store_sales_header"


@dataclass(frozen=True)
class Facts:
    """The customers with a purchase before `day`, sorted, (n,), and what they did.

    actual: spend on day .. day + 29; rule: spend on the 90 days before the day ÷ 3; (n, 2 + targets) each, columns as
    `money_columns`. stores: the store of most of a customer's visits before the day, "" where the data has none.
    """

    day: date
    customer_ids: npt.NDArray[np.str_]
    actual: FloatArray
    rule: FloatArray
    stores: npt.NDArray[np.str_]


@dataclass(frozen=True)
class History:
    """All purchases of a data set, summed up. columns: as `money_columns` of its targets.

    spend: rows of customer (position in customer_ids), day (datetime64), part (column of money), amount.
    visits: rows of customer, day, store_id, visits; without rows where the data has no stores.
    """

    customer_ids: npt.NDArray[np.str_]
    columns: tuple[str, ...]
    spend: pd.DataFrame
    visits: pd.DataFrame

    @property
    def first_day(self) -> date:
        """Of any purchase."""
        return self.spend["day"].min().date()

    def facts_at(self, day: date) -> Facts:
        """What is known and what came; needs purchases of all 30 days from `day` on."""
        known = np.unique(self.spend["customer"].to_numpy()[(self.spend["day"] < pd.Timestamp(day)).to_numpy()])
        return Facts(
            day,
            self.customer_ids[known],
            self._spent(day, day + timedelta(days=HORIZON_DAYS))[known],
            self._spent(day - timedelta(days=RULE_DAYS), day)[known] * (HORIZON_DAYS / RULE_DAYS),
            self._stores_before(day)[known],
        )

    def facts_before(self, day: date) -> list[Facts]:
        """The 30-day windows that ended before `day`, the latest first, where the rule has its 90 days."""
        earlier = []
        start = day - timedelta(days=HORIZON_DAYS)
        while start - timedelta(days=RULE_DAYS) >= self.first_day:
            earlier.append(self.facts_at(start))
            start -= timedelta(days=HORIZON_DAYS)
        return earlier

    def _spent(self, start: date, end: date) -> FloatArray:
        """Of all customers on days start .. end - 1, (N, 2 + targets)."""
        day = self.spend["day"]
        rows = self.spend[(day >= pd.Timestamp(start)) & (day < pd.Timestamp(end))]
        width = len(self.columns)
        cell = rows["customer"].to_numpy() * width + rows["part"].to_numpy()
        money = np.bincount(cell, rows["amount"].to_numpy(), len(self.customer_ids) * width).reshape(-1, width)
        money[:, 0] = money[:, 1:].sum(axis=1)
        return np.round(money, 2)

    def _stores_before(self, day: date) -> npt.NDArray[np.str_]:
        """Where most visits were, (N,); the first by name among equals."""
        stores = np.full(len(self.customer_ids), NO_STORE, dtype=object)
        before = self.visits[self.visits["day"] < pd.Timestamp(day)]
        counts = before.groupby(["customer", "store_id"], as_index=False).agg(visits=("visits", "sum"))
        most = counts.sort_values(["visits", "store_id"], ascending=[False, True]).drop_duplicates("customer")
        stores[most["customer"].to_numpy(np.int64)] = most["store_id"].to_numpy()
        return stores.astype(np.str_)


def summed_up(converted: Converted, targets: Mapping[str, str]) -> History:
    """The purchases of a data set by customer, day and column of money; stores from its header, if that has any."""
    purchases = converted.purchases
    columns = money_columns(tuple(targets))
    part_of = {category: 1 + index for index, category in enumerate(targets.values())}
    customer_ids = np.array(sorted(purchases["customer_id"].unique()), dtype=np.str_)
    lines = pd.DataFrame(
        {
            "customer": np.searchsorted(customer_ids, purchases["customer_id"].to_numpy(np.str_)),
            "day": purchases["day"],
            "part": purchases["category"].map(part_of).fillna(len(columns) - 1).astype(np.int64),
            "amount": purchases["amount"].astype(np.float64),
            "transaction_id": purchases["transaction_id"],
        }
    )
    spend = lines.groupby(["customer", "day", "part"], as_index=False).agg(amount=("amount", "sum"))
    return History(customer_ids, columns, spend, _visits(lines, converted.tables))


def _visits(lines: pd.DataFrame, tables: Path) -> pd.DataFrame:
    """One row per customer, day and store, with how many visits."""
    transactions = lines.drop_duplicates("transaction_id")[["customer", "day", "transaction_id"]]
    placed = transactions.merge(_stores_of_transactions(tables), on="transaction_id")
    return placed.groupby(["customer", "day", "store_id"], as_index=False).agg(visits=("transaction_id", "size"))


def _stores_of_transactions(tables: Path) -> pd.DataFrame:
    file = tables / f"{HEADER}.parquet"
    header = pd.read_parquet(file) if file.is_file() else pd.DataFrame()
    if "store_id" not in header:
        return pd.DataFrame({"transaction_id": pd.Series(dtype=str), "store_id": pd.Series(dtype=str)})
    return header[["transaction_id", "store_id"]].dropna().astype(str)
