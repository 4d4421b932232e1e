"""Client scenarios of the official conformance suite, with the bridge in between."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = [pytest.mark.node, pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def conformance(npm_folder):
    """Give the script that runs the suite."""
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location(
        "conformance_bridge", SCRIPTS / "conformance_bridge.py"
    )
    module = sys.modules["conformance_bridge"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPTS))


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_every_scenario_that_concerns_a_bridge_passes(conformance, revision):
    runs = list(conformance.run_all(revision))
    assert [run.output for run in runs if not run.passed] == []
    assert len(runs) >= 5


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_only_scenarios_of_oauth_are_left_out(conformance, revision):
    suite = conformance.script("@modelcontextprotocol/conformance", "dist/index.js")
    command = [*suite, "list", "--client", "--spec-version", revision]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    names = re.findall(r"^  - (\S+)", result.stdout, re.MULTILINE)
    relevant = {name for name in names if not name.startswith("auth/")}
    assert relevant == set(conformance.SCENARIOS[revision])
