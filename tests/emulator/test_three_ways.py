"""Our answers follow from Proxmox's as promised, and the emulator has the same values."""

import importlib
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.anyio
SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def compare_three_ways():
    sys.path.insert(0, str(SCRIPTS))
    yield importlib.import_module("compare_three_ways")
    sys.path.remove(str(SCRIPTS))


async def test_fields_of_answers_agree_in_three_ways(compare_three_ways, pve_recordings):
    rows = await compare_three_ways.compare(pve_recordings)
    assert len(rows) > 40
    names = [(row.sample.answer.tool, row.sample.name) for row in rows]
    assert [name for name, row in zip(names, rows, strict=True) if not row.follows] == []
    assert [name for name, row in zip(names, rows, strict=True) if not row.agrees] == []
    page = compare_three_ways.PAGE.read_text("utf-8")
    assert page == compare_three_ways.page(rows), "run scripts/compare_three_ways.py"
