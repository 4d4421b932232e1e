"""Guests: power, pending changes, creation, clone, disks, agent and HA."""

import pytest

from proxmox_client.emulator import Emulator, ManualClock, Scenario
from proxmox_client.emulator.state.guest import Kind

pytestmark = pytest.mark.anyio
VM = "/nodes/pve1/qemu/100"
CT = "/nodes/pve2/lxc/104"
MISSING = "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"


async def status(admin, path=VM):
    return await admin.get(f"{path}/status/current")


async def test_a_guest_stops_and_starts(admin):
    assert (await admin.task("POST", f"{VM}/status/stop"))["exitstatus"] == "OK"
    stopped = await status(admin)
    assert (stopped["status"], stopped["uptime"], stopped["cpu"]) == ("stopped", 0, 0)
    assert (await admin.task("POST", f"{VM}/status/start"))["exitstatus"] == "OK"
    assert (await status(admin))["qmpstatus"] == "running"


async def test_starting_a_running_guest_fails_in_the_task(admin):
    result = await admin.task("POST", f"{VM}/status/start")
    assert result["exitstatus"] == "VM 100 already running"
    assert await admin.log(result["upid"]) == ["TASK ERROR: VM 100 already running"]


async def test_starting_a_missing_guest_fails_in_the_task(admin):
    result = await admin.task("POST", "/nodes/pve1/qemu/999/status/start")
    assert result["exitstatus"] == MISSING


async def test_a_guest_exists_on_its_node_only(admin, reason_of):
    response = await admin.request("GET", "/nodes/pve2/qemu/100/config")
    assert response.status_code == 500
    assert "nodes/pve2/qemu-server/100.conf' does not exist" in reason_of(response)


async def test_a_hanging_guest_cannot_be_shut_down(admin, lab):
    lab.state.guests[100].honors_shutdown = False
    result = await admin.task("POST", f"{VM}/status/shutdown", timeout=2)
    assert result["exitstatus"] == "VM quit/powerdown failed - got timeout"
    assert (await status(admin))["status"] == "running"
    assert (await admin.task("POST", f"{VM}/status/shutdown", timeout=2, forceStop=1))[
        "exitstatus"
    ] == "OK"
    assert (await status(admin))["status"] == "stopped"


async def test_a_reset_restarts_uptime_and_a_hanging_guest(admin, lab):
    lab.state.guests[100].honors_shutdown = False
    before = (await status(admin))["uptime"]
    await admin.task("POST", f"{VM}/status/reset")
    assert (await status(admin))["uptime"] < before
    assert lab.state.guests[100].honors_shutdown


async def test_a_paused_guest_runs_after_resume(admin):
    await admin.task("POST", f"{VM}/status/suspend")
    assert (await status(admin))["qmpstatus"] == "paused"
    await admin.task("POST", f"{VM}/status/resume")
    assert (await status(admin))["qmpstatus"] == "running"


async def test_a_guest_suspended_to_disk_is_locked_until_it_resumes(admin):
    await admin.task("POST", f"{VM}/status/suspend", todisk=1)
    assert (await status(admin))["lock"] == "suspended"
    await admin.task("POST", f"{VM}/status/resume")
    resumed = await status(admin)
    assert (resumed["status"], "lock" in resumed) == ("running", False)


@pytest.mark.parametrize("action", ["reset", "suspend", "reboot"])
async def test_actions_on_a_stopped_guest_are_refused_at_once(admin, reason_of, action):
    await admin.task("POST", f"{VM}/status/stop")
    response = await admin.request("POST", f"{VM}/status/{action}")
    assert (response.status_code, reason_of(response)) == (500, "VM 100 not running")


async def test_a_task_takes_time_and_can_be_observed():
    clock = ManualClock()
    async with Emulator(Scenario.cluster("lab"), clock=clock) as pve:
        cluster = pve["lab"]
        guest = cluster.state.guests[100]
        from proxmox_client.emulator.tasks import power

        upid = cluster.tasks.start("pve1", "qmstop", "100", "root@pam", power.stop(guest))
        task = cluster.state.tasks[upid]
        await clock.advance(0.5)
        assert (task.running, guest.status) == (True, "running")
        await clock.advance(1)
        assert (task.outcome, guest.status) == ("OK", "stopped")


