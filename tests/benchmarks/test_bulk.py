"""The benchmark of large files judges by its goals and compares like with like."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bulk import main
from benchmarks.bulk_client import Form
from benchmarks.bulk_memory import PeakMemory
from benchmarks.bulk_model import customer_ids
from benchmarks.bulk_page import FormatReport, claims_of, render
from benchmarks.bulk_reference import READERS, TARGETS, predict_file
from benchmarks.bulk_runs import Run
from benchmarks.bulk_uploads import FORMATS, upload_file
from ml_pipeline.snapshot import result_columns


def a_run(rows: int = 1_000_000, seconds: float = 9.0, eta: float | None = 1.1, peak: int = 2**30) -> Run:
    memory = PeakMemory()
    memory.resident, memory.proportional = {"web": 2**20, "worker-1 child": peak}, 2 * peak
    return Run(rows, seconds, 0.5, seconds - 1, 0.4, 1.5, eta, 10**8, memory)


def verdicts(report: FormatReport) -> dict[str, bool]:
    return {claim.what: claim.met for claim in claims_of(report) if claim.met is not None}


def test_a_csv_that_reaches_every_goal_is_told_so() -> None:
    report = FormatReport("csv", [a_run()], [a_run(100_000, 1.0)], [20.0])
    assert verdicts(report) == {
        "ours ÷ reference": True,
        "growth for ten times the rows": True,
        "first rows done, s after the upload": True,
        "remaining time told at 20 % of the rows ÷ the true one": True,
        "largest process": True,
    }
    assert "| ours ÷ reference | 0.45 | ≤ 0.50 | yes |" in render(report)


@pytest.mark.parametrize(
    ("missed", "run", "reference"),
    [
        ("ours ÷ reference", a_run(seconds=10.2), 20.0),
        ("growth for ten times the rows", a_run(seconds=12.0), 90.0),
        ("remaining time told at 20 % of the rows ÷ the true one", a_run(eta=0.6), 20.0),
        ("largest process", a_run(peak=2**31), 20.0),
    ],
)
def test_a_missed_goal_is_told(missed: str, run: Run, reference: float) -> None:
    report = FormatReport("csv", [run], [a_run(100_000, 1.0)], [reference])
    assert [what for what, met in verdicts(report).items() if not met] == [missed]


def test_turns_are_told_by_their_median_and_the_worst_promise_counts() -> None:
    turns = [a_run(seconds=seconds, eta=eta) for seconds, eta in ((8.0, 1.0), (30.0, 0.5), (9.0, None))]
    report = FormatReport("csv", turns, [], [18.0, 40.0, 20.0])
    assert report.ratio == pytest.approx(9.0 / 20.0)
    assert verdicts(report)["remaining time told at 20 % of the rows ÷ the true one"] is False


class Booster:
    """Says of every customer his first feature."""

    def inplace_predict(self, features: np.ndarray) -> np.ndarray:
        return features[:, 0]


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_reference_writes_our_columns_for_every_row_in_its_order(tmp_path: Path, file_format: str) -> None:
    upload = upload_file(tmp_path, file_format, 30, 40)
    features = np.arange(40, dtype=np.float32).reshape(40, 1)
    result = tmp_path / f"result.{file_format}"
    boosters = dict.fromkeys(TARGETS, Booster())
    assert predict_file(boosters, np.array(customer_ids(40)), features, upload, result) == 30
    sent, made = READERS[upload.suffix](upload), READERS[result.suffix](result)
    assert list(made.columns) == [*sent.columns, *result_columns(TARGETS[1:])]
    assert made["customer_id"].tolist() == sent["customer_id"].tolist()
    assert made["predicted_sports_spend"].tolist() == [float(name[1:]) for name in sent["customer_id"]]


def test_a_form_is_as_long_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"customer_id\n1\n")
    form = Form(path)
    assert form.sent_at == 0
    assert len(b"".join(form)) == len(form)
    assert form.sent_at > 0


@pytest.mark.parametrize("choice", [["--quick"], ["--rows", "5"], ["--formats", "csv"], ["--no-reference"]])
def test_a_page_is_written_only_of_the_whole(choice: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--write", *choice])
    assert ended.value.code == 2
    assert "--write reports a million rows in every format" in capsys.readouterr().err
