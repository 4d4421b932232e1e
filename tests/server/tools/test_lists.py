"""What every list tool does alike: pages, columns and formats."""

import math

import pytest

from proxmox_client.emulator import ManualClock, demo
from pvemcp_formats import Format, decode
from pvemcp_server.toolkit.registry import tools

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
PLACE = {**PROD, "node": "pve01", "storage": "local"}
LISTS = {
    "ListClusters": {},
    "ListVms": PROD,
    "ListSnapshots": PROD,
    "ListVmRrdData": {**PROD, "vmids": [101], "time_frame": "Week"},
    "ListNodes": PROD,
    "ListReplications": PROD,
    "ListNodeRrdData": {**PROD, "nodes": ["pve01"], "time_frame": "Week"},
    "ListNodeDisks": PROD,
    "ListStorage": PROD,
    "ListPools": PROD,
    "ListBackups": {**PROD, "vmid": 101},
    "ListStorageContent": {**PROD, "node": "pve01", "storage": "nfs-iso"},
    "ListIsos": PLACE,
    "ListTemplates": PLACE,
    "ListBackupJobs": PROD,
    "ExecuteQuery": {"query": {"from": "guests", "select": ["vmid", "node"], "orderBy": ["vmid"]}},
}
EVERY = pytest.mark.parametrize("tool", LISTS)
OF_ITS_OWN = {"ListTasks"}  # its limit is how far it looks back


@pytest.fixture(scope="module")
async def still(anyio_backend, open_desk):
    """The demo clusters at one moment: two calls in a row see the same."""
    async with open_desk(demo(), ManualClock()) as demo_client:
        yield demo_client


def test_every_list_is_among_them():
    assert LISTS.keys() | OF_ITS_OWN == {one.name for one in tools().values() if one.lists}


@EVERY
async def test_pages_follow_each_other_and_hold_every_row_once(still, tool):
    whole = (await still(tool, **LISTS[tool])).data
    assert len(whole) > 1, f"{tool} has too little to page"
    picked = {**LISTS[tool], "fields": list(whole[0])}  # a page alone would drop empty columns
    limit, seen, cursor = math.ceil(len(whole) / 3), [], None
    while cursor is not None or not seen:
        more = {} if cursor is None else {"cursor": cursor}
        page = await still(tool, **picked, limit=limit, **more)
        assert not page.failed, page.text
        assert len(page.data) <= limit
        seen += page.data
        cursor = page.notes.partition("cursor=")[2].split("\n")[0] or None
    assert seen == whole


@EVERY
@pytest.mark.parametrize("notation", list(Format))
async def test_every_format_carries_the_columns_that_were_picked(still, tool, notation):
    first, *_, last = (await still(tool, **LISTS[tool])).data[0]
    answer = await still(tool, **LISTS[tool], fields=[last, first], format=notation, limit=2)
    assert not answer.failed, answer.text
    rows = decode(answer.text, notation)
    assert [list(row) for row in rows] == [[last, first]] * len(rows)
    assert rows


@EVERY
async def test_a_column_there_is_not_is_answered_with_those_there_are(still, tool):
    error = await still.refused(tool, **LISTS[tool], fields=["nosuchthing"])
    assert error.startswith("fields: there is no column 'nosuchthing'.")