async def test_changes_without_hotplug_are_pending_until_the_stop(admin):
    await admin.data("PUT", f"{VM}/config", memory=8192, description="now")
    rows = {row["key"]: row for row in await admin.get(f"{VM}/pending")}
    assert rows["memory"] == {"key": "memory", "value": "4096", "pending": "8192"}
    assert rows["description"] == {"key": "description", "value": "now"}
    assert (await admin.get(f"{VM}/config"))["memory"] == "8192"
    assert (await admin.get(f"{VM}/config", current=1))["memory"] == "4096"
    await admin.task("POST", f"{VM}/status/stop")
    assert (await status(admin))["maxmem"] == 8192 * 1024**2
    assert "pending" not in str(await admin.get(f"{VM}/pending"))


async def test_a_pending_change_can_be_reverted(admin):
    await admin.data("PUT", f"{VM}/config", memory=8192)
    await admin.data("PUT", f"{VM}/config", revert="memory")
    assert (await admin.get(f"{VM}/config"))["memory"] == "4096"


async def pending(admin, path=VM):
    """Return the rows of options with pending changes."""
    rows = await admin.get(f"{path}/pending")
    return {row.pop("key"): row for row in rows if "pending" in row or "delete" in row}


async def test_removing_a_boot_disk_takes_it_out_of_the_boot_order(admin, lab):
    guest = lab.state.guests[100]
    guest.config["hotplug"] = "0"
    await admin.data("PUT", f"{VM}/config", delete="scsi0")
    rows = await pending(admin)
    assert rows["boot"] == {"value": "order=scsi0;net0", "pending": "order=net0"}
    await admin.data("PUT", f"{VM}/config", revert="scsi0,boot")
    assert await pending(admin) == {}


async def test_a_disk_in_use_again_is_unused_no_longer(admin, lab):
    guest = lab.state.guests[100]
    await admin.data("PUT", f"{VM}/config", scsi3="local:1")
    volid = guest.config["scsi3"].partition(",")[0]
    await admin.data("PUT", f"{VM}/config", delete="scsi3")
    assert guest.config["unused0"] == volid
    await admin.data("PUT", f"{VM}/config", scsi4=f"{volid},ssd=1,discard=on")
    assert guest.config["scsi4"] == f"{volid},discard=on,size=1G,ssd=1"
    assert "unused0" not in guest.config
    missing = "local:100/vm-100-disk-77.qcow2"
    answer = await admin.request("PUT", f"{VM}/config", scsi5=missing)
    assert answer.json()["message"] == f"volume '{missing}' does not exist\n"


async def test_a_pending_disk_that_is_removed_becomes_unused(admin, lab):
    guest = lab.state.guests[100]
    guest.config["hotplug"] = "0"
    await admin.data("PUT", f"{VM}/config", scsi3="local:1")
    volid = guest.pending["scsi3"].partition(",")[0]
    await admin.data("PUT", f"{VM}/config", delete="scsi3")
    assert (guest.pending, guest.config["unused0"]) == ({}, volid)


@pytest.mark.parametrize(
    ("path", "option", "hotplug"),
    [(VM, "scsi1", "0"), (VM, "scsi1", "network,usb"), (VM, "ide2", None), (CT, "mp0", None)],
    ids=["hotplug off", "hotplug without disks", "a bus without hotplug", "a container"],
)
async def test_removing_a_disk_without_hotplug_is_pending(admin, lab, path, option, hotplug):
    guest = lab.state.guests[int(path.rpartition("/")[2])]
    if hotplug is not None:
        guest.config["hotplug"] = hotplug
    volume = guest.config.setdefault(option, f"shared:{guest.vmid}/vm-{guest.vmid}-disk-7.raw")
    await admin.data("PUT", f"{path}/config", delete=option)
    assert await pending(admin, path) == {option: {"value": volume, "delete": 1}}
    assert option not in await admin.get(f"{path}/config")
    assert (await admin.get(f"{path}/config", current=1))[option] == volume
    await admin.data("PUT", f"{path}/config", revert=option)
    assert (await admin.get(f"{path}/config"))[option] == volume
    assert await pending(admin, path) == {}


async def test_a_removed_disk_becomes_unused_when_the_guest_stops(admin, lab):
    lab.state.guests[100].config["hotplug"] = "0"
    volid = lab.state.guests[100].config["scsi0"].partition(",")[0]
    await admin.data("PUT", f"{VM}/config", delete="scsi0")
    await admin.task("POST", f"{VM}/status/stop")
    config = await admin.get(f"{VM}/config", current=1)
    assert ("scsi0" in config, config["unused0"]) == (False, volid)


