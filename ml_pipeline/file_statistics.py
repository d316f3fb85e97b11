"""What a file of customers comes to: sums with intervals, by category and segment, and lists of whom to look at.

Money is over distinct customers, however often each is in the file; its cents add up.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.customer_flags import (
    CATEGORY_LOYAL,
    CROSS_SELL,
    FLAGS,
    Flagged,
    FlagRules,
    cents_of,
    flag_customers,
    flag_rules,
    slices,
)
from ml_pipeline.errors import ImpossiblePage, UnknownFlag, UnknownSegment
from ml_pipeline.schema import HORIZON_DAYS, TOTAL_TARGET
from ml_pipeline.snapshot import CENTS, SEGMENTS, Snapshot, money_columns
from ml_pipeline.spend_sums import SpendSum, sum_spend

TOP = 10
SHOWN = 40
"""Characters of what nobody knows are told back."""

IntArray = npt.NDArray[np.int64]


def statistics_of(
    snapshot: Snapshot,
    content: Mapping[str, Any],
    positions: npt.ArrayLike,
    rows: int,
    rows_failed: int,
    high_value_over: float | None = None,
) -> dict[str, Any]:
    """All that is told of a file as a whole, as JSON; averages are None where there is no customer.

    content: the metadata of the snapshot's bundle; positions: rows of the snapshot, in any order, repeated or not.
    high_value_over: money, in the place of the bundle's threshold. Raises ImpossibleThreshold.
    """
    rules = flag_rules(snapshot, content, high_value_over)
    customers = distinct(snapshot, positions)
    flagged = flag_customers(snapshot, rules, customers)
    together = sum_spend(snapshot, content["sums"], customers)
    return {
        **_of_everyone(together, flagged.total),
        "horizon_days": HORIZON_DAYS,
        "expected_buyers": round(together.expected_buyers, 2),
        "per_segment": {
            name: _of_segment(sum_spend(snapshot, content["sums"], within(snapshot, customers, name)))
            for name in SEGMENTS
        },
        "flags": _of_flags(rules, flagged),
        "top_customers": _top(snapshot, rules, customers[_largest_first(flagged.total, TOP)]),
        "currency": snapshot.currency,
        "rows": rows,
        "rows_failed": rows_failed,
        "distinct_customers": len(customers),
        "model_version": snapshot.bundle_id,
        "as_of": snapshot.as_of.isoformat(),
    }


def list_customers(
    snapshot: Snapshot,
    content: Mapping[str, Any],
    positions: npt.ArrayLike,
    flag: str | None = None,
    segment: str | None = None,
    limit: int = 100,
    offset: int = 0,
    high_value_over: float | None = None,
) -> dict[str, Any]:
    """A page of the file's distinct customers, the highest predicted total first, equal ones by customer_id.

    Only those with the flag and of the segment, where they are named. `total` counts all of them. The rest as in
    `statistics_of`. Raises UnknownFlag, UnknownSegment, ImpossiblePage, ImpossibleThreshold.
    """
    if limit < 0 or offset < 0:
        raise ImpossiblePage(f"limit is {limit} and offset {offset}; both must be 0 or more.")
    rules = flag_rules(snapshot, content, high_value_over)
    customers = distinct(snapshot, positions)
    if segment is not None:
        customers = within(snapshot, customers, _segment(segment))
    if flag is None:
        total = _totals(snapshot, customers)
    else:
        name = _flag(flag)
        flagged = flag_customers(snapshot, rules, customers)
        having = flagged.having(name)
        customers, total = customers[having], flagged.total[having]
    page = customers[_largest_first(total, offset + limit)[offset:]]
    return {
        "total": len(customers),
        "limit": limit,
        "offset": offset,
        "customers": _described(snapshot, rules, page),
    }


def distinct(snapshot: Snapshot, positions: npt.ArrayLike) -> IntArray:
    """The rows of a snapshot that are among these, each once, in the order of their customers' ids."""
    wanted = np.zeros(snapshot.n_customers, dtype=bool)
    wanted[np.asarray(positions, dtype=np.int64)] = True
    return np.flatnonzero(wanted)


def within(snapshot: Snapshot, customers: IntArray, segment: str) -> IntArray:
    """Those of these customers who are in one of SEGMENTS, in their order."""
    inside = np.zeros(snapshot.n_customers, dtype=bool)
    inside[snapshot.in_segment(segment)] = True
    return customers[inside[customers]]


