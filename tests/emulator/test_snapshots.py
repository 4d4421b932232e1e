"""Snapshots form a tree whose tip is the present."""

import pytest

pytestmark = pytest.mark.anyio
VM = "/nodes/pve1/qemu/100"


async def tree(admin):
    rows = await admin.get(f"{VM}/snapshot")
    return {row["name"]: row.get("parent") for row in rows}


async def take(admin, name, **more):
    return await admin.task("POST", f"{VM}/snapshot", snapname=name, **more)


async def test_the_present_is_the_last_entry_and_no_snapshot(admin):
    (current,) = await admin.get(f"{VM}/snapshot")
    assert current["name"] == "current"
    assert current["running"] == 1


async def test_each_snapshot_hangs_on_the_one_before(admin):
    await take(admin, "one", description="first")
    await take(admin, "two")
    assert await tree(admin) == {"one": None, "two": "one", "current": "two"}
    assert (await admin.get(f"{VM}/snapshot"))[0]["description"] == "first"


async def test_a_snapshot_in_the_middle_is_removed_and_the_tree_closes(admin):
    for name in ("one", "two", "three"):
        await take(admin, name)
    await admin.task("DELETE", f"{VM}/snapshot/two")
    assert await tree(admin) == {"one": None, "three": "one", "current": "three"}


async def test_going_back_makes_the_present_a_branch_and_restores_the_configuration(admin):
    await take(admin, "one")
    await admin.data("PUT", f"{VM}/config", description="later")
    await take(admin, "two")
    await admin.task("POST", f"{VM}/snapshot/one/rollback")
    assert (await tree(admin))["current"] == "one"
    assert "description" not in await admin.get(f"{VM}/config")
    assert (await admin.get(f"{VM}/status/current"))["status"] == "stopped"


async def test_a_snapshot_with_memory_comes_back_running(admin):
    ended = await take(admin, "ram", vmstate=1)
    assert any("saving VM state and RAM" in line for line in await admin.log(ended["upid"]))
    assert (await admin.get(f"{VM}/snapshot"))[0]["vmstate"] == 1
    assert "runningmachine" in await admin.get(f"{VM}/snapshot/ram/config")
    await admin.task("POST", f"{VM}/status/stop")
    await admin.task("POST", f"{VM}/snapshot/ram/rollback")
    assert (await admin.get(f"{VM}/status/current"))["status"] == "running"
    assert "runningmachine" not in await admin.get(f"{VM}/config")


@pytest.mark.parametrize(
    ("method", "path", "outcome"),
    [
        ("POST", "/snapshot", "snapshot name 'one' already used"),
        ("POST", "/snapshot/nope/rollback", "snapshot 'nope' does not exist"),
        ("DELETE", "/snapshot/nope", "snapshot 'nope' does not exist"),
    ],
)
async def test_what_cannot_be_done_is_said_by_the_task(admin, method, path, outcome):
    await take(admin, "one")
    extra = {"snapname": "one"} if path == "/snapshot" else {}
    assert (await admin.task(method, VM + path, **extra))["exitstatus"] == outcome


async def test_the_present_s_name_is_reserved(admin, reason_of):
    response = await admin.ask("POST", f"{VM}/snapshot", snapname="current")
    assert reason_of(response) == "unable to use snapshot name 'current' (reserved name)"


async def test_a_storage_that_cannot_keep_disks_fails_the_task(admin, lab):
    guest = lab.state.guests[100]
    guest.config["scsi0"] = guest.config["scsi0"].replace(".qcow2", ".raw")
    assert (await take(admin, "one"))["exitstatus"] == "snapshot feature is not available"


async def test_a_locked_guest_is_left_alone(admin, lab):
    lab.state.guests[100].config["lock"] = "backup"
    assert (await take(admin, "one"))["exitstatus"] == "VM is locked (backup)"


async def test_a_snapshot_may_be_described_later(admin):
    await take(admin, "one")
    await admin.data("PUT", f"{VM}/snapshot/one/config", description="told later")
    assert (await admin.get(f"{VM}/snapshot"))[0]["description"] == "told later"
