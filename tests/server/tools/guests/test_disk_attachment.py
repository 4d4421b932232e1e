"""AttachDisk and DetachDisk: plans, refusals, what is pending, and the way back."""

import pytest
from tests.server.tools.tool_client import PACE, ToolClient, offered, open_tool_client

from proxmox_client.emulator import Clock, Scenario
from proxmox_client.emulator.state.guest import Kind
from proxmox_client.emulator.state.storage import Volume
from pvemcp_server.access.model import Resources
from pvemcp_server.mcp.elicitation import Decision

pytestmark = pytest.mark.anyio

GIB = 1 << 30
VM = {"cluster_name": "lab", "vmid": 100}
EACH_VERSION = pytest.mark.parametrize("_client", ["8.4", "9.2"], indirect=True)


@pytest.fixture(scope="module")
async def _client(anyio_backend, request):
    scenario = Scenario.cluster("lab", nodes=2, guests=6, version=getattr(request, "param", "9.2"))
    async with open_tool_client(scenario, Clock(PACE)) as client:
        yield client


@pytest.fixture
async def client(_client):
    """Yield a client on a cluster whose guests have their configuration again after the test."""
    state = _client["lab"].emulated.state
    before = {g.vmid: (g.status, dict(g.config)) for g in state.guests.values()}
    client = ToolClient(_client.clusters)
    guest = state.guests[100]
    guest.status = "running"
    guest.snapshots.clear()
    guest.touch()
    client.refresh()
    client.requests("lab")
    yield client
    await _client["lab"].emulated.tasks.settle()
    for vmid, (status, config) in before.items():
        guest = state.guests[vmid]
        guest.status, guest.config = status, config
        guest.pending.clear()
        guest.removals.clear()
        guest.touch()
    _client.refresh()


def guest_of(client, vmid=100):
    return client["lab"].emulated.state.guests[vmid]


def container(client, *, running):
    """Return a container, running or stopped."""
    guest = next(g for g in client["lab"].emulated.state.guests.values() if g.kind is Kind.LXC)
    guest.status = "running" if running else "stopped"
    guest.touch()
    client.refresh()
    return guest


def sent(client):
    return [r for r in client.requests("lab") if not r.startswith("GET")]


async def undone(client, answer):
    """Make the call that an answer offers to undo a write."""
    tool, arguments = offered(answer.data["undo"])
    undo = await client(tool, **arguments, wait=True)
    assert not undo.failed, undo.text
    return undo


@EACH_VERSION
async def test_a_new_disk_is_attached_and_detached_again(client):
    guest = guest_of(client)
    guest.config["cipassword"] = "**********"  # a secret that stays is no change
    call = {**VM, "volume": "shared:8,discard=on"}
    plan = (await client("AttachDisk", **call, dry_run=True)).data
    assert plan["would"] == (
        "Attach a new disk of 8.0 GiB on shared to qemu 100 (web-100) on lab as scsi1 "
        "(discard=on). At once."
    )
    assert "this takes up to 8.0 GiB" in plan["room"]
    answer = await client("AttachDisk", **call, wait=True)
    assert answer.data["pending"] == []
    assert answer.data["in_force"] == [f"scsi1 → {guest.config['scsi1']}"]
    assert guest.config["scsi1"].endswith(",discard=on,size=8G")
    assert sent(client) == ["POST /nodes/pve1/qemu/100/config"]
    volid = guest.config["scsi1"].partition(",")[0]
    await undone(client, answer)
    assert "scsi1" not in guest.config
    assert guest.config["unused0"] == volid


@EACH_VERSION
async def test_detaching_keeps_the_volume_and_its_options_come_back(client):
    guest = guest_of(client)
    await client("AttachDisk", **VM, volume="shared:4,cache=writeback,ssd=1", wait=True)
    value = guest.config["scsi1"]
    volid = value.partition(",")[0]
    plan = (await client("DetachDisk", **VM, disk="scsi1", dry_run=True)).data["would"]
    assert f"Detach scsi1 ({volid}, 4.0 GiB) from qemu 100" in plan
    assert "nothing is deleted" in plan
    assert client.conversation.questions == []
    answer = await client("DetachDisk", **VM, disk="scsi1")
    assert client.conversation.questions == [plan]
    assert f"unused0 → {volid}" in answer.data["in_force"]
    assert volid in client["lab"].emulated.state.storages["shared"].volumes(guest.node)
    await undone(client, answer)
    assert sorted(guest.config["scsi1"].split(",")) == sorted(value.split(","))
    assert "unused0" not in guest.config


