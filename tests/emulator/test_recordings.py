"""The emulator against what real Proxmox VE answered."""

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
async def test_it_answers_like_proxmox_but_for_listed_differences(
    compare_recordings, pve_recordings, version
):
    comparison = await compare_recordings.compare(pve_recordings, (version,))
    found = compare_recordings.unlisted(comparison, compare_recordings.known_differences())
    assert found == []
    assert comparison.equal / comparison.exchanges > 0.97


async def test_every_listed_difference_is_still_there_and_reported(
    compare_recordings, pve_recordings
):
    comparison = await compare_recordings.compare(pve_recordings)
    known = compare_recordings.known_differences()
    gone = [
        entry.why
        for entry in known
        if not any(entry.covers(difference) for difference in comparison.found)
    ]
    assert gone == []
    assert compare_recordings.REPORT.read_text() == compare_recordings.report(comparison, known)
