"""The features once more, by the slow and obvious loop: one customer and one as_of at a time, exact until the end.

Shares nothing with the pipeline but the definition in words. Numbers are fractions; the float nearest to the exact
value comes last, so the pipeline must give the same bits (standard deviations and weighted rates within the last places).
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from fractions import Fraction
from functools import cache

WINDOWS = {
    "7d": (1, 7),
    "30d": (1, 30),
    "60d": (1, 60),
    "90d": (1, 90),
    "180d": (1, 180),
    "365d": (1, 365),
    "31_60d": (31, 60),
    "61_120d": (61, 120),
}
BUCKETS = ((1, 7), (8, 14), (15, 30), (31, 60), (61, 90), (91, 120), (121, 180), (181, 270), (271, 365))
REST = (366, 730)


@cache
def weight_of_day(age: int, half_life: int) -> int:
    """2^(-age / half-life) averaged over the bucket of the day, to the nearest 2^-30; all days of the rest alike."""
    newest, oldest = next((one for one in BUCKETS if one[0] <= age <= one[1]), REST)
    mean = sum(2 ** (-day / half_life) for day in range(newest, oldest + 1)) / (oldest - newest + 1)
    return round(2**30 * mean)


def decayed_rate(amount_by_age: Mapping[int, int], tenure: int, half_life: int) -> Fraction:
    """Weighted amount per 30 days, over the weighted days of the tenure; more than 365 old days count as 365 of them."""
    tenure = max(tenure, 30)
    crowd = Fraction(365, max(tenure - 365, 365))
    ages = range(1, tenure + 1)
    near = sum(weight_of_day(age, half_life) * units for age, units in amount_by_age.items() if age <= 365)
    far = sum(weight_of_day(age, half_life) * units for age, units in amount_by_age.items() if age > 365)
    near_days = sum(weight_of_day(age, half_life) for age in ages[:365])
    far_days = sum(weight_of_day(age, half_life) for age in ages[365:])
    return 30 * max(near + crowd * far, Fraction(0)) / (near_days + crowd * far_days)


def describe_customers(
    purchases: Sequence[Mapping], customer_since: Mapping[str, date | None], as_of: date, targets: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """Features by customer, of those with a valid purchase before as_of."""
    lines_of = defaultdict(list)
    for line in purchases:
        if line["day"] < as_of:
            lines_of[line["customer_id"]].append(line)
    return {
        customer: describe_customer(lines, customer_since.get(customer), as_of, targets)
        for customer, lines in lines_of.items()
        if any(line["spend_units"] > 0 for line in lines)
    }


def describe_customer(lines: list, since: date | None, as_of: date, targets: Sequence[str]) -> dict[str, float | None]:
    def ago(day: date) -> int:
        return (as_of - day).days

    def money(units: int) -> Fraction:
        return Fraction(max(units, 0), 10_000)

    def spend_in(window: tuple[int, int], of: Sequence[Mapping]) -> Fraction:
        newest, oldest = window
        return money(sum(line["amount_units"] for line in of if newest <= ago(line["day"]) <= oldest))

    def amounts(of: Sequence[Mapping]) -> Counter:
        by_age: Counter = Counter()
        for line in of:
            by_age[ago(line["day"])] += line["amount_units"]
        return by_age

    def count_in(window: tuple[int, int]) -> int:
        newest, oldest = window
        return sum(newest <= ago(day) <= oldest for day in days)

    valid = [line for line in lines if line["spend_units"] > 0]
    transactions = defaultdict(list)
    for line in valid:
        transactions[line["transaction_id"], line["day"]].append(line)
    days = [day for _, day in transactions]
    n = len(days)
    first, last = min(days), max(days)
    values = [Fraction(sum(line["spend_units"] for line in of), 10_000) for of in transactions.values()]
    items = [Fraction(sum(line["quantity_milli"] for line in of), 1_000) for of in transactions.values()]
    value_of_day = {day: sum(v for (_, of), v in zip(transactions, values, strict=True) if of == day) for day in days}
    repeats = [value_of_day[day] for day in sorted(value_of_day)[1:]]
    gaps = [(later - day).days for day, later in itertools.pairwise(sorted(value_of_day))]
    mean_gap = Fraction(sum(gaps), len(gaps)) if gaps else None
    promoted = []
    for of in transactions.values():
        known = [line["has_promotion"] for line in of if line["has_promotion"] is not None]
        if known:
            promoted.append(any(known))
    rate_days = max(ago(first), 30)
    lifetime = money(sum(line["amount_units"] for line in lines))
    gap = Fraction((last - first).days, n - 1) if n > 1 else None
    weekdays = [day.weekday() for day in days]
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / n

    row: dict[str, Fraction | float | int | bool | None] = {
        "days_since_last_transaction": ago(last),
        "days_since_first_transaction": ago(first),
        "total_transactions": n,
        "total_purchase_days": len(value_of_day),
        "days_first_to_last": (last - first).days,
        "avg_days_between_transactions": gap,
        "std_days_between_transactions": math.sqrt(sum((one - mean_gap) ** 2 for one in gaps) / len(gaps))
        if gaps
        else None,
        "max_days_between_transactions": max(gaps, default=None),
        "days_until_due": mean_gap - ago(last) if gaps else None,
        "last_transaction_value": value_of_day[last],
        "spend_same_window_last_year": spend_in((336, 365), lines) if ago(first) >= 365 else None,
        "customer_tenure_days": ago(since) if since is not None and since < min(first, as_of) else ago(first),
        "recency_ratio": ago(last) / gap if gap else None,
        "lifetime_spend": lifetime,
        "avg_transaction_value": mean,
        "max_transaction_value": max(values),
        "min_transaction_value": min(values),
        "std_transaction_value": math.sqrt(variance),
        "mean_purchase_day_value": sum(value_of_day.values()) / len(value_of_day),
        "mean_repeat_value": sum(repeats) / len(repeats) if repeats else None,
        "spend_velocity": lifetime / rate_days,
        "num_distinct_products": len({line["product_id"] for line in valid} - {None}) or None,
        "num_distinct_categories": len({line["category"] for line in valid} - {"unknown"}) or None,
        "num_distinct_stores": len({line["store_id"] for line in valid} - {None}) or None,
        "promotion_usage_rate": Fraction(sum(promoted), len(promoted)) if promoted else None,
        "promotion_usage_count": sum(promoted) if promoted else None,
        "weekend_transaction_rate": Fraction(sum(weekday >= 5 for weekday in weekdays), n),
        "most_common_day_of_week": max(range(7), key=lambda weekday: (weekdays.count(weekday), -weekday)),
        "avg_items_per_transaction": sum(items) / n,
        "max_items_per_transaction": max(items),
        "total_items_purchased": sum(items),
        "transaction_density": Fraction(n * 30, rate_days),
        "return_rate": Fraction(sum(line["return_units"] > 0 for line in lines), len(lines)),
        "is_cold_start": n < 2,
    }
    for label, window in WINDOWS.items():
        row[f"transaction_count_{label}"] = count_in(window)
        row[f"total_spend_{label}"] = spend_in(window, lines)
    counts = Counter(ago(day) for day in days)
    for half_life in (20, 45, 120):
        row[f"ew_transaction_rate_{half_life}d"] = decayed_rate(counts, ago(first), half_life)
        row[f"ew_spend_rate_{half_life}d"] = decayed_rate(amounts(lines), ago(first), half_life) / 10_000
    quarter, month = count_in((1, 90)), spend_in((1, 30), lines)
    row["purchase_momentum"] = count_in((1, 30)) / Fraction(quarter, 3) if quarter else None
    for label, months in (("31_60d", 1), ("61_120d", 2)):
        before = spend_in(WINDOWS[label], lines)
        row[f"spend_momentum_30d_over_{label}"] = month / (before / months) if before else None

    lifetime_of = {c: money(sum(line["amount_units"] for line in lines if line["target"] == c)) for c in targets}
    for c in targets:
        of = [line for line in lines if line["target"] == c]
        bought = {(line["transaction_id"], line["day"]) for line in of if line["spend_units"] > 0}
        row[f"spend_30d_{c}"] = spend_in((1, 30), of)
        row[f"spend_90d_{c}"] = spend_in((1, 90), of)
        for half_life in (45, 120):
            row[f"ew_spend_rate_{half_life}d_{c}"] = decayed_rate(amounts(of), ago(first), half_life) / 10_000
        row[f"lifetime_spend_{c}"] = lifetime_of[c]
        row[f"txn_count_{c}"] = len(bought)
        row[f"days_since_{c}"] = min(ago(day) for _, day in bought) if bought else None
        row[f"favorite_category_{c}"] = lifetime_of[c] > 0 and lifetime_of[c] == max(lifetime_of.values())

    angle = 2 * math.pi * ((as_of + timedelta(days=14)).month - 1) / 12
    row["target_month_sin"], row["target_month_cos"] = math.sin(angle), math.cos(angle)
    row["target_weekend_days"] = sum((as_of + timedelta(days=ahead)).weekday() >= 5 for ahead in range(30))
    row["target_days_to_year_end"] = (date(as_of.year, 12, 31) - as_of).days
    return {name: None if value is None else float(value) for name, value in row.items()}
