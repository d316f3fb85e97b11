"""How good what serves is for parts of the customers: by how they buy, and by the region of the store they use most.

A figure over few customers says little, and one over a handful would say what single customers spent: groups of fewer
than `FEWEST` get none, and regions of fewer are put together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
from ibis.backends.duckdb import Backend

from ml_pipeline.features import DAYS_SINCE_FIRST, DAYS_SINCE_LAST, TOTAL_TRANSACTIONS, transaction_count_name
from ml_pipeline.metrics import auc, bias, brier, capped_r2, d2, mae, normalised_gini
from ml_pipeline.tables import drop_tables, materialise
from ml_pipeline.training_set import Observations

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Regions = Mapping[date, npt.NDArray[np.str_]]

FEWEST = 50  # customers of a group that gets figures
MOST_REGIONS = 20  # that get figures of their own, the largest
EVERYONE, REGION = "everyone", "store region"
ONE_PURCHASE = "one_purchase"
UNKNOWN_REGION, OTHER_REGIONS = "unknown", "other regions"


@dataclass(frozen=True)
class Activity:
    """A group by what a customer had done before `as_of`; holds: of the values of one feature (n,), who belongs to it."""

    name: str
    title: str
    feature: str
    holds: Callable[[npt.NDArray[np.float32]], BoolArray]


ACTIVITIES = (
    Activity("active_90d", "active in the last 90 days", transaction_count_name(90), lambda count: count > 0),
    Activity("new", "new: first purchase in the last 90 days", DAYS_SINCE_FIRST, lambda days: days <= 90),
    Activity("dormant", "dormant: nothing in the last 180 days", DAYS_SINCE_LAST, lambda days: days > 180),
    Activity(ONE_PURCHASE, "one purchase only", TOTAL_TRANSACTIONS, lambda count: count == 1),
)


@dataclass(frozen=True)
class ReportedRows:
    """What was said of the total and what came, on n rows of the report windows; every array is (n,).

    customer: the id. predicted, rule: what serves and the best simple rule, in money; lower, upper: the ends of the 80 %
    interval; bought, probability: of buying at all. activity: per group's name who belongs to it, None where the feature
    that says so is not known of anybody. region: of the store used most; '' where stores name none.
    """

    customer: npt.NDArray[np.str_]
    actual: FloatArray
    predicted: FloatArray
    rule: FloatArray
    lower: FloatArray
    upper: FloatArray
    bought: FloatArray
    probability: FloatArray
    activity: Mapping[str, BoolArray | None]
    region: npt.NDArray[np.str_]


def report_subgroups(rows: ReportedRows) -> dict[str, Any]:
    """Everyone, the groups by activity and the regions as plain JSON values; all windows together.

    A group has `kind`, `name`, `title`, `rows`, `customers` and `figures`; these are None, with the reason under `why`,
    where there are too few customers or nobody can tell who belongs to the group.
    """
    groups = [_group(EVERYONE, EVERYONE, EVERYONE, np.ones(len(rows.actual), dtype=bool), rows)]
    groups += [_group("activity", each.name, each.title, rows.activity[each.name], rows) for each in ACTIVITIES]
    known = rows.region != ""
    merged: list[str] = []
    if known.any():
        named, merged = merge_regions(rows.region, rows.customer)
        names = sorted(set(named.tolist()), key=lambda name: (name == OTHER_REGIONS, name == UNKNOWN_REGION, name))
        groups += [_group(REGION, name, f"{REGION} {name}", named == name, rows) for name in names]
    return {
        "fewest_customers": FEWEST,
        "groups": groups,
        "regions_known": float(known.mean()) if len(known) else 0.0,
        "regions_merged": merged,
    }


def merge_regions(
    region: npt.NDArray[np.str_], customer: npt.NDArray[np.str_]
) -> tuple[npt.NDArray[np.str_], list[str]]:
    """The regions of n rows with the small ones under one name, and which these are; '' is a region called unknown."""
    named = np.where(region == "", UNKNOWN_REGION, region).astype(object)
    sizes = {name: len(np.unique(customer[named == name])) for name in sorted(set(named.tolist()))}
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:MOST_REGIONS]
    merged = [name for name, size in sizes.items() if size < FEWEST or name not in largest]
    return np.where(np.isin(named, merged), OTHER_REGIONS, named).astype(str), merged


def _group(kind: str, name: str, title: str, belongs: BoolArray | None, rows: ReportedRows) -> dict[str, Any]:
    group: dict[str, Any] = {"kind": kind, "name": name, "title": title}
    if belongs is None:
        return {**group, "rows": None, "customers": None, "figures": None, "why": "not known in so short a history"}
    customers = len(np.unique(rows.customer[belongs]))
    group |= {"rows": int(belongs.sum()), "customers": customers, "figures": None}
    if not customers:
        return {**group, "why": "nobody"}
    if customers < FEWEST and kind != EVERYONE:
        return {**group, "why": f"fewer than {FEWEST} customers"}
    return {**group, "figures": _figures(rows, belongs)}


def _figures(rows: ReportedRows, belongs: BoolArray) -> dict[str, Any]:
    actual, predicted, rule = rows.actual[belongs], rows.predicted[belongs], rows.rule[belongs]
    bought, probability = rows.bought[belongs], rows.probability[belongs]
    below, above = float((actual < rows.lower[belongs]).mean()), float((actual > rows.upper[belongs]).mean())
    return {
        "share_buying": float(bought.mean()),
        "mean_actual": float(actual.mean()),
        "mean_predicted": float(predicted.mean()),
        "bias": bias(actual, predicted),
        "bias_error": bias_error(actual, predicted),
        "mae": mae(actual, predicted),
        "capped_r2": capped_r2(actual, predicted),
        "d2": d2(actual, predicted),
        "normalised_gini": normalised_gini(actual, predicted),
        "auc": auc(bought, probability),
        "brier": brier(bought, probability),
        "mean_probability": float(probability.mean()),
        "below": below,
        "above": above,
        "covered": 1 - below - above,
        "best_rule": {
            "bias": bias(actual, rule),
            "mae": mae(actual, rule),
            "capped_r2": capped_r2(actual, rule),
            "normalised_gini": normalised_gini(actual, rule),
        },
    }


def bias_error(actual: FloatArray, predicted: FloatArray) -> float | None:
    """Standard error of the bias over n customers, as that of a ratio of sums (Cochran 1977, chapter 6).

    None when nobody spent anything or there is one customer.
    """
    off = bias(actual, predicted)
    if off is None or len(actual) < 2:
        return None
    return float((predicted - off * actual).std(ddof=1) / np.sqrt(len(actual)) / actual.mean())


def group_by_activity(observations: Observations, days: Sequence[date]) -> dict[str, BoolArray | None]:
    """Per group who belongs to it (n,), on the rows of these days one behind the other; None where nobody can tell."""
    rows = np.concatenate([np.arange(len(observations))[observations.on(day)] for day in days])

    def members(activity: Activity) -> BoolArray | None:
        if activity.feature not in observations.names:
            return None
        values = observations.features[rows, observations.names.index(activity.feature)]
        return None if len(values) and np.isnan(values).all() else activity.holds(values)

    return {activity.name: members(activity) for activity in ACTIVITIES}


# Regions


def find_regions(
    engine: Backend, purchases: ir.Table, stores: ir.Table | None, observations: Observations, days: Sequence[date]
) -> dict[date, npt.NDArray[np.str_]]:
    """The region of the store that each customer had used most before `as_of`, (n,) in the order of the observations.

    Most transactions count, of equally many the store of the latest one, then the lower id; '' where no store is known
    or the store has no region. stores: store_id, region. Purchases on or after `as_of` play no part, nor do those that
    had been taken back before it.
    """
    ids = {day: observations.customer_id[observations.on(day)] for day in days}
    if stores is None:
        return {day: np.full(len(own), "") for day, own in ids.items()}
    asked = np.unique(np.concatenate(list(ids.values())))
    chosen = materialise(engine, ibis.memtable({"customer_id": asked.tolist()}), "asked")
    seen = materialise(engine, _seen(purchases.semi_join(chosen, "customer_id"), max(days)), "seen")
    found = {day: _look_up(engine, _usual_regions(seen, stores, day), own) for day, own in ids.items()}
    drop_tables(engine, chosen, seen)
    return found


def _seen(purchases: ir.Table, before: date) -> ir.Table:
    """The transactions in a store, each once per day on which something of it was taken back; all of them before a day."""
    bought = purchases.filter(purchases.spend_units > 0, purchases.day < before, purchases.store_id.notnull())
    return bought.select("customer_id", "store_id", "transaction_id", "day", "cancelled_on").distinct()


def _usual_regions(seen: ir.Table, stores: ir.Table, as_of: date) -> ir.Table:
    """customer_id, region: one row per customer who bought in a store before `as_of`."""
    stands = seen.cancelled_on.isnull() | (seen.cancelled_on >= as_of)
    bought = seen.filter(seen.day < as_of, stands).select("customer_id", "store_id", "transaction_id", "day")
    counted = bought.group_by("customer_id", "store_id").aggregate(
        transactions=bought.transaction_id.nunique(), last=bought.day.max()
    )
    order = ibis.window(
        group_by="customer_id", order_by=[ibis.desc("transactions"), ibis.desc("last"), ibis.asc("store_id")]
    )
    ranked = counted.mutate(rank=ibis.row_number().over(order))
    usual = ranked.filter(ranked["rank"] == 0).select("customer_id", "store_id")
    return usual.inner_join(stores.select("store_id", "region"), "store_id").select("customer_id", "region")


def _look_up(engine: Backend, regions: ir.Table, customer_ids: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    found = engine.to_pyarrow(regions)
    if not len(found):
        return np.full(len(customer_ids), "")
    ids, names = (found[name].to_numpy(zero_copy_only=False).astype(str) for name in ("customer_id", "region"))
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids, customer_ids, sorter=order), len(ids) - 1)
    return np.where(ids[order[place]] == customer_ids, names[order[place]], "")
