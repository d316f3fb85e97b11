"""Predictions from summaries: the spend of 30 days, BG/NBD's outlook beside it, and the value over a longer horizon.

Over 90 and 365 days the value is the served spend of 30 days times how many purchases BG/NBD expects over the longer time
for each one that it expects in 30 days. So no horizon contradicts another: each is at least the one before, and at most so
many times the 30 days as it is longer, since a rate of buying only falls when customers stop.
"""

import datetime as dt
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.errors import InvalidRequest, ModelTypeAbsent, ServiceError
from services.model_registry import Model
from services.summary_fields import LONGEST_SHOWN
from services.summary_requests import SummaryRequest, read_summary

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from ml_pipeline.predictor import Predictor
    from ml_pipeline.snapshot import Answers
    from ml_pipeline.summary_predictor import Outlook, SummaryAnswers, SummaryPredictor

BEST, BG_NBD, NEVER_BOUGHT = "best", "bg_nbd", "never_bought"
MODEL_TYPES = ("xgboost", "lightgbm", BG_NBD, BEST)
HORIZONS = (30, 90, 365)
OUTLOOK_FIELDS = {"transactions": "total_orders", "days_since_last": "recency", "days_since_first": "tenure"}
"""What BG/NBD needs to know, and a field that says it."""

Described = SummaryRequest | ServiceError
Answer = dict[str, Any] | ServiceError


@dataclass(frozen=True)
class SummaryOptions:
    """Which model answers, and over how many days `predicted_clv` is; None: 365 for bg_nbd, 30 otherwise.

    Raises InvalidRequest for a type or a horizon that there is not.
    """

    model_type: str = BEST
    horizon_days: int | None = None

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise InvalidRequest(
                f"model_type is {str(self.model_type)[:40]!r}; there are {', '.join(MODEL_TYPES)}. Leave it out for best."
            )
        if self.horizon_days is not None and self.horizon_days not in HORIZONS:
            raise InvalidRequest(
                f"horizon_days is {str(self.horizon_days)[:40]}; it can be {', '.join(map(str, HORIZONS[:-1]))} or "
                f"{HORIZONS[-1]}. Leave it out for {HORIZONS[0]}, or for {HORIZONS[-1]} with model_type={BG_NBD}."
            )

    @property
    def days(self) -> int:
        """Over how many days `predicted_clv` is."""
        return self.horizon_days or (HORIZONS[-1] if self.model_type == BG_NBD else HORIZONS[0])


DEFAULT_OPTIONS = SummaryOptions()


def summary_answers(
    model: Model, requests: Sequence[Mapping[str, Any]], options: SummaryOptions = DEFAULT_OPTIONS
) -> list[Answer]:
    """One answer per request, in their order; what cannot be answered is its error, in its place.

    The bundle's members are loaded on the first call. Raises NoServingModel or BundleMismatch.
    """
    return described_answers(model, [_read(request) for request in requests], options)


def described_answers(
    model: Model, described: Sequence[Described], options: SummaryOptions = DEFAULT_OPTIONS
) -> list[Answer]:
    """As `summary_answers`, of summaries that were read; an error stays in its place."""
    if all(isinstance(one, ServiceError) for one in described):
        return [one for one in described if isinstance(one, ServiceError)]
    predictor = model.predictor.get()
    told = [_answerable(one, predictor.summary.model_types, options) for one in described]
    bought = [one for one in told if isinstance(one, SummaryRequest) and not one.never_bought]
    never = [one for one in told if isinstance(one, SummaryRequest) and one.never_bought]
    shared = _shared(model)
    of_bought = _bought_answers(model, predictor.summary, bought, options, shared)
    of_never = _never_answers(predictor, never, shared)
    return [one if isinstance(one, ServiceError) else next(of_never if one.never_bought else of_bought) for one in told]


def _read(request: Mapping[str, Any]) -> Described:
    try:
        return read_summary(request)
    except ServiceError as problem:
        return problem