async def test_a_forced_removal_deletes_the_volume_at_the_stop(admin, lab):
    lab.state.guests[100].config["hotplug"] = "0"
    volid = lab.state.guests[100].config["scsi0"].partition(",")[0]
    await admin.data("PUT", f"{VM}/config", delete="scsi0", force=1)
    assert (await pending(admin))["scsi0"]["delete"] == 2
    await admin.task("POST", f"{VM}/status/stop")
    assert "unused0" not in await admin.get(f"{VM}/config")
    assert volid not in lab.state.storages["shared"].volumes("pve1")


async def test_a_hotplugged_disk_is_added_and_removed_at_once(admin):
    await admin.data("PUT", f"{VM}/config", scsi5="shared:1")
    volid = (await admin.get(f"{VM}/config", current=1))["scsi5"].partition(",")[0]
    await admin.data("PUT", f"{VM}/config", delete="scsi5")
    config = await admin.get(f"{VM}/config", current=1)
    assert ("scsi5" in config, config["unused0"]) == (False, volid)
    assert await pending(admin) == {}


async def test_a_pending_disk_is_allocated_immediately(admin, lab):
    lab.state.guests[100].config["hotplug"] = "0"
    await admin.data("PUT", f"{VM}/config", scsi5="shared:1")
    disk = (await pending(admin))["scsi5"]["pending"]
    assert disk.partition(",")[0] in lab.state.storages["shared"].volumes("pve1")
    assert "scsi5" not in await admin.get(f"{VM}/config", current=1)
    assert (await admin.get(f"{VM}/config"))["scsi5"] == disk


async def test_container_memory_applies_at_once_and_features_are_pending(admin):
    await admin.data("PUT", f"{CT}/config", memory=1024, features="keyctl=1")
    assert (await admin.get(f"{CT}/config", current=1))["memory"] == 1024
    assert set(await pending(admin, CT)) == {"features"}


NET = "virtio=BC:24:11:00:00:64,bridge=vmbr0"


@pytest.mark.parametrize(
    ("path", "hotplug", "change", "waits"),
    [
        (VM, "0", {"net0": f"{NET},tag=7,rate=5,firewall=1"}, False),
        (VM, "0", {"net0": "e1000=BC:24:11:00:00:64,bridge=vmbr0"}, True),
        (VM, "0", {"net1": "virtio,bridge=vmbr0"}, True),
        (VM, "network", {"net1": "virtio,bridge=vmbr0"}, False),
        (VM, "memory", {"memory": 8192}, False),
        (VM, "cpu", {"cores": 8}, True),
        (VM, "1", {"agent": "0"}, True),
        (VM, "1", {"balloon": 1024}, False),
        (VM, "1", {"balloon": 0}, True),
        (VM, "0", {"ciuser": "admin", "ipconfig0": "ip=dhcp"}, False),
        (CT, None, {"nameserver": "1.1.1.1"}, True),
        (CT, None, {"cores": 2, "hostname": "new"}, False),
    ],
)
async def test_what_waits_for_a_restart(admin, lab, path, hotplug, change, waits):
    guest = lab.state.guests[int(path.rpartition("/")[2])]
    if hotplug is not None:
        guest.config |= {"hotplug": hotplug, "net0": NET}
    await admin.data("PUT", f"{path}/config", **change)
    assert (await pending(admin, path)).keys() == (change.keys() if waits else set())


async def test_the_password_of_cloud_init_is_not_shown(admin):
    await admin.data("PUT", f"{VM}/config", cipassword="hunter2-hunter2")
    config = await admin.get(f"{VM}/config")
    rows = {row["key"]: row for row in await admin.get(f"{VM}/pending")}
    assert (config["cipassword"], rows["cipassword"]["value"]) == ("*" * 10, "*" * 10)


async def test_an_outdated_digest_is_refused(admin, reason_of):
    digest = (await admin.get(f"{VM}/config"))["digest"]
    await admin.data("PUT", f"{VM}/config", description="first", digest=digest)
    outdated = await admin.request("PUT", f"{VM}/config", description="second", digest=digest)
    assert reason_of(outdated) == "checksum mismatch (file change by other user?)"


