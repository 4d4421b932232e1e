"""Backups: create, list, protect, prune, schedule."""

from datetime import UTC, datetime

import pytest

from proxmox_client.emulator.calendar import next_run
from proxmox_client.emulator.state.guest import Kind

pytestmark = pytest.mark.anyio
BACKUPS = "/nodes/pve1/storage/shared/content"


async def back_up(admin, **params):
    defaults = {"vmid": 100, "storage": "shared", "mode": "snapshot", "compress": "zstd"}
    return await admin.task("POST", "/nodes/pve1/vzdump", **(defaults | params))


async def backups(admin, **params):
    return await admin.get(BACKUPS, content="backup", **params)


async def test_a_backup_is_listed_with_notes_and_uses_space(admin):
    before = (await admin.get("/nodes/pve1/storage/shared/status"))["used"]
    status = await back_up(
        admin, **{"notes-template": "{{guestname}} of {{cluster}}", "protected": 1}
    )
    assert (status["type"], status["id"], status["exitstatus"]) == ("vzdump", "100", "OK")
    (row,) = await backups(admin)
    assert row["volid"].startswith("shared:backup/vzdump-qemu-100-")
    assert (row["format"], row["subtype"], row["vmid"]) == ("vma.zst", "qemu", 100)
    assert (row["notes"], row["protected"]) == ("web-100 of lab", 1)
    after = (await admin.get("/nodes/pve1/storage/shared/status"))["used"]
    assert after - before == row["size"]


async def test_a_backup_contains_the_configuration(admin):
    await back_up(admin)
    (row,) = await backups(admin)
    text = await admin.get("/nodes/pve1/vzdump/extractconfig", volume=row["volid"])
    assert "name: web-100\n" in text


async def test_a_guest_is_restored_from_its_backup(admin, lab):
    await back_up(admin)
    (row,) = await backups(admin)
    params = {"vmid": 700, "archive": row["volid"], "storage": "local", "name": "restored"}
    status = await admin.task("POST", "/nodes/pve1/qemu", **params)
    assert (status["type"], status["exitstatus"]) == ("qmrestore", "OK")
    old, new = [await admin.get(f"/nodes/pve1/qemu/{vmid}/config") for vmid in (100, 700)]
    assert new["name"] == "restored"
    assert new["scsi0"].startswith("local:700/vm-700-disk-0.qcow2")
    same = ("cores", "memory", "tags", "ostype", "net0")
    assert [new[key] for key in same] == [old[key] for key in same]


async def test_restoring_a_missing_backup_is_refused(admin, reason_of):
    volid = "shared:backup/vzdump-qemu-1-2026_01_01-00_00_00.vma"
    response = await admin.request("POST", "/nodes/pve1/qemu", vmid=700, archive=volid)
    assert reason_of(response) == f"volume '{volid}' does not exist"


async def test_a_restore_that_fails_leaves_an_empty_guest(admin, reason_of):
    await back_up(admin)
    (row,) = await backups(admin)
    params = {"vmid": 700, "archive": row["volid"]}
    failed = await admin.task("POST", "/nodes/pve1/qemu", **params, storage="nope")
    assert failed["exitstatus"].endswith("storage 'nope' does not exist")
    assert (await admin.get("/nodes/pve1/qemu/700/config")).keys() == {"digest"}
    again = await admin.request("POST", "/nodes/pve1/qemu", **params)
    assert "VM 700 already exists on node 'pve1'" in reason_of(again)


async def test_a_restore_over_a_guest_needs_force_and_that_it_is_stopped(admin, lab, reason_of):
    await back_up(admin)
    (row,) = await backups(admin)
    params = {"vmid": 100, "archive": row["volid"], "force": 1}
    running = await admin.task("POST", "/nodes/pve1/qemu", **params)
    assert running["exitstatus"] == "unable to restore VM 100 - vm is running"
    await admin.task("POST", "/nodes/pve1/qemu/100/status/stop")
    lab.state.guests[100].config["protection"] = 1
    protected = await admin.task("POST", "/nodes/pve1/qemu", **params)
    assert protected["exitstatus"] == "unable to restore VM 100 - - protection mode enabled"
    del lab.state.guests[100].config["protection"]
    lab.state.guests[100].config["cores"] = 99
    assert (await admin.task("POST", "/nodes/pve1/qemu", **params))["exitstatus"] == "OK"
    assert lab.state.guests[100].config["cores"] != 99
    elsewhere = await admin.request("POST", "/nodes/pve1/qemu", **{**params, "vmid": 101})
    assert "File exists" in reason_of(elsewhere)


