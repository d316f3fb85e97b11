"""How long ago a customer registered: all that is known of somebody who never bought, on a past day as well as today."""

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

OLDEST_DAYS = (30, 90, 365)
"""The last day of each age but the oldest, which has no end."""
REGISTRATION_AGES = ("up_to_30_days", "31_to_90_days", "91_to_365_days", "over_365_days", "unknown")
UNKNOWN_AGE = REGISTRATION_AGES.index("unknown")


def registration_ages(days: FloatArray) -> npt.NDArray[np.uint8]:
    """Index into REGISTRATION_AGES (n,) of days from customer_since to as_of (n,), NaN where customer_since is missing.

    A registration on or after as_of says nothing as of then, and counts as unknown.
    """
    ages = np.searchsorted(np.array(OLDEST_DAYS), np.nan_to_num(days, nan=0.0), side="left")
    return np.where(days >= 1, ages, UNKNOWN_AGE).astype(np.uint8)
