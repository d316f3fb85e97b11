import io
import json
import threading
import time

import pytest

from ml_pipeline.progress import JsonLines, Progress


@pytest.fixture
def told():
    """Progress whose lines are kept, and a function that reads them."""
    stream = io.StringIO()
    return Progress(lines=JsonLines(stream)), lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_phase_says_what_is_done_of_how_much_and_what_is_under_way(told):
    progress, lines = told
    with progress.stage("backtest", 2) as stage:
        stage.doing("total: xgboost")
        stage.advance("total: lightgbm")
        stage.advance()
    with progress.stage("refresh") as stage:
        stage.note(rows=3)
    assert [(line["phase"], line["done"], line["of"], line["doing"]) for line in lines()] == [
        ("backtest", 0, 2, ""),
        ("backtest", 0, 2, "total: xgboost"),
        ("backtest", 1, 2, "total: lightgbm"),
        ("backtest", 2, 2, ""),
        ("refresh", 0, None, ""),
    ]


def test_the_outcome_is_the_last_line_and_people_get_none(told, capsys):
    progress, lines = told
    progress.close({"bundle": "b1", "promoted": True})
    assert lines() == [{"outcome": {"bundle": "b1", "promoted": True}}]
    Progress(bars=False).close({"bundle": "b1"})
    assert capsys.readouterr().out == ""


def test_lines_of_many_threads_do_not_run_into_each_other():
    class Slow(io.StringIO):
        """Gives up its turn between any two characters."""

        def write(self, text):
            for letter in text:
                super().write(letter)
                time.sleep(1e-5)
            return len(text)

    stream = Slow()
    lines = JsonLines(stream)
    threads = [threading.Thread(target=lines.write, args=({"n": n},)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads(line)["n"] for line in stream.getvalue().splitlines()) == list(range(20))
