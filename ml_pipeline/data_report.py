"""What cleaning found, rule by rule, with rows and money: as a dictionary with stable keys and as Markdown."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from decimal import Decimal
from types import MappingProxyType

from ml_pipeline.amounts import NumberReading
from ml_pipeline.dates import DateReading
from ml_pipeline.schema import AMOUNT_SCALE, MAX_ID_LENGTH
from ml_pipeline.tables import TableFile

RULES: Mapping[str, str] = MappingProxyType(
    {
        "malformed_row": "the CSV record does not have the header's number of fields",
        "empty_transaction_id": "no transaction_id",
        "empty_customer_id": "no customer_id",
        "empty_product_id": "a row of products without product_id",
        "empty_store_id": "a row of stores without store_id",
        "empty_promotion_id": "a row of promotion_details without promotion_id",
        "empty_rule_id": "a row of loyalty_rules without rule_id",
        "overlong_id": f"an id of more than {MAX_ID_LENGTH} characters",
        "empty_date": "no transaction_date",
        "unreadable_date": "a transaction_date that is no date",
        "contradicting_date": "a transaction_date that is a date only by the day/month order not taken",
        "implausible_date": "a transaction_date on or before 1970-01-01",
        "on_or_after_as_of": "dated on or after the given as_of, which is not to be read",
        "future_date": "dated after the last day of the data, behind a long gap",
        "duplicate_transaction_id": "the transaction_id of an earlier row",
        "duplicate_line_item_id": "the line_item_id of an earlier row",
        "duplicate_customer_id": "the customer_id of an earlier row",
        "duplicate_product_id": "the product_id of an earlier row",
        "duplicate_store_id": "the store_id of an earlier row",
        "duplicate_promotion_id": "the promotion_id of an earlier row",
        "duplicate_rule_id": "the rule_id of an earlier row",
        "no_header": "a line whose transaction is in no header",
        "header_quarantined": "a line whose header was quarantined",
        "missing_amount": "no amount, and none can be computed",
        "unreadable_amount": "an amount that is no number",
        "amount_out_of_range": "an amount of 100,000,000,000 or more",
        "unreadable_quantity": "a quantity that is no number",
        "quantity_out_of_range": "a quantity of 1,000,000,000 or more",
    }
)
"""Every rule by which a row is set aside."""

FLAGS: Mapping[str, str] = MappingProxyType(
    {
        "unknown_product": "line of a product that is not in products: counts as category unknown",
        "product_without_category": "line of a product without product_category: counts as category unknown",
        "zero_line": "line with quantity or amount 0: neither spend nor return, in no purchase",
        "return_line": "line with a negative quantity or amount: a return or cancellation",
        "order_line_cancelled": "line of a sale that was taken back whole: no spend any more from the day after on",
        "cancellation_matched": "line of a return that takes back such a line of a sale",
        "cancellation_ambiguous": "line of a return that equals several sales not all taken back: stays a return",
        "outlier_line": "line above 10 times the 99th percentile of its category: kept as it is",
        "missing_line_item_id": "line without line_item_id: cannot be told from a repeated one, kept",
        "unknown_promotion": "line with a promotion_id that is not in promotion_details",
        "customer_not_in_details": "header of a customer who is not in customer_details",
        "date_before_customer_since": "header dated before its customer's customer_since",
        "unknown_store": "header with a store_id that is not in stores",
        "missing_store_id": "header without store_id",
        "total_contradicts_lines": "header whose total_amount is not the sum of its kept lines: the lines count",
        "unreadable_total": "header with a total_amount that is no number or out of range: the lines count",
        "header_without_lines": "header without a kept line: its own total counts, as category unknown",
        "return_header": "header without a kept line and with a negative total: a return",
        "header_without_amount": "header without a kept line and without a total other than 0: in no purchase",
        "outlier_header": "header without lines above 10 times the 99th percentile of such headers: kept as it is",
        "unit_price_unreadable": "product with a unit_price that is no number: taken as unknown",
        "customer_since_unreadable": "customer with a customer_since that is no date: taken as unknown",
    }
)
"""Everything that is counted and kept."""

LEFT_OUT = (
    {
        "feature": "loyalty_efficiency",
        "because": "these tables hold today's loyalty points and no dated history of them, so a past value cannot be known",
    },
)


def money_text(units: int | None) -> str:
    """Units of 1/10,000 as exact decimal text with at least two decimals: 1234500 -> '123.45'."""
    amount = Decimal(units or 0) / AMOUNT_SCALE
    return f"{amount:.2f}" if amount == round(amount, 2) else f"{amount:.4f}"


@dataclass(frozen=True)
class RuleCount:
    """Rows set aside or flagged; money is null where the table has none; first_row is the lowest row_number."""

    rows: int
    money_units: int | None
    first_row: int | None


@dataclass
class TableCount:
    """Rows (and money, where the table has any) in, kept and quarantined by rule."""

    rows_in: int
    kept: int
    money_kept: int | None
    rules: dict[str, RuleCount]

    @property
    def quarantined(self) -> int:
        """Rows set aside by any rule."""
        return sum(count.rows for count in self.rules.values())

    @property
    def money_quarantined(self) -> int | None:
        """Readable money of the rows set aside, in units."""
        if self.money_kept is None:
            return None
        return sum(count.money_units or 0 for count in self.rules.values())


@dataclass(frozen=True)
class Imputation:
    """Values that were filled in: where, how many, how, and the money that rests on them."""

    column: str
    rows: int
    how: str
    money_units: int | None = None


@dataclass
class CleaningReport:
    """Everything that is to be said about one cleaning; no personal data."""

    currency: str
    spend: str
    timezone: str | None
    as_of: date | None = None
    as_of_given: bool = False
    first_day: date | None = None
    last_day: date | None = None
    files: list[TableFile] = field(default_factory=list)
    tables: dict[str, TableCount] = field(default_factory=dict)
    header_rules_of_lines: dict[str, RuleCount] = field(default_factory=dict)
    dates: list[DateReading] = field(default_factory=list)
    rows_with_offset: dict[str, int] = field(default_factory=dict)
    numbers: list[NumberReading] = field(default_factory=list)
    imputed: list[Imputation] = field(default_factory=list)
    flags: dict[str, RuleCount] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)
    targets: dict[str, dict[str, object]] = field(default_factory=dict)
    purchases: dict[str, object] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """The report with stable keys, ready for JSON; money as decimal text in currency units."""
        return {
            "currency": self.currency,
            "spend": self.spend,
            "timezone": self.timezone,
            "as_of": _iso(self.as_of),
            "as_of_given": self.as_of_given,
            "first_day": _iso(self.first_day),
            "last_day": _iso(self.last_day),
            "files": [_plain(asdict(file)) for file in self.files],
            "tables": {name: _table_dict(count) for name, count in self.tables.items()},
            "lines_of_quarantined_headers": _rules_dict(self.header_rules_of_lines),
            "dates": [
                _plain(asdict(reading)) | {"rows_with_offset": self.rows_with_offset.get(reading.column, 0)}
                for reading in self.dates
            ],
            "numbers": [asdict(reading) for reading in self.numbers],
            "imputed": [
                {"column": i.column, "rows": i.rows, "how": i.how, "money": _money(i.money_units)} for i in self.imputed
            ],
            "flags": _rules_dict(self.flags, FLAGS),
            "missing": self.missing,
            "left_out": [dict(entry) for entry in LEFT_OUT],
            "targets": self.targets,
            "purchases": self.purchases,
            "warnings": self.warnings,
        }


def _iso(day: date | None) -> str | None:
    return None if day is None else day.isoformat()


def _money(units: int | None) -> str | None:
    return None if units is None else money_text(units)


def _plain(fields: dict[str, object]) -> dict[str, object]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def _table_dict(count: TableCount) -> dict[str, object]:
    money_in = None if count.money_kept is None else count.money_kept + (count.money_quarantined or 0)
    return {
        "rows_in": count.rows_in,
        "kept": count.kept,
        "quarantined": count.quarantined,
        "money_in": _money(money_in),
        "money_kept": _money(count.money_kept),
        "money_quarantined": _money(count.money_quarantined),
        "rules": _rules_dict(count.rules, RULES),
    }


def _rules_dict(counts: Mapping[str, RuleCount], meanings: Mapping[str, str] = RULES) -> dict[str, dict[str, object]]:
    return {
        name: {
            "rows": count.rows,
            "money": _money(count.money_units),
            "first_row": count.first_row,
            "meaning": meanings[name],
        }
        for name, count in sorted(counts.items())
    }


# ---- Markdown


def report_markdown(report: CleaningReport) -> str:
    """The report for people."""
    given = "given" if report.as_of_given else "the day after the last day"
    lines = [
        "# Data report",
        "",
        f"Days {_iso(report.first_day)} to {_iso(report.last_day)}; as_of {_iso(report.as_of)} ({given}). "
        f"Money in {report.currency}, spend is {report.spend}. "
        "Money of headers and of lines is the same money told twice: never add it over tables.",
        "",
    ]
    for title, section in (
        ("Warnings", [f"- {warning}" for warning in report.warnings]),
        ("Files", _files_section(report)),
        ("Rows", _rows_section(report)),
        ("Set aside", _rules_section(report)),
        ("Kept and flagged", _flags_section(report)),
        ("Filled in", _imputed_section(report)),
        ("Dates", _dates_section(report)),
        ("Numbers", _numbers_section(report)),
        ("Unknown for want of data", [f"- {m['what']}: {m['unknown']}" for m in report.missing]),
        ("Left out", [f"- {entry['feature']}: {entry['because']}" for entry in LEFT_OUT]),
        ("Targets", _targets_section(report)),
        ("Purchases", [f"- {name}: {value}" for name, value in report.purchases.items()]),
    ):
        lines += [f"## {title}", "", *(section or ["none"]), ""]
    return "\n".join(lines)


def markdown_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table; none where there are no rows."""
    names = list(header)
    body = ["| " + " | ".join(_cell(value) for value in row) + " |" for row in rows]
    return ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), *body] if body else []


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _files_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("table", "file", "encoding", "delimiter", "rows", "columns we do not know"),
        (
            (
                f.table,
                f.file,
                f.encoding,
                {"\t": "tab", None: ""}.get(f.delimiter, f.delimiter),
                f.rows,
                ", ".join(f.extra),
            )
            for f in report.files
        ),
    )


