"""Dry runs say whether the target of a write has room for it."""

import re

import pytest

from proxmox_client.emulator import ManualClock, demo
from pvemcp_server.access.model import Resources

from .altered import RESOURCES, altered, rows_changed, without_statistics
from .examples import PROD as EXAMPLES
from .examples import examples

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod", "dry_run": True}
MOVE = {"vmid": 105, "target_node": "pve02", "online": True}
# each write that takes room, and what its dry run speaks of
WRITES = {
    "CreateVm": (examples(EXAMPLES)["CreateVm"], "local-zfs on pve01 has "),
    "CloneVm": ({"source": "105", "name": "copy"}, "ceph-vm on pve01 has "),
    "MigrateVm": (MOVE, "pve02 has "),
    "BackupVm": ({"vmid": 200, "storage": "nfs-archive"}, "nfs-archive on pve02 has "),
    "RestoreBackup": ({"backup": "101"}, "ceph-vm on pve01 has "),
    "CreateVmSnapshot": (examples(EXAMPLES)["CreateVmSnapshot"], "ceph-vm on pve01 has "),
    "ResizeVmDisk": (examples(EXAMPLES)["ResizeVmDisk"], "ceph-vm on pve01 has "),
    "MoveVmDisk": (examples(EXAMPLES)["MoveVmDisk"], "local-zfs on pve01 has "),
    "AttachDisk": (examples(EXAMPLES)["AttachDisk"], "local-zfs on pve01 has "),
    "DownloadIso": (examples(EXAMPLES)["DownloadIso"], " on pve01 has "),
}
GIB = 1 << 30


async def room(client, tool, **arguments):
    return (await client(tool, **{**arguments, **PROD})).data["room"]


def changed(kind, name, **values):
    """Return a change of the inventory: other values of a row."""
    key = "vmid" if kind in ("qemu", "lxc") else kind
    return rows_changed(
        lambda row: {**row, **values} if (row["type"], row.get(key)) == (kind, name) else row
    )


@pytest.mark.parametrize("tool", WRITES)
async def test_a_dry_run_says_what_the_target_has_free(tool_client, tool):
    arguments, words = WRITES[tool]
    assert words in await room(tool_client, tool, **arguments)


@pytest.mark.parametrize("tool", WRITES)
async def test_the_question_of_a_write_has_no_figures_that_change(tool_client, tool):
    arguments, words = WRITES[tool]
    answer = await tool_client(tool, **{**arguments, **PROD})
    assert words not in answer.data["would"]


async def test_a_migration_compares_the_guest_with_the_target(tool_client):
    text = await room(tool_client, "MigrateVm", **MOVE)
    assert re.fullmatch(
        r"pve02 has [\d.]+ GiB of [\d.]+ GiB memory free\. "
        r"\d+ % of its \d+ processors are in use\. "
        r"The guest may use [\d.]+ GiB and \d+ processors\..*",
        text,
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mem": 99 * GIB, "maxmem": 100 * GIB}, "That is more memory than pve02 has free."),
        ({"mem": 1 * GIB, "maxmem": 5 * GIB}, "more than its memory (overcommitted)"),
        ({"maxcpu": 1}, "pve02 has fewer processors than the guest."),
    ],
)
async def test_a_target_that_is_too_small_is_named(tool_client, values, words):
    with altered(tool_client["prod"], RESOURCES, changed("node", "pve02", **values)):
        assert words in await room(tool_client, "MigrateVm", **MOVE)


async def test_guests_that_fit_alone_may_not_fit_together(tool_client):
    many = {"vmids": [101, 110, 115], "target_node": "pve02", "online": True}  # 128, 8 and 8 GiB
    roomy = changed("node", "pve02", mem=1 * GIB, maxmem=512 * GIB)
    with altered(tool_client["prod"], RESOURCES, roomy):
        text = await room(tool_client, "MigrateVm", **many)
    assert "pve02 gets guests that may use 144.0 GiB of memory, and has 511.0 GiB" in text
    tight = changed("node", "pve02", mem=1 * GIB, maxmem=140 * GIB)
    with altered(tool_client["prod"], RESOURCES, tight):
        text = await room(tool_client, "MigrateVm", **many)
        alone = await room(tool_client, "MigrateVm", **many | {"vmids": [101]})
    assert "Together that is more memory than pve02 has free." in text
    assert "more memory than pve02" not in alone


