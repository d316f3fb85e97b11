"""Puts the flaws of real tables into clean ones, at stated rates, and counts each.

No flaw changes what was truly spent: rows that a reader has to set aside (no customer, unreadable or future date, no
header, repeated key) are added to the clean ones, the repeated row always after the true one; flaws of rows that stay
change only what the lines correct (a header's total) or the category (an unknown product, a header without lines).
Rows are chosen so that no two flaws meet in one, which keeps every count exact.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, SupportsInt

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_pipeline.sample_model import FlawRates, Ints

SECONDS_PER_DAY = 86_400
ISO, DAY_FIRST, SLASH, EMPTY, MONTH_FIRST, UNREADABLE = range(6)
UNREADABLE_DATES = ("not recorded", "0000-00-00 00:00:00", "31-02-2025 10:15", "2025-13-05 12:00:00")
DATE_STYLES = {ISO: "iso", DAY_FIRST: "day_first", SLASH: "slash", EMPTY: "empty", MONTH_FIRST: "month_first"}
UNKNOWN_PRODUCT = 990_001
_YEAR_2099 = 4_070_908_800  # 2099-01-01 in seconds since 1970
_HIGHEST_FUTURE_SHARE = 0.0005  # half of what would count as the data's last days


@dataclass
class FlawCounts:
    """Exact numbers by flaw (`table.flaw`) and measure (rows, lines, headers, cents)."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, flaw: str, **measures: SupportsInt) -> None:
        """Adds to the measures of a flaw."""
        for measure, number in measures.items():
            self.counts[flaw, measure] += int(number)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Flaw -> measure -> number, sorted by flaw."""
        nested: dict[str, dict[str, int]] = {}
        for (flaw, measure), number in sorted(self.counts.items()):
            nested.setdefault(flaw, {})[measure] = number
        return nested


class RowPicker:
    """Deals out row positions, each at most once; when all are dealt, less or nothing comes back."""

    def __init__(self, positions: Ints, draw: np.random.Generator) -> None:
        self._n_rows = len(positions)
        self._left = draw.permutation(positions)

    def take(self, rate: float, at_most: int | None = None) -> Ints:
        """Sorted positions of `rate` of all rows, at least one where the rate is above 0."""
        wanted = max(1, round(rate * self._n_rows)) if rate > 0 else 0
        if at_most is not None:
            wanted = min(wanted, at_most)
        taken, self._left = self._left[:wanted], self._left[wanted:]
        return np.sort(taken)


@dataclass
class Ledger:
    """Transactions and their lines as numbers, before they become text.

    headers: transaction, customer (1-based; 0 none), store (1-based; 0 none), second (since 1970), total_cents,
    date_style, as_float, with_phone, stays (a reader should keep it). lines: line, transaction, product (number in the id), promotion
    (-1 none), quantity, amount_cents, as_float. The first `n_clean` headers are the true ones, numbered on from
    `first_transaction`; the true lines follow their order, numbered on from `first_line`.
    """

    headers: pd.DataFrame
    lines: pd.DataFrame
    first_transaction: int
    first_line: int
    next_transaction: int = 0
    next_line: int = 0

    def __post_init__(self) -> None:
        self.next_transaction = self.first_transaction + len(self.headers)
        self.next_line = self.first_line + len(self.lines)

    def copy_transactions(self, positions: Ints) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Copies of the true headers at these sorted positions and of their lines, under new ids."""
        headers = self.headers.iloc[positions].copy()
        originals = headers["transaction"].to_numpy()
        lines = self.lines[np.isin(self.lines["transaction"].to_numpy(), originals)].copy()
        lines["transaction"] = self.next_transaction + np.searchsorted(originals, lines["transaction"].to_numpy())
        lines["line"] = self.next_line + np.arange(len(lines))
        headers["transaction"] = self.next_transaction + np.arange(len(headers))
        self.next_transaction += len(headers)
        self.next_line += len(lines)
        return headers, lines


