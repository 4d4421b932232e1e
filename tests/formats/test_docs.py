"""The numbers in the documentation are those that are measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.node
def test_the_token_table_is_current(npm_folder):
    done = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "tokens.py", "--check"],
        env={**os.environ, "PVEMCP_NPM": str(npm_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
