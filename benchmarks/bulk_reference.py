"""The script that a data scientist would write for the same file, with the feature matrix already in memory.

`python -m benchmarks.bulk_reference train FOLDER FEATURES` makes its four boosters once;
`python -m benchmarks.bulk_reference run FOLDER FEATURES UPLOAD RESULT` prints its seconds, from reading to the written file.
Imports, boosters and matrix are loaded before its clock starts. It uses all cores.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xgboost
import xlsxwriter

from benchmarks.bulk_model import SEED, customer_ids

TARGETS = ("total", "electronics", "grocery", "sports")
TREES = 300
LEAVES = 8
TRAINING_ROWS = 20_000
CURRENCY = "INR"


def main(arguments: Sequence[str]) -> int:
    """The command."""
    what, folder, matrix, *files = arguments
    features = np.load(matrix)
    if what == "train":
        train(Path(folder), features)
        return 0
    boosters = load(Path(folder))
    customers = np.array(customer_ids(len(features)))
    started = time.perf_counter()
    rows = predict_file(boosters, customers, features, *map(Path, files))
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": rows}))
    return 0


def predict_file(
    boosters: dict[str, xgboost.Booster], customers: np.ndarray, features: np.ndarray, upload: Path, result: Path
) -> int:
    """Reads, predicts every customer, joins by id, writes; how many rows were written."""
    uploaded = READERS[upload.suffix](upload)
    answers = answers_of(boosters, customers, features)
    joined = uploaded.merge(answers, on="customer_id", how="left")
    found = joined["predicted_total_spend"].notna()
    joined["status"] = np.where(found, "success", "failed")
    joined["error"] = np.where(found, "", "unknown customer")
    WRITERS[result.suffix](joined, result)
    return len(joined)


def answers_of(boosters: dict[str, xgboost.Booster], customers: np.ndarray, features: np.ndarray) -> pd.DataFrame:
    """The columns that our result has, the money rounded to cents; all but the four predictions by a formula."""
    raw = {name: np.maximum(booster.inplace_predict(features), 0).astype(float) for name, booster in boosters.items()}
    parts = sum(raw[name] for name in TARGETS[1:])
    total = np.maximum(raw["total"], parts)
    probability = 1 - np.exp(-total / total.mean())
    columns = {f"predicted_{name}_spend": raw[name].round(2) for name in TARGETS[1:]}
    return pd.DataFrame(
        {
            "customer_id": customers,
            "predicted_total_spend": total.round(2),
            **columns,
            "predicted_other_spend": (total - parts).round(2),
            "predicted_total_spend_lower": (0.5 * total).round(2),
            "predicted_total_spend_upper": (2 * total).round(2),
            "purchase_probability_30d": probability.round(4),
            "segment": np.select([total > 400, total > 100], ["High Value", "Medium Value"], "Low Value"),
            "currency": CURRENCY,
            "model_version": "reference",
        }
    )


def train(folder: Path, features: np.ndarray) -> None:
    """Four boosters of 300 trees with 8 leaves, on made-up labels: what they say does not matter here, what they cost does."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(SEED)
    known = features[:TRAINING_ROWS]
    settings = {"objective": "reg:tweedie", "grow_policy": "lossguide", "max_leaves": LEAVES, "max_depth": 0, "seed": 7}
    for name in TARGETS:
        weights = draw.random(known.shape[1])
        scaled = np.nan_to_num(known) / (1 + np.nan_to_num(known).std(axis=0))
        label = np.maximum(scaled @ weights + draw.normal(size=len(known)), 0)
        booster = xgboost.train(settings, xgboost.DMatrix(known, label=label), num_boost_round=TREES)
        booster.save_model(folder / f"{name}.json")


def load(folder: Path) -> dict[str, xgboost.Booster]:
    """The boosters by target."""
    return {name: xgboost.Booster(model_file=folder / f"{name}.json") for name in TARGETS}


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"customer_id": str})


def _read_xlsx(path: Path) -> pd.DataFrame:
    return pd.read_excel(path, dtype={"customer_id": str}, engine="calamine")


def _write_csv(rows: pd.DataFrame, path: Path) -> None:
    rows.to_csv(path, index=False)


def _write_parquet(rows: pd.DataFrame, path: Path) -> None:
    rows.to_parquet(path, index=False)


def _write_xlsx(rows: pd.DataFrame, path: Path) -> None:
    options = {"constant_memory": True, "nan_inf_to_errors": False}
    with xlsxwriter.Workbook(str(path), options) as book:
        sheet = book.add_worksheet()
        sheet.write_row(0, 0, rows.columns)
        filled = rows.astype(object).where(rows.notna(), None)
        for number, cells in enumerate(filled.itertuples(index=False, name=None), 1):
            sheet.write_row(number, 0, cells)


READERS = {".csv": _read_csv, ".xlsx": _read_xlsx, ".parquet": pd.read_parquet}
WRITERS = {".csv": _write_csv, ".xlsx": _write_xlsx, ".parquet": _write_parquet}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
