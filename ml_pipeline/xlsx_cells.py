"""Columns as the cells of a worksheet's XML, made by the column: text inline, numbers, truth values, and dates by format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_pipeline.cells import BLANK, BOOLEAN, CELLS, CLOCK, DATE, HOURS, MOMENT, NUMBER, TEXT, text_of
from ml_pipeline.result_rows import without_formulas
from ml_pipeline.spreadsheet_dates import day_fractions, day_numbers
from ml_pipeline.xlsx_text import check_lengths, inline_text, outer_space

Styles = Mapping[str, int]
"""The style of each number format by its name: money, percent, day, moment, clock, hours."""

KIND = pa.large_string()
PLAIN = '" t="inlineStr"><is><t>'
SPACED = '" t="inlineStr"><is><t xml:space="preserve">'
TEXT_END = "</t></is></c>"
TRUTH = '" t="b"><v>'
VALUE_END = "</v></c>"
EXACT_INTEGERS = 10**15
"""Excel keeps 15 digits: longer integers, which will be ids, stay text."""


@dataclass(frozen=True)
class SheetCells:
    """One cell per row: what stands behind its reference, its value (null where there is no cell), and its end."""

    before: pa.Array | str
    value: pa.Array
    after: pa.Array | str


def sheet_cells(column: pa.Array, styles: Styles, style: str | None, first_row: int) -> SheetCells:
    """The cells of a column of an upload or of the answers. Null and '' are no cell; a number that is none is text.

    style: the name of its numbers' format, None for the general one. first_row: the number in the sheet of its first row.
    Raises DoesNotFitXlsx for a text that is too long.
    """
    kind = column.type
    if kind == CELLS:
        return _worksheet_cells(column, styles, first_row)
    if pa.types.is_boolean(kind):
        return SheetCells(TRUTH, pc.if_else(column, pa.scalar("1", KIND), "0"), VALUE_END)
    numbers = _numbers(column)
    if numbers is not None:
        return _numbers_else_text(column, numbers, _styled(styles.get(style or "")), first_row)
    days = _days(column)
    if days is not None:
        name, serial = days
        return _numbers_else_text(column, serial.cast(KIND), _styled(styles[name]), first_row)
    return _text_cells(text_of(column).cast(KIND), first_row)


def _text_cells(texts: pa.Array, first_row: int) -> SheetCells:
    blank = pc.equal(pc.binary_length(texts), 0)
    if texts.null_count or pc.any(blank).as_py():
        texts = pc.if_else(blank, pa.scalar(None, KIND), texts)
    texts = without_formulas(texts)
    check_lengths(texts, first_row)
    spaced = outer_space(texts)
    before = PLAIN if spaced is None else pc.if_else(spaced, pa.scalar(SPACED, KIND), PLAIN)
    return SheetCells(before, inline_text(texts), TEXT_END)


def _numbers_else_text(column: pa.Array, numbers: pa.Array, before: str, first_row: int) -> SheetCells:
    """Cells of the numbers; where a value has none, its text."""
    if numbers.null_count == column.null_count:
        return SheetCells(before, numbers, VALUE_END)
    texts = _text_cells(text_of(column).cast(KIND), first_row)
    return _either(numbers.is_valid(), SheetCells(before, numbers, VALUE_END), texts)


def _either(first: pa.Array, one: SheetCells, other: SheetCells) -> SheetCells:
    """Row by row the one where `first`, else the other."""

    def chosen(left: pa.Array | str, right: pa.Array | str) -> pa.Array:
        return pc.if_else(first, _same(left), _same(right))

    return SheetCells(chosen(one.before, other.before), chosen(one.value, other.value), chosen(one.after, other.after))


def _same(part: pa.Array | str) -> pa.Array | pa.Scalar:
    return pa.scalar(part, KIND) if isinstance(part, str) else part


def _styled(style: int | None) -> str:
    return '"><v>' if style is None else f'" s="{style}"><v>'


def _numbers(column: pa.Array) -> pa.Array | None:
    """The text of numbers, null for those that a cell cannot hold; None if the column is of no numbers."""
    kind = column.type
    if pa.types.is_floating(kind):
        column = column.cast(pa.float32()) if pa.types.is_float16(kind) else column
        holds = pc.is_finite(column)
    elif pa.types.is_integer(kind):
        holds = pc.less(pc.abs(column.cast(pa.float64(), safe=False)), EXACT_INTEGERS)
    elif pa.types.is_decimal(kind) and kind.precision <= 15:
        holds = pc.is_valid(column)
    else:
        return None
    texts = column.cast(KIND)
    return texts if pc.all(holds).as_py() else pc.if_else(holds, texts, pa.scalar(None, KIND))


def _days(column: pa.Array) -> tuple[str, pa.Array] | None:
    """The format and the numbers of dates and times; None if the column has none. A moment with a zone has no number."""
    kind = column.type
    if pa.types.is_date(kind):
        return "day", day_numbers(column)
    if pa.types.is_timestamp(kind) and kind.tz is None:
        return "moment", day_numbers(column)
    if pa.types.is_time(kind):
        return "clock", day_fractions(column)
    if pa.types.is_duration(kind):
        return "hours", day_fractions(column)
    return None


# ---- the mixed cells of a worksheet

_DAYS: dict[int, tuple[str, Callable[[pa.Array], pa.Array]]] = {
    DATE: ("day", lambda texts: day_numbers(texts.cast(pa.date32()))),
    MOMENT: ("moment", lambda texts: day_numbers(texts.cast(pa.timestamp("us")))),
    CLOCK: ("clock", lambda texts: day_fractions(_on_first_day(texts))),
    HOURS: ("hours", lambda texts: pc.divide(texts.cast(pa.float64()), 86_400.0)),
}


def _on_first_day(clock: pa.Array) -> pa.Array:
    """Times of day as moments of the day from which moments are counted; Arrow reads no time from text."""
    day = pa.scalar("1970-01-01", KIND)
    return pc.binary_join_element_wise(day, clock, pa.scalar(" ", KIND)).cast(pa.timestamp("us"))


def _worksheet_cells(column: pa.Array, styles: Styles, first_row: int) -> SheetCells:
    texts, kinds = text_of(column).cast(KIND), column.field(1).to_numpy(zero_copy_only=False)
    cells = _text_cells(texts, first_row)
    for kind in np.unique(kinds):
        if kind not in (BLANK, TEXT):
            name, values = _values(int(kind), texts.filter(pa.array(kinds == kind)))
            before = TRUTH if kind == BOOLEAN else _styled(styles.get(name))
            spread = pc.replace_with_mask(pa.nulls(len(texts), KIND), pa.array(kinds == kind), values)
            cells = _either(spread.is_valid(), SheetCells(before, spread, VALUE_END), cells)
    return cells


def _values(kind: int, texts: pa.Array) -> tuple[str, pa.Array]:
    """The name of the format and the values of cells of one kind; null for what has none and stays text."""
    if kind == BOOLEAN:
        return "", pc.if_else(pc.equal(texts, "TRUE"), pa.scalar("1", KIND), "0")
    if kind == NUMBER:
        finite = pc.is_finite(texts.cast(pa.float64()))
        return "", pc.if_else(finite, texts, pa.scalar(None, KIND))
    name, numbers = _DAYS[kind]
    return name, numbers(texts).cast(KIND)
