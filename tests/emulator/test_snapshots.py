"""Snapshots of guests and their tree."""

import pytest

pytestmark = pytest.mark.anyio
VM = "/nodes/pve1/qemu/100"


async def tree(admin):
    rows = await admin.get(f"{VM}/snapshot")
    return {row["name"]: row.get("parent") for row in rows}


async def create(admin, name, **params):
    return await admin.task("POST", f"{VM}/snapshot", snapname=name, **params)


async def test_the_current_state_is_the_last_entry(admin):
    (current,) = await admin.get(f"{VM}/snapshot")
    assert current["name"] == "current"
    assert current["running"] == 1


async def test_the_parent_of_a_snapshot_is_the_previous_one(admin):
    await create(admin, "one", description="first")
    await create(admin, "two")
    assert await tree(admin) == {"one": None, "two": "one", "current": "two"}
    assert (await admin.get(f"{VM}/snapshot"))[0]["description"] == "first"


async def test_children_of_a_deleted_snapshot_get_its_parent(admin):
    for name in ("one", "two", "three"):
        await create(admin, name)
    await admin.task("DELETE", f"{VM}/snapshot/two")
    assert await tree(admin) == {"one": None, "three": "one", "current": "three"}


async def test_a_rollback_changes_the_parent_and_restores_the_configuration(admin):
    await create(admin, "one")
    await admin.data("PUT", f"{VM}/config", description="later")
    await create(admin, "two")
    await admin.task("POST", f"{VM}/snapshot/one/rollback")
    assert (await tree(admin))["current"] == "one"
    assert "description" not in await admin.get(f"{VM}/config")
    assert (await admin.get(f"{VM}/status/current"))["status"] == "stopped"


async def test_a_snapshot_with_memory_rolls_back_to_running(admin):
    status = await create(admin, "ram", vmstate=1)
    assert any("saving VM state and RAM" in line for line in await admin.log(status["upid"]))
    assert (await admin.get(f"{VM}/snapshot"))[0]["vmstate"] == 1
    assert "runningmachine" in await admin.get(f"{VM}/snapshot/ram/config")
    await admin.task("POST", f"{VM}/status/stop")
    await admin.task("POST", f"{VM}/snapshot/ram/rollback")
    assert (await admin.get(f"{VM}/status/current"))["status"] == "running"
    assert "runningmachine" not in await admin.get(f"{VM}/config")


async def test_the_memory_of_a_snapshot_is_a_volume_until_it_is_deleted(admin, lab):
    await create(admin, "ram", vmstate=1)
    volid = (await admin.get(f"{VM}/snapshot/ram/config"))["vmstate"]
    volumes = lab.state.storages["shared"].volumes("pve1")
    assert volumes[volid].size > lab.state.guests[100].memory
    await admin.task("DELETE", f"{VM}/snapshot/ram")
    assert volid not in volumes


@pytest.mark.parametrize(
    ("method", "path", "outcome"),
    [
        ("POST", "/snapshot", "snapshot name 'one' already used"),
        ("POST", "/snapshot/nope/rollback", "snapshot 'nope' does not exist"),
        ("DELETE", "/snapshot/nope", "snapshot 'nope' does not exist"),
    ],
)
async def test_impossible_snapshot_actions_fail_in_the_task(admin, method, path, outcome):
    await create(admin, "one")
    extra = {"snapname": "one"} if path == "/snapshot" else {}
    assert (await admin.task(method, VM + path, **extra))["exitstatus"] == outcome


async def test_the_name_current_is_reserved(admin, reason_of):
    response = await admin.request("POST", f"{VM}/snapshot", snapname="current")
    assert reason_of(response) == "unable to use snapshot name 'current' (reserved name)"


async def test_a_disk_without_snapshot_support_fails_the_task(admin, lab):
    guest = lab.state.guests[100]
    guest.config["scsi0"] = guest.config["scsi0"].replace(".qcow2", ".raw")
    assert (await create(admin, "one"))["exitstatus"] == "snapshot feature is not available"


async def test_a_locked_guest_fails_the_task(admin, lab):
    lab.state.guests[100].config["lock"] = "backup"
    assert (await create(admin, "one"))["exitstatus"] == "VM is locked (backup)"


async def test_a_description_can_be_changed_later(admin):
    await create(admin, "one")
    await admin.data("PUT", f"{VM}/snapshot/one/config", description="changed")
    assert (await admin.get(f"{VM}/snapshot"))[0]["description"] == "changed"
