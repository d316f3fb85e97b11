"""The check of README.md notices what it is there to notice."""

import ast

import pytest

from docs import make_readme

TEXT = "before\n<!-- begin sample: made by `make readme` () -->\n<!-- end sample -->\nafter\n"


def test_the_readme_is_fresh() -> None:
    assert make_readme.stale_pages() == []


def test_a_made_block_is_fresh_and_the_text_around_it_stays() -> None:
    text = make_readme.with_blocks(TEXT, {"sample": "7 rows\n"}, code="abc")
    assert make_readme.stale_blocks(text, code="abc") == []
    assert text.startswith("before\n<!--")
    assert "-->\n7 rows\n<!--" in text
    assert text.endswith("-->\nafter\n")


@pytest.mark.parametrize("change", [("7 rows", "8 rows"), ("content ", "content 0")])
def test_a_block_edited_by_hand_is_stale(change: tuple[str, str]) -> None:
    text = make_readme.with_blocks(TEXT, {"sample": "7 rows\n"}, code="abc").replace(*change)
    assert "'sample' is stale" in make_readme.stale_blocks(text, code="abc")[0]


def test_numbers_made_by_other_code_are_stale() -> None:
    text = make_readme.with_blocks(TEXT, {"sample": "7 rows\n"}, code="abc")
    assert "'sample' is stale" in make_readme.stale_blocks(text, code="def")[0]


def test_a_readme_without_blocks_is_not_fresh() -> None:
    assert make_readme.stale_blocks("no markers", code="abc") != []


def test_only_what_can_move_a_number_changes_the_shape_of_code() -> None:
    code = 'def f(x):\n    """Adds."""\n    return x + 1\n'
    same = '# why\ndef f(\n    x\n):\n    """Says otherwise."""\n    return x + 1  # because\n'
    other = code.replace("1", "2")
    shape, same_shape, other_shape = (make_readme._shape(ast.parse(text)) for text in (code, same, other))
    assert shape == same_shape != other_shape


def test_what_features_models_and_sample_are_made_of_decides_numbers_and_the_reading_of_uploads_does_not() -> None:
    names = set(make_readme.deciding_modules())
    assert names >= {"cleaning", "features", "targets", "learners", "backtest", "sample_model", "train"}
    assert not names & {"customer_files", "import_flat", "predict", "explore", "model_card"}
