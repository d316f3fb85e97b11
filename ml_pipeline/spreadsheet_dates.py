"""Days and times as a spreadsheet counts them: days since the end of 1899, the time of day as a fraction.

All give float64; null where the date system of Excel has no number: before 1900 or after 9999.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNIX_EPOCH = 25_569
"""1970-01-01."""
LEAP_DAY_1900 = 60
"""A 1900-02-29 that never was has a number too, so all before it have one less than the days since 1899-12-30."""
END_OF_9999 = 2_958_466
PER_DAY = {"D": 1, "s": 86_400, "ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}


def day_numbers(moments: pa.Array) -> pa.Array:
    """Dates, or timestamps without a zone, as days with a fraction."""
    counted, per_day, missing = _counted(moments)
    days = counted // per_day + UNIX_EPOCH
    days -= days <= LEAP_DAY_1900
    missing |= (days < 1) | (days >= END_OF_9999)
    return pa.array(days + counted % per_day / per_day, mask=missing)


def day_fractions(times: pa.Array) -> pa.Array:
    """Times of day, or durations, in days."""
    counted, per_day, missing = _counted(times)
    return pa.array(counted / per_day, mask=missing)


def _counted(times: pa.Array) -> tuple[np.ndarray, int, np.ndarray]:
    """int64 units since 1970, midnight or nothing; units per day; which are null."""
    width = pa.int32() if times.type.bit_width == 32 else pa.int64()
    unit = "D" if pa.types.is_date32(times.type) else "ms" if pa.types.is_date64(times.type) else times.type.unit
    counted = pc.fill_null(times.cast(width), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return counted, PER_DAY[unit], times.is_null().to_numpy(zero_copy_only=False)
