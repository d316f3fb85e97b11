"""A summary model for bundles that tests make up: rules alone, or given members."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ml_pipeline.intervals import Intervals
from ml_pipeline.predictor import Predictor
from ml_pipeline.summary_columns import SUMMARY_INPUTS, summary_columns
from ml_pipeline.summary_forms import FORMS, INPUTS_OF_FORM
from ml_pipeline.summary_members import MODEL_TYPES, SummaryMembers
from ml_pipeline.summary_predictor import GOLDEN, save_summary_golden

SERVES = {
    "eighteen_fields": ["last_90_days_over_3", "lifetime_rate_x_30", "mean"],
    "seven_fields": ["lifetime_rate_x_30", "mean"],
    "six_features": ["mean"],
}
MEAN, RATE = 250.0, 0.4


def toy_summary(
    targets: Sequence[str], members: SummaryMembers | None = None, serves: dict[str, list[str]] | None = None
) -> dict[str, object]:
    """What metadata.json says of a summary model whose classifier is the share of buyers."""
    wide = Intervals(1.0, np.zeros(1), np.array([0.5]), np.array([2.0])).as_json()
    orders = serves or SERVES
    return {
        "inputs": list(SUMMARY_INPUTS),
        "columns": list(summary_columns(targets)),
        "inputs_not_learned": [],
        "members": members.as_json() if members else {},
        "model_types": list(members.model_types) if members else [],
        "left_out": {},
        "mean": MEAN,
        "rounds": 0,
        "rows": 0,
        "forms": {
            form: {
                "inputs": list(INPUTS_OF_FORM[form]),
                "serves": orders[form],
                "levels": {},
                "probability": {"kind": "rate", "rate": RATE},
                "intervals": dict.fromkeys([*orders[form], *MODEL_TYPES], wide),
            }
            for form in FORMS
        },
    }


def write_summary(predictor: Predictor, staging: Path) -> None:
    """The summary model's files of a bundle to be; its golden rows know nothing, and everything."""
    (staging / "members").mkdir(exist_ok=True)
    predictor.summary_members.save(staging)
    width = len(summary_columns(predictor.metadata.targets))
    golden = np.vstack([np.full(width, np.nan), np.arange(1.0, width + 1)]).astype(np.float32)
    save_summary_golden(predictor.summary, golden, staging / GOLDEN)
