"""The sheet "summary" of a result: its statistics as tables, and the forecast by category and by segment as charts."""

from collections.abc import Mapping, Sequence
from typing import Any

import xlsxwriter
from xlsxwriter.format import Format
from xlsxwriter.worksheet import Worksheet

from ml_pipeline.result_rows import neutral_text

SHEET = "summary"
HEADLINES = (
    ("File", "filename", "text"),
    ("Rows", "rows", "count"),
    ("Rows without a prediction", "rows_failed", "count"),
    ("Distinct customers", "distinct_customers", "count"),
    ("Predicted spend", "total_predicted_spend", "money"),
    ("  lower end (80 %)", "total_predicted_spend_lower", "money"),
    ("  upper end (80 %)", "total_predicted_spend_upper", "money"),
    ("Expected buyers", "expected_buyers", "count"),
    ("Mean per customer", "average_predicted_spend", "money"),
    ("Largest of one customer", "max_predicted_spend", "money"),
    ("Currency", "currency", "text"),
    ("Predicted from", "as_of", "text"),
    ("Days predicted", "horizon_days", "count"),
    ("Model", "model_version", "text"),
)
"""Label, key in the statistics, kind of value."""
FLAG_NAMES = {
    "high_value": "High value",
    "multi_category_vip": "Multi-category VIP",
    "category_loyal": "Category loyal",
    "cross_sell": "Cross-sell",
    "at_risk": "At risk",
}
NUMBER_FORMATS = {"text": "General", "count": "#,##0", "money": "#,##0.00", "share": "0.0%"}
NOTE = "note"
"""A text of several lines, over the columns from its own to LAST_COLUMN."""
LAST_COLUMN = 6
COLUMN_WIDTH = 20
LINE_HEIGHT = 15
BLUE = "#3D6A9E"
CHART_COLUMN = 8
CHART_ROWS = 16

Row = Sequence[tuple[Any, str]]
"""Values and their kinds, from left to right."""


def draw_summary(book: xlsxwriter.Workbook, summary: Mapping[str, Any]) -> None:
    """Adds the sheet. summary: the statistics of a job with its `filename`; what is absent or None is left out."""
    page = _Page(book)
    page.title("Summary")
    page.pairs([(label, summary.get(key), kind) for label, key, kind in HEADLINES])
    categories = page.table("By category", ("Category", *_SUM_COLUMNS), _category_rows(summary))
    segments = page.table("By segment", ("Segment", *_SUM_COLUMNS, "Customers"), _segment_rows(summary))
    page.table("Flags", ("Flag", "Customers", "Predicted spend", "Definition"), _flag_rows(summary))
    page.table("Customers with the highest prediction", _TOP_COLUMNS, _top_rows(summary))
    currency = summary.get("currency")
    page.chart("Predicted spend by category", currency, categories)
    page.chart("Predicted spend by segment", currency, segments)


_SUM_COLUMNS = ("Predicted spend", "Lower end", "Upper end", "Share of total")
_TOP_COLUMNS = ("Customer", "Predicted spend", "Lower end", "Upper end", "Probability of buying", "Segment", "Flags")


def _category_rows(summary: Mapping[str, Any]) -> list[Row]:
    named: Mapping[str, Mapping[str, Any]] = summary.get("per_target") or {}
    return [[(name.capitalize(), "text"), *_sums(sums, summary)] for name, sums in named.items()]


def _segment_rows(summary: Mapping[str, Any]) -> list[Row]:
    named: Mapping[str, Mapping[str, Any]] = summary.get("per_segment") or {}
    return [[(name, "text"), *_sums(sums, summary), (sums["customers"], "count")] for name, sums in named.items()]


def _sums(sums: Mapping[str, Any], summary: Mapping[str, Any]) -> Row:
    money, total = sums["predicted_spend"], summary.get("total_predicted_spend")
    share = round(money / total, 4) if total else None
    return [(money, "money"), (sums["lower"], "money"), (sums["upper"], "money"), (share, "share")]


def _flag_rows(summary: Mapping[str, Any]) -> list[Row]:
    named: Mapping[str, Mapping[str, Any]] = summary.get("flags") or {}
    return [
        [
            (FLAG_NAMES[name], "text"),
            (flag["customers"], "count"),
            (flag["predicted_spend"], "money"),
            (flag["definition"], "note"),
        ]
        for name, flag in named.items()
    ]


