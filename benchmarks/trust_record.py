"""Collects from a models folder what trust is measured on, so that the folder itself need not be kept.

`python -m benchmarks.trust_record --models DIR --out FILE.npz`
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from benchmarks.public_data import FloatArray
from benchmarks.trust_reasons import ReasonChecks, check_reasons, some_customers
from ml_pipeline.bundle import read_pointer
from ml_pipeline.formulas import Known
from ml_pipeline.members import Matrix
from ml_pipeline.predictor import Predictor, load_predictor
from ml_pipeline.snapshot import load_snapshot, money_columns

PER_CUSTOMER = ("customer_ids", "money", "lower", "upper", "unreconciled", "variance", "probability")
SLICE = 50_000


@dataclass(frozen=True)
class TrustRecord:
    """What serves all known customers (n,), in the byte order of their ids; those whose purchases were all taken back too.

    money, lower, upper, unreconciled (before the parts were made to agree), variance: (n, 2 + targets), columns as named.
    sums: column -> parameters of `ml_pipeline.sums.SumIntervals`. reasons: of 1,000 of those with a purchase that stands.
    """

    columns: tuple[str, ...]
    customer_ids: npt.NDArray[np.str_]
    money: FloatArray
    lower: FloatArray
    upper: FloatArray
    unreconciled: FloatArray
    variance: FloatArray
    probability: FloatArray
    sums: Mapping[str, Mapping[str, Any]]
    method: str
    reasons: ReasonChecks


def collect(models: Path) -> TrustRecord:
    """Reads the pair that serves. Raises what the pipeline raises for a folder without one."""
    pair = read_pointer(models)
    predictor = load_predictor(models, pair.bundle_id)
    snapshot = load_snapshot(models, pair.snapshot_id)
    everyone = np.arange(snapshot.n_customers)
    features = snapshot.features(everyone)
    buyers = np.flatnonzero(~np.isnan(features).all(axis=1))
    money, variance = snapshot.money(everyone)
    answers = snapshot.columns(everyone)
    unreconciled = money.copy()  # what is told of who never bought adds up as it is
    unreconciled[buyers] = _unreconciled(predictor, features[buyers])
    columns = money_columns(snapshot.targets)
    lower, upper = (
        np.column_stack([answers[f"predicted_{name}_spend_{end}"] for name in columns]) for end in ("lower", "upper")
    )
    chosen = buyers[some_customers(len(buyers))]
    content = predictor.metadata.content
    return TrustRecord(
        columns,
        np.array(snapshot.customer_ids(everyone), dtype=np.str_),
        money,
        lower,
        upper,
        unreconciled,
        variance,
        answers["purchase_probability_30d"],
        {name: content["sums"][name] for name in columns},
        json.dumps(content["reconciliation"]),
        check_reasons(predictor, features[chosen], money[chosen]),
    )


def _unreconciled(predictor: Predictor, features: Matrix) -> FloatArray:
    """What serves before it is made to agree, (n, 2 + targets)."""
    names, targets = predictor.metadata.features, predictor.metadata.targets
    blocks = []
    for start in range(0, len(features), SLICE):
        block = features[start : start + SLICE]
        own = {name: predictor.members[name].predict(block, predictor.threads) for name in predictor.needed_members()}
        blocks.append(predictor.served(Known(block, names, targets, own)))
    return np.concatenate(blocks)


def save_record(record: TrustRecord, file: Path) -> None:
    """Writes it to one .npz."""
    reasons = record.reasons
    np.savez_compressed(
        file,
        allow_pickle=False,
        **{name: getattr(record, name) for name in PER_CUSTOMER},
        **{name: getattr(reasons, name) for name in ReasonChecks.__annotations__},
        columns=np.array(record.columns),
        sums=np.array(json.dumps(record.sums)),
        method=np.array(record.method),
    )


def load_record(file: Path) -> TrustRecord:
    """What `save_record` wrote."""
    with np.load(file, allow_pickle=False) as kept:
        reasons = ReasonChecks(
            kept["gap"],
            kept["adjustment"],
            kept["distance"],
            int(kept["idle"]),
            int(kept["changed"]),
            float(kept["seconds"]),
        )
        return TrustRecord(
            columns=tuple(kept["columns"].tolist()),
            **{name: kept[name] for name in PER_CUSTOMER},
            sums=json.loads(str(kept["sums"])),
            method=str(kept["method"]),
            reasons=reasons,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust_record", description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="folder of the models")
    parser.add_argument("--out", type=Path, required=True, help="where the record goes: .npz")
    options = parser.parse_args(arguments)
    with threadpool_limits(1):
        save_record(collect(options.models), options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
