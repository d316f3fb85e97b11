import datetime as dt
import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.cells import CELLS, cell_text, text_of, worksheet_column
from tests.ml_pipeline.upload_rows import python_cells

ODD = [0.0, -0.0, 12345.0, 2.0**53, 2.0**63, -(2.0**63), 1e16, 1e22, 1e300, 0.1, 1e-7, -1.5, math.inf, -math.inf]


@given(st.lists(st.floats(), min_size=1))
def test_numbers_together_read_as_each_alone(numbers):
    assert text_of(worksheet_column(numbers)).to_pylist() == [cell_text(number) for number in numbers]
    assert text_of(pa.array(numbers, pa.float64())).to_pylist() == [cell_text(number) for number in numbers]


def test_odd_numbers_read_as_each_alone():
    assert text_of(worksheet_column(ODD)).to_pylist() == [cell_text(number) for number in ODD]
    for number in ODD:
        assert text_of(worksheet_column([number])).to_pylist() == [cell_text(number)]


@pytest.mark.parametrize(
    "cells",
    [
        ["a", "", "00042"],
        [1.5, 2.0],
        ["a", 1.5, True, ""],
        [dt.datetime(2025, 1, 31, 12, 30), dt.date(2025, 1, 31), dt.time(3, 4, 5), dt.timedelta(hours=30)],
    ],
)
def test_the_cells_of_a_worksheet_come_back_as_they_were(cells):
    assert python_cells(worksheet_column(cells)) == cells


def test_a_column_of_text_is_plain_text_and_a_mixed_one_says_the_kind_of_each_cell():
    assert worksheet_column(["a", ""]).type == pa.string()
    assert worksheet_column(["a", 1.0]).type == CELLS


def test_no_text_of_a_column_is_null():
    for column in (
        pa.array(["a", None]),
        pa.array([1, None]),
        pa.array([1.5, None]),
        pa.nulls(2),
        pa.array([True, None]),
    ):
        assert text_of(column).null_count == 0
        assert text_of(column).to_pylist()[1] == ""