def spoil_ledger(
    ledger: Ledger, rates: FlawRates, last_second: int, draw: np.random.Generator, counts: FlawCounts
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Headers and lines with every flaw of transactions; each in the order in which the file has them."""
    picker = RowPicker(np.arange(len(ledger.headers)), draw)
    extra_headers: list[pd.DataFrame] = []
    extra_lines: list[pd.DataFrame] = []
    _vary_formats(ledger, rates, draw)

    def add(headers: pd.DataFrame | None, lines: pd.DataFrame) -> None:
        if headers is not None:
            extra_headers.append(headers)
        extra_lines.append(lines)

    add(*_refunds(ledger, picker.take(rates.refunds), last_second, draw, counts))
    add(*_without_customer(ledger, picker.take(rates.headers_empty_customer), counts))
    for copies in _badly_dated(ledger, picker, rates, draw, counts):
        add(*copies)
    add(None, _lines_without_header(ledger, picker.take(rates.lines_without_header), counts))
    _contradict_totals(ledger, picker.take(rates.headers_contradicting_total), draw, counts)
    _forget_products(ledger, picker.take(rates.lines_unknown_product), counts)
    without_lines = picker.take(rates.headers_without_lines)
    repeated = picker.take(rates.duplicate_full_row), picker.take(rates.duplicate_conflicting)
    no_store = picker.take(rates.null_header_store)
    _overwrite(ledger.headers, "store", no_store, 0)
    counts.add("store_sales_header.null_store_id", rows=len(no_store))

    line_repeats = _repeated_lines(ledger, picker, rates, counts)
    header_repeats = _repeated_headers(ledger, *repeated, counts)
    lines = _drop_lines(ledger, without_lines, counts)
    headers = pd.concat([ledger.headers, *extra_headers, *header_repeats], ignore_index=True)
    lines = pd.concat([lines, *extra_lines, *line_repeats], ignore_index=True)
    _count_formats(headers, lines, counts)
    return (
        headers.sort_values("second", kind="stable", ignore_index=True),
        lines.sort_values("line", kind="stable", ignore_index=True),
    )


def add_nulls(rows: pd.DataFrame, table: str, column: str, positions: Ints, counts: FlawCounts) -> None:
    """Empties a text column at these positions, in place."""
    _overwrite(rows, column, positions, None)
    counts.add(f"{table}.null_{column}", rows=len(positions))


def add_duplicates(
    rows: pd.DataFrame,
    table: str,
    rates: FlawRates,
    picker: RowPicker,
    conflict: tuple[str, Callable[[pd.Series], pd.Series]],
    counts: FlawCounts,
) -> pd.DataFrame:
    """The rows, then some of them repeated in full, then some repeated with another value in the `conflict` column."""
    full = picker.take(rates.duplicate_full_row)
    other = picker.take(rates.duplicate_conflicting)
    column, change = conflict
    conflicting = rows.iloc[other].copy()
    conflicting[column] = change(conflicting[column])
    counts.add(f"{table}.duplicate_full_row", rows=len(full))
    counts.add(f"{table}.duplicate_conflicting", rows=len(other))
    return pd.concat([rows, rows.iloc[full], conflicting], ignore_index=True)


def add_category_noise(rows: pd.DataFrame, table: str, column: str, positions: Ints, counts: FlawCounts) -> None:
    """Writes some categories with outer spaces or in another case, in place."""
    spellings: tuple[Callable[[str], str], ...] = (lambda name: f" {name}", str.upper, lambda name: f"{name.lower()} ")
    for turn, spell in enumerate(spellings):
        chosen = positions[turn :: len(spellings)]
        _overwrite(rows, column, chosen, rows[column].iloc[chosen].map(spell).to_numpy())
    counts.add(f"{table}.category_noise", rows=len(positions))


def _overwrite(rows: pd.DataFrame, column: str, positions: Ints, values: Any) -> None:
    """Puts values at these positions of a column, in place."""
    changed = rows[column].to_numpy(copy=True)
    changed[positions] = values
    rows[column] = pd.Series(changed, index=rows.index, dtype=rows[column].dtype)


def _refunds(
    ledger: Ledger, positions: Ints, last_second: int, draw: np.random.Generator, counts: FlawCounts
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A transaction of its own, 1 to 20 days later, that gives back the first line of an earlier one in full."""
    seconds = ledger.headers["second"].to_numpy()[positions] + draw.integers(1, 21, len(positions)) * SECONDS_PER_DAY
    positions, seconds = positions[seconds <= last_second], seconds[seconds <= last_second]
    headers, lines = ledger.copy_transactions(positions)
    lines = lines.drop_duplicates("transaction").assign(
        quantity=lambda line: -line["quantity"], amount_cents=lambda line: -line["amount_cents"]
    )
    headers["second"] = seconds
    headers["total_cents"] = lines["amount_cents"].to_numpy()
    counts.add("store_sales_header.refunds", rows=len(headers), lines=len(lines), cents=lines["amount_cents"].sum())
    return headers, lines


def _without_customer(ledger: Ledger, positions: Ints, counts: FlawCounts) -> tuple[pd.DataFrame, pd.DataFrame]:
    headers, lines = ledger.copy_transactions(positions)
    _count_set_aside("store_sales_header.empty_customer_id", headers, lines, counts)
    return headers.assign(customer=0, with_phone=False, stays=False), lines


def _badly_dated(
    ledger: Ledger, picker: RowPicker, rates: FlawRates, draw: np.random.Generator, counts: FlawCounts
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Copies of transactions with an unreadable, empty, month-first or future date."""
    copies = []
    for flaw, rate, style in (
        ("unreadable_date", rates.headers_unreadable_date, UNREADABLE),
        ("empty_date", rates.headers_empty_date, EMPTY),
        ("month_first_date", rates.headers_month_first_date, MONTH_FIRST),
        ("future_date", rates.headers_future_date, ISO),
    ):
        at_most = int(len(ledger.headers) * _HIGHEST_FUTURE_SHARE) if flaw == "future_date" else None
        headers, lines = ledger.copy_transactions(picker.take(rate, at_most))
        headers = headers.assign(date_style=style, stays=False)
        if flaw == "unreadable_date":
            headers["date_style"] = UNREADABLE + np.arange(len(headers)) % len(UNREADABLE_DATES)
        if flaw == "month_first_date":
            headers["second"] = _on_a_late_day_of_the_month(headers["second"].to_numpy())
        if flaw == "future_date":
            headers["second"] = _YEAR_2099 + draw.integers(0, 360 * SECONDS_PER_DAY, len(headers))
        _count_set_aside(f"store_sales_header.{flaw}", headers, lines, counts)
        copies.append((headers, lines))
    return copies


def _on_a_late_day_of_the_month(seconds: Ints) -> Ints:
    """Moved on by 12 days where that is needed for the day to be no month: month-first is the only way to read it."""
    days = (seconds // SECONDS_PER_DAY).astype("datetime64[D]")
    day_of_month = (days - days.astype("datetime64[M]")).astype(np.int64) + 1
    return seconds + np.where(day_of_month > 12, 0, 12) * SECONDS_PER_DAY


def _lines_without_header(ledger: Ledger, positions: Ints, counts: FlawCounts) -> pd.DataFrame:
    _, lines = ledger.copy_transactions(positions)
    counts.add("store_sales_line_items.without_header", rows=len(lines), cents=lines["amount_cents"].sum())
    return lines


def _contradict_totals(ledger: Ledger, positions: Ints, draw: np.random.Generator, counts: FlawCounts) -> None:
    """Totals 5 to 50 percent (and one unit) too low or too high."""
    totals = ledger.headers["total_cents"].to_numpy()[positions]
    wrong_by = 100 + (totals * draw.uniform(0.05, 0.5, len(positions))).astype(np.int64)
    contradicting = totals + wrong_by * draw.choice([-1, 1], len(positions))
    _overwrite(ledger.headers, "total_cents", positions, contradicting)
    counts.add("store_sales_header.contradicting_total", rows=len(positions), cents=wrong_by.sum())


def _forget_products(ledger: Ledger, positions: Ints, counts: FlawCounts) -> None:
    """The first line of each of these transactions names a product that is not in the catalogue."""
    lines = ledger.lines
    first = np.searchsorted(lines["transaction"].to_numpy(), ledger.first_transaction + positions)
    _overwrite(lines, "product", first, UNKNOWN_PRODUCT + np.arange(len(first)) % 50)
    cents = lines["amount_cents"].to_numpy()[first].sum()
    counts.add("store_sales_line_items.unknown_product", rows=len(first), cents=cents)


def _vary_formats(ledger: Ledger, rates: FlawRates, draw: np.random.Generator) -> None:
    """Mixed date formats, phone numbers on some receipts, and whole-number ids written as floats."""
    uniform = draw.random(len(ledger.headers))
    styles = np.where(uniform < rates.day_first_dates, DAY_FIRST, ISO)
    ledger.headers["date_style"] = np.where(uniform > 1.0 - rates.slash_dates, SLASH, styles)
    ledger.headers["with_phone"] = draw.random(len(ledger.headers)) >= rates.null_header_phone
    ledger.headers["as_float"] = draw.random(len(ledger.headers)) < rates.ids_as_floats
    ledger.lines["as_float"] = draw.random(len(ledger.lines)) < rates.ids_as_floats


def _repeated_headers(ledger: Ledger, full: Ints, other: Ints, counts: FlawCounts) -> list[pd.DataFrame]:
    repeats = ledger.headers.iloc[full].assign(stays=False)
    conflicting = ledger.headers.iloc[other].assign(
        total_cents=lambda header: header["total_cents"] + 5000, stays=False
    )
    for flaw, headers in (("duplicate_full_row", repeats), ("duplicate_conflicting", conflicting)):
        counts.add(f"store_sales_header.{flaw}", rows=len(headers), cents=headers["total_cents"].sum())
    return [repeats, conflicting]


def _repeated_lines(ledger: Ledger, picker: RowPicker, rates: FlawRates, counts: FlawCounts) -> list[pd.DataFrame]:
    """The first line of some transactions once more; in full, or with another amount."""
    numbers = ledger.lines["transaction"].to_numpy()
    lines_per_header = len(ledger.lines) / max(len(ledger.headers), 1)
    chosen = []
    for rate in (rates.duplicate_full_row, rates.duplicate_conflicting):
        positions = picker.take(rate * lines_per_header)
        chosen.append(ledger.lines.iloc[np.searchsorted(numbers, ledger.first_transaction + positions)])
    repeats, conflicting = chosen[0], chosen[1].assign(amount_cents=lambda line: line["amount_cents"] + 5000)
    for flaw, lines in (("duplicate_full_row", repeats), ("duplicate_conflicting", conflicting)):
        counts.add(f"store_sales_line_items.{flaw}", rows=len(lines), cents=lines["amount_cents"].sum())
    return [repeats, conflicting]


def _drop_lines(ledger: Ledger, positions: Ints, counts: FlawCounts) -> pd.DataFrame:
    """The true lines without those of the chosen headers, whose own right totals remain."""
    dropped = np.isin(ledger.lines["transaction"].to_numpy(), ledger.first_transaction + positions)
    cents = ledger.lines["amount_cents"].to_numpy()[dropped].sum()
    counts.add("store_sales_header.without_lines", rows=len(positions), cents=cents)
    return ledger.lines[~dropped]


def _count_set_aside(flaw: str, headers: pd.DataFrame, lines: pd.DataFrame, counts: FlawCounts) -> None:
    counts.add(flaw, rows=len(headers), lines=len(lines), cents=headers["total_cents"].sum())


def _count_formats(headers: pd.DataFrame, lines: pd.DataFrame, counts: FlawCounts) -> None:
    styles: npt.NDArray[np.int64] = headers["date_style"].to_numpy()
    for style, name in DATE_STYLES.items():
        counts.add(f"store_sales_header.date_format_{name}", rows=(styles == style).sum())
    counts.add("store_sales_header.null_customer_phone", rows=(~headers["with_phone"]).sum())
    counts.add("store_sales_header.store_id_as_float", rows=(headers["as_float"] & (headers["store"] > 0)).sum())
    counts.add("store_sales_line_items.product_id_as_float", rows=lines["as_float"].sum())
