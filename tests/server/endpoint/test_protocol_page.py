"""docs/contributors/protocol.md stays true: its tests exist and its figures are current."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]
PAGE = (REPOSITORY / "docs" / "contributors" / "protocol.md").read_text()


def named():
    """(file, test) for each test the page names; `::name` stands for the file named before it."""
    file = ""
    for found in re.finditer(r"`((?:\w+/)?test_\w+\.py)?(?:::(\w+)(?:\[[^\]]*\])?)?`", PAGE):
        file = found[1] or file
        yield file, found[2]


def test_the_page_names_tests():
    assert len(list(named())) > 60


@pytest.mark.parametrize(("file", "test"), sorted({*named()}, key=str))
def test_each_test_that_the_page_names_exists(file, test):
    source = ((HERE.parent if "/" in file else HERE) / file).read_text()
    assert test is None or f"def {test}(" in source


@pytest.mark.node
def test_the_token_table_is_current_and_within_its_bar():
    if shutil.which("npm") is None:
        pytest.skip("no npm: the tokenizer comes from there")
    script = REPOSITORY / "benchmarks" / "tools_tokens.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
