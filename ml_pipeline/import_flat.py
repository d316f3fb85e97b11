"""From flat invoice lines (one row per line, as in UCI Online Retail I and II) to the tables of a shop.

`python -m ml_pipeline.import_flat FILE --into DIR [--map ours=theirs ...] [--sheet NAME] [--currency CODE]`

Every row of the file becomes one line: rows without a customer, with a negative quantity or with an amount that is no
number too, so that cleaning counts them with their money. An invoice becomes one header; one of several customers becomes
a header for each. Line amounts are quantity x price, exactly.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import ibis
import ibis.expr.types as ir
import pyarrow as pa
from ibis.backends.duckdb import Backend

from ml_pipeline.amounts import with_amount, with_quantity
from ml_pipeline.command import run_command
from ml_pipeline.engine import open_engine
from ml_pipeline.errors import BadDatasetConfig, MissingColumns, RowsLost, TablesExist, UnreadableTable
from ml_pipeline.judging import one_row
from ml_pipeline.schema import CONFIG_FILE, CUSTOMERS, HEADERS, LINES, PRODUCTS, STORES, Column, TableSchema
from ml_pipeline.tables import (
    ROW_NUMBER,
    engine_names,
    find_tables,
    id_of,
    match_columns,
    materialise,
    missing_columns,
    read_table,
    text_of,
)

log = logging.getLogger(__name__)

FLAT = TableSchema(
    "invoice_lines",
    "",
    (
        Column("invoice", "id", required=True, aliases=("InvoiceNo",)),
        Column("product", "id", required=True, aliases=("StockCode",)),
        Column("description"),
        Column("quantity", "quantity", required=True),
        Column("date", "date", required=True, aliases=("InvoiceDate",)),
        Column("unit_price", "amount", required=True, aliases=("UnitPrice", "Price")),
        Column("customer", "id", required=True, aliases=("CustomerID", "Customer ID")),
        Column("country"),
    ),
)
UCI_CURRENCY = "GBP"
_WORKBOOKS = (".xlsx", ".xls", ".xlsb", ".ods")
_PRODUCT_DIGITS = 7  # a thousandth of a piece times a ten-thousandth of a pound


@dataclass(frozen=True)
class FlatRows:
    """The rows of a file as text, with `part` (0-based number of the sheet) and `row_number` over all parts.

    is_uci: whether the columns have the names of UCI Online Retail. notes: what is to be said about the reading.
    """

    rows: ir.Table
    count: int
    malformed: ir.Table | None
    is_uci: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    """What was written: rows in, lines and headers out, and what is to be said."""

    rows_in: int
    lines: int
    headers: int
    malformed_rows: int
    notes: tuple[str, ...]


def import_flat(
    engine: Backend,
    file: Path,
    into: Path,
    mapped: Mapping[str, str] | None = None,
    sheet: str | None = None,
    currency: str | None = None,
) -> Imported:
    """Writes the tables of SPEC's schema as Parquet, and dataset.toml with an empty [targets], into a new folder.

    mapped: ours -> theirs, for files with other names. sheet: of a workbook; None takes all that have the columns.
    Raises TablesExist, UnreadableTable, MissingColumns, BadDatasetConfig (an unknown name in `mapped`).
    """
    mapped = mapped or {}
    _check_mapping(mapped)
    _refuse_full_folder(into)
    flat = _read_flat(engine, file, mapped, sheet)
    lines = _with_keys(_with_amounts(engine, flat.rows), flat.rows)
    lines = materialise(engine, lines, "lines")
    notes = [*flat.notes, *_describe(lines)]
    into.mkdir(parents=True, exist_ok=True)
    headers = _build_headers(lines)
    tables = {
        LINES.name: _build_lines(lines),
        HEADERS.name: headers,
        PRODUCTS.name: _build_products(lines),
        CUSTOMERS.name: _build_customers(lines),
        STORES.name: _build_stores(lines),
    }
    written = {}
    for name, rows in tables.items():
        rows = materialise(engine, rows, name)
        written[name] = int(rows.count().execute())
        engine.to_parquet(rows.order_by(rows.columns[0]), into / f"{name}.parquet")
    if written[LINES.name] != flat.count:
        raise RowsLost(
            f"{file.name}: {flat.count} rows came in, {written[LINES.name]} lines came out: a fault of import."
        )
    if currency is None and flat.is_uci:
        currency = UCI_CURRENCY
    if currency is None:
        notes.append("the file does not say its currency: INR is assumed; --currency or dataset.toml settles it")
    (into / CONFIG_FILE).write_text(_config_text(file.name, currency), encoding="utf-8")
    broken = _write_malformed(engine, file, into, flat.malformed)
    return Imported(flat.count + broken, written[LINES.name], written[HEADERS.name], broken, tuple(notes))


def _check_mapping(mapped: Mapping[str, str]) -> None:
    unknown = sorted(set(mapped) - set(FLAT.column_names))
    if unknown:
        raise BadDatasetConfig(
            f"--map {', '.join(unknown)}: no column of ours; they are {', '.join(FLAT.column_names)}."
        )


def _refuse_full_folder(into: Path) -> None:
    if not into.is_dir():
        return
    there = [path.name for path in find_tables(into).values()]
    there += [CONFIG_FILE] if (into / CONFIG_FILE).exists() else []
    if there:
        raise TablesExist(f"{into} already holds {', '.join(sorted(there))}; name a new folder, or move them away.")


# ---- reading


def _read_flat(engine: Backend, file: Path, mapped: Mapping[str, str], sheet: str | None) -> FlatRows:
    if not file.is_file():
        raise UnreadableTable(f"{file} is not a file; name a CSV, Parquet or Excel file of invoice lines.")
    if file.suffix.lower() in _WORKBOOKS:
        return _read_workbook(engine, file, mapped, sheet)
    if sheet is not None:
        raise UnreadableTable(f"{file.name} has no sheets; leave out --sheet {sheet!r}.")
    if not file.name.lower().endswith((".csv", ".csv.gz", ".parquet")):
        allowed = ", ".join((".csv", ".csv.gz", ".parquet", *_WORKBOOKS))
        raise UnreadableTable(f"{file.name} ends in {file.suffix!r}; readable are {allowed}.")
    rows, malformed, read = read_table(engine, file, FLAT, mapped)
    broken = 0 if malformed is None else int(malformed.count().execute())
    selected = _select_ours(rows.mutate(part=ibis.literal(0)))
    return FlatRows(selected, read.rows - broken, malformed, _is_uci(read.columns), read.warnings)


def _read_workbook(engine: Backend, file: Path, mapped: Mapping[str, str], sheet: str | None) -> FlatRows:
    from python_calamine import CalamineError, CalamineWorkbook  # only workbooks need it

    try:
        workbook = CalamineWorkbook.from_path(str(file))
    except (CalamineError, OSError) as error:
        raise UnreadableTable(f"{file.name} is not a readable workbook: {error}.") from error
    if sheet is not None and sheet not in workbook.sheet_names:
        listed = ", ".join(map(repr, workbook.sheet_names))
        raise UnreadableTable(f"{file.name} has no sheet {sheet!r}; it has {listed}.")
    parts: list[ir.Table] = []
    skipped, notes, matched = [], [], {}
    first = 0
    for name in [sheet] if sheet is not None else workbook.sheet_names:
        rows = _filled_rows(workbook.get_sheet_by_name(name).iter_rows())
        header = tuple(name or "" for name in next(rows, []))
        positions, problems = match_columns(header, FLAT, mapped)
        missing = missing_columns(FLAT, mapped, tuple(positions)) + problems
        if missing:
            skipped.append(f"sheet {name!r}: {', '.join(missing)} (it has {', '.join(map(repr, header)) or 'nothing'})")
            continue
        matched = {ours: header[i] for ours, i in positions.items()}
        part, count = _sheet_table(engine, rows, engine_names(header, positions), len(parts), first)
        parts.append(_select_ours(part))
        first += count
        notes.append(f"sheet {name!r}: {count} rows")
    if not parts:
        raise MissingColumns(f"{file.name}: {'; '.join(skipped)}. --map ours=theirs names other columns.")
    rows = parts[0] if len(parts) == 1 else ibis.union(*parts, distinct=False)
    return FlatRows(rows, first, None, _is_uci(matched), (*notes, *(f"not read: {reason}" for reason in skipped)))


def _filled_rows(rows: Iterator[list[Any]]) -> Iterator[list[str | None]]:
    """The rows that are not blank, each cell as text (null = empty)."""
    for row in rows:
        texts = [_cell_text(cell) for cell in row]
        if any(texts):
            yield texts


def _cell_text(cell: object) -> str | None:
    if cell is None or cell == "":
        return None
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime):
        return cell.isoformat(sep=" ")
    return str(cell)


def _sheet_table(
    engine: Backend, rows: Iterator[list[str | None]], names: Sequence[str], part: int, first: int
) -> tuple[ir.Table, int]:
    cells: list[list[str | None]] = [[] for _ in names]
    for row in rows:
        for i, column in enumerate(cells):
            column.append(row[i] if i < len(row) else None)
    count = len(cells[0])
    arrays = {name: pa.array(column, pa.string()) for name, column in zip(names, cells, strict=True)}
    arrays[ROW_NUMBER] = pa.array(range(first + 1, first + count + 1), pa.int64())
    table = engine.create_table(ibis.util.gen_name("sheet"), pa.table(arrays))
    return table.mutate(part=ibis.literal(part)), count


def _select_ours(rows: ir.Table) -> ir.Table:
    """Our columns as text; the optional ones are empty where the file has none."""
    ours = {name: rows[name] if name in rows.columns else ibis.literal("") for name in FLAT.column_names}
    return rows.select(ROW_NUMBER, "part", **ours)


def _is_uci(matched: Mapping[str, str]) -> bool:
    """Whether the file carries the names of UCI Online Retail I or II."""
    return {matched.get("product"), matched.get("date")} == {"StockCode", "InvoiceDate"}


# ---- lines with keys and amounts


def _with_amounts(engine: Backend, rows: ir.Table) -> ir.Table:
    """Canonical ids and texts, and `amount` (exact decimal text), `money` (decimal, null where unknown)."""
    selected = rows.select(
        ROW_NUMBER,
        "part",
        invoice=id_of(rows.invoice),
        product=id_of(rows["product"]),
        customer=id_of(rows.customer),
        country=text_of(rows.country),
        description=text_of(rows.description),
        date=text_of(rows["date"]),
        quantity=text_of(rows.quantity),
        unit_price=text_of(rows.unit_price),
        quantity_text=rows.quantity,
        price_text=rows.unit_price,
    )
    read, _ = with_amount(engine, selected, "price_text", "price", "unit_price")
    read, _ = with_quantity(engine, read, "quantity_text", "quantity", "quantity")
    money = read.price_units.cast("decimal(19, 0)") * read.quantity_milli.cast("decimal(19, 0)")
    unreadable = read.quantity + " x " + read.unit_price
    missing = (read.unit_price == "") | (read.quantity == "")
    amount = ibis.cases((money.notnull(), _decimal_text(money)), (missing, ""), else_=unreadable)
    return read.mutate(money=money, amount=amount)


def _decimal_text(money: ir.Value) -> ir.StringValue:
    """An integer of 1/10,000,000 as decimal text without trailing zeros: 834000000 -> '83.4'."""
    number = cast(ir.DecimalValue, money)
    digits = number.abs().cast("string").re_replace(r"\..*$", "").lpad(_PRODUCT_DIGITS + 1, "0")
    whole = digits.substr(0, digits.length() - _PRODUCT_DIGITS)
    decimals = digits.substr(digits.length() - _PRODUCT_DIGITS, _PRODUCT_DIGITS).re_replace("0+$", "")
    sign = (number < 0).ifelse("-", "")
    return cast(ir.StringValue, sign + whole + ibis.cases((decimals == "", ""), else_=ibis.literal(".") + decimals))


def _with_keys(lines: ir.Table, rows: ir.Table) -> ir.Table:
    """Adds transaction_id (the invoice; with the customer, where it has several) and line_item_id.

    A row that two sheets hold alike (they overlap in Online Retail II) gets the number of its first copy, so that
    cleaning sets the second aside; alike rows within one sheet are two lines.
    """
    owners = lines.group_by(owned="invoice").agg(owners=lines.customer.nunique())
    several = owners.filter(owners.owners > 1).drop("owners")
    keyed = lines.left_join(several, lines.invoice == several.owned)
    owner = ibis.cases((keyed.customer == "", "none"), else_=keyed.customer)
    shared = keyed.owned.notnull() & (keyed.invoice != "")
    keyed = keyed.mutate(transaction_id=shared.ifelse(keyed.invoice + "/" + owner, keyed.invoice), shared=shared)
    keyed = keyed.drop("owned")
    content = ["invoice", "product", "description", "quantity", "date", "unit_price", "customer", "country"]
    if int(rows.part.max().fill_null(0).execute()) == 0:
        return keyed.mutate(line_number=keyed.row_number)
    within = ibis.window(group_by=["part", *content], order_by=ROW_NUMBER)
    keyed = keyed.mutate(copy=ibis.row_number().over(within))
    alike = ibis.window(group_by=[*content, "copy"])
    return keyed.mutate(line_number=keyed.row_number.min().over(alike)).drop("copy")


def _describe(lines: ir.Table) -> list[str]:
    """What a reader of the result should know, in sentences."""
    dates = lines.filter(lines.invoice != "").group_by("transaction_id").agg(dates=lines["date"].nunique())
    counts = one_row(
        lines,
        cancelled=lines.invoice.upper().startswith("C").sum(),
        no_customer=(lines.customer == "").sum(),
        no_invoice=(lines.invoice == "").sum(),
        unknown=lines.money.isnull().sum(),
        repeated=(lines.line_number != lines.row_number).sum(),
        shared=lines.invoice.nunique(where=lines.shared),
    )
    counts["dates"] = int(dates.filter(dates.dates > 1).count().execute())
    sentences = {
        "cancelled": "rows of invoices that begin with C (cancellations) keep their negative lines",
        "no_customer": "rows without a customer: cleaning sets them aside with their money",
        "no_invoice": "rows without an invoice: cleaning sets them aside with their money",
        "unknown": "rows whose quantity x price cannot be computed",
        "repeated": "rows that an earlier sheet holds alike: cleaning sets them aside as repeated",
        "shared": "invoices of several customers: one header for each",
        "dates": "invoices with several dates: the first counts",
    }
    return [f"{counts[name]} {sentence}" for name, sentence in sentences.items() if counts[name]]


# ---- tables


def _build_lines(lines: ir.Table) -> ir.Table:
    return lines.order_by(ROW_NUMBER).select(
        line_item_id=lines.line_number.cast("string"),
        transaction_id=lines.transaction_id,
        product_id=lines["product"],
        quantity=lines.quantity,
        line_item_amount=lines.amount,
    )


def _build_headers(lines: ir.Table) -> ir.Table:
    """One per transaction and customer: the first date and country of its rows, the sum of its lines."""
    first_copy = lines.line_number == lines.row_number
    known = lines.money.notnull()
    headers = lines.group_by("transaction_id", customer_id="customer").agg(
        store_id=lines.country.argmin(lines.row_number, where=lines.country != ""),
        transaction_date=lines["date"].argmin(lines.row_number, where=lines["date"] != ""),
        total=lines.money.sum(where=first_copy & known),
    )
    total = ibis.cases((headers.total.notnull(), _decimal_text(headers.total)), else_="")
    return headers.select("transaction_id", "customer_id", "store_id", "transaction_date", total_amount=total)


def _build_products(lines: ir.Table) -> ir.Table:
    """product_id with its most frequent description and its most frequent price above 0; no category."""
    sold = lines.filter(lines["product"] != "")
    products = sold.select(product_id="product").distinct()
    names = _most_frequent(sold.filter(sold.description != ""), "description").rename(product_name="description")
    prices = _most_frequent(sold.filter(sold.price_units > 0), "unit_price")
    joined = products.left_join(names, products.product_id == names.named).drop("named")
    joined = joined.left_join(prices, joined.product_id == prices.named).drop("named")
    return joined.select("product_id", "product_name", "unit_price", product_category=ibis.literal(""))


def _most_frequent(rows: ir.Table, column: str) -> ir.Table:
    """named (the product) and the value that it has most often; of equals the smallest text."""
    counted = rows.group_by("product", column).agg(times=rows.count())
    order = ibis.window(group_by="product", order_by=[ibis.desc("times"), ibis.asc(column)])
    ranked = counted.mutate(place=ibis.row_number().over(order))
    return ranked.filter(ranked.place == 0).select(column, named="product")


def _build_customers(lines: ir.Table) -> ir.Table:
    known = lines.filter(lines.customer != "")
    return known.select(customer_id="customer").distinct().mutate(customer_since=ibis.literal(""))


def _build_stores(lines: ir.Table) -> ir.Table:
    known = lines.filter(lines.country != "")
    stores = known.select(store_id="country").distinct()
    return stores.mutate(store_name=stores.store_id, store_region=stores.store_id)


def _config_text(file_name: str, currency: str | None) -> str:
    stated = (
        f'currency = "{currency}"' if currency else '# currency = "EUR"  # the file does not say; the default is INR'
    )
    return (
        f"# made by import_flat from {file_name}\n{stated}\n\n"
        "[targets]\n# empty: the file has no categories. Fill product_category in products and name them here:\n"
        '# electronics = ["Electronics"]\n'
    )


def _write_malformed(engine: Backend, file: Path, into: Path, malformed: ir.Table | None) -> int:
    if malformed is None:
        return 0
    count = int(malformed.count().execute())
    if count:
        engine.to_csv(malformed.order_by(ROW_NUMBER), into / f"{file.name}.malformed_rows.csv", header=True)
    return count


# ---- the command


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ml_pipeline.import_flat", description=__doc__)
    parser.add_argument("file", type=Path, help="CSV (.csv, .csv.gz), Parquet or Excel file of invoice lines")
    parser.add_argument("--into", type=Path, required=True, help="folder for the tables; it must not hold any")
    parser.add_argument(
        "--map", nargs="*", default=[], metavar="OURS=THEIRS", help=f"ours: {', '.join(FLAT.column_names)}"
    )
    parser.add_argument("--sheet", help="of a workbook (default: all sheets that have the columns)")
    parser.add_argument("--currency", help="code for dataset.toml (default: GBP for UCI's column names)")
    options = parser.parse_args(arguments)
    mapped = dict(_pair(text) for text in options.map)
    imported = import_flat(open_engine(), options.file, options.into, mapped, options.sheet, options.currency)
    for note in imported.notes:
        log.info(note)
    broken = f", {imported.malformed_rows} malformed rows beside them" if imported.malformed_rows else ""
    log.info(
        f"{imported.rows_in} rows in, {imported.lines} lines out{broken}; {imported.headers} headers in {options.into}"
    )


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not theirs:
        raise BadDatasetConfig(f"--map {text!r}: write OURS=THEIRS, for example customer=ClientNumber.")
    return ours, theirs


if __name__ == "__main__":
    sys.exit(run_command(main))