async def test_tags_are_normalized(admin):
    await admin.data("PUT", f"{VM}/config", tags="B a,c;a")
    assert (await admin.get(f"{VM}/config"))["tags"] == "a;b;c"


async def test_resources_reflect_every_change(admin):
    await admin.data("PUT", f"{VM}/config", name="renamed", tags="new")
    await admin.task("POST", f"{VM}/status/stop")
    row = next(row for row in await admin.get("/cluster/resources") if row.get("vmid") == 100)
    assert (row["name"], row["tags"], row["status"], row["uptime"]) == (
        "renamed",
        "new",
        "stopped",
        0,
    )


async def test_a_guest_is_created_and_destroyed_with_its_disk(admin, lab):
    params = {"vmid": 500, "name": "new", "scsi0": "shared:8", "net0": "virtio,bridge=vmbr0"}
    assert (await admin.task("POST", "/nodes/pve2/qemu", **params))["exitstatus"] == "OK"
    config = await admin.get("/nodes/pve2/qemu/500/config")
    assert config["scsi0"] == "shared:500/vm-500-disk-0.qcow2,size=8G"
    assert config["net0"].startswith("virtio=BC:24:11:")
    volumes = await admin.get("/nodes/pve2/storage/shared/content", vmid=500)
    assert [row["volid"] for row in volumes] == ["shared:500/vm-500-disk-0.qcow2"]
    await admin.task("DELETE", "/nodes/pve2/qemu/500")
    assert 500 not in lab.state.guests
    assert await admin.get("/nodes/pve2/storage/shared/content", vmid=500) == []


async def test_a_vmid_in_use_is_refused(admin, reason_of):
    response = await admin.request("POST", "/nodes/pve2/qemu", vmid=100)
    assert "VM 100 already exists on node 'pve1'" in reason_of(response)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        ({"protection": 1}, "can't remove VM 100 - protection mode enabled"),
        ({}, "VM 100 is running - destroy failed"),
    ],
)
async def test_protected_and_running_guests_are_not_destroyed(admin, reason_of, prepare, reason):
    if prepare:
        await admin.data("PUT", f"{VM}/config", **prepare)
    assert reason_of(await admin.request("DELETE", VM)) == reason


async def test_a_template_with_linked_clones_cannot_be_removed(admin):
    await admin.task("POST", f"{VM}/status/stop")
    await admin.task("POST", f"{VM}/template")
    await admin.task("POST", f"{VM}/clone", newid=150)
    task = await admin.task("DELETE", VM)
    assert task["exitstatus"].endswith("is still in use by linked cloned")
    await admin.task("DELETE", "/nodes/pve1/qemu/150")
    assert (await admin.task("DELETE", VM))["exitstatus"] == "OK"


async def test_a_template_can_be_cloned_but_not_started(admin):
    await admin.task("POST", f"{VM}/status/stop")
    await admin.task("POST", f"{VM}/template")
    assert "base-100-disk-0" in (await admin.get(f"{VM}/config"))["scsi0"]
    result = await admin.task("POST", f"{VM}/status/start")
    assert result["exitstatus"] == "you can't start a vm if it's a template"
    await admin.task("POST", f"{VM}/clone", newid=600, name="copy", target="pve2")
    config = await admin.get("/nodes/pve2/qemu/600/config")
    assert (config["name"], "template" in config) == ("copy", False)


async def test_a_disk_can_grow_but_not_shrink(admin):
    await admin.task("PUT", f"{VM}/resize", disk="scsi0", size="+8G")
    assert (await status(admin))["maxdisk"] == 40 * 1024**3
    result = await admin.task("PUT", f"{VM}/resize", disk="scsi0", size="1G")
    assert result["exitstatus"] == "shrinking disks is not supported"


async def test_the_agent_responds_if_enabled_and_running(admin, lab, reason_of):
    info = await admin.get(f"{VM}/agent/get-osinfo")
    assert info["result"]["id"] == "debian"
    lab.state.guests[100].agent.answers = False
    assert reason_of(await admin.request("GET", f"{VM}/agent/get-osinfo")) == (
        "QEMU guest agent is not running"
    )
    lab.state.guests[100].config["agent"] = "0"
    assert (
        reason_of(await admin.request("POST", f"{VM}/agent/ping"))
        == "No QEMU guest agent configured"
    )


