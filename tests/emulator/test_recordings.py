"""The emulator's responses against recordings of Proxmox VE."""

import importlib
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def compare_recordings(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("compare_recordings")


@pytest.mark.parametrize("version", ["8.4", "9.1", "9.2"])
async def test_responses_match_the_recordings_except_listed_differences(
    compare_recordings, pve_recordings, version
):
    comparison = await compare_recordings.compare(pve_recordings, (version,))
    unlisted = compare_recordings.unlisted(comparison, compare_recordings.known_differences())
    assert unlisted == []
    assert comparison.equal / comparison.exchanges > 0.97


async def test_every_listed_difference_exists_and_is_documented(compare_recordings, pve_recordings):
    comparison = await compare_recordings.compare(pve_recordings)
    known = compare_recordings.known_differences()
    obsolete = [
        entry.why
        for entry in known
        if not any(entry.covers(difference) for difference in comparison.found)
    ]
    assert obsolete == []
    assert compare_recordings.REPORT.read_text() == compare_recordings.report(comparison, known)