@pytest.mark.parametrize("options", [{"hotplug": "0"}, {"hotplug": "network,usb"}])
async def test_what_cannot_be_unplugged_stays_pending_and_can_be_dropped(client, options):
    guest = guest_of(client)
    await client("AttachDisk", **VM, volume="shared:4", wait=True)
    guest.config |= options
    guest.touch()
    plan = (await client("DetachDisk", **VM, disk="scsi1", dry_run=True)).data["would"]
    assert plan.endswith("It waits for a restart of the guest.")
    answer = await client("DetachDisk", **VM, disk="scsi1")
    assert client.conversation.questions == [], "nothing is lost yet"
    assert answer.data["in_force"] == []
    assert answer.data["pending"] == [f"scsi1: {guest.config['scsi1']} → removed"]
    assert "Pending changes take effect when" in answer.notes
    assert "is detached when" in await client.refused("DetachDisk", **VM, disk="scsi1")
    await undone(client, answer)
    assert guest.removals == {}


async def test_a_disk_that_waits_for_a_restart_is_detached_before_it(client):
    guest = guest_of(client)
    guest.config["hotplug"] = "0"
    guest.touch()
    answer = await client("AttachDisk", **VM, volume="shared:4", wait=True)
    assert (answer.data["in_force"], len(answer.data["pending"])) == ([], 1)
    volid = guest.pending["scsi1"].partition(",")[0]
    await undone(client, answer)
    assert (guest.pending, guest.config["unused0"]) == ({}, volid)


async def test_a_container_mounts_a_disk_at_once_and_keeps_it_until_it_stops(client):
    guest = container(client, running=True)
    call = {"cluster_name": "lab", "vmid": guest.vmid}
    error = await client.refused("AttachDisk", **call, volume="shared:4")
    assert "a container needs the path" in error
    plan = await client("AttachDisk", **call, volume="shared:4,mp=/srv", dry_run=True)
    assert plan.data["would"].endswith("as mp0 (mp=/srv). At once.")
    answer = await client("AttachDisk", **call, volume="shared:4,mp=/srv", wait=True)
    assert answer.data["pending"] == []
    assert "is mounted on /srv" in await client.refused(
        "AttachDisk", **call, volume="shared:4,mp=/srv"
    )
    detached = await client("DetachDisk", **call, disk="mp0")
    assert (detached.data["in_force"], len(detached.data["pending"])) == ([], 1)
    await undone(client, detached)
    container(client, running=False)
    detached = await client("DetachDisk", **call, disk="mp0")
    assert "mp=/srv" in offered(detached.data["undo"])[1]["volume"]
    await undone(client, detached)
    assert "mp=/srv" in guest.config["mp0"]


async def test_a_boot_disk_is_detached_only_where_the_call_says_so(client):
    guest = guest_of(client)
    guest.status = "stopped"
    guest.touch()
    order, value = guest.config["boot"], guest.config["scsi0"]
    error = await client.refused("DetachDisk", **VM, disk="scsi0")
    assert error == (
        "qemu 100 (web-100) on lab boots from scsi0. Give boot_disk=true to detach it even so."
    )
    answer = await client("DetachDisk", **VM, disk="scsi0", boot_disk=True)
    assert "It does not boot from scsi0 any more." in client.conversation.questions[0]
    for call in answer.data["undo"].split("; "):
        tool, arguments = offered(call)
        assert not (await client(tool, **arguments)).failed
    assert (guest.config["boot"], guest.config["scsi0"].partition(",")[0]) == (
        order,
        value.partition(",")[0],
    )


async def test_a_volume_of_the_guest_that_no_option_names_is_attached_too(client):
    guest = guest_of(client)
    await client("AttachDisk", **VM, volume="shared:4", wait=True)
    volid = guest.config.pop("scsi1").partition(",")[0]
    guest.touch()
    answer = await client("AttachDisk", **VM, volume=volid, disk="virtio3")
    assert answer.data["disk"] == "virtio3"
    assert guest.config["virtio3"] == f"{volid},size=4G"
    assert "is virtio3 of" in await client.refused("AttachDisk", **VM, volume=volid)


