"""Windows of days before an as_of, and time cut into pieces so that every window is a sum of whole pieces."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

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


_ONE = 2**30
"""The weight of a day that counts in full; the others are whole numbers of its parts."""


@dataclass(frozen=True, order=True)
class Decay:
    """Weights of days that halve with every `half_life_days` of age, the same on all days of a bucket.

    buckets: from the day before as_of backwards, without a gap. The weights are whole numbers and depend on the age
    of a day alone, so that sums with them are as exact, and as blind to other as_of days, as sums over windows.
    """

    half_life_days: int
    buckets: tuple[Window, ...]

    def __post_init__(self) -> None:
        expected = 1
        for bucket in self.buckets:
            if bucket.newest != expected:
                raise ValueError(
                    f"bucket {bucket.newest}..{bucket.oldest} begins at {bucket.newest} days before as_of, but {expected} "
                    "follows: give buckets that go on without gap or overlap from day 1 backwards"
                )
            expected = bucket.oldest + 1

    @property
    def label(self) -> str:
        """`45d` for a half-life of 45 days."""
        return f"{self.half_life_days}d"

    @property
    def weight(self) -> str:
        """The column of `Calendar.sights` that holds the weight of the piece's days."""
        return f"weight_{self.label}"

    @property
    def span(self) -> Window:
        """All buckets together."""
        return Window(1, self.buckets[-1].oldest)

    @property
    def rest(self) -> Window:
        """As many days again before the last bucket: they stand for everything before it."""
        return Window(self.span.oldest + 1, 2 * self.span.oldest)

    def weight_of(self, bucket: Window) -> int:
        """The mean over the bucket's days of 2^(-age / half-life), in parts of 2^30."""
        return _mean_weight(self.half_life_days, bucket)

    @property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """(start, slope) of straight lines, the lowest of which at t is the weight of the last t days together.

        One per bucket, then one for the rest and a level one beyond it: weights never rise with age.
        """
        lines, reached = [], 0
        for bucket in (*self.buckets, self.rest):
            weight = self.weight_of(bucket)
            lines.append((reached - weight * (bucket.newest - 1), weight))
            reached += weight * bucket.days
        return (*lines, (reached, 0))

    def weight_at(self, age: int) -> int:
        """The weight of the day that lies `age` days before as_of; 0 outside of the buckets."""
        return next((self.weight_of(bucket) for bucket in self.buckets if bucket.newest <= age <= bucket.oldest), 0)


@lru_cache(maxsize=1_000)
def _mean_weight(half_life_days: int, bucket: Window) -> int:
    ages = range(bucket.newest, bucket.oldest + 1)
    return round(_ONE * sum(2 ** (-age / half_life_days) for age in ages) / bucket.days)


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
    """The days that any window of any as_of sees, cut into pieces at all edges of all windows and of decays' buckets.

    A piece is the longest run of days that every window of every as_of sees whole or not at all. A period is what
    lies between two as_of days: period k is seen since the beginning by as_of number k and all later ones.

    as_of_days: any order, equal days count once, at least one. facts: columns that as_of alone decides.
    """

    def __init__(
        self,
        as_of_days: Sequence[date],
        windows: Sequence[Window],
        facts: Mapping[str, Callable[[date], float]],
        decays: Sequence[Decay] = (),
    ) -> None:
        if not as_of_days:
            raise ValueError("as_of_days is empty: customers are described at the start of a day; name at least one")
        self.as_of_days = tuple(sorted(set(as_of_days)))
        self.windows = tuple(sorted(set(windows)))
        self.decays = tuple(sorted(set(decays)))
        self._facts = facts
        self._as_ofs = [(as_of - _EPOCH).days for as_of in self.as_of_days]
        self._spans = {*self.windows, *(bucket for decay in self.decays for bucket in decay.buckets)}
        edges = set(self._as_ofs)
        for as_of in self._as_ofs:
            edges |= {as_of - span.oldest for span in self._spans}
            edges |= {as_of - span.newest + 1 for span in self._spans}
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
        """One row per (piece, as_of that sees it in some window or bucket).

        piece, as_of_number, one flag per window, one weight per decay.
        """
        rows = []
        farthest = max((span.oldest for span in self._spans), default=0)
        for piece, start in enumerate(self._edges[:-1]):
            for number, as_of in enumerate(self._as_ofs):
                age = as_of - start
                if not 1 <= age <= farthest:
                    continue
                seen = [window.newest <= age <= window.oldest for window in self.windows]
                weights = [decay.weight_at(age) for decay in self.decays]
                if any(seen) or any(weights):
                    rows.append((piece, number, *seen, *weights))
        kinds = {"piece": pa.int32(), "as_of_number": pa.int32()}
        kinds |= dict.fromkeys((window.flag for window in self.windows), pa.bool_())
        # As wide as what they multiply, which would otherwise be widened once per row.
        kinds |= dict.fromkeys((decay.weight for decay in self.decays), pa.decimal128(38, 0))
        columns = zip(*rows, strict=True) if rows else ((),) * len(kinds)
        return pa.table([pa.array(c, kind) for c, kind in zip(columns, kinds.values(), strict=True)], names=list(kinds))

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
