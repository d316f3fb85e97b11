"""Reads amounts and quantities of a text column into exact integers, whatever separators and signs they carry."""

from dataclasses import dataclass
from typing import cast

import ibis
import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.schema import AMOUNT_LIMIT, AMOUNT_SCALE, QUANTITY_LIMIT, QUANTITY_SCALE
from ml_pipeline.tables import materialise, text_of

_CURRENCY = r"(?:[\p{Sc}]|rs\.?|inr|usd|eur|gbp|aud|cad|chf|jpy|cny|sgd|aed)"
_DRESSED = rf"(?i)^([+-]?)\s*{_CURRENCY}?\s*([+-]?[0-9.,'’ \x{{00a0}}\x{{202f}}]+?)\s*{_CURRENCY}?\s*(-?)$"
_BRACKETS = r"^\((.*)\)$"
_GROUPED = (
    r"^[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})*,[0-9]{3}"
    r"|[0-9]{1,3}(?:['’ \x{00a0}\x{202f}][0-9]{3})+)(?:\.[0-9]*)?$"
)
_SEPARATORS = r"[,'’ \x{00a0}\x{202f}]"
_PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_COMMA_DECIMAL = r"^[^0-9,]*(?:[0-9]+|[0-9]{1,3}(?:[.'’ \x{00a0}\x{202f}][0-9]{3})+),(?:[0-9]{1,2}|[0-9]{4,})[^0-9,]*$"
_POINT_DECIMAL = r"^[^0-9.]*(?:[0-9]*|[0-9]{1,3}(?:,[0-9]{2,3})+)\.(?:[0-9]{1,2}|[0-9]{4,})[^0-9.]*$"


@dataclass(frozen=True)
class NumberReading:
    """How a column of numbers was read: its decimal mark and the rows (never both marks) that speak for each.

    odd_rows: rows that are no plain number (separators, currency signs, nonsense).
    """

    column: str
    decimal_mark: str
    point_rows: int
    comma_rows: int
    odd_rows: int


@dataclass(frozen=True)
class _Kind:
    """Integers of 1/scale with so many decimals, and what is too much."""

    unit: str
    digits: int
    scale: int
    limit: int


_AMOUNT = _Kind("units", 4, AMOUNT_SCALE, AMOUNT_LIMIT)
_QUANTITY = _Kind("milli", 3, QUANTITY_SCALE, QUANTITY_LIMIT)


def with_amount(engine: Backend, rows: ir.Table, column: str, name: str, label: str) -> tuple[ir.Table, NumberReading]:
    """Adds `<name>_units` (int64, 1/10,000; null where unknown), `<name>_fault`, `<name>_rounded`; the text goes.

    The fault is null, "missing", "unreadable" or "out of range". Further digits are rounded half away from zero.
    label: the column's name in the reading that comes with it.
    """
    return _with_number(engine, rows, column, name, label, _AMOUNT)


def with_quantity(
    engine: Backend, rows: ir.Table, column: str, name: str, label: str
) -> tuple[ir.Table, NumberReading]:
    """Adds `<name>_milli` (int64, 1/1,000; null where unknown), `<name>_fault`, `<name>_rounded`; the text goes."""
    return _with_number(engine, rows, column, name, label, _QUANTITY)


def _with_number(
    engine: Backend, rows: ir.Table, column: str, name: str, label: str, kind: _Kind
) -> tuple[ir.Table, NumberReading]:
    """Plain numbers are cast; the distinct texts that are none are read apart, so that the patterns run once for each."""
    texts = rows.select(number_text=text_of(rows[column]))
    odd = _odd_texts(engine, texts)
    reading = _decide_mark(texts, odd, label)
    text = text_of(rows[column])
    if reading.decimal_mark == ",":
        text = _with_point(text)
        odd = _odd_texts(engine, texts.mutate(number_text=_with_point(texts.number_text)))
    read = rows.mutate(number_text=text).drop(column)
    number = _plain_number(read.number_text, kind.digits)
    fault = ibis.cases((read.number_text == "", "missing"), else_=ibis.null("string"))
    rounded = _loses_digits(read.number_text, number, kind)
    if reading.odd_rows:
        apart = _read_odd(engine, odd, kind)
        read = read.left_join(apart, read.number_text == apart.odd_text)
        number = ibis.coalesce(number, read.odd_number)
        fault = ibis.coalesce(fault, read.odd_fault)
        rounded = ibis.coalesce(read.odd_rounded, rounded)
    else:
        read = read.mutate(odd_text=None, odd_number=None, odd_fault=None, odd_rounded=None)
    fits = (number < kind.limit) & (number > -kind.limit)
    # below the limits a double errs by less than a quarter of the last unit: rounding gives the exact integer, and fast
    units = (number.cast("float64") * kind.scale).round().cast("int64")
    added = {
        f"{name}_{kind.unit}": ibis.cases((fits, units), else_=ibis.null("int64")),
        f"{name}_fault": ibis.cases((number.notnull() & ~fits, "out of range"), else_=fault),
        f"{name}_rounded": rounded,
    }
    return read.mutate(**added).drop("number_text", "odd_text", "odd_number", "odd_fault", "odd_rounded"), reading