def _rows_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("table", "rows in", "kept", "quarantined", "money kept", "money quarantined"),
        (
            (name, c.rows_in, c.kept, c.quarantined, _money(c.money_kept), _money(c.money_quarantined))
            for name, c in report.tables.items()
        ),
    )


def _rules_section(report: CleaningReport) -> list[str]:
    rows = [
        (table, rule, c.rows, _money(c.money_units), c.first_row, RULES[rule])
        for table, count in report.tables.items()
        for rule, c in sorted(count.rules.items())
    ]
    listed = markdown_table(("table", "rule", "rows", "money", "first row", "meaning"), rows)
    if report.header_rules_of_lines:
        listed += ["", "Lines under header_quarantined, by the rule of their header:", ""]
        listed += markdown_table(
            ("rule of the header", "lines", "money"),
            ((rule, c.rows, _money(c.money_units)) for rule, c in sorted(report.header_rules_of_lines.items())),
        )
    return listed


def _flags_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("flag", "rows", "money", "first row", "meaning"),
        ((name, c.rows, _money(c.money_units), c.first_row, FLAGS[name]) for name, c in sorted(report.flags.items())),
    )


def _imputed_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("column", "rows", "money", "how"), ((i.column, i.rows, _money(i.money_units), i.how) for i in report.imputed)
    )


def _dates_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("column", "order", "decided by", "only day-first", "only month-first", "either", "with offset", "spellings"),
        (
            (
                r.column,
                "day-first" if r.day_first else "month-first",
                r.decided_by,
                r.day_first_rows,
                r.month_first_rows,
                r.either_rows,
                report.rows_with_offset.get(r.column, 0),
                ", ".join(f"{name} {rows:,}" for name, rows in r.spellings.items()),
            )
            for r in report.dates
        ),
    )


def _numbers_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("column", "decimal mark", "rows that are no plain number", "rows for a comma", "rows for a point"),
        (
            (n.column, n.decimal_mark, n.odd_rows, n.comma_rows, n.point_rows if n.comma_rows else None)
            for n in report.numbers
        ),
    )


def _targets_section(report: CleaningReport) -> list[str]:
    return markdown_table(
        ("target", "categories", "lines", "spend"),
        (
            (name, ", ".join(map(str, facts["categories"])), facts["lines"], facts["spend"])  # type: ignore[call-overload]
            for name, facts in report.targets.items()
        ),
    )