def _flag(asked: str) -> str:
    name = asked.strip().casefold()
    if name not in FLAGS:
        raise UnknownFlag(f"flag is {asked[:SHOWN]!r}; it must be one of {', '.join(FLAGS)}, or left out for everyone.")
    return name


def _segment(asked: str) -> str:
    for name in SEGMENTS:
        if name.casefold() == asked.strip().casefold():
            return name
    raise UnknownSegment(
        f"segment is {asked[:SHOWN]!r}; it must be one of {', '.join(SEGMENTS)}, or left out for everyone."
    )


def _totals(snapshot: Snapshot, customers: IntArray) -> IntArray:
    total = np.zeros(len(customers), dtype=np.int64)
    for part in slices(len(customers)):
        total[part] = cents_of(snapshot, customers[part])[:, 0]
    return total


def _largest_first(total: IntArray, most: int) -> IntArray:
    """The places of the `most` largest of (n,), descending, equal ones in their order; fewer where there are fewer."""
    places = np.arange(len(total))
    if 0 < most < len(total):
        places = np.flatnonzero(total >= np.partition(total, -most)[-most])
    return places[np.argsort(-total[places], kind="stable")][:most]


def _of_everyone(together: SpendSum, total: IntArray) -> dict[str, Any]:
    intervals, some = together.intervals, len(total) > 0
    return {
        "total_predicted_spend": together.money[TOTAL_TARGET],
        "total_predicted_spend_lower": intervals[TOTAL_TARGET]["lower"],
        "total_predicted_spend_upper": intervals[TOTAL_TARGET]["upper"],
        "per_target": {name: {"predicted_spend": money, **intervals[name]} for name, money in _parts(together).items()},
        "average_predicted_spend": round(int(total.sum()) / CENTS / len(total), 2) if some else None,
        "min_predicted_spend": int(total.min()) / CENTS if some else None,
        "max_predicted_spend": int(total.max()) / CENTS if some else None,
    }


def _of_segment(together: SpendSum) -> dict[str, Any]:
    return {
        "customers": together.customers,
        "predicted_spend": together.money[TOTAL_TARGET],
        **together.intervals[TOTAL_TARGET],
        "per_target": _parts(together),
    }


def _parts(together: SpendSum) -> dict[str, float]:
    return {name: money for name, money in together.money.items() if name != TOTAL_TARGET}


def _of_flags(rules: FlagRules, flagged: Flagged) -> dict[str, Any]:
    definitions = rules.definitions
    found: dict[str, Any] = {}
    for flag in FLAGS:
        having = flagged.having(flag)
        found[flag] = {
            "definition": definitions[flag],
            "customers": int(having.sum()),
            "predicted_spend": int(flagged.total[having].sum()) / CENTS,
        }
    for flag, category in ((CATEGORY_LOYAL, flagged.loyal_to), (CROSS_SELL, flagged.offer)):
        counts = np.bincount(category[category >= 0], minlength=len(rules.targets)).tolist()
        found[flag]["customers_per_target"] = dict(zip(rules.targets, counts, strict=True))
    return found


def _top(snapshot: Snapshot, rules: FlagRules, customers: IntArray) -> list[dict[str, Any]]:
    """The same as in a list, without the categories' money."""
    return [
        {key: value for key, value in one.items() if key != "predicted_spend"}
        for one in _described(snapshot, rules, customers)
    ]


def _described(snapshot: Snapshot, rules: FlagRules, customers: IntArray) -> list[dict[str, Any]]:
    """One entry per customer, in their order."""
    answers = {name: values.tolist() for name, values in snapshot.columns(customers).items()}
    flagged = flag_customers(snapshot, rules, customers)
    names = money_columns(snapshot.targets)[1:]
    return [
        {
            "customer_id": customer_id,
            "predicted_total_spend": answers["predicted_total_spend"][i],
            "lower": answers["predicted_total_spend_lower"][i],
            "upper": answers["predicted_total_spend_upper"][i],
            "predicted_spend": {name: answers[f"predicted_{name}_spend"][i] for name in names},
            "purchase_probability_30d": answers["purchase_probability_30d"][i],
            "segment": answers["segment"][i],
            "flags": [flag for flag, has in zip(FLAGS, flagged.flags[i], strict=True) if has],
            **_category("loyal_category", rules.targets, flagged.loyal_to[i]),
            **_category("cross_sell_category", rules.targets, flagged.offer[i]),
        }
        for i, customer_id in enumerate(snapshot.customer_ids(customers))
    ]


def _category(key: str, targets: Sequence[str], place: int) -> dict[str, str]:
    return {key: targets[place]} if place >= 0 else {}
