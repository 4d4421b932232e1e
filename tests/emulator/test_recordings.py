"""The emulator's responses against recordings of Proxmox VE."""

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio
SCRIPTS = Path(__file__).parents[2] / "scripts"
VERSIONS = ["8.4", "9.1", "9.2"]


@pytest.fixture(scope="module")
def compare_recordings():
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("compare_recordings")
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
async def comparisons(compare_recordings, pve_recordings, anyio_backend):
    """Replay the recordings of every version, once for all tests."""
    return {
        version: await compare_recordings.compare(pve_recordings, (version,))
        for version in VERSIONS
    }


@pytest.fixture(scope="module")
async def comparison_of_states(compare_recordings, pve_recordings, anyio_backend):
    """Replay the recordings of unusual states and narrow accounts."""
    return await compare_recordings.compare_states(pve_recordings)


@pytest.mark.parametrize("version", VERSIONS)
async def test_responses_match_the_recordings_except_listed_differences(
    compare_recordings, comparisons, version
):
    comparison = comparisons[version]
    unlisted = compare_recordings.unlisted(comparison, compare_recordings.known_differences())
    assert unlisted == []
    assert comparison.equal / comparison.exchanges > 0.97


async def test_responses_in_unusual_states_match_except_listed_differences(
    compare_recordings, comparison_of_states
):
    known = compare_recordings.known_differences(compare_recordings.KNOWN_OF_STATES)
    assert compare_recordings.unlisted(comparison_of_states, known) == []
    assert comparison_of_states.equal / comparison_of_states.exchanges > 0.78


async def test_every_listed_difference_exists_and_is_documented(
    compare_recordings, comparisons, comparison_of_states
):
    comparison = compare_recordings.merged(comparisons.values())
    known = compare_recordings.known_differences()
    known_of_states = compare_recordings.known_differences(compare_recordings.KNOWN_OF_STATES)
    obsolete = [
        entry.why
        for found, entries in ((comparison, known), (comparison_of_states, known_of_states))
        for entry in entries
        if not any(entry.covers(difference) for difference in found.found)
    ]
    assert obsolete == []
    page = compare_recordings.report(comparison, known, comparison_of_states, known_of_states)
    assert compare_recordings.REPORT.read_text() == page
