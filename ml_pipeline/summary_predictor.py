"""From a few numbers to answers: the summary model of a bundle, loaded."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml_pipeline.summary_columns import Matrix

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

BEST = "best"
OUTLOOK_DAYS = (30, 90, 365)


@dataclass(frozen=True)
class SummaryAnswers:
    """Predictions of n customers from what is known of them; the money is in cents.

    money, lower, upper: int64 (n,), spend of the next 30 days and its 80 % interval. probability: float64 (n,) of buying at
    all in them. model_used: n names, `xgboost`, `lightgbm`, `bg_nbd` or that of a rule (`rules.RULES`:
    `lifetime_rate_x_30`, `last_90_days_over_3`, `last_30_days`, `mean`, `zero`). segment: uint8 (n,), index into
    `snapshot.SEGMENTS`. extrapolated: bool (n,), outside of what was trained on.
    """

    money: IntArray
    lower: IntArray
    upper: IntArray
    probability: FloatArray
    model_used: list[str]
    segment: npt.NDArray[np.uint8]
    extrapolated: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outlook:
    """What BG/NBD expects: alive float64 (n,) in 0 … 1, expected_purchases float64 (n, 3) in OUTLOOK_DAYS.

    NaN where transactions, days since the last or days since the first are not known, or where the bundle has no BG/NBD.
    """

    alive: FloatArray
    expected_purchases: FloatArray


@dataclass(frozen=True)
class SummaryPredictor:
    """The summary model of a bundle. Opened after any fork; safe to share between threads."""

    model_types: tuple[str, ...]
    """Those of `xgboost`, `lightgbm` and `bg_nbd` that may be asked for by name; `best` always works."""

    def predict(self, matrix: Matrix, model_type: str = BEST) -> SummaryAnswers:
        """Answers for n customers from a summary matrix (n, C), NaN where something is not known.

        best: by what is known of a row, what won on such rows. Raises MissingSummaryInput when `bg_nbd` is asked for and
        transactions, days_since_last or days_since_first of a row are not known, UnknownModelType for another name than
        BEST and those in `model_types`.
        """
        raise NotImplementedError

    def outlook(self, matrix: Matrix) -> Outlook:
        """Whether n customers still buy and how often, by BG/NBD, from a summary matrix (n, C)."""
        raise NotImplementedError
