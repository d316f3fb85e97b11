"""The features of the target window: decided by as_of alone, so worked out once per as_of day and not once per row."""

import calendar
import math
from datetime import date, timedelta

import ibis.expr.types as ir

from ml_pipeline.feature_definitions import TIME_OF_YEAR, Feature
from ml_pipeline.schema import HORIZON_DAYS
from ml_pipeline.wording import Occasion, counted

MIDDLE_OF_WINDOW_DAYS = 14
"""The month of this day of the window stands for all of it."""


class CalendarFeature(Feature):
    """A fact of the target window."""

    theme = TIME_OF_YEAR

    def of(self, as_of: date) -> float:
        """The number for one as_of day."""
        raise NotImplementedError

    def value(self, row: ir.Table) -> ir.Value:
        return row[self.name]


def _month(as_of: date) -> int:
    return (as_of + timedelta(days=MIDDLE_OF_WINDOW_DAYS)).month


def _month_angle(as_of: date) -> float:
    return 2 * math.pi * (_month(as_of) - 1) / 12


class TargetMonthSin(CalendarFeature):
    """Sine of the month of as_of + 14 days on the circle of the year, January at 0."""

    unit = "-1 to 1"

    def of(self, as_of: date) -> float:
        return math.sin(_month_angle(as_of))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"the {HORIZON_DAYS} days lie in {calendar.month_name[_month(occasion.as_of)]}"


class TargetMonthCos(CalendarFeature):
    """Cosine of the month of as_of + 14 days on the circle of the year, January at 1."""

    unit = "-1 to 1"

    def of(self, as_of: date) -> float:
        return math.cos(_month_angle(as_of))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"the {HORIZON_DAYS} days lie in {calendar.month_name[_month(occasion.as_of)]}"


class TargetWeekendDays(CalendarFeature):
    """Saturdays and Sundays among the 30 days from as_of on."""

    unit = "days"

    def of(self, as_of: date) -> float:
        return float(sum((as_of + timedelta(days=ahead)).weekday() >= 5 for ahead in range(HORIZON_DAYS)))

    def said(self, value: float, occasion: Occasion) -> str:
        return f"the {HORIZON_DAYS} days have {counted(value, 'weekend day')}"


class TargetDaysToYearEnd(CalendarFeature):
    """Days from as_of to 31 December of its year, 0 on the day itself."""

    unit = "days"

    def of(self, as_of: date) -> float:
        return float((date(as_of.year, 12, 31) - as_of).days)

    def said(self, value: float, occasion: Occasion) -> str:
        first = occasion.as_of
        return f"the {HORIZON_DAYS} days begin on {first.day} {calendar.month_name[first.month]}"