def _answerable(one: Described, model_types: Sequence[str], options: SummaryOptions) -> Described:
    """The summary, or why it cannot be answered in the way that was asked for."""
    if isinstance(one, ServiceError):
        return one
    if options.model_type not in (BEST, *model_types):
        return _absent(f"model_type={options.model_type}", f"model_type can be {' or '.join((*model_types, BEST))}")
    asked = f"model_type={BG_NBD}" if options.model_type == BG_NBD else f"horizon_days={options.days}"
    if options.model_type != BG_NBD and options.days == HORIZONS[0]:
        return one
    if BG_NBD not in model_types:
        return _absent(asked, f"horizon_days can be {HORIZONS[0]}")
    if one.never_bought:
        return InvalidRequest(
            f"{asked} needs purchases to go on from, and this customer has 0 orders. Ask with horizon_days={HORIZONS[0]} and "
            f"model_type={BEST}, which answer what such customers spent in the past."
        )
    missing = [name for needed, name in OUTLOOK_FIELDS.items() if needed not in one.inputs]
    if missing:
        return InvalidRequest(
            f"{asked} needs {', '.join(OUTLOOK_FIELDS.values())}, and {' and '.join(missing)} cannot be told from the request. "
            f"Send {'it' if len(missing) == 1 else 'them'} too, or ask with horizon_days={HORIZONS[0]} and model_type={BEST}."
        )
    return one


def _absent(asked: str, way_out: str) -> ModelTypeAbsent:
    return ModelTypeAbsent(
        f"{asked} is not to be had from the serving bundle: there was too little history to train the model that it takes. "
        f"With this bundle {way_out}."
    )