REFUSED = [
    ("AttachDisk", {"volume": "unused7"}, "unused7 of qemu 100"),
    ("AttachDisk", {"volume": "shared:0"}, "a new disk has a size"),
    ("AttachDisk", {"volume": "unused3,format=qcow2"}, "only a new disk gets one"),
    ("AttachDisk", {"volume": "nothing:4"}, "No storage 'nothing'"),
    ("AttachDisk", {"volume": "shared:101/vm-101-disk-0.qcow2"}, "is no disk of qemu 100"),
    ("AttachDisk", {"volume": "nothing:vm-100-disk-0"}, "is no disk of qemu 100"),
    ("AttachDisk", {"volume": "/dev/sdb"}, "a volume is unused0"),
    ("AttachDisk", {"volume": "shared:4,import-from=shared:9"}, "a volume is unused0"),
    ("AttachDisk", {"volume": "shared:4,file=/dev/sdb"}, "file cannot be set here"),
    ("AttachDisk", {"volume": "shared:4,snapshot=1"}, "snapshot cannot be set here"),
    ("AttachDisk", {"volume": "shared:4,media=cdrom"}, "media cannot be set here"),
    ("AttachDisk", {"volume": "shared:4,mp=/srv"}, "mp cannot be set here"),
    ("AttachDisk", {"volume": "shared:4,cache=fast"}, "refuses it"),
    ("AttachDisk", {"volume": "shared:4", "disk": "scsi0"}, "has scsi0 already"),
    ("AttachDisk", {"volume": "shared:4", "disk": "scsi31"}, "takes no scsi31. It takes scsi0 to"),
    ("AttachDisk", {"volume": "shared:4", "disk": "net1"}, "takes no net1"),
    ("DetachDisk", {"disk": "scsi7"}, "has no disk scsi7. It has sata1"),
    ("DetachDisk", {"disk": "ide2"}, "has no disk ide2"),
    ("DetachDisk", {"disk": "unused3"}, "is detached already"),
    ("DetachDisk", {"disk": "sata1"}, "A change of sata1 is pending"),
    ("DetachDisk", {"disk": "sata2"}, "which no storage holds"),
]


async def test_what_cannot_be_attached_or_detached_is_refused_before_it_is_sent(client):
    guest = guest_of(client)
    guest.config |= {
        "ide2": "none,media=cdrom",
        "unused3": "shared:100/vm-100-disk-9.qcow2",
        "sata1": "shared:100/vm-100-disk-8.qcow2,size=1G",
        "sata2": "/dev/sdb,size=1G",
    }
    guest.pending["sata1"] = "shared:100/vm-100-disk-8.qcow2,discard=on,size=1G"
    guest.touch()
    for tool, arguments, words in REFUSED:
        error = await client.refused(tool, **VM, **arguments)
        assert words in error, (tool, arguments)
    guest.config["protection"] = 1
    guest.touch()
    assert "is in protection mode" in await client.refused("DetachDisk", **VM, disk="scsi0")
    rootfs = {"vmid": container(client, running=False).vmid, "disk": "rootfs"}
    assert "without its rootfs" in await client.refused("DetachDisk", **{**VM, **rootfs})
    assert sent(client) == []


async def test_a_configuration_that_changed_after_the_plan_is_not_written(client):
    guest = guest_of(client)
    await client("AttachDisk", **VM, volume="shared:4", wait=True)

    class Changing(type(client.conversation)):
        async def ask(self, question, _beside="", _digest=""):
            guest.config["description"] = "changed"
            guest.touch()
            return Decision.YES

    client.conversation = Changing()
    error = await client.refused("DetachDisk", **VM, disk="scsi1")
    assert "The configuration changed between the plan and the write" in error
    assert "scsi1" in guest.config


@pytest.mark.parametrize(
    "name", ["vm-100-state-before.raw", "vm-100-cloudinit.qcow2", "base-100-disk-7.qcow2"]
)
async def test_a_volume_of_the_guest_that_is_no_disk_is_not_attached(client, name):
    volid = f"shared:100/{name}"
    storage = client["lab"].emulated.state.storages["shared"]
    storage.put(guest_of(client).node, Volume(volid, "images", "raw", 1, 1, 100))
    error = await client.refused("AttachDisk", **VM, volume=volid)
    assert error == f"volume: {volid} holds RAM, cloud-init or a base image; it is no disk."
    assert sent(client) == []


async def test_a_hidden_storage_that_fails_is_answered_like_an_absent_one(client):
    own = client.scoped(Resources(vmids=frozenset({100})))
    client[VM["cluster_name"]].emulated.fault("error", path=".*/storage/shared/content")
    hidden = await own.refused("AttachDisk", **VM, volume="shared:100/vm-100-disk-7.qcow2")
    absent = await own.refused("AttachDisk", **VM, volume="nothing:100/vm-100-disk-7.qcow2")
    assert hidden.replace("shared", "nothing") == absent


async def test_a_new_disk_fills_a_granted_storage_only(client):
    own = Resources(vmids=frozenset({100}))
    call = {**VM, "volume": "shared:4", "dry_run": True}
    hidden = await client.scoped(own).refused("AttachDisk", **call)
    absent = await client.scoped(own).refused("AttachDisk", **{**call, "volume": "nothing:4"})
    assert "No storage 'shared'" in hidden
    assert hidden.replace("shared", "…") == absent.replace("nothing", "…")
    granted = client.scoped(own | Resources(target_storages=frozenset({"shared"})))
    assert (await granted("AttachDisk", **call)).data["dry_run"]
