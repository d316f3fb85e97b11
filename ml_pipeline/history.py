"""One customer's raw history as the purchases that features are built on, and its features within milliseconds."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
from ibis.backends.duckdb import Backend

from ml_pipeline.cancellations import (
    CANCELLATION_COLUMNS,
    as_known_before,
    find_cancellations,
    with_cancellations,
)
from ml_pipeline.errors import BadHistory
from ml_pipeline.features import FeatureRows, build_features_at, collect_rows, feature_calendar, feature_names
from ml_pipeline.schema import (
    AMOUNT_LIMIT,
    AMOUNT_SCALE,
    OTHER_TARGET,
    QUANTITY_LIMIT,
    QUANTITY_SCALE,
    UNKNOWN_CATEGORY,
    DatasetConfig,
    category_key,
)
from ml_pipeline.windows import stored_time

Number = int | float | Decimal | str

PURCHASES_SCHEMA = pa.schema(
    {
        "customer_id": pa.string(),
        "transaction_id": pa.string(),
        "day": pa.date32(),
        "category": pa.string(),
        "target": pa.string(),
        "product_id": pa.string(),
        "store_id": pa.string(),
        "quantity_milli": pa.int64(),
        "spend_units": pa.int64(),
        "return_units": pa.int64(),
        "amount_units": pa.int64(),
        "has_promotion": pa.bool_(),
        "cancelled_on": pa.date32(),
        "cancelled_units": pa.int64(),
    }
)
CUSTOMERS_SCHEMA = pa.schema({"customer_id": pa.string(), "customer_since": pa.date32()})


class RawTransaction(TypedDict):
    """One line of a raw history. A negative amount or quantity is a return; lines without transaction_id stand alone."""

    transaction_date: date
    amount: Number
    category: NotRequired[str | None]
    quantity: NotRequired[Number | None]
    transaction_id: NotRequired[str | None]
    product_id: NotRequired[str | None]
    store_id: NotRequired[str | None]
    has_promotion: NotRequired[bool | None]


def purchases_from_history(customer_id: str, transactions: Sequence[RawTransaction], config: DatasetConfig) -> pa.Table:
    """The purchases of one customer, one row per line, in the columns and units of `purchases.build_purchases`.

    Amounts are read as decimals, further digits than four are rounded half away from zero. Lines whose amount or
    quantity is 0 are absent. Which lines were cancelled is left open here (cancelled_on is null throughout):
    `HistoryFeatures` finds it among all lines of the history. Raises BadHistory with the position (from 1) of the first impossible line.
    """
    return purchases_from_histories([(customer_id, transactions)], config)


def purchases_from_histories(
    histories: Iterable[tuple[str, Sequence[RawTransaction]]], config: DatasetConfig
) -> pa.Table:
    """`purchases_from_history` of many (customer id, lines), one behind the other; a position counts within its history."""
    targets = config.target_of_category
    rows = [
        row
        for customer_id, transactions in histories
        for number, line in enumerate(transactions, start=1)
        if (row := _purchase(customer_id, number, line, config, targets)) is not None
    ]
    return pa.Table.from_pylist(rows, schema=PURCHASES_SCHEMA)


def _purchase(
    customer_id: str, number: int, line: RawTransaction, config: DatasetConfig, targets: Mapping[str, str]
) -> dict[str, object] | None:
    given = line.get("quantity")
    units = _whole(line["amount"], AMOUNT_SCALE, AMOUNT_LIMIT, f"transaction {number}: amount")
    milli = _whole(1 if given is None else given, QUANTITY_SCALE, QUANTITY_LIMIT, f"transaction {number}: quantity")
    if units == 0 or milli == 0:
        return None
    spend = units if units > 0 and milli > 0 else 0
    returned = 0 if spend else abs(units)
    category = category_key(line.get("category") or "") or UNKNOWN_CATEGORY
    return {
        "customer_id": customer_id,
        "transaction_id": line.get("transaction_id") or f" line {number}",  # an id never begins with a blank
        "day": line["transaction_date"],
        "category": category,
        "target": targets.get(category, OTHER_TARGET),
        "product_id": line.get("product_id"),
        "store_id": line.get("store_id"),
        "quantity_milli": abs(milli),
        "spend_units": spend,
        "return_units": returned,
        "amount_units": spend - returned if config.spend == "net" else spend,
        "has_promotion": line.get("has_promotion"),
        "cancelled_on": None,
        "cancelled_units": 0,
    }


def _whole(value: Number, scale: int, limit: int, what: str) -> int:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or abs(number) > limit:
        raise BadHistory(f"{what} is {value!r}; write a number between -{limit} and {limit}.")
    return int((number * scale).quantize(Decimal(1), rounding=ROUND_HALF_UP))


class HistoryFeatures:
    """`build_features` for a handful of customers at a time, compiled and planned once.

    Belongs to the thread that owns the engine. The same expression as for whole shops runs over small tables whose
    rows change from call to call.
    """

    _TABLES = ("history_purchases", "history_customers", "history_days", "history_sights", "history_as_ofs")

    def __init__(self, engine: Backend, targets: Sequence[str]) -> None:
        self._engine = engine
        self._targets = tuple(targets)
        self._names = feature_names(targets)
        empty = self._rows(PURCHASES_SCHEMA.empty_table(), CUSTOMERS_SCHEMA.empty_table(), date(1970, 1, 1))
        purchases, customers, *time = (
            engine.create_table(name, rows, temp=True, overwrite=True)
            for name, rows in zip(self._TABLES, empty, strict=True)
        )
        moment = stored_time(*time)
        lines = purchases.drop(*CANCELLATION_COLUMNS)
        known = as_known_before(with_cancellations(lines, find_cancellations(lines)), moment.end)
        engine.con.execute(f"PREPARE history_cancellations AS {engine.compile(known)}")
        features = build_features_at(lines, customers, moment, targets)
        engine.con.execute(f"PREPARE history_features AS {engine.compile(features.order_by('as_of', 'customer_id'))}")

    def read(self, purchases: pa.Table, customers: pa.Table, as_of: date) -> FeatureRows:
        """The features of every customer with a valid purchase before as_of, as `features.read_matrix` gives them.

        purchases: PURCHASES_SCHEMA; rows on or after as_of are invisible, and cancellations are found anew among the
        rows. customers: CUSTOMERS_SCHEMA, may be empty.
        """
        connection = self._engine.con
        for name, rows in zip(self._TABLES, self._rows(purchases, customers, as_of), strict=True):
            self._refill(name, rows)
        if pc.max(purchases["return_units"]).as_py():
            self._refill(self._TABLES[0], connection.execute("EXECUTE history_cancellations").to_arrow_table())
        found = connection.execute("EXECUTE history_features").to_arrow_table()
        return collect_rows(found.to_batches(), found.num_rows, self._names)

    def _refill(self, name: str, rows: pa.Table) -> None:
        """The rows, and those alone, in one of the tables.

        Registering them changes the temporary catalog, and with it the engine plans the queries anew; that has to be. A
        plan rests on the statistics of the rows, and DuckDB would keep one that was made for other rows.
        """
        connection = self._engine.con
        connection.execute(f"DELETE FROM {name}")
        connection.register("history_rows", rows)
        connection.execute(f"INSERT INTO {name} BY NAME FROM history_rows")
        connection.unregister("history_rows")

    def _rows(self, purchases: pa.Table, customers: pa.Table, as_of: date) -> tuple[pa.Table, ...]:
        calendar = feature_calendar([as_of], self._targets)
        return purchases, customers, calendar.days(), calendar.sights(), calendar.as_ofs()
