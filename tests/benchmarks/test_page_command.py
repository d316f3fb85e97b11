"""The options and the course that the commands share which write a page of docs."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import accuracy, trust
from benchmarks.page_command import page_parser, refuse_partial_page, run_page_command
from benchmarks.public_data import ROOT, DataSetMissing

FILE = ROOT / "docs" / "none.md"


@dataclass
class Page:
    """A page that is kept in memory."""

    text: str = ""

    def relative_to(self, _: Path) -> str:
        return "docs/none.md"

    def write_text(self, text: str, encoding: str) -> None:
        self.text = text


@pytest.mark.parametrize("command", [accuracy.main, trust.main])
@pytest.mark.parametrize("choice", [["--profile", "quick"], ["--development"], ["--day", "2017-10-03"]])
def test_a_page_is_not_written_from_other_days_or_another_profile(command, choice, capsys):
    with pytest.raises(SystemExit) as stopped:
        command(["--write", *choice])
    assert stopped.value.code == 2
    assert "--write reports the evaluation days" in capsys.readouterr().err


@pytest.mark.parametrize("command", [accuracy.main, trust.main])
def test_a_data_set_that_is_none_is_refused_with_those_that_there_are(command, capsys):
    with pytest.raises(SystemExit):
        command(["--data-set", "cdnov"])
    assert "'cdnov' is no data set; they are " in capsys.readouterr().err


def test_rows_of_a_command_of_its_own_keep_a_page_from_being_written():
    parser = page_parser("benchmarks.none", None, FILE)
    options = parser.parse_args(["--write"])
    refuse_partial_page(parser, options, False)
    with pytest.raises(SystemExit):
        refuse_partial_page(parser, options, False, True)


def test_reports_are_printed_and_the_page_is_written_only_when_asked(capsys):
    def run(*arguments: str) -> tuple[int, str]:
        options = page_parser("benchmarks.none", None, FILE).parse_args(["--data-set", "cdnow", *arguments])
        file = Page()
        code = run_page_command(
            options, file, lambda name, path, _: name, lambda told: f"# {told}", lambda told, _: " ".join(told)
        )
        return code, file.text

    assert run() == (0, "")
    assert run("--write") == (0, "cdnow")
    assert capsys.readouterr().out == "# cdnow\n# cdnow\nWritten: docs/none.md\n"


def test_a_data_set_that_is_not_there_is_one_line_and_no_success(capsys):
    def report(name: str, path: Path | None, _: object) -> str:
        raise DataSetMissing(f"{name} is not at {path}")

    options = page_parser("benchmarks.none", None, FILE).parse_args(["--data-set", "cdnow=/nowhere"])
    assert run_page_command(options, FILE, report, str, lambda told, _: "") == 2
    assert capsys.readouterr().err == "DataSetMissing: cdnow is not at /nowhere\n"