async def test_local_disks_are_compared_with_the_storage_of_the_target(demo_client):
    state = demo_client["prod"].emulated.state
    guest = next(
        g
        for g in state.guests.values()
        if g.node == "pve01" and str(g.config.get("scsi0", "")).startswith("local-zfs:")
    )
    call = {"vmid": guest.vmid, "target_node": "pve02", "online": True}
    text = await room(demo_client, "MigrateVm", **call)
    assert re.search(r"local-zfs on pve02 has .* free; this takes up to [\d.]+ GiB\.", text)
    full = changed("storage", "local-zfs", disk=99 * GIB, maxdisk=100 * GIB)
    with altered(demo_client["prod"], RESOURCES, full):
        text = await room(demo_client, "MigrateVm", **call)
    assert "(99 % full); this takes" in text
    assert text.endswith("That is more than is free.")


@pytest.mark.parametrize(
    ("storage", "place", "several"),
    [("nfs-archive", "nfs-archive", [101, 300]), ("local", "local on pve01", [101, 105])],
)
async def test_backups_that_fit_alone_may_not_fit_together(demo_client, storage, place, several):
    local = demo_client["prod"].emulated.state.storages["local"]
    local.content = (*local.content, "backup")
    sizes = {
        vmid: sum(disk.size for disk in demo_client["prod"].emulated.state.guests[vmid].disks())
        for vmid in several
    }
    for free, is_enough in ((2 * sum(sizes.values()), True), (max(sizes.values()), False)):
        place_free = changed("storage", storage, disk=0, maxdisk=free)
        with altered(demo_client["prod"], RESOURCES, place_free):
            demo_client.refresh()
            text = await room(demo_client, "BackupVm", vmids=several, storage=storage)
        assert f"{place} gets up to " in text
        assert (f"Together that is more than {place} has free." not in text) is is_enough
        assert f"has {free / GIB:.1f} GiB of {free / GIB:.1f} GiB free" in text


async def test_backups_on_two_nodes_share_no_local_storage(demo_client):
    local = demo_client["prod"].emulated.state.storages["local"]
    local.content = (*local.content, "backup")
    text = await room(demo_client, "BackupVm", vmids=[101, 301], storage="local")
    assert "gets up to" not in text
    assert "gets up to" not in await room(
        demo_client, "BackupVm", vmids=[101, 105], storage="pbs-main"
    )


async def test_local_disks_of_several_guests_are_summed(demo_client):
    state = demo_client["prod"].emulated.state
    local = [
        guest.vmid
        for guest in state.guests.values()
        if guest.node == "pve01" and str(guest.config.get("scsi0", "")).startswith("local-zfs:")
    ][:2]
    many = {"vmids": local, "target_node": "pve02", "online": True}
    text = await room(demo_client, "MigrateVm", **many)
    assert re.search(r"local-zfs on pve02 gets up to [\d.]+ GiB of these guests", text)
    rows = (await demo_client("EvacuateNode", node="pve01", **PROD)).data
    assert "gets up to" in rows["room"]


async def test_a_full_storage_of_a_backup_is_named(tool_client):
    rows = (await tool_client("ListStorage", cluster_name="prod", detail_level="Full")).data
    archive = next(row for row in rows if row["storage"] == "nfs-archive")
    text = await room(tool_client, "BackupVm", vmid=200, storage="nfs-archive")
    assert f"({archive['disk_usage_percentage']:.0f} % full)" in text


async def test_room_without_statistics_is_unknown(tool_client):
    with altered(tool_client["prod"], RESOURCES, without_statistics("pve02")):
        text = await room(tool_client, "MigrateVm", **MOVE)
    assert text == "Room on pve02 is not known: Proxmox has no current statistics of it."


async def test_a_role_that_hides_the_target_hides_its_room(tool_client):
    narrow = tool_client.scoped(
        Resources(vmids=frozenset({105}), target_nodes=frozenset({"pve02"}))
    )
    text = await room(narrow, "MigrateVm", **MOVE)
    assert text == "Room on pve02 is not known: the role of this key does not show it."


async def test_a_start_says_whether_the_node_has_memory(open_client):
    async with open_client(demo(), ManualClock()) as client:
        state = client["prod"].emulated.state
        guest = next(g for g in state.guests.values() if not g.running and g.node == "pve01")
        text = await room(client, "ChangeVmState", vmid=guest.vmid, action="Start")
        assert text.startswith("pve01 has ")
        stop = await client("ChangeVmState", **PROD, vmid=105, action="Stop")
        assert "room" not in stop.data


async def test_a_thick_storage_without_room_is_refused(tool_client):
    full = changed("storage", "ceph-vm", disk=95 * GIB, maxdisk=100 * GIB, plugintype="lvm")
    call = {**PROD, "vmid": 105, "disk": "scsi0", "size": "+10G"}
    with altered(tool_client["prod"], RESOURCES, full):
        error = await tool_client.refused("ResizeVmDisk", **call)
    assert "ceph-vm has 5.0 GiB free, and takes 10.0 GiB more at once" in error
