"""Windows of days before an as_of, and time cut into pieces so that every window is a sum of whole pieces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
import pyarrow as pa

_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, order=True)
class Window:
    """Days before as_of, both inclusive: Window(1, 7) is as_of-7 .. as_of-1, Window(31, 60) is as_of-60 .. as_of-31."""

    newest: int
    oldest: int

    def __post_init__(self) -> None:
        if not 1 <= self.newest <= self.oldest:
            raise ValueError(
                f"window {self.newest}..{self.oldest}: the newest day is at least 1 day before as_of and not "
                "older than the oldest; give Window(newest, oldest) with 1 <= newest <= oldest"
            )

    @property
    def days(self) -> int:
        """How many days it spans."""
        return self.oldest - self.newest + 1

    @property
    def label(self) -> str:
        """`30d` when it reaches to the day before as_of, else `31_60d`."""
        return f"{self.oldest}d" if self.newest == 1 else f"{self.newest}_{self.oldest}d"

    @property
    def flag(self) -> str:
        """The column of `Calendar.sights` that says whether the window sees the piece."""
        return f"in_{self.label}"


@dataclass(frozen=True)
class TimeTables:
    """The three small tables of a `Calendar` as an engine sees them, and three facts of theirs as scalars."""

    days: ir.Table
    sights: ir.Table
    as_ofs: ir.Table
    eve: ir.DateScalar
    """The first of `days`: the day before the first piece, standing for all earlier ones."""
    end: ir.DateScalar
    """The last as_of; it and later days are seen by none."""
    n_as_ofs: ir.IntegerScalar


class Calendar:
    """The days that any window of any as_of sees, cut into pieces at all edges of all windows.

    A piece is the longest run of days that every window of every as_of sees whole or not at all. A period is what
    lies between two as_of days: period k is seen since the beginning by as_of number k and all later ones.

    as_of_days: any order, equal days count once, at least one. facts: columns that as_of alone decides.
    """

    def __init__(
        self, as_of_days: Sequence[date], windows: Sequence[Window], facts: Mapping[str, Callable[[date], float]]
    ) -> None:
        if not as_of_days:
            raise ValueError("as_of_days is empty: customers are described at the start of a day; name at least one")
        self.as_of_days = tuple(sorted(set(as_of_days)))
        self.windows = tuple(sorted(set(windows)))
        self._facts = facts
        self._as_ofs = [(as_of - _EPOCH).days for as_of in self.as_of_days]
        edges = set(self._as_ofs)
        for as_of in self._as_ofs:
            edges |= {as_of - window.oldest for window in self.windows}
            edges |= {as_of - window.newest + 1 for window in self.windows}
        self._edges = sorted(edges)

    def days(self) -> pa.Table:
        """One row per day up to the last as_of - 1: calendar_day, piece, period.

        The first row is the eve, the day before the first piece; it stands for all earlier days too (piece -1).
        """
        numbers = range(self._edges[0] - 1, self._as_ofs[-1])
        pieces, periods = [], []
        piece, period = -1, 0
        for day in numbers:
            while self._edges[piece + 1] <= day:
                piece += 1
            while self._as_ofs[period] <= day:
                period += 1
            pieces.append(piece)
            periods.append(period)
        return pa.table(
            {
                "calendar_day": pa.array([_EPOCH + timedelta(days=day) for day in numbers], pa.date32()),
                "piece": pa.array(pieces, pa.int32()),
                "period": pa.array(periods, pa.int32()),
            }
        )

    def sights(self) -> pa.Table:
        """One row per (piece, as_of that sees it in some window): piece, as_of_number, one flag per window."""
        rows = []
        for piece, start in enumerate(self._edges[:-1]):
            for number, as_of in enumerate(self._as_ofs):
                seen = [window.newest <= as_of - start <= window.oldest for window in self.windows]
                if any(seen):
                    rows.append((piece, number, *seen))
        names = ("piece", "as_of_number", *(window.flag for window in self.windows))
        types = (pa.int32(), pa.int32(), *(pa.bool_() for _ in self.windows))
        columns = zip(*rows, strict=True) if rows else ((),) * len(names)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return pa.table(arrays, names=list(names))

    def as_ofs(self) -> pa.Table:
        """One row per as_of day: as_of_number (0, 1, ... in time), as_of, as_of_day, the facts."""
        columns = {
            "as_of_number": pa.array(range(len(self.as_of_days)), pa.int32()),
            "as_of": pa.array(self.as_of_days, pa.date32()),
            "as_of_day": pa.array(self._as_ofs, pa.int32()),
        }
        for name, fact in self._facts.items():
            columns[name] = pa.array([fact(day) for day in self.as_of_days], pa.float64())
        return pa.table(columns)

    def in_memory(self) -> TimeTables:
        """The tables as parts of any expression, whatever engine runs it; the scalars as literals, which scan fastest."""
        days, sights, as_ofs = (ibis.memtable(table) for table in (self.days(), self.sights(), self.as_ofs()))
        eve = _EPOCH + timedelta(days=self._edges[0] - 1)
        n_as_ofs = ibis.literal(len(self.as_of_days))
        return TimeTables(days, sights, as_ofs, ibis.literal(eve), ibis.literal(self.as_of_days[-1]), n_as_ofs)


def stored_time(days: ir.Table, sights: ir.Table, as_ofs: ir.Table) -> TimeTables:
    """The tables of a calendar that an engine keeps: an expression over them outlives a change of the rows."""
    eve, end = days.calendar_day.min().as_scalar(), as_ofs.as_of.max().as_scalar()
    return TimeTables(days, sights, as_ofs, eve, end, as_ofs.count().as_scalar())
