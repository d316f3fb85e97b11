"""From text tables to clean ones: every row is kept, or set aside under a named rule with its money.

Order of the rules within a row: what stands first names it. Repeated keys are judged last, among the rows that no other
rule has set aside, and the row with the lowest row_number stays.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta

import ibis.expr.types as ir
from ibis.backends.duckdb import Backend

from ml_pipeline.data_report import CleaningReport
from ml_pipeline.judging import Judge
from ml_pipeline.reference_tables import clean_customers, clean_keys, clean_products, clean_stores
from ml_pipeline.sales_headers import finish_headers, judge_headers
from ml_pipeline.sales_lines import clean_lines
from ml_pipeline.schema import LOYALTY_RULES, PROMOTIONS, TABLES, DatasetConfig
from ml_pipeline.tables import RawTables


@dataclass
class CleanTables:
    """The kept rows of each table (None = the shop has no such table), and what was set aside.

    customers: customer_id, customer_since (date, null). products: product_id, category ('' = none), price_units.
    stores: store_id, region ('' = unknown). promotions: promotion_id. headers: row_number, transaction_id, customer_id, store_id ('' = none),
    day, total_units, line_count, lines_units. lines: row_number, header_row, transaction_id, product_id ('' = none),
    category, quantity_milli and amount_units (signed), has_promotion, outlier. quarantine, for tables of which rows were
    set aside: row_number, rule and the raw text columns, personal ones redacted.
    """

    headers: ir.Table
    last_day: date
    report: CleaningReport
    lines: ir.Table | None = None
    customers: ir.Table | None = None
    products: ir.Table | None = None
    stores: ir.Table | None = None
    promotions: ir.Table | None = None
    quarantine: dict[str, ir.Table] = field(default_factory=dict)


def clean_tables(engine: Backend, raw: RawTables, config: DatasetConfig, as_of: date | None) -> CleanTables:
    """Judges every row of every table.

    as_of: nothing on or after it is read; None takes all. Raises NotEnoughHistory when no header can be kept, RowsLost
    when rows in are not rows kept plus rows set aside (which would be a fault of this code).
    """
    report = CleaningReport(config.currency, config.spend, config.timezone, as_of, as_of_given=as_of is not None)
    judge = Judge(engine, raw, config, as_of, report)
    report.files = list(raw.files.values())
    report.warnings = [f"{file.file}: {warning}" for file in report.files for warning in file.warnings]
    report.missing = _missing(raw)
    customers = clean_customers(judge)
    products = clean_products(judge)
    stores = clean_stores(judge)
    promotions, _ = (clean_keys(judge, table.name) for table in (PROMOTIONS, LOYALTY_RULES))
    judged, last_day = judge_headers(judge)
    lines = clean_lines(judge, judged, products, promotions)
    headers = finish_headers(judge, judged, lines, customers, stores)
    report.last_day = last_day
    report.as_of = as_of or last_day + timedelta(days=1)
    return CleanTables(headers, last_day, report, lines, customers, products, stores, promotions, judge.quarantine)


def _missing(raw: RawTables) -> list[dict[str, str]]:
    """The absent tables and columns, each with what stays unknown without it."""
    missing = []
    for name, table in TABLES.items():
        if name not in raw and table.feeds:
            missing.append({"what": f"table {name}", "unknown": table.feeds})
        if name in raw:
            missing += [
                {"what": f"column {name}.{column.name}", "unknown": column.feeds}
                for column in table.columns
                if column.feeds and not raw.has(name, column.name)
            ]
    return missing
