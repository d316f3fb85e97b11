"""The files that preparing leaves, that they do not depend on order or threads, and the command."""

import csv
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ml_pipeline.command import run_command
from ml_pipeline.prepare import Prepared, main
from ml_pipeline.sample_data import write_sample_tables
from ml_pipeline.turns import LOCK_FILE, taking_turns
from tests.ml_pipeline.small_shop import DIRTY, dirty_shop, prepare_shop, purchase_rows, write_shop

SECRETS = ("asha", "bela", "nobody", "555-01", "@example", "Dev")


@pytest.fixture(scope="module")
def dirty() -> Prepared:
    """The hand-written shop, prepared."""
    return dirty_shop()


def test_every_rule_leaves_a_file_with_its_rows(dirty: Prepared) -> None:
    files = {path.name: path for path in (dirty.out_dir / "quarantine").iterdir()}
    tables = dirty.report["tables"]
    expected = {f"{table}.{rule}.csv" for table, facts in tables.items() for rule in facts["rules"]}  # type: ignore[attr-defined]
    assert set(files) == expected
    for table, facts in tables.items():  # type: ignore[attr-defined]
        for rule, count in facts["rules"].items():
            with files[f"{table}.{rule}.csv"].open(newline="", encoding="utf-8") as stream:
                rows = list(csv.DictReader(stream))
            assert len(rows) == count["rows"]
            assert {row["rule"] for row in rows} == {rule}
            assert min(int(row["row_number"]) for row in rows) == count["first_row"]


def test_a_quarantined_row_keeps_its_raw_text_and_ids(dirty: Prepared) -> None:
    with (dirty.out_dir / "quarantine" / "store_sales_line_items.unreadable_quantity.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["row_number"], row["line_item_id"], row["quantity"]) == ("13", "l13", "many")


def test_no_personal_data_leaves_the_retailers_files(dirty: Prepared) -> None:
    for path in dirty.out_dir.rglob("*"):
        if path.is_file():
            content = path.read_bytes().decode("utf-8", errors="replace").lower()
            assert not [secret for secret in SECRETS if secret.lower() in content], path.name
    with (dirty.out_dir / "quarantine" / "customer_details.duplicate_customer_id.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["customer_id"], row["first_name"], row["email"]) == ("c1", "(redacted)", "(redacted)")


def test_texts_that_a_spreadsheet_would_run_are_neutralised_and_numbers_are_not(tmp_path: Path) -> None:
    text = 'transaction_id,customer_id,transaction_date,total_amount,note\n=1+2,,2025-01-01,-5,"@SUM(1)"\nt1,c,2025-01-01,1,\n'
    out = tmp_path / "out"
    prepare_shop(write_shop(tmp_path / "data", {"store_sales_header": text}, "[targets]\n"), out)
    with (out / "quarantine" / "store_sales_header.empty_customer_id.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["transaction_id"], row["note"], row["total_amount"]) == ("'=1+2", "'@SUM(1)", "-5")


def test_the_written_report_is_the_returned_one_and_the_page_names_every_rule(dirty: Prepared) -> None:
    assert json.loads((dirty.out_dir / "data_report.json").read_text()) == dirty.report
    page = (dirty.out_dir / "data_report.md").read_text()
    for facts in dirty.report["tables"].values():  # type: ignore[attr-defined]
        assert all(rule in page for rule in facts["rules"])
    for part in ("loyalty_efficiency", "as_of 2025-01-17", "day-first", "quantity x unit_price", "## Kept and flagged"):
        assert part in page


def test_files_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    out, names = tmp_path / "out", "transaction_id,customer_id,transaction_date,total_amount\n"
    flawed = {"store_sales_header": names + "t1,c,2025-01-01,1\nt2,,2025-01-01,1\n"}
    prepare_shop(write_shop(tmp_path / "flawed", flawed, "[targets]\n"), out)
    assert [path.name for path in (out / "quarantine").iterdir()] == ["store_sales_header.empty_customer_id.csv"]
    clean = {"store_sales_header": names + "t1,c,2025-01-01,1\n"}
    prepare_shop(write_shop(tmp_path / "clean", clean, "[targets]\n"), out)
    assert list((out / "quarantine").iterdir()) == []
    assert len(purchase_rows(out)) == 1


@pytest.fixture(scope="module")
def sample_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 customers over ten months, with flaws."""
    folder = tmp_path_factory.mktemp("sample") / "data"
    write_sample_tables(folder, n_customers=300, months=10, seed=11)
    return folder


def _multiset(out: Path) -> Counter[tuple[object, ...]]:
    return Counter(tuple(row.values()) for row in purchase_rows(out))


def test_two_runs_on_one_or_two_threads_give_the_same_purchases(sample_folder: Path, tmp_path: Path) -> None:
    one = prepare_shop(sample_folder, tmp_path / "one", threads=1)
    two = prepare_shop(sample_folder, tmp_path / "two", threads=2)
    assert one.report == two.report
    assert _multiset(tmp_path / "one") == _multiset(tmp_path / "two")
    for path in (tmp_path / "one" / "quarantine").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / "quarantine" / path.name).read_bytes()


def test_the_order_of_rows_does_not_matter_where_no_key_repeats(sample_folder: Path, tmp_path: Path) -> None:
    kept, shuffled = tmp_path / "kept", tmp_path / "shuffled"
    draw = np.random.default_rng(3)
    for path in sample_folder.glob("*.csv"):
        header, *lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        first_of_key = list({line.split(",")[0]: line for line in reversed(lines)}.values())
        for folder, rows in ((kept, first_of_key), (shuffled, list(draw.permutation(first_of_key)))):
            folder.mkdir(exist_ok=True)
            (folder / path.name).write_text(header + "".join(rows), encoding="utf-8")
    first = prepare_shop(kept, tmp_path / "out_kept")
    second = prepare_shop(shuffled, tmp_path / "out_shuffled")
    assert first.last_day == second.last_day
    assert _multiset(tmp_path / "out_kept") == _multiset(tmp_path / "out_shuffled")


# ---- the command


def test_a_preparation_waits_for_another_one_that_writes_into_the_same_folder(tmp_path: Path) -> None:
    data, out = write_shop(tmp_path / "data", DIRTY), tmp_path / "out"
    out.mkdir()
    with taking_turns(out):
        waiting = threading.Thread(target=prepare_shop, args=(data, out))
        waiting.start()
        waiting.join(2.0)
        assert waiting.is_alive()
        assert [path.name for path in out.iterdir()] == [LOCK_FILE]
    waiting.join()
    assert (out / "data_report.json").is_file()


def test_the_command_prepares_a_folder(tmp_path: Path) -> None:
    data = write_shop(tmp_path / "data", DIRTY)
    command = [sys.executable, "-m", "ml_pipeline.prepare", "--data", str(data), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--as-of", "2025-01-10"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "as_of=2025-01-10" in done.stderr
    assert done.stdout == ""
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        ".lock", "customers.parquet", "data_report.json", "data_report.md", "purchases.parquet", "quarantine",
    }  # fmt: skip


def test_a_path_that_cannot_be_written_is_one_line_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_shop(tmp_path / "data", DIRTY)
    (tmp_path / "file").write_text("no folder")
    assert run_command(main, ["--data", str(data), "--out", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"FileExistsError: {tmp_path / 'file'}: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5"])
def test_a_number_of_threads_below_one_is_refused_by_its_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], threads: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), f"--threads={threads}"])
    assert repr(threads) in capsys.readouterr().err


def test_a_command_says_what_is_wrong_in_one_line_and_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, ["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("MissingDataFolder: ")
    assert said.count("\n") == 1
