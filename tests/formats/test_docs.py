"""The figures in the documentation are those that the benchmark measures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.node
def test_the_token_table_is_current(npm_folder):
    result = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "tokens.py", "--check"],
        env={**os.environ, "PVEMCP_NPM": str(npm_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
