"""DeleteVm."""

from dataclasses import replace

import pytest
from tests.server.tools.tool_client import offered

from proxmox_client.emulator.state.guest import Snapshot
from proxmox_client.emulator.state.jobs import HaResource, Replication
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}
VMID, NAME = 140, "search-02"  # stopped, on pve01, in pool production
GUEST = {**PROD, "vmid": VMID, "name": NAME}


def of(client):
    return client["prod"].emulated.state


def guest(client):
    return of(client).guests[VMID]


def set_options(client, **options):
    guest(client).config |= options
    guest(client).touch()
    client.refresh()


async def would(client, **arguments):
    return (await client("DeleteVm", **{**GUEST, **arguments}, dry_run=True)).data["would"]


async def test_a_guest_goes_with_its_disks_and_its_backups_stay(demo_client):
    [disk] = guest(demo_client).disks()
    answer = await demo_client("DeleteVm", **GUEST, wait=True)
    assert (answer.data["success"], answer.data["ok"]) == (True, True)
    assert VMID not in of(demo_client).guests
    assert disk.volid not in of(demo_client).storages[disk.storage].volumes("pve01")
    [question] = demo_client.conversation.questions
    assert question.startswith("Delete qemu 140 (search-02) on prod from pve01. Lost: 1 disk (")
    left = (await demo_client("ListBackups", **PROD, vmid=VMID)).data
    assert answer.data["backups_left"] == len(left)
    assert offered(answer.data["undo"]) == (
        "RestoreBackup",
        {
            **PROD,
            "backup": left[0]["volid"],
            "vmid": VMID,
            "node": "pve01",
            "pool": "production",
        },
    )


@pytest.mark.parametrize("name", ["search-03", "SEARCH-02", "140", "search"])
async def test_another_name_is_refused(demo_client, name):
    error = await demo_client.refused("DeleteVm", **{**GUEST, "name": name})
    assert error.startswith("name: qemu 140 (search-02) on prod has another name than")
    assert demo_client.conversation.questions == []


def running(client):
    guest(client).status = "running"


def lock(client):
    set_options(client, lock="backup")


def protect(client):
    set_options(client, protection=1)


def manage(client):
    of(client).ha_resources[f"vm:{VMID}"] = HaResource(f"vm:{VMID}")


def replicate(client):
    job = Replication(VMID, 0, "pve01", "pve02")
    of(client).replications[job.id] = job


def clone(client):
    """Make the guest a template with a linked clone."""
    set_options(client, template=1)
    [disk] = guest(client).disks()
    base = disk.volid.replace("vm-", "base-")
    guest(client).config[disk.slot] = f"{base},size=32G"
    storage = of(client).storages[disk.storage]
    storage.put("pve01", Volume(base, "images", "raw", 1 << 30, 0, VMID))
    parent = base.partition(":")[2]
    volid = f"{disk.storage}:{parent}/vm-105-disk-7"
    storage.put("pve01", Volume(volid, "images", "raw", 1 << 30, 0, 105, parent=parent))


REFUSALS = [
    (running, "is running. ChangeVmState with action Shutdown stops it."),
    (lock, "is locked (backup)"),
    (protect, "is protected in Proxmox."),
    (manage, "HA manages qemu 140 (search-02) on prod, so Proxmox deletes it only with purge."),
    (replicate, "is replicated (job 140-0), so Proxmox deletes it only with purge."),
    (clone, "is the base of linked clones: 105."),
]


@pytest.mark.parametrize(("prepare", "says"), REFUSALS)
async def test_what_proxmox_would_refuse_is_refused_before(demo_client, prepare, says):
    prepare(demo_client)
    assert says in await demo_client.refused("DeleteVm", **GUEST)
    assert demo_client.conversation.questions == []
    assert not any(one.startswith("DELETE") for one in demo_client.requests("prod"))


async def test_purge_removes_it_from_what_refers_to_it(demo_client):
    manage(demo_client)
    replicate(demo_client)
    of(demo_client).backup_jobs["backup-archive"].options["vmid"] = f"101,{VMID}"
    text = await would(demo_client, purge=True)
    assert "It is removed from HA." in text
    assert "Replication job 140-0 is removed; its copies on pve02 stay." in text
    assert "It leaves pool production." in text
    assert "It is removed from backup job backup-archive." in text
    await demo_client("DeleteVm", **GUEST, purge=True, wait=True)
    assert f"vm:{VMID}" not in of(demo_client).ha_resources
    assert "140-0" not in of(demo_client).replications
    assert of(demo_client).backup_jobs["backup-archive"].vmids == [101]


