"""MigrateVm."""

from dataclasses import replace

import pytest

from proxmox_client import Qemu
from proxmox_client.api.guests import MigrateCheck
from proxmox_client.emulator import FaultKind
from proxmox_client.emulator.state.guest import Kind

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


async def test_a_running_machine_moves_live(demo_client):
    answer = await demo_client(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True, wait=True
    )
    assert answer.data["ok"] is True
    assert (answer.data["target_node"], answer.data["online"]) == ("pve02", True)
    guest = demo_client["prod"].emulated.state.guests[105]
    assert (guest.node, guest.running) == ("pve02", True)


async def test_online_does_no_harm_to_a_guest_that_is_stopped(demo_client):
    await demo_client("ChangeVmState", **PROD, vmid=105, action="Stop", wait=True)
    answer = await demo_client(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True, wait=True
    )
    assert (answer.data["ok"], answer.data["online"]) == (True, False)
    assert demo_client["prod"].emulated.state.guests[105].node == "pve02"


async def test_a_running_vm_needs_online(demo_client):
    error = await demo_client.refused("MigrateVm", **PROD, vmid=105, target_node="pve02")
    assert error == (
        "qemu 105 (web-frontend) on prod is running. With online=true it is moved while it runs."
    )


async def test_restarting_a_migrated_container_is_noted(demo_client):
    guest = _on_ceph(demo_client, Kind.LXC)
    target = "pve02" if guest.node != "pve02" else "pve03"
    call = {**PROD, "vmid": guest.vmid, "target_node": target}
    assert "restarted there" in await demo_client.refused("MigrateVm", **call)
    answer = await demo_client("MigrateVm", **call, online=True, wait=True)
    assert answer.data["ok"] is True
    assert "stopped and started there" in demo_client.conversation.questions[0]
    assert guest.node == target


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("pve01", "is on pve01 already"),
        ("pve05", "Node pve05 on prod is offline."),
        ("pve2", "No node 'pve2' on prod. Did you mean pve0"),
    ],
)
async def test_a_target_that_cannot_be_is_refused_by_name(demo_client, target, says):
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=105, target_node=target, online=True
    )
    assert says in error
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


async def test_copying_local_disks_is_noted(demo_client):
    guest = _local(demo_client)
    target = "pve02" if guest.node != "pve02" else "pve03"
    answer = await demo_client(
        "MigrateVm", **PROD, vmid=guest.vmid, target_node=target, online=True, wait=True
    )
    assert answer.data["ok"] is True
    assert "Local disks are copied" in answer.notes
    assert guest.node == target


async def test_a_disk_that_the_target_cannot_reach_is_named(demo_client):
    guest = _local(demo_client)
    state = demo_client["prod"].emulated.state
    target = "pve02" if guest.node != "pve02" else "pve03"
    state.storages["local-zfs"].nodes = {node for node in state.nodes if node != target}
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=guest.vmid, target_node=target, online=True
    )
    assert f"{target} cannot reach scsi0 on local-zfs" in error
    assert "target_storage" in error


async def test_devices_of_the_node_hold_a_guest_there(demo_client):
    demo_client["prod"].emulated.state.guests[105].config["hostpci0"] = "0000:01:00.0"
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True
    )
    assert "uses devices of its node: hostpci0" in error


@pytest.mark.parametrize("option", ["hostpci0", "usb1", "serial0", "parallel0"])
async def test_a_pending_device_of_the_node_holds_a_guest_there(demo_client, option):
    guest = demo_client["prod"].emulated.state.guests[105]
    guest.pending[option] = "/dev/x"
    call = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    error = await demo_client.refused("MigrateVm", **call)
    assert f"will use devices of its node: {option}, pending until the guest restarts" in error
    guest.removals[option] = 1
    guest.config[option] = guest.pending.pop(option)
    assert f"uses devices of its node: {option}" in await demo_client.refused("MigrateVm", **call)


@pytest.mark.parametrize(
    ("option", "value"), [("usb1", "spice"), ("serial0", "socket"), ("hostpci0", "mapping=gpu")]
)
async def test_a_pending_device_of_any_node_does_not_block_migration(demo_client, option, value):
    demo_client["prod"].emulated.state.guests[105].pending[option] = value
    call = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    assert (await demo_client("MigrateVm", **call)).data["would"].startswith("Move qemu 105")