async def test_a_restored_copy_has_other_mac_addresses_if_it_shall_be_unique(admin):
    await back_up(admin)
    (row,) = await backups(admin)
    for vmid, unique in ((700, 0), (701, 1)):
        params = {"vmid": vmid, "archive": row["volid"], "unique": unique}
        await admin.task("POST", "/nodes/pve1/qemu", **params)
    old, same, new = [
        (await admin.get(f"/nodes/pve1/qemu/{vmid}/config"))["net0"] for vmid in (100, 700, 701)
    ]
    assert (same == old, new == old) == (True, False)


async def test_only_mount_points_with_backup_1_are_included(admin, lab):
    guest = next(guest for guest in lab.state.guests.values() if guest.kind is Kind.LXC)
    guest.config["mp0"] = "shared:900/vm-900-disk-0.raw,mp=/a,size=1G"
    guest.config["mp1"] = "shared:900/vm-900-disk-1.raw,mp=/b,size=1G,backup=1"
    path = f"/nodes/{guest.node}/vzdump"
    status = await admin.task("POST", path, vmid=guest.vmid, storage="shared")
    included = [line for line in await admin.log(status["upid"]) if "include disk" in line]
    assert [line.split("'")[1] for line in included] == ["mp1", "rootfs"]


async def test_a_missing_guest_fails_the_task_but_not_other_backups(admin):
    status = await back_up(admin, vmid="100,999")
    assert (status["id"], status["exitstatus"]) == ("", "job errors")
    assert len(await backups(admin)) == 1
    assert "ERROR: Backup of VM 999 failed - unable to find VM '999'" in await admin.log(
        status["upid"]
    )


async def test_a_guest_is_locked_during_its_backup(admin, lab):
    upid = await admin.data("POST", "/nodes/pve1/vzdump", vmid=100, storage="shared")
    await lab.state.clock.sleep(1)
    locked = lab.state.guests[100].lock
    await lab.tasks.settle()
    assert (locked, lab.state.guests[100].lock) == ("backup", "")
    assert lab.state.tasks[upid].ok


async def test_a_stopped_backup_leaves_no_volume_and_no_lock(admin, lab):
    upid = await admin.data("POST", "/nodes/pve1/vzdump", vmid=100, storage="shared")
    await lab.state.clock.sleep(1)
    await admin.data("DELETE", f"/nodes/pve1/tasks/{upid}")
    await lab.tasks.settle()
    status = await admin.get(f"/nodes/pve1/tasks/{upid}/status")
    assert status["exitstatus"] == "unexpected status"
    assert not [line for line in await admin.log(upid) if line.startswith("TASK")]
    assert await backups(admin) == []
    assert lab.state.guests[100].lock == ""


async def test_a_missing_storage_fails_the_backup_task(admin):
    status = await back_up(admin, storage="nope")
    assert status["exitstatus"].startswith("could not activate storage 'nope'")


async def test_a_backup_without_guests_is_refused(admin):
    response = await admin.request("POST", "/nodes/pve1/vzdump", storage="shared")
    assert response.json()["errors"] == {"vmid": "property is missing"}


async def test_a_protected_backup_cannot_be_deleted(admin, lab):
    await back_up(admin, protected=1)
    (row,) = await backups(admin)
    status = await admin.task("DELETE", f"{BACKUPS}/{row['volid']}")
    assert status["exitstatus"].startswith("cannot remove protected volume")
    await admin.data("PUT", f"{BACKUPS}/{row['volid']}", protected=0)
    assert (await admin.task("DELETE", f"{BACKUPS}/{row['volid']}"))["exitstatus"] == "OK"
    assert await backups(admin) == []


