"""The official suite: both requirement sets in full, and the product wherever it can be tested."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
PAGE = SCRIPTS.parent / "docs" / "contributors" / "protocol.md"
pytestmark = [pytest.mark.node, pytest.mark.slow]


@pytest.fixture(scope="module")
def conformance():
    """Return the script that `make conformance` runs."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: the conformance suite comes from there")
    sys.path.insert(0, str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("conformance", SCRIPTS / "conformance.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["conformance"] = module
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(SCRIPTS))


def test_each_scenario_that_the_page_names_is_one_of_the_suite(conformance):
    named = set(re.findall(r"conformance `([\w-]+)`", PAGE.read_text()))
    command = conformance.script("@modelcontextprotocol/conformance", "dist/index.js")
    listed = [*command, "list", "--requirements", "2026-07-28"]
    known = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    assert {one for one in named if one not in known} <= {"wire-schema-valid"}  # in all of them
    assert len(named) > 5


def test_every_check_of_both_requirement_sets_and_of_the_tasks_extension_passes(conformance):
    runs = list(conformance.fixture_runs())
    assert [run.name for run in runs if run.failed] == []
    earlier, later = runs
    assert earlier.counts["SUCCESS"] >= 81
    assert later.counts["SUCCESS"] >= 196
    checked = {name for name, status in later.checks if status == "SUCCESS"}
    assert {"sep-2663-durable-create-strong-consistency", "wire-schema-valid"} <= checked


def test_the_product_passes_every_scenario_that_needs_no_fixture(conformance):
    runs = list(conformance.product_runs())
    assert [run.name for run in runs if run.failed] == []
    assert sum(run.counts["SUCCESS"] for run in runs) >= 80