@pytest.mark.parametrize("waits", ["removal", "addition"])
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("ide2", "local:iso/x.iso,media=cdrom", "has a local CD-ROM in its drive ide2"),
        ("scsi7", "/dev/sdb", "uses a path of its node: scsi7"),
        ("scsi7", "lost:vm-105-disk-7,size=1G", "cannot reach scsi7 on lost"),
    ],
)
async def test_pending_drives_hold_a_guest_as_present_ones_do(
    demo_client, waits, option, value, says
):
    guest = demo_client["prod"].emulated.state.guests[105]
    _wait(guest, waits, option, value)
    builds = demo_client["prod"].emulated.state.storages
    builds["lost"] = replace(builds["local-zfs"], name="lost", nodes=("pve01",))
    call = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    assert says in await demo_client.refused("MigrateVm", **call)


@pytest.mark.parametrize("waits", ["removal", "addition"])
async def test_local_disks_of_pending_changes_are_copied_too(demo_client, waits):
    guest = demo_client["prod"].emulated.state.guests[105]
    _wait(guest, waits, "scsi7", "local-zfs:vm-105-disk-7,size=1G")
    call = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    assert (
        "Local disks are copied, which may take long: scsi7."
        in (await demo_client("MigrateVm", **call)).data["would"]
    )


def _wait(guest, waits, option, value):
    """Make the removal or the addition of an option pending."""
    if waits == "removal":
        guest.config[option], guest.removals[option] = value, 1
    else:
        guest.pending[option] = value


async def test_an_unknown_target_storage_is_answered_with_the_nearest(demo_client):
    error = await demo_client.refused(
        "MigrateVm",
        **PROD,
        vmid=105,
        target_node="pve02",
        online=True,
        target_storage="cef-vm",
    )
    assert error.startswith("No storage 'cef-vm' on pve02 of prod. Did you mean ceph-vm")


async def test_a_target_storage_has_to_take_disks(demo_client):
    error = await demo_client.refused(
        "MigrateVm",
        **PROD,
        vmid=105,
        target_node="pve02",
        online=True,
        target_storage="nfs-iso",
    )
    assert "Storage nfs-iso does not take images" in error


async def test_a_dry_run_of_a_migration_moves_nothing(demo_client):
    answer = await demo_client(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True, dry_run=True
    )
    assert answer.data["would"] == "Move qemu 105 (web-frontend) on prod from pve01 to pve02."
    assert demo_client["prod"].emulated.state.guests[105].node == "pve01"


def _on_ceph(demo_client, kind):
    state = demo_client["prod"].emulated.state
    return next(
        one
        for one in state.guests.values()
        if one.kind is kind
        and one.running
        and state.nodes[one.node].online
        and all(disk.storage == "ceph-vm" for disk in one.disks())
    )


def _local(demo_client):
    state = demo_client["prod"].emulated.state
    return next(
        one
        for one in state.guests.values()
        if one.kind is Kind.QEMU
        and one.running
        and not one.paused
        and not one.snapshots
        and state.nodes[one.node].online
        and all(disk.storage == "local-zfs" for disk in one.disks())
    )


@pytest.mark.parametrize("volume", ["local:iso/debian-13.1.0-amd64-netinst.iso", "cdrom"])
async def test_a_local_cd_rom_holds_a_guest_where_it_is(demo_client, volume):
    demo_client["prod"].emulated.state.guests[105].config["ide2"] = f"{volume},media=cdrom"
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True
    )
    assert f"has a local CD-ROM in its drive ide2: {volume}. Eject it first." in error


@pytest.mark.parametrize("volume", ["none", "nfs-iso:iso/x.iso", "local:105/vm-105-cloudinit"])
async def test_drives_that_do_not_block_migration(demo_client, volume):
    demo_client["prod"].emulated.state.guests[105].config["ide2"] = f"{volume},media=cdrom"
    call = {**PROD, "vmid": 105, "target_node": "pve02", "online": True, "dry_run": True}
    assert (await demo_client("MigrateVm", **call)).data["would"].startswith("Move qemu 105")


@pytest.mark.parametrize(
    ("kind", "option", "value"),
    [(Kind.QEMU, "scsi7", "/dev/sdb"), (Kind.LXC, "mp7", "/srv/media,mp=/media")],
)
async def test_a_path_of_the_node_blocks_migration_unless_shared(demo_client, kind, option, value):
    guest = _on_ceph(demo_client, kind)
    target = "pve02" if guest.node != "pve02" else "pve03"
    call = {**PROD, "vmid": guest.vmid, "target_node": target, "online": True, "dry_run": True}
    guest.config[option] = value
    error = await demo_client.refused("MigrateVm", **call)
    assert f"uses a path of its node: {option} is {value.partition(',')[0]}." in error
    guest.config[option] = f"{value},shared=1"
    assert (await demo_client("MigrateVm", **call)).data["dry_run"] is True


