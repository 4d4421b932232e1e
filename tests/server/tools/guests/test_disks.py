"""ResizeVmDisk and MoveVmDisk: plans, refusals, outcomes."""

import pytest

from pvemcp_server.access.model import Resources

pytestmark = pytest.mark.anyio

GIB = 1 << 30
VM, CONTAINER = {"cluster_name": "prod", "vmid": 105}, {"cluster_name": "prod", "vmid": 300}


def guest_of(client, vmid=105):
    return client["prod"].emulated.state.guests[vmid]


async def test_a_plan_shows_both_sizes_and_what_to_know_before(tool_client):
    answer = await tool_client("ResizeVmDisk", **VM, disk="scsi0", size="+10G", dry_run=True)
    assert answer.data["would"] == (
        "Grow scsi0 of qemu 105 (web-frontend) on prod from 40.0 GiB to 50.0 GiB on ceph-vm. It "
        "cannot be shrunk again: no call undoes this. The guest sees it at once; its partition and "
        "file system have to be grown inside of it. It has 2 snapshots: rolling back to one brings "
        "the old size back."
    )
    assert "this takes up to 10.0 GiB" in answer.data["room"]
    assert "on thin storage" in answer.data["room"]
    answer = await tool_client("ResizeVmDisk", **CONTAINER, disk="rootfs", size="9G", dry_run=True)
    assert "from 8.0 GiB to 9.0 GiB" in answer.data["would"]
    assert "Proxmox grows the file system in it too." in answer.data["would"]


@pytest.mark.parametrize(
    ("call", "disk", "size"), [(VM, "scsi0", "+10G"), (CONTAINER, "rootfs", "18G")]
)
async def test_a_disk_grows_to_the_size(demo_client, call, disk, size):
    answer = await demo_client("ResizeVmDisk", **call, disk=disk, size=size, wait=True)
    assert answer.data["ok"] is True
    [drive] = [each for each in guest_of(demo_client, call["vmid"]).disks() if each.slot == disk]
    assert drive.size == {"scsi0": 50 * GIB, "rootfs": 18 * GIB}[disk]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"disk": "scsi0", "size": "20G"}, "has 40.0 GiB: disks cannot shrink"),
        ({"disk": "scsi0", "size": "40G"}, "has 40.0 GiB already"),
        ({"disk": "scsi7", "size": "+1G"}, "does not exist. It has "),
        ({"disk": "scsi0", "size": "+10"}, "a size has a unit"),
        ({"disk": "scsi0", "size": "-10G"}, "a size has a unit"),
        ({"disk": "ide2", "size": "+1G"}, "is no disk that it uses"),
        ({"disk": "unused0", "size": "+1G"}, "is no disk that it uses"),
        ({"disk": "efidisk0", "size": "+1G"}, "size of efidisk0 is fixed"),
        ({"disk": "sata1", "size": "+1G"}, "A change of sata1 is pending"),
        ({"disk": "sata2", "size": "+1G"}, "which no storage holds"),
    ],
)
async def test_what_cannot_grow_is_refused_before_anything_is_sent(demo_client, arguments, words):
    guest = guest_of(demo_client)
    guest.config |= {
        "ide2": "nfs-iso:iso/a.iso,media=cdrom",
        "unused0": "ceph-vm:vm-105-disk-9",
        "efidisk0": "ceph-vm:vm-105-disk-8,size=4M",
        "sata1": "ceph-vm:vm-105-disk-7,size=1G",
        "sata2": "/dev/sdb,size=1G",
    }
    guest.removals["sata1"] = 1
    assert words in await demo_client.refused("ResizeVmDisk", **VM, **arguments)
    assert not [r for r in demo_client.requests("prod") if r.startswith("PUT")]


async def test_growing_fills_only_a_storage_that_is_granted(tool_client):
    own = Resources(vmids=frozenset({105}))
    call = {**VM, "disk": "scsi0", "size": "+1G", "dry_run": True}
    assert "No storage 'ceph-vm'" in await tool_client.scoped(own).refused("ResizeVmDisk", **call)
    granted = tool_client.scoped(own | Resources(target_storages=frozenset({"ceph-vm"})))
    assert (await granted("ResizeVmDisk", **call)).data["dry_run"]


@pytest.mark.parametrize("delete", [True, False])
async def test_a_disk_moves_and_its_old_volume_goes_or_stays(demo_client, delete):
    guest = guest_of(demo_client)
    guest.snapshots.clear()
    old = guest.config["scsi0"].partition(",")[0]
    call = {**VM, "disk": "scsi0", "target_storage": "local-zfs", "delete_source": delete}
    answer = await demo_client("MoveVmDisk", **call, wait=True)
    assert answer.data["ok"] is True
    assert guest.config["scsi0"].startswith("local-zfs:")
    assert (guest.config.get("unused0") == old) is not delete
    volumes = demo_client["prod"].emulated.state.storages["ceph-vm"].volumes(guest.node)
    assert (old in volumes) is not delete


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({**VM, "disk": "scsi0", "target_storage": "ceph-vm"}, "is on ceph-vm already"),
        ({**VM, "disk": "scsi0", "target_storage": "nfs-iso"}, "nfs-iso"),
        ({**VM, "disk": "scsi0", "target_storage": "local-zfs", "delete_source": True}, "snapshot"),
        ({**CONTAINER, "disk": "rootfs", "target_storage": "ceph-vm"}, "only while it is stopped"),
        ({**VM, "vmid": 9000, "disk": "scsi0", "target_storage": "local-zfs"}, "is a template"),
    ],
)
async def test_what_cannot_move_is_refused_before_anything_is_sent(tool_client, call, words):
    tool_client.requests("prod")
    assert words in await tool_client.refused("MoveVmDisk", **call)
    assert not [r for r in tool_client.requests("prod") if r.startswith("POST")]
