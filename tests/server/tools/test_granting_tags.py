"""No write changes the tags of a guest that decide about the caller's rights."""

import pytest

from proxmox_client.emulator import ManualClock, demo
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio

VMID = 140  # stopped, with a snapshot
PLACE = {"cluster_name": "prod", "vmid": VMID}
VOLID = f"local:backup/vzdump-qemu-{VMID}-2026_01_01-00_00_00.zst"
WRITES = {
    "UpdateVmConfig": {},
    "RestoreBackup": {"backup": VOLID, "overwrite": True},
    "RollbackVmSnapshot": {"snapshot_name": "pre-patch-09"},
}
ROLE = Resources(
    vmids=frozenset({VMID}), tags=frozenset({"team"}), storages=frozenset({"local", "local-zfs"})
)


@pytest.fixture(scope="module")
async def client(anyio_backend, open_client):
    async with open_client(demo(), ManualClock()) as opened:
        yield opened


async def written(client, tool, tags, before="x"):
    """Preview the write that gives the guest these tags, by an argument or by what it restores."""
    state = client["prod"].emulated.state
    guest = state.guests[VMID]
    guest.config["tags"] = before
    guest.snapshots["pre-patch-09"].config["tags"] = tags
    config = f"scsi0: local-zfs:vm-140-disk-0,size=1G\ntags: {tags}\n"
    backup = Volume(VOLID, "backup", "vma.zst", 1, 1, VMID, subtype="qemu", config=config)
    state.storages["local"].put("pve01", backup)
    guest.touch()
    client.refresh()
    own = {"tags": tags.split(";")} if tool == "UpdateVmConfig" else {}
    return await client(tool, **PLACE, **WRITES[tool], **own, dry_run=True)


@pytest.mark.parametrize("tool", WRITES)
@pytest.mark.parametrize(
    ("before", "after", "refused"),
    [
        ("x", "x;Team", "team"),
        ("x;team", "x", "team"),
        ("x", "protected", "protected"),
        ("x;team", "team;y", ""),
    ],
)
async def test_a_key_changes_no_tag_that_decides_about_its_rights(
    client, tool, before, after, refused
):
    answer = await written(client.scoped(ROLE), tool, after, before)
    expected = f"would add or remove the tag {refused} of qemu 140" if refused else ""
    assert (answer.failed, expected in answer.text) == (bool(refused), True), answer.text