async def test_a_target_storage_for_local_disks_is_named_beforehand(demo_client):
    guest = _local(demo_client)
    target = "pve02" if guest.node != "pve02" else "pve03"
    call = {**PROD, "vmid": guest.vmid, "target_node": target, "online": True, "dry_run": True}
    would = (await demo_client("MigrateVm", **call, target_storage="ceph-vm")).data["would"]
    assert "Local disks are copied to ceph-vm, which may take long: scsi0" in would


async def test_a_node_that_proxmox_disallows_is_refused_with_its_reason(demo_client, monkeypatch):
    _replace_check(
        demo_client,
        monkeypatch,
        allowed_nodes=["pve03"],
        refused={"pve02": {"unavailable_mappings": ["gpu"]}},
    )
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True
    )
    assert "Proxmox does not allow qemu 105" in error
    assert "unavailable mappings ['gpu']" in error


async def test_ha_managed_migrations_are_noted(
    demo_client,
):
    state = demo_client["prod"].emulated.state
    guest = state.guests[103]
    target = "pve02" if guest.node != "pve02" else "pve03"
    call = {**PROD, "vmid": 103, "target_node": target, "online": True, "dry_run": True}
    assert "HA manages this guest" in (await demo_client("MigrateVm", **call)).data["would"]
    state.ha_resources["vm:103"].state = "error"
    assert "in state error" in await demo_client.refused("MigrateVm", **call)


async def test_a_missing_privilege_to_migrate_is_named(demo_client):
    demo_client["prod"].emulated.fault(
        FaultKind.FORBIDDEN, path=".*/migrate", message="/vms/105, VM.Migrate"
    )
    error = await demo_client.refused(
        "MigrateVm", **PROD, vmid=105, target_node="pve02", online=True
    )
    assert "lacks VM.Migrate on /vms/105" in error


async def test_a_linked_clone_on_a_local_storage_cannot_move(demo_client):
    guest = _local(demo_client)
    target = "pve02" if guest.node != "pve02" else "pve03"
    call = {**PROD, "vmid": guest.vmid, "target_node": target, "online": True, "dry_run": True}
    for volume, base in [
        ("base-102-disk-0/vm-9-disk-0", "base-102-disk-0"),
        ("102/base-102-disk-0.qcow2/9/vm-9-disk-0.qcow2", "base-102-disk-0.qcow2"),
        ("basevol-102-disk-0/subvol-9-disk-0", "basevol-102-disk-0"),
    ]:
        guest.config["scsi0"] = f"local-zfs:{volume},size=8G"
        error = await demo_client.refused("MigrateVm", **call)
        assert f"linked clone on a local storage: scsi0 is a clone of {base}." in error
    guest.config["scsi0"] = "local-zfs:base-102-disk-0,size=8G"
    assert "linked clone" not in (await demo_client("MigrateVm", **call)).text


async def test_replication_jobs_are_regarded_before_a_migration(demo_client):
    state = demo_client["prod"].emulated.state
    job = next(iter(state.replications.values()))
    guest = state.guests[job.guest]
    call = {**PROD, "vmid": guest.vmid, "target_node": job.target, "online": True, "dry_run": True}
    would = (await demo_client("MigrateVm", **call)).data["would"]
    turned = f"Its replication job {job.id} then copies from {job.target} to {guest.node}."
    assert turned in would
    guest.config["scsi7"] = "local:9/vm-9-disk-7.qcow2,size=8G"
    error = await demo_client.refused("MigrateVm", **call)
    assert f"(job {job.id}), but scsi7 on local cannot be replicated." in error
    guest.config["scsi7"] += ",replicate=0"
    assert turned in (await demo_client("MigrateVm", **call)).data["would"]


def _replace_check(demo_client, monkeypatch, **fields):
    """Replace Proxmox's check of a migration by one that the emulator cannot produce."""
    check = {"running": True, "allowed_nodes": [], "refused": {}} | fields

    async def migrate_check(self, target=None):
        return MigrateCheck(**check)

    monkeypatch.setattr(Qemu, "migrate_check", migrate_check)
