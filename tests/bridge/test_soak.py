"""A short soak test: random faults and restarts, one reply to every request."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak_bridge.py"
pytestmark = pytest.mark.e2e


def test_every_request_gets_one_reply_under_random_faults():
    command = [sys.executable, SOAK, "--calls", "600"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "'exit code 0': 1" in result.stdout