def _top_rows(summary: Mapping[str, Any]) -> list[Row]:
    return [
        [
            (customer["customer_id"], "text"),
            (customer["predicted_total_spend"], "money"),
            (customer["lower"], "money"),
            (customer["upper"], "money"),
            (customer["purchase_probability_30d"], "share"),
            (customer["segment"], "text"),
            (", ".join(FLAG_NAMES[flag] for flag in customer["flags"]), "text"),
        ]
        for customer in summary.get("top_customers") or ()
    ]


class _Page:
    """A sheet that is filled from top to bottom, charts to the right."""

    def __init__(self, book: xlsxwriter.Workbook) -> None:
        self._book = book
        self._sheet: Worksheet = book.add_worksheet(SHEET)
        self._title = book.add_format({"bold": True, "font_size": 16})
        self._heading = book.add_format({"bold": True, "font_size": 12, "font_color": BLUE})
        self._names = book.add_format({"bold": True, "bg_color": "#D9E2EC", "bottom": 1})
        self._numbers_of = book.add_format({"bold": True, "bg_color": "#D9E2EC", "bottom": 1, "align": "right"})
        self._kinds: dict[str, Format] = {
            kind: book.add_format(
                {"num_format": number_format, "align": "left" if kind == "text" else "right", "valign": "top"}
            )
            for kind, number_format in NUMBER_FORMATS.items()
        }
        self._note = book.add_format({"text_wrap": True, "valign": "top"})
        self._row = 0
        self._charts = 0
        self._sheet.hide_gridlines(2)
        self._sheet.set_column(0, 0, 30)
        self._sheet.set_column(1, LAST_COLUMN, COLUMN_WIDTH)

    def title(self, text: str) -> None:
        """The first line."""
        self._sheet.write_string(0, 0, text, self._title)
        self._row = 2

    def pairs(self, lines: Sequence[tuple[str, Any, str]]) -> None:
        """A label and its value per line; a line without a value is left out."""
        for label, value, kind in lines:
            if value is not None:
                self._sheet.write_string(self._row, 0, label)
                self._put(self._row, 1, value, kind)
                self._row += 1

    def table(self, heading: str, names: Sequence[str], rows: Sequence[Row]) -> tuple[int, int] | None:
        """A heading, a line of names and the rows; nothing without rows. Gives the first and the last of its rows."""
        if not rows:
            return None
        self._sheet.write_string(self._row + 1, 0, heading, self._heading)
        for column, (name, (_value, kind)) in enumerate(zip(names, rows[0], strict=True)):
            self._sheet.write_string(self._row + 2, column, name, self._names_of(kind))
        first = self._row + 3
        for row, values in enumerate(rows, first):
            for column, (value, kind) in enumerate(values):
                self._put(row, column, value, kind)
        self._row = first + len(rows)
        return first, self._row - 1

    def chart(self, title: str, currency: str | None, rows: tuple[int, int] | None) -> None:
        """Columns of the money beside the names in these rows of a table."""
        if rows is None:
            return
        first, last = rows
        chart = self._book.add_chart({"type": "column"})
        chart.add_series(
            {
                "name": "Predicted spend",
                "categories": [SHEET, first, 0, last, 0],
                "values": [SHEET, first, 1, last, 1],
                "fill": {"color": BLUE},
                "gap": 80,
            }
        )
        chart.set_title({"name": title, "name_font": {"size": 12}, "overlay": False})
        chart.set_legend({"none": True})
        chart.set_y_axis(
            {
                "num_format": "#,##0",
                "name": currency or "",
                "major_gridlines": {"visible": True, "line": {"color": "#D9D9D9"}},
            }
        )
        chart.set_size({"width": 560, "height": 300})
        self._sheet.insert_chart(2 + self._charts * CHART_ROWS, CHART_COLUMN, chart)
        self._charts += 1

    def _put(self, row: int, column: int, value: Any, kind: str) -> None:
        if value is None:
            return
        if kind == NOTE:
            self._put_note(row, column, str(value))
        elif kind == "text":
            self._sheet.write_string(row, column, neutral_text(str(value)), self._kinds[kind])
        else:
            self._sheet.write_number(row, column, value, self._kinds[kind])

    def _put_note(self, row: int, column: int, text: str) -> None:
        """Excel finds no height for a text over several columns, so it is given one."""
        lines = 1 + len(text) // ((LAST_COLUMN - column + 1) * COLUMN_WIDTH)
        self._sheet.set_row(row, lines * LINE_HEIGHT)
        self._sheet.merge_range(row, column, row, LAST_COLUMN, "", self._note)
        self._sheet.write_string(row, column, neutral_text(text), self._note)

    def _names_of(self, kind: str) -> Format:
        return self._names if kind in ("text", NOTE) else self._numbers_of
