"""SECURITY.md and the threat model name a test for what holds, and each named test exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("SECURITY.md", "docs/users/threat-model.md")
PAGE = "\n".join((ROOT / page).read_text() for page in PAGES)


def defined_tests() -> set[str]:
    """Return the names of all test functions."""
    sources = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for text in sources for name in re.findall(r"def (test_\w+)\(", text)}


def test_each_named_test_exists():
    named = set(re.findall(r"\b(test_\w+)(?!\.py|\w)", PAGE))
    assert len(named) > 10
    assert named - defined_tests() - {Path(file).stem for file in files()} == set()


def test_each_named_file_exists():
    assert files()
    assert [file for file in files() if not (ROOT / file).is_file()] == []


def files() -> list[str]:
    """Return the test files that the page names."""
    return re.findall(r"tests/[\w/]+\.py", PAGE)
