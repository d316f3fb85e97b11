"""Files of the repository that must agree with each other."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


def required(name: str) -> set[str]:
    """The packages that a requirements*.in names."""
    lines = [line.strip() for line in (PROJECT / name).read_text().splitlines()]
    return {re.split(r"[\[<>=!~; ]", line)[0] for line in lines if line and not line.startswith(("#", "-"))}


def documented(heading: str) -> set[str]:
    """The packages in the table under a heading of docs/dependencies.md; every cell up to "why" must be filled."""
    section = (PROJECT / "docs" / "dependencies.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
    assert all(package and release and why for package, release, why, _ in rows)
    return {package for package, *_ in rows[2:]}


@pytest.mark.parametrize(
    ("file", "heading"), [("requirements.in", "The product"), ("requirements-dev.in", "Development")]
)
def test_every_dependency_is_documented_and_no_other(file: str, heading: str) -> None:
    assert documented(heading) == required(file)


@pytest.mark.parametrize("file", ["requirements.in", "requirements-dev.in"])
def test_the_lock_files_hold_every_dependency(file: str) -> None:
    locked = (PROJECT / file).with_suffix(".txt").read_text()
    assert {name for name in required(file) if not re.search(rf"^{re.escape(name)}==", locked, re.MULTILINE)} == set()


def test_no_file_of_the_build_names_a_registry() -> None:
    files = [
        *PROJECT.glob("requirements*"),
        *(PROJECT / name for name in ("Makefile", "Dockerfile", "pyproject.toml", ".ci/run")),
    ]
    naming = re.compile(
        r"https?://[^\s\"']*(pypi|pythonhosted|npmjs|debian\.org|docker\.io)|index-url [^\"'\s]+://|find-links [^\"'\s]+/"
    )
    assert [str(path) for path in files if naming.search(path.read_text())] == []


def test_make_alone_lists_every_command() -> None:
    shown = subprocess.run(["make"], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  make (\w+)", shown, re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert listed == set(phony[1].split())
    assert {"setup", "run", "test", "train", "lint"} <= listed


def test_make_says_in_words_that_a_python_is_missing(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    made = subprocess.run(["make", "setup", "PYTHON=python3.2"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert "There is no python3.2. Install Python 3.11 or newer" in made.stdout


def test_make_refuses_an_old_python_with_its_version(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "requirements.txt").touch()
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\nexec python3 -c "import sys; sys.version_info = (3, 9, 1); exec(sys.argv[1])" "$2"\n')
    old.chmod(0o755)
    made = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode != 0
    assert "Python 3.11 or newer is needed" in made.stderr
    assert "is 3.9." in made.stderr


def test_the_image_leaves_secrets_and_local_files_out() -> None:
    ignored = set((PROJECT / ".dockerignore").read_text().splitlines())
    assert {".env", ".git", ".venv", "var", "models/*", "pymind_dataset/*"} <= ignored