def _odd_texts(engine: Backend, texts: ir.Table) -> ir.Table:
    """odd_text, odd_rows: the distinct texts that are no plain number."""
    odd = texts.filter((texts.number_text != "") & _plain_number(texts.number_text, _AMOUNT.digits).isnull())
    return materialise(engine, odd.group_by(odd_text=odd.number_text).agg(odd_rows=odd.count()), "odd_texts")


def _decide_mark(texts: ir.Table, odd: ir.Table, label: str) -> NumberReading:
    """Point, unless more rows can only be read with a decimal comma ('12,50', '1.234,50') than with a point."""
    has_comma = cast(ir.StringValue, odd.odd_text).re_search(_COMMA_DECIMAL)
    counted = odd.agg(rows=odd.odd_rows.sum(), comma=odd.odd_rows.sum(where=has_comma)).to_pyarrow().to_pylist()[0]
    comma, point = int(counted["comma"] or 0), 0
    if comma:
        has_point = cast(ir.StringValue, texts.number_text).re_search(_POINT_DECIMAL)
        point = int(texts.filter(has_point).count().execute())
    return NumberReading(label, "," if comma > point else ".", point, comma, int(counted["rows"] or 0))


def _read_odd(engine: Backend, odd: ir.Table, kind: _Kind) -> ir.Table:
    """odd_text, odd_number, odd_fault, odd_rounded; in steps, so that no pattern is inlined many times over."""
    text = cast(ir.StringValue, odd.odd_text).replace("\u2212", "-")
    bare = odd.select("odd_text", bare=text.re_replace(_BRACKETS, r"-\1").re_replace(_DRESSED, r"\1\3\2"))
    bare = materialise(engine, bare, "bare")
    grouped = bare.bare.re_search(_GROUPED)
    joined = bare.select("odd_text", bare=grouped.ifelse(bare.bare.re_replace(_SEPARATORS, ""), bare.bare))
    joined = materialise(engine, joined, "bare")
    number = _plain_number(joined.bare, kind.digits)
    readable = cast(ir.StringValue, joined.bare).re_search(_PLAIN)
    fault = ibis.cases((number.notnull(), ibis.null("string")), (readable, "out of range"), else_="unreadable")
    rounded = _loses_digits(joined.bare, number, kind)
    read = joined.select("odd_text", odd_number=number, odd_fault=fault, odd_rounded=rounded)
    return materialise(engine, read, "odd_numbers")


def _plain_number(text: ir.Value, digits: int) -> ir.Value:
    """An exact decimal, null where the text is no plain number ('1_000' is none)."""
    return ibis.cases(
        (cast(ir.StringValue, text).contains("_"), ibis.null(f"decimal(18, {digits})")),
        else_=text.try_cast(f"decimal(18, {digits})"),
    )


def _loses_digits(text: ir.Value, number: ir.Value, kind: _Kind) -> ir.Value:
    """Whether the text has digits beyond those that are kept."""
    point = cast(ir.StringValue, text).find(".")
    long = (point >= 0) & (cast(ir.StringValue, text).length() - point - 1 > kind.digits)
    exact = text.try_cast("decimal(38, 12)")
    return ibis.cases((long, (exact != number.cast("decimal(38, 12)")).fill_null(False)), else_=False)


def _with_point(text: ir.Value) -> ir.StringValue:
    """Comma and point exchanged: a number of a decimal-comma column as a point column would have it."""
    swapped = cast(ir.StringValue, text).replace(".", "#").replace(",", ".").replace("#", ",")
    return cast(ir.StringValue, swapped)
