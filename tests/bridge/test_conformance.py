"""Client scenarios of the official conformance suite, with the bridge in between."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
pytestmark = [pytest.mark.node, pytest.mark.e2e, pytest.mark.slow]


def load_script(name):
    """Import a script together with the scripts that it imports."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(SCRIPTS))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPTS))
    return module


conformance = load_script("conformance_bridge")
CASES = [(revision, name) for revision, names in conformance.SCENARIOS.items() for name in names]
# test_sign_in.py covers the others in less time; `make conformance` runs them
CASES.append(("2026-07-28", "auth/scope-step-up"))


@pytest.mark.parametrize(("revision", "scenario"), CASES)
def test_every_scenario_that_applies_to_a_bridge_passes(npm_folder, revision, scenario):
    run = conformance.run(revision, scenario)
    assert run.passed, run.output


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
def test_every_scenario_but_the_one_left_out_is_run(npm_folder, revision):
    suite = conformance.script("@modelcontextprotocol/conformance", "dist/index.js")
    command = [*suite, "list", "--client", "--spec-version", revision]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    names = re.findall(r"^  - (\S+)", result.stdout, re.MULTILINE)
    run = conformance.SCENARIOS[revision] + conformance.SIGN_IN_SCENARIOS[revision]
    assert {*names} - conformance.LEFT_OUT == {*run}
