"""Reads amounts and quantities of a text column into exact integers, whatever separators and signs they carry."""

from dataclasses import dataclass
from typing import cast

import ibis
import ibis.expr.types as ir

from ml_pipeline.schema import AMOUNT_LIMIT, AMOUNT_SCALE, QUANTITY_LIMIT, QUANTITY_SCALE
from ml_pipeline.tables import text_of

_CURRENCY = r"(?:[\p{Sc}]|rs\.?|inr|usd|eur|gbp|aud|cad|chf|jpy|cny|sgd|aed)"
_DRESSED = rf"(?i)^([+-]?)\s*{_CURRENCY}?\s*([+-]?[0-9.,'’ \x{{00a0}}\x{{202f}}]+?)\s*{_CURRENCY}?\s*(-?)$"
_BRACKETS = r"^\((.*)\)$"
_GROUPED = (
    r"^[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,2}(?:,[0-9]{2})*,[0-9]{3}"
    r"|[0-9]{1,3}(?:['’ \x{00a0}\x{202f}][0-9]{3})+)(?:\.[0-9]*)?$"
)
_SEPARATORS = r"[,'’ \x{00a0}\x{202f}]"
_PLAIN = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?$"
_COMMA_DECIMAL = r"^[^0-9,]*(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+),(?:[0-9]{1,2}|[0-9]{4,})[^0-9,]*$"
_POINT_DECIMAL = r"^[^0-9.]*(?:[0-9]*|[0-9]{1,3}(?:,[0-9]{2,3})+)\.(?:[0-9]{1,2}|[0-9]{4,})[^0-9.]*$"


@dataclass(frozen=True)
class NumberReading:
    """How a column of numbers was read: its decimal mark and the rows (never both marks) that speak for each."""

    column: str
    decimal_mark: str
    point_rows: int
    comma_rows: int


def decide_decimal_mark(rows: ir.Table, column: str, label: str) -> NumberReading:
    """Point, unless more rows can only be read with a decimal comma ('12,50', '1.234,50') than with a point."""
    text = text_of(rows[column])
    comma = int(rows.filter(rows[column].contains(",") & text.re_search(_COMMA_DECIMAL)).count().execute())
    point = int(rows.filter(text.re_search(_POINT_DECIMAL)).count().execute()) if comma else 0
    return NumberReading(label, "," if comma > point else ".", point, comma)


def with_amount(rows: ir.Table, column: str, name: str, decimal_mark: str) -> ir.Table:
    """Adds `<name>_units` (int64, 1/10,000; null where unknown), `<name>_fault`, `<name>_rounded`; the text goes.

    The fault is null, "missing", "unreadable" or "out of range". Further digits are rounded half away from zero.
    """
    return _with_number(rows, column, name, decimal_mark, "units", 4, AMOUNT_SCALE, AMOUNT_LIMIT)


def with_quantity(rows: ir.Table, column: str, name: str, decimal_mark: str) -> ir.Table:
    """Adds `<name>_milli` (int64, 1/1,000; null where unknown), `<name>_fault`, `<name>_rounded`; the text goes."""
    return _with_number(rows, column, name, decimal_mark, "milli", 3, QUANTITY_SCALE, QUANTITY_LIMIT)


def _with_number(
    rows: ir.Table, column: str, name: str, mark: str, unit: str, digits: int, scale: int, limit: int
) -> ir.Table:
    cleaned = rows.mutate(text=text_of(rows[column])).drop(column)
    text = cast(ir.StringValue, cleaned["text"])
    plain = text if mark == "." else _with_point(text)
    fast = _number(plain, digits)
    cleaned = cleaned.mutate(plain=plain, number=fast.isnull().ifelse(_number(_undressed(plain), digits), fast))
    fits = (cleaned.number < limit) & (cleaned.number > -limit)
    undressed = _undressed(cleaned["plain"])
    readable = undressed.re_search(_PLAIN)
    fault = ibis.cases(
        (cleaned["text"] == "", "missing"),
        (cleaned.number.notnull() & fits, ibis.null("string")),
        (cleaned.number.notnull() | readable, "out of range"),
        else_="unreadable",
    )
    units = ibis.cases((fits, (cleaned.number.cast("decimal(38, 4)") * scale).cast("int64")), else_=ibis.null("int64"))
    exact = undressed.try_cast("decimal(38, 12)")
    long = cleaned["text"].length() > digits + 2
    rounded = ibis.cases((long & cleaned.number.notnull() & exact.notnull(), exact != cleaned.number), else_=False)
    added = {f"{name}_{unit}": units, f"{name}_fault": fault, f"{name}_rounded": rounded}
    return cleaned.mutate(**added).drop("text", "plain", "number")


def _number(text: ir.Value, digits: int) -> ir.Value:
    """An exact decimal, null where the text is no plain number ('1_000' is none)."""
    return ibis.cases(
        (cast(ir.StringValue, text).contains("_"), ibis.null(f"decimal(18, {digits})")),
        else_=text.try_cast(f"decimal(18, {digits})"),
    )


def _with_point(text: ir.StringValue) -> ir.StringValue:
    """Comma and point exchanged: a number of a decimal-comma column as the point column would have it."""
    return cast(ir.StringValue, text.replace(".", "#").replace(",", ".").replace("#", ","))


def _undressed(text: ir.Value) -> ir.StringValue:
    """Without currency, brackets or a trailing minus (both negative), and without well-formed thousands separators."""
    text = cast(ir.StringValue, text).replace("−", "-")
    bare = text.re_replace(_BRACKETS, r"-\1").re_replace(_DRESSED, r"\1\3\2")
    grouped = bare.re_search(_GROUPED)
    return cast(ir.StringValue, grouped.ifelse(bare.re_replace(_SEPARATORS, ""), bare))
