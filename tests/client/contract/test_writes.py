"""Every write of the client, against the emulator of each version."""

import anyio
import pytest

from proxmox_client import (
    AgentRefused,
    BadParameters,
    Conflict,
    NotFound,
    OutdatedDigest,
    TaskFailed,
)
from proxmox_client.api.agent import text_of

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("vmid", "actions"),
    [
        (100, ["reset", "suspend", "resume", "reboot", "shutdown", "start", "stop"]),
        (104, ["reboot", "shutdown", "start", "stop"]),
    ],
    ids=["machine", "container"],
)
async def test_power_actions_change_the_state(vmid, actions, client):
    guest = await client.guest(vmid)
    with anyio.fail_after(20):
        for action in actions:
            assert (await (await guest.power(action)).wait()).ok
    assert (await guest.status()).status == "stopped"


async def test_starting_a_running_guest_fails(client):
    # Quirk 38: status 200 and a UPID don't mean success.
    with pytest.raises((TaskFailed, Conflict), match="already running"):
        await (await client.qemu("pve1", 100).power("start")).wait()


@pytest.mark.parametrize("vmid", [100, 104], ids=["machine", "container"])
async def test_a_snapshot_is_created_rolled_back_and_deleted(vmid, client, lab):
    # Quirk 27.
    lab.state.storages["shared"].type = "rbd"  # directory storage has no snapshots of containers
    guest = await client.guest(vmid)
    with anyio.fail_after(20):
        await (await guest.create_snapshot("one", description="first")).wait()
        await (await guest.create_snapshot("two")).wait()
        snapshots = {row.name: row for row in await guest.snapshots()}
        assert (set(snapshots), snapshots["two"].parent) == ({"one", "two"}, "one")
        assert snapshots["one"].description.strip() == "first"
        assert await guest.current_snapshot() == "two"
        await (await guest.rollback("two")).wait()
        for name in ("two", "one"):
            await (await guest.delete_snapshot(name)).wait()
        assert await guest.snapshots() == []


async def test_a_snapshot_with_memory_is_marked(client):
    guest = client.qemu("pve1", 100)
    await (await guest.create_snapshot("ram", include_memory=True)).wait()
    assert [row.with_memory for row in await guest.snapshots()] == [True]


async def test_missing_and_existing_snapshots_fail_in_the_task(client):
    # Quirk 38.
    guest = client.qemu("pve1", 100)
    await (await guest.create_snapshot("one")).wait()
    for write in (guest.create_snapshot("one"), guest.rollback("no"), guest.delete_snapshot("no")):
        with pytest.raises((TaskFailed, NotFound, Conflict)):
            await (await write).wait()


async def test_an_invalid_snapshot_name_is_reported(client):
    # Quirks 27 and 29.
    with pytest.raises(BadParameters) as caught:
        await client.qemu("pve1", 100).create_snapshot("1bad")
    assert set(caught.value.errors) == {"snapname"}
    with pytest.raises(Conflict, match="reserved"):
        await client.qemu("pve1", 100).create_snapshot("current")


async def test_a_migrated_virtual_machine_is_found_again(client):
    # Quirks 43 and 44.
    guest = await client.guest(100)
    with anyio.fail_after(20):
        await (await guest.migrate("pve3", online=True)).wait()
    assert (await guest.config()).name == "web-100"
    assert guest.node == "pve3"
    assert (await client.guest(100)).node == "pve3"


async def test_a_running_machine_needs_an_online_migration(client):
    # Quirk 44.
    with pytest.raises(Conflict, match="--online"):
        await client.qemu("pve1", 100).migrate("pve2")


async def test_a_container_is_migrated_with_a_restart(client):
    # Quirk 44.
    guest = await client.guest(104)
    with anyio.fail_after(20):
        await (await guest.migrate("pve1", restart=True)).wait()
    assert (await client.guest(104)).node == "pve1"


async def test_a_backup_is_created_listed_and_deleted(client):
    # Quirks 45 and 46.
    storage, percentages = client.storage("pve1", "shared"), []
    with anyio.fail_after(20):
        task = await client.node("pve1").vzdump(
            [100], storage="shared", mode="snapshot", compress="zstd", notes="before"
        )
        await task.wait(progress=lambda now: percentages.append(now.percent))
        (backup,) = await storage.content("backup", 100)
        assert (backup.vmid, backup.guest_type, backup.protected) == (100, "qemu", False)
        assert max(percent or 0 for percent in percentages) > 0
        deletion = await storage.delete(backup.volid)
        assert deletion is not None
        await deletion.wait()
    assert await storage.content("backup", 100) == []


