"""The numbers in the documentation are those that are measured."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.node
def test_the_token_table_is_current(npm_folder):
    if not (npm_folder / "node_modules" / "gpt-tokenizer").is_dir():
        pytest.skip("no tokenizer: npm install gpt-tokenizer")
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "tokens.py", "--check"],
        env={"PVEMCP_NPM": str(npm_folder), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
