"""What the learned peers see: 36 columns of a careful analyst, in pandas, and rolling windows to learn from.

Nothing here is the pipeline's: a shared mistake would not show.
"""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from benchmarks.public_data import HORIZON_DAYS, FloatArray

SPACING_DAYS = 15
MOST_DAYS = 16
WARM_UP_DAYS = 60
WINDOWS = (7, 14, 30, 60, 90, 180)
HALF_LIVES = (30, 90)
SHORTEST_TENURE_DAYS = 30

Purchases = pd.DataFrame


@dataclass(frozen=True)
class Learning:
    """Rows to learn from, one per customer and day: features (n, 36), spend of the 30 days from the day, the day's number.

    Days count from 1970-01-01. The latest day's label window ended the day before the evaluation day, or earlier.
    """

    features: FloatArray
    spend: FloatArray
    day: npt.NDArray[np.int64]

    @property
    def latest(self) -> npt.NDArray[np.bool_]:
        """Rows of the latest day: to stop early on."""
        return self.day == self.day.max()

    @property
    def earlier(self) -> npt.NDArray[np.bool_]:
        """Rows whose label window ended before the latest day."""
        return self.day + HORIZON_DAYS <= self.day.max()


def daily_purchases(past: Purchases) -> Purchases:
    """One row per customer and day: spend, number of lines, and the day as a number."""
    grouped = past.groupby(["customer_id", "day"], sort=True)
    daily = grouped.agg(spend=("amount", "sum"), items=("product_id", "size")).reset_index()
    return daily.assign(number=_numbers(daily["day"]))


def _numbers(days: "pd.Series[Any]") -> npt.NDArray[np.int64]:
    return days.to_numpy().astype("datetime64[D]").astype(np.int64)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - date(1970, 1, 1)).days


def learning_rows(past: Purchases, day: date) -> Learning:
    """Rolling windows every 15 days, the latest of which ends the day before `day`."""
    first = past["day"].min().date() + timedelta(days=WARM_UP_DAYS)
    steps = [day - timedelta(days=HORIZON_DAYS + SPACING_DAYS * step) for step in range(MOST_DAYS)]
    days = sorted(each for each in steps if each >= first)
    if len(days) < 4:
        raise ValueError(f"{len(days)} days to learn from before {day}; the peers need 4, so a later day.")
    daily = daily_purchases(past)
    tables = [features_at(past, each) for each in days]
    spends = [spend_of_window(daily, table.index, each) for table, each in zip(tables, days, strict=True)]
    numbers = [np.full(len(table), day_number(each)) for table, each in zip(tables, days, strict=True)]
    features = np.concatenate([table.to_numpy(np.float64) for table in tables])
    return Learning(features, np.concatenate(spends), np.concatenate(numbers))


def spend_of_window(daily: Purchases, customers: "pd.Index[Any]", day: date) -> FloatArray:
    """Spend on day .. day + 29 of these customers, (n,)."""
    number = day_number(day)
    inside = daily[(daily["number"] >= number) & (daily["number"] < number + HORIZON_DAYS)]
    return inside.groupby("customer_id")["spend"].sum().reindex(customers, fill_value=0.0).to_numpy(np.float64)


def features_at(lines: Purchases, day: date) -> pd.DataFrame:
    """36 columns per customer with a purchase before `day`, by customer_id sorted; no missing values."""
    before = lines[lines["day"] < pd.Timestamp(day)]
    daily = daily_purchases(before)
    daily["age"] = day_number(day) - daily["number"]
    columns = [_lifetime(daily), _windows(daily), _rates(daily), _variety(before, day)]
    table = pd.concat(columns, axis=1).sort_index()
    tenure = table["tenure"].clip(lower=SHORTEST_TENURE_DAYS)
    table["spend_rate"] = table["spend"] / tenure * HORIZON_DAYS
    table["visit_rate"] = table["visits"] / tenure * HORIZON_DAYS
    table["gaps_since"] = table["recency"] / table["mean_gap"].clip(lower=1)
    return table


def _lifetime(daily: Purchases) -> pd.DataFrame:
    by_customer = daily.groupby("customer_id")
    table = by_customer.agg(
        recency=("age", "min"),
        tenure=("age", "max"),
        visits=("age", "size"),
        spend=("spend", "sum"),
        mean_value=("spend", "mean"),
        highest_value=("spend", "max"),
        deviation=("spend", "std"),
        last_value=("spend", "last"),
        items=("items", "sum"),
    )
    gaps = by_customer["number"].diff()
    table["gap_deviation"] = gaps.groupby(daily["customer_id"]).std()
    span = table["tenure"] - table["recency"]
    table["mean_gap"] = (span / (table["visits"] - 1)).where(table["visits"] > 1, table["tenure"])
    return table.fillna(0.0)


def _windows(daily: Purchases) -> pd.DataFrame:
    tables = {}
    for days in WINDOWS:
        recent = daily[daily["age"] <= days].groupby("customer_id")["spend"]
        tables[f"spend_{days}"], tables[f"visits_{days}"] = recent.sum(), recent.size()
    for newest, oldest in ((31, 60), (61, 90)):
        between = daily[(daily["age"] >= newest) & (daily["age"] <= oldest)]
        tables[f"spend_{newest}_{oldest}"] = between.groupby("customer_id")["spend"].sum()
    everyone = pd.Index(daily["customer_id"].unique(), name="customer_id")
    return pd.DataFrame(tables).reindex(everyone).fillna(0.0)


def _rates(daily: Purchases) -> pd.DataFrame:
    tables = {}
    tenure = daily.groupby("customer_id")["age"].max().clip(lower=SHORTEST_TENURE_DAYS)
    for half_life in HALF_LIVES:
        weight = np.exp2(-daily["age"] / half_life)
        days = half_life / np.log(2) * (1 - np.exp2(-tenure / half_life))
        tables[f"weighted_spend_{half_life}"] = (weight * daily["spend"]).groupby(daily["customer_id"]).sum() / days
        tables[f"weighted_visits_{half_life}"] = weight.groupby(daily["customer_id"]).sum() / days
    weekend = daily["day"].dt.day_of_week >= 5
    tables["weekend_share"] = weekend.groupby(daily["customer_id"]).mean()
    return pd.DataFrame(tables)


def _variety(lines: Purchases, day: date) -> pd.DataFrame:
    recent = lines[lines["day"] >= pd.Timestamp(day - timedelta(days=90))]
    everything = lines.groupby("customer_id")[["product_id", "category"]].nunique()
    table = everything.rename(columns={"product_id": "products", "category": "categories"})
    return table.assign(items_90=recent.groupby("customer_id").size()).fillna(0.0)
