"""Each test and each file that a page of the docs names exists."""

import re
from pathlib import Path

import pytest
from tests.cases import walk

ROOT = Path(__file__).parents[2]
FOLDERS = ("packages", "tests", "scripts", "benchmarks", "docs")
PAGES = [str(p.relative_to(ROOT)) for p in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))]
EXAMPLES = {"test_something", "admin/NAME.py", "web/pages/NAME.py"}

TEST = re.compile(r"\b(test_\w+)(?!\.py|\w)")
FILE = re.compile(r"`((?:[\w.]+/)*\w+\.(?:py|html|md|sh))(?:::\w+)?`")


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Return the names of all test modules and test functions."""
    modules = list((ROOT / "tests").rglob("test_*.py"))
    functions = (re.findall(r"def (test_\w+)\(", module.read_text()) for module in modules)
    return {module.stem for module in modules}.union(*functions)


@pytest.fixture(scope="module")
def files() -> str:
    """Return the paths of all files, each on a line."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    return "".join(f"{path}\n" for path in (*ROOT.iterdir(), *found))


@walk("page", PAGES)
def test_each_test_and_file_that_a_page_names_exists(page, tests, files):
    text = (ROOT / page).read_text()
    assert set(TEST.findall(text)) - tests - EXAMPLES == set()
    named = set(FILE.findall(text)) - EXAMPLES
    assert [file for file in named if f"/{file}\n" not in files] == []


@walk("page", ["SECURITY.md", "docs/users/threat-model.md"])
def test_a_page_of_security_names_its_tests(page):
    assert len(set(TEST.findall((ROOT / page).read_text()))) > 50
