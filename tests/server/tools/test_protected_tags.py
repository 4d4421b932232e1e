"""Protection by tag holds for every write, however the tags are spelled."""

import pytest

from proxmox_client.emulator import ManualClock, demo

pytestmark = pytest.mark.anyio

VMID = 105
SPELLED = ["protected", "x;protected", "x; protected", "protected x", "x,PROTECTED", " Protected "]
CLEARED = ["", " ", ";", "unprotected", "protected-not"]
WRITES = {
    "ChangeVmState": {"action": "Stop"},
    "CreateVmSnapshot": {"snapshot_name": "new"},
    "DeleteVmSnapshot": {"snapshot_name": "release-4-3"},
    "RollbackVmSnapshot": {"snapshot_name": "release-4-3"},
    "BackupVm": {"storage": "nfs-archive"},
    "DeleteVm": {"name": "web-frontend"},
    "MigrateVm": {"target_node": "pve02", "online": True},
    "UpdateVmConfig": {"description": "new"},
    "ResizeVmDisk": {"disk": "scsi0", "size": "+1G"},
    "AttachDisk": {"volume": "local-zfs:1"},
    "DetachDisk": {"disk": "scsi0", "boot_disk": True},
    "MoveVmDisk": {"disk": "scsi0", "target_storage": "local-zfs"},
    "CloneVm": {"source": str(VMID), "name": "copy"},
    "UnlockVm": {},
}


@pytest.fixture(scope="module")
async def client(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as opened:
        yield opened


def tagged(client, tags):
    """Set the tags of the guest."""
    guest = client["prod"].emulated.state.guests[VMID]
    guest.config["tags"] = tags
    guest.touch()
    client.refresh()


async def written(client, tool):
    guest = {} if "source" in WRITES[tool] else {"vmid": VMID}
    return await client(tool, cluster_name="prod", dry_run=True, **guest, **WRITES[tool])


@pytest.mark.parametrize("tool", WRITES)
async def test_a_write_is_refused_for_every_spelling_of_the_tag(client, tool):
    for tags in SPELLED:
        tagged(client, tags)
        answer = await written(client, tool)
        assert answer.failed, tags
        assert "is protected by its tag " in answer.text
    for tags in CLEARED:
        tagged(client, tags)
        assert "protected by" not in (await written(client, tool)).text, tags


async def test_a_key_learns_which_tags_protect(client):
    client.change(protected_tags=("production", "never-touch"))
    answer = await client("ExplainAccess", cluster_name="prod")
    client.change(protected_tags=("protected",))
    assert answer.data["protected_tags"] == ["never-touch", "production"]


async def test_volumes_of_a_guest_with_the_tag_are_protected_too(client):
    place = {"cluster_name": "prod", "node": "pve01", "storage": "pbs-main"}
    volid = (await client("ListBackups", **place, vmid=VMID)).data[0]["volid"]
    for tags in SPELLED:
        tagged(client, tags)
        answer = await client("DeleteBackup", **place, volid=volid, dry_run=True)
        assert "is protected by its tag " in answer.text, tags


@pytest.mark.parametrize("tags", ["", " ", ";", " , "])
async def test_cleared_tags_are_no_tag(client, tags):
    tagged(client, tags)
    where = {"logic": "and", "conditions": [
        {"field": "vmid", "operator": "=", "value": VMID},
        {"field": "tags", "operator": "IS NULL"},
    ]}  # fmt: skip
    query = {"select": ["vmid", "tags"], "from": "guests", "where": where}
    answer = await client("ExecuteQuery", cluster_name="prod", query=query)
    assert answer.column("vmid") == [VMID]
    config = (await client("GetVmConfig", cluster_name="prod", vmid=VMID)).data
    assert config["tags"] == []


async def test_case_counts_where_the_cluster_says_so(client):
    options = client["prod"].emulated.state.options
    options["tag-style"] = {"case-sensitive": 1}
    try:
        tagged(client, "Protected")
        assert not (await written(client, "ChangeVmState")).failed
        tagged(client, "Protected;protected")
        assert (await written(client, "ChangeVmState")).failed
    finally:
        del options["tag-style"]
