"""Writes docs/features.md from the features themselves: `python -m docs.make_features`; a test fails when it is stale."""

from pathlib import Path

from ml_pipeline.features import Feature, feature_set
from ml_pipeline.schema import DatasetConfig

PAGE = Path(__file__).with_name("features.md")
PLACEHOLDER = "<target>"

INTRODUCTION = """# Features

What a model sees of a customer at the start of a day, `as_of`. One function, `ml_pipeline.features.build_features`, makes
them for training (many days), for a snapshot (one day) and for a raw history (one customer); there is no second one.

- Only days before `as_of` count. "Days as_of-30 .. as_of-1" includes both ends.
- A *transaction* is what a customer bought under one transaction id on one day, with at least one valid line (quantity and
  amount above 0). Its gross value is the sum of those lines. Returns and cancellations never make a transaction.
- *Spend* is the sum of valid lines; with `spend = "net"` returns are subtracted, and a sum below 0 counts as 0. Gross
  transaction values are the same in both modes.
- Money is summed in whole 1/10,000 of the currency unit, and floats come last: the same rows give the same bits, whatever
  the order, the threads, or the other customers.
- *Missing* is NULL in tables and NaN in matrices, never 0. Lines without a known category belong to no target.
- *Weighted* rates (`ew_...`) count a day half as much for every half-life of age. Ages are taken in buckets (1-7, 8-14, 15-30,
  31-60, 61-90, 91-120, 121-180, 181-270, 271-365 days), each with the mean of its days' weights, a whole number of 1/2^30:
  30 x sum(weight x spend) / sum(weight x days of the bucket since the first transaction). What is older than 365 days
  counts with its mean per day as one more bucket of at most 365 days.
- A customer has a row from the first transaction on. Rates are taken over at least 30 days.
- Points, loyalty status and `last_purchase_date` of `customer_details` are of today, unknown on a past day, and no features;
  so there is no `loyalty_efficiency` without a dated history of points.

This page is made by `python -m docs.make_features`. `<target>` stands for each target of `dataset.toml`.
"""


def features_page() -> str:
    """The page's text."""
    everything = feature_set(())
    of_target = feature_set((PLACEHOLDER,))[len(everything) :]
    rows = [*map(_row, everything), *map(_row, of_target)]
    head = "| name | meaning | unit | missing when |\n|---|---|---|---|\n"
    counts = f"\n{len(everything)} features, and {len(of_target)} more per target: {_with_defaults()} with the default targets.\n\n"
    return INTRODUCTION + counts + head + "\n".join(rows) + "\n"


def _with_defaults() -> int:
    return len(feature_set(DatasetConfig().target_names))


def _row(feature: Feature) -> str:
    words = f"{feature.meaning} | {feature.unit} | {feature.missing}"
    return f"| `{feature.name}` | {words.replace(PLACEHOLDER, f'`{PLACEHOLDER}`')} |"


if __name__ == "__main__":
    PAGE.write_text(features_page(), encoding="utf-8")