async def test_a_protected_backup_is_not_deleted(client):
    # Quirk 38.
    storage = client.storage("pve1", "shared")
    with anyio.fail_after(20):
        task = await client.node("pve1").vzdump([100], storage="shared", protected=True)
        await task.wait()
        (backup,) = await storage.content("backup", 100)
        deletion = await storage.delete(backup.volid)
        assert deletion is not None
        with pytest.raises(TaskFailed):
            await deletion.wait()
    assert len(await storage.content("backup", 100)) == 1


async def test_an_image_is_downloaded_only_once(client, lab):
    # Quirk 47: for an existing file the task fails.
    url = "https://images.example/debian.iso"
    lab.state.downloads |= {url: 700 * 1024**2, "https://images.example/no": None}
    storage = client.storage("pve1", "local")
    with anyio.fail_after(20):
        assert (await client.node("pve1").url_metadata(url)).size == 700 * 1024**2
        await (await storage.download_url(url, "debian.iso")).wait()
        assert [volume.name for volume in await storage.content("iso")] == ["debian.iso"]
        with pytest.raises((TaskFailed, Conflict)):
            await (await storage.download_url(url, "debian.iso")).wait()
        with pytest.raises(TaskFailed):
            await (await storage.download_url("https://images.example/no", "no.iso")).wait()


async def test_a_download_needs_the_extension_of_an_image(client):
    # Quirk 47.
    with pytest.raises(BadParameters) as caught:
        await client.storage("pve1", "local").download_url("https://x/y", "y.exe")
    assert set(caught.value.errors) == {"filename"}


async def test_a_task_is_listed_followed_and_stopped(client):
    # Quirks 40 and 41.
    with anyio.fail_after(20):
        task = await client.node("pve1").vzdump([100], storage="shared")
        await task.stop()
        outcome = await task.outcome()
        assert (outcome.ok, outcome.exit_status) == (False, "unexpected status")
        rows = await client.node("pve1").tasks(vmid=100, type="vzdump")
        assert [row.upid for row in rows] == [task.upid.text]
        assert [line async for line in task.follow()] == outcome.log_tail
        assert await task.tail(1) == outcome.log_tail[-1:]


async def test_a_lock_is_not_removed_by_a_token(client, lab):
    # Quirk 36.
    lab.state.guests[100].config["lock"] = "backup"
    with pytest.raises(BadParameters) as caught:
        await client.qemu("pve1", 100).unlock()
    assert caught.value.errors == {"skiplock": "Only root may use this option."}
    assert lab.state.guests[100].lock == "backup"


async def test_an_unknown_task_is_not_found(client):
    upid = "UPID:pve1:0000AAAA:0000BBBB:6B02ABF1:qmstart:100:root@pam:"
    with pytest.raises((NotFound, BadParameters)):
        await client.task(upid).status()


@pytest.mark.parametrize("vmid", [100, 104], ids=["machine", "container"])
async def test_a_guest_is_destroyed_once_it_is_stopped(vmid, client, lab):
    # Quirk 48.
    guest = await client.guest(vmid)
    with pytest.raises(Conflict, match="is running"):
        await guest.destroy()
    with anyio.fail_after(20):
        await (await guest.power("stop")).wait()
        assert (await (await guest.destroy(purge=True)).wait()).ok
    assert vmid not in lab.state.guests


@pytest.mark.parametrize("vmid", [100, 104], ids=["machine", "container"])
async def test_a_backup_has_the_configuration_of_its_guest(vmid, client):
    guest = await client.guest(vmid)
    await guest.set_config({"description": "100 % of it:\nlines"})
    node = client.node(guest.node)
    await (await node.vzdump([vmid], storage="shared")).wait()
    (backup,) = await client.storage(guest.node, "shared").content("backup", vmid)
    inside, outside = await node.backup_config(backup.volid), await guest.config()
    assert type(inside) is type(outside)
    assert (inside.name, inside.memory_mb, inside.tags, inside.description) == (
        outside.name,
        outside.memory_mb,
        outside.tags,
        outside.description,
    )
    assert [disk.volume for disk in inside.disks] == [disk.volume for disk in outside.disks]


