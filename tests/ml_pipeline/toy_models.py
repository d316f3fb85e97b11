"""A small real bundle and snapshot for tests of what stands behind the pipeline: no training, made-up numbers."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import numpy as np

from ml_pipeline.bundle import BundleMetadata, ServingPair, seal_bundle, staged_folder, versions_dir, write_pointer
from ml_pipeline.candidates import member_name
from ml_pipeline.features import LIFETIME_SPEND, feature_names
from ml_pipeline.intervals import Intervals
from ml_pipeline.predictor import GOLDEN, Predictor, save_golden
from ml_pipeline.reconcile import TOP_DOWN
from ml_pipeline.registration import REGISTRATION_AGES
from ml_pipeline.snapshot import Answers, money_columns, write_snapshot
from ml_pipeline.summary_members import SummaryMembers
from ml_pipeline.sums import SumIntervals
from tests.ml_pipeline.toy_summary import MEAN, toy_summary, write_summary

TARGETS = ("electronics", "grocery", "sports")
AS_OF = date(2026, 1, 1)


def write_toy_pair(
    models_dir: Path,
    customer_ids: Sequence[str],
    targets: Sequence[str] = TARGETS,
    as_of: date = AS_OF,
    seed: int = 7,
    currency: str = "INR",
) -> ServingPair:
    """Writes and promotes a pair whose predictions are random but coherent; one seed, one pair."""
    rng = np.random.default_rng(seed)
    names = feature_names(targets)
    n = len(customer_ids)
    parts = rng.integers(0, 500_00, size=(n, len(targets) + 1))
    money = np.column_stack([parts.sum(axis=1), parts]).astype(np.int64)
    raw_names = [member_name("xgboost", name) for name in ("total", *targets)]
    answers = Answers(
        money=money,
        lower=money // 2,
        upper=money * 2,
        probability=rng.random(n),
        segment=rng.integers(0, 3, size=n).astype(np.uint8),
        cold_start_reason=rng.choice(3, n, p=(0.9, 0.03, 0.07)).astype(np.uint8),
        extrapolated=np.arange(n) % 7 == 3,
        variance=np.square(money / 100),
        raw=rng.random((n, len(raw_names))) * 1000,
    )
    wide = Intervals(1.0, np.zeros(1), np.array([0.5]), np.array([2.0]))
    none = dict.fromkeys(money_columns(targets), 0.0)
    nothing_yet = {"spend": none, "upper": none, "variance": none, "probability": 0.1}
    content = {
        "as_of": as_of.isoformat(),
        "currency": currency,
        "spend": "gross",
        "target_categories": {name: [name] for name in targets},
        "horizon_days": 30,
        "targets": list(targets),
        "features": list(names),
        "trained_on": {"as_of": as_of.isoformat(), "observations": 10, "customers": n, "seed": seed},
        "libraries": {},
        "members": {},
        "serving": {
            name: {
                "kind": "rule",
                "name": "zero",
                "formula": {"kind": "rule", "name": "zero", "mean": 0.0},
                "cap": 1e6,
            }
            for name in money_columns(targets)
        },
        "ranges": {
            name: {"low": 0.0, "high": 0.5 if name == LIFETIME_SPEND else 1.0, "missing": False} for name in names
        },
        "sums": {name: SumIntervals(1.0, np.zeros(1), np.ones(1), 0.1, 6).as_json() for name in money_columns(targets)},
        "usual_shares": [1 / (len(targets) + 1)] * (len(targets) + 1),
        "segments": {"quantiles": [0.5, 0.8], "thresholds": [100.0, 400.0]},
        "reconciliation": {"name": TOP_DOWN},
        "intervals": dict.fromkeys(money_columns(targets), wide.as_json()),
        "probability": {"kind": "rate", "rate": 0.4},
        "summary": toy_summary(targets),
        "never_bought": {"ages": dict.fromkeys(REGISTRATION_AGES, nothing_yet)},
    }
    with staged_folder(versions_dir(models_dir)) as staging:
        (staging / "backtest.json").write_text(json.dumps(toy_backtest(targets)), "utf-8")
        (staging / "MODEL_CARD.md").write_text("# Toy\n", "utf-8")
        nothing = np.zeros((2, len(names)), dtype=np.float32)
        draft = Predictor(BundleMetadata("draft", content), {}, summary_members=SummaryMembers(MEAN))
        save_golden(draft, nothing, staging / GOLDEN)
        write_summary(draft, staging)
        bundle_id = seal_bundle(staging, models_dir, content)
    snapshot_id = write_snapshot(
        models_dir,
        as_of=as_of,
        bundle_id=bundle_id,
        currency=currency,
        targets=targets,
        raw_names=raw_names,
        customer_ids=customer_ids,
        features=rng.random((n, len(names))).astype(np.float32),
        answers=answers,
    )
    pair = ServingPair(bundle_id, snapshot_id)
    write_pointer(models_dir, pair)
    return pair


def toy_backtest(targets: Sequence[str]) -> dict[str, object]:
    """A backtest of the real shape with one rule."""
    candidate = {
        "name": "zero",
        "kind": "rule",
        "metrics": {"all": {"mae": 1.0, "bias": 0.0}, "active_90d": {"mae": 1.0, "bias": 0.0}},
    }
    served = {"served": "zero", "best_rule": "zero", "beats_best_rule": False, "candidates": [candidate]}
    return {
        "selection_days": ["2025-11-02"],
        "report_days": ["2025-12-02"],
        "selection_rule": "toy",
        "targets": dict.fromkeys(("total", *targets), served),
        "probability": {"served": {"auc": 0.5, "brier": 0.25, "log_loss": 0.69}},
        "intervals": {},
    }
