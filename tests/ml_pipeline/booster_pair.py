"""A small real bundle that can be loaded and explained, made in a moment: one booster for the total, a rule for the parts."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from ml_pipeline.bundle import BundleMetadata, ServingPair, seal_bundle, staged_folder, versions_dir, write_pointer
from ml_pipeline.candidates import member_name
from ml_pipeline.features import feature_names, feature_set
from ml_pipeline.formulas import member_formula, rule_formula
from ml_pipeline.guardrails import trained_ranges
from ml_pipeline.intervals import Intervals
from ml_pipeline.members import Matrix, XGBoostMember
from ml_pipeline.predictor import GOLDEN, Predictor, joined, save_golden
from ml_pipeline.reconcile import TOP_DOWN
from ml_pipeline.registration import REGISTRATION_AGES
from ml_pipeline.snapshot import money_columns, write_snapshot
from ml_pipeline.summary_forms import FORMS
from ml_pipeline.summary_members import SummaryMembers
from ml_pipeline.sums import SumIntervals
from tests.ml_pipeline.toy_models import AS_OF, TARGETS, toy_backtest
from tests.ml_pipeline.toy_summary import MEAN, toy_summary, write_summary

MEMBER = member_name("xgboost", "total")
PRIOR = {"total": 40.0, "electronics": 10.0, "grocery": 20.0, "sports": 5.0, "other": 5.0}
"""What is predicted of who never bought."""


def write_booster_pair(
    models_dir: Path,
    buyers: Sequence[str],
    never_bought: Sequence[str],
    as_of: date = AS_OF,
    seed: int = 7,
    summary: SummaryMembers | None = None,
) -> ServingPair:
    """Writes and promotes a pair with the default targets whose total is a booster's; one seed, one pair.

    summary: what answers summaries, its boosters first; rules alone without it.
    """
    names = feature_names(TARGETS)
    features = random_features(len(buyers), seed)
    booster = train_booster(features, names)
    content = bundle_content(features, names, as_of)
    if summary is not None:
        content["summary"] = toy_summary(TARGETS, summary, {form: [*summary.boosters, "mean"] for form in FORMS})
    members = summary or SummaryMembers(MEAN)
    predictor = Predictor(BundleMetadata("draft", content), {MEMBER: booster}, summary_members=members)
    with staged_folder(versions_dir(models_dir)) as staging:
        (staging / "members").mkdir()
        booster.save(staging / content["members"][MEMBER]["file"])
        save_golden(predictor, features[:8], staging / GOLDEN)
        write_summary(predictor, staging)
        (staging / "MODEL_CARD.md").write_text("# Booster\n", "utf-8")
        (staging / "backtest.json").write_text(json.dumps(toy_backtest(TARGETS)), "utf-8")
        bundle_id = seal_bundle(staging, models_dir, content)
    unknown_age = np.full(len(never_bought), len(REGISTRATION_AGES) - 1, dtype=np.uint8)
    snapshot_id = write_snapshot(
        models_dir,
        as_of=as_of,
        bundle_id=bundle_id,
        currency=content["currency"],
        targets=TARGETS,
        raw_names=predictor.raw_names,
        customer_ids=[*buyers, *never_bought],
        features=np.concatenate([features, np.full((len(never_bought), len(names)), np.nan, dtype=np.float32)]),
        answers=joined(predictor.predict(features), predictor.predict_never_bought(unknown_age)),
    )
    pair = ServingPair(bundle_id, snapshot_id)
    write_pointer(models_dir, pair)
    return pair


def random_features(n: int, seed: int) -> Matrix:
    """Numbers that each feature could have, (n, F); a tenth is missing where that is possible."""
    rng = np.random.default_rng(seed)
    columns = []
    for feature in feature_set(TARGETS):
        if feature.unit in ("0 or 1", "share", "-1 to 1"):
            column = rng.integers(0, 2, n).astype(float) if feature.unit == "0 or 1" else rng.random(n)
        elif feature.unit.startswith("money"):
            column = np.round(rng.gamma(1.0, 800.0, n), 2)
        else:
            column = rng.integers(0, 7, n).astype(float)
        columns.append(np.where((rng.random(n) < 0.1) & (feature.missing != "never"), np.nan, column))
    return np.column_stack(columns).astype(np.float32)


def train_booster(features: Matrix, names: Sequence[str]) -> XGBoostMember:
    """A few trees on a made-up rule: a third of the last quarter's spend, less the longer nothing was bought."""
    import xgboost

    known = dict(zip(names, np.nan_to_num(features).T, strict=True))
    label = known["total_spend_90d"] / 3 + 50 * known["transaction_count_30d"]
    label = label / (1 + known["days_since_last_transaction"] / 10)
    matrix = xgboost.DMatrix(features, label=label, feature_names=list(names))
    settings = {"objective": "reg:tweedie", "max_depth": 3, "eta": 0.5, "nthread": 1, "seed": 7}
    return XGBoostMember(xgboost.train(settings, matrix, num_boost_round=15))


def bundle_content(features: Matrix, names: Sequence[str], as_of: date) -> dict[str, object]:
    """What metadata.json says of the bundle."""
    columns = money_columns(TARGETS)
    wide = Intervals(1.0, np.zeros(1), np.array([0.5]), np.array([2.0])).as_json()
    own_error = SumIntervals(1.0, np.zeros(1), np.ones(1), 0.1, 6).as_json()
    serving = {
        name: {"kind": "rule", "name": "last_90_days_over_3", "formula": rule_formula("last_90_days_over_3", 100.0)}
        for name in columns
    }
    serving["total"] = {"kind": "model", "name": MEMBER, "formula": member_formula(MEMBER)}
    prior = {"spend": PRIOR, "upper": PRIOR, "variance": PRIOR, "probability": 0.1}
    return {
        "as_of": as_of.isoformat(),
        "currency": "INR",
        "spend": "gross",
        "target_categories": {name: [name] for name in TARGETS},
        "horizon_days": 30,
        "targets": list(TARGETS),
        "features": list(names),
        "trained_on": {"as_of": as_of.isoformat(), "observations": len(features), "customers": len(features)},
        "libraries": {},
        "members": {
            MEMBER: {"file": f"members/{MEMBER}.json", "library": "xgboost", "target": "total", "integrators": True}
        },
        "serving": {name: {**each, "cap": 1e6} for name, each in serving.items()},
        "reconciliation": {"name": TOP_DOWN},
        "usual_shares": [0.25] * 4,
        "ranges": trained_ranges(features, names),
        "intervals": dict.fromkeys(columns, wide),
        "sums": dict.fromkeys(columns, own_error),
        "probability": {"kind": "rate", "rate": 0.4},
        "never_bought": {"ages": dict.fromkeys(REGISTRATION_AGES, prior)},
        "segments": {"quantiles": [0.5, 0.8], "thresholds": [100.0, 400.0]},
        "summary": toy_summary(TARGETS),
    }