def _shared(model: Model) -> dict[str, Any]:
    return {
        "currency": model.bundle.currency,
        "model_version": model.version,
        "as_of": model.as_of.isoformat(),
        "prediction_date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


# ---- who bought


def _bought_answers(
    model: Model,
    summary: "SummaryPredictor",
    told: Sequence[SummaryRequest],
    options: SummaryOptions,
    shared: Mapping[str, Any],
) -> Iterator[dict[str, Any]]:
    if not told:
        return
    from ml_pipeline.snapshot import CENTS, SEGMENTS
    from ml_pipeline.summary_columns import summary_matrix

    categories = {
        category: target for target, names in model.bundle.content["target_categories"].items() for category in names
    }
    matrix = summary_matrix([one.inputs for one in told], model.bundle.targets, categories)
    answers = summary.predict(matrix, options.model_type)
    outlook = summary.outlook(matrix)
    values = _values(answers, outlook, options.days)
    for row, one in enumerate(told):
        yield {
            "customer_id": one.customer_id,
            "predicted_clv": values[row],
            "horizon_days": options.days,
            "predicted_30d_spend": {"total": int(answers.money[row]) / CENTS},
            "intervals": {
                "total": {"lower": int(answers.lower[row]) / CENTS, "upper": int(answers.upper[row]) / CENTS}
            },
            **shared,
            "model_used": answers.model_used[row],
            **_outlook_fields(outlook.expected_purchases[row], outlook.alive[row]),
            "purchase_probability_30d": _rounded(answers.probability[row]),
            "segment": SEGMENTS[answers.segment[row]],
            "extrapolated": bool(answers.extrapolated[row]),
            **({"extrapolated_features": summary.farthest(matrix[row])} if answers.extrapolated[row] else {}),
            **_cold_start(one),
            "warnings": [
                *one.warnings,
                *_outlook_warnings(one, BG_NBD in summary.model_types),
                *_category_warnings(one, categories),
            ],
            "ignored_inputs": one.ignored,
        }


def _values(answers: "SummaryAnswers", outlook: "Outlook", days: int) -> list[float]:
    """`predicted_clv` of n customers over one of HORIZONS, to the cent."""
    import numpy as np

    from ml_pipeline.snapshot import CENTS

    if days == HORIZONS[0]:
        return (answers.money / CENTS).tolist()
    return (np.round(answers.money * longer_by(outlook.expected_purchases, days)) / CENTS).tolist()


def longer_by(expected_purchases: "npt.NDArray[np.float64]", days: int) -> "npt.NDArray[np.float64]":
    """How many purchases are expected in so many days, one of HORIZONS, for each one expected in 30 days, (n,).

    expected_purchases: float64 (n, 3) in the days of HORIZONS. Between 1 and days / 30, and no less than for a shorter time.
    Who surely stopped buying, of whom no purchase is expected at all, has 1.
    """
    import numpy as np

    rising = np.maximum.accumulate(expected_purchases, axis=1)
    first, whole = rising[:, 0], rising[:, HORIZONS.index(days)]
    with np.errstate(all="ignore"):
        ratio = np.where(whole > 0, whole / first, 1.0)  # an infinity where 30 days are too few for a number above 0
    return np.clip(ratio, 1.0, days / HORIZONS[0])


def _outlook_warnings(one: SummaryRequest, offered: bool) -> Iterator[str]:
    """What is to be known of BG/NBD's numbers, or why they are null."""
    unknown = "The expected purchases and the probabilities of being alive and of churn are null"
    missing = [name for needed, name in OUTLOOK_FIELDS.items() if needed not in one.inputs]
    if not offered:
        yield f"{unknown}: they come from BG/NBD, and there was too little history to train one for the serving bundle."
    elif missing:
        yield (
            f"{unknown}: BG/NBD needs {', '.join(OUTLOOK_FIELDS.values())}, and {' and '.join(missing)} cannot be told from "
            "the request."
        )
    elif one.inputs["days_since_first"] == one.inputs["days_since_last"]:
        orders = "a single order" if one.inputs["transactions"] == 1 else "orders on a single day"
        yield (
            f"probability_alive is 1 by definition after {orders}: BG/NBD lets customers stop only at a repeat purchase. "
            "It does not say that this customer will come back; purchase_probability_30d does."
        )


def _category_warnings(one: SummaryRequest, categories: Mapping[str, str]) -> Iterator[str]:
    dominant = one.inputs.get("dominant_category")
    if isinstance(dominant, str) and dominant.casefold() not in {
        category.strip().casefold() for category in categories
    }:
        told_apart = f"Those are {', '.join(categories)}." if categories else "It tells none apart."
        yield (
            f"dominant_category is {dominant[:LONGEST_SHOWN]!r}, which is none of the categories that the model tells apart; it "
            f"counts as any other one. {told_apart}"
        )


def _cold_start(one: SummaryRequest) -> dict[str, Any]:
    """null where the number of orders is not known."""
    orders = one.inputs.get("transactions")
    return {
        "cold_start": None if orders is None else orders == 1,
        "cold_start_reason": "one_purchase" if orders == 1 else None,
    }


# ---- who never bought


def _never_answers(
    predictor: "Predictor", told: Sequence[SummaryRequest], shared: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if not told:
        return
    import numpy as np

    from ml_pipeline.registration import registration_ages
    from ml_pipeline.snapshot import CENTS, SEGMENTS

    days = np.array([one.inputs.get("days_since_first", np.nan) for one in told], dtype=np.float64)
    answers: Answers = predictor.predict_never_bought(registration_ages(days))
    for row, one in enumerate(told):
        spend = int(answers.money[row, 0]) / CENTS
        yield {
            "customer_id": one.customer_id,
            "predicted_clv": spend,
            "horizon_days": HORIZONS[0],
            "predicted_30d_spend": {"total": spend},
            "intervals": {
                "total": {"lower": int(answers.lower[row, 0]) / CENTS, "upper": int(answers.upper[row, 0]) / CENTS}
            },
            **shared,
            "model_used": NEVER_BOUGHT,
            **_outlook_fields([math.nan] * len(HORIZONS), math.nan),
            "purchase_probability_30d": _rounded(answers.probability[row]),
            "segment": SEGMENTS[answers.segment[row]],
            "extrapolated": False,
            "cold_start": True,
            "cold_start_reason": NEVER_BOUGHT,
            "warnings": [
                *one.warnings,
                "The expected purchases and the probabilities of being alive and of churn are null: BG/NBD speaks of "
                "customers who bought.",
            ],
            "ignored_inputs": one.ignored,
        }


def _outlook_fields(expected_purchases: Iterable[float], alive: float) -> dict[str, float | None]:
    """What BG/NBD says of one customer, in HORIZONS; null where it is NaN."""
    expected = zip(HORIZONS, expected_purchases, strict=True)
    return {
        **{f"expected_purchases_next_{days}_days": _rounded(number) for days, number in expected},
        "probability_alive": _rounded(alive),
        "churn_probability": _rounded(1 - alive),
    }


def _rounded(number: float) -> float | None:
    return None if math.isnan(number) else round(float(number), 4)