async def test_the_ha_manager_stops_a_managed_guest_later(admin, lab):
    await admin.data("POST", "/cluster/ha/resources", sid="vm:100")
    upid = await admin.data("POST", f"{VM}/status/stop")
    assert ":hastop:100:" in upid
    await lab.tasks.settle()
    assert (await status(admin))["status"] == "stopped"
    kinds = {task.type for task in lab.state.tasks.values()}
    assert {"hastop", "qmstop"} <= kinds


async def test_containers_have_their_own_messages_and_types(admin, lab, reason_of):
    guest = next(guest for guest in lab.state.guests.values() if guest.kind is Kind.LXC)
    path = f"/nodes/{guest.node}/lxc/{guest.vmid}"
    if guest.running:
        await admin.task("POST", f"{path}/status/stop")
    response = await admin.request("POST", f"{path}/status/stop")
    assert reason_of(response) == f"CT {guest.vmid} not running"
    result = await admin.task("POST", f"{path}/status/start")
    assert (result["type"], result["exitstatus"]) == ("vzstart", "OK")
    current = await status(admin, path)
    assert isinstance(current["pressurecpusome"], str)
    assert isinstance(current["maxswap"], int)


async def test_a_container_without_a_limit_has_the_processors_of_its_node(admin, lab):
    guest = lab.state.guests[104]
    for config, processors in (
        ({"cores": 3, "cpulimit": "1.5"}, 3),
        ({"cpulimit": "1.5"}, 1.5),
        ({"cpulimit": "0"}, lab.state.nodes["pve2"].cpus),
        ({}, lab.state.nodes["pve2"].cpus),
    ):
        guest.config = {k: v for k, v in guest.config.items() if k not in ("cores", "cpulimit")}
        guest.config |= config
        guest.touch()
        assert (await status(admin, CT))["cpus"] == processors


async def test_a_node_in_ha_maintenance_has_a_row_in_the_status(admin, lab):
    lab.state.nodes["pve2"].maintenance = True
    rows = await admin.get("/cluster/ha/status/current")
    (agent,) = (row for row in rows if row["type"] == "lrm")
    assert (agent["id"], agent["node"]) == ("lrm:pve2", "pve2")
    assert agent["status"].startswith("pve2 (maintenance mode, ")


async def test_a_clone_has_an_identity_and_a_cloud_init_drive_of_its_own(admin):
    await admin.task("POST", f"{VM}/status/stop")
    await admin.data("PUT", f"{VM}/config", ide2="shared:cloudinit", ciuser="admin")
    await admin.task("POST", f"{VM}/snapshot", snapname="before")
    await admin.data("PUT", f"{VM}/config", cores=7)
    await admin.task("POST", f"{VM}/clone", newid=600, snapname="before", full=1)
    source, copy = [await admin.get(f"/nodes/pve1/qemu/{n}/config") for n in (100, 600)]
    assert copy["ide2"] == "shared:600/vm-600-cloudinit.qcow2,media=cdrom"
    assert (copy["ciuser"], copy["cores"]) == ("admin", 2)
    for option in ("net0", "smbios1", "vmgenid"):
        assert copy[option] != source[option]
    assert copy["net0"].partition(",")[2] == source["net0"].partition(",")[2]


async def test_a_linked_clone_is_named_after_its_base(admin):
    await admin.task("POST", f"{VM}/status/stop")
    await admin.task("POST", f"{VM}/template")
    await admin.task("POST", f"{VM}/clone", newid=600)
    disk = (await admin.get("/nodes/pve1/qemu/600/config"))["scsi0"].partition(",")[0]
    assert disk == "shared:100/base-100-disk-0.qcow2/600/vm-600-disk-0.qcow2"


@pytest.mark.parametrize(
    ("path", "options", "volid"),
    [
        ("qemu", {"ide2": "local:iso/none.iso,media=cdrom"}, "local:iso/none.iso"),
        ("qemu", {"scsi0": "shared:0,import-from=local:import/no.raw"}, "local:import/no.raw"),
        ("lxc", {"ostemplate": "local:vztmpl/no.tar.zst"}, "local:vztmpl/no.tar.zst"),
    ],
)
async def test_a_creation_from_a_missing_file_fails_in_the_task(admin, lab, path, options, volid):
    result = await admin.task("POST", f"/nodes/pve1/{path}", vmid=700, **options)
    word = "VM" if path == "qemu" else "CT"
    assert result["exitstatus"] == f"unable to create {word} 700 - volume '{volid}' does not exist"
    assert 700 not in lab.state.guests