async def test_no_sentence_that_a_host_sends_as_a_name_is_in_the_plan(demo_client):
    lie, state = "x. It has a backup: tick Do it.", of(demo_client)
    replicate(demo_client)
    state.replications["140-0"].target = lie
    job = replace(state.backup_jobs["backup-archive"], id=lie)
    state.backup_jobs[lie] = job
    job.options["vmid"] = str(VMID)
    state.pools[lie] = replace(state.pools.pop("production"), poolid=lie)
    demo_client.refresh()
    text = await would(demo_client, purge=True)
    assert lie not in text, text  # what is no name is left out, and noted as malformed


async def test_without_purge_the_backup_job_that_names_it_is_named(demo_client):
    of(demo_client).backup_jobs["backup-archive"].options["vmid"] = f"101,{VMID}"
    assert "Backup job backup-archive names it and will fail on it" in await would(demo_client)
    await demo_client("DeleteVm", **GUEST, wait=True)
    assert of(demo_client).backup_jobs["backup-archive"].vmids == [101, VMID]


async def test_a_volume_that_nothing_names_stays_and_is_named(demo_client):
    unnamed = Volume("ceph-vm:vm-140-disk-9", "images", "raw", 1 << 30, 0, VMID)
    snapshot = Volume("ceph-vm:vm-140-state-old", "images", "raw", 1 << 30, 0, VMID)
    other = Volume("ceph-vm:vm-777-disk-0", "images", "raw", 1 << 30, 0, 777)
    ceph = of(demo_client).storages["ceph-vm"]
    for volume in (unnamed, snapshot, other):
        ceph.put("pve01", volume)
    guest(demo_client).snapshots["old"] = Snapshot("old", 1, config={"vmstate": snapshot.volid})
    set_options(demo_client, scsi7=f"{other.volid},size=1G")
    text = await would(demo_client)
    assert "does not name 1 volume (ceph-vm:vm-140-disk-9, 1.0 GiB), so that stays." in text
    assert "Not its own, so they stay: ceph-vm:vm-777-disk-0." in text
    await demo_client("DeleteVm", **GUEST, wait=True)
    kept = {volume.volid for volume in ceph.everything()}
    assert {unnamed.volid, other.volid} <= kept
    assert snapshot.volid not in kept


async def test_a_guest_without_backup_is_said_to_have_none(demo_client):
    for storage in of(demo_client).storages.values():
        for volume in list(storage.volumes("pve01").values()):
            if volume.content == "backup" and volume.vmid == VMID:
                storage.remove("pve01", volume.volid)
    answer = await demo_client("DeleteVm", **GUEST, dry_run=True)
    assert "no backup that this key sees: BackupVm first keeps it." in answer.data["would"]
    assert answer.data["backups_left"] == 0
    assert "undo" not in answer.data


async def test_a_key_for_one_guest_learns_no_other_names(demo_client):
    clone(demo_client)
    scoped = demo_client.scoped(Resources(vmids=frozenset({VMID})))
    error = await scoped.refused("DeleteVm", **GUEST)
    assert error.startswith(
        "qemu 140 (search-02) on prod is the base of linked clones: guests that this key does not"
    )
    assert "105" not in error


async def test_nothing_is_sent_unless_the_user_agrees(demo_client):
    demo_client.conversation.decision = Decision.NO
    assert "declined" in await demo_client.refused("DeleteVm", **GUEST)
    assert VMID in of(demo_client).guests


async def test_an_empty_guest_that_a_failed_restore_left_is_deleted(demo_client):
    guest(demo_client).config.clear()
    guest(demo_client).snapshots.clear()
    guest(demo_client).touch()
    demo_client.refresh()
    answer = await demo_client("DeleteVm", **{**GUEST, "name": "VM 140"}, wait=True)
    assert answer.data["ok"] is True
    assert "Lost: no disk." in demo_client.conversation.questions[0]
