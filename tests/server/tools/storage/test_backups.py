"""BackupVm."""

import pytest

from pvemcp_server.toolkit.room import readable

pytestmark = pytest.mark.anyio

PROD = {"cluster_name": "prod"}


async def test_a_backup_uses_all_its_arguments(demo_client):
    answer = await demo_client(
        "BackupVm",
        **PROD,
        vmid=200,
        storage="nfs-archive",
        mode="stop",
        compress="zstd",
        protected_backup=True,
        bwlimit=50000,
        notes="before the move\nby hand",
        wait=True,
    )
    assert answer.data["ok"] is True
    assert (answer.data["storage"], answer.data["mode"]) == ("nfs-archive", "stop")
    assert "shut down and started again" in demo_client.conversation.questions[0]
    listed = await demo_client("ListBackups", **PROD, node="pve02", storage="nfs-archive", vmid=200)
    newest = listed.data[0]
    assert newest["protected"] is True
    assert newest["notes"] == "before the move", "a list has the first line of notes"
    volumes = demo_client["prod"].emulated.state.storages["nfs-archive"].volumes("pve02")
    assert volumes[newest["volid"]].notes == "before the move\nby hand"
    assert newest["volid"].endswith(".vma.zst")


async def test_a_backup_removes_no_older_one(demo_client):
    # Proxmox would, by the retention of the storage, and a key may back up without DeleteBackup
    cluster = demo_client["prod"]
    archive = cluster.emulated.state.storages["nfs-archive"]
    archive.options["prune-backups"] = "keep-last=1"
    before = {each.volid for each in archive.volumes("pve02").values() if each.vmid == 200}
    assert len(before) > 1
    call = {**PROD, "vmid": 200, "storage": "nfs-archive", "wait": True}
    assert (await demo_client("BackupVm", **call)).data["ok"]
    assert before < archive.volumes("pve02").keys()
    await cluster.pve.node("pve02").vzdump([200], storage="nfs-archive")
    await cluster.emulated.tasks.settle()
    assert not before <= archive.volumes("pve02").keys()


async def test_without_a_storage_proxmoxs_default_is_taken_and_named(demo_client):
    answer = await demo_client("BackupVm", **PROD, vmid=200, wait=True)
    assert (answer.data["storage"], answer.data["mode"]) == ("local", "snapshot")


async def test_the_only_storage_for_backups_is_taken(demo_client):
    state = demo_client["home-lab"].emulated.state
    state.storages["local"].content = ("iso", "vztmpl")
    answer = await demo_client("BackupVm", cluster_name="home-lab", vmid=203, dry_run=True)
    assert answer.data["storage"] == "nas-backup"


async def test_an_unknown_storage_is_answered_with_the_nearest(demo_client):
    error = await demo_client.refused("BackupVm", **PROD, vmid=200, storage="pbs-mian")
    assert error == "No storage 'pbs-mian' on pve02 of prod. Did you mean pbs-main?"


async def test_a_storage_without_backup_content_is_refused_with_others(demo_client):
    error = await demo_client.refused("BackupVm", **PROD, vmid=200, storage="ceph-vm")
    assert "Storage ceph-vm does not take backup" in error
    assert "pbs-main" in error


async def test_a_dry_run_of_a_backup_writes_nothing(demo_client):
    answer = await demo_client("BackupVm", **PROD, vmid=200, storage="pbs-main", dry_run=True)
    assert (
        answer.data["would"]
        == "Back up qemu 200 (mail-gateway) on prod to pbs-main, mode snapshot."
    )
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


async def test_a_node_without_backup_storage_is_an_error(demo_client):
    state = demo_client["home-lab"].emulated.state
    for storage in state.storages.values():
        storage.content = tuple(kind for kind in storage.content if kind != "backup")
    error = await demo_client.refused("BackupVm", cluster_name="home-lab", vmid=203)
    assert error == "No storage on pve takes backups and is available."


async def test_several_storages_without_a_default_are_asked_about(demo_client):
    demo_client["prod"].emulated.state.storages["local"].content = ("iso",)
    error = await demo_client.refused("BackupVm", **PROD, vmid=200)
    assert error == "storage: say where to; there are nfs-archive, pbs-main."


async def test_a_parameter_that_proxmox_refuses_is_named_with_its_reason(demo_client):
    notes = "a\n" * 500 + "b"  # each line end takes two characters on the way
    error = await demo_client.refused("BackupVm", **PROD, vmid=101, storage="pbs-main", notes=notes)
    assert error == (
        "Proxmox: 'Parameter verification failed. "
        "notes-template: value may only be 1024 characters long'."
    )


@pytest.mark.parametrize(
    ("notes", "warned"), [("{{guestname}} on {{node}}", True), ("{x} {{", False), ("plain", False)]
)
async def test_words_that_proxmox_replaces_in_notes_are_named(demo_client, notes, warned):
    call = {**PROD, "vmid": 200, "storage": "pbs-main", "notes": notes, "dry_run": True}
    would = (await demo_client("BackupVm", **call)).data["would"]
    assert ("Proxmox replaces {{cluster}}, {{guestname}}, {{node}}, {{vmid}}" in would) is warned


@pytest.mark.parametrize("notes", ["cost {{foo}}", "{{ guestname }}", "{{}}"])
async def test_a_word_that_proxmox_would_refuse_in_notes_is_refused_before(demo_client, notes):
    error = await demo_client.refused("BackupVm", **PROD, vmid=200, storage="local", notes=notes)
    assert error.startswith("notes: Proxmox replaces words in double braces, and has none called")
    assert not any(one.startswith("POST") for one in demo_client.requests("prod"))


@pytest.mark.parametrize("keep", ["keep-last=3,keep-daily=7", "keep-daily=7,keep-last=3"])
async def test_a_retention_has_one_order(demo_client, keep):
    job = next(iter(demo_client["prod"].emulated.state.backup_jobs.values()))
    job.options["prune-backups"] = keep
    rows = (await demo_client("ListBackupJobs", **PROD, fields=["id", "retention"])).data
    assert "keep-last=3,keep-daily=7" in {row["retention"] for row in rows}


@pytest.mark.parametrize(
    ("size", "text"),
    [(2**21, "2.0 MiB"), (700, "700 B"), (5 * 2**30, "5.0 GiB"), (2**43, "8.0 TiB")],
)
def test_a_size_is_written_in_a_unit_that_shows_it(size, text):
    assert readable(size) == text