@pytest.mark.parametrize("vmid", [100, 104], ids=["machine", "container"])
async def test_a_configuration_is_written_for_its_digest_only(vmid, client):
    guest = await client.guest(vmid)
    before = (await guest.configs()).current
    await guest.set_config({"description": "new"}, digest=before.digest)
    with pytest.raises(OutdatedDigest):
        await guest.set_config({"description": "other"}, digest=before.digest)
    await guest.set_config({"startup": "order=1"}, delete=["description"])
    after = (await guest.configs()).current
    assert (after.description, after.startup) == (None, "order=1")


@pytest.mark.parametrize(
    ("vmid", "disk", "action"), [(100, "scsi0", "stop"), (104, "rootfs", "stop")]
)
async def test_a_disk_grows_and_moves(vmid, disk, action, client):
    guest = await client.guest(vmid)
    await (await guest.power(action)).wait()
    before = {each.id: each for each in (await guest.configs()).disks}[disk]
    await (await guest.resize_disk(disk, "+1G")).wait()
    target = "local" if before.storage != "local" else "shared"
    await (await guest.move_disk(disk, target, delete=True)).wait()
    after = {each.id: each for each in (await guest.configs()).disks}[disk]
    assert (after.size, after.storage) == (before.size + 2**30, target)


async def test_a_template_is_cloned_and_set_up(client, lab):
    guest = client.qemu("pve1", 100)
    await (await guest.power("stop")).wait()
    lab.state.guests[100].config["template"] = 1
    assert (await (await guest.clone(150, name="copy", description="x")).wait()).ok
    copy = client.qemu("pve1", 150)
    before = await copy.config()
    await copy.set_config({"cores": 4, "tags": "b;a"}, digest=before.digest)
    after = await copy.config()
    assert (after.name, after.cores, after.tag_list) == ("copy", 4, ["a", "b"])
    with pytest.raises(Conflict, match="checksum mismatch"):
        await copy.set_config({"cores": 2}, digest=before.digest)
    await copy.set_config({}, delete=["description", "tags"])
    assert (await copy.config()).tag_list == []
    with pytest.raises(Conflict, match="already exists"):
        await guest.clone(150)


async def test_guests_are_created(client):
    node = client.node("pve1")
    assert (await (await node.create_qemu(160, {"name": "new", "scsi0": "shared:1"})).wait()).ok
    options = {"hostname": "ct", "ostemplate": "local:vztmpl/a.tar.zst", "rootfs": "shared:1"}
    with pytest.raises(Conflict, match="already exists"):
        await node.create_lxc(160, options)


async def test_a_program_in_a_guest_is_started_and_read_once_it_has_ended(client, lab):
    guest = client.qemu("pve1", 100)
    # Quirk 17: the command is repeated fields.
    ended = await guest.agent_exec_status(await guest.agent_exec(["echo", "größer", ""]))
    assert (ended.exited, ended.exit_code, ended.stdout, ended.stderr) == (True, 0, "größer \n", "")
    failed = await guest.agent_exec_status(await guest.agent_exec(["false"]))
    assert (failed.exit_code, failed.stderr) == (1, "failed\n")
    running = await guest.agent_exec_status(await guest.agent_exec(["sleep", "60"]))
    assert (running.exited, running.exit_code) == (False, None)
    with pytest.raises(AgentRefused, match="PID 9999 does not exist"):
        await guest.agent_exec_status(9999)
    lab.refuse_agent(100, ["exec"])
    with pytest.raises(AgentRefused, match="guest-exec has been disabled"):
        await guest.agent_exec(["echo"])


async def test_a_file_in_a_guest_is_read(client, lab, version):
    guest, path = client.qemu("pve1", 100), "/etc/motd"
    lab.state.guests[100].agent.files[path] = "Grüße\n"
    assert (await guest.agent_read_file(path)).text == "Grüße\n"
    if version != "8.4":
        begun = await guest.agent_read_file(path, count=3)  # within the second character
        assert (begun.text, begun.truncated) == ("Gr", True)
    with pytest.raises(AgentRefused, match="No such file"):
        await guest.agent_read_file("/etc/nope")


@pytest.mark.parametrize(
    ("content", "text"),
    [("GrÃ¼Ã\x9fe", "Grüße"), ("Ã", ""), ("\xff\xfe", "\xff\xfe"), ("你", "你"), ("", "")],
    ids=["utf-8", "cut off", "bytes", "decoded already", "empty"],
)
def test_bytes_of_the_agent_are_read_as_text(content, text):
    assert text_of(content) == text
