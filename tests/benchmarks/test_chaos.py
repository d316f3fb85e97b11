"""The short form of the chaos run, and whether it would notice what it is there to notice."""

from collections import Counter
from pathlib import Path

import pytest
import xlsxwriter

from benchmarks.chaos import SHORT, main, run_chaos
from benchmarks.chaos_jobs import Outcome, difference
from benchmarks.chaos_monkey import CHUNK_TWICE, CUT, EMPTY_QUEUE, WORKER, Deeds
from benchmarks.chaos_report import ChaosReport, Least, render
from benchmarks.chaos_uploads import FORMATS, Upload, write_uploads


@pytest.mark.server
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc to find processes in (Linux has it)")
def test_no_job_is_lost_doubled_stuck_or_changed_while_everything_is_killed(tmp_path: Path) -> None:
    report = run_chaos(SHORT, tmp_path)
    assert report.failures == [], render(report)


def test_the_same_seed_writes_the_same_uploads_in_every_format(tmp_path: Path) -> None:
    first, second = (write_uploads(tmp_path / name, 3, (50, 80), seed=5) for name in ("a", "b"))
    assert [upload.format for upload in first] == list(FORMATS)
    assert [(upload.rows, upload.unknown) for upload in first] == [(upload.rows, upload.unknown) for upload in second]
    assert first[0].path.read_bytes() == second[0].path.read_bytes()
    assert 50 <= first[0].rows <= 80
    assert first[0].unknown == int(first[0].rows * 0.02) > 0


def workbook(path: Path, cell: object) -> Path:
    with xlsxwriter.Workbook(str(path)) as book:
        book.add_worksheet("predictions").write_row(0, 0, ["id", cell])
    return path


@pytest.mark.parametrize(("cell", "verdict"), [("7", ""), (7, "row 1: ['id', 7.0], not ['id', '7']")])
def test_a_workbook_is_right_when_its_cells_are_the_same_in_value_and_type(
    tmp_path: Path, cell: object, verdict: str
) -> None:
    before, after = workbook(tmp_path / "before.xlsx", "7"), workbook(tmp_path / "after.xlsx", cell)
    after.write_bytes(after.read_bytes() + b"\0")  # another file all the same
    found = difference(before, after)
    assert verdict in found
    assert (found == "cells identical") == (verdict == "")


def test_a_csv_that_differs_in_one_byte_is_wrong(tmp_path: Path) -> None:
    before, after = tmp_path / "before.csv", tmp_path / "after.csv"
    before.write_bytes(b"id,1.00\n")
    after.write_bytes(b"id,1.00\n")
    assert difference(before, after) == "identical"
    after.write_bytes(b"id,1.01\n")
    assert "differs" in difference(before, after)


def a_report(verdict: str = "identical", **done: int) -> ChaosReport:
    counts = Counter({WORKER: 3, EMPTY_QUEUE: 1, CUT: 1, CHUNK_TWICE: 1}) + Counter(done)
    outcome = Outcome(Upload(Path("upload.csv"), 10, 1), "disturbed-1", "job", 1.0, verdict)
    least = Least(jobs=1, kills=4, empty=1, cuts=1, chunks_twice=1, others_twice=0)
    return ChaosReport(1, "SQLite", least, 9.0, [outcome], Deeds(counts), lease_lost=1, orphan_uploads=0)


def test_a_run_is_passed_only_when_every_result_is_right_and_enough_has_happened() -> None:
    assert a_report().failures == []
    assert "| verdict | passed |" in render(a_report())
    for verdict in ("", "stuck: processing", "after.csv differs from before.csv"):
        assert len(a_report(verdict).failures) == 1
    report = a_report()
    report.deeds.done[WORKER] = 2
    assert report.failures == ["only 3 kills of 4: "]
    report = a_report()
    report.leavings.append("job 1 is processing")
    assert report.failures == ["job 1 is processing"]


def test_a_page_is_not_written_of_a_small_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--write", "--jobs", "5"])
    assert ended.value.code == 2
    assert "--write reports at least 30 jobs and 40 kills" in capsys.readouterr().err
