"""The pages of requirements name existing tests, and the token table is current."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cases import walk

REPOSITORY = Path(__file__).parents[3]
TESTS = REPOSITORY / "tests" / "server"
PAGES = [
    (REPOSITORY / "docs" / "contributors" / name).read_text()
    for name in ("protocol.md", "oauth.md")
]


def named_tests():
    """Yield (file, test) for each test on a page; `::name` is in the file named before it."""
    for page in PAGES:
        file = ""
        for match in re.finditer(r"`((?:\w+/)?test_\w+\.py)?(?:::(\w+)(?:\[[^\]]*\])?)?`", page):
            file = match[1] or file
            yield file, match[2]


def test_the_page_names_tests():
    assert len(list(named_tests())) > 60


@walk(("file", "test"), sorted({*named_tests()}, key=str))
def test_each_test_that_the_page_names_exists(file, test):
    source = (TESTS / file).read_text()
    assert test is None or f"def {test}(" in source


@pytest.mark.node
def test_the_token_table_is_current_and_within_its_bar():
    if shutil.which("npm") is None:
        pytest.skip("no npm: the tokenizer comes from there")
    script = REPOSITORY / "benchmarks" / "tools_tokens.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