async def test_pruning_keeps_newest_and_protected_backups(admin, lab):
    storage = lab.state.storages["shared"]
    await back_up(admin, protected=1)
    for _ in range(2):
        await lab.state.clock.sleep(2)
        await back_up(admin)
    keep = {"prune-backups": "keep-last=1", "vmid": 100}
    rows = await admin.get("/nodes/pve1/storage/shared/prunebackups", **keep)
    assert [row["mark"] for row in rows] == ["protected", "remove", "keep"]
    await admin.task("DELETE", "/nodes/pve1/storage/shared/prunebackups", **keep)
    remaining = [
        volume for volume in storage.volumes("pve1").values() if volume.content == "backup"
    ]
    assert [volume.volid for volume in remaining] == [rows[0]["volid"], rows[2]["volid"]]


async def test_a_backup_job_can_be_created_updated_and_deleted(admin):
    job = {"id": "nightly", "schedule": "mon..fri 02:00", "storage": "shared", "vmid": "100"}
    await admin.data("POST", "/cluster/backup", **job, **{"prune-backups": "keep-last=3"})
    (row,) = await admin.get("/cluster/backup")
    assert row["prune-backups"] == {"keep-last": "3"}
    assert row["next-run"] > 0
    await admin.data("PUT", "/cluster/backup/nightly", enabled=0)
    assert "next-run" not in (await admin.get("/cluster/backup"))[0]
    (volume,) = (await admin.get("/cluster/backup/nightly/included_volumes"))["children"]
    assert volume["children"][0]["id"] == "100:scsi0"
    await admin.data("DELETE", "/cluster/backup/nightly")
    missing = await admin.request("GET", "/cluster/backup/nightly")
    assert missing.json()["errors"] == {"id": "No such job 'nightly'"}


async def test_guests_without_a_backup_job_are_listed(admin, lab):
    await admin.data(
        "POST", "/cluster/backup", schedule="daily", storage="shared", all=1, exclude="100"
    )
    rows = await admin.get("/cluster/backup-info/not-backed-up")
    assert [row["vmid"] for row in rows] == [100]


WEDNESDAY = datetime(2026, 11, 25, 10, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "due"),
    [
        ("02:00", "2026-11-26 02:00"),
        ("daily", "2026-11-26 00:00"),
        ("hourly", "2026-11-25 11:00"),
        ("*/15", "2026-11-25 10:45"),
        ("mon..fri 02:00", "2026-11-26 02:00"),
        ("sat 22:00", "2026-11-28 22:00"),
        ("sat,sun 3:30", "2026-11-28 03:30"),
        ("8..17:00", "2026-11-25 11:00"),
        ("monthly", "2026-12-01 00:00"),
        ("weekly", "2026-11-30 00:00"),
    ],
)
def test_the_next_run_of_a_schedule(schedule, due):
    assert f"{next_run(schedule, WEDNESDAY):%Y-%m-%d %H:%M}" == due


async def test_neither_a_clone_nor_a_restored_guest_has_the_unused_disks_of_its_origin(admin, lab):
    for vmid, node, kind, archive in (
        (100, "pve1", "qemu", {"archive": ""}),
        (104, "pve2", "lxc", {"ostemplate": "", "restore": 1}),
    ):
        lab.state.guests[vmid].config["unused0"] = f"shared:{vmid}/vm-{vmid}-disk-9.raw"
        path = f"/nodes/{node}/vzdump"
        await admin.task("POST", path, vmid=str(vmid), storage="shared", mode="stop")
        (row,) = await backups(admin, vmid=vmid)
        archive = {key: value or row["volid"] for key, value in archive.items()}
        restored, path = vmid + 700, f"/nodes/{node}/{kind}"
        task = await admin.task("POST", path, vmid=restored, storage="shared", **archive)
        assert task["exitstatus"] == "OK"
        await admin.task("POST", f"{path}/{vmid}/status/stop")
        await admin.task("POST", f"{path}/{vmid}/clone", newid=restored + 100, full=1)
        for new in (restored, restored + 100):
            assert "unused0" not in lab.state.guests[new].config
