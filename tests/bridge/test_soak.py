"""A short soak: random faults and restarts, every request answered once."""

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak_bridge.py"
pytestmark = pytest.mark.e2e


def test_every_request_is_answered_once_whatever_the_server_does():
    command = [sys.executable, SOAK, "--calls", "600"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "'exit code 0': 1" in done.stdout
